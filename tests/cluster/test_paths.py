"""Paths: what a pair of GPUs uses is a walk in the graph, by living NICs, spread as the routing says."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cluster import paths
from sim.cluster.hardware import load_hardware
from sim.cluster.topology import NONE, Cluster, Fabric, LinkFault, build
from sim.errors import InfeasibleError

H800 = load_hardware("h800")
KINDS = ("rail_optimized", "multi_plane", "three_tier")


def small(kind: str, num_nodes: int = 6, faults: tuple[LinkFault, ...] = (), **more: Any) -> Cluster:
    """Pods of two nodes."""
    return build(H800, num_nodes, Fabric(kind=kind, **{"nodes_per_leaf": 2, **more}), faults)  # type: ignore[arg-type]


def remote_pairs(cluster: Cluster) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of GPUs of different nodes."""
    src, dst = np.divmod(np.arange(cluster.num_gpus**2), cluster.num_gpus)
    away = src // cluster.gpus_per_node != dst // cluster.gpus_per_node
    return src[away], dst[away]


def resources(cluster: Cluster, src: int, dst: int, via: int, **options: Any) -> list[list[int]]:
    """Rows that one pair uses from its sending NIC on, one list a queue pair."""
    columns = list(paths.uplinks(cluster, np.array([via]), np.array([dst]), **options))
    return [[int(row[0]) for row, _ in columns if row[0] != NONE]]


def walks(cluster: Cluster, rows: list[int], start: str, end: str) -> bool:
    """Whether some path from start to end in the graph crosses exactly these resources, in this order."""
    graph, at = cluster.graph, {start}
    for row in rows:
        at = {
            b for a in at for b in graph.successors(a) if graph.edges[a, b]["resource"] == cluster.names[row]
        }
    return end in at


def gpu(cluster: Cluster, number: int) -> str:
    return f"node{number // cluster.gpus_per_node}/gpu{number % cluster.gpus_per_node}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("routing", ["adaptive", "ecmp"])
