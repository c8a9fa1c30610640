"""Plots of a sweep: the Pareto front, here; all points over all axes, and maps, in modules of their own.

Why this way: no figure needs WebGL, which not every browser grants and no printer has. Dots that would fall on one pixel are
drawn once, so ten thousand points are no more shapes than can be seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sim.metrics import dimension_of, label, more_is_better
from sim.show import style
from sim.show.canvas import Canvas
from sim.show.plots.axis import axis_title, reading_unit
from sim.show.plots.map import ranked_points
from sim.show.views.sweep import COMPANIONS, Condition, PointView, SweepView

_GRID = (300, 120)  # places of dots over and up; of those in one place one is drawn
_SYMBOLS = ("circle", "diamond", "triangle-up", "x")  # a round of colours each
_GREY = style.NEUTRAL
_FRONTS = tuple(style.SERIES[i] for i in (0, 1, 4, 5, 2, 3))  # those that differ most from grey first
_MOST_NAMES, _NAME_HEIGHT = 8, 0.055  # of names on the front; of one, as a fraction of the figure
_SECOND = ("memory_peak_bytes", "tokens_per_s_per_user", "tokens_per_s_per_gpu", "combine.time_s")
"""Metrics to draw against a single objective: the first that the points have."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """A metric along one side of the plot: its values by point, what they are divided by, and which way is better."""

    metric: str
    values: list[float]
    divisor: float
    unit: str
    minimise: bool

    @property
    def label(self) -> str:
        """Name of the metric."""
        return label(self.metric)

    def shown(self, rows: Sequence[int]) -> list[float]:
        """Return the values of some points in its unit."""
        return [self.values[i] / self.divisor for i in rows]

    def rank(self, i: int) -> float:
        """Return the value of a point, lower is better, to the nine digits up to which two are the same."""
        return (1 if self.minimise else -1) * float(f"{self.values[i]:.8e}")


def _scale(view: SweepView, metric: str, points: Sequence[PointView]) -> _Scale:
    values = [point.metric(metric) or 0.0 for point in points]
    ways = {objective.metric: objective.minimise for objective in view.objectives}
    divisor, unit = reading_unit(dimension_of(metric), max(map(abs, values)))
    return _Scale(metric, values, divisor, unit, ways.get(metric, more_is_better(metric) is False))


def pareto(view: SweepView) -> Any:
    """Draw what the first objective costs in the second (or in memory, where there is one only): the front and the rest."""
    points, first = ranked_points("pareto", view), view.objective.metric
    others = (*(objective.metric for objective in view.objectives), *_SECOND, *COMPANIONS)
    second = next((name for name in others if name != first and points[0].metric(name) is not None), first)
    x, y = (_scale(view, name, points) for name in (first, second))
    members: dict[Condition, list[int]] = {condition: [] for condition in view.conditions}
    for i, point in enumerate(points):
        members[point.condition].append(i)
    fronts = {condition: _front(rows, x, y) for condition, rows in members.items()}
    front = sorted(set().union(*fronts.values()))
    names = [point.text(view.varied) for point in points]
    figure = Canvas()

    def dots(rows: Sequence[int], mode: str = "markers", **look: Any) -> None:
        hover = f"%{{text}}<br>{x.label} %{{x:.4g}} {x.unit}, {y.label} %{{y:.4g}} {y.unit}<extra></extra>"
        texts = [names[i] for i in rows]
        figure.add(
            "scatter", x=x.shown(rows), y=y.shown(rows), text=texts, mode=mode, hovertemplate=hover, **look
        )

    rest = _distinct(sorted(set(range(len(points))) - set(front)), x.values, y.values)
    dots(rest, name="other points", marker={"size": 6, "color": _GREY, "symbol": "circle"})
    looks = itertools.cycle(itertools.product(_SYMBOLS, _FRONTS))
    for (condition, rows), (symbol, colour) in zip(fronts.items(), looks, strict=False):
        dots(
            rows, "lines+markers", name=view.condition_text(condition) or "Pareto front",
            line={"color": colour, "width": 1.5, "shape": "hv"}, marker={"size": 9, "color": colour, "symbol": symbol},
        )  # fmt: skip
    figure.axis("x", title=axis_title(x.label, x.unit))
    figure.axis("y", title=axis_title(y.label, y.unit))
    for i in _apart(front, y.values):
        figure.note(
            names[i], *x.shown([i]), *y.shown([i]), xanchor="left", yanchor="bottom", xshift=8, yshift=1, font={"size": 11}, name="inside",
            bgcolor=style.PAPER, borderpad=0,
        )  # fmt: skip
    leads = "" if view.given else f"; {names[0]} leads"
    beaten = f"beaten by none{view.peers_text('their')} on {x.label} and {y.label}"
    title = f"{len(front)} of {len(points):,} points that ran are {beaten}{leads}"
    alt = "; ".join(f"{names[i]}: {points[i].cell(first)}, {points[i].cell(second)}" for i in front[:12])
    return style.finish(figure, title, height=440, alt=f"Pareto front. {alt}")


def _distinct(rows: Sequence[int], xs: Sequence[float], ys: Sequence[float]) -> list[int]:
    """Return the rows whose dots can be told apart: one for each place of a grid."""
    (left, wide), (low, high) = ((min(values), max(values) - min(values) or 1.0) for values in (xs, ys))
    across, up = _GRID
    places: dict[tuple[int, int], int] = {}
    for i in rows:
        places.setdefault((round(across * (xs[i] - left) / wide), round(up * (ys[i] - low) / high)), i)
    return list(places.values())


def _apart(front: Sequence[int], ys: Sequence[float]) -> list[int]:
    """Return points of a front whose names would not lie on one another; the first one always."""
    room = _NAME_HEIGHT * (max(ys) - min(ys) or 1.0)
    apart: list[int] = []
    for i in front:
        if all(abs(ys[i] - ys[other]) > room for other in apart):
            apart.append(i)
    return apart[:_MOST_NAMES]


def _front(rows: Sequence[int], x: _Scale, y: _Scale) -> list[int]:
    """Return those of some rows that none of them beats, from the best x to the best y; equals stay together."""
    placed = {i: (x.rank(i), y.rank(i)) for i in rows}
    front: list[int] = []
    for i in sorted(rows, key=lambda i: (*placed[i], i)):
        if not front or placed[i][1] < placed[front[-1]][1] or placed[i] == placed[front[-1]]:
            front.append(i)
    return front
