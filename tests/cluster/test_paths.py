"""Paths: what a pair of GPUs uses is a walk in the graph, by living NICs, spread as the routing says."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faults import slow_nic
from sim.cluster import paths
from sim.cluster.faults import Fault
from sim.cluster.hardware import load_hardware
from sim.cluster.topology import NONE, Cluster, Fabric, build
from sim.errors import InfeasibleError

H800 = load_hardware("h800")
KINDS = ("rail_optimized", "multi_plane", "three_tier", "fat_tree")


def small(kind: str, num_nodes: int = 6, faults: tuple[Fault, ...] = (), **more: Any) -> Cluster:
    """Pods of two nodes."""
    if kind == "fat_tree":
        more["nics_on_leaf"] = 8
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
    leg = paths.leg(cluster, src, dst, np.ones(len(src)), forward_to_rail=pxn)
    assert np.all(leg.nic_src == leg.via_src)
    for s, d, via, into in zip(src[::7], dst[::7], leg.nic_src[::7], leg.nic_dst[::7], strict=True):
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
    leg = paths.leg(cluster, src, dst, np.ones(len(src)))
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
    leg = paths.leg(cluster, src, dst, np.ones(len(src)))
    assert np.all(leg.via_src % 8 == dst % 8)
    assert np.all(leg.via_src // 8 == src // 8)


def test_rails_are_joined_at_the_spine_unless_the_sender_forwards() -> None:
    cluster = small("rail_optimized")
    src, dst = remote_pairs(cluster)
    direct, forwarded = (
        paths.leg(cluster, src, dst, np.ones(len(src)), forward_to_rail=pxn) for pxn in (False, True)
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


@pytest.mark.parametrize("routing", ["adaptive", "ecmp"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_way_of_a_pair_is_the_same_whoever_else_is_asked_for(kind: str, routing: str) -> None:
    cluster = small(kind, routing=routing)
    src, dst = remote_pairs(cluster)
    together = list(paths.uplinks(cluster, src, dst, queue_pairs=2))
    for pair in range(0, len(src), 29):
        alone = resources(cluster, -1, int(dst[pair]), int(src[pair]), queue_pairs=2)
        assert [[int(rows[pair]) for rows, _ in together if rows[pair] != NONE]] == alone


def test_a_way_through_the_core_takes_a_quarter_longer_than_one_through_a_spine() -> None:
    cluster = small("three_tier")
    added = paths.extra_latency_s(cluster, np.array([0, 0, 0]), np.array([8, 9, 16]))
    assert added == pytest.approx([0, 0.9e-6, 1.25 * 3.7e-6 - 2.8e-6])


# --- dead NICs -----------------------------------------------------------------------------------------------------


@given(
    st.sets(st.tuples(st.integers(0, 3), st.integers(0, 7)), max_size=14),
    st.sampled_from(KINDS),
    st.booleans(),
)
def test_bytes_keep_to_living_nics(dead: set[tuple[int, int]], kind: str, pxn: bool) -> None:
    cluster = small(
        kind, num_nodes=4, faults=tuple(slow_nic(nic, 0.0, node=node) for node, nic in sorted(dead))
    )
    src, dst = remote_pairs(cluster)
    try:
        leg = paths.leg(cluster, src, dst, np.ones(len(src)), forward_to_rail=pxn)
    except InfeasibleError:
        alive = cluster.nic_alive.reshape(4, 8)
        shared = (alive[:, None] & alive[None, :]).any(axis=2)
        assert not (shared if kind == "multi_plane" else alive.any(axis=1)).all()
        return
    for nic, end in ((leg.nic_src, src), (leg.nic_dst, dst)):
        assert cluster.nic_alive[nic].all()
        assert np.all(nic // 8 == end // 8)
    if not cluster.planes_joined:
        assert np.all(leg.nic_src % 8 == leg.nic_dst % 8)


def dead(*nics: tuple[int, int]) -> tuple[Fault, ...]:
    return tuple(slow_nic(nic, 0.0, node=node) for node, nic in nics)


def test_a_gpu_whose_nic_is_dead_borrows_the_next_living_one_of_its_node() -> None:
    """Of node 1, NICs 3, 4 and 7 are dead: GPUs 3 and 4 use NIC 5, GPU 7 uses NIC 0; the other ends stay as they are."""
    cluster = small("rail_optimized", num_nodes=2, faults=dead((1, 3), (1, 4), (1, 7)))
    leg = paths.leg(cluster, np.arange(8), 8 + np.arange(8), np.ones(8))
    assert leg.nic_src.tolist() == list(range(8))
    assert (leg.nic_dst % 8).tolist() == [0, 1, 2, 5, 5, 5, 6, 0]


def test_a_plane_with_a_dead_nic_is_out_of_use_for_all_that_send_together() -> None:
    """Nodes 0 and 1 send over plane 4 what plane 3 carried; nodes that have no part in it do not."""
    cluster = small("multi_plane", num_nodes=4, faults=dead((1, 3)))
    src, dst = np.array([3, 8, 3]), np.array([16 + 3, 16 + 3, 16])
    leg = paths.leg(cluster, src, dst, np.ones(3))
    assert (leg.nic_src % 8).tolist() == (leg.nic_dst % 8).tolist() == [4, 4, 0]
    apart = paths.leg(cluster, np.array([3]), np.array([16 + 3]), np.ones(1))
    assert (int(apart.nic_src[0]), int(apart.nic_dst[0])) == (3, 16 + 3)


@pytest.mark.parametrize(("rate", "used"), [(0.6, 3), (0.5, 3), (0.4, 4), (0.0, 4)])
def test_a_slow_nic_is_used_while_that_ends_earlier(rate: float, used: int) -> None:
    """Alike loads: one NIC with the bytes of two takes twice as long, as one at half rate does."""
    cluster = small("rail_optimized", num_nodes=2, faults=(slow_nic(3, rate * 50e9, node=1),))
    leg = paths.leg(cluster, np.arange(8), 8 + np.arange(8), np.ones(8))
    assert int(leg.nic_dst[3]) % 8 == used


@given(
    st.lists(
        st.tuples(st.floats(0, 9), st.floats(0, 9), st.sampled_from([0, 0.2, 0.5, 0.8, 1.0])),
        min_size=5,
        max_size=5,
    )
)
def test_what_is_avoided_ends_as_early_as_the_best_of_all_choices(
    nics: list[tuple[float, float, float]],
) -> None:
    """Against all subsets of the slow NICs of a node."""
    loads, rate = np.array(nics).T[:2, None], np.array(nics).T[None, 2]
    chosen = paths._borrowed(loads, rate)
    best = np.inf
    for avoided in range(32):
        used = [i for i in range(5) if not avoided >> i & 1 and rate[0, i] > 0]
        if not used or any(avoided >> i & 1 and rate[0, i] == rate.max() for i in range(5)):
            continue
        carried = np.zeros((2, 5))
        for i in range(5):
            carried[:, next(j % 5 for j in range(i, i + 5) if j % 5 in used)] += loads[:, 0, i]
        best = min(best, max((carried[:, i] / rate[0, i]).max() for i in used))
    if chosen is None:
        assert not rate.any()
        return
    carried = np.array([np.bincount(chosen, side[0], 5) for side in loads])
    assert (carried[:, np.unique(chosen)] / rate[0, np.unique(chosen)]).max() == pytest.approx(best)


def test_planes_without_a_living_nic_at_both_ends_join_nobody() -> None:
    """Even rails are dead in node 0, odd ones in node 1."""
    odd = dead(*((nic % 2, nic) for nic in range(8)))
    with pytest.raises(InfeasibleError, match="node 0 and node 1"):
        paths.leg(small("multi_plane", num_nodes=2, faults=odd), np.array([0]), np.array([8]), np.ones(1))
    joined = small("rail_optimized", num_nodes=2, faults=odd)
    leg = paths.leg(joined, np.array([0, 1]), np.array([8, 9]), np.ones(2))
    assert (leg.nic_src.tolist(), leg.nic_dst.tolist()) == ([1, 1], [8, 10])


def test_planes_of_which_none_lives_everywhere_are_taken_pair_by_pair() -> None:
    """Three nodes: of planes 0 to 3, 4 and 5, 6 and 7 one each is dead."""
    cluster = small("multi_plane", num_nodes=3, nodes_per_leaf=4, faults=dead(*((0, i) for i in range(4)), (1, 4), (1, 5), (2, 6), (2, 7)))  # fmt: skip
    leg = paths.leg(cluster, np.array([0, 0, 8]), np.array([8, 16, 16]), np.ones(3))
    assert (leg.nic_src % 8).tolist() == (leg.nic_dst % 8).tolist() == [6, 4, 0]


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


def test_queue_pairs_of_a_fabric_go_before_those_of_a_kernel() -> None:
    """Three connections up and three down, a third of the bytes on each."""
    cluster = small("rail_optimized", routing="ecmp", nodes_per_leaf=2, queue_pairs=3)
    columns = list(paths.uplinks(cluster, np.array([0]), np.array([16]), queue_pairs=16))
    assert [fraction[0] for _, fraction in columns] == pytest.approx([1 / 3] * 6)
