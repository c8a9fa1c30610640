"""The tables of a sweep; terminal and report print the same ones, so they never state different numbers."""

from __future__ import annotations

from collections.abc import Sequence

from sim.metrics import label
from sim.show.grid import Cell, Grid
from sim.show.views.sweep import Marginal, SweepView
from sim.units import show

_COLUMNS = 98  # of a terminal
_MOST_VALUES = 24  # of an axis that is listed value by value
_SIDE_BY_SIDE = 4  # conditions that have columns next to one another
_MOST_CHANGES = 8
_CLOSE = (1.01, 1.05, 1.25)  # times the best, of what is enough
_Rows = list[tuple[Cell, ...]]


def grids(view: SweepView, *, most: int = 10, wide: bool = True) -> list[Grid]:
    """Return the ranking, what each axis costs, what cannot be and why, and what would have to change.

    Where they are not to be `wide`, metrics next to the objectives are left out until a table reads in 100 columns.
    """
    metrics, rest = view.metrics, [refusals(view), changes(view)]
    while True:
        first = [ranking(view, metrics, most), costs(view, metrics)]
        if wide or len(metrics) <= len(view.objectives) or max(map(_width, first)) <= _COLUMNS:
            return [grid.without_empty() for grid in (*first, *rest) if grid.rows]
        metrics = metrics[:-1]


def _width(grid: Grid) -> int:
    return sum(2 + max(map(len, column)) for column in zip(grid.heads, *grid.rows, strict=True))


def ranking(view: SweepView, metrics: Sequence[str], most: int) -> Grid:
    """Return the best points; the best few of each condition, where one axis is given."""
    several, num_conditions = len(view.objectives) > 1, len(view.conditions)
    front = set(view.pareto) if several else set()
    rows: _Rows = []
    breaks = []
    each = max(3, most // num_conditions) if num_conditions <= _SIDE_BY_SIDE else 1
    for points in view.conditions.values():
        breaks.append(len(rows))
        for place, point in enumerate(points[:each], start=1):
            cells = (*(point.texts[axis.name] for axis in view.varied), *map(point.cell, metrics))
            mark = f"{place}{'*' if point in front else ''}"
            rows.append((mark, *cells, point.lag_cell) if each > 1 else ("", *cells, ""))
    ran = len(view.ranked)
    whole = "Points that ran, the best first"
    title = f"The best {len(rows):,} of {ran:,} that ran" if ran > len(rows) else whole
    return Grid(
        f"The best for each {view.given_text}" if view.given else title,
        ("", *(axis.label for axis in view.varied), *map(label, metrics), "to the best"),
        tuple(rows),
        words=frozenset({0, *(i for i, axis in enumerate(view.varied, start=1) if axis.is_words)}),
        breaks=frozenset(breaks[1:] if each > 1 else ()),
        note=f"*: no other point{view.peers_text('its')} beats it" if front and each > 1 else "",
    )


def costs(view: SweepView, metrics: Sequence[str]) -> Grid:
    """Return what each value of each axis costs with all others at their best; of many conditions, how little is enough."""
    if len(view.conditions) > _SIDE_BY_SIDE:
        return _least(view)
    rows: _Rows = []
    breaks = []
    for axis in view.choices if view.ranked else ():
        if len(axis.values) > _MOST_VALUES:
            continue
        breaks.append(len(rows))
        by_condition = (view.marginals(axis, points) for points in view.conditions.values())
        for marginals in zip(*by_condition, strict=True):
            if view.given:
                cells = [m.best.lag_cell if m.best else "none can be" for m in marginals]
            else:
                cells = _costs(marginals[0], metrics)
            rows.append((axis.label, marginals[0].text, *cells))
    heads = (
        map(view.condition_text, view.conditions)
        if view.given
        else ("ran", *map(label, metrics), "to the best")
    )
    return Grid(
        "What each choice costs, all others at their best", ("axis", "value", *heads), tuple(rows),
        words=frozenset({0, 1}), breaks=frozenset(breaks[1:]),
    )  # fmt: skip


def _costs(marginal: Marginal, metrics: Sequence[str]) -> list[Cell]:
    if marginal.best is None:
        return ["0", *("-" for _ in metrics), "none can be"]
    return [f"{marginal.count:,}", *map(marginal.best.cell, metrics), marginal.best.lag_cell]


def _least(view: SweepView) -> Grid:
    """Return for each condition the best, and the least of each choice that comes close; choice by choice if several."""
    name, given = view.objective.metric, view.given
    axes = [axis for axis in view.choices if axis.sizes is not None]
    several = len(axes) > 1
    rows: _Rows = []
    breaks = []
    for axis in axes or (None,):
        before = None
        for condition, points in view.conditions.items():
            if before is None or (len(given) > 1 and condition[0] != before):
                breaks.append(len(rows))
            before = condition[0]
            leader = view.leaders.get(condition)
            close = [view.least_within(axis, points, times) for times in _CLOSE] if axis else []
            texts = (point.texts[axis.name] if point and axis else "-" for point in close)
            choice = [axis.label] if axis and several else []
            rows.append((*choice, *condition, leader.cell(name) if leader else "-", *texts))
    within = [f"within {times - 1:.0%}" for times in _CLOSE] if axes else []
    heads = within if several else [f"{axis.label} {text}" for axis in axes for text in within]
    first = ("choice",) if several else ()
    words = (i for i, axis in enumerate(given, start=len(first)) if axis.is_words)
    return Grid(
        f"How little of each choice is enough, for each {view.given_text}",
        (*first, *(axis.label for axis in given), f"best {label(name)}", *heads), tuple(rows),
        words=frozenset({*range(len(first)), *words}), breaks=frozenset(breaks[1:]),
        note="the least value that comes so close to the best, all others at their best",
    )  # fmt: skip


def refusals(view: SweepView) -> Grid:
    """Return why points cannot be."""
    rows = tuple((reason.kind, f"{reason.count:,}", reason.example) for reason in view.reasons)
    return Grid("What cannot be, and why", ("reason", "points", "one of them"), rows, words=frozenset({0, 2}))


def changes(view: SweepView) -> Grid:
    """Return what would have to change for the points that lack memory alone."""
    name = view.objective.metric
    rows: _Rows = []
    for change in sorted(view.changes[:_MOST_CHANGES], key=lambda change: change.ratio):
        parts = (f"{part} {show(size, 'bytes', 3)}" for part, size in list(change.parts.items())[:2])
        needs = show(change.needed_bytes, "bytes", 3), f"{change.ratio - 1:+.0%}", ", ".join(parts)
        point = change.point
        rows.append((point.text(view.varied), *needs, point.cell(name), point.lag_cell))
    return Grid(
        "What would have to change: points that lack memory alone, and what they would reach with it; none reaches as much with less",
        ("point", "needs a GPU", "more", "most of it", label(name), "to the best"), tuple(rows), words=frozenset({0, 3}),
    )  # fmt: skip
