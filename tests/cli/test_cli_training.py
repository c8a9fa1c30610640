"""Commands around training: what `run` leaves of a step, its figures from the folder, and `calibrate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from command import Moesim
from sim.cost.measured import load_profile
from traces import check_trace

TRACE = Path(__file__).resolve().parents[1] / "data" / "layer_pairs.json"
STEP = """
name: step
cluster: {hardware: h800, nodes: 4}
model: mixtral-8x7b
layout: {pp: 4, ep: 8}
workload:
  kind: training
  sequence_tokens: 512
  microbatches: 8
  schedule: dualpipe
  precision: bf16
  kernel: {kind: two_hop}
  skew: {routed_load: 0 %, kernel_jitter: 0 %, gpu_spread: 0 %}
"""
ALL_TO_ALL = """
name: exchange
cluster: {hardware: h800, nodes: 2}
model: deepseek-v3
workload:
  kind: all_to_all
  tokens_per_rank: 64
  gate: {kind: deepep_benchmark, top_groups: 2}
  kernel: {kind: two_hop}
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_step_leaves_result_report_and_trace_and_its_figures_come_from_the_folder(
    moesim: Moesim, tmp_path: Path
) -> None:
    (tmp_path / "step.yaml").write_text(STEP, encoding="utf-8")
    said = moesim("run", "step.yaml", "--out", "out")
    assert said.code == 0, said.err
    assert names(tmp_path / "out") == {"result.json", "report.html", "trace.json.gz"}
    assert check_trace((tmp_path / "out/trace.json.gz").read_bytes()) == []
    assert "out/trace.json.gz" in said.err
    assert "A step takes" in said.err
    for kind in ("timeline", "layer_pair", "phases", "memory"):
        assert moesim("plot", "out", "--kind", kind).code == 0
        assert (tmp_path / "out" / f"{kind}.html").stat().st_size > 1000


def test_without_a_report_there_is_no_trace(moesim: Moesim, tmp_path: Path) -> None:
    (tmp_path / "exchange.yaml").write_text(ALL_TO_ALL, encoding="utf-8")
    assert moesim("run", "exchange.yaml", "--out", "bare", "--no-report").code == 0
    assert names(tmp_path / "bare") == {"result.json"}
    assert moesim("run", "exchange.yaml", "--out", "full").code == 0
    assert check_trace((tmp_path / "full/trace.json.gz").read_bytes()) == []


def test_calibrate_prints_what_it_found_and_writes_a_profile_that_check_accepts(
    moesim: Moesim, tmp_path: Path
) -> None:
    said = moesim("calibrate", str(TRACE), "--out", "here/mine.yaml")
    assert (said.code, said.out) == (0, "")
    for word in ("attn(F)", "combine(B)", "Kernels by class", "here/mine.yaml"):
        assert word in said.err
    assert names(tmp_path / "here") == {"mine.yaml"}
    assert load_profile(tmp_path / "here/mine.yaml").name == "mine"
    checked = moesim("check", "here/mine.yaml")
    assert checked.code == 0
    assert "measured compute profile" in checked.err


def test_calibrate_lists_what_it_could_not_name(moesim: Moesim, tmp_path: Path) -> None:
    tree: dict[str, Any] = json.loads(TRACE.read_text(encoding="utf-8"))
    kernel = next(event for event in tree["traceEvents"] if event.get("cat") == "kernel")
    kernel["name"] = "a_kernel_of_nobody"
    (tmp_path / "strange.json").write_text(json.dumps(tree), encoding="utf-8")
    said = moesim("calibrate", "strange.json")
    assert said.code == 0
    assert "a_kernel_of_nobody" in said.err
    assert "could not be named" in said.err


@pytest.mark.parametrize("content", ["{}", "[1, 2", '{"traceEvents": []}'])
def test_a_bad_trace_is_told_in_a_line_and_nothing_is_written(
    moesim: Moesim, tmp_path: Path, content: str
) -> None:
    (tmp_path / "bad.json").write_text(content, encoding="utf-8")
    said = moesim("calibrate", "bad.json", "--out", "here/mine.yaml")
    assert (said.code, said.out) == (2, "")
    assert "PyTorch profiler trace" in said.err
    assert "Traceback" not in said.err
    assert names(tmp_path) == {"bad.json"}


def test_a_profile_that_cannot_be_written_is_told(moesim: Moesim, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    said = moesim("calibrate", str(TRACE), "--out", "file/mine.yaml")
    assert said.code == 2
    assert "a folder that can be written" in said.err
