"""Tables at a terminal: they hold the numbers of the result, fit 100 columns, and end in a finding."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from test_plots import VALIDATION, results

from sim.cluster.datasheet import describe
from sim.cluster.hardware import load_hardware
from sim.show import findings, grids, tables
from sim.show.cases import cases
from sim.units import show
from sim.workload import model as models

__all__ = ["results"]  # the fixture


def printed(draw: Any, *args: Any) -> str:
    out = io.StringIO()
    draw(*args, Console(file=out, width=100))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    return text


@pytest.mark.parametrize("run", ["single", "variants", "closed", "flows", "exchange"])
def test_every_transfer_is_told_with_bound_and_binding(results: dict[str, Any], run: str) -> None:
    text = printed(tables.print_result, results[run])
    for case in cases(results[run]):
        for metrics in case.transfers.values():
            number = show(metrics["completion_time_s"], "s").partition(" ")[0]
            assert number in text
            assert f"{metrics['completion_time_s'] / metrics['lower_bound_s']:.3f}" in text
            assert findings.label(metrics["binding"]) in text


def test_twins_are_told_by_their_ratio(results: dict[str, Any]) -> None:
    text = printed(tables.print_result, results["variants"])
    ours, theirs = (
        results["variants"]["variants"][name]["metrics"]["dispatch"]["time_s"] for name in ("h800", "h100")
    )
    assert "/ H800" in text
    assert f"{theirs / ours:.3f}" in text
    assert "The H100 gains most at h800" in text


def test_published_values_say_ok_and_missed_in_words(results: dict[str, Any]) -> None:
    grid = grids.expectations(cases(results["single"]))
    assert [row[5] for row in grid.rows] == ["ok", "missed"]
    assert grid.bad == {1}
    assert "1 of 2 expected values are met" in printed(tables.print_result, results["single"])


def test_cells_of_a_column_have_the_same_number_of_digits(results: dict[str, Any]) -> None:
    grid = grids.times(cases(results["single"]))
    column = grid.heads.index("time")
    assert {len([c for c in row[column] if c.isdigit()]) for row in grid.rows} == {4}


def test_validation_prints_every_row_and_every_group() -> None:
    text = printed(tables.print_validation, VALIDATION)
    for group in VALIDATION["groups"].values():
        for row in group["rows"]:
            assert row["id"] in text
    assert "1 of 2 bars are met over 4 published figures, 1 of them calibrated on; two_hop misses." in text


def test_a_row_without_a_tolerance_is_not_called_ok() -> None:
    grid = grids.of_group("two_hop", VALIDATION["groups"]["two_hop"])
    assert grid.rows[-1][-2:] == ("printed only", "")
    free = VALIDATION["groups"]["two_hop"]["rows"][1] | {"tolerance_fraction": None}
    group = VALIDATION["groups"]["two_hop"] | {"rows": [free]}
    assert grids.of_group("free", group).rows[0][-1] == ""


def test_a_workload_without_transfers_still_prints_its_metrics() -> None:
    later = {"name": "later", "metrics": {"step_time_s": 19.9, "phases": {"bubble_s": 2.0}}, "scenario": {}}
    text = printed(tables.print_result, later)
    assert "step_time_s" in text
    assert "19.9 s" in text
    assert "phases.bubble_s" in text


def test_a_sheet_shows_grades_differences_and_rules() -> None:
    text = printed(tables.print_sheet, describe(load_hardware("h800"), load_hardware("h100")))
    for said in ("gpu.scale_up.bandwidth", "0.444", "assumed", "R2022", "not legal advice", "two_hop"):
        assert said in text


def test_a_model_shows_its_parameters() -> None:
    model = models.load_model("deepseek-v3")
    text = printed(tables.print_model, model, models.parameters(model), models.kv_bytes_per_token(model))
    assert "671" in text
    assert "256, top-8" in text
