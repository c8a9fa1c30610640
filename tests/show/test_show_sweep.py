"""A sweep shown: its words, grids and figures say the same as its points, and every picture is drawn."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import browser
from sim import documents, units
from sim.errors import InputError
from sim.show.files import export
from sim.show.pages import sweep as sweep_page
from sim.show.plots import kinds as plots
from sim.show.tables import console as tables
from sim.show.tables import sweep as sweep_grids
from sim.show.tables.progress import SweepBar
from sim.show.views.labels import axis_label, metric_cell, value_label, values_text
from sim.show.views.sweep import Runs, sweep_view
from sim.show.words import sweep as sweep_words
from sweeping import EXCHANGE, run, sweep_of

BANDWIDTH = "cluster.override.gpu.scale_up.bandwidth"
AXES = {
    "cluster.hardware": ["h800", "h100"],
    "layout.ep": [3, 8, 16],
    "workload.kernel.comm_sms": [4, 8, 16, 24],
    BANDWIDTH: ["100 GB/s", "200 GB/s", "450 GB/s"],
}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(sweep_of(axes=AXES), tmp_path_factory.mktemp("a"))


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    objectives = {"dispatch.time_s": "minimise", "dispatch.logical_nvlink_bytes_per_s": "maximise"}
    return run(
        sweep_of(axes=AXES, given="cluster.hardware", objectives=objectives), tmp_path_factory.mktemp("b")
    )


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Six conditions, two objectives, and SMs of which more than enough change nothing."""
    axes = {
        "cluster.hardware": ["h800", "h100"],
        "workload.tokens_per_rank": [64, 128, 65536],
        "workload.kernel.comm_sms": [4, 32, 36, 40],
    }
    objectives = {"dispatch.time_s": "minimise", "combine.time_s": "minimise"}
    return run(
        sweep_of(axes=axes, given=list(axes)[:2], objectives=objectives), tmp_path_factory.mktemp("crowded")
    )


