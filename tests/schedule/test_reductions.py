"""Reductions: rings and their hierarchical form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cluster.hardware import load_hardware
from sim.cluster.kernels import load_kernel
from sim.cost.optimizer import Optimizer
from sim.schedule import reductions
from sim.schedule.context_parallel import context_parallel_s, ring_exposed_s, ring_step_s
from sim.schedule.direct_reads import direct_all_reduce_s
from sim.schedule.reductions import (
    HeldParameters,
    Links,
    copy_phases,
    optimizer_s,
    phases,
    scatter_s,
    tensor_parallel_s,
)
from sim.workload.layout import derive

LINKS = Links(
    scale_up_bytes_per_s=100e9, nic_bytes_per_s=10e9, hbm_bytes_per_s=1e12, gpus_per_node=8, latency_s=0.0
)
sizes = st.sampled_from((2, 4, 8, 16, 64, 128))
num_bytes = st.floats(1e3, 1e11)


def test_a_ring_inside_a_node_sends_all_but_its_own_part() -> None:
    assert scatter_s(LINKS, 8e9, 4) == pytest.approx(8e9 * 3 / 4 / 100e9)


def test_an_all_reduce_by_reading_takes_one_shot_of_few_bytes_and_two_of_many() -> None:
    """By hand: one shot has 3 flag times less and sends n / 2 times as much; they meet where that is S (n - 1) (1 - 2 / n)."""
    links, n = replace(LINKS, flag_s=1e-6), 8
    assert direct_all_reduce_s(links, 0, n, 3e-6) == pytest.approx(
        7e-6
    )  # two barriers, a read there and back
    assert direct_all_reduce_s(links, 8e9, n, 3e-6) == pytest.approx(10e-6 + 2 * 8e9 * 7 / 8 / 100e9)
    meet = 3e-6 * 100e9 / (7 * (1 - 2 / 8))
    below, above = (direct_all_reduce_s(links, meet * part, n, 0.0) for part in (0.5, 2.0))
    assert below == pytest.approx(4e-6 + 0.5 * meet * 7 / 100e9)
    assert above == pytest.approx(7e-6 + 2 * 2 * meet * 7 / 8 / 100e9)


def test_each_stage_of_a_hierarchical_reduction_has_its_latency() -> None:
    slow = replace(LINKS, latency_s=1.0)
    more = [
        scatter_s(slow, 8e9, num, near) - scatter_s(LINKS, 8e9, num, near)
        for num, near in ((4, 4), (4, 1), (32, 8))
    ]
    assert more == pytest.approx([1.0, 1.0, 2.0])  # inside a node, between nodes, both


def test_context_parallel_ranks_share_what_they_update() -> None:
    layout = derive(64, num_experts=8, pp=2, ep=8, tp=2, cp=2)
    assert (layout.dp, layout.expert_dp) == (8, 4)
    assert HeldParameters(dense=1e9, experts=2e9).shard(layout) == pytest.approx(1e9 / (8 * 2) + 2e9 / 4)


def test_a_gpu_of_two_nics_reduces_over_both() -> None:
    one, two = (Links.peak(load_hardware("h800", {"nic": {"per_gpu": count}})) for count in (1, 2))
    assert two.nic_bytes_per_s == 2 * one.nic_bytes_per_s == 100e9


def test_across_nodes_the_nic_carries_an_eighth_of_it() -> None:
    expected = 8e9 * 7 / 8 / 100e9 + 8e9 / 8 * 3 / 4 / 10e9
    assert scatter_s(LINKS, 8e9, 32) == pytest.approx(expected)


def test_ranks_that_stand_a_node_apart_use_the_nic_alone() -> None:
    assert scatter_s(LINKS, 8e9, 2, near=1) == pytest.approx(8e9 / 2 / 10e9)


def test_ranks_a_few_apart_share_a_node() -> None:
    assert scatter_s(LINKS, 8e9, 2, near=2) == pytest.approx(8e9 / 2 / 100e9)


@pytest.mark.parametrize(("num_ranks", "total"), [(1, 8e9), (8, 0.0)])
def test_nothing_to_reduce_takes_no_time(num_ranks: int, total: float) -> None:
    assert scatter_s(LINKS, total, num_ranks) == 0.0


@given(num_bytes, sizes)
def test_twice_the_bytes_take_twice_as_long(total: float, num_ranks: int) -> None:
    assert scatter_s(LINKS, 2 * total, num_ranks) == pytest.approx(2 * scatter_s(LINKS, total, num_ranks))


@given(num_bytes, sizes)
def test_a_hierarchy_is_never_slower_than_a_flat_ring_over_the_nic(total: float, num_ranks: int) -> None:
    flat = total * (num_ranks - 1) / num_ranks / LINKS.nic_bytes_per_s
    assert scatter_s(LINKS, total, num_ranks) <= flat * (1 + 1e-9)


def test_an_all_reduce_is_a_scatter_and_a_gather() -> None:
    assert tensor_parallel_s(LINKS, 1e9, 8) == pytest.approx(2 * 1e9 * 7 / 8 / 100e9)
    assert context_parallel_s(LINKS, 1e9, 4, 4) == pytest.approx(1e9 * 3 / 4 / 100e9)


def test_a_ring_of_cp_shows_what_its_steps_take_longer_than_blocks_of_the_core() -> None:
    """Ring attention (arXiv 2310.01889): three blocks come to the one that is there, each next to the core of the one before."""
    inside, across = (ring_step_s(LINKS, 1e9, 4, near) for near in (4, 2))
    assert inside == pytest.approx(LINKS.latency_s + 0.25e9 / 100e9)
    assert across == pytest.approx(LINKS.latency_s + 0.25e9 / LINKS.nic_bytes_per_s)
    assert ring_exposed_s(across, 4 * across, 4) == 0.0
    assert ring_exposed_s(across, 0.0, 4) == pytest.approx(3 * across)
    assert across + sum(max(across, 1e-3) for _ in range(3)) == pytest.approx(
        across + 3e-3 + ring_exposed_s(across, 4e-3, 4)
    )


def test_zero_1_scatters_gradients_gathers_weights_and_updates_its_shard() -> None:
    # FP32 there, BF16 back; 22 HBM bytes an updated parameter: no expert, 8 ranks of one node.
    got = optimizer_s(LINKS, HeldParameters(dense=8e9, experts=0), derive(8, ep=8))
    assert got == pytest.approx((32e9 + 16e9) * 7 / 8 / 100e9 + 1e9 * 22 / 1e12)
    small = optimizer_s(
        LINKS, HeldParameters(dense=8e9, experts=0), derive(8, ep=8), Optimizer(gradients="bf16")
    )
    assert small == pytest.approx(2 * 16e9 * 7 / 8 / 100e9 + 1e9 * 20 / 1e12)


def test_copies_of_a_stage_add_up_their_shards_over_the_pipeline() -> None:
    """Half of each GPU's shard goes to its other copy and half of the sums comes back, in FP32 over the NIC."""
    layout, held = derive(64, pp=8, ep=8), HeldParameters(dense=8e9, experts=3e9)
    one, two = (optimizer_s(LINKS, held, layout, copies=copies) for copies in (1, 2))
    assert two - one == pytest.approx(4 * (8e9 / 8 + 3e9) / 10e9)
    for phase in copy_phases(layout, 8):
        assert phase.following[phase.following].tolist() == list(range(64))  # two of them, each other's
        stage = np.arange(64) // 8
        assert (stage[phase.following] == 7 - stage).all()
        assert phase.name == f"{phase.what} copies between nodes"
        assert phase.fraction == pytest.approx({"dense": 1 / 8, "experts": 1.0}[phase.what])


