"""Decisions of serving software: chunks mixed with decode, KV that grows, preemption, prefix caches and routing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.engine.prefix_cache import PrefixCache
from sim.engine.serving import serve
from sim.engine.serving_lives import ServingTrace
from sim.errors import InputError
from sim.runs import run
from sim.runs.serving_metrics import measure
from sim.scenario import settings as scenario_settings
from sim.schedule.serving import POLICIES, ROUTINGS, EnginePolicy, Pool, Service, draw_steps
from sim.workload.requests import Lengths, PromptBlocks, Requests, poisson


def service(decode: Pool | None = None, ranks: int = 1, memory: float = math.inf, **engine: Any) -> Service:
    """1 ms a prompt token of the busiest rank, 10 ms a step, and both in a mixed pass; one byte of KV a token."""
    return Service(
        prefill=Pool(1, memory * ranks, num_ranks=ranks),
        decode=decode,
        prefill_s=lambda work: 1e-3 * work.busiest_tokens + (1e-2 if work.requests.any() else 0.0),
        decode_step_s=lambda work: 1e-2,
        kv_bytes_per_token=1.0,
        engine=EnginePolicy(**engine),
    )


def requests(rows: list[tuple[float, int, int]], blocks: list[list[int]] | None = None) -> Requests:
    arrival, prompt, output = (np.array(column) for column in zip(*rows, strict=True))
    kept = None
    if blocks is not None:
        first = np.cumsum([0, *map(len, blocks)])
        kept = PromptBlocks(np.array([block for own in blocks for block in own], dtype=np.int64), first, 10)
    return Requests(arrival.astype(float), prompt, output, blocks=kept)


# --- mixed passes ----------------------------------------------------------------------------------------------------


def test_mixed_passes_give_running_requests_a_token_with_every_chunk() -> None:
    """A prompt of 300 comes next to a running request: chunks of 99 tokens, one less than without it."""
    rows = requests([(0.0, 10, 21), (0.015, 300, 1)])
    apart = serve(service(chunk_tokens=100), rows)
    mixed = serve(service(chunk_tokens=100, mixed=True), rows)
    assert apart.instants["end_s"][0] == pytest.approx(0.01 + 0.2 + 0.3)  # held up by three chunks
    passes = mixed.prefill[0]
    assert passes.prompt_tokens[passes.prefills].tolist() == [10, 99, 99, 99, 3]
    assert passes.requests[passes.prefills].tolist() == [0, 1, 1, 1, 1]
    assert mixed.instants["end_s"][0] == pytest.approx(0.01 + 0.2 + 0.3)  # as long, but its tokens went on
    gaps = np.diff(passes.end_s[passes.steps])
    assert gaps.max() == pytest.approx(0.109)
    alone = apart.prefill[0]
    assert np.diff(alone.end_s[alone.steps]).max() == pytest.approx(0.31)


# --- memory ----------------------------------------------------------------------------------------------------------


def test_kv_that_grows_lets_more_requests_run_than_kv_that_is_reserved() -> None:
    """100 tokens of room: reserved, one request of 10 + 50 runs at a time; grown, both start at once."""
    rows = requests([(0.0, 10, 50), (0.0, 10, 50)])
    reserved = serve(service(memory=100.0), rows)
    grown = serve(service(memory=100.0, preemption="recompute"), rows)
    assert reserved.instants["prefill_start_s"].tolist() == [0.0, reserved.instants["end_s"][0]]
    assert grown.instants["prefill_start_s"].tolist() == [0.0, 0.0]
    assert reserved.preemptions == 0
    assert grown.preemptions == 1


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
def test_the_latest_request_is_put_out_of_a_full_rank_and_comes_back_when_there_is_room(
    preemption: str,
) -> None:
    """Each holds 11 tokens after its prompt and one more a step: 100 are full before the 40th step. The first then has ten
    steps left; the second comes back at the first's end, computes its 49 tokens again or fetches them, and has ten left too."""
    here = replace(service(memory=100.0, preemption=preemption, swap_bytes_per_s=1e3))
    found = serve(here, requests([(0.0, 10, 50), (0.0, 10, 50)]))
    first, second = found.instants["end_s"]
    out_s = 0.049 if preemption == "swap" else 0.0  # a pass waits for what leaves, too
    assert first == pytest.approx(0.02 + 49 * 0.01 + out_s)
    assert second == pytest.approx(first + 0.049 + 10 * 0.01)
    assert found.preemptions == 1
    assert found.prefill[0].peak_kv_tokens <= 100


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
@pytest.mark.parametrize("memory", [100.0, 101.0])
def test_who_was_put_out_comes_back_only_to_room_for_its_next_step(preemption: str, memory: float) -> None:
    """At 101 the first takes the last token and the second finds none: where it goes there is just what it held."""
    here = service(memory=memory, preemption=preemption)
    assert serve(here, requests([(0.0, 10, 50), (0.0, 10, 50)])).preemptions == 1


