"""Traces for ui.perfetto.dev: what is drawn is what was recorded; the checker catches what viewers drop silently."""

from __future__ import annotations

import copy
import gzip
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import documents
from sim.runs.kinds import Result
from sim.runs.run import run_document
from sim.show.files import timelines
from sim.show.files.trace import (
    Arrow,
    AsyncSlice,
    Counter,
    Slice,
    Timeline,
    Track,
    document,
    encode,
)
from traces import check_trace

ALL_TO_ALL = """
name: trace
seed: 0
cluster: {hardware: h800, nodes: 2}
model: deepseek-v3
layout: {ep: 16}
workload:
  kind: all_to_all
  tokens_per_rank: 64
  gate: {kind: deepep_benchmark, top_groups: 2}
  kernel: {kind: two_hop, comm_sms: 24}
  dispatch_dtype: fp8
  combine_dtype: bf16
"""
STAGE, COMM, OTHER = (
    Track("stage 0", "compute"),
    Track("stage 0", "communication"),
    Track("stage 1", "compute"),
)


def timeline() -> Timeline:
    """One of everything: nested slices, overlapping transfers, a counter, an arrow."""
    return Timeline(
        title="one of everything",
        tracks=(STAGE, COMM),
        slices=(
            Slice(STAGE, "attn(F)", 1.1e-3, 2.3e-3),
            Slice(STAGE, "F0", 0.0, 5e-3, {"layer": 3}),
            Slice(STAGE, "mlp(F)", 2.3e-3, 5e-3),
            Slice(OTHER, "F0", 6e-3, 7e-3),
        ),
        transfers=(
            AsyncSlice(COMM, "a", 0.0, 2e-3),
            AsyncSlice(COMM, "b", 1e-3, 3e-3),
            AsyncSlice(COMM, "c", 2e-3, 2e-3),
        ),
        counters=(Counter("links", "nic [%]", (0.0, 1e-3), {"mean": (10.0, 0.0), "busiest": (20.0, 0.0)}),),
        arrows=(Arrow("send", STAGE, 4.9e-3, OTHER, 6e-3),),
    )


def events(trace: dict[str, Any], phase: str) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"] if event["ph"] == phase]


@pytest.fixture(scope="module")
def result() -> Result:
    return run_document(documents.loads(ALL_TO_ALL, "trace.yaml"))


def test_one_of_everything_is_sound_and_keeps_its_times() -> None:
    trace = document(timeline())
    assert check_trace(trace) == []
    spans = {(event["name"], event["ts"], event["dur"]) for event in events(trace, "X")}
    assert spans == {("attn(F)", 1100, 1200), ("F0", 0, 5000), ("mlp(F)", 2300, 2700), ("F0", 6000, 1000)}
    assert {phase: len(events(trace, phase)) for phase in "becsf"} == {"b": 3, "e": 3, "c": 0, "s": 1, "f": 1}
    assert [event["args"] for event in events(trace, "C")] == [
        {"mean": 10.0, "busiest": 20.0},
        {"mean": 0.0, "busiest": 0.0},
    ]


def test_every_process_and_track_has_its_name_and_rows_keep_their_order() -> None:
    metadata = events(document(timeline()), "M")
    processes = [(one["pid"], one["args"]["name"]) for one in metadata if one["name"] == "process_name"]
    threads = [(one["pid"], one["args"]["name"]) for one in metadata if one["name"] == "thread_name"]
    assert processes == [(1, "stage 0"), (2, "stage 1"), (3, "links")]
    assert threads == [(1, "compute"), (1, "communication"), (2, "compute")]


def test_the_same_timeline_gives_the_same_bytes() -> None:
    blob = encode(document(timeline()))
    assert blob == encode(document(timeline()))
    assert json.loads(gzip.decompress(blob)) == document(timeline())
    assert check_trace(blob) == []


@given(st.lists(st.floats(0, 1e-3, allow_nan=False), min_size=1, max_size=30))
def test_slices_that_touch_never_overlap_after_rounding(durations: list[float]) -> None:
    slices, now = [], 0.0
    for duration in durations:
        slices.append(Slice(STAGE, "k", now, now + duration))
        now += duration
    trace = document(Timeline("t", slices=(Slice(STAGE, "all", 0.0, now), *slices)))
    assert check_trace(trace) == []
    inner = [event["dur"] for event in events(trace, "X") if event["name"] == "k"]
    assert math.fsum(inner) == pytest.approx(round(now * 1e9) / 1000, abs=1e-6)


def change(key: str, value: object, phase: str) -> Callable[[dict[str, Any]], None]:
    def apply(trace: dict[str, Any]) -> None:
        events(trace, phase)[-1][key] = value

    return apply


