"""Plots of a training step: where it goes, what memory holds, and what the whole run costs."""

from __future__ import annotations

from collections.abc import Sequence

from sim.show import style
from sim.show.canvas import Canvas, Picture, absent
from sim.show.plots.bars import mark_bounds, mark_published, spoken, stacked
from sim.show.views.lanes import OPERATIONS
from sim.show.views.names import capital
from sim.show.views.run import RunsView
from sim.show.views.training import PHASES, StepView, parts_of
from sim.show.words.headline import headline
from sim.show.words.training import compared, largest_phase, words_of
from sim.show.words.whole_run import LOST
from sim.units import show

ALONE = ("memory",)
"""Kinds that it draws of one run at a time."""
_PHASES = {
    "1F_s": OPERATIONS["F"][1],
    "1B_s": OPERATIONS["B"][1],
    "1W_s": OPERATIONS["W"][1],
    "1F1B_s": OPERATIONS["FB"][1],
    "opt_s": OPERATIONS["opt"][1],
    "bubble_s": "#BC0000",
}
_PARTS = {
    "weights": "#005EAE",
    "fp8 copies": "#BC0000",
    "gradients": "#F2791B",
    "optimizer": "#86515E",
    "activations": "#5EAE94",
    "buffers": "#BC86F2",
}
_MAX_NAMED = 24  # rows with a tick each
_MAX_SPOKEN = 8  # bars that are put into words


