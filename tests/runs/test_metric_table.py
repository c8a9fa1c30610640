"""The table of metrics says what runs report: their names, their kinds, and the unit that a name's suffix states."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import reinforcing
import shared
import sim
from sim import metrics, units
from sim.documents import shipped
from sim.kinds import WORKLOADS
from sim.metrics import METRICS, TABLE, WORD
from sim.scenario.schema import SCENARIO
from sim.sweeps.spec import SweepSpec
from sim.trees import leaves

RARE = frozenset(
    {
        "arrivals.reusable_fraction",  # of traces with hashes, see tests/workload/test_requests.py
        "queue_drain_s",  # of serving with faults that end, see tests/runs/test_serving_faults.py
        *(
            "layers." + name for name in ("count", "slowest")
        ),  # of recorded layers, see tests/runs/test_loads.py
        *(f"layers.{name}.{key}_s" for name in ("dispatch", "combine") for key in ("mean", "worst")),
    }
)
"""Metrics that no run here reports, for a reason that stands beside them."""


def variants(result: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from result["variants"].values() if "variants" in result else [result]


def reported(result: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted name -> number or word."""
    return {".".join(map(str, path)): value for path, value in leaves(result["metrics"]) if value != {}}


def kind_of(result: Mapping[str, Any]) -> str:
    return str(result["scenario"]["workload"]["kind"])


def stated(name: str) -> str:
    """The dimension that the last part of a name with a suffix states: `waited_s.prefill` -> s."""
    found = (units.dimension_of(part) for part in reversed(name.split(".")))
    return next((dimension for dimension in found if dimension != "number"), "number")


@pytest.fixture(scope="module")
def every(runs: dict[str, Any], steps: dict[str, Any]) -> list[Mapping[str, Any]]:
    """A result of each kind but jobs, whose metrics are those of others; of training also one with a whole run."""
    iterations = (
        reinforcing.ran(more=reinforcing.PARTIAL),
        reinforcing.ran(reinforcing.JUDGES, reinforcing.JUDGE_POOLS, reinforcing.JUDGED),
    )
    packed = sim.run(
        "mixtral-training",
        settings=(
            "expect={}",
            "workload.microbatches=8",
            "workload.packing={lengths: {kind: exponential, mean: 1000}}",
        ),
    )
    prefill = sim.run("v3-prefill-ep32", settings=("expect={}", "workload.gate.sampling=expected"))
    return [
        one
        for result in (
            *runs.values(),
            steps["dualpipe"],
            packed,
            prefill,
            sim.run("decode-disaggregated"),
            *iterations,
        )
        for one in variants(result)
        if kind_of(one) != "jobs"
    ]


def test_every_metric_that_runs_report_is_in_the_table_and_the_other_way_round(
    every: list[Mapping[str, Any]],
) -> None:
    found: dict[str, set[str]] = {kind: set() for kind in WORKLOADS if kind != "jobs"}
    for result in every:
        found[kind_of(result)] |= set(reported(result))
    for kind, names in found.items():
        assert names == set(metrics.reported([kind], words=True) or ()) - RARE


def test_a_metric_is_a_number_or_a_word_as_the_table_says(every: list[Mapping[str, Any]]) -> None:
    for result in every:
        for name, value in reported(result).items():
            assert isinstance(value, str | None) == (METRICS[name].unit == WORD)


def test_the_suffix_of_a_name_states_the_unit_of_the_table() -> None:
    assert {name: stated(name) for name in METRICS} == {name: row.dimension for name, row in METRICS.items()}


def test_every_name_stands_in_one_row_of_kinds_that_there_are() -> None:
    names = [name for row in TABLE for name in row.names]
    assert len(names) == len(set(names))
    assert {kind for row in TABLE for kind in row.kinds} == set(WORKLOADS) - {"jobs"}


def test_what_a_job_reports_is_a_metric_of_its_kind_under_its_name() -> None:
    assert metrics.dimension_of("jobs.train.energy.gpu_w") == METRICS["energy.gpu_w"].dimension
    assert metrics.more_is_better("jobs.serve.tokens_per_s_per_gpu")
    assert metrics.label("jobs.serve.tpot_s") == "TPOT"
    assert metrics.dimension_of("classes.chat.ttft.p99_s") == "s"
    assert metrics.more_is_better("classes.chat.goodput_requests_per_s")


def test_a_row_stands_for_every_name_that_its_braces_make() -> None:
    row = metrics.Metric("{a,b}.{x,y}_s", ("flows",), "s", "lower", "a time")
    assert row.names == ("a.x_s", "a.y_s", "b.x_s", "b.y_s")
    assert metrics.Metric("a_s", ("flows",), "s", "lower", "a time").names == ("a_s",)


def test_what_a_table_and_a_sentence_call_a_metric() -> None:
    assert metrics.label("tpot_s") == "TPOT"
    assert metrics.label("dispatch.wire_nic_bytes") == "dispatch wire nic"
    assert metrics.phrase("combine.time_s") == "combine"
    assert metrics.phrase("tpot_s") == "time per output token"


def test_a_kind_that_the_table_does_not_have_may_report_anything() -> None:
    assert metrics.reported(["pause"]) is None
    assert metrics.reported(["training", "pause"]) is None
    assert "tpot_s" in (metrics.reported(["training", "decode"]) or ())


def test_an_editor_knows_what_may_be_expected_and_minimised() -> None:
    for model, key in ((SCENARIO, "expect"), (SweepSpec, "objectives")):
        names, of_classes = model.model_json_schema()["properties"][key]["propertyNames"]["anyOf"]
        assert names["enum"] == [name for name, row in METRICS.items() if row.unit != WORD]
        assert re.search(of_classes["pattern"], "classes.chat.ttft.p99_s")


@pytest.mark.slow
@pytest.mark.xdist_group("scenarios")
@pytest.mark.parametrize("name", shipped("scenarios"))
def test_every_metric_of_a_shipped_scenario_is_in_the_table(name: str) -> None:
    for result in variants(shared.scenario(name)):
        if kind_of(result) == "jobs":
            assert all(metrics.row_of(metric) for metric in reported(result))
            continue
        assert set(reported(result)) <= set(metrics.reported([kind_of(result)], words=True) or ())
