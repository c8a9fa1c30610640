"""Parallel coordinates of a sweep: an upright for each axis and metric, a line for each point.

Lines are grouped by how far a point is behind the best of its condition; a group is one outline to the browser, and a click
on the legend takes it away. What a reader points at are marks on the last upright.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sim.metrics import dimension_of, label
from sim.show import style
from sim.show.canvas import Canvas
from sim.show.plots.axis import axis_title, reading_unit
from sim.show.plots.map import ranked_points
from sim.show.views.sweep import AxisView, PointView, SweepView
from sim.units import told_apart

_LINES = 2_000  # the rest of the ranking is left out
_METRICS = 3  # uprights behind the axes
_NAMED = 12  # values of an upright that are written
_CHARACTER_PX, _GAP_PX, _MARGINS_PX = 7.2, 14, 50
_GROUPS = (  # at most so many times the best, and how it is drawn
    (1.01, "within 1 %", {"color": "#005EAE", "width": 2.4}),
    (1.05, "within 5 %", {"color": "#5EAE94", "width": 1.6}),
    (1.25, "within 25 %", {"color": "#F2791B", "width": 1.0}),
    (float("inf"), "further behind", {"color": "#BC86F2", "width": 0.8}),
)


@dataclass(frozen=True, slots=True)
class _Upright:
    """One upright: its name, where each point crosses it (0 at the foot, 1 at the top), and texts along it."""

    name: str
    places: list[float]
    texts: list[tuple[float, str]]


def parallel(view: SweepView) -> Any:
    """Draw every point as a line through its values and its metrics."""
    points = ranked_points("parallel", view)[:_LINES]
    axes, objective = view.varied, view.objective
    metrics = [name for name in view.metrics if all(point.metric(name) is not None for point in points)]
    uprights = [
        *(_axis_upright(axis, points) for axis in axes),
        *(_metric_upright(name, points) for name in metrics[:_METRICS]),
    ]
    figure, last = Canvas(), len(uprights) - 1
    least, span = _room(uprights)
    groups = _grouped(points)
    for i in reversed(range(len(_GROUPS))):  # the best on top
        _draw(figure, uprights, groups[i], i)
    texts = [f"{p.text(axes)}: {objective.label} {p.cell(objective.metric)}" for p in points]
    figure.add(
        "scatter",
        x=[last] * len(points), y=[round(y, 4) for y in uprights[-1].places], text=texts, mode="markers", showlegend=False,
        marker={"size": 9, "opacity": 0}, hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    for x, upright in enumerate(uprights):
        figure.upright(x, style.RULE, "above")
        for y, text in upright.texts:
            side = {"xanchor": "right", "xshift": -4} if x == last else {"xanchor": "left", "xshift": 4}
            figure.note(text, x, y, font={"size": 11}, bgcolor=style.PAPER, borderpad=1, **side)
    names = [upright.name for upright in uprights]
    figure.axis(
        "x",
        tickvals=list(range(len(names))),
        ticktext=names,
        range=list(span),
        showgrid=False,
        zeroline=False,
    )
    figure.layout["legend"] = {"traceorder": "reversed"}
    figure.axis("y", visible=False, range=[-0.04, 1.04])
    total = len(view.ranked)
    count = f"{len(points):,} points"
    if len(points) < total:
        count = f"the best {len(points):,} of {total:,} points"
    close = f"{len(groups[0])} of {count} {'comes' if len(groups[0]) == 1 else 'come'} within 1 % of the best"
    title = f"{close} of its {view.given_text}" if view.given else f"{points[0].text(axes)} leads; {close}"
    alt = f"Parallel coordinates: {', '.join(names)}, grouped by {objective.label}"
    return style.finish(figure, title, height=440, alt=alt, top=52, bottom=44, least=least)


def _room(uprights: Sequence[_Upright]) -> tuple[int, tuple[float, float]]:
    """Return the least width [px] on which no name or text lies on another, and the range that shows the outer names whole."""
    names = [_CHARACTER_PX * len(upright.name) for upright in uprights]
    texts = [_CHARACTER_PX * max((len(text) for _, text in upright.texts), default=0) for upright in uprights]
    pairs = zip(pairwise(names), texts, strict=False)  # texts lie to the right of their upright ...
    between = [max((left + right) / 2, text) for (left, right), text in pairs]
    if between:  # ... and to the left of the last
        between[-1] = max(between[-1], texts[-2] + texts[-1])
    step = max(between, default=0.0) + _GAP_PX
    left, right = (0.5 * name / step + 0.1 for name in (names[0], names[-1]))
    width = step * (len(uprights) - 1 + left + right)
    return round(width) + _MARGINS_PX, (-left, len(uprights) - 1 + right)


def _grouped(points: Sequence[PointView]) -> list[list[int]]:
    """Return the indices of the points of each group."""
    groups: list[list[int]] = [[] for _ in _GROUPS]
    for i, point in enumerate(points):
        groups[next(g for g, (most, *_) in enumerate(_GROUPS) if point.times_best <= most)].append(i)
    return groups


def _draw(figure: Canvas, uprights: Sequence[_Upright], members: Sequence[int], group: int) -> None:
    """Draw the lines of one group, broken between points."""
    if not members:
        return
    _, name, line = _GROUPS[group]
    xs = [*range(len(uprights)), None] * len(members)
    ys = [y for i in members for y in (*(round(upright.places[i], 4) for upright in uprights), None)]
    figure.add(
        "scatter", x=xs, y=ys, mode="lines", line=line, name=f"{name} ({len(members):,})", hoverinfo="skip"
    )


def _axis_upright(axis: AxisView, points: Sequence[PointView]) -> _Upright:
    top, every = max(1, len(axis.texts) - 1), -(-len(axis.texts) // _NAMED)
    heights = {text: i / top for i, text in enumerate(axis.texts)}
    texts = [(height, text) for text, height in heights.items()][::every]
    return _Upright(axis.label, [heights[point.texts[axis.name]] for point in points], texts)


def _metric_upright(name: str, points: Sequence[PointView]) -> _Upright:
    values = [point.metric(name) or 0.0 for point in points]
    low, high = min(values), max(values)
    scale, unit = reading_unit(dimension_of(name), max(map(abs, values)))
    heights = (0.0, 0.25, 0.5, 0.75, 1.0) if high > low else (0.0,)
    texts = list(zip(heights, told_apart([(low + y * (high - low)) / scale for y in heights]), strict=True))
    places = [(value - low) / (high - low or 1.0) for value in values]
    return _Upright(axis_title(label(name), unit), places, texts)
