"""Grids of iterations of reinforcement learning: stages and pools."""

from __future__ import annotations

from sim.show.grid import Cell, Grid, share_cell, time_cell
from sim.show.views.rl_step import STAGES, RlView
from sim.show.views.run import RunsView


def grids(runs: RunsView, *, wide: bool) -> list[Grid]:
    """A column for each run."""
    shown = runs.select(RlView)
    rows: list[tuple[Cell, ...]] = [("iteration", *(time_cell(run.step_time_s) for run in shown))]
    for name, (label, _) in STAGES.items():
        if any(run.stages_s[name] for run in shown):
            rows.append((label, *(time_cell(run.stages_s[name] or None) for run in shown)))
    rows += [
        ("waits for the tail [GPU-h]", *(f"{run.tail_wait_gpu_s / 3600:,.1f}" for run in shown)),
        ("tokens/s", *(f"{run.tokens_per_s:,.0f}" for run in shown)),
        ("cost [$]", *("-" if run.step_cost_usd is None else f"{run.step_cost_usd:,.2f}" for run in shown)),
    ]
    if any(run.carried_samples is not None for run in shown):
        rows += [
            ("samples carried over", *(f"{run.carried_samples or 0:,.0f}" for run in shown)),
            ("stale tokens", *(share_cell(run.stale_tokens_fraction) for run in shown)),
            ("tokens thrown away", *(share_cell(run.discarded_tokens_fraction) for run in shown)),
        ]
    if any(run.staleness_mean for run in shown):
        rows.append(("staleness [updates]", *(f"{run.staleness_mean:.2f}" for run in shown)))
    for pool in dict.fromkeys(pool for run in shown for pool, idle in run.idle_fraction.items() if idle > 0):
        rows.append((f"{pool} idle", *(share_cell(run.idle_fraction.get(pool, 0.0)) for run in shown)))
    heads = ("", *(run.name if len(shown) > 1 else "run" for run in shown))
    return [Grid("An iteration of reinforcement learning", heads, tuple(rows))]
