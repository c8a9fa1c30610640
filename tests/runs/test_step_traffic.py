"""Traffic that is cabled once for all groups of GPUs that stand alike, and moved: the same as cabled group by group."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from faults import slow_nic
from sim.cluster.alike import Alike
from sim.cluster.faults import Fault
from sim.cluster.hardware import load_hardware
from sim.cluster.kernels import load_kernel
from sim.cluster.topology import Cluster, Fabric, build
from sim.engine.step_plan import GroupCollective
from sim.runs.step_traffic import spread
from sim.schedule.collectives import Collective
from sim.schedule.sends import send_flows
from sim.workload.gating import Gate
from sim.workload.placement import contiguous
from sim.workload.traffic import route

NODES = [(0, 1), (2, 3), (3, 4), (7, 8), (1, 0), (5, 6), (5, 7), (6, 5), (9, 11)]
"""Nodes of each group; a leaf, and a pod, has four."""
FAULTS = {
    "healthy": (),
    "slow": (slow_nic(2, 25e9, 3),),
    "dead": (slow_nic(4, 0.0, 1), slow_nic(4, 0.0, 5)),
    "scale-up": (Fault("scale_up", 0.25, node=6, gpu=1),),
}
ROUTING = route(
    Gate("zipf", exponent=0.5), contiguous(64, 16), top_k=6, tokens_per_rank=64, ranks_per_node=8,
    rng=np.random.default_rng(0), sampling="tokens", probabilities=np.random.default_rng(0).dirichlet(np.ones(64)),
)  # fmt: skip


def cluster_of(fabric: Fabric, faults: str = "healthy") -> Cluster:
    return build(load_hardware("h800"), 12, fabric, FAULTS[faults])


def groups(cluster: Cluster) -> Any:
    gpn = cluster.gpus_per_node
    return np.array([np.concatenate([node * gpn + np.arange(8) for node in nodes]) for nodes in NODES])


def assert_moved(cluster: Cluster, gpus: Any, cable: Any) -> list[int]:
    alike = Alike(cluster, gpus)
    for i, found in enumerate(spread(alike, range(len(gpus)), cable)):
        expected = cable(i).flows
        for field in fields(expected):
            got, wanted = getattr(found.flows, field.name), getattr(expected, field.name)
            np.testing.assert_array_equal(got, wanted, strict=True)
    return alike.first


@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("kind", ["rail_optimized", "multi_plane", "three_tier", "fat_tree"])
@pytest.mark.parametrize("kernel", ["two_hop", "low_latency", "nccl"])
def test_moved_flows_are_those_that_a_group_would_have(kernel: str, kind: Any, faults: str) -> None:
    cluster = cluster_of(Fabric(kind, nodes_per_leaf=4), faults)
    gpus, known = groups(cluster), load_kernel(kernel)

    def exchanged(i: int) -> GroupCollective:
        made = Collective(cluster, known, "combine", gpus[i], ROUTING, 1e3, comm_sms=known.comm_sms)
        return GroupCollective(made.flows(), 0.0)

    def sent(i: int) -> GroupCollective:
        return GroupCollective(send_flows(cluster, known, *np.split(gpus[i], 2), 1e6), 0.0)

    assert_moved(cluster, gpus, sent)
    assert len(set(assert_moved(cluster, gpus, exchanged))) < len(gpus)


def test_groups_are_alike_where_their_nodes_and_leaves_are() -> None:
    fabric = Fabric(nodes_per_leaf=4)
    healthy = cluster_of(fabric)
    # Within a leaf; across two; in the other order of nodes, where who is first differs.
    assert Alike(healthy, groups(healthy)).first == [0, 0, 2, 2, 4, 0, 0, 4, 0]
    slow = cluster_of(fabric, "slow")
    assert Alike(slow, groups(slow)).first == [0, 1, 2, 3, 4, 0, 0, 4, 0]


def test_where_uplinks_are_hashed_no_groups_are_alike() -> None:
    hashed = cluster_of(Fabric(routing="ecmp", nodes_per_leaf=4))
    assert Alike(hashed, groups(hashed)).first == [*range(len(NODES))]