def test_the_optimizer_of_deepseek_v3_takes_a_fraction_of_a_second() -> None:
    # 1.86 G parameters over DP128 and 1.41 G of experts over two: ISCA'25 Table 4 shows 0.29 s, not overlapped.
    links = Links.achieved(load_hardware("h800"), load_kernel("nccl"))
    got = optimizer_s(links, HeldParameters(dense=1.86e9, experts=1.41e9), derive(2048, pp=16, ep=64))
    assert 0.05 < got < 0.4


def round_from(rank: int, after: Sequence[int]) -> list[int]:
    """Ranks that what a rank sends passes by on its way back to it: a ring is one round."""
    way = [rank]
    while (following := int(after[way[-1]])) != rank:
        way.append(following)
    return way


@given(num=st.integers(1, 40), near=st.integers(1, 16))
def test_rings_inside_nodes_and_between_them_leave_nobody_out_where_the_last_node_is_part_full(
    num: int, near: int
) -> None:
    place = np.arange(num)
    for inside in (True, False):
        after = reductions._next(num, near, inside)
        assert sorted(after) == place.tolist()
        kept = (place // near, after // near) if inside else (place % near, after % near)
        assert (kept[0] == kept[1]).all()


@given(
    st.sampled_from(
        [(16, 1, 8, 1), (16, 2, 8, 2), (64, 4, 16, 2), (64, 1, 16, 4), (32, 2, 4, 1), (48, 2, 8, 1)]
    ),
    st.sampled_from((4, 8)),
)
def test_the_phases_of_a_reduction_send_what_its_closed_form_says(
    shape: tuple[int, int, int, int], gpus_per_node: int
) -> None:
    """A rank sends to one rank of its own reduction, and gets from one; its bytes over its links are the closed form."""
    num, pp, ep, tp = shape
    layout, links = derive(num, pp=pp, ep=ep, tp=tp), replace(LINKS, gpus_per_node=gpus_per_node)
    ranks = np.arange(num)
    taken = {"dense": 0.0, "experts": 0.0}
    for phase in phases(layout, gpus_per_node):
        after = phase.following
        assert sorted(after) == ranks.tolist()
        groups = layout.groups(*(("dp", "cp") if phase.what == "dense" else ("expert_dp",)))
        assert all(set(after[group]) == set(group) for group in groups)
        assert len(round_from(0, after)) == (phase.near if phase.inside else phase.num // phase.near)
        same_node = after // gpus_per_node == ranks // gpus_per_node
        assert same_node.all() if phase.inside else not same_node.any()
        rate = links.scale_up_bytes_per_s if phase.inside else links.nic_bytes_per_s
        taken[phase.what] += phase.fraction * 1e9 / rate
    assert taken["dense"] == pytest.approx(scatter_s(links, 1e9, layout.dp, layout.near(gpus_per_node, "dp")))
    near = layout.near(gpus_per_node, "expert_dp")
    assert taken["experts"] == pytest.approx(scatter_s(links, 1e9, layout.expert_dp, near))


def test_a_part_without_nic_reduces_over_scale_up() -> None:
    links = Links.achieved(load_hardware("h100"), load_kernel("nccl"))
    assert links.scale_up_bytes_per_s > links.nic_bytes_per_s > 0
