"""Gates against the plain rules they stand for, derived expectations, and what any gate must keep."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import InputError
from sim.workload.gating import Gate, check, complete, draw, group_counts, popularity
from sim.workload.recorded_loads import load_loads
from sim.workload.recordings import load_trace
from sim.workload.scores import best_groups, kept_groups

V3_GATE = Gate("group_limited", num_groups=8, top_groups=4)


def distinct(values: np.ndarray) -> np.ndarray:
    """Number of distinct values in each row."""
    return 1 + (np.diff(np.sort(values, axis=1), axis=1) != 0).sum(axis=1)


def plain_group_limited(
    scores: np.ndarray, num_groups: int, top_groups: int, top_k: int, use_max: bool
) -> np.ndarray:
    """The rule written down: rank groups by their best scores, mask the rest, take the top-k."""
    num_tokens, num_experts = scores.shape
    grouped = scores.reshape(num_tokens, num_groups, -1)
    best = np.sort(grouped, axis=2)
    ranking = best[:, :, -1] if use_max else best[:, :, -2:].sum(axis=2)
    keep = np.argsort(-ranking, axis=1)[:, :top_groups]
    mask = np.zeros((num_tokens, num_groups), dtype=bool)
    np.put_along_axis(mask, keep, True, axis=1)
    masked = np.where(mask[:, :, None], grouped, -np.inf).reshape(num_tokens, num_experts)
    return np.argsort(-masked, axis=1)[:, :top_k]


def splits(ids: np.ndarray, group_size: int, num_groups: int) -> Counter[tuple[int, ...]]:
    """How often tokens split among groups in each way."""
    group = ids // group_size + np.arange(len(ids))[:, None] * num_groups
    counts = np.bincount(group.ravel(), minlength=len(ids) * num_groups).reshape(-1, num_groups)
    return Counter(map(tuple, np.sort(counts, axis=1).tolist()))


def assert_same_law(a: Counter, b: Counter, num: int) -> None:
    """Two samples of equal size: no outcome's frequency differs by more than 4.5 standard errors."""
    for outcome in a.keys() | b.keys():
        error = math.sqrt(a[outcome] + b[outcome] + 1)
        assert abs(a[outcome] - b[outcome]) < 4.5 * error, (outcome, a[outcome], b[outcome], num)


@pytest.mark.parametrize(
    ("num_experts", "num_groups", "top_groups", "top_k", "score"),
    [(256, 8, 4, 8, "top2_sum"), (160, 8, 3, 6, "max"), (32, 8, 3, 8, "top2_sum"), (16, 8, 4, 3, "top2_sum")],
)
def test_group_limited_draws_follow_the_plain_rule(
    num_experts: int, num_groups: int, top_groups: int, top_k: int, score: str
) -> None:
    num = 20_000
    logits = np.random.default_rng(1).standard_normal((num, num_experts))
    plain = plain_group_limited(1 / (1 + np.exp(-logits)), num_groups, top_groups, top_k, score == "max")
    gate = Gate("group_limited", num_groups, top_groups, score)
    ours = draw(gate, num, num_experts, top_k, np.random.default_rng(2))
    size = num_experts // num_groups
    assert_same_law(splits(plain, size, num_groups), splits(ours, size, num_groups), num)
    load = np.bincount(ours.ravel(), minlength=num_experts)
    assert np.abs(load - num * top_k / num_experts).max() < 5 * math.sqrt(num * top_k / num_experts)


def test_deepep_benchmark_draws_follow_its_plain_rule() -> None:
    """DeepEP tests: scores |N| + 1, a group per node, ranked by the maximum."""
    num = 20_000
    scores = np.abs(np.random.default_rng(3).standard_normal((num, 256))) + 1
    plain = plain_group_limited(scores, 8, 4, 8, use_max=True)
    ours = draw(complete(Gate("deepep_benchmark"), num_nodes=8), num, 256, 8, np.random.default_rng(4))
    assert_same_law(splits(plain, 32, 8), splits(ours, 32, 8), num)


def test_popularity_draws_follow_the_law_of_successive_choice() -> None:
    """Chance of each set of 3 of 6: the sum over orders of p1 p2/(1-p1) p3/(1-p1-p2)."""
    p = np.array([0.4, 0.3, 0.15, 0.1, 0.04, 0.01])
    num = 60_000
    ids = draw(Gate("loads", loads=tuple(p)), num, 6, 3, np.random.default_rng(5))
    found = Counter(map(tuple, np.sort(ids, axis=1).tolist()))
    for chosen in itertools.combinations(range(6), 3):
        chance = 0.0
        for order in itertools.permutations(chosen):
            left, term = 1.0, 1.0
            for expert in order:
                term *= p[expert] / left
                left -= p[expert]
            chance += term
        assert abs(found[chosen] - num * chance) < 4.5 * math.sqrt(num * chance + 1)


