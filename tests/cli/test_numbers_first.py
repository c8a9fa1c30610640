"""Numbers first: nothing that is drawn, and no end of a process, takes away what has been computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest

import laddering
import sweeping
from command import Moesim
from sim.errors import EXIT_DONE, EXIT_INFEASIBLE, EXIT_MISSED, InfeasibleError
from sim.ladders import run as ladders
from sim.runs import run as study
from sim.show.failures import FigureWarning
from sim.show.files import folder
from sim.show.files.partial import Keeper
from sim.show.plots import kinds as plots
from sim.validation import validate as validation

BYTES = "{name: bytes1, cluster: {hardware: h800, nodes: 1}, workload: {kind: all_to_all, bytes_per_rank: 1 B, kernel: {kind: nccl}}}"
THREE = f"{BYTES[:-1]}, variants: {{a: {{}}, b: {{seed: 1}}, c: {{seed: 2}}}}}}".replace("1 B", "1 MB")
SWEEP = {
    "name": "small",
    "base": {**sweeping.EXCHANGE, "name": "x"},
    "axes": {"workload.tokens_per_rank": [64, 128, 256, 512]},
    "objectives": {"dispatch.time_s": "minimise"},
}
drawn_notes = pytest.mark.filterwarnings("always::sim.show.failures.FigureWarning")
"""Elsewhere in these tests a figure that cannot be drawn is an error."""


def nth(number: int, error: BaseException) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the n-th call of a function, from 1, raise an error."""

    def of(real: Callable[..., Any]) -> Callable[..., Any]:
        calls: Iterator[int] = iter(range(1, 10**6))

        def called(*args: Any, **options: Any) -> Any:
            if next(calls) == number:
                raise error
            return real(*args, **options)

        return called

    return of


