"""Pipeline schedules against the bubbles, lengths and peaks that their papers give."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import InputError
from sim.schedule import zero_bubble
from sim.schedule.operations import Event, Pipeline
from sim.schedule.pipelines import SCHEDULES, plan
from sim.schedule.replay import peaks, replay
from sim.validation.published import Row
from sim.validation.schedules import load, rows

UNIT = {"F": 1.0, "B_in": 1.0, "W": 1.0}
PAIRS = UNIT | {"FB": 3.0}


@pytest.mark.parametrize("row", list(rows(load("schedules")[0])), ids=lambda row: str(row.id))
def test_schedules_have_their_published_bubbles_lengths_and_peaks(row: Row) -> None:
    assert row.simulated == row.published


# --- closed forms -------------------------------------------------------------------------------------------

small = st.integers(1, 9)
seconds = st.floats(0.1, 3.0)


@given(p=small, m=st.integers(1, 24), f=seconds, b=seconds, w=seconds)
def test_1f1b_and_gpipe_idle_as_long_as_all_other_ranks_take(
    p: int, m: int, f: float, b: float, w: float
) -> None:
    for kind in ("gpipe", "1f1b"):
        got = replay(plan(kind, p, m), {"F": f, "B_in": b, "W": w})
        assert got.bubble_s == pytest.approx((p - 1) * (f + b + w), abs=1e-9)
        assert got.total_s == pytest.approx((m + p - 1) * (f + b + w))
    assert peaks(plan("gpipe", p, m)) == (m,) * p
    assert peaks(plan("1f1b", p, m)) == tuple(min(p - rank, m) for rank in range(p))


@given(p=st.integers(2, 8), v=st.integers(2, 4), groups=st.integers(1, 4), f=seconds, b=seconds)
def test_interleaving_divides_the_bubble_by_the_chunks(
    p: int, v: int, groups: int, f: float, b: float
) -> None:
    pipeline = plan("interleaved", p, groups * p, chunks=v)
    got = replay(pipeline, {"F": f / v, "B": b / v})
    assert got.bubble_s == pytest.approx((p - 1) * (f + b) / v, abs=1e-9)
    if groups > 1:
        assert peaks(pipeline)[0] == p * v + p - 1


@given(
    p=st.integers(2, 8),
    extra=st.integers(0, 16),
    parts=st.tuples(*[st.sampled_from((0.7, 1.0, 1.2, 1.5))] * 3),
)
def test_zb1p_leaves_its_closed_form_while_a_weight_part_is_no_longer_than_a_forward(
    p: int, extra: int, parts: tuple[float, float, float]
) -> None:
    f, b, w = parts
    pipeline = plan("zb1p", p, 2 * p + extra, durations=parts)
    got = replay(pipeline, {"F": f, "B_in": b, "W": w})
    assert max(peaks(pipeline)) == p
    assert got.bubble_s == pytest.approx((p - 1) * (b + max(f - w, 0.0)), abs=1e-9)


@given(
    p=st.integers(2, 8),
    extra=st.integers(0, 16),
    parts=st.tuples(*[st.sampled_from((0.7, 1.0, 1.2, 1.5))] * 3),
)
def test_zb2p_keeps_within_its_memory_and_beats_zb1p(
    p: int, extra: int, parts: tuple[float, float, float]
) -> None:
    cost = dict(zip(("F", "B_in", "W"), parts, strict=True))
    one, two = (plan(kind, p, 2 * p + extra, durations=parts) for kind in ("zb1p", "zb2p"))
    assert max(peaks(two)) <= 2 * p
    assert replay(two, cost).bubble_s <= replay(one, cost).bubble_s + 1e-9


@given(p=st.integers(2, 10), extra=st.integers(0, 20))
def test_equal_parts_leave_one_part_a_rank_in_zb1p_and_nothing_in_zb2p(p: int, extra: int) -> None:
    one, two = plan("zb1p", p, 2 * p + extra), plan("zb2p", p, 2 * p + extra)
    assert replay(one, UNIT).bubble_s == p - 1
    assert replay(two, UNIT).bubble_s == 0
    assert max(peaks(one)) == p
    assert max(peaks(two)) <= 2 * p


@given(half=st.integers(1, 8), extra=st.integers(0, 20), f=seconds, shorter=st.floats(0.1, 1.0))
def test_dualpipe_leaves_its_closed_form_on_every_rank(
    half: int, extra: int, f: float, shorter: float
) -> None:
    w = shorter * f
    pipeline = plan("dualpipe", 2 * half, 4 * half + 2 * extra)
    got = replay(pipeline, {"F": f, "B_in": f, "W": w})
    pair, b = 2 * f + w, f + w
    assert got.idle_s == pytest.approx([(half - 1) * (pair + b - 3 * w)] * 2 * half, abs=1e-9)
    assert peaks(pipeline) == (2 * half + 1,) * 2 * half


@given(half=st.integers(1, 6), extra=st.integers(0, 12), pair=st.floats(2.0, 3.0))
def test_pairs_faster_than_their_halves_leave_the_closed_form_in_the_middle_and_less_outside(
    half: int, extra: int, pair: float
) -> None:
    m = 4 * half + 2 * extra
    got = replay(plan("dualpipe", 2 * half, m), UNIT | {"FB": pair})
    middle = (half - 1) * (pair + 2 - 3)
    assert got.idle_s[half - 1] == pytest.approx(middle, abs=1e-9)
    assert max(got.idle_s) <= middle + 1e-9
    assert got.total_s <= replay(plan("dualpipe", 2 * half, m), PAIRS).total_s


def test_dualpipe_counts_operations_as_its_eight_steps_do() -> None:
    pipeline = plan("dualpipe", 16, 120)
    for rank, order in enumerate(pipeline.orders):
        h = min(rank, 15 - rank)
        apart = 1 if h == 7 else 0
        assert Counter(op.kind for op in order) == {
            "F": 23 - h + apart,
            "FB": 97 + h - apart,
            "B": 8 + apart,
            "B_in": 15 - h,
            "W": 15 - h,
        }


def test_dualpipe_ranks_hold_two_stages_and_mirror_each_other() -> None:
    pipeline = plan("dualpipe", 8, 20)
    assert pipeline.stages == tuple((rank, 7 - rank) for rank in range(8))
    assert pipeline.directions == (1, -1)
    assert plan("interleaved", 4, 8).directions == (1, 1)
    got = replay(pipeline, PAIRS)
    assert got.starts == got.starts[::-1]
    for order, mirrored in zip(pipeline.orders, pipeline.orders[::-1], strict=True):
        assert [op.kind for op in order] == [op.kind for op in mirrored]
    assert {pipeline.rank_of(2, microbatch) for microbatch in range(10)} == {2}
    assert {pipeline.rank_of(2, microbatch) for microbatch in range(10, 20)} == {5}


def test_dualpipev_is_one_half_of_dualpipe_folded() -> None:
    folded, whole = replay(plan("dualpipev", 4, 20), PAIRS), replay(plan("dualpipe", 8, 40), PAIRS)
    assert folded.starts == whole.starts[:4]


# --- what holds for every schedule --------------------------------------------------------------------------


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    kind = draw(st.sampled_from(sorted(SCHEDULES)))
    p = draw(st.integers(1, 8))
    m = draw(st.integers(1, 24))
    if kind == "interleaved":
        return plan(kind, p, p * (1 + m % 4), chunks=draw(st.integers(2, 3)))
    if kind == "dualpipe":
        p += p % 2
        return plan(kind, p, 2 * p + 2 * (m // 2))
    if kind == "dualpipev":
        return plan(kind, p, 2 * p + m)
    options = {"durations": draw(st.tuples(seconds, seconds, seconds))} if kind.startswith("zb") else {}
    return plan(kind, p, m, **options)


@given(pipeline=pipelines())
def test_every_stage_sees_every_microbatch_once_forward_and_once_backward(pipeline: Pipeline) -> None:
    done = Counter(event for order in pipeline.orders for op in order for event in op.completes)
    assert done == {
        Event(part, stage, microbatch): 1
        for part in "FBW"
        for stage in range(pipeline.num_stages)
        for microbatch in range(pipeline.num_microbatches)
    }
    for rank, order in enumerate(pipeline.orders):
        for op in order:
            for one in filter(None, (op.forward, op.backward)):
                assert pipeline.stages[rank][one.chunk] == one.stage
                assert pipeline.rank_of(one.stage, one.microbatch) == rank
            assert (op.forward is not None) == (op.kind in ("F", "FB"))
            assert (op.backward is not None) == (op.kind != "F")


@given(pipeline=pipelines(), data=st.data())
def test_replay_keeps_order_and_dependencies_with_any_durations(
    pipeline: Pipeline, data: st.DataObject
) -> None:
    cost = {
        (kind, stage): data.draw(st.floats(0.0, 3.0), label=f"{kind}{stage}")
        for kind in ("F", "B_in", "W", "FB")
        for stage in range(pipeline.num_stages)
    }
    got = replay(pipeline, cost)
    ended = {
        event: end
        for order, ends in zip(pipeline.orders, got.ends, strict=True)
        for op, end in zip(order, ends, strict=True)
        for event in op.completes
    }
    for order, starts, ends in zip(pipeline.orders, got.starts, got.ends, strict=True):
        earlier = 0.0
        for op, start, end in zip(order, starts, ends, strict=True):
            stage_before = (
                [Event("F", op.forward.stage - 1, op.forward.microbatch)]
                if op.forward and op.forward.stage
                else []
            )
            assert set(stage_before) <= set(op.waits_for)
            # No sooner than it may, no later than it must.
            assert start == max([earlier, *(ended[event] for event in op.waits_for)])
            assert end >= start
            earlier = end
    assert got.total_s >= max(got.busy_s) - 1e-9
    assert got.bubble_s <= max(got.idle_s) + 1e-9


@given(pipeline=pipelines())
def test_a_microbatch_passes_all_stages_before_it_returns(pipeline: Pipeline) -> None:
    got = replay(pipeline, UNIT)
    start = {
        event: at
        for order, starts in zip(pipeline.orders, got.starts, strict=True)
        for op, at in zip(order, starts, strict=True)
        for event in op.completes
    }
    last = pipeline.num_stages - 1
    for microbatch in range(pipeline.num_microbatches):
        way = [Event("F", stage, microbatch) for stage in range(last + 1)]
        way += [Event("B", stage, microbatch) for stage in range(last, -1, -1)]
        times = [start[event] for event in way]
        assert all(later >= sooner + 1 for sooner, later in itertools.pairwise(times))


@given(pipeline=pipelines(), factor=st.sampled_from((0.5, 2.0, 4.0)))
def test_twice_the_durations_take_twice_the_time(pipeline: Pipeline, factor: float) -> None:
    once, more = (
        replay(pipeline, UNIT),
        replay(pipeline, {kind: factor * value for kind, value in UNIT.items()}),
    )
    assert more.total_s == factor * once.total_s
    assert more.bubble_s == factor * once.bubble_s


@given(pipeline=pipelines(), slow=st.integers(0, 7))
def test_a_slower_stage_never_shortens_the_step(pipeline: Pipeline, slow: int) -> None:
    slow %= pipeline.num_stages

    def cost(kind: str, stage: int) -> float:
        return 2.0 if stage == slow else 1.0

    slower = {(kind, s): cost(kind, s) for kind in UNIT for s in range(pipeline.num_stages)}
    assert replay(pipeline, slower).total_s >= replay(pipeline, UNIT).total_s
    assert replay(pipeline, slower).total_s >= max(replay(pipeline, slower).busy_s)


@given(pipeline=pipelines())
def test_peaks_scale_with_the_bytes_of_a_stage(pipeline: Pipeline) -> None:
    assert peaks(pipeline, [3.0] * pipeline.num_stages) == tuple(3.0 * one for one in peaks(pipeline))
    assert max(peaks(pipeline, freed_by_input_part=0.0)) >= max(peaks(pipeline, freed_by_input_part=1.0))


def test_a_plan_is_the_same_every_time_and_cannot_be_changed() -> None:
    pipeline = plan("dualpipe", 4, 8)
    assert plan("dualpipe", 4, 8) == pipeline
    with pytest.raises(dataclasses.FrozenInstanceError):
        pipeline.kind = "other"  # type: ignore[misc]


@given(pipeline=pipelines())
def test_the_columns_say_what_the_operations_say_and_stay(pipeline: Pipeline) -> None:
    table = pipeline.table
    flat = [(rank, op) for rank, order in enumerate(pipeline.orders) for op in order]
    assert table.rank.tolist() == [rank for rank, _ in flat]
    for passes, half in ((table.forward, "forward"), (table.backward, "backward")):
        assert passes.tolist() == [list(getattr(op, half) or (-1, -1, -1)) for _, op in flat]
    for column in (table.first, table.kind, table.forward, table.backward):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 0


@given(
    p=st.integers(1, 6),
    m=st.integers(1, 60),
    live=st.integers(1, 2),
    parts=st.tuples(*[st.sampled_from((0.3, 0.7, 1.0, 1.2, 2.0))] * 3),
)
def test_turns_that_come_again_are_as_if_they_had_been_searched(
    p: int, m: int, live: int, parts: tuple[float, float, float]
) -> None:
    quick = zero_bubble.zero_bubble_order(p, m, live * p, parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zero_bubble, "LOOK_BACK_TURNS", 0)
        assert quick == zero_bubble.zero_bubble_order(p, m, live * p, parts)
    assert [Counter(letters) for letters in quick] == [dict.fromkeys("FBW", m)] * p


# --- durations and bad input --------------------------------------------------------------------------------


def test_durations_may_be_a_function_or_a_mapping_by_kind_or_stage() -> None:
    pipeline = plan("dualpipe", 4, 8)
    by_kind = replay(pipeline, UNIT)
    by_stage = replay(pipeline, {(kind, stage): 1.0 for kind in UNIT for stage in range(4)})
    by_function = replay(pipeline, lambda op: {"F": 1.0, "B": 2.0, "B_in": 1.0, "W": 1.0, "FB": 3.0}[op.kind])
    assert by_kind == by_stage == by_function


def test_a_pair_without_its_own_duration_takes_the_sum_of_both_stages() -> None:
    pipeline = plan("dualpipe", 4, 8)
    cost = {(kind, stage): 1.0 + stage for kind in ("F", "B_in", "W") for stage in range(4)}
    got = replay(pipeline, cost)
    for order, starts, ends in zip(pipeline.orders, got.starts, got.ends, strict=True):
        for op, start, end in zip(order, starts, ends, strict=True):
            if op.forward and op.backward:
                assert end - start == (1.0 + op.forward.stage) + 2 * (1.0 + op.backward.stage)


def test_a_missing_duration_is_named() -> None:
    cost = {(kind, stage): 1.0 for kind in UNIT for stage in (0, 1)}
    del cost["W", 1]
    with pytest.raises(InputError, match="W on stage 1"):
        replay(plan("zb1p", 2, 4), cost)


@pytest.mark.parametrize(
    ("kind", "ranks", "microbatches", "options", "reason"),
    [
        ("dualpipe", 7, 20, {}, "7 pipeline ranks; wanted an even number of ranks"),
        ("dualpipe", 8, 14, {}, "14 microbatches; wanted an even number of at least 16"),
        ("dualpipe", 8, 21, {}, "21 microbatches; wanted an even number"),
        ("dualpipev", 8, 15, {}, "15 microbatches; wanted at least 16"),
        ("interleaved", 8, 20, {}, "20 microbatches; wanted a multiple of the 8 pipeline ranks"),
        ("interleaved", 8, 16, {"chunks": 1}, "1 chunk a rank; wanted at least 2 chunks"),
        ("zb1p", 8, 16, {"durations": (1, 0, 1)}, "wanted three positive numbers"),
        ("1f1b", 0, 16, {}, "0 pipeline ranks"),
        ("1f1b", 4, 0, {}, "0 microbatches"),
        ("1f1b", 4, 2.5, {}, "2.5 microbatches"),
        ("1f1b", 4, 8, {"chunks": 2}, "the option 'chunks'"),
        ("dualpip", 8, 16, {}, "did you mean dualpipe"),
    ],
)
def test_a_schedule_that_has_no_order_says_why(
    kind: str, ranks: int, microbatches: Any, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        plan(kind, ranks, microbatches, **options)


def test_all_reasons_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        plan("dualpipe", 7, 9)
    assert len(caught.value.problems) == 2