@pytest.fixture(scope="module")
def lengthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Four conditions of many digits and two choices; with a fifth, choices are told one below the other."""
    axes = {
        "workload.tokens_per_rank": [1024, 4096, 16384, 65536],
        "workload.kernel.comm_sms": [8, 16, 24],
        BANDWIDTH: AXES[BANDWIDTH],
    }
    return run(sweep_of(axes=axes, given="workload.tokens_per_rank"), tmp_path_factory.mktemp("lengthy"))


@pytest.fixture(scope="module")
def hopeless(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(sweep_of(axes={"layout.ep": [3, 5]}), tmp_path_factory.mktemp("c"))


def fastest(document: dict[str, Any], **values: Any) -> float:
    """By hand: the least dispatch time of the points with some values."""
    keys = {"hardware": "cluster.hardware", "ep": "layout.ep", "sms": "workload.kernel.comm_sms"}
    return min(
        point["metrics"]["dispatch"]["time_s"]
        for point in document["points"]
        if point["status"] == "ok"
        and all(point["values"][keys[key]] == value for key, value in values.items())
    )


# --- words and grids -----------------------------------------------------------------------------------------------


def test_the_answer_names_the_best_point_and_its_time(document: dict[str, Any]) -> None:
    best = document["points"][document["ranked"][0]]
    first = sweep_words.finding(sweep_view(document))[0]
    assert first.startswith(
        f"Best of 48 that ran is {values_text(best['values'], document['axes'])}: dispatch time "
    )
    assert metric_cell("dispatch.time_s", fastest(document)) in first


def test_what_cannot_be_is_counted_by_reason(document: dict[str, Any]) -> None:
    [reason] = sweep_view(document).reasons
    assert (reason.kind, reason.count) == ("sizes that do not divide", 24)
    assert "a divisor of the 16 ranks" in reason.example
    assert "48 ran; 24 cannot be. Most often: sizes that do not divide (24)." in sweep_words.finding(
        sweep_view(document)
    )


def test_a_choice_is_judged_with_all_others_at_their_best(document: dict[str, Any]) -> None:
    grid = sweep_grids.costs(sweep_view(document), ["dispatch.time_s"])
    rows = {(row[0], row[1]): row for row in grid.rows}
    for sms in (4, 8, 16, 24):
        row = rows["comm SMs", str(sms)]
        assert row[2] == "12"
        assert row[3] == metric_cell("dispatch.time_s", fastest(document, sms=sms))
        behind = fastest(document, sms=sms) / fastest(document) - 1
        assert row[4] == ("best" if behind == 0 else f"{behind:+.1%}")
    assert rows["EP", "3"][2:] == ("0", "-", "none can be")


def test_a_given_axis_is_a_condition_and_no_choice(given: dict[str, Any]) -> None:
    said = sweep_words.finding(sweep_view(given))
    for sentence, hardware in zip(said, ("h800", "h100"), strict=False):
        assert sentence.startswith(f"{hardware}: best of 24 that ran is EP ")
        assert metric_cell("dispatch.time_s", fastest(given, hardware=hardware)) in sentence
    grid = sweep_grids.costs(sweep_view(given), ["dispatch.time_s"])
    assert grid.heads == ("axis", "value", "h800", "h100")
    row = next(row for row in grid.rows if row[:2] == ("comm SMs", "4"))
    for cell, hardware in zip(row[2:], ("h800", "h100"), strict=True):
        behind = fastest(given, hardware=hardware, sms=4) / fastest(given, hardware=hardware) - 1
        assert cell == f"{behind:+.1%}"


def test_of_many_conditions_each_says_how_little_is_enough(tmp_path: Path) -> None:
    """Within a node an exchange takes NVLink's share of the bytes over its rate, until the SMs that copy are the bottleneck."""
    axes = {
        "layout.ep": [8, 16],
        "cluster.hardware": ["h800", "h100", "h200"],
        BANDWIDTH: [*AXES[BANDWIDTH], "451 GB/s"],
    }
    found = run(sweep_of(axes=axes, given=["cluster.hardware", "layout.ep"]), tmp_path)
    assert found["given"] == ["layout.ep", "cluster.hardware"]
    assert len(found["best"]) == 6
    grid = sweep_grids.costs(sweep_view(found), ["dispatch.time_s"])
    assert grid.heads == (
        "EP", "hardware", "best dispatch time", "NVLink within 1%", "NVLink within 5%", "NVLink within 25%",
    )  # fmt: skip
    assert [row[:2] for row in grid.rows[:3]] == [("8", "h800"), ("8", "h100"), ("8", "h200")]
    for ep, hardware, best, *least in grid.rows:
        here = {
            point["values"][BANDWIDTH]: point["metrics"]["dispatch"]["time_s"]
            for point in found["points"]
            if (str(point["values"]["layout.ep"]), point["values"]["cluster.hardware"]) == (ep, hardware)
        }
        top = min(here.values())
        assert best == metric_cell("dispatch.time_s", top)
        for value, times in zip(least, (1.01, 1.05, 1.25), strict=True):
            assert value == next(one for one, time_s in here.items() if time_s <= times * top)
    said = sweep_words.finding(sweep_view(found))
    assert said[0].startswith("To come within 5% of its best, EP ")
    assert not any("best of" in one for one in said)


def test_of_many_conditions_the_answer_says_where_one_choice_takes_over(tmp_path: Path) -> None:
    """Low-latency kernels are the faster ones for few tokens, two hops for many; where they part is read off the points."""
    tokens = [8, 32, 128, 512, 4096]
    ways = {
        "direct": {"workload.kernel": {"kind": "low_latency"}},
        "two hops": {"workload.kernel": {"kind": "two_hop"}},
    }
    found = run(
        sweep_of(axes={"workload.tokens_per_rank": tokens, "way": ways}, given="workload.tokens_per_rank"),
        tmp_path,
    )
    times = {(point["values"]["workload.tokens_per_rank"], point["values"]["way"]): point["metrics"]["dispatch"]["time_s"]
             for point in found["points"]}  # fmt: skip
    last = max(count for count in tokens if times[count, "direct"] < times[count, "two hops"])
    after = tokens[tokens.index(last) + 1]
    assert sweep_words.finding(sweep_view(found))[0] == (
        f"Best by tokens per rank is direct up to {last} and two hops from {after} on."
    )


