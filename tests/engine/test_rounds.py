"""Rollouts that do not wait for their last samples, against rounds played by hand and laws of order statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sim.cluster.topology import Ints
from sim.engine.rollout import RolloutRecord, roll_out, tail_wait_gpu_s
from sim.engine.rounds import Rollouts, Round, all_rounds, partial_rounds, tail_rounds
from sim.workload.requests import Lengths

Play = Callable[[Ints, int, int, Rollouts], list[Round]]


def constant(lengths: Sequence[Ints], given: Sequence[Ints], until_s: float) -> list[RolloutRecord]:
    """Steps of a second, whatever the load, and places for all."""
    return [
        roll_out(own, 0, lambda load, context: 1.0, most=len(own), given=has, until_s=until_s)
        for own, has in zip(lengths, given, strict=True)
    ]


def single(*iterations: Sequence[int]) -> Ints:
    """Lengths of prompts with one sample each."""
    return np.array(iterations, dtype=np.int64)[:, :, None]


def mean_s(rounds: list[Round]) -> float:
    return float(np.mean([own.end_s for own in rounds]))


def harmonic(n: int) -> float:
    return sum(1 / i for i in range(1, n + 1))


# --- a rollout that is stopped -------------------------------------------------------------------------------------------


def test_a_rollout_that_is_stopped_keeps_what_its_samples_have() -> None:
    """Steps of 2 s with two samples: the shorter ends at 200 s; after 50 more of 1 s the longer has 150."""
    record = roll_out(np.array([100, 300]), 0, lambda load, context: load, most=2, until_s=250)
    assert record.end_s.tolist() == [200.0, 250.0]
    assert record.tokens.tolist() == [100, 150]
    assert record.busy_requests_s == 2 * 200 + 50


def test_a_step_costs_what_the_requests_of_its_mean_gpu_do() -> None:
    """Two samples on two GPUs: 100 steps of 1 s for one each, then 200 of half a second for half of one each."""
    record = roll_out(np.array([100, 300]), 0, lambda load, context: load, most=2, num_ranks=2)
    assert record.end_s.tolist() == [100.0, 200.0]


def test_a_sample_goes_on_from_what_it_has_after_that_was_read_again() -> None:
    """150 tokens are left, from a context of 150 to 300 in steps of 1 ms a token; reading took 7 s."""
    record = roll_out(
        np.array([300]), 0, lambda load, context: context * 1e-3, most=1, given=np.array([150]), start_s=7.0
    )
    assert record.end_s[0] == pytest.approx(7 + 150 * 0.225)


def test_samples_that_wait_for_a_place_when_a_rollout_is_stopped_have_nothing() -> None:
    record = roll_out(np.array([10, 20, 30]), 0, lambda load, context: 1.0, most=1, until_s=15)
    assert record.tokens.tolist() == [10, 5, 0]


# --- rounds by hand --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("play", [partial_rounds, tail_rounds])
def test_equal_lengths_change_nothing(play: Play) -> None:
    lengths = np.full((2, 8, 4), 50)
    assert [own.end_s for own in all_rounds(lengths, 2, constant)] == [50.0, 50.0]
    assert {own.end_s for own in play(lengths, 10, 2, constant)} == {50.0}


@pytest.mark.parametrize("play", [partial_rounds, tail_rounds])
def test_a_rollout_that_begins_no_more_than_is_taken_is_one_that_waits(play: Play) -> None:
    lengths = np.random.default_rng(0).integers(1, 100, (3, 8, 4))
    for own, whole in zip(play(lengths, 8, 2, constant), all_rounds(lengths, 2, constant), strict=True):
        assert own.end_s == whole.end_s
        assert (own.taken_tokens, own.carried) == (whole.taken_tokens, 0)
        for mine, theirs in zip(own.records, whole.records, strict=True):
            assert mine.end_s.tolist() == theirs.end_s.tolist()


def test_what_is_left_goes_on_where_it_was() -> None:
    """Three prompts at once and two taken, of 4, 5, 12, 4, 5, 4, 5, 9, and again.

    4, 5, 12 end at 5 with 7 left of the 12; with 4, 5 at 5 again, 2 left; with 4, 5 at 4, where the 12 and the 4 are taken and 1 is
    left of the 5; with 9, 4 at 4, 5 left of the 9; with 5, 12 at 5. From here on it is the same again.
    """
    lengths = single((4, 5), (12, 4), (5, 4), (5, 9))
    rounds = partial_rounds(lengths, 3, 1, constant)
    assert [own.end_s for own in rounds] == [5.0, 5.0, 4.0, 4.0]
    assert [own.taken_tokens for own in rounds] == [9 + 5, 4 + 5, 12 + 4, 5 + 4]
    assert [own.stale_tokens for own in rounds] == [4, 0, 10, 4]
    assert [own.made_tokens for own in rounds] == [5 + 5 + 5, 5 + 4 + 5, 2 + 4 + 4, 1 + 4 + 4]
    assert [own.carried for own in rounds] == [1] * 4


def test_late_prompts_make_a_long_round_of_their_own() -> None:
    """Four of five are taken after 10 s each; the long one of 100, 10 tokens of it lost, waits for three more of its kind."""
    lengths = np.array([100, 10, 10, 10, 10] * 4).reshape(5, 4, 1)
    rounds = tail_rounds(lengths, 5, 1, constant)
    assert [own.end_s for own in rounds] == [10.0] * 4 + [100.0]
    assert [own.discarded_tokens for own in rounds[:4]] == [10] * 4


# --- laws ------------------------------------------------------------------------------------------------------------


def test_tail_batching_of_two_lengths_has_the_mean_of_both_rounds() -> None:
    """One long prompt in eight; 80 % done: four short rounds for a long one, so 0.8 a + 0.2 b, where waiting takes b."""
    a, b = 30, 200
    lengths = single(*[(a, a, a, b, a, a, a, a)] * 5)
    assert mean_s(all_rounds(lengths, 1, constant)) == b
    assert mean_s(tail_rounds(lengths, 10, 1, constant)) == pytest.approx(0.8 * a + 0.2 * b, rel=1e-12)


def test_partial_rollouts_without_memory_take_the_first_spacings() -> None:
    """N of M exponential lengths are done after H_M - H_(M-N) means, in every round, for what is left has no memory."""
    mean, take, begun, rounds = 20_000, 8, 12, 900
    lengths = np.random.default_rng(1).exponential(mean, (rounds, take, 1)).round().astype(np.int64) + 1
    assert mean_s(all_rounds(lengths, 1, constant)) == pytest.approx(mean * harmonic(take), rel=0.04)
    expected = mean * (harmonic(begun) - harmonic(begun - take))
    assert mean_s(partial_rounds(lengths, begun, 1, constant)) == pytest.approx(expected, rel=0.04)


def test_lengths_of_a_prompt_are_as_correlated_as_asked_and_have_the_same_mean_and_spread() -> None:
    drawn = Lengths("lognormal", 4000.0, 0.5).correlated((1, 4000, 2), 0.8, np.random.default_rng(0))
    logs = np.log(drawn[0].T)
    assert np.corrcoef(logs)[0, 1] == pytest.approx(0.8, abs=0.02)
    assert logs.std(axis=1) == pytest.approx(0.5, rel=0.03)
    assert drawn.mean() == pytest.approx(4000, rel=0.03)


@pytest.mark.parametrize(("n", "p"), [(4, 0.25), (8, 0.05)])
def test_the_tail_of_two_lengths_wastes_what_its_closed_form_says(n: int, p: float) -> None:
    """n places wait n (E[longest] - E[length]) = n (b - a) (1 - (1 - p)^n - p), over all numbers of long samples."""
    a, b = 100, 900
    waste = 0.0
    for num in range(n + 1):
        lengths = np.array([b] * num + [a] * (n - num))
        record = roll_out(lengths, 0, lambda load, context: 1.0, most=n, num_ranks=n)
        waste += math.comb(n, num) * p**num * (1 - p) ** (n - num) * tail_wait_gpu_s([record], n)
    assert waste == pytest.approx(n * (b - a) * (1 - (1 - p) ** n - p), rel=1e-12)
