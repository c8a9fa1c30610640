"""Sentences on a whole training run of many steps: days, GPU-hours, energy, and what it costs at whose price.

Prices differ by more than what is compared, so every amount says at which price of a GPU-hour: that of the scenario, the
same for all hardware, or where it gives none the hardware's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.grid import Cell, padded
from sim.show.views.training import StepView, WholeRun
from sim.units import show


def cost(run: WholeRun) -> str:
    """Say what a whole run of one step takes."""
    what = f"The run of {run.tokens} tokens" if run.tokens else "The whole run"
    cost_usd = "" if run.run_cost_usd is None else f", {count(run.run_cost_usd)} $ at {price(run)}"
    used = "" if run.run_energy_kwh is None else f", {energy(run.run_energy_kwh)}"
    return f"{what} takes {run.run_days:,.1f} days, {count(run.run_gpu_hours)} GPU-hours{cost_usd}{used}."


def costs(steps: Sequence[StepView]) -> list[str]:
    """Say what the runs of several steps cost, and at which prices."""
    priced = {
        step.name: step.whole_run
        for step in steps
        if step.whole_run and step.whole_run.run_cost_usd is not None
    }
    if len(priced) < 2:
        return []
    prices = list(dict.fromkeys(map(price, priced.values())))
    same = len(prices) == 1
    amounts = [
        f"{count(run.run_cost_usd)} $ in {name}{'' if same else f' at {price(run)}'}"
        for name, run in priced.items()
    ]
    return [f"The whole run costs {', '.join(amounts)}{f', all at {prices[0]}' if same else ''}."]


def price(run: WholeRun) -> str:
    """`2 $/GPU-hour (the scenario's)`."""
    return f"{run.usd_per_gpu_hour:.4g} $/GPU-hour ({owner(run)})"


def owner(run: WholeRun) -> str:
    """Owner of the price of a GPU-hour."""
    return "the scenario's, for all hardware" if run.price else f"of the profile {run.hardware}"


def count(value: float | None) -> Cell:
    """A large number, in M or G from a million on."""
    return "-" if value is None else f"{value:,.0f}" if value < 1e6 else padded(show(value, "count"))


def energy(kwh: float | None) -> Cell:
    """Energy in MWh or GWh."""
    return "-" if kwh is None else f"{kwh / 1e6:.4g} GWh" if kwh >= 1e6 else f"{kwh / 1e3:.4g} MWh"
