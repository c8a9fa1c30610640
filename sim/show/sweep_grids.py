"""The grids of a sweep; terminal and report print the same ones, so they never state different numbers."""

from __future__ import annotations

from sim.show import sweeps
from sim.show.grid import Cell, Grid
from sim.show.sweeps import Point, Sweep, axis_label, cell, label, metric, value_label, values_text
from sim.units import show

_COLUMNS = 98  # of a terminal
_MOST_VALUES = 24  # of an axis that is told value by value


def grids(document: Sweep, *, most: int = 10, wide: bool = True) -> list[Grid]:
    """The ranking, what each axis costs, what cannot be and why, what would have to change.

    Where they are not to be `wide`, metrics beside the objectives are left out until a table reads in 100 columns.
    """
    shown = sweeps.columns(document)
    while True:
        found = [ranking(document, shown, most), costs(document, shown), refused(document), changes(document)]
        if wide or len(shown) <= len(document["objectives"]) or max(map(_width, found[:2])) <= _COLUMNS:
            return [grid.without_empty() for grid in found if grid.rows]
        shown = shown[:-1]


def _width(grid: Grid) -> int:
    rows = (grid.heads, *grid.rows)
    return sum(2 + max(len(row[i]) for row in rows) for i in range(len(grid.heads)))


def ranking(document: Sweep, shown: list[str], most: int) -> Grid:
    """The best points; the best few of each condition, where one axis is given."""
    axes, many = sweeps.varied(document), sweeps.conditions(document)
    fronts = (
        {id(document["points"][index]) for index in document["pareto"]}
        if len(document["objectives"]) > 1
        else set()
    )
    rows: list[tuple[Cell, ...]] = []
    breaks = []
    for condition in many:
        breaks.append(len(rows))
        here = sweeps.ranked(document, condition)
        for place, point in enumerate(here[: max(3, most // len(many))], start=1):
            rows.append(
                (
                    f"{place}{'*' if id(point) in fronts else ''}",
                    *(value_label(point["values"][axis]) for axis in axes),
                    *(cell(name, sweeps.raw_metric(point, name)) for name in shown),
                    sweeps.lag_cell(document, point),
                )
            )
    ran = len(document["ranked"])
    title = (
        f"The best {len(rows):,} of {ran:,} that ran"
        if ran > len(rows)
        else "Points that ran, the best first"
    )
    words = {i + 1 for i, axis in enumerate(axes) if isinstance(document["axes"][axis][0], str)}
    return Grid(
        title if many == [None] else f"The best for each {axis_label(str(document['given']))}",
        ("", *map(axis_label, axes), *map(label, shown), "to the best"),
        tuple(rows),
        words=frozenset({0, *words}),
        breaks=frozenset(breaks[1:]),
        note="*: no other point beats it" if fronts else "",
    )


def costs(document: Sweep, shown: list[str]) -> Grid:
    """What each value of each axis costs when all other axes are at their best."""
    many = sweeps.conditions(document)
    rows: list[tuple[Cell, ...]] = []
    breaks = []
    for axis in sweeps.choices(document) if document["ranked"] else ():
        if len(document["axes"][axis]) > _MOST_VALUES:
            continue
        breaks.append(len(rows))
        columns = [sweeps.marginals(document, axis, condition) for condition in many]
        for i, (value, point, count) in enumerate(columns[0]):
            head = (axis_label(axis), value)
            if many != [None]:
                rows.append((*head, *(_lag(document, column[i][1]) for column in columns)))
            elif point is None:
                rows.append((*head, "0", *("-" for _ in shown), "none can be"))
            else:
                told = (cell(name, sweeps.raw_metric(point, name)) for name in shown)
                rows.append((*head, f"{count:,}", *told, sweeps.lag_cell(document, point)))
    heads = (
        ("ran", *map(label, shown), "to the best")
        if many == [None]
        else tuple(sweeps.condition_text(document, one) for one in many)
    )
    return Grid(
        "What each choice costs, all others at their best", ("axis", "value", *heads), tuple(rows),
        words=frozenset({0, 1}), breaks=frozenset(breaks[1:]),
    )  # fmt: skip


def _lag(document: Sweep, point: Point | None) -> Cell:
    return "none can be" if point is None else sweeps.lag_cell(document, point)


def refused(document: Sweep) -> Grid:
    """Why points cannot be."""
    rows = tuple((kind, f"{count:,}", example) for kind, count, example in sweeps.reasons(document))
    return Grid("What cannot be, and why", ("reason", "points", "one of them"), rows, words=frozenset({0, 2}))


def changes(document: Sweep) -> Grid:
    """What would have to change for the points that lack memory alone."""
    axes, name = sweeps.varied(document), sweeps.objective(document)[0]
    rows = []
    for change in document["changes"][:8]:
        point, would = document["points"][change["point"]], metric(change, name)
        over = change["needed_bytes"] / change["capacity_bytes"] - 1
        parts = (f"{part} {show(size, 'bytes', 3)}" for part, size in list(change["parts"].items())[:2])
        leader = sweeps.best(document, sweeps.condition_of(document, point))
        top = metric(leader, name) if leader else None
        rows.append(
            (
                values_text(point, axes), show(change["needed_bytes"], "bytes", 3), f"{over:+.0%}", ", ".join(parts),
                cell(name, would), f"{would / top - 1:+.1%}" if top and would else "-",
            )
        )  # fmt: skip
    return Grid(
        "What would have to change: points that lack memory alone, and what they would reach with it",
        ("point", "needs a GPU", "more", "most of it", label(name), "to the best"), tuple(rows), words=frozenset({0, 3}),
    )  # fmt: skip
