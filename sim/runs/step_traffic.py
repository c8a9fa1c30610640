"""Traffic of a training step on the whole cluster: the places of its ranks, and their transfers, cabled.

The layout says who stands where. Rank i of a group sends to rank i of the same group at the next pipeline rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.cluster.alike import Alike
from sim.cluster.kernels import Kernel
from sim.cluster.topology import Cluster, Ints
from sim.engine.step_plan import GroupCollective, Traffic
from sim.errors import InfeasibleError
from sim.schedule.collectives import Collective
from sim.schedule.flows import Flows
from sim.schedule.owners import owners
from sim.schedule.sends import send_flows
from sim.workload.layout import Layout

_MOST_LANES = 256  # of a group without all-to-alls


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """GPUs of the ranks of a step.

    Parameters
    ----------
    ranks : int, [pp, num_groups, lanes]
        Numbers of the members of each group among all ranks.
    gpu_of_rank : int, [pp * num_groups * lanes]
    """

    ranks: Ints
    gpu_of_rank: Ints

    @classmethod
    def from_layout(cls, gpu_of_rank: Ints, layout: Layout) -> Place:
        """Take the EP groups; without all-to-alls those of TP x CP.

        Where neither joins GPUs of a stage, groups are as large as can be.
        """
        if layout.ep > 1 or layout.tp * layout.cp > 1:
            dimensions = ("ep",) if layout.ep > 1 else ("cp", "tp")
            return cls(layout.stage_groups(*dimensions), gpu_of_rank)
        each = layout.stage_ranks
        lanes = max(d for d in range(1, min(each, _MOST_LANES) + 1) if each % d == 0)
        return cls(layout.stages().reshape(layout.pp, -1, lanes), gpu_of_rank)

    @property
    def num_ranks(self) -> int:
        """Pipeline ranks."""
        return int(self.ranks.shape[0])

    @property
    def num_groups(self) -> int:
        """Groups of each pipeline rank."""
        return int(self.ranks.shape[1])

    @property
    def lanes(self) -> int:
        """GPUs of a group."""
        return int(self.ranks.shape[2])

    def gpus(self, rank: int, group: int) -> Ints:
        """GPUs of a group, [lanes]."""
        return np.asarray(self.gpu_of_rank[self.ranks[rank, group]])


def traffic_of(
    cluster: Cluster,
    place: Place,
    collectives: Mapping[str, Collective],
    slowdown: Mapping[str, float],
    pairs: Iterable[tuple[int, int]],
    send_bytes: float,
    sender: Kernel,
    *,
    loaded: bool,
    inside_layers: Sequence[Sequence[Mapping[str, GroupCollective]]] | None = None,
) -> Traffic:
    """Cable every collective and every send of a step on the whole cluster, with its faults.

    `collectives` are the dispatch and combine of one EP group, wherever it is, none where nothing is sent to
    experts; `slowdown` is the time of each next to compute over its time alone. `pairs` of pipeline ranks send
    `send_bytes` of one rank and microbatch to each other, moved by `sender`. `loaded` where routed loads differ
    by rank; `inside_layers` are reductions of TP and CP [pipeline ranks][groups].
    """
    num, groups = place.num_ranks, range(place.num_groups)
    every = place.gpu_of_rank[place.ranks.reshape(-1, place.lanes)]
    alike = Alike(cluster, every)

    def cabled_as(name: str) -> list[GroupCollective]:
        def cable(i: int) -> GroupCollective:
            own = replace(collectives[name], cluster=cluster, gpus=every[i])
            return _collective(own, slowdown[name], loaded)

        return spread(alike, range(len(every)), cable)

    by_name = {name: cabled_as(name) for name in collectives}
    by_group = [
        [
            {name: cabled[rank * len(groups) + group] for name, cabled in by_name.items()}
            | dict(inside_layers[rank][group] if inside_layers else {})
            for group in groups
        ]
        for rank in range(num)
    ]
    asked = sorted(pairs)
    ends = [(place.gpus(a, group), place.gpus(b, group)) for a, b in asked for group in groups]
    sent = spread(
        Alike(
            cluster,
            np.array([np.concatenate(both) for both in ends], np.int64).reshape(len(ends), 2 * place.lanes),
        ),
        range(len(ends)),
        lambda i: GroupCollective(side_by_side(send_flows(cluster, sender, *ends[i], send_bytes)), 0.0),
    )
    sends = {
        pair: [one.flows for one in sent[i * len(groups) : (i + 1) * len(groups)]]
        for i, pair in enumerate(asked)
    }
    traffic = Traffic(cluster.capacity, cluster.class_idx, by_group, sends)
    require_alive(cluster, traffic)
    return traffic


def spread(
    alike: Alike, lists: Iterable[int], cable: Callable[[int], GroupCollective]
) -> list[GroupCollective]:
    """Cable what several lists of GPUs send, once for all that are alike, of which the first is cabled.

    Flows of alike lists share their arrays, all but `resource`.
    """
    cabled: dict[int, tuple[GroupCollective, Ints]] = {}
    found = []
    for i in lists:
        first = alike.first[i]
        if first not in cabled:
            known = cable(first)
            cabled[first] = known, alike.places(known.flows.resource, first)
        known, places = cabled[first]
        if i != first:
            rows = alike.rows(i).astype(np.int32)[places]
            known = replace(known, flows=replace(known.flows, resource=rows))
        found.append(known)
    return found


def require_alive(cluster: Cluster, traffic: Traffic) -> None:
    """Raise `InfeasibleError` where bytes would wait for a resource that is dead for the whole run, which is named."""
    used = [c.flows for rank in traffic.collectives for group in rank for c in group.values()]
    used += [flows for groups in traffic.sends.values() for flows in groups]
    rows = np.unique(
        np.concatenate([flows.resource[flows.line > 0] for flows in used] or [np.zeros(0, np.int32)])
    )
    dead = rows[cluster.capacity[rows] <= 0]
    if len(dead):
        names = ", ".join(cluster.names[row] for row in dead[:8])
        raise InfeasibleError(f"bytes of the step wait forever: no capacity in {names}")


def _collective(collective: Collective, slowdown: float, loaded: bool) -> GroupCollective:
    flows = collective.flows()
    if not loaded:
        return GroupCollective(flows, collective.latency_s(), slowdown)
    whose = owners(collective, flows)
    return GroupCollective(flows, collective.latency_s(), slowdown, whose.flow, whose.ranks, whose.entry)


def side_by_side(flows: Flows) -> Flows:
    """Sends whose receivers are lanes of another group: numbered on from the senders."""
    return replace(flows, party_rank=np.arange(2 * flows.num_flows))


def ring(
    gpus: Ints, cluster: Cluster, kernel: Kernel, following: Ints, payload_bytes: float, fixed_s: float
) -> GroupCollective:
    """One phase of a ring: each GPU sends `payload_bytes` in all to the one that follows it [lanes]."""
    flows = send_flows(cluster, kernel, gpus, following, payload_bytes)
    num = flows.num_flows
    sending = np.arange(len(flows.party_flow)) < num
    return GroupCollective(
        replace(flows, party_flow=flows.party_flow[sending], party_rank=flows.party_rank[sending]), fixed_s
    )
