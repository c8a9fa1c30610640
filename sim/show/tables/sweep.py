"""The grids of a sweep; terminal and report print the same ones, so they never state different numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sim.show.grid import Cell, Grid
from sim.show.views import sweep as sweeps
from sim.show.views import sweep_reasons
from sim.show.views.sweep import Point, Sweep, axis_label, cell, label, metric, value_label, values_text
from sim.units import show

_COLUMNS = 98  # of a terminal
_MOST_VALUES = 24  # of an axis that is told value by value
_SIDE_BY_SIDE = 4  # conditions that are told next to one another
_MOST_CHANGES = 8
_CLOSE = (1.01, 1.05, 1.25)  # times the best, of what is enough


def grids(document: Sweep, *, most: int = 10, wide: bool = True) -> list[Grid]:
    """The ranking, what each axis costs, what cannot be and why, what would have to change.

    Where they are not to be `wide`, metrics beside the objectives are left out until a table reads in 100 columns.
    """
    shown = sweeps.columns(document)
    rest = [refused(document), changes(document)]
    while True:
        found = [ranking(document, shown, most), costs(document, shown)]
        if wide or len(shown) <= len(document["objectives"]) or max(map(_width, found)) <= _COLUMNS:
            return [grid.without_empty() for grid in (*found, *rest) if grid.rows]
        shown = shown[:-1]


def _width(grid: Grid) -> int:
    rows = (grid.heads, *grid.rows)
    return sum(2 + max(len(row[i]) for row in rows) for i in range(len(grid.heads)))


def ranking(document: Sweep, shown: list[str], most: int) -> Grid:
    """The best points; the best few of each condition, where one axis is given."""
    axes, many = sweeps.varied(document), sweeps.by_condition(document)
    several = len(document["objectives"]) > 1
    fronts = {id(document["points"][index]) for index in document["pareto"]} if several else set()
    rows: list[tuple[Cell, ...]] = []
    breaks = []
    each = max(3, most // len(many)) if len(many) <= _SIDE_BY_SIDE else 1
    for here in many.values():
        breaks.append(len(rows))
        for place, point in enumerate(here[:each], start=1):
            rows.append(
                (
                    f"{place}{'*' if id(point) in fronts else ''}" if each > 1 else "",
                    *(value_label(point["values"][axis]) for axis in axes),
                    *(cell(name, sweeps.raw_metric(point, name)) for name in shown),
                    sweeps.lag_cell(document, point) if each > 1 else "",
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
        title if list(many) == [()] else f"The best for each {sweeps.given_text(document)}",
        ("", *map(axis_label, axes), *map(label, shown), "to the best"),
        tuple(rows),
        words=frozenset({0, *words}),
        breaks=frozenset(breaks[1:] if each > 1 else ()),
        note=f"*: no other point{sweeps.of_given(document, 'its')} beats it" if fronts and each > 1 else "",
    )


def costs(document: Sweep, shown: list[str]) -> Grid:
    """What each value of each axis costs when all other axes are at their best; of many conditions, how little is enough."""
    points = sweeps.by_condition(document)
    many = list(points)
    if len(many) > _SIDE_BY_SIDE:
        return _least(document, points)
    rows: list[tuple[Cell, ...]] = []
    breaks = []
    for axis in sweeps.choices(document) if document["ranked"] else ():
        if len(document["axes"][axis]) > _MOST_VALUES:
            continue
        breaks.append(len(rows))
        columns = [sweeps.marginals(document, axis, here) for here in points.values()]
        for i, (value, point, count) in enumerate(columns[0]):
            head = (axis_label(axis), value)
            if many != [()]:
                rows.append((*head, *(_lag(document, column[i][1]) for column in columns)))
            elif point is None:
                rows.append((*head, "0", *("-" for _ in shown), "none can be"))
            else:
                told = (cell(name, sweeps.raw_metric(point, name)) for name in shown)
                rows.append((*head, f"{count:,}", *told, sweeps.lag_cell(document, point)))
    heads = (
        ("ran", *map(label, shown), "to the best")
        if many == [()]
        else tuple(sweeps.condition_text(document, one) for one in many)
    )
    return Grid(
        "What each choice costs, all others at their best", ("axis", "value", *heads), tuple(rows),
        words=frozenset({0, 1}), breaks=frozenset(breaks[1:]),
    )  # fmt: skip


def _least(document: Sweep, points: Mapping[sweeps.Condition, Sequence[Point]]) -> Grid:
    """For each condition the best, and the least of each choice that comes close to it; choice by choice, where there are several."""
    name, given = sweeps.objective(document)[0], document["given"]
    axes = [axis for axis in sweeps.choices(document) if all(map(sweeps.size, document["axes"][axis]))]
    many, leaders = list(points), sweeps.leaders(document)
    rows: list[tuple[Cell, ...]] = []
    breaks = set()
    for axis in axes or [""]:
        for i, condition in enumerate(many):
            if i == 0 or (len(given) > 1 and condition[0] != many[i - 1][0]):
                breaks.add(len(rows))
            leader = leaders.get(condition)
            best = cell(name, metric(leader, name)) if leader else "-"
            close = (
                [sweeps.enough(document, axis, points[condition], times) for times in _CLOSE] if axis else []
            )
            told = (value_label(p["values"][axis]) if p else "-" for p in close)
            rows.append((*([axis_label(axis)] if axis and axes[1:] else []), *condition, best, *told))
    several, within = len(axes) > 1, [f"within {times - 1:.0%}" for times in _CLOSE] if axes else []
    heads = within if several else [f"{axis_label(axis)} {one}" for axis in axes for one in within]
    first = ["choice"] if several else []
    words = (
        i for i, axis in enumerate(given, start=len(first)) if isinstance(document["axes"][axis][0], str)
    )
    return Grid(
        f"How little of each choice is enough, for each {sweeps.given_text(document)}",
        (*first, *map(axis_label, given), f"best {label(name)}", *heads), tuple(rows),
        words=frozenset({*range(len(first)), *words}), breaks=frozenset(breaks - {0}),
        note="the least value that comes so close to the best, all others at their best",
    )  # fmt: skip


def _lag(document: Sweep, point: Point | None) -> Cell:
    return "none can be" if point is None else sweeps.lag_cell(document, point)


def refused(document: Sweep) -> Grid:
    """Why points cannot be."""
    rows = tuple((kind, f"{count:,}", example) for kind, count, example in sweep_reasons.reasons(document))
    return Grid("What cannot be, and why", ("reason", "points", "one of them"), rows, words=frozenset({0, 2}))


def changes(document: Sweep) -> Grid:
    """What would have to change for the points that lack memory alone."""
    axes, name = sweeps.varied(document), sweeps.objective(document)[0]
    rows = []
    best = sweeps.changes(document)[:_MOST_CHANGES]
    for change in sorted(best, key=sweeps.memory_ratio):
        would = sweeps.changed(document, change)
        over = sweeps.memory_ratio(change) - 1
        parts = (f"{part} {show(size, 'bytes', 3)}" for part, size in list(change["parts"].items())[:2])
        rows.append(
            (
                values_text(would, axes), show(change["needed_bytes"], "bytes", 3), f"{over:+.0%}", ", ".join(parts),
                cell(name, metric(would, name)), sweeps.lag_cell(document, would),
            )
        )  # fmt: skip
    return Grid(
        "What would have to change: points that lack memory alone, and what they would reach with it; none reaches as much with less",
        ("point", "needs a GPU", "more", "most of it", label(name), "to the best"), tuple(rows), words=frozenset({0, 3}),
    )  # fmt: skip
