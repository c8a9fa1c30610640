"""A whole training run of many steps: days, GPU-hours, energy, and what it costs at whose price.

Prices differ by more than what is compared, so every amount says at which price of a GPU-hour: that of the scenario, the
same for all hardware, or where it gives none the hardware's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.show.grid import Cell, Grid, padded
from sim.show.views.run import Case
from sim.units import show


def runs_of(steps: Sequence[Case]) -> list[Case]:
    """The steps that a whole run was asked for."""
    return [case for case in steps if "run_gpu_hours" in case.metrics]


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


def run_sentence(case: Case) -> str | None:
    """What a whole run of one step takes; None where none was asked for."""
    m = case.metrics
    if "run_gpu_hours" not in m:
        return None
    tokens = _asked(case).get("tokens")
    what = f"The run of {tokens} tokens" if tokens else "The whole run"
    price = f", {count(m['run_cost_usd'])} $ at {at_price(case)}" if "run_cost_usd" in m else ""
    used = f", {energy(m['run_energy_kwh'])}" if "run_energy_kwh" in m else ""
    return f"{what} takes {m['run_days']:,.1f} days, {count(m['run_gpu_hours'])} GPU-hours{price}{used}."


def compared(steps: Sequence[Case]) -> list[str]:
    """What the runs of several steps cost, and at which prices."""
    priced = [case for case in runs_of(steps) if "run_cost_usd" in case.metrics]
    if len(priced) < 2:
        return []
    sources = dict.fromkeys(at_price(case) for case in priced)
    same = len(sources) == 1
    said = [
        f"{count(case.metrics['run_cost_usd'])} $ in {case.name}{'' if same else f' at {at_price(case)}'}"
        for case in priced
    ]
    return [f"The whole run costs {', '.join(said)}{f', all at {next(iter(sources))}' if same else ''}."]


def at_price(case: Case) -> str:
    """`2 $/GPU-hour (the scenario's)`."""
    return f"{_rate(case.metrics):.4g} $/GPU-hour ({_source(case)})"


def count(value: float | None) -> Cell:
    """A large number, in M or G from a million on."""
    return "-" if value is None else f"{value:,.0f}" if value < 1e6 else padded(show(value, "count"))


def energy(kwh: float | None) -> Cell:
    """Energy in MWh or GWh."""
    return "-" if kwh is None else f"{kwh / 1e6:.4g} GWh" if kwh >= 1e6 else f"{kwh / 1e3:.4g} MWh"


def _asked(case: Case) -> Mapping[str, Any]:
    found = case.workload.get("run")
    return found if isinstance(found, Mapping) else {}


def _rate(metrics: Mapping[str, Any]) -> float:
    """Price of a GPU-hour [$]."""
    return float(metrics["run_cost_usd"] / metrics["run_gpu_hours"])


def _source(case: Case) -> str:
    """Whose price it is."""
    return (
        "the scenario's, for all hardware" if _asked(case).get("price") else f"of the profile {case.hardware}"
    )
