"""The exchange of a ladder as tables: published designs, and time and ratio of every pair of values of its first two axes."""

from __future__ import annotations

from sim.show.grid import Cell, Grid
from sim.show.views.exchange import Design, Exchange
from sim.show.views.labels import axis_label
from sim.show.views.names import LABEL


def grids(exchange: Exchange) -> list[Grid]:
    """Return the tables that have rows."""
    return [grid for grid in (published_grid(exchange), map_grid(exchange)) if grid.rows]


def published_grid(exchange: Exchange) -> Grid:
    """Return a row for each published design: what it asks for, and its time on both machines."""
    metric = exchange.metric
    rows = tuple(
        (
            design.title,
            "no NIC bytes" if design.x is None else f"{design.x:.2f}",
            metric.cell(design.theirs_s),
            metric.cell(design.ours_s),
            ratio_cell(design),
            LABEL.get(design.binding, design.binding) or "-",
        )
        for design in exchange.published
    )
    heads = ("design", "NVLink / NIC bytes", exchange.reference, exchange.machine, "ratio", "binds")
    note = f"times: {metric.label}; binds: what dispatch waits for on {exchange.machine}"
    return Grid("Published designs", heads, rows, words=frozenset({0, 5}), note=note)


def ratio_cell(design: Design) -> Cell:
    """Return the time on the machine over that on the reference."""
    return "-" if design.ratio is None else f"{design.ratio:.3f}"


def map_grid(exchange: Exchange) -> Grid:
    """Return time and ratio by the first two axes, the other axes as the design has them."""
    across, down, cells = mapped(exchange)
    rows = tuple(
        (f"{axis_label(down)} {y}", *(_cell(exchange, cells.get((x, y))) for x in exchange.axes[across]))
        for y in exchange.axes[down]
    )
    heads = ("", *(f"{axis_label(across)} {x}" for x in exchange.axes[across]))
    note = f"{exchange.metric.label} on {exchange.machine}, and times that of {exchange.reference}"
    return Grid(
        "Time, and ratio: what is free is not fast", heads, rows if len(exchange.axes) > 1 else (), note=note
    )


def _cell(exchange: Exchange, design: Design | None) -> Cell:
    if design is None or design.ours_s is None:
        return "does not fit"
    return f"{exchange.metric.text(design.ours_s)}, {ratio_cell(design)}"


def mapped(exchange: Exchange) -> tuple[str, str, dict[tuple[object, object], Design]]:
    """Return the first two axes (one twice, where there is no other), and the design at each pair of their values."""
    names = list(exchange.axes)
    across, down = names[0], names[min(1, len(names) - 1)]
    held = {}
    for name in names[2:]:
        own, values = exchange.present.get(name), exchange.axes[name]
        held[name] = own if own in values else values[0]
    return (
        across,
        down,
        {
            (point.values[across], point.values[down]): point
            for point in exchange.points
            if all(point.values[name] == value for name, value in held.items())
        },
    )
