"""The roofline: what kernels of one layer reach, between the rate of HBM and the peak of their format.

Why this way: a kernel that multiplies stands at its FLOPs per byte and its FLOP/s, under a roof that no kernel can pierce;
its area is its share of the layer's time, so that the eye weighs what counts. Kernels that only move bytes have no place on
such axes: the strip below gives their share, beside those of the products left and right of the ridge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sim.show import style
from sim.show.canvas import Canvas, Picture, absent
from sim.show.views.lanes import OPERATIONS, PARTS, part_of
from sim.show.views.run import LayerLaunch, Roofs, RunsView, RunView
from sim.show.words.headline import headline
from sim.units import show

_SIDES = {
    "compute": ("right of the ridge: arithmetic limits", "#86515E"),
    "memory": ("left of the ridge: HBM limits", style.COLOUR["hbm"]),
    "moves": ("only moves bytes", "#BC86F2"),
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
class PlacedLaunch(LayerLaunch):
    """A launch, its place, and how much of what its roof allows it reaches (0..1)."""

    side: str
    reached_fraction: float

    @property
    def intensity(self) -> float:
        """FLOPs per byte."""
        return self.flops / self.bytes

    @property
    def rate(self) -> float:
        """FLOP/s."""
        return self.flops / self.time_s


def points(run: RunView) -> list[PlacedLaunch]:
    """The launches of a result, each with its side of the ridge of its format."""
    roofs = run.roofs
    if roofs is None:
        return []
    made = []
    for launch in run.launches:
        memory_s = launch.bytes / roofs.hbm_bytes_per_s
        compute_s = launch.flops / roofs.peak_flops[launch.dtype] if launch.flops else 0.0
        side = "moves" if not launch.flops else "compute" if compute_s >= memory_s else "memory"
        reached = max(compute_s, memory_s) / launch.time_s if launch.time_s else 0.0
        made.append(PlacedLaunch(**asdict(launch), side=side, reached_fraction=reached))
    return made


def roofline(runs: RunsView) -> Picture:
    """Arithmetic intensity against FLOP/s of the launches of one layer, under the roofs of the GPU."""
    run = runs.runs[0]
    drawn = [point for point in points(run) if point.time_s > 0]
    multiplying = [point for point in drawn if point.side != "moves"]
    if not multiplying or run.roofs is None:
        raise absent("roofline", "only training, prefill and decode list their kernels")
    roofs = run.roofs
    profile = not run.kind  # launches of a GPU, which share no time
    total_s = sum(point.time_s for point in drawn)
    low, high = _reach(
        [point.intensity for point in multiplying],
        [rate / roofs.hbm_bytes_per_s for rate in roofs.peak_flops.values()],
    )
    bottom, top = _reach([point.rate for point in multiplying], list(roofs.peak_flops.values()))
    figure = Canvas()
    _roofs(figure, roofs, low, high)
    phases = list(dict.fromkeys(point.phase for point in multiplying))
    colours = {phase: _look(phase, i) for i, phase in enumerate(phases)}
    shown: set[str] = set()
    for point in multiplying if profile else sorted(multiplying, key=lambda point: -point.time_s):
        label, colour = colours[point.phase]
        share = point.time_s / total_s
        figure.add(
            "scatter", x=[point.intensity], y=[point.rate / _TERA], mode="markers", name=label, legendgroup=label, showlegend=False,
            marker={
                "symbol": _SYMBOL.get(point.dtype, "square"), "color": colour, "opacity": 0.72, "line": {"width": 1, "color": "rgba(255,255,255,0.7)"},
                "size": 9 if profile else _across(share),
            },
            hovertemplate=f"{point.name}, {point.phase}, {point.dtype.upper()}<br>%{{x:.4g}} FLOP/byte, {_rate(point.rate)}<br>{point.reached_fraction:.0%} of its roof, "
            f"{show(point.time_s, 's', 3)}{'' if profile else f', {share:.1%} of the time'}<extra></extra>",
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
        _labels(figure, multiplying, total_s, (low, high, bottom, top))
        spent = _strip(figure, drawn, total_s)
    figure.axis(
        "x", title=f"FLOP per byte of HBM; circles FP8, diamonds BF16{'' if profile else ', area the share of time'}", type="log",
        range=[math.log10(low), math.log10(high)], anchor="y", dtick=1,
    )  # fmt: skip
    figure.axis(
        "y", title="TFLOP/s", type="log", range=[math.log10(bottom / _TERA), math.log10(top / _TERA)], domain=[0 if profile else _STRIP + 0.2, 1], dtick=1,
    )  # fmt: skip
    figure.layout |= {"hovermode": "closest", "barmode": "stack"}
    title = (
        _profile_title(runs.title or run.name, drawn)
        if profile
        else headline(run, _layer_title(spent, drawn))
    )
    alt = "Roofline. " + "; ".join(
        f"{point.name} ({point.phase}): {point.intensity:.3g} FLOP/byte, {_rate(point.rate)}, {point.time_s / total_s:.1%} of the time"
        for point in sorted(multiplying, key=lambda point: -point.time_s)[:8]
    )
    return style.finish(figure, title, height=560, alt=alt, top=66)


def _across(share: float) -> float:
    """Diameter of a mark whose area is a share of the time [px]."""
    return max(_LEAST_PX, 2 * math.sqrt(_AREA_PX * share / math.pi))


def _reach(values: Sequence[float], marks: Sequence[float]) -> tuple[float, float]:
    """A range of a logarithmic axis that holds all of these, with room around."""
    both = [*values, *marks]
    return min(both) / 3, max(both) * 2.2


def _roofs(figure: Canvas, roofs: Roofs, low: float, high: float) -> None:
    """The slope of HBM and the ceiling of each format."""
    hbm, peaks = roofs.hbm_bytes_per_s, roofs.peak_flops
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
    place = math.log10(low * 1.3), math.log10(low * 1.3 * hbm / _TERA)
    figure.note(
        f"HBM {show(hbm, 'bytes/s', 3)}", *place, xanchor="left", yanchor="top", xshift=6, font={"size": 12}
    )


def _labels(
    figure: Canvas, drawn: Sequence[PlacedLaunch], total_s: float, reach: tuple[float, float, float, float]
) -> None:
    """Names of the kernels that take longest, where they do not stand on one another."""
    low, high, bottom, top = reach
    scale = (900 / math.log10(high / low), 360 / math.log10(top / bottom))
    taken: list[tuple[float, float]] = []
    for point in sorted(drawn, key=lambda point: -point.time_s):
        place = math.log10(point.intensity), math.log10(point.rate / _TERA)
        near = any(
            abs(place[0] - x) * scale[0] < _APART_PX[0] and abs(place[1] - y) * scale[1] < _APART_PX[1]
            for x, y in taken
        )
        if point.time_s < _NAMED_SHARE * total_s or near:
            continue
        taken.append(place)
        shift = _across(point.time_s / total_s) / 2 + 2
        name = point.name if len(point.name) > 2 else f"{point.name} projection"
        figure.note(
            name, *place, xanchor="center", yanchor="bottom", yshift=shift, font={"size": 12}, name="inside"
        )


def _strip(figure: Canvas, drawn: Sequence[PlacedLaunch], total_s: float) -> dict[str, float]:
    """Share of the time on each side, as one bar below; returns it."""
    spent = {side: sum(point.time_s for point in drawn if point.side == side) / total_s for side in _SIDES}
    for side, (label, colour) in _SIDES.items():
        if not spent[side]:
            continue
        figure.add(
            "bar", x=[100 * spent[side]], y=[""], orientation="h", xaxis="x2", yaxis="y2", marker=style.fill(colour), name=label, showlegend=False,
            text=[f"{label.partition(':')[0]} {spent[side]:.0%}"] if spent[side] > 0.2 else [f"{spent[side]:.0%}"],
            textposition="inside", insidetextanchor="middle", insidetextfont={"color": "#1C2126" if side == "moves" else "#FFFFFF", "size": 12},
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
    """Label and colour of the phase of a launch: as on timelines."""
    half = phase.rpartition("(")[2].rstrip(")")
    if half in _PASSES:
        return _PASSES[half], OPERATIONS[half][1]
    return PARTS.get(part_of(phase), (phase, style.SERIES[number % len(style.SERIES)]))


def _rate(flops_per_s: float) -> str:
    return f"{show(flops_per_s, 'count', 3)}FLOP/s"


def _layer_title(spent: Mapping[str, float], drawn: Sequence[PlacedLaunch]) -> str:
    def reached(side: str) -> str:
        """Mean over time of the reached share of the roof above."""
        there = [point for point in drawn if point.side == side]
        fraction = sum(point.reached_fraction * point.time_s for point in there) / sum(
            point.time_s for point in there
        )
        return f"{fraction:.0%}"

    words = {
        "compute": "arithmetic limits {:.0%} of a layer's kernel time (at {} of the peak)",
        "memory": "HBM limits products for {:.0%} (at {} of its rate)",
        "moves": "{:.0%} only moves bytes (at {} of HBM)",
    }
    return ", ".join(
        text.format(spent[side], reached(side)) for side, text in words.items() if spent[side] >= 0.005
    )


def _profile_title(title: str, drawn: Sequence[PlacedLaunch]) -> str:
    phase = next(point.phase for point in reversed(drawn) if point.phase.startswith("GEMM"))
    series = [point for point in drawn if point.phase == phase]
    ridge, last = next((point for point in series if point.side == "compute"), series[-1]), series[-1]
    return (
        f"{title}: a {phase} leaves the slope of HBM at {ridge.name}, "
        f"and reaches {last.reached_fraction:.0%} of the peak at {last.name}"
    )
