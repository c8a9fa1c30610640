"""Overlap of neighbouring operations in every schedule: what pairs cost in bubble and memory, and what they hide."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import documents
from sim.engine.step import run_step
from sim.runs.run import run_document
from sim.schedule import alignment, programs
from sim.schedule.pipelines import plan
from sim.schedule.programs import LayerTimes, PhaseTime
from sim.schedule.replay import peaks, replay
from tests.support.steps import planned, stage

small, seconds = st.integers(1, 8), st.floats(0.1, 3.0)


@given(p=small, m=st.integers(1, 24), f=seconds, b=seconds)
def test_pairs_of_1f1b_take_no_longer_and_keep_twice_the_activations(
    p: int, m: int, f: float, b: float
) -> None:
    """An overlapped pair that hides nothing is as long as its halves: the bubble stays (p - 1)(F + B)."""
    pairs = plan("1f1b", p, m, overlap=True)
    assert replay(pairs, {"F": f, "B": b}).total_s == pytest.approx((m + p - 1) * (f + b))
    assert peaks(pairs) == tuple(min(2 * (p - rank), m) for rank in range(p))


@given(p=st.integers(2, 8), v=st.integers(2, 4), groups=st.integers(1, 4), f=seconds, b=seconds)
def test_pairs_of_interleaved_cost_one_microbatch_of_one_chunk(
    p: int, v: int, groups: int, f: float, b: float
) -> None:
    alone, pairs = (plan("interleaved", p, groups * p, chunks=v, overlap=x) for x in (False, True))
    ends = [replay(pipeline, {"F": f / v, "B": b / v}).total_s for pipeline in (alone, pairs)]
    assert ends[1] == pytest.approx(ends[0])
    more = [new - old for old, new in zip(peaks(alone), peaks(pairs), strict=True)]
    assert more == [int(old < groups * p * v) for old in peaks(alone)]


@given(p=st.integers(2, 8), extra=st.integers(0, 16))
def test_pairs_of_a_zero_bubble_schedule_lengthen_its_fill_by_a_forward_a_rank_at_most(
    p: int, extra: int
) -> None:
    unit = {"F": 1.0, "B_in": 1.0, "W": 1.0}
    alone, pairs = (plan("zb1p", p, 2 * p + extra, overlap=x) for x in (False, True))
    assert replay(pairs, unit).total_s <= replay(alone, unit).total_s + p - 1 + 1e-9
    assert max(peaks(pairs)) <= p + 0.5  # the weight part's half is still there while the forward runs


@pytest.mark.parametrize(
    ("kind", "options"), [("1f1b", {}), ("interleaved", {"chunks": 2}), ("zb1p", {}), ("zb2p", {})]
)
def test_the_halves_of_a_pair_are_different_microbatches_and_no_operation_is_lost(
    kind: str, options: dict[str, Any]
) -> None:
    both = [plan(kind, 4, 12, overlap=x, **options) for x in (False, True)]
    for alone, pairs in zip(both[0].orders, both[1].orders, strict=True):
        joined = [op for op in pairs if op.forward and op.backward]
        assert joined or kind == "zb2p"  # which puts most weight parts last
        assert all(op.forward[2] != op.backward[2] for op in joined if op.forward and op.backward)
        done = [sorted(itertools.chain(*(op.completes for op in order))) for order in (alone, pairs)]
        assert done[0] == done[1]


def layer(f: float, b: float, w: float) -> LayerTimes:
    none = PhaseTime()
    return LayerTimes(0, True, PhaseTime(f), PhaseTime(f), PhaseTime(b), PhaseTime(b), none, PhaseTime(w))


@given(f=seconds, w=seconds, c=st.floats(0.0, 3.0), layers=st.integers(1, 4))
def test_weight_parts_fill_the_gaps_of_a_forward_and_never_lengthen_it(
    f: float, w: float, c: float, layers: int
) -> None:
    chunk = (layer(f, 1.0, w),) * layers
    times = {"dispatch": c, "combine": c}
    both = alignment.filled(chunk, chunk, times.__getitem__)
    forward_s, weights_s = layers * (2 * f + 2 * c), layers * w
    took = programs.span_s(both, times)
    assert took <= forward_s + weights_s + 1e-9
    assert took >= max(forward_s, programs.compute_s(both)) - 1e-9
    if w <= c < 1.5 * w:  # a gap takes one weight part, and there are two gaps for each
        assert took == pytest.approx(forward_s)


@pytest.mark.parametrize("kind", ["1f1b", "interleaved"])
def test_on_infinitely_fast_links_pairs_take_what_their_halves_take(kind: str) -> None:
    """Stages of one layer on a network that costs nothing, then on one whose all-to-alls are as long as half a forward."""
    times = [stage(1.0, 1.0, 1.0, communicates=True)] * (8 if kind == "interleaved" else 4)
    ends = {}
    for c, pairs in itertools.product((0.0, 0.25), (False, True)):
        step = planned(plan(kind, 4, 16, overlap=pairs), times, collective_s=c)
        ends[c, pairs] = max(record.end_s.max() for record in run_step(step).records)
    assert ends[0.0, True] == pytest.approx(ends[0.0, False])
    assert ends[0.25, True] < 0.97 * ends[0.25, False]


SCENARIO = """
name: mine
cluster: {{hardware: h100, nodes: 16}}
model: qwen3-235b-a22b
layout: {{pp: 4, ep: 32}}
workload:
  kind: training
  microbatches: 12
  schedule: {schedule}
  {overlap}
  recompute: full
  kernel: {{kind: two_hop}}
  skew: {{routed_load: 0, kernel_jitter: 0, gpu_spread: 0}}
"""


def metrics(schedule: str, overlap: str | None) -> dict[str, Any]:
    asked = f"overlap: {overlap}" if overlap else ""
    text = SCENARIO.format(schedule=schedule, overlap=asked)
    found: dict[str, Any] = run_document(documents.loads(text, "mine.yaml"))["metrics"]
    return found


def test_interleaved_hides_its_all_to_alls_unless_it_is_told_not_to() -> None:
    paired, default, alone = (metrics("interleaved", x) for x in ("true", None, "false"))
    assert paired == default
    assert paired["exposed_comm_s"] < 0.5 * alone["exposed_comm_s"]
    assert paired["step_time_s"] < 0.95 * alone["step_time_s"]
    assert paired["memory_peak_bytes"] > alone["memory_peak_bytes"]


def test_1f1b_pairs_only_where_it_is_asked_and_auto_asks_where_it_pays() -> None:
    paired, default, auto = (metrics("1f1b", x) for x in ("true", None, "auto"))
    assert default["phases"]["1F1B_s"] == 0
    assert paired["step_time_s"] < default["step_time_s"]
    assert auto == paired
