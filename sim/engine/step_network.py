"""The network of a training step, folded: one of all groups, flows, resources and lanes that are alike.

`folding.refine` finds which are. A *track* is a pipeline rank in a class of groups; a *template* (see `step_templates`) is
what a transfer of one kind puts on the links: for each track its collectives, alone and next to compute, and its messages.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sim.cluster.topology import CLASSES, Ints
from sim.engine import folding
from sim.engine.step_plan import StepPlan
from sim.engine.step_templates import Folded, StepTransfer, Templates, Weights, Writer
from sim.schedule.flows import Flows

_NIC, _UPLINK = CLASSES.index("nic"), CLASSES.index("leaf_uplink")
_FITS = 1.0 + 1e-9


def fold(plan: StepPlan, flows: folding.Cabled) -> Folded:
    """Fold a step's flows, resources and lanes as far as they are alike in all that they ever do."""
    num_ranks, num_groups, num_lanes = plan.speed.shape
    rank, group, lane = np.indices(plan.speed.shape)
    apart = _own_draws(plan)[lane]
    own = group if len(plan.loads) > 1 else np.zeros_like(group)
    start = folding.mixed(rank, apart, own, folding.rounded(plan.speed.copy())).ravel()
    if plan.merged:
        start = folding.mixed(start, plan.present().ravel())
    for variant in plan.conditions.variant if plan.conditions else ():
        start = folding.mixed(start, variant.ravel())
    if (
        num_ranks * num_groups == 1 and not plan.merged and len(np.unique(start)) == num_lanes
    ):  # each flow has lanes of its own
        every, only = np.arange(len(plan.traffic.capacity)), np.zeros(1, dtype=np.int64)
        lanes_ = np.arange(num_lanes)
        return Folded(only, only, lanes_[None], [lanes_], np.arange(flows.first[-1]), every, every)
    blocks = (rank * num_groups + group).ravel()
    resources = folding.mixed(*plan.capacities, plan.traffic.class_idx)
    known = 1
    while True:
        colour, of_resource, of_lane = folding.refine(flows, resources, start, blocks)
        by_group = of_lane.reshape(num_ranks, num_groups, num_lanes).transpose(1, 0, 2)
        _, groups, group_class = np.unique(
            by_group.reshape(num_groups, -1), axis=0, return_index=True, return_inverse=True
        )
        class_of = np.asarray(group_class).ravel()
        if len(groups) == known:
            break
        known = len(groups)  # a group's class is the same at every pipeline rank; what is apart stays so
        resources, start = of_resource, folding.mixed(of_lane, class_of[group].ravel())
        flows = replace(flows, colour=colour)
    lane_class, lanes = np.zeros((len(groups), num_lanes), dtype=np.int64), []
    for number, g in enumerate(groups):
        _, first, lane_of = np.unique(by_group[g], axis=1, return_index=True, return_inverse=True)
        order = np.argsort(
            first
        )  # classes in the order of their first lanes, the same at every pipeline rank
        lane_class[number] = np.argsort(order)[lane_of.ravel()]
        lanes.append(first[order])
    member, resource = _classes(of_resource)
    return Folded(groups, class_of, lane_class, lanes, _classes(colour)[1], resource, member)


def _classes(colour: folding.Colours) -> tuple[Ints, Ints]:
    """First member of each class, and the class of each member, numbered as they appear: neighbours stay neighbours in memory."""
    _, first, colour_of = np.unique(colour, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return np.sort(first), number[colour_of]


def _own_draws(plan: StepPlan) -> Ints | folding.Colours:
    """Colours of lanes by their draws, [lanes]: all unlike where these scale flows or are jitter."""
    lane = np.arange(plan.lanes)
    if plan.loads.size and not plan.jitter.size and not plan.traffic.scaled:
        return np.broadcast_to(folding.mixed(*plan.loads.reshape(-1, plan.lanes)), lane.shape)
    return lane if plan.loads.size or plan.jitter.size else np.zeros_like(lane)


@dataclass(frozen=True, slots=True)
class StepNetwork:
    """A step's traffic folded, with the template of each transfer.

    Parameters
    ----------
    folded : Folded
    templates : Templates
    kernels : tuple of str
        Names of the collectives.
    collective : int, [pipeline ranks, group classes, kernels, alone or next to compute]
        Templates of collectives; the first template, which has no flows, for none.
    message : (source, target) -> int array, [group classes]
        Templates of messages.
    """

    folded: Folded
    templates: Templates
    kernels: tuple[str, ...]
    collective: Ints
    message: dict[tuple[int, int], Ints]


def network_of(plan: StepPlan) -> StepNetwork:
    """Cable, fold and lay out everything that a step may have under way."""
    traffic, lanes = plan.traffic, plan.lanes
    transfers: list[StepTransfer] = []
    places: dict[tuple[int, int, int, int], int] = {}
    known: dict[int, Flows] = {}  # alike groups share the arrays of their flows

    def among_others(flows: Flows, num_ranks: int) -> Flows:
        if id(flows) not in known:
            known[id(flows)] = flows.among_others(num_ranks)
        return known[id(flows)]

    kernels = tuple(dict.fromkeys(name for rank in traffic.collectives for group in rank for name in group))
    for rank, groups in enumerate(traffic.collectives):
        for group, collectives in enumerate(groups):
            first = (rank * plan.num_groups + group) * lanes
            for name, collective in collectives.items():
                places[rank, -1, group, kernels.index(name)] = len(transfers)
                kind = len(kernels) * rank + kernels.index(name)
                transfers.append(
                    StepTransfer(
                        among_others(collective.flows, len(np.unique(collective.flows.party_rank))),
                        kind,
                        first + np.arange(lanes),
                        group,
                        collective,
                        collective.slowdown,
                    )
                )
    num_ranks = len(traffic.collectives)
    for (source, target), by_group in traffic.sends.items():
        for group, flows in enumerate(by_group):
            ends = [(rank * plan.num_groups + group) * lanes for rank in (source, target)]
            both = np.concatenate([ends[0] + np.arange(lanes), ends[1] + np.arange(lanes)])
            places[source, target, group, 0] = len(transfers)
            kind = num_ranks * (len(kernels) + source) + target
            transfers.append(StepTransfer(among_others(flows, flows.num_flows), kind, both, group))
    cabled = folding.cabled([(t.flows, t.kind, t.lanes) for t in transfers])
    return _laid_out(plan, transfers, places, cabled, fold(plan, cabled), kernels)


def _laid_out(
    plan: StepPlan,
    transfers: list[StepTransfer],
    places: dict[tuple[int, int, int, int], int],
    flows: folding.Cabled,
    folded: Folded,
    kernels: tuple[str, ...],
) -> StepNetwork:
    num_ranks, num_classes = len(plan.tasks), len(folded.groups)
    weights = Weights.from_transfers(transfers, flows, folded)
    out = Writer(plan, folded, weights, flows)
    collective = np.zeros((num_ranks, num_classes, len(kernels), 2), dtype=np.int64)
    message: dict[tuple[int, int], Ints] = {}
    for (source, target, group, kernel), number in places.items():
        if folded.groups[folded.group_class[group]] != group:
            continue
        t, of_group = transfers[number], int(folded.group_class[group])
        if t.collective is not None:
            alone = out.add(t, number, None)
            beside = alone if t.slowdown == 1.0 else out.add(t, number, t.slowdown)
            collective[source, of_group, kernel] = alone, beside
        else:
            message.setdefault((source, target), np.zeros(num_classes, dtype=np.int64))
            message[source, target][of_group] = out.add(t, number, None)
    return StepNetwork(folded, out.done(), kernels, collective, message)
