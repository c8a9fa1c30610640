"""Small results of every kind of workload, run once a session, for tests of tables, plots, pages and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import shared
import sim

SMALL = """
name: small
cluster: {hardware: h800, nodes: 2}
model: deepseek-v3
workload:
  kind: all_to_all
  tokens_per_rank: 128
  gate: {kind: deepep_benchmark, top_groups: 2}
  kernel: {kind: two_hop}
"""


EXPECT = """
expect:
  dispatch.logical_rdma_bytes_per_s: {value: 20 GB/s, tolerance: 90%, source: made up}
  combine.time_s: {value: 9 s, tolerance: 1%}
"""


VARIANTS = """
variants:
  h800: {}
  h100: {cluster.hardware: h100}
"""


FLOWS = """
name: bare
cluster:
  fabric: {kind: leaf_spine, hosts: 8, hosts_per_leaf: 4, spines: 4, link: 400 Gb/s, routing: ROUTING,
           link_latency: 500 ns, switch_latency: 300 ns}
workload: {kind: flows, file: flows.csv}
"""


EXCHANGE = """
name: plain
cluster: {hardware: h800, nodes: 2, fabric: {kind: multi_plane}}
workload: {kind: all_to_all, bytes_per_rank: 64 MiB, kernel: {kind: nccl}}
"""


def row(error: float, use: str) -> dict[str, Any]:
    return {
        "id": f"{use}{error}", "quantity": "time_s", "unit": "s", "published": 1e-3, "simulated": 1e-3 * (1 + error),
        "error_fraction": error, "tolerance_fraction": 0.1, "use": use, "ok": abs(error) <= 0.1,
    }  # fmt: skip


PRINTED = row(0.7, "validation") | {"bar": None, "tolerance_fraction": None, "ok": True}


VALIDATION: dict[str, Any] = {
    "groups": {
        "two_hop": {
            "ok": False, "mean_abs_error_fraction": 0.07, "worst_error_fraction": 0.2,
            "rows": [row(0.01, "calibration"), row(-0.03, "prediction"), row(0.2, "prediction"), PRINTED],
        },
        "models": {"ok": True, "mean_abs_error_fraction": 0.0, "worst_error_fraction": 0.0, "rows": [row(0.0, "exact")]},
    }
}  # fmt: skip


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    found = shared.once("results", lambda: _results(tmp_path_factory.mktemp("scenarios")))
    return found | {"validation": VALIDATION}


def _results(folder: Path) -> dict[str, dict[str, Any]]:
    lines = [f"{8 * s + d + 1},{s},{d},100000,0" for s in range(8) for d in range(8) if s != d]
    (folder / "flows.csv").write_text("flow_id,src,dst,bytes,start_us\n" + "\n".join(lines) + "\n")
    texts = {
        "single": SMALL + EXPECT,
        "variants": SMALL + VARIANTS,
        "closed": "fidelity: closed_form\n"
        + SMALL.replace("top_groups: 2", "top_groups: 2, sampling: expected"),
        "flows": FLOWS.replace("ROUTING", "adaptive"),
        "ecmp": FLOWS.replace("ROUTING", "ecmp"),
        "exchange": EXCHANGE,
    }
    found = {}
    for name, text in texts.items():
        path = folder / f"{name}.yaml"
        path.write_text(text)
        found[name] = sim.run(path)
    return found


STEP = """
name: step
title: Mixtral 8x7B on 32 H800
cluster: {hardware: h800, nodes: 4}
model: mixtral-8x7b
layout: {pp: 4, ep: 8}
workload:
  kind: training
  sequence_tokens: 1024
  microbatches: 8
  schedule: SCHEDULE
  precision: bf16
  kernel: {kind: two_hop}
  skew: {routed_load: 0 %, kernel_jitter: 0 %, gpu_spread: 0 %}
"""


RUN = """  run:
    tokens: 1 T
    price: 2 $/GPU-hour
    failures: {mtbf: {gpu: 5000 h, node: 20000 h, nic: 50000 h}, checkpoint: {write: 60 s}, restart: 5 min, spares: 1}
"""


STEP_EXPECT = "expect:\n  step_time_s: {value: 500 ms, tolerance: 1 %, source: made up}\n"


STEP_VARIANTS = """
variants:
  h800: {}
  h100: {cluster.hardware: h100}
  apart: {workload.overlap: false}
"""


@pytest.fixture(scope="session")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    found: dict[str, Any] = shared.once("steps", lambda: _steps(tmp_path_factory.mktemp("steps")))
    return found | {"dualpipe": found["variants"]["variants"]["h800"]}


def _steps(folder: Path) -> dict[str, dict[str, Any]]:
    texts = {
        "1f1b": STEP.replace("SCHEDULE", "1f1b") + STEP_EXPECT,
        "variants": STEP.replace("SCHEDULE", "dualpipe") + RUN + STEP_VARIANTS,
    }
    found = {}
    for name, text in texts.items():
        path = folder / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        found[name] = sim.run(path)
    return found


REQUESTS = 40


@pytest.fixture(scope="session")
def runs(results: dict[str, Any], steps: dict[str, Any]) -> dict[str, Any]:
    given = {"all_to_all": results["single"], "exchange": results["exchange"], "flows": results["flows"]}
    found: dict[str, Any] = shared.once("runs", _runs)
    return {**given, "training": steps["1f1b"], **found}


def _runs() -> dict[str, Any]:
    lengths = "prompt: {kind: exponential, mean: 900}, output: {kind: exponential, mean: 60}"
    arrivals = f"{{kind: poisson, requests_per_s: 8, requests: {REQUESTS}, {lengths}}}"
    few = ("variants={}", "expect={}", f"workload.arrivals={arrivals}")
    return {
        "collective": sim.run("nccl-all-reduce", settings=("variants={}",)),
        "launch": sim.run("kernel-launches", settings=("variants={}",)),
        "decode": sim.run("inference-hardware", settings=("variants={}",)),
        "serving": sim.run("serving-example", settings=few),
        "jobs": sim.run("two-jobs", settings=("variants={}", "expect={}")),
        "rl_step": sim.run("rl-split", settings=("variants={}", "expect={}")),
    }
