"""Plot of the energy of runs of any kind, by where it goes."""

from __future__ import annotations

from sim.show import style
from sim.show.canvas import Canvas, Picture, absent
from sim.show.plots.bars import spoken, stacked
from sim.show.tables.run import ENERGY
from sim.show.views.names import J_IN_KWH, energy_unit
from sim.show.views.run import RunsView

_BLUE, _ORANGE, _GREEN, _LILAC, _BROWN, _RED = style.SERIES
_COLOURS = (_BLUE, _RED, _ORANGE, style.OTHERS["pale"], _GREEN, _BROWN, _LILAC)
_BUILDING = "building"


def energy(runs: RunsView) -> Picture:
    """Energy by where it goes, of a token where runs have tokens: a bar for each variant."""
    known = [run for run in runs.runs if run.metric("energy.total_kwh")]
    if not known:
        raise absent("energy", "the power of its GPUs is unknown")
    a_token = all(run.metric("energy.per_token_j") for run in known)
    bars: dict[str, dict[str, float]] = {}
    for run in known:
        whole = run.metric("energy.total_kwh")
        scale = run.metric("energy.per_token_j") / whole if a_token else J_IN_KWH
        parts = {part: run.metric(f"energy.{part}_kwh") for part in ENERGY}
        parts[_BUILDING] = whole - sum(parts.values())
        bars[run.name] = {part: kwh * scale for part, kwh in parts.items()}
    names = {
        **{part: f"GPUs, {name}" if i < 4 else name for i, (part, name) in enumerate(ENERGY.items())},
        _BUILDING: _BUILDING,
    }
    looks = {part: (name, colour) for (part, name), colour in zip(names.items(), _COLOURS, strict=True)}
    totals = {name: sum(parts.values()) for name, parts in bars.items()}
    factor, unit = energy_unit(max(totals.values()))
    figure = Canvas()
    stacked(figure, looks, bars, factor, f"<br>%{{x:.4g}} {unit}, %{{customdata:.1%}} of the energy")
    figure.axis("x", title=f"energy{' of a token' if a_token else ''} [{unit}]", rangemode="tozero")
    least, most = min(totals, key=totals.__getitem__), max(totals, key=totals.__getitem__)
    amounts = [f"{totals[name] / factor:.3g}" for name in (least, most)]
    if len(totals) == 1:
        title = f"takes {amounts[0]} {unit}"
    elif amounts[0] == amounts[1]:
        title = f"takes {amounts[0]} {unit} in each variant"
    else:
        title = f"takes from {amounts[0]} {unit} in {least} to {amounts[1]} {unit} in {most}"
    words = spoken(names, bars, lambda used: f"{used / factor:.3g} {unit}")
    return style.finish(
        figure,
        f"{'A token' if a_token else 'The run'} {title}",
        height=160 + 40 * len(bars),
        alt=f"Stacked bars: {words}",
        top=96,
    )
