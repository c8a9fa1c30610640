"""Collectives of a group: rings, trees and sums in the switch put on the links what arithmetic says, and take its time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.cluster.collective_library import PROTOCOLS, load_library
from sim.cluster.hardware import load_hardware
from sim.cluster.kernels import load_kernel
from sim.cluster.topology import Fabric, Fault, build
from sim.engine.executor import run_together
from sim.schedule.group_operations import OPERATIONS, GroupOperation, algorithms, tuned
from sim.schedule.rings import ring_hops, tree_hops, tree_parents

H100 = load_hardware("h100")
S = 2.0**30
NODES = (1, 2, 3, 4)


def operation(
    op: str = "all_reduce",
    num_nodes: int = 2,
    algorithm: str = "ring",
    protocol: str = "simple",
    *,
    hardware: str = "h100",
    fabric: Fabric | None = None,
    faults: tuple[Fault, ...] = (),
    gpus: np.ndarray | None = None,
    total_bytes: float = S,
) -> GroupOperation:
    profile = load_hardware(hardware)
    cluster = build(profile, num_nodes, fabric or Fabric(), faults)
    ranks = np.arange(cluster.num_gpus) if gpus is None else gpus
    library, kernel = load_library(), load_kernel("nccl")
    return GroupOperation(cluster, profile, library, kernel, op, total_bytes, ranks, algorithm, protocol)


def time_s(*operations: GroupOperation) -> float:
    return run_together(operations[0].cluster, "op", operations).end_s


def sent(x: GroupOperation) -> tuple[np.ndarray, np.ndarray]:
    """Bytes that each GPU sends over scale-up and over its NIC."""
    crossed = x.flows().bytes_by_resource(len(x.cluster.names))
    return crossed[x.cluster.egress], crossed[x.cluster.nic_tx]


def split(num_nodes: int, each: int) -> list[np.ndarray]:
    return list(np.arange(num_nodes * each).reshape(num_nodes, each))


# --- ways --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_nodes", "each"), [(1, 8), (2, 8), (4, 8), (6, 4), (4, 1), (2, 2)])
def test_a_ring_passes_every_gpu_once_and_keeps_to_its_rails(num_nodes: int, each: int) -> None:
    hops = ring_hops(split(num_nodes, each))
    for c in range(int(hops.channel.max()) + 1):
        src, dst = hops.src[hops.channel == c], hops.dst[hops.channel == c]
        assert sorted(src) == sorted(dst) == list(range(num_nodes * each))
        assert (dst == np.roll(src, -1)).all()
        leaves = src // each != dst // each
        assert leaves.sum() == (num_nodes if num_nodes > 1 else 0)
        assert (src[leaves] % each == dst[leaves] % each).all()


def test_a_ring_is_the_one_that_nccl_prints() -> None:
    """`Channel 00/16 : 0 7 6 5 4 3 2 1 9 10 11 12 13 14 15 8` of two nodes in a log with NCCL_DEBUG=INFO."""
    hops = ring_hops(split(2, 8))
    assert hops.src[:16].tolist() == [0, 7, 6, 5, 4, 3, 2, 1, 9, 10, 11, 12, 13, 14, 15, 8]


@pytest.mark.parametrize("num", range(2, 34))
def test_nodes_inside_one_tree_are_leaves_of_the_other(num: int) -> None:
    first, second = tree_parents(num)
    inner = [set(tree[tree >= 0].tolist()) - {int(np.flatnonzero(tree < 0)[0])} for tree in (first, second)]
    assert not inner[0] & inner[1]
    for tree in (first, second):
        place = np.arange(num)
        for _ in range(num.bit_length() + 1):
            place = np.where(tree[place] >= 0, tree[place], place)
        assert len(set(place.tolist())) == 1, "everybody reaches the root in as many steps as it has levels"


def test_the_trees_of_a_channel_leave_a_node_by_the_channel_s_gpu() -> None:
    hops = tree_hops(split(4, 8))
    leaves = hops.src // 8 != hops.dst // 8
    assert (hops.src[leaves] % 8 == hops.channel[leaves] // 2).all()


# --- bytes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["all_gather", "reduce_scatter", "all_reduce"])
@pytest.mark.parametrize("num_nodes", NODES)
def test_a_ring_sends_what_the_bus_bandwidth_counts_over_every_link_of_it(op: str, num_nodes: int) -> None:
    n = 8 * num_nodes
    moved = S * {"all_gather": 1, "reduce_scatter": 1, "all_reduce": 2}[op] * (n - 1) / n
    up, nic = sent(operation(op, num_nodes))
    assert nic == pytest.approx(np.full(n, moved / 8 if num_nodes > 1 else 0.0))
    if num_nodes != 3:  # an odd number of nodes ends on another rail, over the spines
        assert up + nic == pytest.approx(np.full(n, moved))


def test_nobody_sends_a_broadcast_back_to_its_root() -> None:
    x = operation("broadcast")
    crossed = x.flows().bytes_by_resource(len(x.cluster.names))
    received = crossed[x.cluster.ingress] + crossed[x.cluster.nic_rx]
    assert received[0] == 0.0
    assert received[1:] == pytest.approx(np.full(15, S))


def test_a_tree_sends_sums_up_and_results_down_each_edge() -> None:
    up, nic = sent(operation(num_nodes=8, algorithm="tree"))
    assert nic.sum() == pytest.approx(2 * S * 7)  # edges of a tree of eight nodes, two trees with half each
    assert nic.max() == pytest.approx(2 * S / 8)
    assert up.sum() == pytest.approx(8 * 2 * S * 7)


def test_the_switch_adds_so_that_a_gpu_sends_the_buffer_once_and_its_part_of_the_sum() -> None:
    up, nic = sent(operation(num_nodes=1, algorithm="nvls"))
    assert up == pytest.approx(np.full(8, S * 9 / 8))
    assert not nic.any()


def test_layers_send_less_over_the_nic_than_a_ring_by_the_shards_of_the_own_node() -> None:
    _, ring = sent(operation(num_nodes=4))
    _, layers = sent(operation(num_nodes=4, algorithm="hierarchical"))
    assert ring[0] == pytest.approx(2 * S / 8 * 31 / 32)
    assert layers[0] == pytest.approx(2 * S / 8 * 3 / 4)


# --- times ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_nodes", [1, 2, 4])
@pytest.mark.parametrize("op", [op for op in OPERATIONS if op != "all_to_all"])
def test_alone_on_healthy_links_it_takes_the_time_of_its_closed_form(op: str, num_nodes: int) -> None:
    cluster = build(H100, num_nodes, Fabric())
    for algorithm in algorithms(op, np.arange(cluster.num_gpus), H100, 8):
        for protocol in PROTOCOLS:
            x = operation(op, num_nodes, algorithm, protocol)
            assert time_s(x) == pytest.approx(x.closed_form_s()[0], rel=1e-9)


def test_a_ring_over_two_nodes_takes_its_steps_and_the_nic_s_time() -> None:
    """28 steps inside nodes and two between them; 2 x 15/16 S, an eighth of it over each NIC, at 0.888 of 50 GB/s."""
    steps = 8.4e-6 + 28 * 3.4e-6 + 2 * 14e-6
    assert time_s(operation()) == pytest.approx(steps + 2 * 15 / 16 * S / 8 / (0.888 * 50e9), rel=1e-9)


def test_the_link_that_a_cut_leaves_binds_the_h800_s_ring_and_the_nic_the_h100_s() -> None:
    """Seven eighths of the ring's bytes over 200 GB/s, an eighth over 50 GB/s."""
    assert operation(num_nodes=4, hardware="h800").closed_form_s()[1] == "scale_up"
    assert operation(num_nodes=4, hardware="h100").closed_form_s()[1] == "nic"


