"""Sentences on a whole training run of many steps: days, GPU-hours, energy, and what it costs at whose price.

Prices differ by more than what is compared, so every amount says at which price of a GPU-hour: that of the scenario, the
same for all hardware, or where it gives none the hardware's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sim.show.grid import Cell, padded
from sim.show.views.training import StepView, WholeRun
from sim.units import show


def cost(run: WholeRun) -> str:
    """Say what a whole run of one step takes."""
    what = f"The run of {run.tokens} tokens" if run.tokens else "The whole run"
    cost_usd = "" if run.run_cost_usd is None else f", {money(run.run_cost_usd)} at {price(run)}"
    return (
        f"{what} takes {run.run_days:,.1f} days, {count(run.run_gpu_hours)} GPU-hours{cost_usd}{_used(run)}."
    )


def _used(run: WholeRun) -> str:
    """Energy of a run, with the range that assumed powers leave it."""
    if run.run_energy_kwh is None:
        return ""
    ends = run.run_energy_low_kwh, run.run_energy_high_kwh
    between = "" if None in ends or ends[0] == ends[1] else f" ({energy(ends[0])} to {energy(ends[1])})"
    return f", {energy(run.run_energy_kwh)}{between}"


def lost(steps: Sequence[StepView]) -> list[str]:
    """Say what failures leave of whole runs, and what takes most of the rest of the worst."""
    runs = [(step.name, step.whole_run) for step in steps if step.whole_run and step.whole_run.lost]
    if not runs:
        return []
    name = min(runs, key=lambda own: own[1].ettr_fraction or 0.0)[0]
    taken = dict(runs)[name].lost
    assert taken is not None
    most = max(taken.lost_s, key=taken.lost_s.__getitem__)
    shares = [
        f"{run.ettr_fraction:.1%}{f' in {own}' if len(runs) > 1 else ''} (one every {span(run.mtbf_s)})"
        for own, run in runs[:_NAMED]
    ]
    where = f"in {name}" if len(runs) > 1 else "here"
    return [
        f"Failures leave {', '.join(shares)} of the time to training that counts; most of what is lost {where} are {LOST[most]}."
    ]


def failures_differ(steps: Sequence[StepView]) -> bool:
    """Tell whether runs differ in what failures leave of them: then they are what was asked about."""
    left = [step.whole_run.ettr_fraction for step in steps if step.whole_run and step.whole_run.lost]
    return len({f"{share or 1.0:.2f}" for share in left}) > 1


LOST = {
    "saving": "checkpoints",
    "undone": "hours undone",
    "restarting": "restarts",
    "waiting": "waits for a spare",
    "slowed": "hours next to slow GPUs",
    "swapping": "swaps of slow GPUs",
}
"""Lost time by what took it, as a reader calls it."""
_NAMED = 4  # runs in a sentence


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
        f"{money(run.run_cost_usd)} in {name}{'' if same else f' at {_own_price(run)}'}"
        for name, run in priced.items()
    ]
    owned = "" if all(run.price for run in priced.values()) else ", each at its profile's price of a GPU-hour"
    whose = f", all at {prices[0]}" if same else owned
    return [f"The whole run costs {', '.join(amounts)}{whose}.", *_saved(priced)]


def _saved(priced: Mapping[str, WholeRun]) -> list[str]:
    """Say what the first run saves against the dearest of another model, in money and in energy."""
    (name, first), *others = priced.items()
    dear = [(own.run_cost_usd or 0.0, other, own) for other, own in others if own.model != first.model]
    if not dear:
        return []
    cost_usd, other, own = max(dear, key=lambda row: row[0])
    if own.run_energy_kwh is None or first.run_energy_kwh is None or cost_usd <= (first.run_cost_usd or 0.0):
        return []
    saved = cost_usd - (first.run_cost_usd or 0.0)
    return [
        f"{name} saves {money(saved)} and {energy(own.run_energy_kwh - first.run_energy_kwh)} against {other}."
    ]


def price(run: WholeRun) -> str:
    """`2 $/GPU-hour (the scenario's)`."""
    return f"{show(run.usd_per_gpu_hour, 'usd/gpu-hour')} ({owner(run)})"


def _own_price(run: WholeRun) -> str:
    """The price of a GPU-hour, with its owner where that is the scenario."""
    return price(run) if run.price else show(run.usd_per_gpu_hour, "usd/gpu-hour")


def owner(run: WholeRun) -> str:
    """Owner of the price of a GPU-hour."""
    return "the scenario's, for all hardware" if run.price else f"of the profile {run.hardware}"


def span(time_s: float | None) -> Cell:
    """A time between failures, in minutes, hours or days."""
    if time_s is None:
        return "-"
    factor, unit = next(
        (factor, unit)
        for factor, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (0, "s"))
        if time_s >= 2 * factor
    )
    return f"{time_s / (factor or 1):.3g} {unit}"


def count(value: float | None) -> Cell:
    """A large number, in M or G from a million on."""
    return "-" if value is None else f"{value:,.0f}" if value < 1e6 else padded(show(value, "count"))


def money(usd: float | None) -> Cell:
    """An amount of money, in millions from one on."""
    return "-" if usd is None else padded(show(usd, "$")) if usd >= 1e6 else show(usd, "$")


def energy(kwh: float | None) -> Cell:
    """Energy in MWh or GWh."""
    return "-" if kwh is None else f"{kwh / 1e6:.4g} GWh" if kwh >= 1e6 else f"{kwh / 1e3:.4g} MWh"