def test_kv_is_held_in_whole_blocks() -> None:
    """Blocks of 16: a prompt of 17 holds 32 tokens, and 48 from its 33rd on."""
    found = serve(service(memory=64.0, preemption="recompute", block_tokens=16), requests([(0.0, 17, 20)]))
    assert found.prefill[0].peak_kv_tokens == 48
    assert found.prefill[0].kv_capacity_tokens == 64


ROWS = st.lists(
    st.tuples(st.floats(0, 0.3), st.integers(1, 60), st.integers(1, 30)), min_size=1, max_size=20
).map(sorted)


@given(
    ROWS,
    st.sampled_from(["none", "recompute", "swap"]),
    st.booleans(),
    st.integers(0, 2),
    st.integers(1, 3),
    st.sampled_from([None, *ROUTINGS[:2]]),
    st.sampled_from(POLICIES),
    st.integers(1, 20),
)
@settings(max_examples=80, deadline=None)
def test_whatever_the_engine_decides_all_end_within_memory_and_little_holds(
    rows: Any, preemption: str, mixed: bool, decode: int, ranks: int, routing: Any, policy: str, block: int
) -> None:
    memory = 120.0
    here = service(
        Pool(decode, memory * 2, num_ranks=2) if decode else None,
        ranks,
        memory,
        preemption=preemption,
        mixed=mixed and not decode,
        routing=routing,
        policy=policy,
        block_tokens=block,
        chunk_tokens=32,
        max_requests=4,
        swap_bytes_per_s=1e4,
    )
    asked = requests(rows)
    found = serve(replace(here, acceptance=(0.6, 0.5), seed=3), asked)
    kept = ~found.refused
    assert not np.isnan(found.instants["end_s"][kept]).any()
    assert (asked.prompt_tokens + asked.output_tokens)[kept].max(initial=0) <= memory
    for instance in found.prefill + found.decode:
        assert instance.peak_kv_tokens <= instance.kv_capacity_tokens
    assert_little(found, asked)
    assert_no_idle_rank_lets_a_prompt_wait(found)


def assert_little(found: ServingTrace, asked: Requests) -> None:
    """Requests in the house, integrated over time, are the sum of their stays."""
    at, kept = found.instants, ~found.refused
    events = sorted([(t, 1) for t in at["arrival_s"][kept]] + [(t, -1) for t in at["end_s"][kept]])
    area, inside, before = 0.0, 0, 0.0
    for instant, change in events:
        area += inside * (instant - before)
        inside, before = inside + change, instant
    assert area == pytest.approx(float((at["end_s"] - at["arrival_s"])[kept].sum()))


def assert_no_idle_rank_lets_a_prompt_wait(found: ServingTrace) -> None:
    """Work conservation: passes follow each other while anybody is in the house of an instance that does both."""
    if found.prefill is not found.decode or len(found.prefill) > 1:
        return
    one, at, kept = found.prefill[0], found.instants, ~found.refused
    for stop, start in zip(one.end_s[:-1], one.start_s[1:], strict=True):
        if start > stop:
            inside = (at["arrival_s"] < start) & (at["end_s"] > stop) & kept
            assert not inside.any()


# --- queueing theory -------------------------------------------------------------------------------------------------


def test_like_prompts_one_at_a_time_wait_as_in_m_d_1() -> None:
    """Each waits as Lindley's recursion says, and their mean is rho / (2 mu (1 - rho)) (Pollaczek and Khinchine)."""
    load, taken_s, num = 0.5, 0.1, 12_000
    rng = np.random.default_rng(1)
    asked = poisson(num, load / taken_s, Lengths("fixed", 100), Lengths("fixed", 1), rng)
    at = serve(service(batch_requests=1), asked).instants
    wait = [0.0]
    for gap in np.diff(asked.arrival_s).tolist():
        wait.append(max(0.0, wait[-1] + taken_s - gap))
    assert at["prefill_start_s"] - at["arrival_s"] == pytest.approx(np.array(wait), abs=1e-9)
    assert np.mean(wait) == pytest.approx(load * taken_s / 2 / (1 - load), rel=0.08)


