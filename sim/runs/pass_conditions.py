"""Faults of a pass: what slower clocks, memories and links make of the times of its nodes.

All compute of a pass slows down with the clock. Memory takes part in each launch by its bytes. What groups of TP, CP and ETP
gather and add up is part of the compute of a node, and goes at the rate of the slowest link in the group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sim.cluster.hardware import Hardware
from sim.cluster.topology import NONE, Floats, Ints
from sim.scenario.descriptions import Scenario
from sim.schedule.programs import Node, Program
from sim.workload.layout import Layout

_GROUPS = ("tp", "cp", "etp")  # that reduce within nodes of compute


def healthy(scenario: Scenario) -> Scenario:
    """The scenario without faults."""
    shared = scenario.shared and replace(scenario.shared, faults={})
    return replace(scenario, faults=(), shared=shared)


def with_rates(scenario: Scenario, memory: float, scale_up: float, nic: float) -> Scenario:
    """The scenario on GPUs whose memory and links have a fraction of their rates."""
    assert scenario.hardware is not None
    gpu, own = scenario.hardware.gpu, scenario.hardware.nic
    slower: Hardware = replace(
        scenario.hardware,
        gpu=replace(
            gpu,
            hbm=replace(gpu.hbm, bandwidth_bytes_per_s=gpu.hbm.bandwidth_bytes_per_s * memory),
            scale_up=replace(
                gpu.scale_up, bandwidth_bytes_per_s=gpu.scale_up.bandwidth_bytes_per_s * scale_up
            ),
        ),
        nic=own and replace(own, bandwidth_bytes_per_s=own.bandwidth_bytes_per_s * nic),
    )
    return replace(scenario, hardware=slower)


def link_fractions(scenario: Scenario, layout: Layout, members: Ints) -> Callable[[float], Floats] | None:
    """Fractions of the scale-up link and of the NIC that a rank's groups leave it, by the instant, [*members.shape, 2].

    None where no group reduces anything.
    """
    groups = [layout.groups(name) for name in _GROUPS if getattr(layout, name) > 1]
    if not groups:
        return None
    cluster, whole, gpus = scenario.cluster(), healthy(scenario).cluster(), scenario.gpus
    rows = [
        np.stack([c[0][gpus], c[1][gpus]])
        for c in ((cluster.egress, cluster.ingress), (cluster.nic_tx, cluster.nic_rx))
    ]

    def at(time_s: float) -> Floats:
        left = cluster.capacity_at(time_s) / np.where(whole.capacity > 0, whole.capacity, 1.0)
        fraction = np.stack([np.where(own == NONE, 1.0, left[own]).min(axis=0) for own in rows], axis=1)
        for group in groups:
            fraction[group] = fraction[group].min(axis=1, keepdims=True)
        shared: Floats = fraction[members]
        return shared

    return at


def slowed_nodes(
    program: Program, timed: Callable[[float, float, float], tuple[Program, float]]
) -> Callable[..., Callable[[Node], tuple[float, float]]]:
    """Times of the nodes of a pass, as `step_conditions.Slowed`.

    `timed` has, of fractions of memory, scale-up and NIC, the same program and what routed experts take over what they take in
    `program`.
    """

    def slowed(
        clock: float, memory: float, scale_up: float = 1.0, nic: float = 1.0
    ) -> Callable[[Node], tuple[float, float]]:
        rates = (memory, scale_up, nic)
        if rates == (1.0, 1.0, 1.0):
            return lambda node: (node.fixed_s / clock, node.routed_s / clock)
        slow, routed = timed(*(rate or 1.0 for rate in rates))
        at = {node: other.fixed_s for node, other in zip(program, slow, strict=True)}
        if 0.0 in rates:  # who needs a link that is dead waits for it
            half, _ = timed(*(rate or 0.5 for rate in rates))
            at |= {
                node: np.inf for node, other in zip(program, half, strict=True) if other.fixed_s > at[node]
            }
        return lambda node: (at[node] / clock, node.routed_s * routed / clock)

    return slowed
