"""What a decode step costs at every load: that of a decode scenario where there is one, and little where few requests run."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import sim
from sim.runs.inference import run_inference
from sim.runs.step_surface import Surface, surface, whole_loads
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.scenario.resolve import resolve
from sim.scenario.serving import Serving
from sim.scenario.settings import read
from sim.schedule.serving import PassWork
from sim.workload.expectation import rows_of_touched, touched

MOST = 32


@cache
def decode() -> Scenario:
    work = resolve(read("serving-example", ["variants={}"])).workload
    assert isinstance(work, Serving)
    return work.decode


@cache
def steps() -> Surface:
    return surface(decode(), work(), MOST)


def work() -> Inference:
    found = decode().workload
    assert isinstance(found, Inference)
    return found


def step_of_a_scenario_s(requests: int, context_tokens: int) -> float:
    one = replace(work(), requests=requests, context_tokens=context_tokens)
    found: float = run_inference(replace(decode(), workload=one), lambda _: None)["metrics"]["step_time_s"]
    return found


def step_s(load: float, context_tokens: int) -> float:
    """A step of so many requests of the mean GPU, all alike, as evenly spread as may be."""
    total = round(32 * load)
    requests = np.array([total // 32 + (rank < total % 32) for rank in range(32)])
    return steps().step_s(PassWork({}, requests, requests * float(context_tokens)))


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("requests", [1, 2, 4, 16, 32])
def test_a_step_of_a_whole_load_takes_what_decode_alone_says(requests: int) -> None:
    assert step_s(requests, 2048) == pytest.approx(step_of_a_scenario_s(requests, 2048), rel=1e-12)


def test_between_computed_points_the_surface_keeps_close_to_decode_alone() -> None:
    for requests, context in ((6, 1000), (12, 3000), (24, 2073)):
        assert step_s(requests, context) == pytest.approx(step_of_a_scenario_s(requests, context), rel=0.01)


@pytest.mark.slow
def test_more_requests_or_more_context_never_take_less() -> None:
    loads, contexts = np.linspace(1 / 32, MOST, 32 * MOST), (1, 500, 2073, 8000)
    times = np.array([[step_s(load, context) for context in contexts] for load in loads.tolist()])
    assert (np.diff(times, axis=0) >= 0).all()
    assert (np.diff(times, axis=1) >= 0).all()


def test_one_request_in_all_touches_few_experts_and_takes_less() -> None:
    context = work().context_tokens
    assert step_s(1 / 32, context) < 0.8 * step_s(1, context)


def test_a_request_alone_on_32_gpus_is_served_at_the_pace_of_one(tmp_path: Any) -> None:
    file = tmp_path / "one.csv"
    file.write_text("arrival_s,prompt_tokens,output_tokens\n0,2000,171\n")
    found = sim.run("serving-example", {"variants": {}, "workload.arrivals.file": str(file)})["metrics"]
    assert found["token_gap"]["p50_s"] == pytest.approx(step_s(1 / 32, 2000), rel=0.01)


def test_loads_that_are_computed_lie_on_both_sides_of_a_tile() -> None:
    assert whole_loads(1) == [1, 2]
    assert whole_loads(20) == [*range(1, 10), 16, 17, 20]
    assert {64, 65, 128, 129, 240, 241} < set(whole_loads(300))


# --- experts that get a token at all -----------------------------------------------------------------------------------


def test_as_many_experts_are_touched_as_draws_touch() -> None:
    """8 of 64 experts without replacement for each of 5 tokens: each is missed with (1 - 1/8)^5."""
    rng = np.random.default_rng(0)
    drawn = np.mean(
        [len({e for _ in range(5) for e in rng.choice(64, 8, replace=False).tolist()}) for _ in range(2000)]
    )
    expected = float(touched(np.full(64, 5 * 8 / 64), 5).sum())
    assert expected == pytest.approx(64 * (1 - (1 - 1 / 8) ** 5))
    assert drawn == pytest.approx(expected, rel=0.005)


def test_a_gate_without_chance_leaves_no_expert_out_before_all_have_a_token() -> None:
    assert touched(np.full(64, 0.5), 4, evenly=True).sum() == 32
    assert touched(np.full(64, 2.0), 16, evenly=True).sum() == 64


def test_few_tokens_leave_each_rank_its_touched_experts_with_all_of_its_rows() -> None:
    rows = np.full((4, 16), 5 * 8 / 64)
    for mine in rows_of_touched(rows, 5):
        chance = 1 - (1 - 1 / 8) ** 5
        assert len(mine) == np.ceil(16 * chance)
        assert mine == pytest.approx(np.full(len(mine), 5 / 8 / chance))  # rows of an expert that has any
    assert all(len(mine) == 16 for mine in rows_of_touched(np.full((4, 16), 500.0), 4000))
