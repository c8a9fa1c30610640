"""Traffic of a training step on the whole cluster: the places of its ranks, and their transfers, cabled.

The layout says who stands where. Rank i of a group sends to rank i of the same group at the next pipeline rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

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
    traffic = Traffic(cluster.capacity, cluster.class_idx, by_group, sends)
    require_alive(cluster, traffic)
    return traffic


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
    num = flows.num_flows
    return replace(flows, party_rank=np.concatenate([np.arange(num), num + np.arange(num)]))


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
