"""The timeline of any run: bars up to thousands, beyond a raster whose cells hold what ran in them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import browser
from results import REQUESTS
from sim.errors import InputError
from sim.show.files import folder
from sim.show.pages import page
from sim.show.plots import kinds as plots
from sim.show.plots import timeline as plot_timeline
from sim.show.views import lanes
from sim.show.views.run import run_view

needs_browser = pytest.mark.skipif(browser.find() is None, reason="no Chromium here")


def pipeline(num_ranks: int, times: int) -> dict[str, Any]:
    """A result with `3 * num_ranks * times` operations: F, then B and W half as long; a fifth of the time is idle."""
    kinds, starts, ends = ["F", "B", "W"] * times, [], []
    for i in range(times):
        starts += [i, i + 0.4, i + 0.6]
        ends += [i + 0.4, i + 0.6, i + 0.8]
    rank = {"kinds": kinds, "microbatches": [[0, 0]] * len(kinds), "start_s": starts, "end_s": ends}
    phases = {"1F_s": 0.4, "1B_s": 0.2, "1W_s": 0.2, "1F1B_s": 0.0, "opt_s": 0.0, "bubble_s": 0.2}
    return {
        "name": "made",
        "scenario": {"workload": {"kind": "training"}},
        "metrics": {"step_time_s": 1.0, "phases": phases, "phases_mean": phases},
        "timeline": {"end_s": float(times), "pipeline": [{"rank": r, **rank} for r in range(num_ranks)]},
    }


# --- every workload has one ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "what"),
    [
        ("all_to_all", "rank"), ("exchange", "rank"), ("flows", "flow"), ("training", "pipeline rank"), ("decode", "stream"),
        ("serving", "request"),
    ],
)  # fmt: skip
def test_every_workload_has_a_timeline_with_units_and_a_finding(
    runs: dict[str, Any], run: str, what: str
) -> None:
    figure = plots.figure("timeline", runs[run])
    assert figure.layout.yaxis.title.text == what
    assert figure.layout.xaxis.title.text.startswith("time [")
    assert any(char.isdigit() for char in figure.layout.title.text)
    assert figure.layout.meta["alt"].startswith("Timeline over ")


def test_the_life_of_a_request_has_no_gap(runs: dict[str, Any]) -> None:
    found = run_view(runs["serving"]).lanes
    assert found is not None
    rows = runs["serving"]["requests"]
    lived = [0.0] * REQUESTS
    for spans in found.spans.values():
        for start_s, end_s, row, _ in spans:
            lived[row] += end_s - start_s
    assert lived == pytest.approx([e - a for a, e in zip(rows["arrival_s"], rows["end_s"], strict=True)])


def test_a_rank_is_busy_from_the_start_of_its_kernel_to_its_own_end(runs: dict[str, Any]) -> None:
    found = run_view(runs["all_to_all"]).lanes
    assert found is not None
    dispatch, combine = runs["all_to_all"]["timeline"]["kernels"]
    for name, kernel in (("dispatch", dispatch), ("combine", combine)):
        assert [end_s for _, end_s, _, _ in found.spans[name]] == kernel["rank_ends_s"]


def test_streams_of_a_pass_never_run_two_things_at_once(runs: dict[str, Any]) -> None:
    found = run_view(runs["decode"]).lanes
    assert found is not None
    for stream in (0, 1):
        mine = sorted(span[:2] for spans in found.spans.values() for span in spans if span[2] == stream)
        assert all(before[1] <= after[0] + 1e-12 for before, after in pairwise(mine))


def test_what_has_no_course_in_time_is_refused(results: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no course in time"):
        plots.figure("timeline", results["closed"])


def test_flows_are_read_back_from_the_csv_beside_a_result(runs: dict[str, Any], tmp_path: Path) -> None:
    folder.save(tmp_path, runs["flows"], with_report=False)
    drawn = plots.figure("timeline", folder.read(tmp_path))
    assert drawn.layout.title.text == plots.figure("timeline", runs["flows"]).layout.title.text
    (tmp_path / "flow_completion.csv").write_text("flow_id,start_us,rx_done_us\n1,0,x\n")
    with pytest.raises(InputError, match="a row that is no flow"):
        folder.read(tmp_path)


# --- raster ----------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.floats(0, 10), st.floats(0, 10), st.integers(0, 4)).map(
            lambda one: (min(one[:2]), max(one[:2]), one[2], "")
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 50),
)
def test_cells_hold_the_time_of_spans(spans: list[lanes.Span], num_bins: int) -> None:
    """By hand: the overlap of each span with each bin, capped where spans of a row lie over each other."""
    found = plot_timeline.occupancy(spans, 10.0, 5, num_bins)
    edges = np.linspace(0, 10, num_bins + 1)
    wanted = np.zeros((5, num_bins))
    for start, end, row, _ in spans:
        inside = np.minimum(end, edges[1:]) - np.maximum(start, edges[:-1])
        wanted[row] += np.maximum(inside, 0) / (10 / num_bins)
    assert found == pytest.approx(np.minimum(wanted, 1.0), abs=1e-9)


def test_rows_drawn_together_share_their_time() -> None:
    spans: list[lanes.Span] = [(0.0, 1.0, 0, ""), (0.0, 1.0, 2, ""), (0.0, 0.5, 4, "")]
    found = plot_timeline.occupancy(spans, 1.0, 5, 1, together=2)
    assert found[:, 0] == pytest.approx([0.5, 0.5, 0.5])  # one of two, one of two, half of the last alone


def drawn_share(figure: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The share of each kind that the stack of heat maps shows: opacity times what those above let through."""
    maps = [trace for trace in figure.data if trace.type == "heatmap"][:-1]
    names = [trace.name for trace in figure.data if trace.type == "scatter"]
    through, found = np.ones(maps[0].z.shape), {}
    for name, trace in reversed(list(zip(names, maps, strict=True))):
        found[name] = through * (trace.z / 255)
        through = through * (1 - trace.z / 255)
    return found


