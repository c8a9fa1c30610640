"""Fabrics: how many boxes and cables, how fast, and that the compiled rows say what the graph says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest

from faults import slow_nic
from sim.cluster.faults import Fault
from sim.cluster.hardware import Hardware, load_hardware
from sim.cluster.topology import (
    CLASSES,
    NONE,
    Cluster,
    Fabric,
    LeafSpine,
    build,
    build_leaf_spine,
    left_by_others,
)
from sim.errors import InfeasibleError

H800 = load_hardware("h800")
NIC, NVLINK = 50e9, 200e9  # bytes/s of one direction, H800


def small(
    kind: str, num_nodes: int = 8, hardware: Hardware = H800, faults: tuple[Fault, ...] = (), **more: Any
) -> Cluster:
    """A cluster of pods of four nodes."""
    if kind == "fat_tree":
        more["nics_on_leaf"] = hardware.nics_per_node
    return build(hardware, num_nodes, Fabric(kind=kind, **{"nodes_per_leaf": 4, **more}), faults)  # type: ignore[arg-type]


def boxes(cluster: Cluster) -> Counter[str]:
    return Counter(data["kind"] for _, data in cluster.graph.nodes(data=True))


def cables(cluster: Cluster, kind: str) -> int:
    """Directed cables of a kind."""
    return sum(data["kind"] == kind for _, _, data in cluster.graph.edges(data=True))


@pytest.mark.parametrize(
    ("kind", "leaves", "spines", "cores", "uplinks"),
    [
        ("rail_optimized", 16, 4, 0, 16 * 4),  # 8 rails x 2 pods, each leaf to each spine
        ("multi_plane", 16, 8 * 4, 0, 16 * 4),  # four spines a plane
        ("three_tier", 16, 2 * 4, 4, 16 * 4 + 8),  # four spines a pod, each to its core
        ("fat_tree", 2, 32, 0, 2 * 32),  # 4 nodes x 8 NICs a leaf, and as many uplinks
        ("scale_up", 0, 0, 0, 0),
    ],
)
def test_counts_of_eight_nodes_in_two_pods(
    kind: str, leaves: int, spines: int, cores: int, uplinks: int
) -> None:
    cluster = small(kind)
    found = boxes(cluster)
    assert (found["gpu"], found["leaf"], found["spine"], found["core"]) == (64, leaves, spines, cores)
    assert found["nic"] == (0 if kind == "scale_up" else 64)
    assert found["nvswitch"] == (1 if kind == "scale_up" else 8)
    assert cables(cluster, "leaf_uplink") == 2 * uplinks
    assert cables(cluster, "scale_up") == 2 * 64


def test_rail_only_has_a_leaf_a_rail_and_no_more() -> None:
    cluster = small("rail_only", num_nodes=4)
    assert (boxes(cluster)["leaf"], boxes(cluster)["spine"], cables(cluster, "leaf_uplink")) == (8, 0, 0)
    with pytest.raises(InfeasibleError, match="at most nodes_per_leaf = 4 nodes, and 5 are asked for"):
        small("rail_only", num_nodes=5)


def test_a_fat_tree_joins_the_nics_of_a_node_at_one_leaf_whose_uplinks_all_of_them_share() -> None:
    cluster = small("fat_tree", oversubscription=4.0)
    assert cluster.leaf.reshape(8, 8).tolist() == [[node // 4] * 8 for node in range(8)]
    assert cluster.capacity[cluster.up].tolist() == [[4 * 8 * NIC / 4]] * 2  # four nodes of eight NICs
    assert cluster.planes_joined


def test_a_plane_that_fits_its_leaf_has_no_spine() -> None:
    assert boxes(small("multi_plane", num_nodes=4))["spine"] == 0


def test_published_size_of_the_multi_plane_fabric() -> None:
    """ISCA'25 Table 3: eight planes of a two-layer fat tree of 64-port switches join 16,384 GPUs with 768 switches;
    one plane is 64 leaves of 32 nodes and 32 spines. Here an eighth of it: 8 leaves and 32 spines a plane."""
    found = boxes(build(H800, 256, Fabric(kind="multi_plane", nodes_per_leaf=32)))
    assert (found["leaf"], found["spine"]) == (8 * 8, 8 * 32)


@pytest.mark.parametrize("kind", ["rail_optimized", "multi_plane", "three_tier"])
@pytest.mark.parametrize("oversubscription", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("routing", ["adaptive", "ecmp"])
def test_uplinks_carry_the_nics_of_a_leaf_over_the_oversubscription(
    kind: str, oversubscription: float, routing: str
) -> None:
    cluster = small(kind, oversubscription=oversubscription, routing=routing)
    for table in (cluster.up, cluster.down):
        assert cluster.capacity[table].sum(axis=1) == pytest.approx(np.full(16, 4 * NIC / oversubscription))
        assert table.shape == (16, 1 if routing == "adaptive" else round(4 / oversubscription))
    if kind == "three_tier":  # the pod's eight leaves, thinned out once more
        pods = cluster.capacity[[*cluster.pod_up, *cluster.pod_down]]
        assert pods == pytest.approx(np.full(4, 8 * 4 * NIC / oversubscription**2))


@pytest.mark.parametrize("kind", ["rail_optimized", "multi_plane", "three_tier", "scale_up"])
def test_the_compiled_rows_are_the_cables_of_the_graph(kind: str) -> None:
    cluster = small(kind, routing="ecmp")
    graph = cluster.graph
    assert len(set(cluster.names)) == len(cluster.names) == len(cluster.capacity) == len(cluster.class_idx)
    gpn = cluster.gpus_per_node
    for gpu in range(cluster.num_gpus):
        name, nic = f"node{gpu // gpn}/gpu{gpu % gpn}", f"node{gpu // gpn}/nic{gpu % gpn}"
        switch = f"node{gpu // gpn}/nvswitch"
        expected = {cluster.egress[gpu]: (name, switch), cluster.ingress[gpu]: (switch, name)}
        if kind != "scale_up":
            leaf = [n for n, data in graph.nodes(data=True) if data["kind"] == "leaf"][cluster.leaf[gpu]]
            expected |= {
                cluster.nic_tx[gpu]: (nic, leaf),
                cluster.nic_rx[gpu]: (leaf, nic),
                cluster.pcie_tx[gpu]: (name, nic),
                cluster.pcie_rx[gpu]: (nic, name),
            }
        for row, edge in expected.items():
            assert graph.edges[edge]["resource"] == cluster.names[row]
            assert graph.edges[edge]["capacity"] == cluster.capacity[row]
            assert graph.edges[edge]["kind"] == CLASSES[cluster.class_idx[row]]
        assert cluster.capacity[cluster.hbm[gpu]] == 3350e9
        assert cluster.capacity[cluster.copy_sms[gpu]] == 1
    total = Counter[str]()
    for _, _, data in graph.edges(data=True):
        total[data["resource"]] += data["capacity"]
    assert {cluster.names[row]: cluster.capacity[row] for row in map(cluster.row, total)} == pytest.approx(
        dict(total)
    )


def test_every_direction_of_a_cable_has_its_twin() -> None:
    graph = small("three_tier").graph
    for a, b, data in graph.edges(data=True):
        assert graph.edges[b, a]["capacity"] == data["capacity"]
        assert graph.edges[b, a]["resource"] != data["resource"]


def test_planes_meet_in_nodes_only() -> None:
    """Without the scale-up switches, a multi-plane fabric falls apart into one piece a rail; rail-optimised does not."""
    for kind, pieces in (("multi_plane", 8), ("rail_optimized", 1), ("three_tier", 1)):
        graph = small(kind).graph.to_undirected()
        graph.remove_nodes_from([name for name, data in graph.nodes(data=True) if data["kind"] == "nvswitch"])
        assert nx.number_connected_components(graph) == pieces
        assert small(kind).planes_joined == (pieces == 1)


def test_bisection_of_two_pods_is_their_uplinks() -> None:
    """Min cut between the GPUs of the two pods of a 2:1 fabric: 8 rails x 4 NICs / 2."""
    graph = small("rail_optimized", oversubscription=2.0).graph.copy()
    for node in range(8):
        for gpu in range(8):
            ends = ("A", f"node{node}/gpu{gpu}") if node < 4 else (f"node{node}/gpu{gpu}", "B")
            graph.add_edge(*ends)  # no capacity: infinite
    assert nx.maximum_flow_value(graph, "A", "B") == pytest.approx(8 * 4 * NIC / 2)


def test_a_slow_nic_is_slow_both_ways_and_alone() -> None:
    cluster = small("rail_optimized", faults=(slow_nic(2, 25e9, node=3),))
    slow = 3 * 8 + 2
    for rows in (cluster.nic_tx, cluster.nic_rx):
        rates = cluster.capacity[rows]
        assert rates[slow] == 25e9
        assert np.all(np.delete(rates, slow) == NIC)
    assert cluster.nic_alive.all()


def test_a_dead_rail_is_dead_in_every_node() -> None:
    alive = small("multi_plane", faults=(slow_nic(5, 0.0),)).nic_alive.reshape(8, 8)
    assert not alive[:, 5].any()
    assert np.delete(alive, 5, axis=1).all()


def test_the_worse_of_two_faults_of_one_nic_counts() -> None:
    cluster = small(
        "rail_optimized", faults=(slow_nic(5, 10e9), slow_nic(5, 0.0, node=0), slow_nic(5, 25e9, node=1))
    )
    assert cluster.capacity[cluster.nic_tx[5::8]].tolist() == [0, *[10e9] * 7]


def test_what_others_leave_is_a_part_of_a_link_and_of_what_faults_leave_of_it() -> None:
    """10 GB/s of 50 for a while; the other job leaves a fifth."""
    cluster = small("rail_optimized", faults=(replace(slow_nic(5, 10e9, node=1), until_s=1.0),))
    row = int(cluster.nic_tx[8 + 5])
    left = left_by_others(cluster, [(row, 0.2)])
    assert [left.capacity_at(time_s)[row] for time_s in (0.5, 2.0)] == pytest.approx([2e9, 10e9])
    assert np.delete(left.capacity, row) == pytest.approx(np.delete(cluster.capacity, row))


def test_a_supernode_is_one_switch() -> None:
    for name, gpus in (("gb200-nvl72", 72), ("cloudmatrix384", 384)):
        cluster = build(load_hardware(name), 1, Fabric(nodes_per_leaf=32))
        assert cluster.num_gpus == gpus
        assert cluster.graph.in_degree("node0/nvswitch") == gpus


def test_scale_up_joins_all_nodes_into_one_domain() -> None:
    cluster = small("scale_up")
    assert (cluster.num_nodes, cluster.gpus_per_node) == (1, 64)
    assert not cluster.nic_alive.any()


def test_nodes_without_nics_cannot_be_two() -> None:
    lonely = replace(H800, nic=None)
    assert build(lonely, 1, Fabric()).num_gpus == 8
    with pytest.raises(InfeasibleError, match="no NIC, so 2 nodes cannot reach each other"):
        build(lonely, 2, Fabric())


# --- bare fabrics --------------------------------------------------------------------------------------------------

BARE = LeafSpine(
    hosts=64, hosts_per_leaf=8, spines=4, link_bytes_per_s=50e9, link_latency_s=500e-9, switch_latency_s=300e-9,
    payload_per_packet_bytes=4096, wire_per_packet_bytes=4160,
)  # fmt: skip


def test_a_bare_fabric_has_a_cable_from_each_leaf_to_each_spine() -> None:
    cluster = build_leaf_spine(BARE)
    assert boxes(cluster) == {"nic": 64, "leaf": 8, "spine": 4}
    assert cables(cluster, "leaf_uplink") == 2 * 8 * 4
    assert cluster.capacity[cluster.up] == pytest.approx(np.full((8, 1), 4 * 50e9))
    assert build_leaf_spine(replace(BARE, routing="ecmp")).up.shape == (8, 4)
    assert np.all(cluster.egress == NONE)


def test_the_last_leaf_of_a_bare_fabric_may_be_part_full() -> None:
    cluster = build_leaf_spine(replace(BARE, hosts=10))
    assert cluster.leaf.tolist() == [0] * 8 + [1] * 2


def test_idle_latency_of_a_packet() -> None:
    """Links x 500 ns + switches x (300 ns + 4,160 B / 50 GB/s): 2 links and a switch, or 4 and 3."""
    assert float(BARE.idle_latency_s(True)) == pytest.approx(1.3832e-6)
    assert float(BARE.idle_latency_s(False)) == pytest.approx(3.1496e-6)
    assert BARE.line_per_payload == 4160 / 4096
