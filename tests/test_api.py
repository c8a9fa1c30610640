"""From Python: a result is its document, draws, tabulates and saves itself; scenarios are loaded, changed and run."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

import sim
from sim.errors import InputError
from sim.result import Result
from sim.show.files import folder

QUICK = {"workload.tokens_per_rank": 64, "expect": {}}


@pytest.fixture(scope="module")
def single() -> Result:
    return sim.run("deepep-ep16-h800", QUICK)


@pytest.fixture(scope="module")
def several(results: dict[str, Any]) -> Result:
    found: Result = results["variants"]
    return found


# --- the document ----------------------------------------------------------------------------------------------------


def test_a_result_is_its_document_and_nothing_beside_it(single: Result, tmp_path: Path) -> None:
    assert json.loads(json.dumps(single)) == single
    single.save(tmp_path)
    assert folder.read(tmp_path) == folder.kept(single)
    for twin in (copy.deepcopy(single), pickle.loads(pickle.dumps(single))):
        assert twin == single
        assert isinstance(twin, Result)


def test_a_variant_is_a_result_of_its_own(several: Result) -> None:
    for one in several["variants"].values():
        assert isinstance(one, Result)
        assert one.figure("links").data
        assert one.table()[0]["dispatch.time_s"] == one["metrics"]["dispatch"]["time_s"]


def test_settings_are_told_as_text_or_as_values(single: Result) -> None:
    text = sim.run("deepep-ep16-h800", ["workload.tokens_per_rank=64", "expect={}"])
    assert text == single


# --- figures and files -----------------------------------------------------------------------------------------------


def test_a_result_draws_every_kind_it_has_data_for(single: Result) -> None:
    import plotly.graph_objects as go

    kinds = single.kinds()
    assert {"bars", "links", "timeline", "traffic_matrix"} <= set(kinds)
    assert "validation" not in kinds
    assert isinstance(single.figure("bars"), go.Figure)


def test_a_kind_of_one_run_shows_the_variant_that_is_named(several: Result) -> None:
    first, second = several.figure("links", "h800"), several.figure("links", "h100")
    assert first.layout.title.text.startswith("h800")
    assert second.layout.title.text.startswith("h100")


def test_an_unknown_kind_or_variant_names_the_nearest(several: Result, single: Result) -> None:
    with pytest.raises(InputError, match="did you mean bars"):
        single.figure("bar")
    with pytest.raises(InputError, match="did you mean h100"):
        several.figure("links", "h10")
    with pytest.raises(InputError, match="has no variants"):
        single.figure("links", "h100")


def test_a_report_and_all_files_are_written(single: Result, tmp_path: Path) -> None:
    path = single.report(tmp_path / "deep" / "mine.html")
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    names = [file.name for file in single.save(tmp_path / "all")]
    assert names == ["result.json", "report.html", "trace.json.gz"]
    assert {file.name for file in (tmp_path / "all").iterdir()} == set(names)


def test_a_report_that_cannot_be_written_leaves_nothing(single: Result, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(InputError, match="a folder that can be written"):
        single.report(tmp_path / "file" / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# --- tables ----------------------------------------------------------------------------------------------------------


def test_a_table_has_a_row_a_variant_and_dotted_metrics(several: Result) -> None:
    rows = several.table()
    assert [row["variant"] for row in rows] == ["h800", "h100"]
    for row in rows:
        metrics = several["variants"][row["variant"]]["metrics"]
        assert row["dispatch.time_s"] == metrics["dispatch"]["time_s"]
        assert row["combine.binding"] == metrics["combine"]["binding"]
        assert list(row) == list(rows[0])


def test_rows_of_unlike_variants_have_the_same_columns() -> None:
    unlike = Result(
        {"name": "n", "variants": {"a": {"metrics": {"x_s": 1.0}}, "b": {"metrics": {"y": {"z_s": 2}}}}}
    )
    assert unlike.table() == [
        {"name": "n", "variant": "a", "x_s": 1.0, "y.z_s": None},
        {"name": "n", "variant": "b", "x_s": None, "y.z_s": 2},
    ]
    assert unlike.to_polars()["y.z_s"].to_list() == [None, 2]


def test_data_frames_hold_the_table(several: Result) -> None:
    rows = several.table()
    assert several.to_polars().to_dicts() == rows
    assert several.to_pandas().to_dict("records") == rows


@pytest.mark.parametrize(
    ("library", "said"), [("pandas", "pip install pandas"), ("polars", r"moesim\[tables\]")]
)
def test_without_the_library_the_message_says_how_to_get_it(
    single: Result, monkeypatch: pytest.MonkeyPatch, library: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=said):
        getattr(single, f"to_{library}")()


def test_a_notebook_shows_a_small_table(several: Result) -> None:
    shown = several._repr_html_()
    assert len(shown) < 10_000
    assert "<script" not in shown
    for said in (*several.finding(), "h800", "h100", "dispatch.time_s", "more metrics"):
        assert said in shown


def test_a_console_shows_what_was_found_and_the_mapping_all_there_is(several: Result) -> None:
    assert repr(several).splitlines()[1:] == several.finding()
    assert len(repr(several)) < 2_000
    assert "traffic" in repr(dict(several)["variants"]["h800"].keys())
    assert repr(Result({"kept": 1})) == "{'kept': 1}"


def test_text_of_a_scenario_cannot_become_markup_in_a_notebook(single: Result) -> None:
    evil = Result({**single, "title": "<script>alert(1)</script>"})
    assert "<script" not in evil._repr_html_()


# --- scenarios -------------------------------------------------------------------------------------------------------


def test_a_loaded_scenario_has_its_defaults_and_runs_to_the_same_metrics(single: Result) -> None:
    scenario = sim.load_scenario("deepep-ep16-h800", QUICK)
    assert scenario["seed"] == 0
    assert scenario["layout"]["ep"] == 16
    assert sim.run(scenario)["metrics"] == single["metrics"]
    scenario["workload"]["tokens_per_rank"] = 128
    more = sim.run(scenario)["metrics"]["dispatch"]["wire_nic_bytes"]
    assert more == pytest.approx(2 * single["metrics"]["dispatch"]["wire_nic_bytes"], rel=0.1)


def test_a_loaded_scenario_keeps_its_variants() -> None:
    settings = {"workload.tokens_per_rank": 16, "workload.gate.sampling": "expected", "expect": {}}
    scenario = sim.load_scenario("h800-450", settings)
    ours, theirs = sim.run(scenario), sim.run("h800-450", settings)
    assert ours["name"] == theirs["name"] == "h800-450"
    assert {name: one["metrics"] for name, one in ours["variants"].items()} == {
        name: one["metrics"] for name, one in theirs["variants"].items()
    }


def test_files_of_a_loaded_scenario_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = sim.load_scenario("flows-example")
    monkeypatch.chdir(tmp_path)
    assert sim.run(scenario)["metrics"] == sim.run("flows-example")["metrics"]


def test_running_leaves_the_loaded_scenario_as_it_was() -> None:
    scenario = sim.load_scenario("deepep-ep16-h800", QUICK)
    before = copy.deepcopy(scenario)
    sim.run(scenario, {"workload.tokens_per_rank": 16})
    assert scenario == before


def test_every_problem_of_a_loaded_scenario_is_told() -> None:
    scenario = sim.load_scenario("deepep-ep16-h800", QUICK)
    scenario["cluster"]["nods"] = 3
    scenario["workload"]["tokens_per_rank"] = "many"
    for ask in (sim.run, sim.load_scenario):
        with pytest.raises(InputError) as error:
            ask(scenario)
        assert {problem.key for problem in error.value.problems} == {
            "cluster.nods",
            "workload.tokens_per_rank",
        }