# --- speculation -----------------------------------------------------------------------------------------------------


def test_steps_are_drawn_from_what_is_accepted_at_each_position() -> None:
    """1 + a1 + a1 a2 tokens a step in the mean; all right gives three, none gives one."""
    output = np.full(4000, 301)
    drawn = draw_steps(output, (0.8, 0.5), np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(300 / (1 + 0.8 + 0.4), rel=0.01)
    assert drawn.std() > 1
    assert (draw_steps(output, (1.0, 1.0), np.random.default_rng(0)) == 100).all()
    assert (draw_steps(output, (0.0,), np.random.default_rng(0)) == 300).all()
    assert draw_steps(np.array([1, 2]), (0.5,), np.random.default_rng(0)).tolist() == [0, 1]


# --- prefix caches and routing ---------------------------------------------------------------------------------------


def test_a_prompt_finds_the_leading_blocks_that_an_earlier_one_left() -> None:
    """Blocks of ten tokens: the second shares four of its six, the third none; as in a trace with hashes."""
    rows = requests([(0.0, 40, 1), (1.0, 60, 1), (2.0, 20, 1)], [[0, 1, 2, 3], [0, 1, 2, 3, 4, 5], [7, 8]])
    here = service(prefix_blocks=100, prefix_tokens=10)
    found = serve(here, rows)
    assert found.cached_tokens.tolist() == [0, 40, 0]
    assert found.instants["first_token_s"] - found.instants["arrival_s"] == pytest.approx([0.04, 0.02, 0.02])
    assert measure(here, rows, found, 1)["cache_hit_fraction"] == pytest.approx(40 / 120)


def test_a_whole_prompt_in_the_cache_still_computes_its_last_token() -> None:
    rows = requests([(0.0, 40, 1), (1.0, 40, 1)], [[0, 1, 2, 3]] * 2)
    assert serve(service(prefix_blocks=9, prefix_tokens=10), rows).cached_tokens.tolist() == [0, 39]


def test_a_full_cache_drops_what_was_used_least_recently_and_ends_before_beginnings() -> None:
    cache = PrefixCache(3)
    cache.keep([1, 2])
    cache.keep([8])
    cache.keep([1, 2])
    cache.keep([9])
    assert [cache.find([1, 2]), cache.find([8]), cache.find([9])] == [2, 0, 1]
    cache.keep([5])
    assert [cache.find([1, 2]), cache.find([5])] == [1, 1]


@pytest.mark.parametrize(("routing", "hits"), [("round_robin", 0), ("cache_aware", 40)])
def test_an_aware_router_sends_a_prompt_to_the_rank_that_keeps_its_blocks(routing: str, hits: int) -> None:
    rows = requests(
        [(0.0, 40, 1), (1.0, 20, 1), (2.0, 20, 1), (3.0, 40, 1)], [[0, 1, 2, 3], [8, 9], [6, 7], [0, 1, 2, 3]]
    )
    found = serve(service(ranks=2, prefix_blocks=100, prefix_tokens=10, routing=routing), rows)
    assert found.cached_tokens[3] == min(hits, 39)


def test_the_shortest_queue_is_joined_and_turns_are_taken_blindly() -> None:
    """Two ranks; every other prompt is long. In turn, the long ones all wait for one rank."""
    rows = requests([(0.25 * i, 1000 if i % 2 == 0 else 10, 1) for i in range(12)])
    waits = {}
    for routing in ("round_robin", "shortest_queue"):
        at = serve(service(ranks=2, chunk_tokens=100, routing=routing), rows).instants
        waits[routing] = float(at["end_s"].max())
    assert waits["round_robin"] == pytest.approx(6.0, rel=0.02)
    assert waits["shortest_queue"] < 0.9 * waits["round_robin"]


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("workload.engine.mixed=true", "'decode.instances: 0': pools are apart"),
        ("workload.engine.max_requests_per_gpu=8", "one of them: the most requests of a GPU"),
        ("workload.engine.routing=cache_aware", "a 'prefix_cache' to look at"),
        ("workload.engine.prefix_cache={capacity: 1 GB}", "requests with hashes of blocks"),
        ("workload.engine.memory_fraction=120 %", "100 % at the most"),
        ("workload.engine.preemption=kill", "one of: none, recompute, swap"),
        ("workload.engine.routing=random", "routing"),
    ],
)
def test_bad_decisions_say_what_would_do(setting: str, wanted: str) -> None:
    with pytest.raises(InputError, match=wanted):
        run.run_document(scenario_settings.read("serving-example", [setting]))