def test_more_of_a_rate_is_better_in_words_too(tmp_path: Path) -> None:
    objectives = {"dispatch.logical_nvlink_bytes_per_s": "maximise"}
    found = run(
        sweep_of(axes={"workload.kernel.comm_sms": [4, 24], "layout.ep": [8, 16]}, objectives=objectives),
        tmp_path,
    )
    rates = [p["metrics"]["dispatch"]["logical_nvlink_bytes_per_s"] for p in found["points"]]
    times = max(rates) / max(rates[:2])
    costly = next(one for one in sweep_words.finding(sweep_view(found)) if "costs most" in one)
    assert f"1/{max(times, max(rates) / max(rates[1], rates[3])):.3g} of the best" in costly
    title = plots.figure("map", found).layout.meta["title"]
    assert title.endswith(f"worst 1/{max(rates) / min(rates):.3g} of that")


def lacking(document: dict[str, Any], times: dict[str, float]) -> dict[str, Any]:
    """The document with a point of each hardware that lacks memory and would take so many times the best of its hardware."""
    changes = [
        {
            "point": next(i for i, p in enumerate(document["points"]) if p["values"]["cluster.hardware"] == name),
            "needed_bytes": 84e9, "capacity_bytes": 80e9, "parts": {"weights": 84e9},
            "metrics": {"dispatch": {"time_s": many * fastest(document, hardware=name)}},
        }
        for name, many in times.items()
    ]  # fmt: skip
    return {**document, "changes": changes, "runs": {**document["runs"], "of_changes": 7}}


def test_more_memory_is_said_not_to_help_only_where_it_was_tried(given: dict[str, Any]) -> None:
    """Points far from fitting are not run, so of them nothing is claimed; each is compared with its own hardware."""
    found = lacking(given, {"h100": 2.0, "h800": 1.5})
    said = sweep_words.finding(sweep_view(found))[-1]
    assert said.startswith(
        "None of the 7 points tried with the memory they lack would beat the best: with what it needs, h800, "
    )
    assert said.endswith(", +50.0%.")
    assert [row[-1] for row in sweep_grids.changes(sweep_view(found)).rows] == ["+50.0%", "+100.0%"]
    helped = sweep_words.finding(sweep_view(lacking(given, {"h800": 1.5, "h100": 0.9})))[-1]
    assert helped.startswith("With more memory, h100, ")
    assert helped.endswith(
        "(84 GB a GPU instead of 80 GB) would reach "
        + metric_cell("dispatch.time_s", 0.9 * fastest(given, hardware="h100"))
        + ", -10.0%."
    )


def test_runs_of_what_almost_fits_are_told_apart() -> None:
    said = sweep_page.runs_text(Runs(computed=884, remembered=0, of_changes=20))
    assert said == (
        "This time 884 runs were computed, 0 remembered; 20 of them are points that lack memory, run with what they lack."
    )


