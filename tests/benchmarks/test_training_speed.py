"""How long a training step takes to simulate. Run with `pytest -o addopts= tests/benchmarks`; aims beside each case.

`step` is everything from the scenario to the result, once numba has compiled; `exchange` is one solution of a skewed
all-to-all, of which the skewed step asks 28 thousand. CPU seconds stand in `extra_info`: machines are shared.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from sim.engine.step_costs import Skew, StepCosts
from sim.study import training
from sim.study.run import run_document
from sim.study.scenario import read, resolve

BALANCED = [f"workload.skew.{key}=0" for key in ("routed_load", "kernel_jitter", "gpu_spread")]
STEPS = {"balanced": (BALANCED, 3.0), "skewed": ([], 60.0)}  # settings, aim [s] on two cores


@pytest.mark.parametrize("case", STEPS)
def test_the_v3_step_on_2048_gpus(benchmark: Any, case: str) -> None:
    settings, aim_s = STEPS[case]
    begun = time.process_time()
    result = benchmark.pedantic(
        lambda: run_document(read("v3-training-h800", settings)), rounds=1, iterations=1, warmup_rounds=0
    )
    benchmark.extra_info |= {
        "aim_s": aim_s,
        "cpu_s": time.process_time() - begun,
        "num_tasks": sum(len(row["kinds"]) for row in result["timeline"]["pipeline"]),
    }
    assert result["metrics"]["step_time_s"] > result["metrics"]["lower_bound_s"]


@pytest.mark.parametrize("kernel", ["dispatch", "combine"])
def test_a_skewed_exchange_of_64_ranks(benchmark: Any, kernel: str) -> None:
    scenario = resolve(read("v3-training-h800"))
    work, model = scenario.workload, scenario.model
    assert isinstance(work, training.Training)
    assert model is not None
    made = training.exchanges_of(scenario, work, model, training.routing_of(scenario, work, model))
    skew = Skew(routed_load=0.075)
    even = dict.fromkeys(made, 1.0)
    costs = StepCosts(made, even, skew, num_groups=1, num_layers=0, num_microbatches=64, seed=0)
    assert costs.loads is not None
    loads = iter(np.tile(costs.loads[0, 0], (20, 1)))
    found = benchmark.pedantic(
        lambda: costs._solve(kernel, next(loads)), rounds=500, iterations=1, warmup_rounds=5
    )
    benchmark.extra_info["aim_s"] = 1e-3
    assert found.longest_s > 0