def test_one_slow_nic_holds_the_whole_ring_through_it() -> None:
    x = operation()
    slow = operation(faults=(Fault("bandwidth", 0.75, node=0, nic=3),))
    assert time_s(slow) - x.latency_s() == pytest.approx((time_s(x) - x.latency_s()) / 0.75, rel=1e-9)


def test_the_next_nic_carries_what_a_dead_one_did() -> None:
    x = operation()
    dead = operation(faults=(Fault("bandwidth", 0.0, node=0, nic=3),))
    grown = (time_s(dead) - x.latency_s()) / (time_s(x) - x.latency_s())
    assert grown == pytest.approx(2, rel=1e-4)  # and a hop within the node


@pytest.mark.parametrize("algorithm", ["ring", "tree", "nvls", "hierarchical"])
@pytest.mark.parametrize("rate", [40e9, 10e9, 0.0])
def test_no_fault_makes_it_faster(algorithm: str, rate: float) -> None:
    healthy = operation(num_nodes=3, algorithm=algorithm)
    faulty = operation(
        num_nodes=3, algorithm=algorithm, faults=(Fault("bandwidth", rate / 50e9, node=1, nic=1),)
    )
    assert time_s(faulty) >= time_s(healthy) * (1 - 1e-12)


def test_an_oversubscribed_leaf_holds_a_ring_to_what_its_uplinks_leave() -> None:
    """One node a leaf, eight to one: a NIC's bytes with headers (65/64) over an eighth of 50 GB/s."""
    x = operation(fabric=Fabric(nodes_per_leaf=1, oversubscription=8.0))
    extra = 2 * (H100.fabric.cross_leaf_latency_s - H100.fabric.same_leaf_latency_s)
    bytes_s = 2 * 15 / 16 * S / 8 * 65 / 64 / (50e9 / 8)
    assert time_s(x) == pytest.approx(x.latency_s() + extra + bytes_s, rel=1e-9)


