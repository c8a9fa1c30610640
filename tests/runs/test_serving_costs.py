"""Passes of a deployment that serves cost what `kind: prefill` and `kind: decode` say, at every length, batch and load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from sim.engine.serving import serve
from sim.runs import pass_pipeline, passes
from sim.runs.inference import run_inference
from sim.runs.pass_plan import PassPlan
from sim.runs.pass_surface import PassSurface
from sim.runs.passes import forward_pass
from sim.runs.service import service_of
from sim.runs.serving_bound import bound_of
from sim.runs.step_surface import context_step_s, surface
from sim.scenario import settings as scenario_settings
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.scenario.resolve import resolve
from sim.scenario.serving import Serving
from sim.schedule.serving import PassWork, Service
from sim.workload.requests import Requests

PLAN = {
    "gate": {"kind": "group_limited", "sampling": "expected"},
    "placement": {"kind": "eplb", "redundant_experts": 32},
}
PREFILL = PLAN | {"kernel": {"kind": "two_hop", "comm_sms": 24}}
LONG = 81_920
"""Tokens of a prompt whose causal attention alone takes 61 x 128 x (192 + 128) x LONG^2 FLOP: 16.95 s of the BF16 peak."""


def document(kind: str, **work: Any) -> Scenario:
    tree = {"name": "long", "cluster": {"hardware": "h800", "nodes": 8 if kind == "serving" else 4}}
    return resolve(
        scenario_settings.read(tree | {"model": "deepseek-v3", "workload": {"kind": kind, **work}})
    )


def serving(**changes: Any) -> Scenario:
    drawn = {"kind": "fixed", "mean": 2000}
    pools = {
        "prefill": {"ep": 32, "batch_tokens": 8192, "plan": PREFILL},
        "decode": {"ep": 32, "requests_per_gpu": 32, "plan": PLAN | {"kernel": {"kind": "low_latency"}}},
    }
    arrivals = {"kind": "poisson", "requests": 1, "requests_per_s": 1.0, "prompt": drawn, "output": drawn}
    return document("serving", **(pools | {"arrivals": arrivals} | changes))


@cache
def service() -> tuple[Serving, Service]:
    scenario = serving()
    assert isinstance(scenario.workload, Serving)
    return scenario.workload, service_of(scenario, lambda _: None)


def first_tokens_s(prompts: Sequence[int]) -> np.ndarray[Any, Any]:
    num = len(prompts)
    asked = Requests(np.zeros(num), np.array(prompts), np.full(num, 2))
    return serve(service()[1], asked).instants["first_token_s"]


def test_a_lone_long_prompt_takes_more_than_its_attention_and_less_than_in_a_full_house() -> None:
    """Its attention as prefill computes it takes 28.7 s; 32 of them, one for each GPU, take 41.6 s as a prefill."""
    lone = first_tokens_s([LONG])[0]
    assert 28.7 < lone < 40.0


def test_a_prompt_for_every_gpu_takes_as_long_as_the_prefill_of_the_same_plan() -> None:
    prefill = document(
        "prefill", prompt_tokens=LONG, chunk_tokens=8192, prompts_per_gpu=1, overlap=False, **PREFILL
    )
    alone_s = run_inference(prefill, lambda _: None)["metrics"]["ttft_s"]
    assert alone_s == pytest.approx(41.6, rel=0.02)
    assert first_tokens_s([LONG] * 32) == pytest.approx([alone_s] * 32, rel=0.02)


def test_short_prompts_next_to_a_long_one_have_their_first_tokens_after_one_pass() -> None:
    first = first_tokens_s([LONG] + [1000] * 31)
    assert first[0] > 28.7
    assert (first[1:] < 2.0).all()


# --- surfaces and the passes they stand for --------------------------------------------------------------------------


def instance(name: str, **changes: Any) -> tuple[Scenario, Inference]:
    part = getattr(serving(**changes).workload, name)
    assert isinstance(part.workload, Inference)
    return part, part.workload


def prefill_error(costs: PassSurface, way: int, prompts: int, new: int, before: int) -> float:
    """Error of a pass of like prompts on every GPU, in one batch or in two [fraction]."""
    scenario, work = instance("prefill")
    lengths = {"requests": prompts, "context_tokens": new + before, "step_tokens": new}
    forward = forward_pass(PassPlan(scenario, replace(work.ways[way], **lengths), prompts, before))
    passed_s = pass_pipeline.step_s(forward, passes.run(forward))
    chunks = {rank: [(new, before)] * prompts for rank in range(32)}
    todo = PassWork(chunks, np.zeros(32, dtype=np.int64), np.zeros(32))
    own = costs.ways[way]
    local_s = own.local_s(new * prompts) + own.core_s(todo, 0, 1, 1)
    return own.time_s(new * prompts, 1.0, local_s) / passed_s - 1


@pytest.mark.parametrize("way", [0, 1])
def test_a_pass_that_prefills_costs_what_prefill_says(way: int) -> None:
    """From 128 to 131,072 tokens, as whole prompts and as chunks of long ones; odd numbers fall between computed points."""
    costs = PassSurface(*instance("prefill"), 16_384)
    prompts = (2, 8) if way else (1, 5)
    lengths = ((128, 0), (133, 0), (777, 0), (2500, 0), (1900, 3000), (130, 130_942), (2048, 129_024))
    errors = [prefill_error(costs, way, k, *length) for k in prompts for length in lengths]
    assert max(map(abs, errors)) <= 0.02


def test_a_pass_of_two_tokens_costs_what_prefill_says() -> None:
    assert abs(prefill_error(PassSurface(*instance("prefill"), 16_384), 0, 1, 2, 0)) <= 0.001


def test_points_between_which_a_pass_is_read_rise_by_no_more_than_a_factor_of_two() -> None:
    for way in PassSurface(*instance("prefill"), 16_384).ways:
        for points in (way.tokens, way.shares):
            steps = np.diff(np.log2(points))
            assert (steps > 0).all()
            assert (steps <= 1).all()
        assert (way.shares[0], way.shares[-1]) == (
            1 / 32,
            1.0,
        )


def test_the_attention_of_a_pass_is_that_of_its_chunks_and_of_its_running_requests() -> None:
    own = PassSurface(*instance("prefill"), 16_384).ways[0]
    ran, context = np.full(32, 4), np.full(32, 4.0 * 5000)
    chunks, none = {0: [(2048, 4096)]}, np.zeros(32, dtype=np.int64)
    alone_s = [
        own.core_s(work, 0, 1, 1)
        for work in (PassWork(chunks, none, np.zeros(32)), PassWork({}, ran, context))
    ]
    assert min(alone_s) > 0
    assert own.core_s(PassWork(chunks, ran, context), 0, 1, 1) == pytest.approx(sum(alone_s))


def test_running_requests_bring_a_token_each_to_a_pass() -> None:
    """As a pass of so many tokens that attend the same, and quicker than of one more."""
    costs = PassSurface(*instance("prefill"), 16_384)
    running = PassWork({}, np.full(32, 40), np.full(32, 40.0 * 5000))
    own = costs.ways[1]  # in two batches, as the plan has it
    core_s = own.core_s(running, 0, 1, 1)
    these_s, more_s = (own.pass_s(tokens, 1.0, core_s) for tokens in (40.0, 41.0))
    assert costs(running) == pytest.approx(these_s, rel=1e-12)
    assert these_s < more_s


@pytest.mark.slow
@pytest.mark.parametrize("way", [0, 1])
def test_a_pass_that_prefills_costs_what_prefill_says_at_random(way: int) -> None:
    costs, rng = PassSurface(*instance("prefill"), 16_384), np.random.default_rng(way)
    for _ in range(100):
        prompts, new = int(rng.integers(1, 6)) * (1 + way), int(2 ** rng.uniform(7, 13))
        before = int(2 ** rng.uniform(7, 17)) if rng.random() < 0.5 else 0
        assert abs(prefill_error(costs, way, prompts, new, before)) <= 0.02, (prompts, new, before)


def step_error(cost: Any, scenario: Scenario, work: Inference, requests: int, context: int) -> float:
    """Error of a step of like requests on every GPU [fraction]."""
    ranks = work.layout.dp
    plans = [
        PassPlan(scenario, replace(way, context_tokens=context), requests)
        for way in work.ways[: min(requests, 2)]
    ]
    passed_s = min(context_step_s(forward_pass(plan), context)[0] for plan in plans)
    todo = PassWork({}, np.full(ranks, requests), np.full(ranks, float(requests * context)))
    return float(cost(todo)) / passed_s - 1


def test_a_decode_step_costs_what_decode_says() -> None:
    scenario, work = instance("decode")
    cost = surface(scenario, work, 128).step_s
    points = (
        (1, 128),
        (2, 131_072),
        (7, 900),
        (33, 5000),
        (66, 1641),
        (73, 145),
        (101, 20_000),
        (128, 131_072),
    )
    assert max(abs(step_error(cost, scenario, work, *point)) for point in points) <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [1, 2])
def test_a_decode_step_costs_what_decode_says_at_random(tokens: int) -> None:
    plan = PLAN | {"kernel": {"kind": "low_latency"}, "tokens_per_step": tokens}
    scenario, work = instance("decode", decode={"ep": 32, "requests_per_gpu": 128, "plan": plan})
    cost, rng = surface(scenario, work, 128).step_s, np.random.default_rng(tokens)
    for _ in range(100):
        point = int(rng.integers(1, 129)), int(2 ** rng.uniform(7, 17))
        assert abs(step_error(cost, scenario, work, *point)) <= 0.02, point


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_the_bound_of_a_first_token_is_the_flops_of_its_own_gpu() -> None:
    """Core: 16.95 s at 989.4 TFLOP/s. Projections: 61 layers of 187.1 M weights; shared experts and dense layers next to them,
    58 x 44.04 M and 3 x 396.4 M, at twice the rate in FP8."""
    work, here = service()
    asked = Requests(np.zeros(1), np.array([LONG]), np.array([2]))
    found = bound_of(work, asked, serve(here, asked))
    core_s = 61 * 128 * (192 + 128) * LONG**2 / 989.4e12
    weights = 61 * 187.1e6 + 58 * 44.04e6 + 3 * 396.4e6
    assert core_s == pytest.approx(16.95, rel=1e-3)
    assert found.ttft_s[0] == pytest.approx(core_s + 2 * weights * LONG / 1978.9e12, rel=0.02)


def test_the_bound_of_a_step_reads_its_own_weights_and_cache_once() -> None:
    work, here = service()
    asked = Requests(np.zeros(1), np.array([LONG]), np.array([2]))
    found = bound_of(work, asked, serve(here, asked))
    weights = 61 * 187.1e6 + 58 * 44.04e6 + 3 * 396.4e6
    # What is absorbed, of 128 heads of 2 x 128 by 512, is there in BF16, a byte more, and so are gates of 256 x 7,168.
    absorbed, gates = 61 * 128 * 2 * 128 * 512, 58 * 2 * 256 * 7168
    cache = 61 * 576 * 2 * LONG
    assert found.step_s[0] == pytest.approx((weights + absorbed + gates + cache) / 3.35e12, rel=0.004)
