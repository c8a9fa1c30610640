"""Differences of two results: settings, metrics, and what each setting moves alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from command import Moesim
from sim.answers.diff import diff
from sim.answers.diff_document import DifferenceSpec
from sim.runs.run import run_scenario
from sim.scenario import resolve as scenarios
from sim.scenario import settings as scenario_settings


def result(*changes: str) -> Any:
    quick = ("workload.tokens_per_rank=256", "workload.gate={kind: uniform, sampling: expected}", "expect={}")
    return run_scenario(scenarios.resolve(scenario_settings.read("deepep-ep16-h800", (*quick, *changes))))


def test_a_run_has_no_difference_to_itself() -> None:
    found = diff(result(), result(), ("a", "b"))
    assert (found["settings"], found["metrics"]) == ({}, {})


def test_settings_are_told_with_what_each_moves_alone() -> None:
    first, second = result(), result("cluster.hardware=h100", "model.top_k=6")
    found = diff(first, second, ("a", "b"))
    assert DifferenceSpec.model_validate(found).names == ("a", "b")
    assert {key: (one["first"], one["second"]) for key, one in found["settings"].items()} == {
        "cluster.hardware": ("h800", "h100"),
        "model.top_k": (8, 6),
    }
    alone = found["settings"]["cluster.hardware"]["gives"]["dispatch.time_s"]
    assert alone == result("cluster.hardware=h100")["metrics"]["dispatch"]["time_s"]
    moved = found["metrics"]["dispatch.time_s"]
    assert moved["change_fraction"] == pytest.approx(
        second["metrics"]["dispatch"]["time_s"] / first["metrics"]["dispatch"]["time_s"] - 1
    )
    assert moved["more_is_better"] is False


def test_the_command_names_results_by_their_paths(moesim: Moesim) -> None:
    quick = ("--no-report", "--set", "workload.tokens_per_rank=64", "--set", "expect={}")
    assert moesim("run", "deepep-ep8-h800", *quick, "--out", "a").code == 0
    assert moesim("run", "deepep-ep8-h800", *quick, "--out", "b", "--set", "cluster.hardware=h100").code == 0
    said = moesim("diff", "a", "b")
    assert said.code == 0
    assert "1 setting and" in said.err
    assert "differ between a and b" in said.err
    assert list(json.loads(moesim("diff", "a", "b", "--json").out)["settings"]) == ["cluster.hardware"]
    missing = moesim("diff", "a", "nowhere")
    assert missing.code == 2
    assert "nowhere" in missing.err


def test_results_of_different_kinds_are_refused_with_both_named(moesim: Moesim) -> None:
    """An all-to-all and a decode step answer different questions: nothing that either changes moves the other."""
    assert (
        moesim(
            "run",
            "deepep-ep8-h800",
            "--no-report",
            "--set",
            "workload.tokens_per_rank=64",
            "--set",
            "expect={}",
        ).code
        == 0
    )
    assert moesim("run", "v3-decode-ep128", "--no-report").code == 0
    refused = moesim("diff", "results/deepep-ep8-h800", "results/v3-decode-ep128")
    assert refused.code == 2
    assert "results/v3-decode-ep128: got a result of kind decode" in refused.err
    assert "one of kind all_to_all, as results/deepep-ep8-h800 is" in refused.err


@pytest.mark.parametrize("command", ["diff", "explain"])
def test_a_document_of_something_else_is_named(moesim: Moesim, command: str) -> None:
    Path("sweep.json").write_text('{"schema": "moesim.sweep/1"}')
    refused = moesim(command, "sweep.json", *["sweep.json"] * (command == "diff"))
    assert refused.code == 2
    assert "sweep.json: got the document of a sweep; wanted the result of `moesim run`" in refused.err


def test_a_folder_of_results_names_those_in_it(moesim: Moesim) -> None:
    quick = ("--no-report", "--set", "workload.tokens_per_rank=64", "--set", "expect={}")
    assert moesim("run", "deepep-ep8-h800", *quick).code == 0
    refused = moesim("explain", "results")
    assert refused.code == 2
    assert (
        "results: got a folder of results; wanted one of the folders in it: results/deepep-ep8-h800"
        in refused.err
    )


def test_a_variant_is_compared_where_it_is_asked_for(moesim: Moesim) -> None:
    assert moesim("run", "h800-450", "--no-report", "--set", "workload.tokens_per_rank=64").code == 0
    same = json.loads(
        moesim("diff", "results/h800-450", "results/h800-450", "--variant", "h100", "--json").out
    )
    assert (same["settings"], same["metrics"]) == ({}, {})
    refused = moesim("diff", "results/h800-450", "results/h800-450", "--variant", "h200")
    assert refused.code == 2
    assert "h800-450" in refused.err
