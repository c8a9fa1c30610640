"""Every kind of plot draws real results, says what it shows, and refuses what it cannot draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import browser
import sim
from results import VALIDATION
from sim.errors import InputError
from sim.show import style
from sim.show.pages import images
from sim.show.plots import kinds as plots
from sim.show.views.run import views_of
from sim.show.views.transfers import TransfersView

RUNS = ("single", "variants", "flows", "ecmp", "exchange")
WITHOUT_RANKS = ("flows", "ecmp")
ELSEWHERE = (
    "validation",
    "ladder",
    "choices",
    "enough",
    "break_even",
    "exchange",
    "search",
    "interactivity",
    "layer_pair",
    "roofline",
    "queues",
    "tail",
    "latencies",
    "phases",
    "memory",
    "whole_run",
    "pareto",
    "parallel",
    "map",
)  # of validations, ladders, sweeps, training steps, passes and serving


@pytest.mark.parametrize("kind", [kind for kind in plots.KINDS if kind not in ELSEWHERE])
@pytest.mark.parametrize("run", RUNS)
def test_every_kind_draws_every_run_that_has_its_data(results: dict[str, Any], run: str, kind: str) -> None:
    if (run in (*WITHOUT_RANKS, "exchange") and kind == "rank_loads") or (
        run in WITHOUT_RANKS and kind in ("rank_times", "traffic_matrix")
    ):
        with pytest.raises(InputError, match=r"flows|route tokens"):
            plots.figure(kind, results[run])
        return
    figure = plots.figure(kind, results[run])
    assert figure.data
    assert any(char.isdigit() for char in figure.layout.title.text), (
        "a title states the finding with a number"
    )
    assert figure.layout.meta["alt"]


def test_every_axis_of_a_quantity_has_its_unit(results: dict[str, Any]) -> None:
    for kind in ("bars", "utilisation", "links", "rank_times"):
        layout = plots.figure(kind, results["single"]).layout
        titles = [layout.xaxis.title.text or "", layout.yaxis.title.text or ""]
        assert any("[" in title and "]" in title for title in titles), kind
    assert "[" in plots.figure("traffic_matrix", results["single"]).data[0].colorbar.title.text
    assert "[%]" in plots.figure("validation", results["validation"]).layout.xaxis.title.text


def test_bars_stand_at_the_time_and_their_solid_part_at_the_bound(results: dict[str, Any]) -> None:
    figure = plots.figure("bars", results["single"])
    dispatch = results["single"]["metrics"]["dispatch"]
    drawn = sorted(bar.x[0] for bar in figure.data if bar.type == "bar" and bar.x[0] and bar.yaxis == "y")
    scale = drawn[-1] / dispatch["completion_time_s"]
    assert scale in (pytest.approx(1e3), pytest.approx(1e6))
    assert drawn[0] == pytest.approx(dispatch["lower_bound_s"] * scale)


def test_a_published_bandwidth_stands_on_the_bars_as_the_time_it_implies(results: dict[str, Any]) -> None:
    figure = plots.figure("bars", results["single"])
    marks = [trace for trace in figure.data if trace.name == "published"]
    metrics = results["single"]["metrics"]["dispatch"]
    at_20_GB = metrics["time_s"] * metrics["logical_rdma_bytes_per_s"] / 20e9
    bars = [bar.x[0] for bar in figure.data if bar.type == "bar" and bar.x[0] and bar.yaxis == "y"]
    assert marks[0].x[0] / max(bars) == pytest.approx(at_20_GB / metrics["completion_time_s"])


def test_links_show_every_used_link_once(results: dict[str, Any]) -> None:
    figure = plots.figure("links", results["single"])
    dots = [name for trace in figure.data if trace.mode == "markers" for name in trace.text]
    assert sorted(dots) == sorted(results["single"]["links"])


def test_a_load_is_told_of_the_rate_that_kernels_reach(results: dict[str, Any]) -> None:
    """DeepEP's kernels reach 67.5 % of the 200 GB/s of an H800's NVLink, and lower bounds are at 200."""
    for kind in ("utilisation", "links", "fabric_map"):
        layout = plots.figure(kind, results["single"]).layout
        told = [layout.meta["title"], *(axis.title.text or "" for axis in (layout.xaxis, layout.yaxis))]
        assert "kernels reach" in " ".join(told)
    assert (
        "the 135 GB/s that kernels reach"
        in plots.figure("utilisation", results["single"]).layout.meta["title"]
    )


def test_even_loads_are_drawn_around_the_mean_and_uneven_ones_as_a_map(results: dict[str, Any]) -> None:
    """A map of equal loads is one block of colour."""
    even = plots.figure("rank_loads", {**results["single"], "rank_loads": [[100.0, 103.0, 98.0, 99.0]]})
    assert {trace.type for trace in even.data} == {"scatter"}
    drawn = [x for trace in even.data for x in trace.x]
    assert drawn == pytest.approx([1.0, 1.03, 0.98, 0.99])
    low, high = even.layout.xaxis.range
    assert low < min(drawn) <= max(drawn) < high
    assert f"{max(drawn):.3f}x the mean" in even.layout.meta["title"]
    uneven = {**results["single"], "rank_loads": [[100.0, 120.0, 90.0, 90.0]]}
    assert plots.figure("rank_loads", uneven).data[0].type == "heatmap"


def test_bars_promise_no_colour_that_they_do_not_have(results: dict[str, Any]) -> None:
    figure = plots.figure("bars", results["variants"])
    named = {bar.name: bar for bar in figure.data if bar.type == "bar" and bar.showlegend is not False}
    assert all(name.endswith((" binds", " bind")) and bar.x[0] for name, bar in named.items())
    assert "pale above it" in figure.layout.xaxis.title.text


def test_the_matrix_holds_all_bytes(results: dict[str, Any]) -> None:
    figure = plots.figure("traffic_matrix", results["single"])
    matrix = results["single"]["traffic"]["dispatch"]
    drawn = sum(sum(line) for line in figure.data[0].z)
    scale, unit = style.bytes_unit(max(map(max, matrix)))
    assert drawn * scale == pytest.approx(sum(map(sum, matrix)))
    assert f"[{unit}]" in figure.data[0].colorbar.title.text


@pytest.mark.parametrize(("nodes", "rows"), [(2, 2), (16, 2), (256, 2)])
def test_the_fabric_map_condenses_many_nodes(nodes: int, rows: int) -> None:
    links = {
        f"node{n}/{part}": {
            "class": kind,
            "bytes": 1.0,
            "busy_s": 1.0,
            "utilisation_fraction": 0.5,
            "saturated_s": 0.0,
        }
        for n in range(nodes)
        for i in range(8)
        for part, kind in ((f"gpu{i}/scale_up/egress", "scale_up"), (f"nic{i}/tx", "nic"))
    }
    scenario = {"cluster": {"hardware": "h800", "nodes": nodes}, "layout": {"dp": 8 * nodes}}
    figure = plots.figure("fabric_map", {"name": "map", "metrics": {}, "scenario": scenario, "links": links})
    squares = {trace.name: len(trace.x) for trace in figure.data if trace.name in ("GPUs", "NICs")}
    assert squares == dict.fromkeys(("GPUs", "NICs"), 16 if nodes == 2 else nodes)
    assert len(figure.data) < 12


def test_twins_are_found_by_what_they_are_not_by_their_names(results: dict[str, Any]) -> None:
    odd = {
        "variants": {
            "b": results["variants"]["variants"]["h800"],
            "a": results["variants"]["variants"]["h100"],
        }
    }
    ((reference, other),) = views_of(odd).twins_of(TransfersView)
    assert (reference.name, other.name) == ("b", "a")
    ours, theirs = (odd["variants"][name]["metrics"]["dispatch"]["time_s"] for name in "ba")
    assert reference.transfers["dispatch"].time_s == ours
    assert other.transfers["dispatch"].time_s == theirs


def test_variants_give_a_figure_each(results: dict[str, Any]) -> None:
    assert list(plots.figures("links", results["variants"])) == ["links-h800", "links-h100"]
    assert list(plots.figures("bars", results["variants"])) == ["bars"]


def test_validation_tells_met_missed_and_calibrated_apart(results: dict[str, Any]) -> None:
    names = {trace.name for trace in plots.figure("validation", VALIDATION).data}
    assert names == {"predicted (1)", "calibrated on (1)", "exact (1)", "missed (1)", "printed only (1)"}


def test_an_unknown_kind_names_the_nearest(results: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="did you mean utilisation"):
        plots.figure("utilization", results["single"])


@pytest.mark.parametrize(
    ("kind", "run", "said"),
    [
        ("links", "closed", "closed form"),
        ("utilisation", "closed", "closed form"),
        ("fabric_map", "closed", "closed form"),
        ("validation", "single", "moesim validate"),
        ("bars", "validation", "can be drawn as validation"),
    ],
)
def test_a_kind_without_data_says_why(results: dict[str, Any], kind: str, run: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        plots.figures(kind, results[run])


def test_a_file_that_is_no_result_is_refused() -> None:
    with pytest.raises(InputError, match=r"result\.json"):
        plots.figure("bars", {"name": "no metrics here"})


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_can_be_seen_on_both_papers(theme: str) -> None:
    paper = luminance(style.template(theme)["layout"]["paper_bgcolor"])
    for name, colour in style.COLOUR.items():
        high, low = sorted((paper + 0.05, luminance(colour) + 0.05), reverse=True)
        assert high / low >= 2.6, name


def test_formats_are_checked_together() -> None:
    with pytest.raises(InputError) as error:
        images.check_formats(["pgn", "svgg", "html"])
    assert [problem.nearest for problem in error.value.problems] == ["png", "svg"]


def test_html_is_written_whole_and_the_same_twice(results: dict[str, Any], tmp_path: Path) -> None:
    figures = plots.figures("bars", results["single"])
    (first,) = images.write(figures, tmp_path / "a")
    (second,) = images.write(plots.figures("bars", results["single"]), tmp_path / "b", ["html"])
    assert first.name == "bars.html"
    assert first.read_bytes() == second.read_bytes()
    assert list((tmp_path / "a").iterdir()) == [first]


def test_without_a_browser_the_html_is_written_and_the_message_says_how(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise images.UnableError("Kaleido requires Google Chrome")

    monkeypatch.setattr(images, "_write_images", refuse)
    with pytest.raises(images.NoBrowserError, match="BROWSER_PATH") as error:
        images.write(plots.figures("bars", results["single"]), tmp_path, ["png"])
    assert [path.name for path in error.value.written] == ["bars.html"]
    assert [path.name for path in tmp_path.iterdir()] == ["bars.html"]


def test_a_browser_that_is_none_is_not_waited_for(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("kaleido")
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(images.NoBrowserError, match="No browser found at BROWSER_PATH") as error:
        images.write(plots.figures("bars", results["single"]), tmp_path / "out", ["svg"])
    assert [path.name for path in error.value.written] == ["bars.html"]


def test_a_folder_that_is_a_file_is_refused(results: dict[str, Any], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("here")
    with pytest.raises(InputError, match="a folder that can be written"):
        images.write(plots.figures("bars", results["single"]), blocked)


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="no Chromium here")
def test_png_svg_and_pdf_are_written_for_real(results: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("kaleido")
    figures = plots.figures("bars", results["variants"]) | plots.figures("fabric_map", results["single"])
    written = images.write(figures, tmp_path, ["png", "svg", "pdf"])
    heads = {".png": b"\x89PNG", ".svg": b"<svg", ".pdf": b"%PDF"}
    assert len(written) == 6
    for path in written:
        data = path.read_bytes()
        assert data.startswith(heads[path.suffix])
        assert len(data) > 5_000
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written}


@pytest.mark.slow
def test_more_requests_trade_the_speed_of_a_user_for_that_of_a_gpu() -> None:
    front, points = plots.figure("interactivity", sim.run("decode-batch-sweep")).data
    assert list(front.x) == sorted(front.x)
    assert list(front.y) == sorted(front.y, reverse=True)
    assert set(front.x) <= set(points.x)


def test_replicas_even_out_the_load_of_ranks() -> None:
    drawn = plots.figure("rank_loads", sim.run("skewed-eplb")).data[0]
    busiest = {name: max(row) for name, row in zip(drawn.y, drawn.z, strict=True)}
    assert busiest["skewed"] > 1.5
    assert busiest["skewed-eplb"] < 1.2
