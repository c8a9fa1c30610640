"""Faults of a step or pass that come and go, and those of memory: what they make of capacities and compute times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields

import numpy as np

from sim.cluster.faults import Fault, changes_s
from sim.cluster.topology import Cluster, Floats, Ints
from sim.engine.step_plan import Conditions
from sim.errors import InfeasibleError
from sim.schedule.programs import LayerTimes, Node
from sim.schedule.training import StageTimes, Tasks

_BEFORE_S = -1.0  # an instant at which nothing has come yet

Slowed = Callable[..., Callable[[Node], tuple[float, float]]]
"""The fixed and the routed time of each node [s], of the fractions of clock and memory rate, and those that `links` adds, all above 0."""


def conditions_of(
    faults: Sequence[Fault],
    cluster: Cluster,
    tasks: Tasks,
    gpus: Ints,
    gpus_per_node: int,
    slowed: Slowed,
    begin_s: float = 0.0,
    *,
    held_s: float = 0.0,
    links: Callable[[float], Floats] | None = None,
) -> Conditions | None:
    """Capacities and compute times of a step from each instant to the next.

    `begin_s` is the instant of the run at which the tasks have run for `held_s`: until then all is as it is at that instant, or
    without faults that come and go where a part of it is dead.
    `links` are, by the instant, fractions of links that times of nodes depend on as well, [*gpus.shape, number of kinds].
    None where nothing comes and goes, and every memory is healthy. Clocks that are lower for the whole run are
    in the step's speeds already. `gpus` are [pipeline ranks, groups, lanes].
    """
    slow = [
        fault
        for fault in faults
        if fault.quantity == "hbm" or (fault.quantity == "clock" and not fault.lasts)
    ]
    begins = [begin_s, *changes_s(faults, begin_s)]
    if held_s and dead_at(faults, begin_s):
        begins = [_BEFORE_S, *begins]
    if math.isinf(held_s):
        begins = begins[:1]
    parts = [np.ones((len(begins), gpus.size, 2))]  # of clock and memory
    for fault in slow:
        whose = fault.gpus(cluster.num_gpus, gpus_per_node)[gpus.ravel()]
        for i, begin in enumerate(begins):
            if fault.holds(begin):
                own = parts[0][i, :, int(fault.quantity == "hbm")]
                own[whose] = np.minimum(own[whose], fault.fraction)
    if links is not None:
        parts.append(np.array([links(begin).reshape(gpus.size, -1) for begin in begins]))
    rates = np.concatenate(parts, axis=2)
    if not slow and not cluster.windows and bool((rates == 1.0).all()):
        return None
    kinds, variant = np.unique(rates.reshape(-1, rates.shape[2]), axis=0, return_inverse=True)
    nodes = [node for program, _ in tasks.programs for node in program]
    times = np.array([_times(nodes, own, slowed) for own in kinds.tolist()])
    return Conditions(
        instants=np.array(begins[1:]) - begin_s + (held_s if begins[1:] else 0.0),
        capacity=np.array([cluster.capacity_at(begin) for begin in begins]),
        variant=variant.reshape(len(begins), *gpus.shape),
        fixed_s=times[:, 0],
        routed_s=times[:, 1],
    )


def dead_at(faults: Sequence[Fault], time_s: float) -> bool:
    """True at an instant at which something is dead that was or will be alive."""
    return any(fault.fraction == 0.0 and not fault.lasts and fault.holds(time_s) for fault in faults)


def _times(nodes: Sequence[Node], rates: Sequence[float], slowed: Slowed) -> Floats:
    """Fixed and routed times of nodes at some fractions, [2, num_nodes] [s]."""
    if 0.0 in rates[:2]:
        return np.array([[np.inf if time > 0 else 0.0 for time in (n.fixed_s, n.routed_s)] for n in nodes]).T
    at = slowed(*rates)
    return np.array([at(node) for node in nodes]).reshape(-1, 2).T


def named_failure(error: InfeasibleError, faults: Sequence[Fault]) -> InfeasibleError:
    """An error of a step, with the parts that fail in it for good."""
    dead = [
        fault for fault in faults if fault.fraction == 0.0 and np.isinf(fault.until_s) and fault.from_s > 0.0
    ]
    names = "; ".join(f"{fault.part} is dead from {fault.from_s:g} s on" for fault in dead)
    return InfeasibleError(f"{error}: {names}") if names else error


def slowed_update(_: float, memory: float) -> Callable[[Node], tuple[float, float]]:
    """Times of an update, which streams what it reads and writes, whatever the clock; as `Slowed`."""
    return lambda node: (node.fixed_s / memory, node.routed_s)


def slowed_layers(
    healthy: Sequence[StageTimes], modelled: Sequence[StageTimes], slow: Sequence[StageTimes], clock: float
) -> Callable[[Node], tuple[float, float]]:
    """Fixed and routed time of a step's nodes on a GPU with slower memory, whose `clock` is a part of a healthy one's.

    `modelled` and `slow` are the model's times with healthy and with slower memory; they differ from `healthy`,
    which the nodes were made of, where that was measured.
    """
    known: dict[tuple[str, int, float, float], tuple[float, float]] = {}
    for stages in zip(healthy, modelled, slow, strict=True):
        for layers in (
            *zip(*(s.alone for s in stages), strict=True),
            *zip(*(s.beside for s in stages), strict=True),
        ):
            for field, name in _NAMES.items():
                own, before, after = (getattr(layer, field) for layer in layers)
                if own is None:
                    continue
                key = (name, layers[0].layer, own.fixed_s, own.routed_s)
                known[key] = (
                    _scaled(own.fixed_s, before.fixed_s, after.fixed_s),
                    _scaled(own.routed_s, before.routed_s, after.routed_s),
                )

    def times(node: Node) -> tuple[float, float]:
        key = (node.name, node.layer, node.fixed_s, node.routed_s)
        fixed_s, routed_s = known.get(key, key[2:])
        return fixed_s / clock, routed_s / clock

    return times


_NAMES = {
    field.name: f"{field.name.split('_')[0]}({field.name[-1].upper()})"
    for field in fields(LayerTimes)
    if field.name[-2:] in ("_f", "_b", "_w")
}


def _scaled(own: float, before: float, after: float) -> float:
    return own * after / before if before > 0.0 else after
