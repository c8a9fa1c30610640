"""The command line: exit codes, what goes to standard output, what is written, and what is said about mistakes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from command import Moesim
from sim import cli, documents
from sim.errors import InfeasibleError

ROOT = Path(__file__).resolve().parents[2]

TINY = """\
# Asks: nothing; it is small.
name: tiny
cluster: {hardware: h800, nodes: 2}
model: deepseek-v3
layout: {ep: 16}
workload:
  kind: all_to_all
  tokens_per_rank: 64
  gate: {kind: deepep_benchmark, top_groups: 2}
  kernel: {kind: two_hop, comm_sms: 24}
"""
FLOWS = """\
name: three-flows
cluster:
  fabric: {kind: leaf_spine, hosts: 4, hosts_per_leaf: 2, spines: 2, link: 400 Gb/s}
workload: {kind: flows, file: flows.csv}
"""
CSV = "flow_id,src,dst,bytes,start_us\n1,0,2,1000000,0\n2,1,2,1000000,0\n3,3,0,500000,5\n"


@pytest.fixture
def moesim(moesim: Moesim, tmp_path: Path) -> Moesim:
    """The command, in a folder that holds `tiny.yaml` and `flows.yaml`."""
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    (tmp_path / "flows.yaml").write_text(FLOWS, encoding="utf-8")
    (tmp_path / "flows.csv").write_text(CSV, encoding="utf-8")
    return moesim


def written(folder: Path) -> set[str]:
    """Every file below a folder but the inputs, hidden and temporary ones included."""
    given = {"tiny.yaml", "flows.yaml", "flows.csv"}
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - given


def commands() -> Sequence[str]:
    return list(cli.cli.commands)


# --- help ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", commands())
def test_every_command_has_help_and_so_has_every_option(moesim: Moesim, name: str) -> None:
    command = cli.cli.commands[name]
    assert (command.help or "").strip()
    assert not [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
    said = moesim(name, "--help")
    assert (said.code, said.err) == (0, "")
    assert f"moesim {name}" in said.out


@pytest.mark.parametrize("name", commands())
def test_every_command_and_option_stands_in_the_docs(name: str) -> None:
    readme = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert f"moesim {name}" in readme
    told = {
        word
        for line in readme.splitlines()
        if f"moesim {name}" in line
        for word in re.findall(r"--[a-z-]+", line)
    }
    options = {
        o
        for p in cli.cli.commands[name].params
        if isinstance(p, click.Option)
        for o in p.opts
        if o.startswith("--")
    }
    assert options == told


def test_no_arguments_print_the_help(moesim: Moesim) -> None:
    said = moesim()
    assert said.code == 2
    assert "moesim run h800-vs-h100" in said.out + said.err


def test_the_list_of_commands_ends_no_sentence_midway(moesim: Moesim) -> None:
    told = [
        line
        for line in moesim("--help").out.splitlines()
        if line.split()[:1] and line.split()[0] in commands()
    ]
    assert [line.split()[0] for line in told] == commands()
    assert all(line.endswith(".") and not line.endswith("...") for line in told)


def test_version_is_the_packages(moesim: Moesim) -> None:
    from sim import __version__

    assert moesim("--version").out.split()[-1] == __version__


# --- run -----------------------------------------------------------------------------------------------------------


def test_run_writes_a_result_and_a_report_and_prints_tables_to_standard_error(
    moesim: Moesim, tmp_path: Path
) -> None:
    said = moesim("run", "tiny.yaml")
    assert (said.code, said.out) == (0, "")
    names = ("result.json", "report.html", "trace.json.gz")
    assert written(tmp_path) == {f"results/tiny/{name}" for name in names}
    for word in ("dispatch", "combine", "results/tiny/report.html"):
        assert word in said.err.replace("\n", "")
    result = json.loads((tmp_path / "results/tiny/result.json").read_text(encoding="utf-8"))
    assert result["schema"] == "moesim.result/1"
    assert result["name"] == "tiny"
    assert {"scenario", "provenance", "metrics", "links", "timeline"} <= result.keys()


def test_json_is_one_document_on_standard_output_and_nothing_else(moesim: Moesim, tmp_path: Path) -> None:
    said = moesim("run", "tiny.yaml", "--json", "--no-report")
    assert (said.code, said.err) == (0, "")
    assert said.json == json.loads((tmp_path / "results/tiny/result.json").read_text(encoding="utf-8"))


def test_out_names_the_folder_and_no_report_leaves_the_report_out(moesim: Moesim, tmp_path: Path) -> None:
    assert moesim("run", "tiny.yaml", "--out", "here/deep", "--no-report").code == 0
    assert written(tmp_path) == {"here/deep/result.json"}


def test_a_second_run_replaces_the_first(moesim: Moesim, tmp_path: Path) -> None:
    for tokens in ("64", "128"):
        moesim("run", "tiny.yaml", "--no-report", "--set", f"workload.tokens_per_rank={tokens}")
    result = json.loads((tmp_path / "results/tiny/result.json").read_text(encoding="utf-8"))
    assert result["scenario"]["workload"]["tokens_per_rank"] == 128
    assert written(tmp_path) == {"results/tiny/result.json"}


def test_several_scenarios_print_one_results_document_and_write_a_folder_each(
    moesim: Moesim, tmp_path: Path
) -> None:
    said = moesim("run", "tiny.yaml", "flows.yaml", "--json", "--no-report", "--out", "both")
    assert said.code == 0
    assert said.json["schema"] == "moesim.results/1"
    assert list(said.json["results"]) == ["tiny", "three-flows"]
    assert {one["schema"] for one in said.json["results"].values()} == {"moesim.result/1"}
    expected = {"tiny/result.json", "three-flows/result.json", "three-flows/flow_completion.csv"}
    assert written(tmp_path) == {f"both/{file}" for file in expected}


def test_scenarios_of_one_name_are_refused_before_anything_runs(moesim: Moesim, tmp_path: Path) -> None:
    said = moesim("run", "tiny.yaml", "tiny.yaml")
    assert said.code == 2
    assert "'tiny' a second time" in said.err
    assert written(tmp_path) == set()


def test_variants_are_whole_results_with_ratios_to_the_first(moesim: Moesim) -> None:
    said = moesim(
        "run",
        "tiny.yaml",
        "--json",
        "--no-report",
        "--set",
        "variants={h800: {}, h100: {cluster.hardware: h100}}",
    )
    assert said.code == 0
    both, comparison = said.json["variants"], said.json["comparison"]
    assert list(both) == ["h800", "h100"]
    assert [one["scenario"]["cluster"]["hardware"] for one in both.values()] == ["h800", "h100"]
    times = [one["metrics"]["combine"]["time_s"] for one in both.values()]
    assert comparison["h100"]["combine.time_s"] == pytest.approx(times[1] / times[0])
    assert comparison["reference"] == "h800"


def test_set_wins_over_the_file_and_over_variants_and_lands_in_the_result(moesim: Moesim) -> None:
    settings = ["variants={a: {workload.tokens_per_rank: 8}, b: {}}", "workload.tokens_per_rank=32", "seed=7"]
    said = moesim(
        "run", "tiny.yaml", "--json", "--no-report", *(word for s in settings for word in ("--set", s))
    )
    scenarios = [one["scenario"] for one in said.json["variants"].values()]
    assert [(one["workload"]["tokens_per_rank"], one["seed"]) for one in scenarios] == [(32, 7), (32, 7)]


def test_a_set_override_of_hardware_changes_the_metrics(moesim: Moesim) -> None:
    key = "cluster.override.gpu.scale_up.bandwidth"
    many = ("run", "tiny.yaml", "--json", "--no-report", "--set", "workload.tokens_per_rank=2048")
    slow, fast = (
        moesim(*many, "--set", f"{key}={rate}").json["metrics"]["dispatch"]
        for rate in ("100 GB/s", "450 GB/s")
    )
    assert slow["time_s"] > fast["time_s"]
    assert slow["binding"] == "scale_up"


def test_the_resolved_scenario_of_a_result_runs_again_to_the_same_metrics(
    moesim: Moesim, tmp_path: Path
) -> None:
    first = moesim("run", "tiny.yaml", "--json", "--no-report").json
    again = {key: value for key, value in first["scenario"].items() if key != "layout"} | {
        "layout": {"ep": 16}
    }
    (tmp_path / "again.yaml").write_text(json.dumps(again), encoding="utf-8")
    assert moesim("run", "again.yaml", "--json", "--no-report").json["metrics"] == first["metrics"]


def test_a_shipped_scenario_runs_by_its_name_and_by_its_path_from_any_folder(moesim: Moesim) -> None:
    said = [
        moesim("run", spec, "--json", "--no-report")
        for spec in ("flows-example", "scenarios/flows-example.yaml")
    ]
    assert [one.code for one in said] == [0, 0]
    assert said[0].json["metrics"] == said[1].json["metrics"]


def test_flows_write_their_completion_beside_the_result(moesim: Moesim, tmp_path: Path) -> None:
    said = moesim("run", "flows.yaml", "--json", "--no-report")
    lines = (tmp_path / "results/three-flows/flow_completion.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "flow_id,start_us,rx_done_us"
    flow_id, start_us, done_us = zip(*(map(float, line.split(",")) for line in lines[1:]), strict=True)
    assert (flow_id, start_us) == ((1, 2, 3), (0, 0, 5))
    assert said.json["metrics"]["completion_time_s"] == pytest.approx(max(done_us) * 1e-6, rel=1e-6)
    assert done_us[0] == pytest.approx(2e6 / 50e9 * 1e6, rel=1e-2)  # two into one 50 GB/s link


# --- exit codes ----------------------------------------------------------------------------------------------------


def test_a_missed_expectation_exits_with_1_and_still_writes_the_result(
    moesim: Moesim, tmp_path: Path
) -> None:
    expect = "expect={dispatch.logical_rdma_bytes_per_s: {value: 900 GB/s, tolerance: 10%, source: nobody}}"
    said = moesim("run", "tiny.yaml", "--no-report", "--set", expect)
    assert said.code == 1
    assert "dispatch.logical_rdma_bytes_per_s" in said.err
    assert "Traceback" not in said.err
    [row] = json.loads((tmp_path / "results/tiny/result.json").read_text(encoding="utf-8"))["expect"]
    assert row["published"] == 900e9
    assert not row["ok"]


def test_an_expectation_of_no_metric_exits_with_2_and_still_writes_the_result(
    moesim: Moesim, tmp_path: Path
) -> None:
    expect = "expect={dispatch.tims_s: {value: 1 ms, tolerance: 10%}, dispatch.nodes_per_token: {value: 2, tolerance: 1%}}"
    said = moesim("run", "tiny.yaml", "--no-report", "--set", expect)
    assert said.code == 2
    assert "expect.dispatch.tims_s: got 'dispatch.tims_s'; wanted a metric of this run" in said.err
    assert "did you mean dispatch.time_s?" in said.err
    [row] = json.loads((tmp_path / "results/tiny/result.json").read_text(encoding="utf-8"))["expect"]
    assert (row["metric"], row["ok"]) == ("dispatch.nodes_per_token", True)


def test_check_knows_what_may_be_expected_of_every_variant(moesim: Moesim, tmp_path: Path) -> None:
    expected = (
        "expect:\n  dispatch.tims_s: {value: 1 ms, tolerance: 10 %}\n  combine.time_s: {value: 1 ms, tolerance: 10 %}\n"
        "variants: {a: {}, b: {cluster.nodes: 4}}\n"
    )
    text = (tmp_path / "tiny.yaml").read_text(encoding="utf-8").rstrip() + "\n"
    (tmp_path / "odd.yaml").write_text(text + expected, encoding="utf-8")
    said = moesim("check", "odd.yaml")
    assert said.code == 2
    line = text.count("\n") + 2
    [problem] = said.err.splitlines()
    assert problem == (
        f"odd.yaml:{line}:3: expect.dispatch.tims_s: got 'dispatch.tims_s'; wanted a metric of all_to_all; "
        "did you mean dispatch.time_s?"
    )


def test_a_met_expectation_exits_with_0(moesim: Moesim) -> None:
    expect = "expect={dispatch.nodes_per_token: {value: 2, tolerance: 1%}}"
    assert moesim("run", "tiny.yaml", "--no-report", "--set", expect).code == 0


def test_an_expectation_of_nothing_is_no_crash(moesim: Moesim) -> None:
    expect = "expect={dispatch.wire_nic_bytes: {value: 0 B, tolerance: 1%}}"
    said = moesim("run", "tiny.yaml", "--json", "--no-report", "--set", expect)
    assert said.code == 1
    assert said.json["expect"][0]["ok"] is False


def test_an_infeasible_scenario_exits_with_3_and_says_why(moesim: Moesim, tmp_path: Path) -> None:
    dead = "cluster.faults=[" + ", ".join(f"{{rail: {i}, bandwidth: 0 Gb/s}}" for i in range(8)) + "]"
    said = moesim("run", "tiny.yaml", "--set", dead)
    assert said.code == InfeasibleError.exit_code == 3
    assert said.err.startswith("moesim: ")
    assert len(said.err.split()) > 5
    assert written(tmp_path) == set()


def test_our_own_bug_shows_its_traceback(moesim: Moesim, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sim.runs.run.run_document", broken)
    with pytest.raises(ZeroDivisionError):
        moesim("run", "tiny.yaml")


def test_interrupting_says_so_without_traceback(moesim: Moesim, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sim.runs.run.run_document", stopped)
    said = moesim("run", "tiny.yaml")
    assert said.code == 130
    assert "stopped" in said.err


def test_what_was_finished_before_an_interrupt_is_on_disk(
    moesim: Moesim, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from sim.runs import run as study

    real, calls = study.run_document, iter("12")

    def second_stops(*args: Any) -> Any:
        if next(calls) == "2":
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(study, "run_document", second_stops)
    assert moesim("run", "tiny.yaml", "flows.yaml", "--no-report", "--out", "out").code == 130
    assert written(tmp_path) == {"out/tiny/result.json"}


# --- bad input -----------------------------------------------------------------------------------------------------

BAD = {
    "an unknown command": (("rnu", "tiny.yaml"), "'rnu'", "did you mean run?"),
    "an unknown option": (("run", "tiny.yaml", "--jason"), "--jason", "--json"),
    "no scenario": (("run",), "SCENARIOS", ""),
    "an unknown scenario": (("run", "h800-vs-h10"), "'h800-vs-h10'", "did you mean h800-vs-h100?"),
    "a missing file": (("run", "nowhere/tiny.yaml"), "nowhere/tiny.yaml", ""),
    "a setting without a value": (("run", "tiny.yaml", "--set", "seed"), "--set seed", "key.path=value"),
    "an unknown key": (("run", "tiny.yaml", "--set", "cluster.nods=2"), "cluster.nods", "did you mean nodes?"),
    "a wrong type": (("run", "tiny.yaml", "--set", "seed=x"), "seed", "whole number"),
    "an unknown kernel": (("run", "tiny.yaml", "--set", "workload.kernel.kind=twohop"), "'twohop'", "did you mean two_hop?"),
    "an unknown model": (("run", "tiny.yaml", "--set", "model=deepseek-v33"), "deepseek-v33", "deepseek-v3"),
    "unknown hardware": (("run", "tiny.yaml", "--set", "cluster.hardware=h801"), "h801", "did you mean h800?"),
    "no nodes": (("run", "tiny.yaml", "--set", "cluster.nodes=0"), "cluster.nodes", "no GPU"),
    "an unfit EP": (("run", "tiny.yaml", "--set", "layout.ep=24"), "layout.ep", "a divisor of"),
    "more groups than there are": (
        ("run", "tiny.yaml", "--set", "workload.gate.top_groups=9"), "top_groups", "the number of groups",
    ),
    "no unit": (("run", "tiny.yaml", "--set", "cluster.override.gpu.scale_up.bandwidth=400"), "400", "400 GB/s"),
    "a wrong dimension": (("run", "tiny.yaml", "--set", "cluster.override.nic.bandwidth=3 us"), "3 us", "400 Gb/s"),
    "a folder that is a file": (("run", "tiny.yaml", "--out", "flows.csv"), "flows.csv", "folder"),
    "an unknown kind of thing": (("show", "hardwear"), "'hardwear'", "did you mean hardware?"),
    "an unknown thing": (("show", "hardware", "h8000"), "h8000", "did you mean h800?"),
    "an unknown schema": (("schema", "scenarios"), "'scenarios'", "did you mean scenario?"),
    "an unknown group": (("validate", "--group", "twohop"), "'twohop'", "did you mean two_hop?"),
    "an unknown plot": (("plot", "result.json", "--kind", "traffic"), "result.json", ""),
    "a plot of nothing": (("plot", "--kind", "x"), "no result", "--list"),
    "a name with a slash": (("new", "a/b"), "'a/b'", "letters"),
    "a template that is none": (("new", "mine", "--from", "h800-vs-h10"), "h800-vs-h10", "did you mean h800-vs-h100?"),
    "a check of nothing known": (("check", "nowhere.yaml"), "nowhere.yaml", ""),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_input_exits_with_2_names_the_place_and_writes_nothing(
    moesim: Moesim, tmp_path: Path, what: str
) -> None:
    args, got, nearest = BAD[what]
    said = moesim(*args)
    assert said.code == 2, said.err
    assert said.out == ""
    flat = " ".join(said.err.split())
    assert got in flat
    assert nearest in flat
    assert "Traceback" not in said.err
    assert written(tmp_path) == set()


def test_all_problems_of_a_file_are_told_at_once_with_line_and_column(moesim: Moesim, tmp_path: Path) -> None:
    bad = (
        TINY.replace("nodes: 2", "nods: 2")
        .replace("tokens_per_rank: 64", "tokens_per_rank: many")
        .replace("seed", "sed")
    )
    (tmp_path / "bad.yaml").write_text(bad + "sed: 1\n", encoding="utf-8")
    for command in ("run", "check"):
        said = moesim(command, "bad.yaml")
        assert said.code == 2
        lines = said.err.splitlines()
        assert [line.partition(": ")[0] for line in lines] == [
            "bad.yaml:3:27",
            "bad.yaml:8:20",
            "bad.yaml:11:1",
        ]
        assert all("got " in line and "; wanted " in line for line in lines)
    assert written(tmp_path) == {"bad.yaml"}


@pytest.mark.parametrize(
    ("csv", "got"),
    [
        ("1,0,2,-5,0\n", "-5"),
        ("1,0,9,5,0\n", "9"),
        ("1,0,2,5,0\n1,1,2,5,0\n", "1"),
        ("1,0,2,much,0\n", "much"),
        ("1,0,2\n", "flows.csv"),
        ("", "flows.csv"),
    ],
    ids=["negative bytes", "an unknown host", "an id twice", "no number", "a short row", "no flow"],
)
def test_a_bad_flow_list_names_its_line(moesim: Moesim, tmp_path: Path, csv: str, got: str) -> None:
    (tmp_path / "flows.csv").write_text(CSV.splitlines()[0] + "\n" + csv, encoding="utf-8")
    said = moesim("run", "flows.yaml")
    assert said.code == 2
    assert got in said.err
    assert re.match(r"\S*flows\.csv(:\d+:\d+)?: ", said.err)
    assert written(tmp_path) == set()


def test_an_alias_bomb_and_a_duplicate_key_are_refused_at_once(moesim: Moesim, tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
    )
    (tmp_path / "bomb.yaml").write_text(bomb, encoding="utf-8")
    (tmp_path / "twice.yaml").write_text(TINY + "name: other\n", encoding="utf-8")
    for file, word in (("bomb.yaml", "values"), ("twice.yaml", "duplicate")):
        said = moesim("check", file)
        assert said.code == 2
        assert file in said.err
        assert word in said.err


def test_a_hardware_file_without_a_source_is_refused(moesim: Moesim, tmp_path: Path) -> None:
    text = (documents.data_folder("hardware") / "h100.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(
        re.sub(r"source: \w+", "", text, count=1).replace(", }", "}"), encoding="utf-8"
    )
    said = moesim("check", "mine.yaml")
    assert said.code == 2
    assert re.match(r"mine\.yaml:\d+:\d+: ", said.err)
    assert "source" in said.err


# --- written whole or not at all -------------------------------------------------------------------------------------


def test_a_file_appears_whole_by_renaming(
    moesim: Moesim, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    renamed: list[tuple[str, bool]] = []
    real = os.replace

    def watched(source: Path, target: Path) -> None:
        json.loads(Path(source).read_text(encoding="utf-8"))
        renamed.append((Path(target).name, Path(target).exists()))
        real(source, target)

    monkeypatch.setattr(os, "replace", watched)
    assert moesim("run", "tiny.yaml", "--no-report").code == 0
    assert renamed == [("result.json", False)]
    assert written(tmp_path) == {"results/tiny/result.json"}


def test_a_failed_write_leaves_neither_half_a_file_nor_a_temporary_one(
    moesim: Moesim, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    said = moesim("run", "tiny.yaml", "--no-report")
    assert said.code == 1
    assert "no space left" in said.err
    assert written(tmp_path) == set()


# --- plot ----------------------------------------------------------------------------------------------------------


def test_plot_lists_its_kinds_and_draws_each(moesim: Moesim, tmp_path: Path) -> None:
    listed = moesim("plot", "--list")
    assert listed.code == 0
    kinds = [line.split()[0] for line in listed.out.splitlines()]
    assert all(len(line.split()) > 3 for line in listed.out.splitlines())
    moesim("run", "tiny.yaml", "--no-report", "--out", "r")
    moesim("validate", "--group", "eplb_example", "--out", "v")
    drawn: list[str] = []
    for kind in kinds:
        said = moesim(
            "plot", "v/validation.json" if kind == "validation" else "r", "--kind", kind, "--out", "drawn"
        )
        if said.code != 0:  # a kind for other workloads says so
            assert re.search("wanted (a result that has the data for it|the (ladder|sweep).json)", said.err)
            continue
        drawn.append(kind)
        for path in said.out.split():
            assert (tmp_path / path).stat().st_size > 1000
    assert {
        "bars",
        "utilisation",
        "links",
        "rank_times",
        "fabric_map",
        "traffic_matrix",
        "validation",
    } <= set(drawn)


def test_an_unknown_kind_or_format_names_the_nearest(moesim: Moesim, tmp_path: Path) -> None:
    moesim("run", "tiny.yaml", "--no-report", "--out", "r")
    kind = moesim("plot", "--list").out.split()[0]
    before = written(tmp_path)
    for args, word in ((("--kind", kind[:-1]), kind), (("--kind", kind, "--format", "pgn"), "png")):
        said = moesim("plot", "r", *args)
        assert said.code == 2
        assert f"did you mean {word}?" in said.err
    assert written(tmp_path) == before


@pytest.mark.parametrize(
    "text", ['{"schema": "moesim.result/9"}', '{"schema": "moesim.res', "[]", '{"name": "x"}']
)
def test_a_result_of_another_version_or_cut_short_is_refused(
    moesim: Moesim, tmp_path: Path, text: str
) -> None:
    (tmp_path / "old.json").write_text(text, encoding="utf-8")
    said = moesim("plot", "old.json", "--kind", "fabric")
    assert said.code == 2
    assert said.err.startswith("old.json")


# --- check, show, schema, new ----------------------------------------------------------------------------------------


def test_check_says_what_each_file_is(moesim: Moesim, tmp_path: Path) -> None:
    said = moesim(
        "check", "tiny.yaml", "h800-vs-h100", "hardware/h800.yaml", "scenarios/models/deepseek-v3.yaml"
    )
    assert (said.code, said.out) == (0, "")
    kinds = [line.rpartition("a valid ")[2] for line in said.err.splitlines()]
    assert [kind.partition(";")[0] for kind in kinds] == ["scenario", "scenario", "hardware profile", "model"]
    assert "no kind of workload reads gpu.dense_flops.fp64 (export rules alone)" in kinds[2]
    assert written(tmp_path) == set()


def test_check_tells_the_problems_of_every_file(moesim: Moesim, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(TINY + "sed: 1\n", encoding="utf-8")
    said = moesim("check", "one.yaml", "tiny.yaml", "two.yaml")
    assert said.code == 2
    problems = [line for line in said.err.splitlines() if "; wanted " in line]
    assert [line.partition(":")[0] for line in problems] == ["one.yaml", "two.yaml"]


@pytest.mark.parametrize("what", ["hardware", "model", "scenario", "kernel", "software"])
def test_show_lists_and_shows_everything_shipped(moesim: Moesim, what: str) -> None:
    names = moesim("show", what).out.split()
    assert names
    assert moesim("show", what, "--json").json == names
    for name in names:
        assert len(moesim("show", what, name).out.splitlines()) > 3
        assert moesim("show", what, name, "--json").json


def test_show_hardware_prints_grades_what_differs_and_the_export_rules(moesim: Moesim) -> None:
    said = moesim("show", "hardware", "h800")
    assert said.code == 0
    for word in ("200 GB/s", "h100", "derived", "export"):
        assert word in said.out.lower() or word in said.out


@pytest.mark.parametrize(
    "what", ["scenario", "sweep", "ladder", "hardware", "model", "kernel", "software", "size"]
)
def test_schema_is_a_json_schema_in_which_every_key_has_a_sentence(moesim: Moesim, what: str) -> None:
    found = moesim("schema", what).json
    assert found["type"] == "object"
    assert found["properties"]
    for node in (found, *found.get("$defs", {}).values()):
        assert not [key for key, entry in node.get("properties", {}).items() if not entry.get("description")]


def test_new_writes_an_editable_scenario_once(moesim: Moesim, tmp_path: Path) -> None:
    assert moesim("new", "mine").code == 0
    text = (tmp_path / "mine.yaml").read_text(encoding="utf-8")
    assert "\nname: mine\n" in text
    assert moesim("check", "mine.yaml").code == 0
    again = moesim("new", "mine")
    assert again.code == 2
    assert "mine.yaml" in again.err
    assert (tmp_path / "mine.yaml").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("template", documents.shipped("scenarios"))
def test_new_from_any_shipped_scenario_is_valid_where_it_lands(moesim: Moesim, template: str) -> None:
    assert moesim("new", "mine", "--from", template).code == 0
    said = moesim("check", "mine.yaml")
    assert said.code == 0, said.err


def test_new_writes_a_generation_that_a_scenario_may_name(moesim: Moesim, tmp_path: Path) -> None:
    assert "'mine.yaml'" in moesim("new", "mine", "--from", "two_hop").err
    assert "\nname: mine\nkind: two_hop\n" in (tmp_path / "mine.yaml").read_text(encoding="utf-8")
    assert moesim("check", "mine.yaml").code == 0
    named = moesim(
        "run", "tiny.yaml", "--json", "--no-report", "--set", "workload.kernel.generation=mine.yaml"
    )
    assert named.json["metrics"] == moesim("run", "tiny.yaml", "--json", "--no-report").json["metrics"]


# --- as other programs meet it ---------------------------------------------------------------------------------------


def spawn(*args: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sim", *args]
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_metrics_are_the_same_bytes_under_every_hash_seed(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(
        TINY.replace("deepep_benchmark, top_groups: 2", "zipf, exponent: 0.7"), encoding="utf-8"
    )
    found = set()
    for seed in ("1", "4242"):
        done = spawn("run", "tiny.yaml", "--json", "--no-report", cwd=tmp_path, PYTHONHASHSEED=seed)
        assert (done.returncode, done.stderr) == (0, "")
        result = json.loads(done.stdout)
        found.add(json.dumps([result["metrics"], result["links"]]))
    assert len(found) == 1


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    command = f"set -o pipefail; {sys.executable} -m sim schema scenario | head -c 10"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


# --- what a run says of itself -------------------------------------------------------------------------------------


def test_a_changed_scenario_does_not_pass_for_the_one_that_ships(moesim: Moesim, tmp_path: Path) -> None:
    words = (
        "run",
        "deepep-ep16-h800",
        "--set",
        "cluster.hardware=h100",
        "--set",
        "workload.gate.sampling=expected",
    )
    said = moesim(*words, "--json", "--out", "r")
    assert said.json["title"].endswith(
        " on 16 H800, with cluster.hardware=h100, workload.gate.sampling=expected"
    )
    assert said.json["provenance"]["settings"] == [words[3], words[5]]
    told = moesim(*words, "--out", "r").err
    assert "values published for the scenario as it was before --set are met" in told
    kernel = "workload.kernel={kind: two_hop, comm_sms: 24, generation: deepep_v1_2025_02}"
    long = moesim("run", "deepep-ep16-h800", "--set", kernel, "--json", "--out", "r").json
    assert long["title"].endswith(" on 16 H800, with another workload.kernel")
    plain = moesim("run", "deepep-ep16-h800", "--set", "seed=3", "--json", "--out", "r").json
    assert plain["title"].endswith("on 16 H800")


def test_what_stands_in_a_folder_is_of_one_run(moesim: Moesim) -> None:
    moesim("run", "tiny.yaml", "--out", "r")
    assert {path.name for path in Path("r").iterdir()} == {"result.json", "report.html", "trace.json.gz"}
    Path("r", "mine.txt").write_text("kept")
    moesim("run", "tiny.yaml", "--out", "r", "--no-report")
    assert {path.name for path in Path("r").iterdir()} == {"result.json", "mine.txt"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("run", "v3-layouts"),
            "'v3-layouts', the name of a sweep; wanted a scenario; it goes with `moesim sweep v3-layouts`",
        ),
        (
            ("sweep", "v3-prefill"),
            "the name of a ladder; wanted a sweep; it goes with `moesim ladder v3-prefill`",
        ),
        (
            ("ladder", "h800-450"),
            "the name of a scenario; wanted a ladder; it goes with `moesim run h800-450`",
        ),
        (
            ("run", "scenarios/sweeps/comm-sms.yaml"),
            "got a sweep; wanted a scenario; it goes with `moesim sweep",
        ),
    ],
)
def test_a_file_of_another_command_says_which(words: tuple[str, ...], told: str, moesim: Moesim) -> None:
    said = moesim(*words)
    assert said.code == 2
    assert told in said.err
