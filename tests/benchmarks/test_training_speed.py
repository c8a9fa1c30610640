"""How long a training step takes to simulate. Run with `pytest -o addopts= tests/benchmarks`; aims beside each case.

A step is everything from the scenario to the result, once numba has compiled. CPU seconds stand in `extra_info`: machines are shared.
"""

from __future__ import annotations

import functools
import itertools
import resource
import statistics
import time
from typing import Any

import pytest

from sim.errors import InfeasibleError
from sim.runs import training
from sim.runs.run import run_document
from sim.scenario.resolve import resolve
from sim.scenario.settings import apply, read
from sim.schedule import pipelines

BALANCED = [f"workload.skew.{key}=0" for key in ("routed_load", "kernel_jitter", "gpu_spread")]
DEEP = ["layout.pp=32", "layout.tp=4", "workload.schedule=1f1b", "workload.microbatches=960"]
STEPS = {  # settings, tasks, aim [s] of CPU time
    "balanced": (BALANCED, 2_418, 0.1),
    "balanced-pp32-tp4": ([*BALANCED, *DEEP], 61_440, 0.6),
    "one NIC at half rate": ([*BALANCED, "cluster.faults=[{node: 5, nic: 3, bandwidth: 50 %}]"], 2_418, 1.0),
    "skewed": ([], 2_418, 2.0),
    "skewed, every group its own": (["workload.skew.groups=all"], 2_418, 30.0),
}


@pytest.mark.parametrize("case", STEPS)
def test_the_v3_step_on_2048_gpus(benchmark: Any, case: str) -> None:
    settings, num_tasks, aim_s = STEPS[case]
    cpu_s: list[float] = []

    def whole() -> dict[str, Any]:
        begun = time.process_time()
        found = run_document(read("v3-training-h800", settings))
        cpu_s.append(time.process_time() - begun)
        return found

    rounds = {"rounds": 15, "warmup_rounds": 1} if aim_s < 2 else {"rounds": 1, "warmup_rounds": 0}
    result = benchmark.pedantic(whole, iterations=1, **rounds)
    benchmark.extra_info |= {
        "aim_s": aim_s,
        "cpu_s": statistics.median(cpu_s[1:] or cpu_s),
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    assert sum(len(row["kinds"]) for row in result["timeline"]["pipeline"]) == num_tasks
    assert result["metrics"]["step_time_s"] > result["metrics"]["lower_bound_s"]


def test_points_of_a_sweep_that_all_differ(benchmark: Any) -> None:
    """Aim: 0.12 s of CPU time a point, that is 1,000 points a minute on two cores."""
    base = read("v3-training-h800", BALANCED)
    points = itertools.product((8, 16, 32), (1, 2, 4, 8), (16, 64), ("1f1b", "zb1p", "dualpipe"))
    cpu_s: list[float] = []

    def whole() -> None:
        for pp, tp, ep, schedule in points:
            begun = time.process_time()
            one = base.copy()
            keys = {"layout.pp": pp, "layout.tp": tp, "layout.ep": ep, "workload.schedule": schedule}
            keys |= {"workload.microbatches": 15_360 * pp * tp // 2048}
            apply(one, [f"{key}={value}" for key, value in keys.items()])
            try:
                training.Step.from_scenario(resolve(one)).run()
            except InfeasibleError:
                continue
            cpu_s.append(time.process_time() - begun)

    training.Step.from_scenario(resolve(base)).run()  # numba's
    benchmark.pedantic(whole, rounds=1, iterations=1)
    benchmark.extra_info |= {"aim_s": 0.12, "cpu_s": statistics.mean(cpu_s), "num_points": len(cpu_s)}


def test_the_bound_of_a_step(benchmark: Any) -> None:
    scenario = resolve(read("v3-training-h800", [*BALANCED, *DEEP]))
    bound = benchmark.pedantic(
        lambda: training.Step.from_scenario(scenario).lower_bound_s, rounds=20, warmup_rounds=1
    )
    benchmark.extra_info["aim_s"] = 0.02
    assert bound > 0


@pytest.mark.parametrize("kind", pipelines.SCHEDULES)
def test_the_orders_of_32_ranks_and_2000_microbatches(benchmark: Any, kind: str) -> None:
    num = 2000 - 2000 % 32 if kind == "interleaved" else 2000
    plan = functools.partial(pipelines.plan, kind, 32, num)
    pipeline = benchmark.pedantic(plan, setup=pipelines._laid_out.cache_clear, rounds=10, warmup_rounds=1)
    benchmark.extra_info |= {"aim_s": 0.1, "num_operations": len(pipeline.table.kind)}