def document(path: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(Path(path).read_text())
    return read


# --- pictures ------------------------------------------------------------------------------------------------------


def test_a_rank_that_sends_less_than_a_byte_has_a_result_and_a_report(moesim: Moesim) -> None:
    """1 B over 8 ranks: matrices of whole bytes hold none, and nothing is divided by their sum."""
    Path("bytes1.yaml").write_text(BYTES)
    said = moesim("run", "bytes1.yaml")
    assert said.code == EXIT_DONE
    assert "note:" not in said.err
    assert {one.name for one in Path("results/bytes1").iterdir()} == {
        "result.json",
        "report.html",
        "trace.json.gz",
    }
    assert document("results/bytes1/result.json")["metrics"]["exchange"]["time_s"] > 0
    said = moesim("plot", "results/bytes1", "--kind", "traffic_matrix")
    assert "no rank sends another a whole byte" in said.err


@pytest.mark.parametrize("command", ["run", "ladder", "sweep"])
def test_the_table_is_printed_before_the_report_is_drawn(
    moesim: Moesim, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """A drawing that says so on standard error stands below the table, above the names of files."""

    def drawn(_: object) -> str:
        click.echo("DRAWN", err=True)
        return "a page"

    monkeypatch.setattr("sim.show.pages.report.report_html", drawn)
    text = {"run": BYTES, "sweep": json.dumps(SWEEP), "ladder": laddering.SMALL}[command]
    Path("x.yaml").write_text(text)
    said = moesim(command, "x.yaml")
    assert said.code == EXIT_DONE
    table, below = said.err.split("DRAWN")
    assert "──────" in table
    assert "──────" not in below
    assert below.startswith("\nWritten: results/")


@drawn_notes
def test_a_figure_that_fails_is_a_note_in_the_report_and_a_line(
    moesim: Moesim, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("float division by zero")

    monkeypatch.setitem(plots.KINDS, "links", ("Broken.", broken))
    Path("x.yaml").write_text(BYTES.replace("1 B", "1 MB"))
    said = moesim("run", "x.yaml")
    assert said.code == EXIT_DONE
    told = (
        "links could not be drawn (ZeroDivisionError: float division by zero); its numbers are in the result"
    )
    assert [line for line in said.err.splitlines() if "note:" in line] == [f"note: the figure {told}"]
    page = Path("results/bytes1/report.html").read_text()
    assert page.count(f"The figure {told}.") == 1
    assert 'id="fig-traffic_matrix"' in page
    assert document("results/bytes1/result.json")["links"]


@drawn_notes
@pytest.mark.parametrize("part", ["pages.report.report_html", "files.timelines.timeline"])
def test_a_report_or_trace_that_fails_leaves_the_numbers(
    moesim: Moesim, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("no such thing")

    Path("x.yaml").write_text(BYTES.replace("1 B", "1 MB"))
    assert moesim("run", "x.yaml").code == EXIT_DONE
    monkeypatch.setattr(f"sim.show.{part}", broken)
    said = moesim("run", "x.yaml", "--set", "workload.bytes_per_rank=2 MB")
    assert said.code == EXIT_DONE
    assert "could not be drawn (RuntimeError: no such thing)" in said.err
    assert document("results/bytes1/result.json")["provenance"]["settings"] == [
        "workload.bytes_per_rank=2 MB"
    ]
    lost = {"pages.report.report_html": "report.html", "files.timelines.timeline": "trace.json.gz"}[part]
    assert not Path(f"results/bytes1/{lost}").exists()  # the old one belonged to the old numbers


@drawn_notes
def test_numbers_are_on_disk_before_a_picture_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there: list[set[str]] = []

    def looks(_: object) -> str:
        there.append({one.name for one in tmp_path.iterdir()})
        raise MemoryError

    monkeypatch.setattr("sim.show.pages.report.report_html", looks)
    with pytest.warns(FigureWarning):
        folder.save(tmp_path, study.run_document(scenario(BYTES)))
    assert there == [{"result.json"}]


def scenario(text: str) -> Any:
    from sim import documents

    return documents.loads(text, "x.yaml")


@drawn_notes
def test_a_broken_figure_of_a_ladder_and_of_a_sweep_is_a_note(
    moesim: Moesim, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr("sim.show.plots.ladder.ladder", broken)
    monkeypatch.setattr("sim.show.plots.enough.enough", broken)
    Path("small.yaml").write_text(laddering.SMALL)
    said = moesim("ladder", "small.yaml", "--out", "l")
    assert said.code == EXIT_DONE
    assert said.err.count("could not be drawn (IndexError: list index out of range)") == 3
    assert document("l/ladder.json")["rungs"]
    for name in ("pareto", "parallel", "map"):
        monkeypatch.setitem(plots.KINDS, name, ("Broken.", broken))
    Path("sweep.yaml").write_text(json.dumps(SWEEP))
    said = moesim("sweep", "sweep.yaml", "--jobs", "1", "--out", "s")
    assert said.code == EXIT_DONE
    assert "could not be drawn (IndexError" in said.err
    assert len(document("s/sweep.json")["points"]) == 4
    assert "could not be drawn" in Path("s/report.html").read_text()


# --- what is finished ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (InfeasibleError("no machine could do it"), EXIT_INFEASIBLE),
        (MemoryError(), EXIT_MISSED),
    ],
    ids=["Ctrl-C", "infeasible", "memory"],
)
def test_variants_that_ended_stay_and_can_be_drawn(
    moesim: Moesim, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    Path("three.yaml").write_text(THREE)
    with monkeypatch.context() as patched:
        patched.setattr(study, "run_scenario", nth(3, error)(study.run_scenario))
        said = moesim("run", "three.yaml")
    assert said.code == code
    assert "note: results/bytes1/result.json is partial: it holds 2 of 3 variants" in said.err
    part = document("results/bytes1/result.json")
    assert list(part["variants"]) == ["a", "b"]
    assert part["partial"] == {"finished": 2, "of": 3, "what": "variants"}
    said = moesim("plot", "results/bytes1", "--kind", "bars")
    assert said.code == EXIT_DONE
    assert "note: results/bytes1 is partial: it holds 2 of 3 variants" in said.err
    assert moesim("run", "three.yaml").code == EXIT_DONE
    whole = document("results/bytes1/result.json")
    assert "partial" not in whole
    assert {name: whole["variants"][name] for name in "ab"} == part["variants"]
    assert whole["comparison"]["b"] == part["comparison"]["b"]


def test_a_whole_result_is_not_replaced_by_a_part_of_a_later_one(
    moesim: Moesim, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("three.yaml").write_text(THREE)
    assert moesim("run", "three.yaml").code == EXIT_DONE
    whole, page = (Path(f"results/bytes1/{name}").read_text() for name in ("result.json", "report.html"))
    with monkeypatch.context() as patched:
        patched.setattr(study, "run_scenario", nth(2, KeyboardInterrupt())(study.run_scenario))
        said = moesim("run", "three.yaml", "--set", "workload.bytes_per_rank=3 MB")
    assert "note: results/bytes1/result.partial.json is partial: it holds 1 of 3 variants" in said.err
    assert Path("results/bytes1/result.json").read_text() == whole
    assert Path("results/bytes1/report.html").read_text() == page
    assert moesim("plot", "results/bytes1/result.partial.json", "--kind", "bars").code == EXIT_DONE
    assert moesim("run", "three.yaml").code == EXIT_DONE
    assert not Path("results/bytes1/result.partial.json").exists()


def test_the_rows_of_flows_stay_with_the_variants_that_ended(
    moesim: Moesim, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("flows.csv").write_text("flow_id,src,dst,bytes,start_us\n1,0,4,1000,0\n")
    Path("f.yaml").write_text(
        "name: f\ncluster: {fabric: {kind: leaf_spine, hosts: 8, hosts_per_leaf: 4, spines: 4, link: 400 Gb/s}}\n"
        "workload: {kind: flows, file: flows.csv}\nvariants: {a: {}, b: {seed: 1}}\n"
    )
    for whole in (False, True):  # in a fresh folder, and next to a whole result
        with monkeypatch.context() as patched:
            patched.setattr(study, "run_scenario", nth(2, KeyboardInterrupt())(study.run_scenario))
            moesim("run", "f.yaml", "--out", "o")
        read = folder.read(Path("o/result.partial.json" if whole else "o"))
        assert len(read["variants"]["a"]["flow_completion"]) == 1
        assert moesim("run", "f.yaml", "--out", "o").code == EXIT_DONE


def test_points_that_ended_stay_and_can_be_drawn(moesim: Moesim, monkeypatch: pytest.MonkeyPatch) -> None:
    from sim.sweeps.run import _Run

    Path("sweep.yaml").write_text(json.dumps(SWEEP))
    with monkeypatch.context() as patched:
        patched.setattr(_Run, "settle", nth(4, KeyboardInterrupt())(_Run.settle))
        said = moesim("sweep", "sweep.yaml", "--jobs", "1")
    assert said.code == 130
    assert "note: results/small/sweep.json is partial: it holds 3 of 4 points" in said.err
    part = document("results/small/sweep.json")
    assert len(part["points"]) == 3
    assert len(part["ranked"]) == 3
    assert moesim("plot", "results/small", "--kind", "parallel").code == EXIT_DONE
    assert moesim("sweep", "sweep.yaml", "--jobs", "1").code == EXIT_DONE
    whole = document("results/small/sweep.json")
    assert "partial" not in whole
    assert whole["runs"]["computed"] == 0
    assert [one for one in whole["points"] if one in part["points"]] == part["points"]


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return laddering.run(laddering.SMALL)


@pytest.mark.parametrize(
    "stopped_at", [14, *(pytest.param(one, marks=pytest.mark.slow) for one in (7, 9, 18, 24))]
)
def test_rungs_that_ended_stay_and_can_be_drawn(
    moesim: Moesim, monkeypatch: pytest.MonkeyPatch, whole: dict[str, Any], stopped_at: int
) -> None:
    Path("small.yaml").write_text(laddering.SMALL)
    with monkeypatch.context() as patched:
        patched.setattr(
            "sim.ladders.designs.forecast",
            nth(stopped_at, KeyboardInterrupt())(ladders.Designs.run.__globals__["forecast"]),
        )
        said = moesim("ladder", "small.yaml")
    assert said.code == 130
    assert "note: results/small/ladder.json is partial: it holds " in said.err
    part = document("results/small/ladder.json")
    assert part["rungs"][0]["name"] == "naive"
    for rung, same in zip(part["rungs"], whole["rungs"], strict=False):
        assert rung["cumulative"] == same["cumulative"]
        for way in ("added_first", "removed_last"):
            reasons = rung["reasons"].get(way, {}).values()
            assert rung[way] == same[way] or all("not run" in why for why in reasons)
    assert moesim("plot", "results/small", "--kind", "ladder").code == EXIT_DONE
    assert moesim("ladder", "small.yaml").code == EXIT_DONE
    assert "partial" not in document("results/small/ladder.json")


def test_groups_that_ended_stay_and_can_be_drawn(moesim: Moesim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "_group", nth(3, KeyboardInterrupt())(validation._group))
    groups = [word for name in ("models", "export_rules", "schedules") for word in ("--group", name)]
    said = moesim("validate", *groups, "--out", "v")
    assert said.code == 130
    assert "note: v/validation.json is partial: it holds 2 of 3 groups" in said.err
    assert list(document("v/validation.json")["groups"]) == ["models", "export_rules"]
    assert moesim("plot", "v", "--kind", "validation").code == EXIT_DONE


def test_nothing_finished_writes_nothing(moesim: Moesim, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("three.yaml").write_text(THREE)
    monkeypatch.setattr(study, "run_scenario", nth(1, KeyboardInterrupt())(study.run_scenario))
    assert moesim("run", "three.yaml").code == 130
    assert not Path("results").exists()


def test_writing_what_is_finished_takes_a_tenth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each second of writing is followed by ten of work; the last state is written at the end, whatever the time."""
    now, told, writes = [0.0], list[str](), list[float]()
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def slow(count: int) -> dict[str, Any]:
        now[0] += 1.0
        writes.append(now[0])
        return {"schema": "moesim.result/1", "partial": {"finished": count, "of": 100, "what": "variants"}}

    def work() -> None:
        with Keeper(tmp_path, "result.json", told.append) as keep:
            for count in range(1, 31):
                now[0] += 1.0
                keep(partial(slow, count))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert len(writes) == 4  # at 1, 12 and 23 s of work, and at the end
    assert told == [f"note: {tmp_path}/result.json is partial: it holds 30 of 100 variants"]