def test_groups_of_one_rail_each_take_turns_with_nobody_and_two_on_one_rail_halve_it() -> None:
    """Eight groups of stride 8 have a NIC each; over nodes of which each holds two ranks of a group, a NIC serves both ways."""
    cluster = build(H100, 4, Fabric())
    strided = [replace(operation(num_nodes=4, gpus=np.arange(r, 32, 8)), cluster=cluster) for r in range(8)]
    assert time_s(*strided) == pytest.approx(time_s(strided[0]), rel=1e-9)
    twice = [strided[0], replace(strided[0])]
    alone, both = (time_s(*some) - strided[0].latency_s() for some in (twice[:1], twice))
    assert both == pytest.approx(2 * alone, rel=1e-9)


def test_relabelling_nodes_changes_nothing() -> None:
    here, there = np.arange(16), np.arange(16, 32)
    assert time_s(operation(num_nodes=4, gpus=here)) == time_s(operation(num_nodes=4, gpus=there))


# --- choices -------------------------------------------------------------------------------------------------------


def candidates(total_bytes: float, num_nodes: int, hardware: str = "h100") -> list[GroupOperation]:
    ranks, profile = np.arange(8 * num_nodes), load_hardware(hardware)
    return [
        operation("all_reduce", num_nodes, name, protocol, hardware=hardware, total_bytes=total_bytes)
        for name in algorithms("all_reduce", ranks, profile, 8)
        if name != "hierarchical"
        for protocol in (("simple",) if name == "nvls" else PROTOCOLS)
    ]


@pytest.mark.parametrize(
    ("total_bytes", "num_nodes", "chosen"),
    [
        (512.0, 1, ("ring", "ll")),  # steps alone: the protocol of the shortest ones
        (512e6, 1, ("nvls", "simple")),  # 9/8 S through the switch beats 7/4 S round a ring
        (4096.0, 4, ("tree", "ll")),  # 2 x (7 + 2) steps beat 62
        (4e9, 4, ("ring", "simple")),  # a NIC carries 31/16 S / 8 of a ring, and 2 S / 8 of trees
    ],
)
def test_the_tuner_chooses_by_size(total_bytes: float, num_nodes: int, chosen: tuple[str, str]) -> None:
    best = tuned(candidates(total_bytes, num_nodes))
    assert (best.algorithm, best.protocol) == chosen


def test_only_switches_that_add_offer_sums_in_the_switch() -> None:
    ranks = np.arange(8)
    assert "nvls" in algorithms("all_reduce", ranks, H100, 8)
    assert "nvls" not in algorithms("all_reduce", ranks, load_hardware("a100"), 8)
    assert "nvls" not in algorithms("all_gather", ranks, H100, 8)
    assert "nvls" not in algorithms("all_reduce", np.arange(4, 16), H100, 8)  # four ranks here, eight there
