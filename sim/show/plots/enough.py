"""Plots of a ladder's curves: how much of a link is enough, and machines along an axis with where they break even.

A ladder may have several of each; `several` draws them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from sim.errors import InputError, Problem
from sim.show import style
from sim.show.canvas import Canvas
from sim.show.plots.axis import axis_title, reading_unit
from sim.show.plots.ladder import colours
from sim.show.views.ladder import Curve, Enough, LadderView
from sim.show.words import ladder as words
from sim.units import show

_MOST_PERCENT = 60.0  # above what an unlimited link takes, at the top of a plot or what the machine takes
_LABEL_HEIGHT, _LABEL_WIDTH = 0.065, 0.36  # of a plot's height and width
_MOST_TICKS = 8


# --- how much is enough ---------------------------------------------------------------------------------------------


def enough(entry: Enough) -> Any:
    """Draw what a run takes above an unlimited link, by the link's rate, with the marks of 1, 5 and 10 %."""
    scale, unit = _rate_unit(entry.present, entry.dimension)
    curve = {value: 100 * excess for value, excess in entry.excess.items()}
    needs = [need for need in entry.needed if need.value in curve]
    needs = needs[:1] if needs and needs[0].at_most else needs  # then all the others are there too
    widest = 100 * max(need.within_fraction for need in entry.needed)
    level = curve.get(entry.present)
    top = max(1.3 * widest, min(max(curve.values()), _MOST_PERCENT), 1.12 * (level or 0.0))
    low, high = min(curve) / scale, max(curve) / scale
    xs, ys = [need.value / scale for need in needs], [curve[need.value] for need in needs]
    figure = Canvas()
    figure.add(
        "scatter", x=[x / scale for x in curve], y=list(curve.values()), mode="lines+markers", showlegend=False,
        line={"color": _colour(entry.key), "width": 2.4}, marker={"size": 5},
        hovertemplate=f"%{{x:.4g}} {unit}: %{{y:.2f}} % above unlimited<extra></extra>",
    )  # fmt: skip
    for need, x, y in zip(needs, xs, ys, strict=True):
        figure.layout["shapes"].append(
            {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": y, "line": {"width": 1, "dash": "dot", "color": style.NEUTRAL}}
        )  # fmt: skip
        figure.level(100 * need.within_fraction, style.BAND)
    _present(figure, entry.machine, entry.present / scale, unit, level, top)
    figure.add(
        "scatter", x=xs, y=ys, mode="markers", name="enough",
        marker={"size": 10, "color": style.COLOUR["leaf_uplink"]}, hoverinfo="skip", cliponaxis=False,
    )  # fmt: skip
    figure.add(
        "scatter", x=xs, y=_spread(ys, _LABEL_HEIGHT * top), mode="markers+text", name="short",
        showlegend=False, marker={"size": 10, "opacity": 0}, textposition="top right", hoverinfo="skip", cliponaxis=False,
        text=[f" {words.need_text(entry, need, '≤ ')} for {100 * need.within_fraction:g} %" for need in needs],
    )  # fmt: skip
    ticks = _doublings(low, high)
    ticks = ticks[1::2] if len(ticks) > _MOST_TICKS else ticks  # with the machine's own, the third doubling
    ends = math.log10(low), math.log10(high)
    span = ends[1] - ends[0]
    room = max([ends[1] + 0.08 * span, *(math.log10(x) + _LABEL_WIDTH * span for x in xs)])
    figure.axis(
        "x", title=axis_title(entry.key, unit), type="log", tickvals=ticks, ticktext=[f"{t:,.0f}" if t >= 1000 else f"{t:.4g}" for t in ticks],
        range=[ends[0] - 0.03, room],
    )  # fmt: skip
    takes = f"{entry.machine} takes {entry.metric.longer}<br>than with an unlimited one by [%]"
    figure.axis("y", title=takes, range=[-0.02 * top, top])
    title = words.enough_sentence(entry)
    return style.finish(figure, title, height=380, alt=f"Falling curve. {title}", top=44)


def _present(figure: Canvas, name: str, x: float, unit: str, y: float | None, top: float) -> None:
    """Mark what the machine has: on the curve at its own value, an upright where it does not run."""
    if y is None:
        figure.upright(x, style.RULE)
        figure.note(f"{name} has {x:.4g} {unit}: does not run", math.log10(x), top, yanchor="top")
        return
    figure.add(
        "scatter", x=[x], y=[y], mode="markers", name=f"{name} has {x:.4g} {unit}", cliponaxis=False,
        marker=style.mark("diamond", 13, 2),
        hovertemplate=f"{name}: %{{x:.4g}} {unit}, %{{y:.2f}} % above unlimited<extra></extra>",
    )  # fmt: skip


def _spread(heights: Sequence[float], least: float) -> list[float]:
    """Return heights of labels: those of their marks, raised where two would lie on one another."""
    placed = list(heights)
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    for below, i in pairwise(order):
        placed[i] = max(heights[i], placed[below] + least)
    return placed


def _colour(key: str) -> str:
    """Return the colour of the resource that a figure of the profile belongs to."""
    resources = (name for name in style.COLOUR if key.removeprefix("gpu.").startswith(name))
    return style.COLOUR[next(resources, "compute")]


def _doublings(low: float, high: float) -> list[float]:
    """Return values a factor of two apart from the lowest to the highest."""
    return [low * 2.0**i for i in range(math.floor(math.log2(high / low) + 1e-6) + 1)]


def _rate_unit(value: float, dimension: str) -> tuple[float, str]:
    number, _, unit = show(value, dimension).partition(" ")
    return value / float(number), unit


# --- machines along an axis -----------------------------------------------------------------------------------------


def break_even(view: LadderView, curve: Curve) -> Any:
    """Draw every machine along an axis, and below it how much more the reference takes."""
    figure, hue, metric = Canvas(), colours(view), curve.metric
    xs = [point.value for point in curve.points]
    readings = [reading for point in curve.points for reading in point.readings.values()]
    largest = max((reading.value for reading in readings if reading.value is not None), default=1.0)
    scale, unit = reading_unit(metric.dimension, largest)
    # Equal steps: values of an axis are a list, and near ones must not hide one another.
    places = list(range(len(xs)))
    for machine in view.machines:
        values = [point.readings[machine.name].value for point in curve.points]
        wide, size = (2.4, 7) if machine is view.reference else (2.0, 5)
        figure.add(
            "scatter", x=places, y=[None if value is None else value / scale for value in values], mode="lines+markers",
            name=machine.label, legendgroup=machine.name, line={"color": hue[machine.name], "width": wide}, marker={"size": size},
            customdata=xs, hovertemplate=f"{machine.label} at %{{customdata}}: %{{y:.4g}} {unit}<extra></extra>",
        )  # fmt: skip
    if view.others:
        _gap_panel(figure, view, curve, places)
    domain = [0.44 if view.others else 0.0, 1.0]
    figure.axis("y", domain=domain, title=axis_title(metric.label, unit), rangemode="tozero")
    figure.axis(
        "x", title=curve.title, tickvals=places, ticktext=[f"{x:g}" for x in xs], range=[-0.3, len(xs) - 0.7], zeroline=False,
        anchor="y2" if view.others else "y",
    )  # fmt: skip
    title = words.curve_sentence(view, curve) or f"{metric.title} along {curve.title}"
    return style.finish(figure, title, height=470, alt=f"Curves by machine. {title}", top=44)


def _gap_panel(figure: Canvas, view: LadderView, curve: Curve, places: list[int]) -> None:
    """Draw how much more the reference takes than each other machine: in per cent, or as factors from a doubling on."""
    hue, ours = colours(view), view.reference.label
    known = [gap for point in curve.points for gap in point.gaps.values() if gap is not None]
    factors = max(known, default=0.0) >= 1
    scale, offset = (1.0, 1.0) if factors else (100.0, 0.0)
    digits, over = (".2f", "times what it takes on") if factors else ("+.1f", "% over")
    for machine in view.others:
        gaps = [point.gaps[machine.name] for point in curve.points]
        figure.add(
            "scatter", x=places, y=[None if gap is None else offset + scale * gap for gap in gaps], mode="lines+markers",
            legendgroup=machine.name, showlegend=False, xaxis="x", yaxis="y2",
            line={"color": hue[machine.name], "width": 2}, marker={"size": 6}, customdata=[point.value for point in curve.points],
            hovertemplate=f"at %{{customdata}} {ours} takes %{{y:{digits}}} {over} {machine.label}<extra></extra>",
        )  # fmt: skip
    within = scale * curve.within_fraction
    figure.layout["shapes"].append(
        {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "yref": "y2", "y0": offset - within, "y1": offset + within, "layer": "below",
         "fillcolor": style.BAND, "line": {"width": 0}}
    )  # fmt: skip
    low, high = min([0.0, *known]), max([0.02, *known])
    room = 0.12 * (high - low)
    much = (
        f"times as {'long' if curve.metric.is_timely else 'much'}"
        if factors
        else f"{curve.metric.longer} by [%]"
    )
    figure.axis(
        "y2", domain=[0.0, 0.34], title=f"gap: {ours} takes<br>{much}", anchor="x",
        range=[offset + scale * (low - room), offset + scale * (high + room)], zeroline=not factors,
    )  # fmt: skip


# --- kinds ----------------------------------------------------------------------------------------------------------


SECTIONS = {"enough": "enough", "break_even": "curves"}
"""Kind -> the section of a ladder's file that it draws."""


def _draws(kind: str, view: LadderView) -> dict[str, Callable[[], Any]]:
    """Return what draws each entry of a kind's section with more than two points that ran. Raises `InputError` for none."""
    if kind == "enough":
        entries = {name: entry for name, entry in view.known_enough.items() if len(entry.excess) > 1}
        draws: dict[str, Callable[[], Any]] = {
            name: partial(enough, entry) for name, entry in entries.items()
        }
    else:
        curves = {name: curve for name, curve in view.curves.items() if _num_ran(curve) > 2}
        draws = {name: partial(break_even, view, curve) for name, curve in curves.items()}
    if not draws:
        raise InputError(Problem(None, "kind", f"'{kind}'", f"a ladder with the section '{SECTIONS[kind]}'"))
    return draws


def _num_ran(curve: Curve) -> int:
    """Count points at which a machine ran."""
    readings = (point.readings.values() for point in curve.points)
    return sum(any(reading.value is not None for reading in some) for some in readings)


def several(kind: str, view: LadderView) -> dict[str, Any]:
    """Draw the plots of a kind that has one for each entry of a section, by the name of their file."""
    return {f"{kind}-{name}": draw() for name, draw in _draws(kind, view).items()}


def first_enough(view: LadderView) -> Any:
    """Draw how much of the first link is enough."""
    return next(iter(_draws("enough", view).values()))()


def first_break_even(view: LadderView) -> Any:
    """Draw the first curve of machines along an axis."""
    return next(iter(_draws("break_even", view).values()))()
