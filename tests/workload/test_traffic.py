"""Traffic: conservation, expectations against theory and draws, symmetry, and the bytes of a record."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import InputError
from sim.workload import expectation
from sim.workload.capacity import drop_above
from sim.workload.gating import Gate, complete
from sim.workload.placement import Placement, contiguous, eplb, place
from sim.workload.traffic import Routing, count, payload_bytes, route

V3_GATE = Gate("group_limited", num_groups=8, top_groups=4)


def routing(gate: Gate, placement: Placement, seed: int = 0, **changes: object) -> Routing:
    arguments: dict[str, object] = {"top_k": 8, "tokens_per_rank": 256, "ranks_per_node": 8, **changes}
    return route(gate, placement, rng=np.random.default_rng(seed), **arguments)  # type: ignore[arg-type]


def distinct_parts(num_parts: int, num_experts: int, top_k: int) -> float:
    """Expected distinct parts of G equal ones that a uniformly random k-subset touches."""
    rest = num_experts - num_experts // num_parts
    return num_parts * (1 - math.comb(rest, top_k) / math.comb(num_experts, top_k))


@pytest.mark.parametrize("sampling", ["tokens", "expected"])
@pytest.mark.parametrize("num_ranks", [8, 16, 64])
def test_uniform_copies_are_hypergeometric(sampling: str, num_ranks: int) -> None:
    found = routing(Gate("uniform"), contiguous(256, num_ranks), sampling=sampling, tokens_per_rank=1024)
    relative = 1e-12 if sampling == "expected" else 0.01
    assert found.nodes_per_token == pytest.approx(distinct_parts(num_ranks // 8, 256, 8), rel=relative)
    assert found.ranks_per_token == pytest.approx(distinct_parts(num_ranks, 256, 8), rel=relative)


@pytest.mark.parametrize(
    ("num_ranks", "nodes", "ranks"),
    [(8, 1.0, 3.965), (16, 1.968, 5.726), (32, 3.127, 6.846), (64, 3.965, 7.487), (128, 5.726, 7.826)],
)
def test_expected_copies_under_the_v3_gate(num_ranks: int, nodes: float, ranks: float) -> None:
    """Independent Monte-Carlo figures; at EP128 a group straddles two nodes."""
    found = routing(V3_GATE, contiguous(256, num_ranks), sampling="expected")
    assert found.nodes_per_token == pytest.approx(nodes, abs=0.006)
    assert found.ranks_per_token == pytest.approx(ranks, abs=0.01)


@pytest.mark.parametrize(
    ("num_nodes", "nodes", "ranks"),
    [(2, 1.993, 6.520), (4, 3.614, 7.264), (8, 3.983, 7.471), (16, 4.000, 7.639)],
)
def test_expected_copies_in_the_deepep_benchmark(num_nodes: int, nodes: float, ranks: float) -> None:
    gate = complete(Gate("deepep_benchmark"), num_nodes=num_nodes)
    found = routing(gate, contiguous(256, 8 * num_nodes), sampling="expected")
    assert found.nodes_per_token == pytest.approx(nodes, abs=0.003)
    assert found.ranks_per_token == pytest.approx(ranks, abs=0.005)


@pytest.mark.parametrize(
    ("top_groups", "nodes", "ranks"), [(3, 2.999, 7.26), (5, 4.719, 7.60), (6, 5.114, 7.65)]
)
def test_expected_copies_by_group_limit(top_groups: int, nodes: float, ranks: float) -> None:
    found = routing(Gate("group_limited", 8, top_groups), contiguous(256, 64), sampling="expected")
    assert found.nodes_per_token == pytest.approx(nodes, abs=0.01)
    assert found.ranks_per_token == pytest.approx(ranks, abs=0.01)


def test_no_group_excluded_is_the_uniform_gate() -> None:
    open_gate = routing(Gate("group_limited", 8, 8), contiguous(256, 64), sampling="expected")
    assert open_gate.nodes_per_token == pytest.approx(distinct_parts(8, 256, 8), rel=1e-12)


def test_equal_ranks_expect_equal_traffic_to_the_last_digit() -> None:
    found = routing(V3_GATE, contiguous(256, 64), sampling="expected")
    for counts in (found.tokens_to_node, found.tokens_to_rank, found.selections_to_rank):
        assert np.unique(counts).size == 1


@pytest.mark.parametrize(
    "gate",
    [
        V3_GATE,
        Gate("balanced", 8, 4),
        Gate("balanced", 8, 3),
        Gate("uniform"),
        Gate("zipf", exponent=1.0),
        Gate("dirichlet", alpha=0.3),
        Gate("zipf", 8, 4, exponent=0.5),
    ],
    ids=lambda gate: f"{gate.kind}-{gate.top_groups}",
)
@pytest.mark.parametrize("redundant", [0, 32])
def test_expected_traffic_is_the_mean_of_drawn_traffic(gate: Gate, redundant: int) -> None:
    """Within 5 standard errors of the draw, for every destination."""
    placement = contiguous(256, 32)
    if redundant:
        placement = eplb(np.arange(256.0) ** 2, 256 + redundant, 8, 4, 32)
    drawn = routing(gate, placement, sampling="tokens", tokens_per_rank=1024)
    mean = routing(gate, placement, sampling="expected", tokens_per_rank=1024)
    for name in ("tokens_to_node", "tokens_to_rank", "selections_to_rank"):
        a, b = getattr(drawn, name).sum(axis=0), getattr(mean, name).sum(axis=0)
        # The mean itself comes from a sample of 131,072 tokens where no closed form exists.
        spread = np.sqrt(b * (1 + 32 * 1024 / expectation.SAMPLE_TOKENS))
        assert np.all(np.abs(a - b) < 5 * spread + 1), name
    assert mean.selections_to_physical.sum() == pytest.approx(32 * 1024 * 8)


def test_race_integral_agrees_with_counting_when_all_are_equally_popular() -> None:
    parts = np.arange(256) // 32
    reach = expectation.reach_by_race(np.full(256, 1 / 256), parts, 8, 8)
    assert reach == pytest.approx(np.full(8, distinct_parts(8, 256, 8) / 8), rel=1e-8)
    single = expectation.reach_by_race(np.full(256, 1 / 256), np.arange(256), 256, 8)
    assert single.sum() == pytest.approx(8.0, rel=1e-8)


def test_race_integral_finds_the_chances_of_two_of_three() -> None:
    """Expert i is left out when the other two come first, in either order."""
    p = np.array([0.7, 0.2, 0.1])
    found = expectation.reach_by_race(p, np.arange(3), 3, 2)
    for left_out in range(3):
        a, b = np.delete(p, left_out)
        assert 1 - found[left_out] == pytest.approx(a * b / (1 - a) + b * a / (1 - b), rel=1e-8)


SCENES = st.sampled_from(
    [
        (Gate("uniform"), contiguous(16, 8)),
        (Gate("group_limited", 4, 2), contiguous(16, 8)),
        (Gate("balanced", 4, 2), contiguous(16, 4)),
        (Gate("zipf", exponent=1.2), contiguous(16, 16)),
        (Gate("zipf", 4, 2, exponent=1.0), place([*range(16), 0, 5, 0, 0], 5)),
        (Gate("uniform"), place([*range(16), 15, 3, 15, 15, 3, 7, 7, 0], 8)),
        (Gate("loads", loads=tuple(range(16))), contiguous(16, 8)),
    ]
)


@settings(max_examples=40, deadline=None)
@given(
    scene=SCENES,
    top_k=st.integers(1, 6),
    tokens=st.integers(1, 80),
    per_node=st.integers(1, 5),
    offset=st.integers(0, 7),
    sampling=st.sampled_from(["tokens", "tokens", "expected"]),
    seed=st.integers(0, 2**20),
)
def test_what_is_selected_arrives(
    scene: tuple[Gate, Placement],
    top_k: int,
    tokens: int,
    per_node: int,
    offset: int,
    sampling: str,
    seed: int,
) -> None:
    gate, placement = scene
    if sampling == "expected":  # a fresh popularity would cost a fresh sample in every example
        gate = Gate("uniform")
    found = routing(
        gate,
        placement,
        seed,
        top_k=top_k,
        tokens_per_rank=tokens,
        ranks_per_node=per_node,
        node_offset=offset,
        sampling=sampling,
    )
    ranks = placement.num_ranks
    assert found.tokens_to_rank.shape == found.selections_to_rank.shape == (ranks, ranks)
    assert found.tokens_to_node.shape == (ranks, found.node_of_rank[-1] + 1)
    assert found.node_of_rank[0] == 0
    assert found.selections_to_rank.sum(axis=1) == pytest.approx(np.full(ranks, tokens * top_k))
    by_rank = found.selections_to_physical.reshape(ranks, -1).sum(axis=1)
    assert found.selections_to_rank.sum(axis=0) == pytest.approx(by_rank)
    assert np.all(found.tokens_to_rank <= found.selections_to_rank * (1 + 1e-12) + 1e-9)
    rank_sum = np.stack(
        [found.tokens_to_rank[:, found.node_of_rank == node].sum(axis=1) for node in range(found.num_nodes)],
        axis=1,
    )
    rank_max = np.stack(
        [found.tokens_to_rank[:, found.node_of_rank == node].max(axis=1) for node in range(found.num_nodes)],
        axis=1,
    )
    assert np.all(found.tokens_to_node <= rank_sum * (1 + 1e-12) + 1e-9)
    assert np.all(found.tokens_to_node >= rank_max * (1 - 1e-12) - 1e-9)
    assert np.all(found.tokens_to_node <= tokens * (1 + 1e-12))


def test_replicas_take_turns_by_token_and_source() -> None:
    trace = np.zeros((12, 1), dtype=np.int32)
    found = routing(Gate("trace", trace=trace), place([0, 1, 0, 0], 4), top_k=1, tokens_per_rank=6)
    assert found.selections_to_physical.tolist() == [8, 0, 8, 8]
    first_token = routing(Gate("trace", trace=trace), place([0, 1, 0, 0], 4), top_k=1, tokens_per_rank=1)
    assert first_token.selections_to_rank.argmax(axis=1).tolist() == [0, 2, 3, 0]


def test_moving_experts_moves_their_traffic_and_changes_nothing_else() -> None:
    loads = tuple(np.random.default_rng(0).random(16))
    shuffle = np.random.default_rng(1).permutation(16)
    plain = routing(
        Gate("loads", loads=loads), contiguous(16, 16), top_k=3, sampling="expected", ranks_per_node=1
    )
    moved = routing(
        Gate("loads", loads=loads), place(shuffle, 16), top_k=3, sampling="expected", ranks_per_node=1
    )
    assert moved.tokens_to_rank[0] == pytest.approx(plain.tokens_to_rank[0][shuffle], rel=1e-9)
    assert moved.nodes_per_token == pytest.approx(plain.nodes_per_token, rel=1e-9)


def test_a_group_that_starts_inside_a_node_counts_nodes_from_there() -> None:
    found = routing(Gate("uniform"), contiguous(256, 16), node_offset=4)
    assert found.node_of_rank.tolist() == [0] * 4 + [1] * 8 + [2] * 4


def test_the_same_seed_gives_the_same_counts() -> None:
    a, b, c = (routing(V3_GATE, contiguous(256, 16), seed) for seed in (1, 1, 2))
    assert np.array_equal(a.tokens_to_rank, b.tokens_to_rank)
    assert not np.array_equal(a.tokens_to_rank, c.tokens_to_rank)


def test_unknown_words_are_met_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean bf16"):
        payload_bytes("bf61", 7168)
    with pytest.raises(InputError, match="did you mean expected"):
        routing(Gate("uniform"), contiguous(16, 8), sampling="expcted")


# --- capacity -------------------------------------------------------------------------------------------------------


def test_a_rank_sends_an_expert_no_more_than_its_capacity_and_the_first_tokens_stay() -> None:
    """6 tokens x 2 of 3 experts: an even gate sends each 4; expert 0 is chosen six times by rank 0, so two go."""
    ids = np.array([[0, 1]] * 3 + [[0, 2]] * 3 + [[1, 2]] * 6, dtype=np.int32)
    kept = drop_above(ids, 6, 3, factor=1.0)
    assert kept[:6, 0].tolist() == [0, 0, 0, 0, -1, -1]
    assert (kept[:6, 1] >= 0).all()
    assert kept[6:].tolist() == [[1, 2]] * 4 + [[-1, -1]] * 2  # counted rank by rank
    found = count(kept, contiguous(3, 3), 6, np.zeros(3, dtype=np.int64))
    assert found.selections_to_physical.tolist() == [4, 3 + 4, 3 + 4]
    assert found.tokens_to_node[:, 0].tolist() == [6, 4]  # two tokens go nowhere
    assert found.tokens_to_rank.tolist() == [[4, 3, 3], [0, 4, 4]]
    assert found.selections_to_rank.sum() == 24 - 2 - 4


@pytest.mark.parametrize("kind", ["uniform", "zipf", "lognormal"])
@pytest.mark.parametrize("sampling", ["tokens", "expected"])
def test_no_expert_gets_more_than_all_ranks_capacities(kind: str, sampling: str) -> None:
    """1.25 x 512 tokens x 4 / 16 experts = 160 of each of 8 ranks; without a limit the popular ones get more."""
    gate = Gate(kind, exponent=0.8, spread=1.0)

    def routed(factor: float | None) -> Routing:
        limited = replace(gate, capacity_factor=factor)
        options = {"top_k": 4, "tokens_per_rank": 512, "ranks_per_node": 4, "sampling": sampling}
        return route(limited, contiguous(16, 8), rng=np.random.default_rng(3), **options)  # type: ignore[arg-type]

    free, held = routed(None), routed(1.25)
    assert free.dropped_fraction == pytest.approx(0, abs=1e-6)
    assert held.selections_to_physical.max() <= 8 * 160 * (1 + 1e-9)
    if kind == "uniform":  # 512 x 1/4 = 128 on average, deviation 9.8: above 160 once in a thousand
        assert held.dropped_fraction < 1e-3
    else:
        assert free.selections_to_physical.max() > 1.3 * 8 * 160
        lost = 1 - np.minimum(free.selections_to_physical, 8 * 160).sum() / (8 * 512 * 4)
        assert held.dropped_fraction == pytest.approx(lost, rel=0.1)
        assert held.ranks_per_token < free.ranks_per_token


def test_without_a_limit_that_binds_nothing_changes() -> None:
    options = {"top_k": 4, "tokens_per_rank": 256, "ranks_per_node": 4}
    loose, free = (
        route(Gate("uniform", capacity_factor=f), contiguous(16, 8), rng=np.random.default_rng(1), **options)  # type: ignore[arg-type]
        for f in (4.0, None)
    )
    np.testing.assert_array_equal(loose.tokens_to_rank, free.tokens_to_rank)
    assert loose.dropped_fraction == free.dropped_fraction == 0
