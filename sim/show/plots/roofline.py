"""The roofline: what kernels of one layer reach, between the rate of HBM and the peak of their format.

Why this way: a kernel that multiplies stands at its FLOPs per byte and its FLOP/s, under a roof that no kernel can pierce;
its area is its share of the layer's time, so that the eye weighs what counts. Kernels that only move bytes have no place on
such axes: the strip below gives their share, beside those of the products left and right of the ridge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.show import style
from sim.show.canvas import Canvas, absent
from sim.show.views.lanes import OPERATIONS, PARTS, part_of
from sim.show.views.run import Case, Result, cases
from sim.units import show

_SIDES = {
    "compute": ("right of the ridge: arithmetic limits", style.COLOUR["compute"]),
    "memory": ("left of the ridge: HBM limits", style.COLOUR["hbm"]),
    "moves": ("only moves bytes", "#B9DCEE"),
}
_SYMBOL = {"fp8": "circle", "bf16": "diamond"}
_TERA = 1e12
_PASSES = {"F": "forward", "B": "backward", "W": "weight gradients"}
_AREA_PX = 4000.0  # of a kernel that takes the whole time
_LEAST_PX = 6.0  # across
_NAMED_SHARE = 0.03
_APART_PX = (120.0, 22.0)  # between names
_STRIP = 0.08  # of the drawing's height


@dataclass(frozen=True, slots=True)
class Point:
    """A kernel, its place, and how much of what its roof allows it reaches (0..1)."""

    name: str
    phase: str
    dtype: str
    flops: float
    moved_bytes: float
    time_s: float
    side: str
    reached_fraction: float

    @property
    def intensity(self) -> float:
        """FLOPs per byte."""
        return self.flops / self.moved_bytes

    @property
    def rate(self) -> float:
        """FLOP/s."""
        return self.flops / self.time_s


def points(case: Case) -> list[Point]:
    """The kernels of a result, each with its side of the ridge of its format."""
    roofs = case.result.get("roofs") or {}
    found = []
    for one in case.result.get("kernels") or []:
        memory_s = one["bytes"] / roofs["hbm_bytes_per_s"]
        compute_s = one["flops"] / roofs["peak_flops"][one["dtype"]] if one["flops"] else 0.0
        side = "moves" if not one["flops"] else "compute" if compute_s >= memory_s else "memory"
        found.append(
            Point(
                one["name"], one["phase"], one["dtype"], one["flops"], one["bytes"], one["time_s"], side,
                max(compute_s, memory_s) / one["time_s"],
            )
        )  # fmt: skip
    return found


def roofline(result: Result) -> Any:
    """Arithmetic intensity against FLOP/s of the kernels of one layer, under the roofs of the GPU."""
    case = cases(result)[0]
    mine = [one for one in points(case) if one.time_s > 0]
    multiplying = [one for one in mine if one.side != "moves"]
    if not multiplying:
        raise absent("roofline", "only training, prefill and decode list their kernels")
    roofs = case.result["roofs"]
    profile = not case.workload  # kernels of a GPU, which share no time
    total_s = sum(one.time_s for one in mine)
    low, high = _reach([one.intensity for one in multiplying], _ridges(roofs))
    bottom, top = _reach([one.rate for one in multiplying], list(roofs["peak_flops"].values()))
    figure = Canvas()
    _roofs(figure, roofs, low, high)
    phases = list(dict.fromkeys(one.phase for one in multiplying))
    colours = {phase: _look(phase, i) for i, phase in enumerate(phases)}
    shown: set[str] = set()
    for one in multiplying if profile else sorted(multiplying, key=lambda point: -point.time_s):
        label, colour = colours[one.phase]
        share = one.time_s / total_s
        figure.add(
            "scatter", x=[one.intensity], y=[one.rate / _TERA], mode="markers", name=label, legendgroup=label, showlegend=False,
            marker={
                "symbol": _SYMBOL.get(one.dtype, "square"), "color": colour, "opacity": 0.72, "line": {"width": 1, "color": "rgba(255,255,255,0.7)"},
                "size": 9 if profile else _across(share),
            },
            hovertemplate=f"{one.name}, {one.phase}, {one.dtype.upper()}<br>%{{x:.4g}} FLOP/byte, {_rate(one.rate)}<br>{one.reached_fraction:.0%} of its roof, "
            f"{show(one.time_s, 's', 3)}{'' if profile else f', {share:.1%} of the time'}<extra></extra>",
        )  # fmt: skip
        if label not in shown:  # a mark of one size for each colour
            figure.add(
                "scatter",
                x=[None],
                y=[None],
                mode="markers",
                name=label,
                legendgroup=label,
                marker={"color": colour, "size": 10},
            )
            shown.add(label)
    spent = {}
    if not profile:
        _names(figure, multiplying, total_s, (low, high, bottom, top))
        spent = _strip(figure, mine, total_s)
    figure.axis(
        "x", title=f"FLOP per byte of HBM; circles FP8, diamonds BF16{'' if profile else ', area the share of time'}", type="log",
        range=[math.log10(low), math.log10(high)], anchor="y", dtick=1,
    )  # fmt: skip
    figure.axis(
        "y", title="TFLOP/s", type="log", range=[math.log10(bottom / _TERA), math.log10(top / _TERA)], domain=[0 if profile else _STRIP + 0.2, 1], dtick=1,
    )  # fmt: skip
    figure.layout |= {"hovermode": "closest", "barmode": "stack"}
    title = _of_profile(case, mine) if profile else _of_layer(case, spent, mine)
    alt = "Roofline. " + "; ".join(
        f"{one.name} ({one.phase}): {one.intensity:.3g} FLOP/byte, {_rate(one.rate)}, {one.time_s / total_s:.1%} of the time"
        for one in sorted(multiplying, key=lambda point: -point.time_s)[:8]
    )
    return style.finish(figure, title, height=560, alt=alt, top=44)


def _across(share: float) -> float:
    """Diameter of a mark whose area is a share of the time [px]."""
    return max(_LEAST_PX, 2 * math.sqrt(_AREA_PX * share / math.pi))


def _ridges(roofs: Mapping[str, Any]) -> list[float]:
    """FLOPs per byte from which on arithmetic limits, by format."""
    return [rate / roofs["hbm_bytes_per_s"] for rate in roofs["peak_flops"].values()]


def _reach(values: Sequence[float], marks: Sequence[float]) -> tuple[float, float]:
    """A range of a logarithmic axis that holds all of these, with room around."""
    both = [*values, *marks]
    return min(both) / 3, max(both) * 2.2


def _roofs(figure: Canvas, roofs: Mapping[str, Any], low: float, high: float) -> None:
    """The slope of HBM and the ceiling of each format."""
    hbm, peaks = roofs["hbm_bytes_per_s"], roofs["peak_flops"]
    look: dict[str, Any] = {"mode": "lines", "hoverinfo": "skip", "showlegend": False}
    line = {"color": style.NEUTRAL, "width": 2}
    highest = max(peaks.values())
    figure.add("scatter", x=[low, highest / hbm], y=[low * hbm / _TERA, highest / _TERA], line=line, **look)
    for dtype, peak in peaks.items():
        ridge, height = peak / hbm, peak / _TERA
        figure.add("scatter", x=[ridge, high], y=[height] * 2, line=line, **look)
        figure.add(
            "scatter", x=[low, ridge], y=[height] * 2, line={**line, "width": 1, "dash": "dot"}, **look
        )
        text = f"{dtype.upper()} {_rate(peak)}, ridge at {ridge:.0f} FLOP/byte"
        # Left of the ridge no kernel can stand.
        figure.note(
            text, math.log10(low), math.log10(height), xanchor="left", yanchor="bottom", font={"size": 12}, name="short"
        )  # fmt: skip
    at = math.log10(low * 1.3), math.log10(low * 1.3 * hbm / _TERA)
    figure.note(
        f"HBM {show(hbm, 'bytes/s', 3)}", *at, xanchor="left", yanchor="top", xshift=6, font={"size": 12}
    )


def _names(
    figure: Canvas, found: Sequence[Point], total_s: float, reach: tuple[float, float, float, float]
) -> None:
    """Names of the kernels that take longest, where they do not stand on one another."""
    low, high, bottom, top = reach
    scale = (900 / math.log10(high / low), 360 / math.log10(top / bottom))
    taken: list[tuple[float, float]] = []
    for one in sorted(found, key=lambda point: -point.time_s):
        at = math.log10(one.intensity), math.log10(one.rate / _TERA)
        near = any(
            abs(at[0] - x) * scale[0] < _APART_PX[0] and abs(at[1] - y) * scale[1] < _APART_PX[1]
            for x, y in taken
        )
        if one.time_s < _NAMED_SHARE * total_s or near:
            continue
        taken.append(at)
        shift = _across(one.time_s / total_s) / 2 + 2
        name = one.name if len(one.name) > 2 else f"{one.name} projection"
        figure.note(
            name, *at, xanchor="center", yanchor="bottom", yshift=shift, font={"size": 12}, name="inside"
        )


def _strip(figure: Canvas, mine: Sequence[Point], total_s: float) -> dict[str, float]:
    """Share of the time on each side, as one bar below; returns it."""
    spent = {side: sum(one.time_s for one in mine if one.side == side) / total_s for side in _SIDES}
    for side, (label, colour) in _SIDES.items():
        if not spent[side]:
            continue
        figure.add(
            "bar", x=[100 * spent[side]], y=[""], orientation="h", xaxis="x2", yaxis="y2", marker={"color": colour}, name=label, showlegend=False,
            text=[f"{label.partition(':')[0]} {spent[side]:.0%}"] if spent[side] > 0.2 else [f"{spent[side]:.0%}"],
            textposition="inside", insidetextanchor="middle", insidetextfont={"color": "#1C2126" if side != "compute" else "#FFFFFF", "size": 12},
            hovertemplate=f"{label}: %{{x:.1f}} % of the time<extra></extra>",
        )  # fmt: skip
    figure.axis(
        "x2",
        title="share of the time of one layer [%]",
        range=[0, 100],
        domain=[0, 1],
        anchor="y2",
        showgrid=False,
        zeroline=False,
        nticks=6,
    )
    figure.axis("y2", domain=[0, _STRIP], anchor="x2", showticklabels=False, showgrid=False, zeroline=False)
    return spent


def _look(phase: str, number: int) -> tuple[str, str]:
    """What to call the phase of a kernel, and its colour: as on timelines."""
    half = phase.rpartition("(")[2].rstrip(")")
    if half in _PASSES:
        return _PASSES[half], OPERATIONS[half][1]
    return PARTS.get(part_of(phase), (phase, style.SERIES[number % len(style.SERIES)]))


def _rate(flops_per_s: float) -> str:
    return f"{show(flops_per_s, 'count', 3)}FLOP/s"


def _of_layer(case: Case, spent: Mapping[str, float], mine: Sequence[Point]) -> str:
    def reached(side: str) -> str:
        """Of the roof above, the mean over time."""
        there = [one for one in mine if one.side == side]
        return f"{sum(one.reached_fraction * one.time_s for one in there) / sum(one.time_s for one in there):.0%}"

    words = {
        "compute": "arithmetic limits {:.0%} of a layer's kernel time (at {} of the peak)",
        "memory": "HBM limits products for {:.0%} (at {} of its rate)",
        "moves": "{:.0%} only moves bytes (at {} of HBM)",
    }
    said = ", ".join(
        text.format(spent[side], reached(side)) for side, text in words.items() if spent[side] >= 0.005
    )
    return f"{case.name}: {said}" if case.variant else said[0].upper() + said[1:]


def _of_profile(case: Case, mine: Sequence[Point]) -> str:
    phase = next(one.phase for one in reversed(mine) if one.phase.startswith("GEMM"))
    series = [one for one in mine if one.phase == phase]
    ridge = next((one for one in series if one.side == "compute"), series[-1])
    last = series[-1]
    return (
        f"{case.result.get('title', case.name)}: a {phase} leaves the slope of HBM at {ridge.name}, "
        f"and reaches {last.reached_fraction:.0%} of the peak at {last.name}"
    )