def test_no_time_left_is_told_before_a_point_has_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 30 points none after 12 s says nothing of the rest; 10 after 24 s leave 20, at 25 a minute 48 s."""
    clock = iter([0.0, 12.0, 24.0])
    monkeypatch.setattr("sim.show.tables.progress.time.monotonic", lambda: next(clock))
    console = Console(file=io.StringIO(), width=100)
    with SweepBar(console, 30, "dispatch.time_s", quiet=False) as bar:
        bar.show(0, None, "", "")
        bar.show(10, {"dispatch": {"time_s": 2e-3}}, "", "EP 8")
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "   12.0 s  0 of 30 points",
        "   24.0 s  10 of 30 points, 25 a minute, 48 s left; best 2 ms EP 8",
    ]


def test_a_sweep_in_which_nothing_runs_says_why(hopeless: dict[str, Any]) -> None:
    assert sweep_words.finding(sweep_view(hopeless)) == [
        "None of 2 points can be run. Most often: sizes that do not divide (2)."
    ]
    assert [grid.title for grid in sweep_grids.grids(sweep_view(hopeless))] == ["What cannot be, and why"]
    with pytest.raises(InputError, match="a sweep of which a point ran"):
        plots.figure("map", hopeless)
    assert "None of 2 points" in sweep_page.sweep_html(hopeless)


def test_tables_for_a_terminal_read_in_a_hundred_columns(
    document: dict[str, Any], given: dict[str, Any]
) -> None:
    for one in (document, given):
        for grid in sweep_grids.grids(sweep_view(one), wide=False)[:2]:
            width = sum(
                2 + max(len(row[i]) for row in (grid.heads, *grid.rows)) for i in range(len(grid.heads))
            )
            assert width <= 100


@pytest.mark.parametrize("columns", [70, 80, 110])
def test_no_figure_of_a_table_loses_digits_to_a_narrow_terminal(
    lengthy: dict[str, Any], columns: int
) -> None:
    console = Console(file=io.StringIO(), width=columns)
    grid = sweep_grids.costs(sweep_view(lengthy), ["dispatch.time_s"])
    tables.print_grid(grid, console)
    printed = console.file.getvalue().split()  # type: ignore[attr-defined]
    for text in (cell for row in (grid.heads, *grid.rows) for cell in row):
        assert all(printed.count(word) >= text.split().count(word) > 0 for word in text.split()), text


def test_of_many_conditions_and_choices_each_choice_has_rows_of_its_own(tmp_path: Path) -> None:
    axes = {
        "workload.tokens_per_rank": [64, 128, 256, 512, 1024],
        "workload.kernel.comm_sms": [4, 8, 24],
        BANDWIDTH: AXES[BANDWIDTH],
    }
    found = run(sweep_of(axes=axes, given="workload.tokens_per_rank"), tmp_path)
    grid = sweep_grids.costs(sweep_view(found), ["dispatch.time_s"])
    assert grid.heads == ("choice", "tokens per rank", "best dispatch time", "within 1%", "within 5%", "within 25%")  # fmt: skip
    assert [row[0] for row in grid.rows] == ["comm SMs"] * 5 + ["NVLink"] * 5
    assert grid.breaks == {5}
    for choice, tokens, best, *least in grid.rows:
        axis = {"comm SMs": "workload.kernel.comm_sms", "NVLink": BANDWIDTH}[choice]
        here = [p for p in found["points"] if f"{p['values']['workload.tokens_per_rank']:,}" == tokens]
        top = min(p["metrics"]["dispatch"]["time_s"] for p in here)
        assert best == metric_cell("dispatch.time_s", top)
        for value, times in zip(least, (1.01, 1.05, 1.25), strict=True):
            close = [p["values"][axis] for p in here if p["metrics"]["dispatch"]["time_s"] <= times * top]
            assert value == str(min(close, key=lambda one: float(str(one).split()[0])))


@pytest.mark.parametrize(
    ("axis", "shown"),
    [
        ("layout.pp", "PP"),
        ("workload.kernel.comm_sms", "comm SMs"),
        ("workload.requests_per_gpu", "requests per GPU"),
        ("cluster.override.gpu.scale_up.bandwidth", "NVLink"),
        ("machine", "machine"),
    ],
)
def test_an_axis_is_called_as_readers_call_it(axis: str, shown: str) -> None:
    assert axis_label(axis) == shown


# --- figures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pareto", "parallel", "map"])
@pytest.mark.parametrize("which", ["document", "given"])
def test_every_kind_draws_a_sweep(kind: str, which: str, request: pytest.FixtureRequest) -> None:
    figure = plots.figure(kind, request.getfixturevalue(which))
    assert figure.data
    assert figure.layout.title.text
    assert figure.layout.meta["alt"]


def test_a_map_holds_the_best_of_each_pair_of_values(document: dict[str, Any]) -> None:
    figure = plots.figure("map", document)
    maps = [trace for trace in figure.data if trace.type == "heatmap"]
    assert len(maps) == 3  # one for each EP; the hardware before it is taken at its best
    trace = maps[1]
    assert list(trace.y) == ["4", "8", "16", "24"]
    assert list(trace.x) == ["100 GB/s", "200 GB/s", "450 GB/s"]
    cell = min(
        point["metrics"]["dispatch"]["time_s"]
        for point in document["points"]
        if list(point["values"].values())[1:] == [8, 16, "200 GB/s"]
    )
    assert 2 ** trace.z[2][1] == pytest.approx(cell / fastest(document), rel=1e-9)
    assert all(value is None for row in maps[0].z for value in row)


def test_a_map_of_a_given_axis_compares_within_each_map(given: dict[str, Any]) -> None:
    maps = [trace for trace in plots.figure("map", given).data if trace.type == "heatmap"]
    assert len(maps) == 2
    assert [min(v for row in trace.z for v in row) for trace in maps] == [0.0, 0.0]


def test_a_row_of_a_map_that_is_a_condition_has_a_best_of_its_own(crowded: dict[str, Any]) -> None:
    """Of 65,536 tokens a rank nothing is as fast as of 64; what is compared is how fast either could be."""
    figure = plots.figure("map", crowded)
    maps = [trace for trace in figure.data if trace.type == "heatmap"]
    assert [list(trace.y) for trace in maps] == [["64", "128", "65,536"]] * 2
    assert [min(row) for trace in maps for row in trace.z] == pytest.approx([0.0] * 6, abs=1e-8)
    times = [point.times_best for point in sweep_view(crowded).points]
    assert figure.layout.meta["title"].endswith(
        f"worst {max(times):.3g} times the best of its hardware and tokens per rank"
    )
    assert maps[0].colorbar.title.text.startswith("times the best of its row")


def test_names_of_maps_stand_side_by_side_only_where_they_have_room(lengthy: dict[str, Any]) -> None:
    """`tokens per rank 65536` is some 170 px wide: four of them fit on a page, two do not on a telephone."""
    layout = plots.figure("map", lengthy).layout
    assert layout.xaxis.domain[1] < layout.xaxis2.domain[0] < layout.xaxis4.domain[0]
    stacked = layout.meta["stacked"]
    assert stacked["xaxis"]["domain"] == stacked["xaxis2"]["domain"] == [0.0, 0.99]
    assert stacked["yaxis2"]["domain"][1] < stacked["yaxis"]["domain"][0]


@pytest.mark.parametrize(("least", "numbered"), [(32768, True), (16, False)])
def test_places_of_a_map_have_numbers_where_these_fit(tmp_path: Path, least: int, numbered: bool) -> None:
    """Ten places of 40 px side by side hold the `25.9` of long times, not the `0.0216` that short ones need beside them."""
    axes = {
        "cluster.hardware": ["h800", "h100"],
        "workload.tokens_per_rank": [least, 65536],
        "workload.kernel.comm_sms": list(range(4, 44, 4)),
    }
    found = run(sweep_of(axes=axes, given="cluster.hardware"), tmp_path)
    first = next(trace for trace in plots.figure("map", found).data if trace.type == "heatmap")
    assert (first.texttemplate is not None) is numbered


def test_the_front_of_the_plot_is_that_of_the_document(given: dict[str, Any]) -> None:
    fronts = [trace for trace in plots.figure("pareto", given).data if trace.name in ("h800", "h100")]
    assert len(fronts) == 2
    unbeaten = [given["points"][i] for i in given["pareto"]]
    for front in fronts:
        here = [
            p["metrics"]["dispatch"]["time_s"]
            for p in unbeaten
            if p["values"]["cluster.hardware"] == front.name
        ]
        assert {round(x * 1e-6, 12) for x in front.x} == {round(time_s, 12) for time_s in here}


def test_sentence_and_figure_count_the_same_front_equals_and_all(crowded: dict[str, Any]) -> None:
    front = len(crowded["pareto"])
    assert front > len(crowded["best"]) == 6, "equals share the front"
    among = "hardware and tokens per rank on dispatch time and combine time"
    assert f"{front} points are beaten by none of their {among}." in sweep_words.finding(sweep_view(crowded))
    title = plots.figure("pareto", crowded).layout.meta["title"]
    assert title == f"{front} of 24 points that ran are beaten by none of their {among}"


def test_no_two_fronts_of_a_plot_look_alike(tmp_path: Path) -> None:
    tokens = [16 * i for i in range(1, 14)]
    axes = {"workload.tokens_per_rank": tokens, "workload.kernel.comm_sms": [8, 24]}
    found = run(sweep_of(axes=axes, given="workload.tokens_per_rank"), tmp_path)
    fronts = plots.figure("pareto", found).data[1:]
    assert len(fronts) == len(tokens)
    assert len({(one.marker.color, one.marker.symbol) for one in fronts}) == len(tokens)


def test_a_star_is_explained_where_there_is_one(crowded: dict[str, Any], given: dict[str, Any]) -> None:
    one_each = sweep_grids.ranking(sweep_view(crowded), ["dispatch.time_s"], 10)
    assert not any("*" in row[0] for row in one_each.rows)
    assert one_each.note == ""
    few_each = sweep_grids.ranking(sweep_view(given), ["dispatch.time_s"], 10)
    assert any("*" in row[0] for row in few_each.rows)
    assert few_each.note == "*: no other point of its hardware beats it"


def test_a_parallel_plot_has_a_line_for_every_point_that_ran(document: dict[str, Any]) -> None:
    figure = plots.figure("parallel", document)
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert sum(trace.x.count(None) for trace in lines) == 48
    assert list(figure.layout.xaxis.ticktext)[:4] == ["hardware", "EP", "comm SMs", "NVLink"]
    close = [
        p
        for p in document["points"]
        if p["status"] == "ok" and p["metrics"]["dispatch"]["time_s"] <= 1.01 * fastest(document)
    ]
    assert lines[-1].name == f"within 1 % ({len(close)})"


def test_no_figure_of_a_sweep_needs_webgl(document: dict[str, Any], given: dict[str, Any]) -> None:
    for one in (document, given):
        kinds = {
            trace.type for kind in ("pareto", "parallel", "map") for trace in plots.figure(kind, one).data
        }
        assert kinds <= {"scatter", "heatmap", "contour"}


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("bars", "the result of a run; this document can be drawn as pareto, parallel, map"),
        ("maps", "did you mean map?"),
    ],
)
def test_a_kind_that_a_sweep_has_not_is_told(kind: str, told: str, document: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        plots.figure(kind, document)
    assert told in str(caught.value)


def test_a_sweep_of_one_axis_has_no_map(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two axes of more than one value"):
        plots.figure("map", run(sweep_of(axes={"layout.ep": [8, 16]}), tmp_path))


# --- the page and the table ----------------------------------------------------------------------------------------


def test_the_report_can_be_run_again(document: dict[str, Any]) -> None:
    page = sweep_page.sweep_html(document)
    written = page.partition('<pre id="sweep"')[2].partition(">")[2].partition("</pre>")[0]
    assert documents.loads(written, "again.yaml").tree == document["sweep"]
    assert "http://" not in page.partition("<script>")[0]


def test_the_table_has_a_row_a_point_and_units_in_its_columns(document: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(export.encode(document, "csv").decode())))
    assert len(rows) == len(document["points"]) == 72
    point, row = document["points"][-1], rows[-1]
    assert row["cluster.override.gpu.scale_up.bandwidth_bytes_per_s"] == "450000000000.0"
    assert (row["status"], row["layout.ep"], row["cluster.hardware"]) == ("ok", "16", "h100")
    assert float(row["dispatch.time_s"]) == point["metrics"]["dispatch"]["time_s"]
    assert rows[0]["reason"] == document["points"][0]["reason"]


def test_parquet_holds_the_same_table(document: dict[str, Any]) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(io.BytesIO(export.encode(document, "parquet")))
    assert frame.height == 72
    assert frame["dispatch.time_s"].to_list() == export.table(document)["dispatch.time_s"]
    assert frame["workload.kernel.comm_sms"].dtype.is_integer()


def along(document: dict[str, Any], values: Sequence[Any]) -> dict[str, Any]:
    """The document with a single axis, and a point without metrics for each of its values."""
    points = [{"values": {"x": value}, "status": "ok", "reason": "", "metrics": {}} for value in values]
    return {**document, "axes": {"x": list(values)}, "points": points, "ranked": [], "best": [], "pareto": []}


def test_an_axis_is_a_number_with_its_unit_where_all_of_its_values_are_of_one_kind(
    document: dict[str, Any],
) -> None:
    def column(*values: Any) -> dict[str, list[Any]]:
        table = export.table(along(document, values))
        return {name: cells for name, cells in table.items() if name not in ("status", "reason")}

    assert column("100 GB/s", "400Gb/s") == {"x_bytes_per_s": [100e9, 50e9]}
    assert column("1 ms", "2 us") == {"x_s": [1e-3, 2e-6]}
    assert column("14.8 T", "2 G") == {"x": [14.8e12, 2e9]}
    assert column("1 ms", "2 GB") == {"x": ["1 ms", "2 GB"]}
    assert column("1 ms", "never") == {"x": ["1 ms", "never"]}
    assert column("5", "7") == {"x": ["5", "7"]}
    assert column(1, None, [8, 16]) == {"x": [1, None, "[8, 16]"]}


def test_an_axis_of_many_quantities_is_read_once(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once for each point: a thousand points took minutes."""
    count = 0

    def split(text: str) -> Any:
        nonlocal count
        count += 1
        return real(text)

    real = units.split
    monkeypatch.setattr(units, "split", split)
    values = [f"{i} GB/s" for i in range(1, 1001)]
    export.table(along(document, values))
    assert count == len(values)


