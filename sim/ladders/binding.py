"""Shares of resources in the time of a step or a pass: the part of it that goes with the rate of each.

A collective has one link that is full longest. A step waits for many things in turn, and a link that is busy for long may be hidden
by compute, so that no load tells what binds. That is told by the run itself on a machine on which one resource is a tenth faster.

    share = (1 - t(1.1 r) / t(r)) / (1 - 1 / 1.1)

Were every rate greater and every fixed time less by one factor, so would be the time: shares and the part of fixed times add up to 1,
but for kinks of less than a tenth.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.cluster.parameters import Parameter
from sim.documents import Document
from sim.errors import Mark
from sim.scenario import resolve as scenarios
from sim.scenario import settings

FASTER = 1.1
"""Rate of a resource over what it has."""
_RATES = {
    "compute": ("gpu.dense_flops.", "gpu.tensor_clock"),
    "hbm": ("gpu.hbm.bandwidth",),
    "scale_up": ("gpu.scale_up.bandwidth",),
    "nic": ("nic.bandwidth", "gpu.pcie.bandwidth"),  # behind a PCIe link that keeps up
    "copy_sms": ("copy_rate.",),
}
_UNIT = {"bytes/s": "B/s", "flop/s": "FLOP/s", "Hz": "Hz"}


def faster(document: Document) -> Iterator[tuple[str, Document]]:
    """Yield the class of each resource of a scenario, and the scenario on a machine that has it a tenth faster."""
    scenario = scenarios.resolve(document)
    figures: list[tuple[tuple[str, ...], Parameter]] = [
        (("cluster",), figure) for figure in (scenario.hardware.parameters if scenario.hardware else ())
    ]
    figures += [
        (("workload", "kernel"), figure)
        for kernel in scenario.workload.kernels
        for figure in kernel.parameters
    ]
    rates = [(at, figure) for at, figure in figures if figure.dimension in _UNIT]
    for name, starts in _RATES.items():
        changed = document.copy()
        own = [(at, figure) for at, figure in rates if figure.path.startswith(starts)]
        for at, figure in own:
            value = f"{figure.value * FASTER!r} {_UNIT[figure.dimension]}"
            settings.put(changed, (*at, "override", *figure.path.split(".")), value, Mark("search"))
        if own:
            yield name, changed


def share(cost: float, with_faster: float) -> float:
    """Part of a time that goes with a rate, from the time as it is and with the rate a tenth higher [fraction]."""
    return max(0.0, (1 - with_faster / cost) / (1 - 1 / FASTER))
