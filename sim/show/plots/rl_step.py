"""Plots of iterations of reinforcement learning: the time of each stage, and samples that are left."""

from __future__ import annotations

from sim.show import style
from sim.show.canvas import Canvas, Picture, absent
from sim.show.plots.bars import spoken, stacked
from sim.show.views.names import capital
from sim.show.views.rl_step import STAGES, RlView
from sim.show.views.run import RunsView
from sim.units import show

ALONE: tuple[str, ...] = ()
"""Kinds that it draws of one run at a time."""


def phases(runs: RunsView) -> Picture:
    """Time of the stages of an iteration, a stacked bar for each variant."""
    shown = runs.select(RlView)
    spent = {run.name: run.stages_s for run in shown}
    totals = {name: sum(times.values()) for name, times in spent.items()}
    scale, unit = style.time_unit(max(totals.values()))
    figure = Canvas()
    stacked(figure, STAGES, spent, scale, f"<br>%{{x:.4g}} {unit}, %{{customdata:.1%}}")
    figure.axis("x", title=f"time of the stages [{unit}]", rangemode="tozero")
    shares = {name: times["rollout"] / totals[name] for name, times in spent.items()}
    title = "; ".join(
        f"{f'in {name} ' if len(spent) > 1 else ''}stages take {show(totals[name], 's', 3)}, {share:.0%} of it the rollout"
        for name, share in shares.items()
    )
    words = spoken({name: label for name, (label, _) in STAGES.items()}, spent, lambda s: show(s, "s", 3))
    height = 170 + 46 * len(shown)
    return style.finish(figure, capital(title), height=height, alt=f"Stacked bars: {words}", top=76)


def tail(runs: RunsView) -> Picture:
    """Samples that are left over the time of a rollout, a curve for each variant."""
    shown = [run for run in runs.select(RlView) if run.end_s]
    if not shown:
        raise absent("tail", "this one kept no course in time")
    scale, unit = style.time_unit(max(run.end_s[-1] for run in shown))
    figure = Canvas()
    for i, run in enumerate(shown):
        line = {"color": style.SERIES[i % len(style.SERIES)], "width": 2.4, "shape": "hv"}
        figure.add(
            "scatter", x=[0.0, *(end / scale for end in run.end_s)], y=[run.left[0] + 1, *run.left], mode="lines", name=run.name,
            showlegend=len(shown) > 1, line=line,
            hovertemplate=f"{run.name}: %{{y:,}} samples are left after %{{x:.4g}} {unit}<extra></extra>",
        )  # fmt: skip
    stops = "; a fall to 0 is a stop" if any(run.carried_samples for run in shown) else ""
    last = max(run.end_s[-1] for run in shown) / scale
    figure.axis("x", title=f"time since the rollout began [{unit}]{stops}", range=[0, 1.01 * last])
    most = max(run.left[0] + 1 for run in shown)
    figure.axis("y", title="samples that are left", range=[-0.04 * most, 1.04 * most], zeroline=False)
    shares = ", ".join(
        f"{run.last_tenth_fraction:.0%}{'' if i else ' of the rollout'}{f' in {run.name}' if len(shown) > 1 else ''}"
        for i, run in enumerate(shown)
    )
    title = f"The last tenth of the samples takes {shares}"
    ends = "; ".join(
        f"{run.name}: {run.left[0] + 1:,} samples, the last after {show(run.end_s[-1], 's', 3)}"
        for run in shown
    )
    return style.finish(
        figure, title, height=340, alt=f"Falling curves. {ends}", top=76 if len(shown) > 1 else 52
    )
