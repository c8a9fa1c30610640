"""Parallel coordinates of a sweep: an upright for each axis and metric, a line for each point.

Lines are grouped by how far a point is behind the best of its condition; a group is one outline to the browser, and a click
on the legend takes it away. What a reader points at are marks on the last upright.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sim.show import style
from sim.show.canvas import Canvas
from sim.show.plots.map import axis_title, ran, reading_unit
from sim.show.views import sweep as sweeps
from sim.show.views.sweep import Point, Sweep, axis_label, cell, label, metric, value_label, values_text
from sim.units import figures

_LINES = 2_000  # the rest of the ranking is left out
_METRICS = 3  # uprights behind the axes
_NAMED = 12  # values of an upright that are written
_CHARACTER_PX, _GAP_PX, _MARGINS_PX = 7.2, 14, 50
_GROUPS = (  # at most so many times the best, and how it is drawn
    (1.01, "within 1 %", {"color": "#084C80", "width": 2.4}),
    (1.05, "within 5 %", {"color": "#0A7ABF", "width": 1.6}),
    (1.25, "within 25 %", {"color": "#E5822B", "width": 1.0}),
    (float("inf"), "further behind", {"color": "rgba(123,133,143,0.45)", "width": 0.8}),
)


@dataclass(frozen=True, slots=True)
class _Upright:
    """One upright: its name, where each point crosses it (0 at the foot, 1 at the top), and texts along it."""

    name: str
    places: list[float]
    texts: list[tuple[float, str]]


def parallel(document: Sweep) -> Any:
    """Every point as a line through its values and its metrics."""
    points = ran("parallel", document)[:_LINES]
    axes, name = sweeps.varied(document), sweeps.objective(document)[0]
    names = [one for one in sweeps.columns(document) if all(metric(p, one) is not None for p in points)]
    uprights = [
        *(_of_axis(document, axis, points) for axis in axes),
        *(_of_metric(one, points) for one in names[:_METRICS]),
    ]
    figure, last = Canvas(), len(uprights) - 1
    least, span = _room(uprights)
    groups = _grouped(document, points)
    for i in reversed(range(len(_GROUPS))):  # the best on top
        _draw(figure, uprights, groups[i], i)
    texts = [f"{values_text(p, axes)}: {label(name)} {cell(name, metric(p, name))}" for p in points]
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
    figure.axis(
        "x", tickvals=list(range(len(uprights))), ticktext=[one.name for one in uprights], range=list(span),
        showgrid=False, zeroline=False,
    )  # fmt: skip
    figure.layout["legend"] = {"traceorder": "reversed"}
    figure.axis("y", visible=False, range=[-0.04, 1.04])
    total = len(document["ranked"])
    count = (
        f"the best {len(points):,} of {total:,} points" if len(points) < total else f"{len(points):,} points"
    )
    close = f"{len(groups[0])} of {count} {'comes' if len(groups[0]) == 1 else 'come'} within 1 % of the best"
    if document["given"]:
        title = f"{close} of its {sweeps.given_text(document)}"
    else:
        title = f"{values_text(points[0], axes)} leads; {close}"
    alt = f"Parallel coordinates: {', '.join(one.name for one in uprights)}, grouped by {label(name)}"
    return style.finish(figure, title, height=440, alt=alt, top=52, bottom=44, least=least)


def _room(uprights: Sequence[_Upright]) -> tuple[int, tuple[float, float]]:
    """The least width of the drawing [px] on which no name or text lies on another, and the range that shows the outer names whole."""
    names = [_CHARACTER_PX * len(one.name) for one in uprights]
    texts = [_CHARACTER_PX * max((len(text) for _, text in one.texts), default=0) for one in uprights]
    pairs = zip(pairwise(names), texts, strict=False)  # texts stand to the right of their upright ...
    between = [max((one + other) / 2, text) for (one, other), text in pairs]
    if between:  # ... and to the left of the last
        between[-1] = max(between[-1], texts[-2] + texts[-1])
    step = max(between, default=0.0) + _GAP_PX
    left, right = (0.5 * name / step + 0.1 for name in (names[0], names[-1]))
    width = step * (len(uprights) - 1 + left + right)
    return round(width) + _MARGINS_PX, (-left, len(uprights) - 1 + right)


def _grouped(document: Sweep, points: Sequence[Point]) -> list[list[int]]:
    """Indices of the points of each group."""
    found: list[list[int]] = [[] for _ in _GROUPS]
    for i, point in enumerate(points):
        times = sweeps.times_best(document, point)
        found[next(g for g, (most, *_) in enumerate(_GROUPS) if times <= most)].append(i)
    return found


def _draw(figure: Canvas, uprights: Sequence[_Upright], members: Sequence[int], group: int) -> None:
    """The lines of one group, broken between points."""
    if not members:
        return
    xs: list[float | None] = []
    ys: list[float | None] = []
    for i in members:
        xs += [*range(len(uprights)), None]
        ys += [*(round(one.places[i], 4) for one in uprights), None]
    _, name, line = _GROUPS[group]
    figure.add(
        "scatter", x=xs, y=ys, mode="lines", line=line, name=f"{name} ({len(members):,})", hoverinfo="skip"
    )


def _of_axis(document: Sweep, axis: str, points: Sequence[Point]) -> _Upright:
    values = [value_label(value) for value in document["axes"][axis]]
    top = max(1, len(values) - 1)
    every = -(-len(values) // _NAMED)
    texts = [(i / top, value) for i, value in enumerate(values)][::every]
    return _Upright(
        axis_label(axis), [values.index(value_label(p["values"][axis])) / top for p in points], texts
    )


def _of_metric(name: str, points: Sequence[Point]) -> _Upright:
    values = [metric(point, name) or 0.0 for point in points]
    low, high = min(values), max(values)
    scale, unit = reading_unit(name, values)
    texts = [(y, f"{figures((low + y * (high - low)) / scale, 3)}") for y in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return _Upright(axis_title(name, unit), [(value - low) / (high - low or 1.0) for value in values], texts)
