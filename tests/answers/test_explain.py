"""Explanations: the parts of a time add up to it, suspects are judged by simulation, and public reports find their cause."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from command import Moesim
from sim.answers.explain import explain
from sim.answers.explain_document import ExplanationSpec
from sim.answers.suspects import HEALTHY, SUSPECTS
from sim.errors import InputError
from sim.scenario import resolve as scenarios
from sim.scenario import settings as scenario_settings
from sim.show.views.answers import explanation_view

REPORTS = yaml.safe_load(Path(__file__).with_name("reports.yaml").read_text(encoding="utf-8"))["reports"]


def scenario(**changes: Any) -> Any:
    base: dict[str, Any] = {
        "name": "report",
        "cluster": {"hardware": "h100", "nodes": 2},
        "model": "deepseek-v3",
        "workload": {
            "kind": "all_to_all", "tokens_per_rank": 4096, "gate": {"kind": "deepep_benchmark"},
            "kernel": {"kind": "two_hop", "comm_sms": 24},
        },
    }  # fmt: skip
    return scenario_settings.read(base, [f"{key}={value}" for key, value in changes.items()])


def parts(document: dict[str, Any]) -> dict[str, float]:
    return {part["name"]: part["value_s"] for part in document["parts"]}


# --- what a time is made of -------------------------------------------------------------------------------------------


def test_the_parts_of_an_exchange_add_up_and_are_those_of_theory() -> None:
    """Even loads: bytes over 50 GB/s, what 90 % of the NIC leaves of them, 50 us, and nothing for loads or faults."""
    document = explain(
        scenario(**{"workload.gate": "{kind: group_limited, sampling: expected}", "cluster.nodes": "8"})
    )
    found = parts(document)
    assert sum(found.values()) == pytest.approx(document["value_s"])
    assert found["kernel"] == pytest.approx(found["bound"] * (1 / 0.90 - 1), rel=0.02)
    assert found["fixed"] == pytest.approx(50e-6)
    assert found["uneven"] == pytest.approx(0, abs=1e-9)


def test_a_fault_and_popular_experts_have_parts_of_their_own() -> None:
    faults = {"cluster.faults": "[{rail: 2, bandwidth: 50 %}]"}
    both = {**faults, "workload.gate": "{kind: zipf, exponent: 0.6}"}
    even, slow, popular = (parts(explain(scenario(**changes))) for changes in ({}, faults, both))
    assert "faults" not in even
    assert slow["faults"] > 0.3 * slow["bound"]
    assert popular["uneven"] > 5 * even["uneven"]


@pytest.mark.parametrize("name", ["v3-decode-ep128", pytest.param("serving-example", marks=pytest.mark.slow)])
def test_parts_of_passes_and_services_add_up(name: str) -> None:
    document = explain(scenario_settings.variants(scenario_settings.read(name)).popitem()[1])
    assert sum(parts(document).values()) == pytest.approx(document["value_s"], rel=1e-6)


# --- what would give a measured value ---------------------------------------------------------------------------------


def test_parts_of_a_pass_are_told_as_its_report_tells_them() -> None:
    shares = {"attention_0": 1.0, "attention_1": 5.0, "ends": 2.0, "waits": 1.0, "rest": 1.0}
    told = [
        {"name": name, "title": name, "value_s": time_s, "share_fraction": time_s / 10}
        for name, time_s in shares.items()
    ]
    view = explanation_view(
        {"title": "", "metric": "step_time_s", "value_s": 10.0, "parts": told, "measured": {}, "causes": []}
    )
    parts = {part.title: part.share_fraction for part in view.parts}
    assert parts == {
        "attention": 0.6,
        "waits for exchanges": 0.1,
        "embedding, head and sampling": 0.2,
        "rest": 0.1,
    }


def test_what_a_suspect_gives_is_found_as_its_cause() -> None:
    """Each change that moves a rate by a fifth is the first cause of the rate that it gives."""
    document = scenario(**{"cluster.nodes": "4"})
    resolved = scenarios.resolve(document)
    healthy = explain(document, ["30 GB/s", "combine=30 GB/s"])
    assert len(ExplanationSpec.model_validate(healthy).causes) == len(healthy["causes"])
    for cause in healthy["causes"]:
        values = [f"{name}={value / 1e9:.6g} GB/s" for name, value in cause["values"].items()]
        moved = max(
            abs(value / healthy["causes"][-1]["values"][name] - 1) for name, value in cause["values"].items()
        )
        if cause["name"] in ("half_nic", "one_nic", "one_slow_nic") and moved > 0.2:
            first = explain(document, values)["causes"][0]
            assert first["name"] == cause["name"]
            assert first["distance_fraction"] == pytest.approx(0, abs=1e-4)
            assert dict(SUSPECTS[cause["name"]].changes(resolved) or {}) == first["set"]


def test_a_healthy_machine_comes_first_where_it_is_as_near_as_the_model_is_trusted() -> None:
    own = explain(scenario(), ["10 GB/s"])["causes"]
    value = next(cause for cause in own if cause["name"] == HEALTHY)["values"][
        "dispatch.logical_rdma_bytes_per_s"
    ]
    near, far = (explain(scenario(), [f"{part * value / 1e9:.6g} GB/s"])["causes"] for part in (0.93, 0.5))
    assert near[0]["name"] == HEALTHY
    assert far[0]["name"] != HEALTHY


@pytest.mark.slow
def test_public_reports_find_their_cause() -> None:
    """Right among the first two, by simulation, in three of four reports or more."""
    right = []
    for report in REPORTS:
        causes = explain(scenario(**report.get("set", {})), report["measured"])["causes"]
        right.append(bool({cause["name"] for cause in causes[:2]} & set(report["cause"])))
    assert sum(right) >= 0.75 * len(REPORTS)


def test_no_suspect_knows_a_report() -> None:
    text = " ".join(suspect.title for suspect in SUSPECTS.values())
    assert not [report["source"] for report in REPORTS if report["source"] in text]


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_takes_a_scenario_a_folder_and_a_result(moesim: Moesim, tmp_path: Path) -> None:
    assert moesim("run", "h800-450", "--no-report", "--set", "workload.tokens_per_rank=64").code == 0
    for asked in ("results/h800-450", "results/h800-450/result.json"):
        said = moesim("explain", asked, "--variant", "h800", "--json")
        assert said.code == 0, said.err
        assert json.loads(said.out)["schema"] == "moesim.explain/1"
    said = moesim("explain", "deepep-ep8-h800", "--set", "expect={}", "--measured", "dispatch=900 us")
    assert said.code == 0
    assert "What was measured is best explained by" in said.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--measured", "43"], "a value with its unit"),
        (["--measured", "43 parsec"], "a value with its unit"),
        (["--measured", "dispatch=0 GB/s"], "more than 0"),
        (["--measured", "dispatch.time_s=43 GB/s"], "a time with its unit"),
        (["--measured", "dispatcher=43 GB/s"], "a metric of this run"),
        (["--variant", "h8000"], "nothing: there are no variants"),
    ],
)
def test_what_is_wrong_is_told(moesim: Moesim, words: list[str], told: str) -> None:
    said = moesim("explain", "deepep-ep8-h800", *words)
    assert said.code == 2
    assert told in said.err


def test_a_measured_value_is_of_the_metric_that_its_unit_and_name_say() -> None:
    found = explain(scenario(), ["2 ms", "combine=50 GB/s", "combine.completion_time_s=2 ms"])["measured"]
    assert found == pytest.approx(
        {"dispatch.time_s": 2e-3, "combine.logical_rdma_bytes_per_s": 50e9, "combine.completion_time_s": 2e-3}
    )
    with pytest.raises(InputError, match="a value with its unit"):
        explain(scenario(), ["3 tokens"])