@pytest.mark.parametrize("pxn", [False, True])
def test_what_a_pair_uses_is_a_path_of_the_graph(kind: str, routing: str, pxn: bool) -> None:
    """GPU, (scale-up switch, rail's GPU,) PCIe, NIC, leaf, (spine, (core, spine,) leaf,) NIC, PCIe, GPU."""
    cluster = small(kind, routing=routing)
    src, dst = remote_pairs(cluster)
    (leg,) = paths.legs(cluster, src, dst, forward_to_rail=pxn)
    assert np.all(leg.fraction == 1)
    for s, d, via, into in zip(src[::7], dst[::7], leg.via_src[::7], leg.via_dst[::7], strict=True):
        rows = [] if via == s else [cluster.egress[s], cluster.ingress[via]]
        rows += [cluster.pcie_tx[via], cluster.nic_tx[via]]
        rows += resources(cluster, int(s), int(into), int(via))[0]
        rows += [cluster.nic_rx[into], cluster.pcie_rx[into]]
        assert into == d
        assert walks(cluster, [int(row) for row in rows], gpu(cluster, int(s)), gpu(cluster, int(d))), (
            s,
            d,
            rows,
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_takes_a_shortest_way_between_its_nics(kind: str) -> None:
    cluster = small(kind, routing="ecmp")
    src, dst = remote_pairs(cluster)
    (leg,) = paths.legs(cluster, src, dst)
    cables = cluster.graph.edge_subgraph(
        [(a, b) for a, b, data in cluster.graph.edges(data=True) if data["kind"] in ("nic", "leaf_uplink")]
    )
    for d, via in zip(dst[::11], leg.via_src[::11], strict=True):
        ends = [gpu(cluster, int(one)).replace("gpu", "nic") for one in (via, d)]
        used = 2 + len(resources(cluster, int(via), int(d), int(via))[0])
        assert used == nx.shortest_path_length(cables, *ends)


@pytest.mark.parametrize("kind", ["multi_plane", "rail_only"])
def test_no_path_joins_two_planes(kind: str) -> None:
    cluster = small(kind, num_nodes=2)
    src, dst = remote_pairs(cluster)
    (leg,) = paths.legs(cluster, src, dst)
    assert np.all(leg.via_src % 8 == dst % 8)
    assert np.all(leg.via_src // 8 == src // 8)


def test_rails_are_joined_at_the_spine_unless_the_sender_forwards() -> None:
    cluster = small("rail_optimized")
    src, dst = remote_pairs(cluster)
    (direct,), (forwarded,) = (
        paths.legs(cluster, src, dst),
        paths.legs(cluster, src, dst, forward_to_rail=True),
    )
    assert np.all(direct.via_src == src)
    assert np.all(forwarded.via_src % 8 == dst % 8)
    same_pod = src // 16 == dst // 16
    assert not list(paths.uplinks(cluster, forwarded.via_src[same_pod], dst[same_pod]))


def test_same_leaf_pairs_use_no_uplink_and_no_extra_latency() -> None:
    cluster = small("rail_optimized")
    ends = np.array([0, 0, 0]), np.array([8, 16, 9])  # same leaf; other pod; other rail
    ((up, _), (down, _)) = paths.uplinks(cluster, *ends)
    assert (up == NONE).tolist() == (down == NONE).tolist() == [True, False, False]
    assert paths.extra_latency_s(cluster, *ends) == pytest.approx([0, 0.9e-6, 0.9e-6])


def test_a_way_through_the_core_adds_twice_the_latency() -> None:
    cluster = small("three_tier")
    added = paths.extra_latency_s(cluster, np.array([0, 0, 0]), np.array([8, 9, 16]))
    assert added == pytest.approx([0, 0.9e-6, 1.8e-6])


# --- dead NICs -----------------------------------------------------------------------------------------------------


@given(
    st.sets(st.tuples(st.integers(0, 3), st.integers(0, 7)), max_size=14),
    st.sampled_from(KINDS),
    st.booleans(),
)
def test_bytes_keep_to_living_nics_and_none_is_lost(dead: set[tuple[int, int]], kind: str, pxn: bool) -> None:
    cluster = small(
        kind, num_nodes=4, faults=tuple(LinkFault(nic, 0.0, node=node) for node, nic in sorted(dead))
    )
    src, dst = remote_pairs(cluster)
    try:
        found = paths.legs(cluster, src, dst, forward_to_rail=pxn)
    except InfeasibleError:
        alive = cluster.nic_alive.reshape(4, 8)
        shared = (alive[:, None] & alive[None, :]).any(axis=2)
        assert not shared.all()
        return
    assert sum(leg.fraction for leg in found) == pytest.approx(np.ones(len(src)))
    for leg in found:
        used = leg.fraction > 0
        assert cluster.nic_alive[leg.via_src[used]].all()
        assert cluster.nic_alive[leg.via_dst[used]].all()
        assert np.all(leg.via_src[used] // 8 == src[used] // 8)
        assert np.all(leg.via_dst[used] // 8 == dst[used] // 8)
        if not cluster.planes_joined:
            assert np.all(leg.via_src[used] % 8 == leg.via_dst[used] % 8)


def test_a_dead_nic_spreads_its_bytes_evenly_over_the_seven_others() -> None:
    cluster = small("multi_plane", num_nodes=2, faults=(LinkFault(3, 0.0, node=1),))
    found = paths.legs(cluster, np.array([3, 0]), np.array([8 + 3, 8]))
    assert found[0].fraction.tolist() == [0, 1]
    assert sorted(int(leg.via_dst[0]) % 8 for leg in found[1:]) == [0, 1, 2, 4, 5, 6, 7]
    assert [leg.fraction[0] for leg in found[1:]] == pytest.approx([1 / 7] * 7)


def test_planes_without_a_living_nic_at_both_ends_join_nobody() -> None:
    dead = tuple(
        LinkFault(nic, 0.0, node=nic % 2) for nic in range(8)
    )  # even rails dead in node 0, odd in node 1
    with pytest.raises(InfeasibleError, match="node 0 and node 1"):
        paths.legs(small("multi_plane", num_nodes=2, faults=dead), np.array([0]), np.array([8]))


def test_joined_rails_need_not_be_the_same_rail_at_both_ends() -> None:
    """The same faults where spines join the rails: the living NICs of both ends reach one another."""
    dead = tuple(LinkFault(nic, 0.0, node=nic % 2) for nic in range(8))
    cluster = small("rail_optimized", num_nodes=2, faults=dead)
    found = paths.legs(cluster, np.array([0, 1]), np.array([8, 9]))
    assert sum(leg.fraction for leg in found) == pytest.approx([1, 1])
    for leg in found:
        used = leg.fraction > 0
        assert cluster.nic_alive[leg.via_src[used]].all()
        assert cluster.nic_alive[leg.via_dst[used]].all()


# --- ECMP ----------------------------------------------------------------------------------------------------------


def test_ecmp_spreads_roughly_evenly_and_repeats_itself() -> None:
    """8,192 pairs on 8 spines: each gets 1,024 with a standard deviation of 30."""
    cluster = small("rail_optimized", num_nodes=256, nodes_per_leaf=8, routing="ecmp")
    src = np.arange(1024)
    src, dst = np.repeat(src, 8), np.concatenate([1024 + (src * 7 + k * 131) % 1024 for k in range(8)])
    picked = [np.array([row for row, _ in paths.uplinks(cluster, src, dst)]) for _ in range(2)]
    np.testing.assert_array_equal(*picked)
    spine = np.argmax(cluster.up[cluster.leaf[src]] == picked[0][0][:, None], axis=1)
    back = np.argmax(cluster.down[cluster.leaf[dst]] == picked[0][1][:, None], axis=1)
    np.testing.assert_array_equal(spine, back)  # up and down by the same spine
    assert np.bincount(spine, minlength=8) == pytest.approx(np.full(8, 1024), abs=150)
    salted = np.array([row for row, _ in paths.uplinks(cluster, src, dst, salt=1)])
    assert np.mean(salted[0] == picked[0][0]) == pytest.approx(1 / 8, abs=0.03)


def test_queue_pairs_of_a_pair_hash_apart_and_share_its_bytes() -> None:
    cluster = small("rail_optimized", routing="ecmp", nodes_per_leaf=2)
    columns = list(paths.uplinks(cluster, np.array([0]), np.array([16]), queue_pairs=16))
    assert sum(fraction[0] for row, fraction in columns if row[0] in cluster.up) == pytest.approx(1)
    assert {int(row[0]) for row, _ in columns if row[0] in cluster.up} == set(
        cluster.up[cluster.leaf[0]].tolist()
    )
