"""TODO sim/show/words/whole_run.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.show.grid import Cell, padded
from sim.show.views.run import Case
from sim.units import show


def runs_of(steps: Sequence[Case]) -> list[Case]:
    """The steps that a whole run was asked for."""
    return [case for case in steps if "run_gpu_hours" in case.metrics]


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
