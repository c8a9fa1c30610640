"""Traffic of a training step on the whole cluster: the places of its ranks, and their transfers, cabled.

Ranks are placed in the order tp-cp-ep-dp-pp, tensor parallelism closest: a pipeline rank has GPUs in a row, and an EP group of
it has GPUs in a row of these. Rank i of a group sends to rank i of the same group at the next pipeline rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.cluster.kernels import Kernel
from sim.cluster.topology import Cluster, Ints
from sim.engine.step_plan import GroupCollective, Traffic
from sim.schedule.collectives import Collective
from sim.schedule.flows import Flows
from sim.schedule.owners import owners
from sim.schedule.sends import send_flows

_MOST_LANES = 256  # of a group without all-to-alls


@dataclass(frozen=True, slots=True)
class Place:
    """GPUs of the ranks of a step.

    Parameters
    ----------
    num_ranks : int [count]
        Pipeline ranks.
    num_groups, lanes : int [count]
        Groups of each pipeline rank, and GPUs of a group.
    """

    num_ranks: int
    num_groups: int
    lanes: int

    @classmethod
    def from_layout(cls, num_gpus: int, pp: int, ep: int, inside: int = 1) -> Place:
        """Split GPUs into EP groups; without all-to-alls into those of TP x CP, `inside` ranks each.

        Where neither joins GPUs of a pipeline rank, groups are as large as can be.
        """
        each = num_gpus // pp
        lanes = ep if ep > 1 else inside
        if lanes == 1:
            lanes = max(d for d in range(1, min(each, _MOST_LANES) + 1) if each % d == 0)
        return cls(pp, each // lanes, lanes)

    def gpus(self, rank: int, group: int) -> Ints:
        """GPUs of a group, [lanes]."""
        return (rank * self.num_groups + group) * self.lanes + np.arange(self.lanes)


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
    """Cable every collective and every send of a step.

    Parameters
    ----------
    cluster : Cluster
        The whole cluster, with its faults.
    place : Place
    collectives : mapping
        Dispatch and combine of one EP group, wherever it is; empty where nothing is sent to experts.
    slowdown : mapping
        Time of each next to compute over its time alone.
    pairs : iterable of (source, target)
        Pipeline ranks that send to each other.
    send_bytes : float [bytes]
        Of one rank and microbatch.
    sender : Kernel
        The generation that moves what is sent.
    loaded : bool
        Whether routed loads differ by rank.
    inside_layers : [pipeline ranks][groups], kernel -> GroupCollective, optional
        Reductions of TP and CP.
    """
    by_group = [
        [
            {
                name: _collective(
                    replace(collective, cluster=cluster, gpus=place.gpus(rank, group)), slowdown[name], loaded
                )
                for name, collective in collectives.items()
            }
            | dict(inside_layers[rank][group] if inside_layers else {})
            for group in range(place.num_groups)
        ]
        for rank in range(place.num_ranks)
    ]
    sends = {
        (source, target): [
            side_by_side(
                send_flows(cluster, sender, place.gpus(source, group), place.gpus(target, group), send_bytes)
            )
            for group in range(place.num_groups)
        ]
        for source, target in sorted(pairs)
    }
    return Traffic(cluster.capacity, cluster.class_idx, by_group, sends)


def _collective(collective: Collective, slowdown: float, loaded: bool) -> GroupCollective:
    flows = collective.flows()
    if not loaded:
        return GroupCollective(flows, collective.latency_s(), slowdown)
    whose = owners(collective, flows)
    return GroupCollective(flows, collective.latency_s(), slowdown, whose.flow, whose.ranks, whose.entry)


def side_by_side(flows: Flows) -> Flows:
    """Sends whose receivers are lanes of another group: numbered on from the senders."""
    num = flows.num_flows
    return replace(flows, party_rank=np.concatenate([np.arange(num), num + np.arange(num)]))


def ring(
    gpus: Ints, cluster: Cluster, kernel: Kernel, following: Ints, payload_bytes: float, fixed_s: float
) -> GroupCollective:
    """One phase of a ring: each GPU sends `payload_bytes` in all to the one that follows it.

    Parameters
    ----------
    gpus, following : int, [lanes]
    payload_bytes : float [bytes]
        Of each GPU, over all steps of the ring.
    fixed_s : float [s]
    """
    flows = send_flows(cluster, kernel, gpus, following, payload_bytes)
    num = flows.num_flows
    sending = np.arange(len(flows.party_flow)) < num
    return GroupCollective(
        replace(flows, party_flow=flows.party_flow[sending], party_rank=flows.party_rank[sending]), fixed_s
    )
