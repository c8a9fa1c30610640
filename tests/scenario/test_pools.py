"""Pools: nodes of unlike hardware on one fabric, each NIC at its own rate."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from sim import documents
from sim.cluster.topology import Fabric, joined
from sim.errors import InfeasibleError, InputError
from sim.runs.run import run_document
from sim.scenario.resolve import resolve

POOLS = "pools: {a: {hardware: h800, nodes: 2}, b: {hardware: h20, nodes: 2, override: {nic.bandwidth: 200 Gb/s}}}"
UNLIKE = "pools: {a: {hardware: h800, nodes: 2}, b: {hardware: {chip: h20, node: dgx-4nic}, nodes: 2}}"
PLAIN = """
name: mine
cluster: {CLUSTER}
workload: {kind: all_to_all, bytes_per_rank: 16 MiB, kernel: {kind: nccl}}
"""


@lru_cache(maxsize=32)
def metrics(cluster: str) -> dict[str, Any]:
    found = run_document(documents.loads(PLAIN.replace("CLUSTER", cluster), "mine.yaml"))["metrics"][
        "exchange"
    ]
    return {key: value for key, value in found.items() if key != "binding_resource"}


def problems(cluster: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        resolve(documents.loads(PLAIN.replace("CLUSTER", cluster), "mine.yaml"))
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("pool", "alone"),
    [
        ("a", "hardware: h800, nodes: 2"),
        ("b", "hardware: h20, nodes: 2, override: {nic.bandwidth: 200 Gb/s}"),
    ],
)
def test_a_workload_on_a_pool_takes_what_it_takes_on_a_cluster_of_such_nodes(pool: str, alone: str) -> None:
    assert metrics(f"{POOLS}, pool: {pool}") == metrics(alone)


def test_the_pools_of_a_fabric_share_leaves_whose_uplinks_add_up_to_their_nics() -> None:
    """Two NICs of 50 GB/s and two of 25 GB/s make a mean of 37.5; a leaf of 32 such NICs over 2 has 600 GB/s up."""
    document = PLAIN.replace(
        "CLUSTER", f"{POOLS}, pool: b, fabric: {{oversubscription: 2, nodes_per_leaf: 32}}"
    )
    cluster = resolve(documents.loads(document, "mine.yaml")).cluster()
    assert cluster.num_nodes == 2
    assert cluster.names[cluster.nic_tx[0]] == "node2/nic0/tx"
    assert cluster.capacity[cluster.nic_tx].tolist() == [25e9] * 16
    assert cluster.capacity[cluster.up].tolist() == [[32 * 37.5e9 / 2]] * 8
    assert cluster.capacity[cluster.row("node0/nic0/tx")] == 50e9


def test_a_fault_is_of_the_pool_that_has_the_node() -> None:
    """Node 3 is the second of pool b. A NIC at half rate holds up those there and nobody in pool a."""
    fault = "faults: [{node: 3, nic: 1, bandwidth: 50 %}]"
    assert metrics(f"{POOLS}, pool: a, {fault}") == metrics(f"{POOLS}, pool: a")
    slow = metrics(
        f"hardware: h20, nodes: 2, override: {{nic.bandwidth: 200 Gb/s}}, {fault.replace('3', '1')}"
    )
    assert metrics(f"{POOLS}, pool: b, {fault}") == slow != metrics(f"{POOLS}, pool: b")


def test_pools_joined_have_the_nics_of_every_gpu_wherever_it_stands() -> None:
    """Two GPUs of pool b share a NIC; both pools number their GPUs by eight a node."""
    shared = resolve(documents.loads(PLAIN.replace("CLUSTER", f"{UNLIKE}, pool: a"), "mine.yaml")).shared
    assert shared is not None
    whole = joined([*shared.build(Fabric()).values()])
    assert (whole.num_gpus, whole.gpus_per_node) == (32, 8)
    assert [whole.names[whole.nic_tx[gpu]] for gpu in (9, 19, 29)] == [
        "node1/nic1/tx", "node2/nic1/tx", "node3/nic2/tx",
    ]  # fmt: skip
    assert shared.ranks("b", np.arange(9)).tolist() == [*range(16, 25)]
    turned = "b", "a"
    other_way = shared.joined(Fabric(), turned)
    assert other_way.names[other_way.nic_tx[3]] == "node2/nic1/tx"
    assert shared.ranks("b", np.arange(9), turned).tolist() == [*range(9)]
    assert shared.ranks("a", np.arange(9), turned).tolist() == [*range(16, 25)]
    with pytest.raises(InfeasibleError, match="no cable joins the rails"):
        joined([*shared.build(Fabric("multi_plane")).values()])


@pytest.mark.parametrize(
    ("cluster", "place", "words"),
    [
        (POOLS, "cluster:", ["the key 'pool'", "a, b"]),
        (f"{POOLS}, pool: c", "cluster.pool:", ["'c'", "one of: a, b"]),
        (f"{POOLS}, pool: a, hardware: h800", "cluster.hardware", ["next to pools"]),
        (f"{POOLS}, pool: a, fabric: {{kind: scale_up}}", "cluster.fabric.kind", ["joins NICs of nodes"]),
        (f"{POOLS}, pool: a, use_nodes: [2]", "cluster.use_nodes", ["nodes 0 to 1"]),
        (f"{POOLS}, pool: a, faults: [{{node: 4, bandwidth: 0 %}}]", "cluster.faults.0.node", ["the pools have 4 nodes"]),
        ("hardware: h800, nodes: 2, pool: a", "cluster.pool:", ["a cluster of 'pools'"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_pools_is_named(cluster: str, place: str, words: list[str]) -> None:
    (problem,) = problems(cluster)
    assert place in problem
    assert all(word in problem for word in words), problem
