"""Plots of a ladder's curves: how much of a link is enough, and machines along an axis with where they break even.

A ladder may have several of each; `several` draws them all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from sim.errors import InputError, Problem
from sim.show import style
from sim.show.canvas import Canvas
from sim.show.plots.ladder import colours, scaled, unit_of
from sim.show.views import ladder as ladder_views
from sim.show.views.ladder import machine
from sim.show.views.ladder_changes import Document, is_timely
from sim.show.words import ladder as ladders
from sim.units import show

_MOST_PERCENT = 60.0  # above what an unlimited link takes, at the top of a figure or what the machine takes
_LABEL_HEIGHT, _LABEL_WIDTH = 0.065, 0.36  # of a figure's height and width
_MOST_TICKS = 8


def several(kind: str, document: Document) -> dict[str, Any]:
    """The figures of a kind that has one for each entry of a section, by the name of their file."""
    section, draw = SECTIONS[kind]
    return {f"{kind}-{name}": draw(document, name) for name in _entries(document, kind, section)}


def _entries(document: Document, kind: str, section: str) -> list[str]:
    drawn = [
        name
        for name, one in document.get(section, {}).items()
        if "reason" not in one and sum(_ran(point) for point in one["points"]) > 2
    ]
    if not drawn:
        raise InputError(Problem(None, "kind", f"'{kind}'", f"a ladder with the section '{section}'"))
    return drawn


def _ran(point: Document) -> bool:
    """Whether anything ran at a point."""
    return point.get("metric") is not None or any(one is not None for one in point.get("values", {}).values())


def enough(document: Document, name: str | None = None) -> Any:
    """What a run takes above an unlimited link, by the link's rate, with the marks of 1, 5 and 10 %."""
    one = document["enough"][name or _entries(document, "enough", "enough")[0]]
    dimension, present = one["dimension"], one["present"]
    scale, unit = _rate_unit(present["value"], dimension)
    curve = {
        p["value"]: 100 * ladders.above_unlimited(one, p["metric"])
        for p in one["points"]
        if p["metric"] is not None and p["value"] < one["unlimited"]["value"]
    }
    needs = [need for need in one["needed"] if need["value"] in curve]
    needs = needs[:1] if needs and needs[0]["at_most"] else needs  # then all the others are there too
    widest = 100 * max(need["within_fraction"] for need in one["needed"])
    has = curve.get(present["value"])
    top = max(1.3 * widest, min(max(curve.values()), _MOST_PERCENT), 1.12 * (has or 0.0))
    low, high = min(curve) / scale, max(curve) / scale
    figure = Canvas()
    figure.add(
        "scatter", x=[x / scale for x in curve], y=list(curve.values()), mode="lines+markers", showlegend=False,
        line={"color": _colour(one["key"]), "width": 2.4}, marker={"size": 5},
        hovertemplate=f"%{{x:.4g}} {unit}: %{{y:.2f}} % above unlimited<extra></extra>",
    )  # fmt: skip
    for need in needs:
        x, y = need["value"] / scale, curve[need["value"]]
        figure.layout["shapes"].append(
            {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": y, "line": {"width": 1, "dash": "dot", "color": style.NEUTRAL}}
        )  # fmt: skip
        figure.level(100 * need["within_fraction"], style.BAND)
    _present(figure, one, present["value"] / scale, unit, has, top)
    marks = [need["value"] / scale for need in needs]
    figure.add(
        "scatter", x=marks, y=[curve[need["value"]] for need in needs], mode="markers", name="enough",
        marker={"size": 10, "color": style.COLOUR["leaf_uplink"]}, hoverinfo="skip", cliponaxis=False,
    )  # fmt: skip
    figure.add(
        "scatter", x=marks, y=_spread([curve[need["value"]] for need in needs], _LABEL_HEIGHT * top), mode="markers+text", name="short",
        showlegend=False, marker={"size": 10, "opacity": 0}, textposition="top right", hoverinfo="skip", cliponaxis=False,
        text=[f" {'≤ ' if need['at_most'] else ''}{show(need['value'], dimension, 3)} for {100 * need['within_fraction']:g} %" for need in needs],
    )  # fmt: skip
    ticks = _doublings(low, high)
    ticks = ticks[1::2] if len(ticks) > _MOST_TICKS else ticks  # with the machine's own, the third doubling
    ends = math.log10(low), math.log10(high)
    span = ends[1] - ends[0]
    room = max([ends[1] + 0.08 * span, *(math.log10(x) + _LABEL_WIDTH * span for x in marks)])
    figure.axis("x", title=f"{one['key']} [{unit}]", type="log", tickvals=ticks, ticktext=[f"{t:,.0f}" if t >= 1000 else f"{t:.4g}" for t in ticks],
                range=[ends[0] - 0.03, room])  # fmt: skip
    longer = "longer" if is_timely(one) else "more"
    takes = f"{machine(one['hardware'])} takes {longer}<br>than with an unlimited one by [%]"
    figure.axis("y", title=takes, range=[-0.02 * top, top])
    title = ladders.enough_sentence(one)
    return style.finish(figure, title, height=380, alt=f"Falling curve. {title}", top=44)


def _present(figure: Canvas, one: Document, x: float, unit: str, y: float | None, top: float) -> None:
    """What the machine has: on the curve at its own value, an upright where it does not run."""
    name = machine(one["hardware"])
    if y is None:
        figure.upright(x, style.RULE)
        figure.note(f"{name} has {x:.4g} {unit}: does not run", math.log10(x), top, yanchor="top")
        return
    figure.add(
        "scatter", x=[x], y=[y], mode="markers", name=f"{name} has {x:.4g} {unit}", cliponaxis=False,
        marker={"symbol": "diamond", "size": 13, "color": "#FFFFFF", "line": {"width": 2, "color": "#1C2126"}},
        hovertemplate=f"{name}: %{{x:.4g}} {unit}, %{{y:.2f}} % above unlimited<extra></extra>",
    )  # fmt: skip


def _spread(heights: Sequence[float], least: float) -> list[float]:
    """Heights of labels: those of their marks, raised where two would lie on one another."""
    placed = list(heights)
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    for below, i in pairwise(order):
        placed[i] = max(heights[i], placed[below] + least)
    return placed


def _colour(key: str) -> str:
    """The colour of the resource that a figure of the profile belongs to."""
    found = (name for name in style.COLOUR if key.removeprefix("gpu.").startswith(name))
    return style.COLOUR[next(found, "compute")]


def _doublings(low: float, high: float) -> list[float]:
    """Values a factor of two apart from the lowest to the highest."""
    return [low * 2.0**i for i in range(math.floor(math.log2(high / low) + 1e-6) + 1)]


def _rate_unit(value: float, dimension: str) -> tuple[float, str]:
    number, _, unit = show(value, dimension).partition(" ")
    return value / float(number), unit


def break_even(document: Document, name: str | None = None) -> Any:
    """Every machine along an axis, and below it how much more the reference takes."""
    one = document["curves"][name or _entries(document, "break_even", "curves")[0]]
    figure, hue = Canvas(), colours(document)
    xs = [point["value"] for point in one["points"]]
    known = [v for point in one["points"] for v in point["values"].values() if v is not None]
    scale, unit = unit_of(one["metric"], max(known, default=1.0))
    places = list(
        range(len(xs))
    )  # equal steps: values of an axis are a list, near ones must not hide one another
    for on in document["hardware"]:
        values = [scaled(point["values"].get(on), scale) for point in one["points"]]
        figure.add(
            "scatter", x=places, y=values, mode="lines+markers", name=machine(on), legendgroup=on,
            line={"color": hue[on], "width": 2.4 if on == document["reference"] else 2.0}, marker={"size": 7 if on == document["reference"] else 5},
            customdata=xs, hovertemplate=f"{machine(on)} at %{{customdata}}: %{{y:.4g}} {unit}<extra></extra>",
        )  # fmt: skip
    others = [on for on in document["hardware"] if on != document["reference"]]
    if others:
        _gap_panel(figure, document, one, places)
    metric = ladder_views.called(one["metric"])
    figure.axis(
        "y",
        domain=[0.44 if others else 0.0, 1.0],
        title=f"{metric}{f' [{unit}]' if unit else ''}",
        rangemode="tozero",
    )
    figure.axis(
        "x", title=one["title"], tickvals=places, ticktext=[f"{x:g}" for x in xs], range=[-0.3, len(xs) - 0.7], zeroline=False,
        anchor="y2" if others else "y",
    )  # fmt: skip
    title = ladders.curve_sentence(document, one) or f"{ladder_views.upper(metric)} along {one['title']}"
    return style.finish(figure, title, height=470, alt=f"Curves by machine. {title}", top=44)


def _gap_panel(figure: Canvas, document: Document, one: Document, places: list[int]) -> None:
    """How much more the reference takes than each other machine: in per cent, as factors where a gap is a doubling or more."""
    hue, ours = colours(document), machine(document["reference"])
    others = [on for on in document["hardware"] if on != document["reference"]]
    known = [gap for point in one["points"] for on in others if (gap := point["gaps"].get(on)) is not None]
    factors = max(known, default=0.0) >= 1
    scale, offset = (1.0, 1.0) if factors else (100.0, 0.0)
    low, high = min([0.0, *known]), max([0.02, *known])
    how = "times what it takes on" if factors else "% over"
    for on in others:
        gaps = [
            None if (g := point["gaps"].get(on)) is None else offset + scale * g for point in one["points"]
        ]
        figure.add(
            "scatter", x=places, y=gaps, mode="lines+markers", legendgroup=on, showlegend=False, xaxis="x", yaxis="y2",
            line={"color": hue[on], "width": 2}, marker={"size": 6}, customdata=[point["value"] for point in one["points"]],
            hovertemplate=f"at %{{customdata}} {ours} takes %{{y:{'.2f' if factors else '+.1f'}}} {how} {machine(on)}<extra></extra>",
        )  # fmt: skip
    within = scale * one["within_fraction"]
    figure.layout["shapes"].append(
        {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "yref": "y2", "y0": offset - within, "y1": offset + within, "layer": "below",
         "fillcolor": style.BAND, "line": {"width": 0}}
    )  # fmt: skip
    room = 0.12 * (high - low)
    timely = is_timely(one)
    much = (
        f"times as {'long' if timely else 'much'}" if factors else f"{'longer' if timely else 'more'} by [%]"
    )
    figure.axis(
        "y2", domain=[0.0, 0.34], title=f"gap: {ours} takes<br>{much}", anchor="x",
        range=[offset + scale * (low - room), offset + scale * (high + room)], zeroline=not factors,
    )  # fmt: skip


SECTIONS: Mapping[str, tuple[str, Any]] = {"enough": ("enough", enough), "break_even": ("curves", break_even)}
"""Kind -> the section of a ladder that it draws, and how."""

KINDS = {
    "enough": ("How much of a link is enough: time above an unlimited one, by its rate.", enough),
    "break_even": ("Machines along an axis, and where the reference breaks even.", break_even),
}
"""Kind of plot -> a sentence, and what draws its first figure of a ladder."""
