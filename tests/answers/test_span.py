"""Assumed parameters at their stated ends: each end is a run of its own, and all ends together bound the headline."""

from __future__ import annotations

from typing import Any

import pytest

import sim
from command import Moesim
from sim.answers.span import headline, span
from sim.documents import Document
from sim.runs.run import run_document

TREE: dict[str, Any] = {
    "name": "one",
    "cluster": {"hardware": "h20", "nodes": 1, "gpus": 1},
    "model": "qwen3-30b-a3b",
    "workload": {
        "kind": "decode",
        "requests_per_gpu": 1,
        "context_tokens": 32768,
        "overlap": False,
        "gate": {"kind": "uniform", "sampling": "expected"},
        "kernel": {"kind": "low_latency"},
    },
}
HBM = "gpu.hbm.efficiency_fraction"


def spanned(**cluster: Any) -> dict[str, Any]:
    document = Document({**TREE, "cluster": {**TREE["cluster"], **cluster}}, "one.yaml")
    return span(document, run_document(document))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return spanned()


def test_each_end_is_a_run_of_its_own(found: dict[str, Any]) -> None:
    assert found["metric"] == "tpot_s"
    for end, gives in ((0.75, "gives_low"), (0.9, "gives_high")):
        tpot_s = sim.run(TREE, {"cluster.override": {HBM: end}})["metrics"]["tpot_s"]
        assert found["parameters"][HBM][gives] == pytest.approx(tpot_s, rel=1e-12)


def test_a_stream_of_memory_takes_less_the_more_of_it_is_reached(found: dict[str, Any]) -> None:
    """Never by more than the ratio of the fractions, 0.81 at present."""
    low, high = (found["parameters"][HBM][gives] / found["value"] for gives in ("gives_low", "gives_high"))
    assert 0.81 / 0.9 <= high < 1 < low <= 0.81 / 0.75


def test_all_ends_together_bound_every_single_one(found: dict[str, Any]) -> None:
    singles = [row[key] for row in found["parameters"].values() for key in ("gives_low", "gives_high")]
    assert found["low"] <= min(singles) <= found["value"] <= max(singles) <= found["high"]
    widths = [abs(row["gives_low"] - row["gives_high"]) for row in found["parameters"].values()]
    assert widths == sorted(widths, reverse=True)


def test_what_is_overridden_is_no_assumption_any_more(found: dict[str, Any]) -> None:
    assert HBM not in spanned(override={HBM: 0.81})["parameters"]
    assert "nic.bandwidth" in found["unstated"]


def test_software_is_moved_too() -> None:
    document = Document({**TREE, "software": "sglang_2026_05"}, "one.yaml")
    row = span(document, run_document(document))["parameters"]["software.step"]
    assert (row["low"], row["high"]) == ("0.05 ms", "1 ms")
    assert row["gives_high"] - row["gives_low"] == pytest.approx(0.95e-3, rel=0.01)


def test_the_headline_is_the_first_time_that_a_run_is_told_by() -> None:
    assert headline({"combine": {"time_s": 1.0}, "dispatch": {"time_s": 1.0}}) == "dispatch.time_s"
    assert headline({"requests": 1.0}) == "requests"


def test_the_command_prints_the_span_and_keeps_it(moesim: Moesim) -> None:
    quick = ("--set", "workload.tokens_per_rank=64", "--set", "expect={}", "--no-report")
    said = moesim("run", "h800-450", *quick, "--range", "--json")
    assert said.code == 0
    for run in said.json["variants"].values():
        assert run["range"]["low"] <= run["range"]["value"] <= run["range"]["high"]
    text = " ".join(moesim("run", "deepep-ep8-h800", *quick, "--range").err.split())
    assert "Assumptions at their stated ends" in text
    assert "parameters at the stated ends: within" in text
