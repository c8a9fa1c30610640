"""A whole training run of many steps: days, GPU-hours, energy, and what it costs at whose price.

Prices differ by more than what is compared, so every amount says at which price of a GPU-hour: that of the scenario, the
same for all hardware, or where it gives none the hardware's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.grid import Grid
from sim.show.views.run import Case
from sim.show.words.whole_run import _asked, _rate, _source, count, energy, runs_of


def of_runs(steps: Sequence[Case]) -> Grid:
    """A whole training run of such steps, where one was asked for."""
    runs = runs_of(steps)
    rows = []
    for case in runs:
        m, first = case.metrics, runs[0].metrics
        both = "run_cost_usd" in m and bool(first.get("run_cost_usd"))
        rows.append(
            (
                case.name,
                f"{m['run_days']:,.1f}",
                count(m["run_gpu_hours"]),
                f"{_rate(m):.4g} $" if "run_cost_usd" in m else "-",
                f"{count(m.get('run_cost_usd'))} $" if "run_cost_usd" in m else "-",
                energy(m.get("run_energy_kwh")),
                f"{m['run_cost_usd'] / first['run_cost_usd']:.3f}" if both and len(runs) > 1 else "-",
            )
        )
    tokens = dict.fromkeys(str(_asked(case).get("tokens") or "") for case in runs)
    title = f"The whole run of {' or '.join(filter(None, tokens)) or 'all'} tokens"
    first_head = "variant" if len(steps) > 1 else "scenario"
    beside = f"cost / {runs[0].name}" if runs else ""
    heads = (first_head, "days", "GPU-hours", "a GPU-hour", "cost", "energy", beside)
    sources = dict.fromkeys(_source(case) for case in runs if "run_cost_usd" in case.metrics)
    return Grid(title, heads, tuple(rows), note=f"a GPU-hour: {'; '.join(sources)}" if sources else "")
