"""The grid of a whole training run of many steps."""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.grid import Grid, ratio_cell
from sim.show.views.training import StepView
from sim.show.words.whole_run import count, energy, owner


def cost(steps: Sequence[StepView]) -> Grid:
    """Days, GPU-hours, energy and cost of a whole run of such steps, where one was asked for."""
    runs = {step.name: step.whole_run for step in steps if step.whole_run}
    first_usd = next((run.run_cost_usd for run in runs.values()), None)
    rows = []
    for name, run in runs.items():
        priced = run.run_cost_usd is not None
        compared = run.run_cost_usd / first_usd if run.run_cost_usd is not None and first_usd else None
        rows.append(
            (
                name,
                f"{run.run_days:,.1f}",
                count(run.run_gpu_hours),
                f"{run.usd_per_gpu_hour:.4g} $" if priced else "-",
                f"{count(run.run_cost_usd)} $" if priced else "-",
                energy(run.run_energy_kwh),
                ratio_cell(compared if len(runs) > 1 else None),
            )
        )
    tokens = dict.fromkeys(run.tokens for run in runs.values() if run.tokens)
    title = f"The whole run of {' or '.join(tokens) or 'all'} tokens"
    first_head = "variant" if len(steps) > 1 else "scenario"
    heads = (
        first_head,
        "days",
        "GPU-hours",
        "a GPU-hour",
        "cost",
        "energy",
        f"cost / {next(iter(runs), '')}",
    )
    owners = dict.fromkeys(owner(run) for run in runs.values() if run.run_cost_usd is not None)
    return Grid(title, heads, tuple(rows), note=f"a GPU-hour: {'; '.join(owners)}" if owners else "")
