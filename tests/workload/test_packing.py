"""Documents packed into sequences: nothing is lost, rules by hand, and what sorting is best at."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.workload import packing
from sim.workload.packing import Packed, documents_of, packed
from sim.workload.requests import Lengths


def of(lengths: list[int] | Lengths, **changes: Any) -> Packed:
    known = lengths if isinstance(lengths, Lengths) else np.array(lengths)
    sizes = {
        "ranks": 1,
        "microbatches": 1,
        "sequences": 1,
        "sequence_tokens": 8,
        "fit": "cut",
        "balance": "none",
    }
    return packed(known, rng=np.random.default_rng(changes.pop("seed", 0)), **(sizes | changes))  # type: ignore[arg-type]


def contents(one: Packed) -> list[list[int]]:
    num = one.shape[0] * one.shape[1]
    return [one.lengths[one.place == place].tolist() for place in range(num)]


def test_documents_that_reach_over_the_end_of_a_sequence_go_on_as_others_in_the_next() -> None:
    assert contents(of([3, 6, 20], microbatches=3)) == [[3, 5], [1, 7], [8]]


def test_a_recorded_list_is_taken_in_its_order_and_from_the_first_again() -> None:
    rng = np.random.default_rng(0)
    assert documents_of(np.array([3, 2]), 12, rng).tolist() == [3, 2, 3, 2, 2]


def test_first_fit_takes_the_first_sequence_with_room_and_leaves_what_finds_none() -> None:
    """The last of four is cut to the 16 tokens of the step; behind 5 and 4 a document of 7 finds no room."""
    one = of([5, 4, 3, 7], microbatches=2, fit="first_fit")
    assert contents(one) == [[5, 3], [4, 4]]
    assert contents(of([5, 4, 7], microbatches=2, fit="first_fit")) == [[5], [4]]
    assert of([5, 4, 7], microbatches=2, fit="first_fit").facts()["padding_fraction"] == 7 / 16


def test_eight_documents_of_a_token_on_one_rank_and_one_of_eight_on_the_other() -> None:
    """Attention visits 8 x 1 and 64 of the 2 x 64 pairs of unbroken sequences: 64 over their mean, 36; dealt evenly, one each."""
    facts = {way: of([1] * 8 + [8], ranks=2, balance=way).facts() for way in ("none", "even")}
    assert facts["none"] == pytest.approx(
        {"documents": 9, "padding_fraction": 0, "attention_fraction": 72 / 128, "max_over_mean_microbatch": 64 / 36,
         "max_over_mean_rank": 64 / 36}
    )  # fmt: skip
    assert facts["even"] == facts["none"] | {"max_over_mean_microbatch": 1, "max_over_mean_rank": 1}


LISTS = st.lists(st.integers(1, 400), min_size=1, max_size=30)


@given(documents=LISTS, tokens=st.integers(1, 200))
def test_what_is_cut_fills_every_sequence_but_the_last_and_loses_no_token(
    documents: list[int], tokens: int
) -> None:
    lengths, sequence = packing._cut(np.array(documents), tokens)
    full, rest = divmod(sum(documents), tokens)
    assert np.bincount(sequence, lengths).tolist() == [tokens] * full + [rest] * bool(rest)
    assert lengths.min() >= 1
    assert set(np.cumsum(documents)) <= set(np.cumsum(lengths))  # every end of a document is one of a piece
    assert packing.sequences_needed(np.array(documents), tokens, "cut") == full + bool(rest)
    within = packing._within(np.array(documents), tokens)
    assert (within.sum(), within.max(), len(within)) == (
        sum(documents), min(tokens, max(documents)), sum(-(-each // tokens) for each in documents),
    )  # fmt: skip


def test_repacking_spreads_the_squares_of_documents() -> None:
    """As they come: 16 + 16 against 4 x 4; anew 16 + 4 + 4 in each."""
    lengths = [4, 4, 2, 2, 2, 2]
    assert of(lengths, microbatches=2).squares.tolist() == [[32, 16]]
    assert of(lengths, microbatches=2, balance="repacked").squares.tolist() == [[24, 24]]


cases = st.fixed_dictionaries(
    {
        "ranks": st.integers(1, 4),
        "microbatches": st.integers(1, 4),
        "sequences": st.integers(1, 3),
        "sequence_tokens": st.sampled_from((8, 64)),
        "fit": st.sampled_from(("cut", "first_fit")),
        "balance": st.sampled_from(("none", "sorted", "repacked", "even")),
        "seed": st.integers(0, 9),
    }
)
lengths_ = st.one_of(
    st.lists(st.integers(1, 100), min_size=1, max_size=30),
    st.builds(Lengths, st.just("lognormal"), st.sampled_from((5.0, 40.0)), st.sampled_from((0.5, 2.0))),
)


@given(lengths_, cases)
def test_documents_lie_side_by_side_inside_sequences(lengths: Any, case: dict[str, Any]) -> None:
    one = of(lengths, **case)
    size = one.sequence_tokens
    assert (one.offset // size == (one.offset + one.lengths - 1) // size).all()
    for place in range(one.shape[0] * one.shape[1]):
        own = one.place == place
        spans = sorted(zip(one.offset[own].tolist(), one.lengths[own].tolist(), strict=True))
        assert all(begin + length <= after for (begin, length), (after, _) in pairwise(spans))
        assert not spans or sum(spans[-1]) <= size * one.sequences
    room = one.shape[0] * one.shape[1] * one.sequences * size
    assert one.tokens == room if case["fit"] == "cut" else 0 < one.tokens <= room


@given(lengths_, cases, st.randoms())
def test_no_dealing_has_less_waiting_at_each_microbatch_than_the_sorted_one(
    lengths: Any, case: dict[str, Any], shuffle: Any
) -> None:
    """Of all ways to part sequences into groups, sorted groups have the least sum of their greatest (exchange argument)."""
    case = case | {"sequences": 1}
    before, after = (of(lengths, **(case | {"balance": way})) for way in ("none", "sorted"))
    squares = before.squares.ravel().tolist()
    assert sorted(squares) == sorted(after.squares.ravel().tolist())
    least = after.squares.max(axis=0).sum()
    assert least <= before.squares.max(axis=0).sum()
    shuffle.shuffle(squares)
    assert least <= np.array(squares).reshape(before.shape).max(axis=0).sum()


@given(lengths_, cases)
def test_sorted_ranks_differ_by_less_than_a_sequence(lengths: Any, case: dict[str, Any]) -> None:
    """Each microbatch gives most to who has had least, and microbatches differ from one another in one order."""
    one = of(lengths, **(case | {"balance": "sorted", "sequences": 1}))
    sums = one.squares.sum(axis=1)
    assert sums.max() - sums.min() <= one.squares.max() - one.squares.min()


@given(lengths_, cases, st.sampled_from((1, 2, 4)))
def test_parts_of_context_parallelism_attend_to_what_whole_documents_do(
    lengths: Any, case: dict[str, Any], parts: int
) -> None:
    """The sum over the parts of l^2 / 2 of each document, for each microbatch; of windows too."""
    one = of(lengths, **case)
    for window in (None, 5):
        own, whole = (one.documents(ways).attended_tokens(window, None) for ways in (parts, 1))
        assert own.mean(axis=1) == pytest.approx(whole[:, 0])
    half = one.squares / 2 / (one.sequences * one.sequence_tokens)
    assert one.documents().attended_tokens(None, None)[:, 0] == pytest.approx(half)
    assert one.documents().attended_tokens(None, 3).sum() <= one.documents().attended_tokens(None, None).sum()


def test_parts_from_both_ends_share_a_whole_sequence_evenly_and_documents_unevenly() -> None:
    """Of 8 tokens in 4 parts one rank has the first and the last, (2^2 + 8^2 - 6^2) / 2 = 16 of 32; of 2 and 6 tokens, 12 of 20."""
    whole, two = (of(lengths).documents(2).attended_tokens(None, None).ravel() for lengths in ([8], [2, 6]))
    assert (whole * 8 / 2).tolist() == [16, 16]
    assert (two * 8 / 2).tolist() == [12, 8]


def test_a_chunk_is_a_document_of_its_own() -> None:
    """8 tokens in chunks of 3: 3, 3 and 2, so 9/2 + 9/2 + 4/2 of the 8 tokens."""
    chunked = of([8]).documents().chunked(3)
    assert sorted(chunked.queries.tolist()) == [2, 3, 3]
    assert not chunked.before.any()
    assert of([8]).documents().attended_tokens(None, 3) == pytest.approx(11 / 8)


def test_documents_of_a_lognormal_attend_to_what_its_moments_say() -> None:
    """E[l^2] / E[l] of a lognormal of mean 4,000 and deviation 0.8 of the logarithm is 4,000 e^0.64, far below the cut."""
    one = of(
        Lengths("lognormal", 4000.0, 0.8), ranks=64, microbatches=16, sequence_tokens=2**20, fit="first_fit"
    )
    assert one.facts()["attention_fraction"] == pytest.approx(4000 * np.exp(0.64) / 2**20, rel=0.01)
    assert one.facts()["documents"] == pytest.approx(64 * 16 * 2**20 / 4000, rel=0.01)