def drop(phase: str, name: str | None = None) -> Callable[[dict[str, Any]], None]:
    def apply(trace: dict[str, Any]) -> None:
        trace["traceEvents"].remove(next(e for e in events(trace, phase) if name in (None, e["name"])))

    return apply


def overlap(trace: dict[str, Any]) -> None:
    next(event for event in events(trace, "X") if event["name"] == "attn(F)")["dur"] = 1300


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (overlap, "slice 'mlp(F)' at 2300 us overlaps another of track 1/1"),
        (drop("e"), "transfer t0 has b instead of one begin and one end"),
        (drop("b"), "transfer t0 has e"),
        (drop("f"), "arrow a0 has s"),
        (change("ts", 0, "f"), "arrow a0 ends before it begins"),
        (change("ts", -1, "X"), "ts -1, not a number of 0 or more"),
        (change("dur", float("nan"), "X"), "dur nan"),
        (change("ts", None, "C"), "ts None"),
        (change("args", {}, "C"), "a counter without numbers"),
        (change("args", {"mean": "x"}, "C"), "a counter without numbers"),
        (change("id2", None, "b"), "no id"),
        (change("id2", {}, "b"), "no id"),
        (change("pid", 2, "b"), "instead of one begin and one end"),
        (change("ph", "Q", "X"), "unknown phase 'Q'"),
        (change("pid", "one", "X"), "no whole number 'pid'"),
        (change("name", 3, "X"), "no name"),
        (drop("M", "process_name"), "process 1 has no name"),
        (drop("M", "thread_name"), "track 1/1 has no name"),
    ],
)
def test_the_checker_says_what_a_viewer_would_drop(
    spoil: Callable[[dict[str, Any]], None], said: str
) -> None:
    trace = copy.deepcopy(document(timeline()))
    spoil(trace)
    assert any(said in problem for problem in check_trace(trace)), check_trace(trace)


@pytest.mark.parametrize(
    "bad", [b"", b"{", "[1]", b"\x1f\x8b\x08rest", gzip.compress(b'{"traceEvents": []}', mtime=0)[:-4], "{}"]
)
def test_what_is_no_trace_is_said_to_be_none(bad: bytes | str) -> None:
    assert len(check_trace(bad)) == 1


def test_a_simulated_exchange_is_drawn_rank_by_rank(result: Result) -> None:
    trace = document(timelines.timeline(result))
    assert check_trace(encode(trace)) == []
    dispatch, combine = result["timeline"]["kernels"]
    drawn = events(trace, "X")
    assert len(drawn) == 2 * 16
    for kernel in (dispatch, combine):
        mine = sorted(
            (event for event in drawn if event["name"] == kernel["name"]), key=lambda event: event["tid"]
        )
        ends_us = [end_s * 1e6 for end_s in kernel["rank_ends_s"]]
        assert [event["ts"] + event["dur"] for event in mine] == pytest.approx(ends_us, abs=1e-3)
    waits = {event["tid"] for event in events(trace, "s")}
    last = max(range(16), key=dispatch["rank_ends_s"].__getitem__)
    assert waits == {last + 1}  # tracks count from 1
    assert {event["name"] for event in events(trace, "C")} >= {
        "nic load [% of what kernels reach]",
        "scale_up load [% of what kernels reach]",
    }
    assert all(0 <= share <= 100 + 1e-6 for event in events(trace, "C") for share in event["args"].values())


def test_variants_stand_on_rows_of_their_own(result: Result) -> None:
    one = document(timelines.timeline(result))
    both = document(timelines.timeline({"title": "two", "variants": {"h800": result, "h100": result}}))
    assert check_trace(both) == []
    assert len(events(both, "X")) == 2 * len(events(one, "X"))
    names = {event["args"]["name"] for event in events(both, "M") if event["name"] == "process_name"}
    assert names == {"h800: EP group 0", "h100: EP group 0", "h800: links", "h100: links"}


def test_flows_may_overlap_and_a_result_without_a_timeline_is_empty() -> None:
    trace = document(
        timelines.timeline(
            {"name": "f", "metrics": {}, "timeline": {}, "flow_completion": [[1, 0.0, 5.0], [2, 1.0, 3.0]]}
        )
    )
    assert check_trace(trace) == []
    assert [(event["name"], event["ts"]) for event in events(trace, "b")] == [("flow 1", 0), ("flow 2", 1)]
    assert (
        document(timelines.timeline({"name": "closed form", "metrics": {}, "timeline": {}}))["traceEvents"]
        == []
    )