def test_parquet_without_its_package_is_refused_before_anything_runs(
    moesim: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda _: None)
    said = moesim("sweep", write(tmp_path), "--export", "parquet")
    assert said.code == 2
    assert "--export: got parquet, and no package for it; wanted the package polars" in said.err
    assert not (tmp_path / "results").exists()


# --- the command ---------------------------------------------------------------------------------------------------


def write(folder: Path, **said: Any) -> str:
    tree = {
        "name": "tried",
        "base": EXCHANGE,
        "axes": {"layout.ep": [8, 16]},
        "objectives": {"dispatch.time_s": "minimise"},
    }
    (folder / "tried.yaml").write_text(documents.dumps({**tree, **said}))
    return str(folder / "tried.yaml")


def test_the_command_writes_a_document_a_report_and_a_table(moesim: Any, tmp_path: Path) -> None:
    said = moesim("sweep", write(tmp_path), "--jobs", "1", "--json", "--export", "csv")
    assert said.code == 0
    assert said.err == ""
    assert [point["values"]["layout.ep"] for point in said.json["points"]] == [8, 16]
    folder = tmp_path / "results" / "tried"
    assert json.loads((folder / "sweep.json").read_text()) == said.json
    assert {path.name for path in folder.iterdir()} >= {
        "sweep.json",
        "report.html",
        "points.csv",
        "sweep.sqlite",
    }
    again = moesim("sweep", write(tmp_path), "--jobs", "1")
    assert "Best of 2 that ran is EP 8: dispatch time" in again.err
    assert json.loads((folder / "sweep.json").read_text())["runs"] == {
        "computed": 0,
        "remembered": 2,
        "of_changes": 0,
    }
    drawn = moesim("plot", str(folder), "--kind", "parallel")
    assert (drawn.code, drawn.out) == (0, f"{folder / 'parallel.html'}\n")


