"""How fast sweeps are: points a minute of DeepSeek-V3 layouts, one job against two, and what a remembered point costs.

pytest -o addopts= tests/benchmarks/test_sweep_speed.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from sim import documents
from sim.sweeps import file as sweep_file
from sim.sweeps import run as sweeping
from sim.sweeps.file import Sweep
from sim.sweeps.store import Store
from sim.sweeps.workers import Processes

THOUSAND = """
name: thousand
base: v3-training-h800
set:
  workload.microbatches: null
  workload.global_batch: 15360
  workload.skew: {routed_load: 0, kernel_jitter: 0, gpu_spread: 0}
axes:
  layout: # eight that fit, as they rank
    a: {layout.pp: 16, layout.ep: 64, layout.tp: 1, workload.schedule: dualpipe}
    b: {layout.pp: 8, layout.ep: 128, layout.tp: 2, workload.schedule: dualpipe}
    c: {layout.pp: 8, layout.ep: 64, layout.tp: 2, workload.schedule: dualpipe}
    d: {layout.pp: 16, layout.ep: 128, layout.tp: 1, workload.schedule: dualpipe}
    e: {layout.pp: 16, layout.ep: 64, layout.tp: 2, workload.schedule: dualpipe}
    f: {layout.pp: 8, layout.ep: 32, layout.tp: 1, workload.schedule: 1f1b}
    g: {layout.pp: 16, layout.ep: 16, layout.tp: 1, workload.schedule: zb1p}
    h: {layout.pp: 4, layout.ep: 64, layout.tp: 2, workload.schedule: interleaved}
  workload.kernel.comm_sms: [8, 12, 16, 20, 24]
  cluster.override.gpu.scale_up.bandwidth: {from: 100 GB/s, to: 500 GB/s, step: 100 GB/s}
  cluster.override.nic.bandwidth: [200 Gb/s, 300 Gb/s, 400 Gb/s, 600 Gb/s, 800 Gb/s]
objectives: {step_time_s: minimise}
"""


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return sweep_file.sweep_of(documents.loads(THOUSAND, "thousand.yaml"))


def run(sweep: Sweep, folder: Path, jobs: int) -> dict[str, Any]:
    workers = Processes(jobs)
    try:
        with Store(folder / "sweep.sqlite") as store:
            return sweeping.run(sweep, workers, store)
    finally:
        workers.close()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_thousand_simulated_layouts(
    jobs: int, sweep: Sweep, benchmark: BenchmarkFixture, tmp_path: Path
) -> None:
    found = benchmark.pedantic(run, (sweep, tmp_path, jobs), rounds=1)
    assert found["counts"]["ok"] == found["runs"]["computed"] == 1000
    benchmark.extra_info["points_per_minute"] = round(60 * 1000 / benchmark.stats["mean"])


def test_a_thousand_remembered_layouts(sweep: Sweep, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    run(sweep, tmp_path, 2)
    found = benchmark.pedantic(run, (sweep, tmp_path, 1), rounds=3)
    assert found["runs"] == {"computed": 0, "remembered": 1000, "of_changes": 0}
