"""Plots of a ladder's curves: how much of a link is enough, and machines along an axis with where they break even.

A ladder may have several of each; `several` draws them all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sim.errors import Fault, InputError
from sim.show import ladders, style
from sim.show.canvas import Canvas
from sim.show.ladders import Document, machine
from sim.show.plot_ladder import colours, scaled, unit_of
from sim.units import show

_MOST_PERCENT = 60.0  # above what an unlimited link takes, at the top of a figure at most


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
        raise InputError(Fault(None, "kind", f"'{kind}'", f"a ladder with the section '{section}'"))
    return drawn


def _ran(point: Document) -> bool:
    """Whether anything ran at a point."""
    return point.get("metric") is not None or any(one is not None for one in point.get("values", {}).values())


def enough(document: Document, name: str | None = None) -> Any:
    """What a run takes above an unlimited link, by the link's rate, with the marks of 1, 5 and 10 %."""
    one = document["enough"][name or _entries(document, "enough", "enough")[0]]
    dimension = one["dimension"]
    scale, unit = _rate_unit(one["present"]["value"], dimension)
    best = _cost(one, one["unlimited"]["metric"])
    points = [
        (p["value"] / scale, 100 * (_cost(one, p["metric"]) / best - 1))
        for p in one["points"]
        if p["metric"] is not None
    ]
    inside = [p for p in points if p[0] * scale < one["unlimited"]["value"]]
    needs = [need for need in one["needed"] if need["value"] / scale <= 1.2 * max(x for x, _ in inside)]
    needs = needs[:1] if needs and needs[0]["at_most"] else needs  # then all the others are there too
    widest = 100 * max((need["within_fraction"] for need in one["needed"]), default=0.1)
    top = min(max(1.3 * widest, max(y for _, y in inside) * 1.06), max(_MOST_PERCENT, 1.5 * widest))
    low, high = min(x for x, _ in inside), max(x for x, _ in inside)
    figure = Canvas()
    figure.add(
        "scatter", x=[x for x, _ in inside], y=[y for _, y in inside], mode="lines+markers", showlegend=False,
        line={"color": _colour(one["key"]), "width": 2.4}, marker={"size": 5},
        hovertemplate=f"%{{x:.4g}} {unit}: %{{y:.2f}} % above unlimited<extra></extra>",
    )  # fmt: skip
    for need in needs:
        x, y = need["value"] / scale, 100 * need["within_fraction"]
        figure.layout["shapes"] += [
            {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": y, "line": {"width": 1, "dash": "dot", "color": style.NEUTRAL}},
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "layer": "below", "line": {"width": 1, "color": style.BAND}},
        ]  # fmt: skip
    figure.add(
        "scatter", x=[need["value"] / scale for need in needs], y=[100 * need["within_fraction"] for need in needs], mode="markers+text",
        name="enough", marker={"size": 10, "color": style.COLOUR["leaf_uplink"]}, textposition=["top left" if need["value"] / scale > 0.5 * high else "top right" for need in needs],
        text=[f" {'≤ ' if need['at_most'] else ''}{show(need['value'], dimension, 3)} for {100 * need['within_fraction']:g} % " for need in needs],
        hoverinfo="skip", cliponaxis=False,
    )  # fmt: skip
    has = one["present"]["value"] / scale
    figure.add(
        "scatter", x=[has], y=[min(0.97 * top, 100 * (_cost(one, one["present"]["metric"]) / best - 1)) if one["present"]["metric"] is not None else top],
        mode="markers", name=f"{machine(one['hardware'])} has {has:.4g} {unit}",
        marker={"symbol": "diamond", "size": 13, "color": "#FFFFFF", "line": {"width": 2, "color": "#1C2126"}},
        hovertemplate=f"{machine(one['hardware'])}: %{{x:.4g}} {unit}, %{{y:.2f}} % above unlimited<extra></extra>",
    )  # fmt: skip
    ticks = _doublings(low, high)
    figure.axis("x", title=f"{one['key']} [{unit}]", type="log", tickvals=ticks, ticktext=[f"{t:,.0f}" if t >= 1000 else f"{t:.4g}" for t in ticks],
                range=[math.log10(low) - 0.03, math.log10(high) + 0.03])  # fmt: skip
    figure.axis("y", title=f"{ladders.called(one['metric'])}: above unlimited [%]", range=[-0.02 * top, top])
    title = ladders.enough_sentence(one)
    return style.finish(figure, title, height=380, alt=f"Falling curve. {title}", top=44)


def _colour(key: str) -> str:
    """The colour of the resource that a figure of the profile belongs to."""
    found = (name for name in style.COLOUR if key.removeprefix("gpu.").startswith(name))
    return style.COLOUR[next(found, "compute")]


def _cost(one: Document, value: float) -> float:
    return 1 / value if one["more_is_better"] else value


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
    low, high = 0.0, 2.0
    for on in others:
        gaps = [None if (g := point["gaps"].get(on)) is None else 100 * g for point in one["points"]]
        low, high = (
            min([low, *(g for g in gaps if g is not None)]),
            max([high, *(g for g in gaps if g is not None)]),
        )
        figure.add(
            "scatter", x=places, y=gaps, mode="lines+markers", legendgroup=on, showlegend=False, xaxis="x", yaxis="y2",
            line={"color": hue[on], "width": 2, "dash": "solid"}, marker={"size": 6}, customdata=xs,
            hovertemplate=f"at %{{customdata}} {machine(document['reference'])} takes %{{y:+.1f}} % more than {machine(on)}<extra></extra>",
        )  # fmt: skip
    within = 100 * one["within_fraction"]
    if others:
        figure.layout["shapes"].append(
            {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "yref": "y2", "y0": -within, "y1": within, "layer": "below",
             "fillcolor": style.BAND, "line": {"width": 0}}
        )  # fmt: skip
        span = high - low
        title = f"gap of {machine(document['reference'])} [%]"
        figure.axis(
            "y2", domain=[0.0, 0.34], title=title, range=[low - 0.12 * span, high + 0.12 * span], anchor="x"
        )
    metric = ladders.called(one["metric"])
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
    title = ladders.curve_sentence(document, one) or f"{ladders.upper(metric)} along {one['title']}"
    return style.finish(figure, title, height=470, alt=f"Curves by machine. {title}", top=44)


SECTIONS: Mapping[str, tuple[str, Any]] = {"enough": ("enough", enough), "break_even": ("curves", break_even)}
"""Kind -> the section of a ladder that it draws, and how."""

KINDS = {
    "enough": ("How much of a link is enough: time above an unlimited one, by its rate.", enough),
    "break_even": ("Machines along an axis, and where the reference breaks even.", break_even),
}
"""Kind of plot -> a sentence, and what draws its first figure of a ladder."""