def test_popularity_with_a_group_limit_follows_the_plain_rule() -> None:
    num = 20_000
    gate = Gate("zipf", num_groups=4, top_groups=2, exponent=0.7)
    p = popularity(gate, 32, np.random.default_rng(6))
    assert p is not None
    gumbel = np.random.default_rng(7).gumbel(size=(num, 32))
    plain = plain_group_limited(1 / (1 + np.exp(-(np.log(32 * p) + gumbel))), 4, 2, 4, use_max=False)
    ours = draw(gate, num, 32, 4, np.random.default_rng(8), p)
    assert_same_law(splits(plain, 8, 4), splits(ours, 8, 4), num)
    a, b = (np.bincount(ids.ravel(), minlength=32) for ids in (plain, ours))
    assert np.all(np.abs(a - b) < 4.5 * np.sqrt(a + b + 1.0))


def test_an_expert_that_nobody_wants_is_taken_only_when_the_others_are_gone() -> None:
    loads = (1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
    assert draw(Gate("loads", loads=loads), 500, 6, 3, np.random.default_rng(0)).max() == 2
    four = draw(Gate("loads", loads=loads), 500, 6, 4, np.random.default_rng(0))
    assert np.all(np.sort(four, axis=1)[:, :3] == [0, 1, 2])


@pytest.mark.parametrize(
    ("top_groups", "nodes", "ranks"), [(1, 1.0, 5.64), (2, 2.0, 6.82), (4, 3.965, 7.487)]
)
def test_copies_per_token_under_the_v3_gate_on_8_nodes(top_groups: int, nodes: float, ranks: float) -> None:
    """Independent Monte-Carlo figures for 256 experts, top-8, 64 ranks."""
    ids = draw(Gate("group_limited", 8, top_groups), 30_000, 256, 8, np.random.default_rng(0))
    assert distinct(ids // 32).mean() == pytest.approx(nodes, abs=0.006)
    assert distinct(ids // 4).mean() == pytest.approx(ranks, abs=0.02)


def test_four_nodes_are_reached_by_96_6_percent_of_v3_tokens() -> None:
    ids = draw(V3_GATE, 50_000, 256, 8, np.random.default_rng(0))
    assert (distinct(ids // 32) == 4).mean() == pytest.approx(0.966, abs=0.003)


@pytest.mark.parametrize(
    ("exponent", "expected", "spread"),
    [
        (0.0, (1.05, 1.08, 1.12), (0.01, 0.01, 0.01)),
        (0.3, (1.73, 2.29, 3.61), (0.16, 0.16, 0.07)),
        (0.6, (3.5, 5.7, 10.6), (0.5, 0.3, 0.1)),
        (1.0, (7.2, 13.0, 25.2), (1.1, 0.5, 0.1)),
    ],
)
def test_busiest_rank_under_zipf_popularity(
    exponent: float, expected: tuple[float, ...], spread: tuple[float, ...]
) -> None:
    """max/mean rank load at EP64, 128, 256 (256 experts, top-8, 20,000 tokens), mean over placements."""
    num = 12
    ratios = np.empty((num, 3))
    for seed in range(num):
        ids = draw(Gate("zipf", exponent=exponent), 20_000, 256, 8, np.random.default_rng(seed))
        load = np.bincount(ids.ravel(), minlength=256)
        for column, ep in enumerate((64, 128, 256)):
            rank_load = load.reshape(ep, -1).sum(axis=1)
            ratios[seed, column] = rank_load.max() / rank_load.mean()
    tolerance = 3 * np.array(spread) / math.sqrt(num) + np.array(expected) * 0.012
    assert np.all(np.abs(ratios.mean(axis=0) - expected) < tolerance), ratios.mean(axis=0)


@pytest.mark.parametrize(
    ("num_experts", "top_k", "gate", "num_tokens"),
    [
        (256, 8, Gate("balanced"), 4096),
        (256, 8, Gate("balanced", 8, 4), 4096),
        (256, 8, Gate("balanced", 8, 3), 192),
        (160, 6, Gate("balanced"), 160),
        (160, 6, Gate("balanced", 8, 3), 160),
        (12, 5, Gate("balanced"), 60),
        (128, 1, Gate("balanced"), 128),
    ],
)
def test_balanced_uses_every_expert_equally_often(
    num_experts: int, top_k: int, gate: Gate, num_tokens: int
) -> None:
    ids = draw(gate, num_tokens, num_experts, top_k, np.random.default_rng(0))
    load = np.bincount(ids.ravel(), minlength=num_experts)
    assert np.all(load == num_tokens * top_k // num_experts)
    assert np.all(distinct(ids) == top_k)
    if gate.top_groups is not None:
        assert distinct(ids // (num_experts // 8)).max() <= gate.top_groups


def test_balanced_within_one_where_it_cannot_be_exact() -> None:
    load = np.bincount(draw(Gate("balanced"), 1000, 256, 6, np.random.default_rng(0)).ravel(), minlength=256)
    assert load.max() - load.min() <= 1


GATES = st.sampled_from(
    [
        Gate("uniform"),
        Gate("balanced"),
        Gate("balanced", 4, 3),
        Gate("group_limited", 4, 2),
        Gate("group_limited", 4, 2, "max"),
        Gate("group_limited", 8, 8),
        Gate("deepep_benchmark", 2, 1, "max"),
        Gate("zipf", exponent=1.5),
        Gate("zipf", 4, 2, exponent=1.0),
        Gate("dirichlet", alpha=0.02),
        Gate("loads", loads=tuple(range(16))),
    ]
)


@settings(max_examples=60, deadline=None)
@given(gate=GATES, top_k=st.integers(1, 8), num_tokens=st.integers(1, 300), seed=st.integers(0, 2**20))
def test_every_gate_gives_distinct_experts_within_its_groups_and_repeats_itself(
    gate: Gate, top_k: int, num_tokens: int, seed: int
) -> None:
    ids = draw(gate, num_tokens, 16, top_k, np.random.default_rng(seed))
    assert ids.shape == (num_tokens, top_k)
    assert ids.dtype == np.int32
    assert ids.min() >= 0
    assert ids.max() < 16
    assert np.all(distinct(ids) == top_k)
    if gate.limits_groups:
        assert gate.num_groups is not None
        assert gate.top_groups is not None
        assert distinct(ids // (16 // gate.num_groups)).max() <= gate.top_groups
    assert np.array_equal(ids, draw(gate, num_tokens, 16, top_k, np.random.default_rng(seed)))


def test_draws_longer_than_a_chunk_hold_together() -> None:
    counts = group_counts(V3_GATE, 40_000, 256, 8, np.random.default_rng(0))
    assert np.all(counts.sum(axis=1) == 8)
    for gate in (V3_GATE, Gate("zipf", exponent=1.0), Gate("balanced", 8, 3)):
        assert np.all(distinct(draw(gate, 40_000, 256, 8, np.random.default_rng(0))) == 8)


def test_popularity_is_a_distribution_and_zipf_falls_by_rank() -> None:
    rng = np.random.default_rng(0)
    p = popularity(Gate("zipf", exponent=1.0), 64, rng)
    assert p is not None
    assert p.sum() == pytest.approx(1.0)
    assert np.sort(p)[::-1] / p.max() == pytest.approx(1 / np.arange(1, 65))
    assert popularity(Gate("uniform"), 64, rng) is None
    even = popularity(Gate("dirichlet", alpha=1e6), 64, rng)
    assert even == pytest.approx(np.full(64, 1 / 64), rel=0.01)


def test_lognormal_popularity_has_its_spread_and_drift_keeps_the_part_of_the_variance_that_is_left() -> None:
    """log p is normal with deviation s; its correlation with what was planned is sqrt(1 - d)."""
    num = 20_000
    for drift in (0.0, 0.36, 1.0):
        gate = Gate("lognormal", spread=0.8, drift=drift)
        planned, used = (
            popularity(gate, num, np.random.default_rng(4), planned=planned) for planned in (True, False)
        )
        assert planned is not None
        assert used is not None
        assert used.sum() == pytest.approx(1)
        assert np.log(planned).std() == pytest.approx(0.8, rel=0.02)
        assert np.log(used).std() == pytest.approx(0.8, rel=0.02)
        kept = np.corrcoef(np.log(planned), np.log(used))[0, 1]
        assert kept == pytest.approx(np.sqrt(1 - drift), abs=0.02)
    assert popularity(Gate("lognormal"), 4, np.random.default_rng(0)) == pytest.approx([0.25] * 4)


def test_a_trace_is_replayed_in_order_and_goes_round() -> None:
    rows = np.array([[0, 1], [2, 3], [4, 5]], dtype=np.int32)
    ids = draw(Gate("trace", trace=rows), 5, 6, 2, np.random.default_rng(0))
    assert ids.tolist() == [[0, 1], [2, 3], [4, 5], [0, 1], [2, 3]]


def test_trace_and_loads_are_read_from_csv_and_npz(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("token,e0,e1\n0,5,1\n1,2,0\n")
    assert load_trace(tmp_path / "t.csv").tolist() == [[5, 1], [2, 0]]
    np.savez(tmp_path / "t.npz", ids=np.array([[5, 1], [2, 0]]))
    assert load_trace(tmp_path / "t.npz").tolist() == [[5, 1], [2, 0]]
    (tmp_path / "l.csv").write_text("expert,load\n1,30\n0,10\n2,20.5\n")
    assert load_loads(tmp_path / "l.csv") == ((10.0, 30.0, 20.5),)
    (tmp_path / "row.csv").write_text("10,30,1e2\n")
    assert load_loads(tmp_path / "row.csv") == ((10.0, 30.0, 100.0),)
    with pytest.raises(InputError, match="no such file"):
        load_loads(tmp_path / "none.csv")
    (tmp_path / "bad.csv").write_text("1,2\n3,x\n")
    with pytest.raises(InputError, match=r"bad\.csv"):
        load_trace(tmp_path / "bad.csv")


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (Gate("unifrom"), "did you mean uniform"),
        (Gate("group_limited"), "which a group_limited gate needs"),
        (Gate("group_limited", 7, 2), "a divisor of the number of experts, 256"),
        (Gate("group_limited", 64, 1), "groups with 8 experts or more, not 4"),
        (Gate("uniform", 8, 4), "no group limit"),
        (Gate("zipf", exponent=-1.0), "exponent"),
        (Gate("dirichlet", alpha=0.0), "alpha"),
        (Gate("lognormal", spread=-0.1), "spread"),
        (Gate("lognormal", spread=1.0, drift=1.1), "drift: got 1.1; wanted 0 to 1"),
        (Gate("uniform", capacity_factor=0.0), "capacity_factor"),
        (Gate("loads", loads=(1.0, 2.0)), "256 numbers"),
        (Gate("trace", trace=np.zeros((3, 8), dtype=np.int32)), "distinct experts"),
    ],
)
def test_impossible_gates_say_what_would_be_possible(gate: Gate, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(gate, 256, 8)


def test_a_gate_takes_what_it_leaves_open_from_model_and_cluster() -> None:
    benchmark = complete(Gate("deepep_benchmark"), num_nodes=2)
    assert (benchmark.num_groups, benchmark.top_groups, benchmark.group_score) == (2, 2, "max")
    limited = complete(Gate("group_limited"), num_nodes=4, model_num_groups=8, model_top_groups=4)
    assert (limited.num_groups, limited.top_groups) == (8, 4)
    narrower = complete(
        Gate("group_limited", top_groups=2), num_nodes=4, model_num_groups=8, model_top_groups=4
    )
    assert (narrower.num_groups, narrower.top_groups) == (8, 2)
    assert not complete(Gate("zipf", exponent=1.0), num_nodes=4, model_num_groups=8).limits_groups
    for groups, completed in ((None, 8), (4, 4)):
        popular = Gate("zipf", exponent=1.0, num_groups=groups, top_groups=2)
        assert complete(popular, num_nodes=4, model_num_groups=8).num_groups == completed


@pytest.mark.parametrize(("num_groups", "num"), [(8, 4), (8, 1), (8, 8), (64, 8)])
def test_of_groups_with_equal_scores_the_first_are_kept(num_groups: int, num: int) -> None:
    """As a stable sort of all scores has it."""
    score = np.random.default_rng(1).integers(0, 6, (num_groups, 500)).astype(np.float32)
    order = np.argsort(-score, axis=0, kind="stable")[:num]
    assert (best_groups(score, num) == np.sort(order, axis=0).T).all()


@pytest.mark.parametrize("top_groups", [3, 4])
def test_of_equal_scores_as_many_experts_are_taken_as_a_token_has(top_groups: int) -> None:
    """Draws that are all alike make every expert's score that of its place in its group, so that groups tie at the last taken."""

    class Alike:
        def standard_exponential(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
            return np.ones(shape, dtype)

    rng: Any = Alike()
    _, counts = kept_groups(Gate("group_limited", num_groups=8, top_groups=top_groups), 5, 32, 8, rng)
    assert (counts.sum(axis=1) == 8).all()
