"""Plots of iterations of reinforcement learning: the time of each stage."""

from __future__ import annotations

from sim.show import style
from sim.show.canvas import Canvas, Picture
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
