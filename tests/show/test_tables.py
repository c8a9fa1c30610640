"""Tables at a terminal: they hold the numbers of the result, fit 100 columns, and end in a finding."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from results import VALIDATION
from sim.cluster.datasheet import describe
from sim.cluster.hardware import load_hardware
from sim.show.pages.validation import validation_html
from sim.show.tables import console as tables
from sim.show.tables import run as grids
from sim.show.tables import transfers
from sim.show.tables import validation as validation_tables
from sim.show.views import names as names_views
from sim.show.views.run import views_of
from sim.show.views.transfers import TransfersView
from sim.show.views.validation import validation_view
from sim.show.words import validation
from sim.units import show
from sim.validation.validate import validate
from sim.workload import model as models


def printed(draw: Any, *args: Any) -> str:
    out = io.StringIO()
    draw(*args, Console(file=out, width=100))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    return text


@pytest.mark.parametrize("run", ["single", "variants", "closed", "flows", "exchange"])
def test_every_transfer_is_told_with_bound_and_binding(results: dict[str, Any], run: str) -> None:
    text = printed(tables.print_result, results[run])
    for view in views_of(results[run]).select(TransfersView):
        for one in view.transfers.values():
            number = show(one.completion_time_s, "s").partition(" ")[0]
            assert number in text
            assert one.lower_bound_s
            assert f"{one.completion_time_s / one.lower_bound_s:.3f}" in text
            assert names_views.label(one.binding) in text


def test_twins_are_told_by_their_ratio(results: dict[str, Any]) -> None:
    text = printed(tables.print_result, results["variants"])
    ours, theirs = (
        results["variants"]["variants"][name]["metrics"]["dispatch"]["time_s"] for name in ("h800", "h100")
    )
    assert "/ H800" in text
    assert f"{theirs / ours:.3f}" in text
    assert "The H100 gains most against h800" in text


def test_published_values_say_ok_and_missed_in_words(results: dict[str, Any]) -> None:
    grid = grids.expectations(views_of(results["single"]).runs)
    assert [row[5] for row in grid.rows] == ["ok", "missed"]
    assert grid.bad == {1}
    assert "1 of 2 expected values are met" in printed(tables.print_result, results["single"])


def test_cells_of_a_column_have_the_same_number_of_digits(results: dict[str, Any]) -> None:
    grid = transfers.times(views_of(results["single"]))
    column = grid.heads.index("time")
    assert {len([c for c in row[column] if c.isdigit()]) for row in grid.rows} == {4}


def test_validation_prints_every_group_and_what_its_figures_are() -> None:
    text = printed(tables.print_validation, VALIDATION)
    for name, group in VALIDATION["groups"].items():
        assert name in text
        for row in group["rows"][:3]:
            assert row["id"] in text
    assert "1 of 2 bars are met over 4 figures (4 published); two_hop misses." in text
    assert (
        "By use: 1 calibrated on, 2 predicted and 1 to be met exactly; 1 more is printed and not counted."
        in text
    )


def test_kinds_and_uses_of_figures_each_add_up() -> None:
    """What we measured or worked out ourselves is not called published."""
    groups = validate(["packet_level", "memory", "schedules", "tpot_bound"])["groups"]
    bars, uses, *_ = validation.finding(validation_view({"groups": groups}))
    rows = [row for one in groups.values() for row in one["rows"]]
    counted = [row for row in rows if row["bar"] is not None]
    total, *kinds = map(int, re.findall(r"(\d+) (?:figures|published|packet-level|closed)", bars))
    assert total == sum(kinds) == len(counted)
    assert kinds == [7, 16, 44]  # six bounds and a capacity; flows and runs; formulas
    *shown, printed_only = map(int, re.findall(r"(\d+) (?:predicted|formulas|counts|more)", uses))
    assert sum(shown) == total
    assert printed_only == len(rows) - total


def test_machines_stand_below_the_groups_with_their_mean_error_or_that_nothing_was_compared() -> None:
    none = {"rows": 0, "predicted": 0, "mean_abs_error_fraction": None, "predicted_mean_abs_error_fraction": None,
            "worst_error_fraction": None, "worst_row": None, "groups": {}, "printed": 0}  # fmt: skip
    h800 = none | {"rows": 3, "predicted": 2, "mean_abs_error_fraction": 0.08, "worst_error_fraction": 0.2,
                   "predicted_mean_abs_error_fraction": 0.115, "worst_row": "two_hop ep8", "groups": {"two_hop": 0.08}}  # fmt: skip
    machines = {"a100": none, "h800": h800, "mi300x": none | {"printed": 4}}
    grid = validation_tables.machine_grid(validation_view(VALIDATION | {"machines": machines}))
    assert grid.rows == (
        ("h800", "3", "2", "8.00%", "11.50%", "20.00%", "two_hop ep8", "two_hop 8.0%"),
        ("mi300x", "0", "0", "-", "-", "-", "4 printed only", ""),
        ("a100", "0", "0", "-", "-", "-", "never compared", ""),
    )
    text = printed(tables.print_validation, VALIDATION | {"machines": machines})
    assert "never compared" in text
    assert "11.50%" in validation_html(VALIDATION | {"machines": machines})


def test_a_whole_validation_shows_the_worst_rows_of_a_group_and_one_group_shows_all() -> None:
    group = VALIDATION["groups"]["models"]
    many = {
        **group,
        "rows": [{**group["rows"][0], "id": f"row-{i}", "error_fraction": 0.001 * i} for i in range(9)],
    }
    both = printed(tables.print_validation, {"groups": {"models": many, "more": many}})
    assert re.findall(r"row-\d", both)[:3] == ["row-8", "row-7", "row-6"]
    assert "row-5" not in both
    assert "the worst 3 of 9 rows; all: moesim validate --group models" in both
    alone = printed(tables.print_validation, {"groups": {"models": many}})
    assert all(f"row-{i}" in alone for i in range(9))


def test_rows_that_miss_are_always_shown() -> None:
    rows = [
        row | {"id": f"{row['id']}-{i}"} for i in range(5) for row in VALIDATION["groups"]["two_hop"]["rows"]
    ]
    group = VALIDATION["groups"]["two_hop"] | {"rows": rows}
    text = printed(
        tables.print_validation, {"groups": {"two_hop": group, "more": VALIDATION["groups"]["models"]}}
    )
    assert all(f"prediction0.2-{i}" in text for i in range(5))


def test_dollars_and_plain_numbers_are_written_as_people_write_them() -> None:
    assert validation_tables.quantity_cell(5.328e6, "USD") == "5.328 M USD"
    assert validation_tables.quantity_cell(67.7639, "number") == "67.7639"
    assert validation_tables.quantity_cell(0.01, "ms") == "0.01 ms"


def test_a_row_without_a_tolerance_is_not_called_ok() -> None:
    grid = validation_tables.group_grid(validation_view(VALIDATION).groups[0])
    assert grid.rows[-1][-2:] == ("printed only", "")
    free = VALIDATION["groups"]["two_hop"]["rows"][1] | {"tolerance_fraction": None}
    group = VALIDATION["groups"]["two_hop"] | {"rows": [free]}
    view = validation_view({"groups": {"free": group}})
    assert validation_tables.group_grid(view.groups[0]).rows[0][-1] == ""


def test_a_workload_without_transfers_still_prints_its_metrics() -> None:
    later = {"name": "later", "metrics": {"step_time_s": 19.9, "phases": {"bubble_s": 2.0}}, "scenario": {}}
    text = printed(tables.print_result, later)
    assert "step_time_s" in text
    assert "19.9 s" in text
    assert "phases.bubble_s" in text


def test_a_sheet_shows_grades_differences_and_rules() -> None:
    text = printed(
        tables.print_sheet, describe(load_hardware("h800"), load_hardware("h100")), ["launches"], "Off by 1%"
    )
    for said in ("gpu.scale_up.bandwidth", "0.444", "assumed", "R2022", "not legal advice", "two_hop"):
        assert said in text


def test_a_model_shows_its_parameters() -> None:
    model = models.load_model("deepseek-v3")
    text = printed(tables.print_model, model, models.parameters(model), models.kv_bytes_per_token(model))
    assert "671" in text
    assert "256, top-8" in text
