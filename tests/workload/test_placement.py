"""Placements against EPLB's published example and the invariants of any placement."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import InputError
from sim.workload.gating import Gate, draw
from sim.workload.placement import contiguous, copied, eplb, per_microbatch, place

# github.com/deepseek-ai/EPLB, README, "Interface and Example"
PUBLISHED = [
    (
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    ),
    (
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
        [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ),
]


@pytest.mark.parametrize(("loads", "expected"), PUBLISHED)
def test_eplb_gives_the_published_placement(loads: list[int], expected: list[int]) -> None:
    placement = eplb(loads, num_physical=16, num_groups=4, num_nodes=2, num_ranks=8)
    assert placement.physical_to_logical.tolist() == expected
    assert placement.num_replicas.sum() == 16


def test_contiguous_experts_stand_in_their_order() -> None:
    placement = contiguous(256, 64)
    assert placement.physical_to_logical.tolist() == list(range(256))
    assert placement.experts_per_rank == 4
    assert not placement.has_replicas
    assert placement.rank_of(np.array([0, 3, 4, 255])).tolist() == [0, 0, 1, 63]


def test_replicas_list_every_copy_of_an_expert() -> None:
    placement = place([2, 0, 1, 2, 0, 2], num_ranks=3)
    assert placement.num_replicas.tolist() == [2, 1, 3]
    assert placement.replicas.tolist() == [[1, 4, -1], [2, -1, -1], [0, 3, 5]]


def test_experts_that_do_not_divide_are_refused_with_a_way_out() -> None:
    with pytest.raises(InputError, match=r"256 experts on 144 ranks.*32 redundant experts"):
        contiguous(256, 144)
    with pytest.raises(InputError, match="290 experts on 144 ranks"):
        eplb(np.ones(256), 290, 8, 18, 144)


def test_a_missing_or_unknown_expert_is_refused() -> None:
    with pytest.raises(InputError, match="no copy of expert 1"):
        place([0, 0, 2, 2], num_ranks=2)
    with pytest.raises(InputError, match="one for each"):
        place([0, 1], num_ranks=2, num_experts=4)
    with pytest.raises(InputError, match="ids -1"):
        place([0, 1, -1, 2], num_ranks=2)


def test_placements_are_equal_by_content() -> None:
    assert contiguous(8, 4) == place(range(8), 4)
    assert hash(contiguous(8, 4)) == hash(place(range(8), 4))
    assert contiguous(8, 4) != contiguous(8, 2)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.sampled_from([(16, 24, 4, 2, 8), (16, 16, 4, 3, 4), (32, 48, 8, 4, 16), (12, 18, 1, 1, 6)]),
    seed=st.integers(0, 2**16),
)
def test_eplb_gives_more_copies_to_heavier_experts_and_keeps_them_all(
    shape: tuple[int, int, int, int, int], seed: int
) -> None:
    num_experts, num_physical, num_groups, num_nodes, num_ranks = shape
    loads = np.random.default_rng(seed).integers(0, 1000, num_experts)
    placement = eplb(loads, num_physical, num_groups, num_nodes, num_ranks)
    assert placement.num_replicas.min() >= 1
    assert placement.num_replicas.sum() == num_physical
    if num_groups % num_nodes:  # global: one pool of experts
        order = np.argsort(loads, kind="stable")
        assert np.all(np.diff(placement.num_replicas[order]) >= 0)
    else:  # hierarchical: a group stands on one node only
        group = placement.physical_to_logical.reshape(num_nodes, -1) // (num_experts // num_groups)
        for g in range(num_groups):
            assert np.sum(np.any(group == g, axis=1)) == 1


@pytest.mark.parametrize(
    ("num_ranks", "exponent", "max_over_mean"),
    [(32, 0.3, 1.00), (144, 0.0, 1.10), (144, 0.3, 1.12), (144, 0.6, 1.31), (144, 1.0, 1.88)],
)
def test_eplb_with_288_replicas_evens_the_load_of_the_busiest_rank(
    num_ranks: int, exponent: float, max_over_mean: float
) -> None:
    """Global balancing of 256 experts under p ~ rank**-exponent; independent figures, 20,000 tokens each."""
    ratios = []
    for seed in range(3):
        ids = draw(Gate("zipf", exponent=exponent), 20_000, 256, 8, np.random.default_rng(seed))
        loads = np.bincount(ids.ravel(), minlength=256)
        placement = eplb(loads, 288, 1, 1, num_ranks)
        per_copy = loads / placement.num_replicas
        rank_load = per_copy[placement.physical_to_logical].reshape(num_ranks, -1).sum(axis=1)
        ratios.append(rank_load.max() / rank_load.mean())
    assert np.mean(ratios) == pytest.approx(max_over_mean, rel=0.015)


# --- placed anew for every microbatch --------------------------------------------------------------------------------


def test_the_lightest_rank_of_a_node_takes_the_busiest_expert_of_the_busiest_rank() -> None:
    """Two nodes of two ranks, two experts each, one place more: 6 of 8 tokens of node 0 are for expert 1, all of node 1 even."""
    loads = [1, 6, 1, 0, 2, 2, 2, 2]
    placed = per_microbatch(loads, num_ranks=4, ranks_per_node=2, redundant=4)
    held = placed.physical_to_logical.reshape(4, 3)
    assert held[:, :2].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]  # nobody moves from home
    assert held[1, 2] == 1  # 3 of its tokens go there
    assert held[0, 2] == 0  # 4 against 4: any other copy would make one of them busier
    assert set(held[2:, 2]) <= {4, 5, 6, 7}  # never over the NIC
    moves = copied(placed).tolist()
    assert [0, 1] in moves
    assert [1, 0] not in moves
    assert all(source // 2 == target // 2 and source != target for source, target in moves)


@given(st.integers(1, 3), st.integers(0, 3), st.integers(0, 1000))
def test_copies_of_a_microbatch_stay_in_their_node_and_never_make_the_busiest_rank_busier(
    each: int, spare: int, seed: int
) -> None:
    loads = np.random.default_rng(seed).lognormal(0, 1, 8 * each)
    placed = per_microbatch(loads, 8, 4, 8 * spare)
    held = placed.physical_to_logical.reshape(8, each + spare)
    assert held[:, :each].ravel().tolist() == list(range(8 * each))
    assert (held // (4 * each) == np.arange(8)[:, None] // 4).all()
    by_rank = (loads / placed.num_replicas)[held].sum(axis=1)
    assert by_rank.sum() == pytest.approx(loads.sum())
    home = loads.reshape(8, each).sum(axis=1)
    if spare:
        assert by_rank.max() <= home.max() * (1 + 1e-6)