def test_check_and_schema_know_sweeps(moesim: Any, tmp_path: Path) -> None:
    assert "a valid sweep" in moesim("check", write(tmp_path)).err
    assert "axes" in moesim("schema", "sweep").json["properties"]
    bad = moesim("check", write(tmp_path, axes={"layout.epp": [1]}))
    assert bad.code == 2
    assert "did you mean ep?" in bad.err


def test_a_sweep_of_which_nothing_can_run_is_infeasible_and_written_all_the_same(
    moesim: Any, tmp_path: Path
) -> None:
    said = moesim("sweep", write(tmp_path, axes={"layout.ep": [3, 5]}), "--jobs", "1", "--json")
    assert said.code == 3
    assert "moesim: None of 2 points can be run. Most often: sizes that do not divide (2)." in said.err
    assert said.json["counts"]["infeasible"] == 2
    assert (tmp_path / "results" / "tried" / "report.html").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--export", "xlsx"), "--export: got 'xlsx'; wanted one of: csv, parquet"),
        (("--jobs", "2", "--dask", "tcp://here:1"), "got --jobs and --dask; wanted one of them"),
        (("--jobs", "0"), "--jobs"),
    ],
)
def test_bad_words_are_told_before_anything_runs(
    words: tuple[str, ...], told: str, moesim: Any, tmp_path: Path
) -> None:
    said = moesim("sweep", write(tmp_path), *words)
    assert said.code == 2
    assert told in said.err
    assert not (tmp_path / "results").exists()