def phases(runs: RunsView) -> Picture:
    """Time of the step by phase: a stacked bar for each variant (its mean pipeline rank), or for each rank of a single run."""
    steps = runs.select(StepView)
    single = len(steps) == 1
    ranks = steps[0].rank_phases if single else {}
    rows = ranks or {step.name: dict(step.phases_mean) for step in steps}
    names = [next(iter(rows))] if single else list(rows)  # of the bars that have a bound
    scale, unit = style.time_unit(max(step.step_time_s for step in steps))
    figure = Canvas()
    looks = {phase: (label, _PHASES[phase]) for phase, label in PHASES.items()}
    stacked(figure, looks, rows, scale, f"<br>%{{x:.4g}} {unit}, %{{customdata:.1%}} of the step")
    mark_bounds(figure, [(step.lower_bound_s or 0.0) / scale for step in steps], names, unit)
    published = [
        (row, name)
        for step, name in zip(steps, names, strict=True)
        for row in step.expected
        if row.metric == "step_time_s"
    ]
    mark_published(
        figure,
        [(row.published / scale, name) for row, name in published],
        [
            f"published {show(row.published, 's')}<br>simulated {show(row.simulated, 's')} ({row.error_fraction:+.1%})"
            for row, _ in published
        ],
        "published step",
    )
    figure.axis(
        "x", title=f"time{'' if ranks else ' of the mean pipeline rank'} [{unit}]", rangemode="tozero"
    )
    if single and len(rows) > 1:
        figure.axis("y", title="pipeline rank", tickvals=list(rows)[:: -(-len(rows) // _MAX_NAMED)])
    title = _phases_title(steps[0]) if single else " ".join(compared(runs)[:2])
    words = spoken(PHASES, dict(list(rows.items())[:_MAX_SPOKEN]), lambda time_s: show(time_s, "s", 3))
    height = 150 + (24 if len(rows) > 6 else 40) * len(rows)
    return style.finish(figure, title, height=height, alt=f"Stacked bars: {words}", top=76)


def _phases_title(step: StepView) -> str:
    step_s, mean, largest = step.step_time_s, step.phases_mean, largest_phase(step)
    return (
        f"A step takes {show(step_s, 's', 3)}: on the mean rank {words_of(largest)} take {mean[largest] / step_s:.0%} of it, "
        f"the bubble {mean['bubble_s'] / step_s:.1%}"
    )


def memory(runs: RunsView) -> Picture:
    """Memory of a GPU of each pipeline rank by part, next to its capacity."""
    step = runs.select(StepView)[0]
    if not step.memory:
        raise absent("memory", "this one counted none")
    capacity, fullest, parts = step.memory_capacity_bytes, step.fullest, parts_of(step.memory)
    scale, unit = style.bytes_unit(fullest.total_bytes)
    figure = Canvas()
    looks = {
        part: (part, _PARTS.get(part, style.SERIES[i % len(style.SERIES)])) for i, part in enumerate(parts)
    }
    bars = {str(held.rank): held.parts for held in step.memory}
    stacked(figure, looks, bars, scale, f": %{{y:.3g}} {unit}", upright=True, noun="rank ")
    if capacity:
        figure.level(capacity / scale, style.BAD, "above")
        figure.note(
            f"{show(capacity, 'bytes', 3)} of HBM", 1, capacity / scale, xref="paper", xanchor="right", yanchor="bottom", font={"size": 13}
        )  # fmt: skip
    ticks = list(bars)[:: -(-len(bars) // _MAX_NAMED)]
    figure.axis("x", title="pipeline rank", type="category", showgrid=False, tickvals=ticks)
    top = max(fullest.total_bytes, capacity or 0.0) / scale
    figure.axis("y", title=f"memory of a GPU [{unit}]", range=[0, top * 1.1])
    part = max(parts, key=lambda name: fullest.parts.get(name, 0.0))
    of = f" of {show(capacity, 'bytes', 3)}" if capacity else ""
    title = (
        f"rank {fullest.rank} holds most, {show(fullest.total_bytes, 'bytes', 3)}{of}; "
        f"{part} take {show(fullest.parts[part], 'bytes', 3)} of it"
    )
    totals = ", ".join(f"{held.rank} {show(held.total_bytes, 'bytes', 3)}" for held in step.memory)
    return style.finish(
        figure, headline(step, title), height=420, alt=f"Stacked bars by pipeline rank: {totals}", top=52
    )


def whole_run(runs: RunsView) -> Picture:
    """Cost of the whole run by phase, or what failures take of one without phases: a bar for each variant."""
    lost = [step for step in runs.select(StepView) if step.whole_run and step.whole_run.lost]
    if lost and not any(step.whole_run and step.whole_run.has_phases for step in lost):
        return _failures(lost)
    steps = [
        step for step in runs.select(StepView) if step.whole_run is not None and step.whole_run.has_phases
    ]
    priced = [step for step in steps if step.whole_run and step.whole_run.run_cost_usd is not None]
    if not priced:
        raise absent("whole_run", "this one has no run of phases with a price, and none with failures")
    bars = {
        step.name: {phase.name: phase.cost_usd or 0.0 for phase in step.whole_run.phases}
        for step in priced
        if step.whole_run
    }
    names = list(dict.fromkeys(name for sizes in bars.values() for name in sizes))
    looks = {name: (name, style.SERIES[i % len(style.SERIES)]) for i, name in enumerate(names)}
    largest = max(sum(sizes.values()) for sizes in bars.values())
    scale, unit = (1e6, "M$") if largest >= 1e6 else (1e3, "k$")
    figure = Canvas()
    stacked(figure, looks, bars, scale, f"<br>%{{x:.4g}} {unit}, %{{customdata:.1%}} of the run")
    mark_published(
        figure,
        [
            (row.published / scale, step.name)
            for step in priced
            for row in step.expected
            if row.metric == "run_cost_usd"
        ],
        [
            f"published {row.published / scale:.4g} {unit}<br>simulated {row.simulated / scale:.4g} {unit} ({row.error_fraction:+.1%})"
            for step in priced
            for row in step.expected
            if row.metric == "run_cost_usd"
        ],
        "published cost",
    )
    figure.axis("x", title=f"cost without failures [{unit}]", rangemode="tozero")
    words = spoken({}, bars, lambda usd: f"{usd / scale:.3g} {unit}")
    first, sizes = next(iter(bars.items()))
    most = max(sizes, key=sizes.__getitem__)
    where = f" in {first}" if len(bars) > 1 else ""
    title = f"{capital(most)} takes {sizes[most] / sum(sizes.values()):.0%} of the cost{where}"
    return style.finish(figure, title, height=150 + 40 * len(bars), alt=f"Stacked bars: {words}", top=76)


def _failures(steps: Sequence[StepView]) -> Picture:
    """Part of the time on the clock that is training which counts, and what takes the rest."""
    looks = {"counts": ("training that counts", style.SERIES[0])}
    colours = (*style.SERIES[1:], style.NEUTRAL)
    looks |= {part: (label, colour) for (part, label), colour in zip(LOST.items(), colours, strict=True)}
    bars: dict[str, dict[str, float]] = {}
    for step in steps:
        run = step.whole_run
        assert run is not None
        assert run.lost is not None
        kept, lost_s = run.ettr_fraction or 1.0, run.lost.lost_s
        whole_s = sum(lost_s.values()) or 1.0
        bars[step.name] = {"counts": kept} | {part: (1 - kept) * s / whole_s for part, s in lost_s.items()}
    figure = Canvas()
    stacked(figure, looks, bars, 0.01, "<br>%{x:.1f} % of the time on the clock")
    figure.axis("x", title="time on the clock [%]", range=[0, 100])
    least = min(bars, key=lambda name: bars[name]["counts"])
    where = f" in {least}" if len(bars) > 1 else ""
    title = f"{bars[least]['counts']:.1%} of the time is training that counts{where}"
    words = spoken({part: label for part, (label, _) in looks.items()}, bars, lambda share: f"{share:.1%}")
    return style.finish(figure, title, height=170 + 40 * len(bars), alt=f"Stacked bars: {words}", top=96)
