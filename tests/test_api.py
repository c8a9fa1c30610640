"""From Python: a result is its document, draws, tabulates and saves itself; scenarios are loaded, changed and run."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import moesim
import sim
from sim.errors import InfeasibleError, InputError
from sim.result import Result
from sim.show.files import folder
from sweeping import exchange

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
    assert folder.read(tmp_path) == folder.without_flows(single)
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


# --- specifications --------------------------------------------------------------------------------------------------


def test_a_scenario_made_of_specifications_is_the_one_that_a_file_says() -> None:
    made = moesim.Scenario(
        name="mine",
        cluster=moesim.Cluster(hardware="h800", nodes=2),
        model="deepseek-v3",
        layout=moesim.Layout(ep=16),
        workload=moesim.AllToAll(
            tokens_per_rank=64,
            gate=moesim.GroupLimited(sampling="expected"),
            kernel=moesim.TwoHop(comm_sms=24),
            dispatch_dtype="bf16",
        ),
    )
    gate = {"kind": "group_limited", "sampling": "expected"}
    said = {"name": "mine", **exchange(tokens_per_rank=64, gate=gate, dispatch_dtype="bf16")}
    assert moesim.load_scenario(made) == sim.load_scenario(said)
    assert moesim.run(made, {"cluster.hardware": "h100"}) == sim.run(said, {"cluster.hardware": "h100"})


def test_quantities_of_specifications_come_through_with_every_digit() -> None:
    training = moesim.Training(
        gate=moesim.Uniform(), kernel=moesim.TwoHop(), schedule="1f1b", microbatches=8, skew={"routed_load": "7.3 %"},
        run={"tokens": "14.8 T", "price": "2.17 $/GPU-hour"},
    )  # fmt: skip
    dumped = training.model_dump(mode="json", exclude_unset=True)
    assert type(training).model_validate(dumped) == training
    assert dumped["skew"] == {"routed_load": 0.073}
    assert dumped["run"]["price"] == "2.17 $/GPU-hour"


def test_what_is_wrong_with_a_specification_is_told_by_it() -> None:
    with pytest.raises(ValueError, match="tokens_per_rnk"):
        moesim.AllToAll(tokens_per_rnk=64, kernel=moesim.TwoHop())
    with pytest.raises(InputError, match="a divisor of"):
        moesim.run(
            moesim.Scenario(
                name="odd", cluster=moesim.Cluster(hardware="h800", nodes=2), model="deepseek-v3", layout=moesim.Layout(ep=3),
                workload=moesim.AllToAll(tokens_per_rank=64, kernel=moesim.TwoHop()),
            )
        )  # fmt: skip


def test_metrics_are_attributes_too(single: Result, several: Result) -> None:
    assert single.metrics.dispatch.time_s == single["metrics"]["dispatch"]["time_s"]
    assert (
        several.metrics.h100.dispatch.binding == several["variants"]["h100"]["metrics"]["dispatch"]["binding"]
    )
    assert (single.links, single.timeline) == (single["links"], single["timeline"])
    with pytest.raises(AttributeError, match="did you mean dispatch"):
        _ = single.metrics.dispach


def test_both_names_are_one_library() -> None:
    assert set(moesim.__all__) == set(sim.__all__)
    for name in sim.__all__:
        assert getattr(moesim, name) is getattr(sim, name)
    code = "import sys, moesim; moesim.run; assert not {'numpy', 'pydantic', 'plotly'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the predictor ---------------------------------------------------------------------------------------------------

MODEL, ON, SIZES = "qwen3-30b-a3b", "h800", {"ep": 2}


def simulated(**workload: Any) -> float:
    tree = {
        "name": "held",
        "cluster": {"hardware": ON, "nodes": 1, "gpus": 2},
        "model": MODEL,
        "layout": SIZES,
        "workload": {"overlap": False, "gate": {"kind": "uniform", "sampling": "expected"}, **workload},
    }
    metrics = sim.run(tree)["metrics"]
    return float(metrics.get("pass_time_s", metrics["step_time_s"]))


@pytest.mark.parametrize(("requests", "context"), [(1, 100), (2, 4096), (7, 3000), (40, 2000)])
def test_a_step_of_decoding_is_predicted(requests: int, context: int) -> None:
    step = simulated(kind="decode", requests=requests, context_tokens=context, kernel={"kind": "low_latency"})
    assert moesim.pass_time(MODEL, ON, SIZES, 1, [context] * requests) == pytest.approx(step, rel=0.03)


@pytest.mark.parametrize(
    ("prompts", "new", "cached", "within"),
    [
        (1, 2048, 0, 0.02),
        (4, 512, 3000, 0.02),
        (3, 700, 1000, 0.12),
        (1, 100, 20000, 0.02),
        (8, 64, 500, 0.02),
    ],
)
def test_a_pass_of_prompts_is_predicted(prompts: int, new: int, cached: int, within: float) -> None:
    passed = simulated(
        kind="prefill", prompts_per_gpu=prompts, prompt_tokens=new + cached, cached_tokens=cached,
        kernel={"kind": "two_hop", "comm_sms": 24},
    )  # fmt: skip
    told = moesim.pass_time(MODEL, ON, moesim.Layout(ep=2), new, [cached] * 2 * prompts)
    assert told == pytest.approx(passed, rel=within)


def test_more_work_never_takes_less() -> None:
    steps = [moesim.pass_time(MODEL, ON, SIZES, 1, [4096] * num) for num in (1, 2, 8, 32)]
    chunks = [moesim.pass_time(MODEL, ON, SIZES, new, [0, 0]) for new in (2, 100, 1000, 10000)]
    behind = [moesim.pass_time(MODEL, ON, SIZES, 512, [cached] * 2) for cached in (0, 1000, 50000)]
    for times in (steps, chunks, behind):
        assert times == sorted(times)


def test_a_pass_that_cannot_be_is_refused() -> None:
    for new, contexts in ((1, []), (0, [1]), (1, [-1])):
        with pytest.raises(ValueError, match="a request or more"):
            moesim.pass_time(MODEL, ON, SIZES, new, contexts)
    with pytest.raises(InfeasibleError):
        moesim.pass_time("deepseek-v3", "h800", {"ep": 8}, 1, [1])
    with pytest.raises(InputError, match="h800"):
        moesim.pass_time(MODEL, "h900", SIZES, 1, [1])