def test_an_unknown_sweep_names_the_nearest(moesim: Any) -> None:
    said = moesim("sweep", "v3-layout")
    assert said.code == 2
    assert "did you mean v3-layouts?" in said.err


# --- in a browser --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="no Chromium here")
@pytest.mark.parametrize(("width", "dark"), [(1400, False), (390, True)])
def test_the_report_of_a_sweep_draws_in_a_browser(
    given: dict[str, Any], width: int, dark: bool, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(sweep_page.sweep_html(given), encoding="utf-8")
    with browser.tab() as tab:
        tab.open(path, width=width, dark=dark)
        tab.run("scrollTo(0, document.body.scrollHeight)")
        tab.settle()
        assert tab.errors == []
        assert tab.requests == []
        assert tab.run("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
        assert tab.run("document.querySelectorAll('.plot').length") == 3


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="no Chromium here")
@pytest.mark.parametrize("which", ["document", "given", "crowded", "lengthy"])
def test_no_text_of_a_sweep_lies_on_another_or_is_cut_at_any_width(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(sweep_page.sweep_html(request.getfixturevalue(which)), encoding="utf-8")
    with browser.tab() as tab:
        for width in (390, 700, 1300):
            tab.open(path, width=width)
            assert tab.run("document.documentElement.scrollWidth") == width
            assert tab.run(browser.OVERLAPS) == [], width
            assert tab.run(browser.NAMES_CUT) == 0, width


def test_names_of_a_parallel_plot_have_room_from_the_first_to_the_last(lengthy: dict[str, Any]) -> None:
    """At 7.2 px a character `tokens per rank` and `comm SMs` are 83 px from middle to middle; a gap comes to that."""
    figure = plots.figure("parallel", lengthy)
    names, (left, right) = figure.layout.xaxis.ticktext, figure.layout.xaxis.range
    step = (figure.layout.meta["least_px"] - 50) / (right - left)
    for one, other in pairwise(names):
        assert 7.2 * (len(one) + len(other)) / 2 < step
    assert -left * step > 7.2 * len(names[0]) / 2
    assert (right - len(names) + 1) * step > 7.2 * len(names[-1]) / 2


def test_thousands_of_a_value_stand_apart_and_ticks_differ() -> None:
    """Neither a name, nor a quantity, nor a number of three digits changes; ticks have as many digits as tell them apart."""
    assert [value_label(value) for value in (131072, "131072", 512, "dualpipe", "1000 GB/s", 0.25, "0123")] == [
        "131,072", "131,072", "512", "dualpipe", "1000 GB/s", "0.25", "0123"
    ]  # fmt: skip
    assert value_label({"ep": 4096}) == "ep 4,096"
    assert units.told_apart([0.0001, 0.0002, 0.00025]) == ["0.0001", "0.0002", "0.00025"]
    assert units.told_apart([20.001, 20.002]) == ["20.001", "20.002"]
