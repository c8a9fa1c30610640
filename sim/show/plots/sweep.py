"""Plots of a sweep: the Pareto front, here; all points over all axes, and maps, in rooms of their own.

Why this way: no figure needs WebGL, which not every browser grants and no printer has. Dots that would fall on one pixel are
drawn once, so ten thousand points are no more shapes than can be seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from sim.show import style
from sim.show.canvas import Canvas
from sim.show.plots import map as plot_map
from sim.show.plots import parallel as plot_parallel
from sim.show.plots.map import axis_title, ran, reading_unit
from sim.show.views import sweep as sweeps
from sim.show.views.sweep import Sweep, cell, label, metric, values_text

_GRID = (300, 120)  # places of dots over and up; of those in one place one is drawn
_SYMBOLS = ("circle", "diamond", "triangle-up", "x")  # a round of colours each
_GREY = "rgba(123,133,143,0.55)"


def pareto(document: Sweep) -> Any:
    """What the first objective costs in the second (or in memory, where there is one only): the front and all behind it."""
    points = ran("pareto", document)
    x_name = sweeps.objective(document)[0]
    beside = (*document["objectives"], *_SECOND, *sweeps.BESIDE)
    y_name = next((one for one in beside if one != x_name and metric(points[0], one) is not None), x_name)
    xs, ys = [metric(p, x_name) or 0.0 for p in points], [metric(p, y_name) or 0.0 for p in points]
    (x_scale, x_unit), (y_scale, y_unit) = reading_unit(x_name, xs), reading_unit(y_name, ys)
    axes, figure = sweeps.varied(document), Canvas()
    groups: dict[sweeps.Condition, list[int]] = {}
    for i, point in enumerate(points):
        groups.setdefault(sweeps.condition_of(document, point), []).append(i)
    ways = _way(document, x_name), _way(document, y_name)
    fronts = {condition: _front(rows, xs, ys, *ways) for condition, rows in groups.items()}
    front = sorted(set().union(*fronts.values()))
    behind = _seen(sorted(set(range(len(points))) - set(front)), xs, ys)
    look = {
        "mode": "markers",
        "hovertemplate": f"%{{text}}<br>{label(x_name)} %{{x:.4g}} {x_unit}, {label(y_name)} %{{y:.4g}} {y_unit}<extra></extra>",
    }
    figure.add(
        "scatter",
        x=[xs[i] / x_scale for i in behind], y=[ys[i] / y_scale for i in behind], text=[values_text(points[i], axes) for i in behind],
        name="other points", marker={"size": 5, "color": _GREY}, **look,
    )  # fmt: skip
    looks = itertools.cycle(itertools.product(_SYMBOLS, style.SERIES))
    for condition, (symbol, colour) in zip(sweeps.conditions(document), looks, strict=False):
        rows = fronts.get(condition, [])
        figure.add(
            "scatter",
            x=[xs[i] / x_scale for i in rows], y=[ys[i] / y_scale for i in rows], text=[values_text(points[i], axes) for i in rows],
            name=sweeps.condition_text(document, condition) or "Pareto front", line={"color": colour, "width": 1.5, "shape": "hv"},
            marker={"size": 9, "color": colour, "symbol": symbol}, **{**look, "mode": "lines+markers"},
        )  # fmt: skip
    figure.axis("x", title=axis_title(x_name, x_unit))
    figure.axis("y", title=axis_title(y_name, y_unit))
    for i in _apart(front, ys):
        figure.note(
            values_text(points[i], axes), xs[i] / x_scale, ys[i] / y_scale, xanchor="left", yanchor="bottom", xshift=8, yshift=1, font={"size": 11}, name="inside",
            bgcolor=style.PAPER, borderpad=0,
        )  # fmt: skip
    leads = "" if document["given"] else f"; {values_text(points[0], axes)} leads"
    title = f"{len(front)} of {len(points):,} points that ran are beaten by none{sweeps.of_given(document, 'their')} on {label(x_name)} and {label(y_name)}{leads}"
    alt = "; ".join(
        f"{values_text(points[i], axes)}: {cell(x_name, xs[i])}, {cell(y_name, ys[i])}" for i in front[:12]
    )
    return style.finish(figure, title, height=440, alt=f"Pareto front. {alt}")


_SECOND = ("memory_peak_bytes", "tokens_per_s_per_user", "tokens_per_s_per_gpu", "combine.time_s")
"""What stands beside a single objective, the first that there is."""


def _seen(rows: Sequence[int], xs: Sequence[float], ys: Sequence[float]) -> list[int]:
    """The rows whose dots can be told apart: one for each place of a grid."""
    (left, wide), (low, high) = ((min(values), max(values) - min(values) or 1.0) for values in (xs, ys))
    across, up = _GRID
    places: dict[tuple[int, int], int] = {}
    for i in rows:
        places.setdefault((round(across * (xs[i] - left) / wide), round(up * (ys[i] - low) / high)), i)
    return list(places.values())


def _apart(front: Sequence[int], ys: Sequence[float]) -> list[int]:
    """Points of a front whose names would not lie on one another; the first one always."""
    room = 0.055 * (max(ys) - min(ys) or 1.0)
    found: list[int] = []
    for i in front:
        if all(abs(ys[i] - ys[other]) > room for other in found):
            found.append(i)
    return found[:8]


def _way(document: Sweep, name: str) -> str:
    """Which way a metric is better: as the sweep says, else less of a time or of bytes, more of anything else."""
    less = name.endswith(("_s", "_bytes")) and not name.endswith("_per_s")
    return str(document["objectives"].get(name, "minimise" if less else "maximise"))


def _front(
    rows: Sequence[int], xs: Sequence[float], ys: Sequence[float], x_way: str, y_way: str
) -> list[int]:
    """Those of some rows that none of them beats, from the best x to the best y; equals stay together, as in the ranking."""
    signs = [1 if way == "minimise" else -1 for way in (x_way, y_way)]
    placed = {i: (signs[0] * _rounded(xs[i]), signs[1] * _rounded(ys[i])) for i in rows}
    found: list[int] = []
    for i in sorted(rows, key=lambda i: (*placed[i], i)):
        if not found or placed[i][1] < placed[found[-1]][1] or placed[i] == placed[found[-1]]:
            found.append(i)
    return found


def _rounded(value: float) -> float:
    """To nine digits, up to which two values are the same."""
    return float(f"{value:.8e}")


KINDS: Mapping[str, tuple[str, Any]] = {
    "pareto": ("Sweep: the points that no other beats, and all others.", pareto),
    "parallel": (
        "Sweep: every point as a line through its values, coloured by the objective.",
        plot_parallel.parallel,
    ),
    "map": ("Sweep: the best that each pair of values allows, as a heat map.", plot_map.sweep_map),
}
