"""Routing and all-to-alls of a forward pass: drawn for a few layers, and solved on the links of one EP group.

Each draw gives every rank its own rows on its experts and its own traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sim.cluster import topology
from sim.cluster.topology import Floats
from sim.engine import fluid
from sim.runs.pass_plan import PassPlan
from sim.runs.routing import draw_routing
from sim.schedule import bounds
from sim.schedule import inference as plans
from sim.schedule.collectives import Collective, record_bytes
from sim.schedule.flows import Flows
from sim.workload.traffic import Routing

_SEEDS_APART = 7919  # between the seeds of layers; the first layer has the scenario's


@dataclass(frozen=True, slots=True)
class SolvedCollective:
    """A dispatch or combine on idle links: time of each rank [num_ranks] [s], and its flows."""

    alone_s: Floats
    flows: Flows


@dataclass(frozen=True, slots=True)
class PassCollectives:
    """Everything that a pass moves between its ranks.

    Parameters
    ----------
    cluster : Cluster
        The nodes of the EP group, with their faults.
    routings : tuple of tuples of Routing, [num_drawn][microbatches]
        One microbatch where all draws are the same.
    solved : mapping of (direction, layer draw, microbatch draw) to SolvedCollective
    """

    cluster: topology.Cluster
    routings: tuple[tuple[Routing, ...], ...]
    solved: Mapping[tuple[str, int, int], SolvedCollective]

    def draw_idx(self, layer: int, microbatch: int) -> tuple[int, int]:
        """Layer draw and microbatch draw that a layer with experts and a microbatch of the program take."""
        return layer % len(self.routings), microbatch % len(self.routings[0])

    def alone_s(self, direction: str) -> list[Floats]:
        """Times on idle links of every draw of one direction, each [num_ranks] [s]."""
        return [solved.alone_s for key, solved in self.solved.items() if key[0] == direction]


def collectives_of(plan: PassPlan) -> PassCollectives:
    """Draw the routing of a pass and solve its all-to-alls.

    Parameters
    ----------
    plan : PassPlan

    Returns
    -------
    PassCollectives
        By flow-level simulation or closed form, as the scenario's fidelity says.
    """
    drawn = range(1 if plan.is_uniform else plan.num_microbatches)
    routings = tuple(
        tuple(_routing(plan, layer, microbatch) for microbatch in drawn) for layer in range(plan.num_drawn)
    )
    cluster = _cluster(plan)
    solved = {
        (direction, layer, microbatch): _solve(plan, collective(plan, cluster, direction, routing))
        for direction in plans.COLLECTIVES
        for layer, row in enumerate(routings)
        for microbatch, routing in enumerate(row)
    }
    return PassCollectives(cluster, routings, solved)


def collective(plan: PassPlan, cluster: topology.Cluster, direction: str, routing: Routing) -> Collective:
    """Build the dispatch or combine of one layer and microbatch.

    Parameters
    ----------
    plan : PassPlan
    cluster : Cluster
        The nodes of the EP group.
    direction : str
        `dispatch` or `combine`.
    routing : Routing
    """
    return Collective(
        cluster=cluster,
        kernel=plan.work.kernel,
        direction=direction,
        gpus=plan.gpus,
        routing=routing,
        record_bytes=pass_record_bytes(plan, direction),
        comm_sms=plan.work.comm_sms,
        **plan.work.options,
    )


def pass_record_bytes(plan: PassPlan, direction: str) -> float:
    """Size of one token's record in a dispatch or combine [bytes]."""
    work, model = plan.work, plan.model
    dtype = work.spec.dispatch_dtype if direction == "dispatch" else work.spec.combine_dtype
    return float(record_bytes(work.kernel.kind, direction, dtype, model.routed_width, model.top_k))


def _routing(plan: PassPlan, layer: int, microbatch: int) -> Routing:
    work, model = plan.work, plan.model
    busiest = draw_routing(
        work.gate,
        work.spec.placement.kind,
        work.spec.placement.redundant_experts,
        model.num_experts,
        model.top_k,
        model.num_groups,
        plan.routed_tokens,
        plan.sampling,
        plan.ranks,
        plan.layout.near(plan.scenario.gpus_per_node, "ep"),
        plan.scenario.seed + layer * _SEEDS_APART,
        microbatch,
    )
    return busiest if plan.share == 1.0 else busiest.thinned(plan.share)


def _cluster(plan: PassPlan) -> topology.Cluster:
    """The cluster as far as the EP group's last node."""
    scenario = plan.scenario
    assert isinstance(scenario.fabric, topology.Fabric)
    num_nodes = int(plan.gpus.max()) // scenario.part.domain + 1
    faults = [fault for fault in scenario.faults if fault.node is None or fault.node < num_nodes]
    return topology.build(plan.hardware, num_nodes, scenario.fabric, faults)


def _solve(plan: PassPlan, idle: Collective) -> SolvedCollective:
    ranks, flows, capacity = plan.ranks, idle.flows(), idle.cluster.capacity
    if ranks == 1:
        return SolvedCollective(np.zeros(1), flows)
    if plan.scenario.fidelity == "closed_form" and flows.num_flows:
        return SolvedCollective(np.full(ranks, bounds.closed_form_s(idle)[0]), flows)
    often = not plan.is_uniform
    return SolvedCollective(fluid.rank_times_s(flows, capacity, ranks, idle.latency_s(), often=often), flows)
