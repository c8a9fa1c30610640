"""No time of a deployment that serves is below what FLOPs and bytes leave at the least, whatever the deployment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sim.engine.serving import serve
from sim.runs.service import service_of
from sim.runs.serving_bound import bound_of
from sim.runs.serving_metrics import measure
from sim.scenario import settings as scenario_settings
from sim.scenario.resolve import resolve
from sim.scenario.serving import Serving
from sim.workload.requests import Requests


def drawn(seed: int) -> dict[str, Any]:
    """Any small deployment of any machine: one node or two a pool, pools apart or one, with any engine."""
    rng = np.random.default_rng([seed, 7])

    def one(*choices: Any) -> Any:
        return choices[int(rng.integers(len(choices)))]

    apart, ep = bool(rng.random() < 0.5), one(8, 8, 16)
    plan = {"gate": {"kind": "uniform", "sampling": "expected"}, "overlap": one("auto", True, False)}
    pool = {"ep": ep, "instances": one(1, 2)}
    prefill = pool | {"batch_tokens": one(512, 4096, 16_384), "plan": plan | {"kernel": {"kind": "two_hop"}}}
    decode = pool | {"plan": plan | {"kernel": {"kind": "low_latency"}}, "requests_per_gpu": one(1, 8, 64)}
    if not apart:
        decode["instances"] = 0
    lengths = [
        {"kind": one("fixed", "lognormal"), "mean": int(2 ** rng.uniform(*span)), "most": 100_000}
        for span in ((5, 15), (1, 9))
    ]
    engine = {
        "mixed": not apart and bool(rng.random() < 0.5),
        "preemption": one("none", "recompute", "swap"),
        "routing": one("round_robin", "shortest_queue"),
    }
    return {
        "name": "drawn",
        "cluster": {"hardware": one("h100", "h800", "h20", "h200", "a800"), "nodes": 8},
        "model": one("qwen3-30b-a3b", "deepseek-v2-lite", *(["mixtral-8x7b"] if ep == 8 else [])),
        "workload": {
            "kind": "serving",
            "prefill": prefill,
            "decode": decode,
            "engine": engine,
            "cached": one("0 %", "30 %"),
            "arrivals": {
                "kind": "poisson",
                "requests": 30,
                "requests_per_s": float(10 ** rng.uniform(-1, 3)),
                "prompt": lengths[0],
                "output": lengths[1],
            },
        },
    }


def assert_bounded(seed: int, loads: int = 1) -> None:
    """A deployment under what it was drawn to serve, and under loads of other lengths and rates."""
    scenario = resolve(scenario_settings.read(drawn(seed)))
    work = scenario.workload
    assert isinstance(work, Serving)
    service = service_of(scenario, lambda _: None)
    rng = np.random.default_rng([seed, 8])
    for load in range(loads):
        asked = other_load(work.requests, rng) if load else work.requests
        found = serve(service, asked)
        bound = bound_of(work, asked, found)
        at, kept = found.instants, ~found.refused
        assert (at["first_token_s"] - at["arrival_s"] >= bound.ttft_s)[kept].all()
        decoded = kept & (asked.output_tokens > 1)
        taken_s = at["end_s"] - at["first_token_s"]
        assert (taken_s >= bound.step_s * found.steps)[decoded].all()
        if kept.any():
            metrics = measure(service, asked, found, work.num_gpus, bound=bound)
            assert metrics["makespan_s"] >= metrics["lower_bound_s"] > 0


def other_load(asked: Requests, rng: np.random.Generator) -> Requests:
    """Requests in another order of lengths, up to as long, that come up to ten times as fast or slowly."""
    prompt, output = (
        np.maximum(1, (rng.permutation(tokens) * rng.uniform(0.05, 1)).astype(np.int64))
        for tokens in (asked.prompt_tokens, asked.output_tokens)
    )
    arrival_s = asked.arrival_s * 10 ** rng.uniform(-1, 1)
    return replace(asked, arrival_s=arrival_s, prompt_tokens=prompt, output_tokens=output)


@pytest.mark.parametrize("seed", range(2))
def test_no_time_is_below_its_bound(seed: int) -> None:
    assert_bounded(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(2, 127, 25))
def test_no_time_is_below_its_bound_under_any_of_500_loads_of_125_deployments(first: int) -> None:
    """Loads of one deployment share what its passes take."""
    for seed in range(first, first + 25):
        assert_bounded(seed, loads=4)
