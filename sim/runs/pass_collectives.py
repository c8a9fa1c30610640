"""Routing and all-to-alls of a forward pass: drawn for a few layers, and cabled on the whole cluster.

Each draw gives every rank its own rows on its experts and its own traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sim.cluster import topology
from sim.engine.step_plan import GroupCollective, Traffic
from sim.runs.pass_plan import PassPlan
from sim.runs.routing import draw_routing, expert_bytes
from sim.schedule import bounds
from sim.schedule import inference as plans
from sim.schedule.collectives import Collective, record_bytes
from sim.schedule.flows import NO_FLOWS, Flows
from sim.schedule.replicas import dispatch_or_combine
from sim.workload.formats import PRODUCTS
from sim.workload.traffic import Routing

_SEEDS_APART = 7919  # between the seeds of layers; the first layer has the scenario's


@dataclass(frozen=True, slots=True)
class PassCollectives:
    """Everything that a pass moves between its ranks.

    Parameters
    ----------
    cluster : Cluster
        The whole cluster, with its faults.
    routings : tuple of tuples of Routing, [num_drawn][microbatches]
        One microbatch where all draws are the same.
    traffic : Traffic
        Every group's collectives; each draw of a direction is a kernel of its own, see `kernel`.
    flows : sequence of Flows
        Those of one dispatch and one combine of each draw and group.
    """

    cluster: topology.Cluster
    routings: tuple[tuple[Routing, ...], ...]
    traffic: Traffic
    flows: Sequence[Flows]

    def draw_idx(self, layer: int, microbatch: int) -> tuple[int, int]:
        """Layer draw and microbatch draw that a layer with experts and a microbatch of the program take."""
        return layer % len(self.routings), microbatch % len(self.routings[0])

    def kernels(self, direction: str) -> list[str]:
        """Kernels of all draws of a direction."""
        return [
            kernel(direction, layer, microbatch)
            for layer, row in enumerate(self.routings)
            for microbatch in range(len(row))
        ]


def kernel(direction: str, layer: int, microbatch: int) -> str:
    """Name of the kernel that moves one draw of a direction."""
    return f"{direction} {layer} {microbatch}"


def collectives_of(plan: PassPlan) -> PassCollectives:
    """Draw the routing of a pass and cable its all-to-alls, those of every EP group on the whole cluster.

    As flows or, as the scenario's fidelity may say, as the times of their closed forms. All groups carry the
    same draws: those of one stand for a layer of the deployment.
    """
    routings = routings_of(plan)
    cluster = plan.scenario.cluster()
    by_group: list[dict[str, GroupCollective]] = []
    flows: list[Flows] = []
    for group in range(plan.num_groups):
        by_group.append({})
        for direction in plans.COLLECTIVES:
            for layer, row in enumerate(routings):
                for microbatch, routing in enumerate(row):
                    cabled = _cabled(plan, collective(plan, cluster, direction, routing, group), flows)
                    by_group[-1][kernel(direction, layer, microbatch)] = cabled
    return PassCollectives(
        cluster, routings, Traffic(cluster.capacity, cluster.class_idx, [by_group], {}), flows
    )


def routings_of(plan: PassPlan) -> tuple[tuple[Routing, ...], ...]:
    """Draw the routing of a pass, [num_drawn][microbatches]; one microbatch where all draws are the same."""
    drawn = range(1 if plan.is_uniform else plan.num_microbatches)
    return tuple(
        tuple(_routing(plan, layer, microbatch) for microbatch in drawn) for layer in range(plan.num_drawn)
    )


def _cabled(plan: PassPlan, whole: Collective, flows: list[Flows]) -> GroupCollective:
    """One group's collective; its flows are added to `flows`."""
    flows.append(whole.flows())
    slowdown = plan.work.kernel.slowdown(whole.direction) if plan.in_background else 1.0
    if plan.ranks == 1:
        return GroupCollective(flows[-1], 0.0)
    if plan.scenario.fidelity == "closed_form" and flows[-1].num_flows:
        return GroupCollective(NO_FLOWS, bounds.closed_form_s(whole)[0], slowdown)
    return GroupCollective(flows[-1], whole.latency_s(), slowdown)


def collective(
    plan: PassPlan, cluster: topology.Cluster, direction: str, routing: Routing, group: int = 0
) -> Collective:
    """Build the dispatch or combine of one layer and microbatch of an EP group on the whole cluster."""
    return dispatch_or_combine(
        copy_bytes(plan),
        cluster=cluster,
        kernel=plan.work.kernel,
        direction=direction,
        gpus=plan.gpus[group],
        routing=plan.sent(routing),
        record_bytes=pass_record_bytes(plan, direction),
        comm_sms=plan.work.comm_sms,
        **plan.work.options,
    )


def copy_bytes(plan: PassPlan) -> float:
    """Size of a GPU's weights of one routed expert [bytes]."""
    element_bytes = PRODUCTS[plan.formats.experts].weights.element_bytes
    return expert_bytes(plan.model, element_bytes) / plan.layout.etp


def pass_record_bytes(plan: PassPlan, direction: str) -> float:
    """Size of one token's record in a dispatch or combine [bytes]."""
    work, model = plan.work, plan.model
    dtype = work.spec.dispatch_dtype if direction == "dispatch" else work.spec.combine_dtype
    return float(record_bytes(work.kernel.kind, direction, dtype, model.routed_width, model.top_k))


def _routing(plan: PassPlan, layer: int, microbatch: int) -> Routing:
    work, model = plan.work, plan.model
    busiest = draw_routing(
        work.gate.layer_gate(layer),
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