def test_a_raster_shows_every_kind_in_its_proportion_and_colour() -> None:
    result = pipeline(8, 1000)  # bins of 10/9 of a period
    figure = plots.figure("timeline", result)
    share = drawn_share(figure)
    assert {name: value.mean() for name, value in share.items()} == pytest.approx(
        {"forward": 0.4, "backward": 0.2, "weight part": 0.2}, abs=0.005
    )
    colours = {trace.name: trace.fillcolor for trace in figure.data if trace.type == "scatter"}
    assert colours["forward"] == lanes.OPERATIONS["F"][1]
    assert "24,000 bars" in figure.layout.xaxis.title.text
    hover = figure.data[-1]
    assert hover.customdata.shape[-1] == 3
    assert hover.customdata.mean(axis=(0, 1)) == pytest.approx([40, 20, 20], abs=0.5)


def test_few_bars_stay_bars_and_many_become_a_raster() -> None:
    for times, is_raster in ((200, False), (700, True)):
        figure = plots.figure("timeline", pipeline(4, times))
        assert any(trace.type == "heatmap" for trace in figure.data) == is_raster


def test_a_hundred_thousand_bars_make_a_small_page() -> None:
    text = page.figure_page("timeline", plots.figure("timeline", pipeline(64, 530)))
    assert len(text.encode()) < 4e6


def test_thousands_of_requests_share_rows() -> None:
    num = 3000
    rows = {name: [float(i) for i in range(num)] for name in ("arrival_s", "prefill_start_s")}
    rows |= {name: [i + 2.0 for i in range(num)] for name in ("first_token_s", "decode_admitted_s")}
    rows |= {name: [i + 4.0 for i in range(num)] for name in ("kv_arrived_s", "decode_start_s")}
    rows |= {"end_s": [i + 9.0 for i in range(num)]}
    result = {"metrics": {}, "timeline": {"end_s": num + 9.0}, "requests": rows}
    figure = plots.figure("timeline", result)
    assert figure.data[0].z.shape[0] <= 200
    assert "of 15 requests" in figure.layout.xaxis.title.text


@pytest.mark.slow
@needs_browser
def test_pointing_at_a_raster_tells_the_shares_of_its_cell(tab: browser.Tab, tmp_path: Path) -> None:
    path = tmp_path / "line.html"
    path.write_text(
        page.figure_page("timeline", plots.figure("timeline", pipeline(8, 900))), encoding="utf-8"
    )
    tab.open(path)
    left, top, width, height = tab.run(
        "(box => [box.left, box.top, box.width, box.height])(document.querySelector('.nsewdrag').getBoundingClientRect())"
    )
    tab.point(left + 0.4 * width, top + 3.5 / 8 * height)
    said = tab.run("document.querySelector('.hoverlayer').textContent")
    for words in ("pipeline rank 3", "forward 40 %", "backward 20 %", "weight part 20 %"):
        assert words in said  # a bin is one period
    assert tab.errors == []


@pytest.mark.slow
@needs_browser
def test_the_colours_of_a_raster_are_those_of_its_bars(tab: browser.Tab, tmp_path: Path) -> None:
    path = tmp_path / "line.html"
    path.write_text(
        page.figure_page("timeline", plots.figure("timeline", pipeline(4, 600))), encoding="utf-8"
    )
    tab.open(path)
    tab.run("document.querySelector('.plot').scrollIntoView()")
    pixel = """(async () => { const image = new Image(); image.src = document.querySelectorAll('.hm image')[%d].getAttribute('href');
      await image.decode(); const canvas = document.createElement('canvas'); canvas.width = image.width; canvas.height = image.height;
      const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);
      return [...context.getImageData(image.width / 2, image.height / 8, 1, 1).data]; })()"""
    red, green, blue, alpha = tab.run(pixel % 0)
    colour = lanes.OPERATIONS["F"][1]
    assert [red, green, blue] == pytest.approx([int(colour[i : i + 2], 16) for i in (1, 3, 5)], abs=3)
    assert 0 < alpha <= 255
