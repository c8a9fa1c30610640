"""A ladder shown: its words, tables and figures say the same, of the same sign, and are read at any width."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import browser
from laddering import DECODE, SMALL, run, rung
from sim import documents
from sim.show.pages import ladder as ladder_page
from sim.show.plots import kinds as plots
from sim.show.tables import ladder as ladder_grids
from sim.show.views.ladder import ladder_view
from sim.show.views.ladder_changes import LadderMetric, change_text, percent
from sim.show.words import ladder as words


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    return run(SMALL)


# --- words and tables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.0, "0.0 %"), (0.0004, "0.0 %"), (-0.0004, "0.0 %"), (0.234, "+23.4 %"), (-0.809, "-80.9 %"), (0.9990, "+99.9 %"),
        (0.9999, "x2.00"), (1.0, "x2.00"), (4.24, "x5.24"), (21.509, "x22.5"), (1499.0, "x1,500"), (None, "-"),
    ],
)  # fmt: skip
def test_a_change_is_a_percentage_and_from_a_doubling_on_a_factor(fraction: float | None, text: str) -> None:
    assert change_text(fraction) == text


def test_sentences_and_tables_state_the_same_gap(small: dict[str, Any]) -> None:
    last = rung(small, "fp8")["gap_fraction"]
    assert ladder_grids.rung_grid(ladder_view(small)).rows[-1][6] == percent(last)
    [sentence] = [one for one in words.finding(ladder_view(small)) if one.startswith("In the naive design")]
    assert f"in the full one {100 * last:.1f} % longer than H100;" in sentence


def test_a_time_that_falls_has_a_minus_in_tables_and_figures_and_the_words_say_faster(
    small: dict[str, Any],
) -> None:
    times = [one["values"]["cumulative"]["h800"] for one in small["rungs"]]
    grid = ladder_grids.rung_grid(ladder_view(small))
    for row, before, now in zip(grid.rows[1:], times, times[1:], strict=False):
        assert row[4] == f"{100 * (now / before - 1):+.1f} %"
    assert "minus is faster" in grid.note
    alone = rung(small, "two-hop")["values"]["added_first"]["h800"] / times[0] - 1
    assert alone < -0.1
    assert ladder_grids.reading_grid(ladder_view(small)).rows[2][2] == f"{100 * alone:.1f} %"
    bars = next(bar for bar in plots.figure("choices", small).data if bar.name == "H800")
    assert bars.x[1] == pytest.approx(100 * alone)
    assert f"({times[0] / times[-1]:.2f} times as fast)" in words.answer(ladder_view(small))[0]


def test_a_rate_that_rises_has_a_plus_in_tables_and_figures_and_the_words_say_faster() -> None:
    found = run(DECODE)
    first, last = (found["rungs"][i]["values"]["cumulative"]["h800"] for i in (0, -1))
    assert last > 2 * first
    grid = ladder_grids.reading_grid(ladder_view(found))
    assert grid.rows[2][2] == f"x{last / first:.2f}"
    assert "plus is faster" in grid.note
    bars = [bar for bar in plots.figure("choices", found).data if bar.name == "H800"]
    assert bars[0].x[1] == pytest.approx(100 * (last / first - 1))
    for axis in (plots.figure("choices", found).layout.xaxis, plots.figure("choices", found).layout.xaxis2):
        assert min(axis.tickvals) >= -100  # nothing falls by more
    assert f"({last / first:.2f} times as fast)" in words.answer(ladder_view(found))[0]


def test_a_removal_is_named_with_what_goes_with_it_in_table_figure_and_sentence(
    small: dict[str, Any],
) -> None:
    row = next(row for row in ladder_grids.reading_grid(ladder_view(small)).rows if row[0] == "per-rank")
    assert row[-1] == "Two hops"
    assert ladder_grids.reading_grid(ladder_view(small)).heads[-1] == "goes with it"
    figure = plots.figure("choices", small)
    named = [re.sub(r"\W*<br>", " ", name) for bar in figure.data if bar.yaxis == "y2" for name in bar.y]
    assert "per-rank, and with it Two hops" in named
    headline, other = words.removals(ladder_view(small))
    assert "per-rank" not in headline
    assert other.startswith("Without 'per-rank', and with it 'Two hops', the full design on H800 goes from ")


def test_what_another_setting_stands_in_for_is_told(small: dict[str, Any]) -> None:
    text = SMALL.partition("enough:")[0].replace(
        "without: {workload.kernel: {kind: flat, copies: per_expert}}",
        "without: {workload.kernel: {kind: nccl}}",
    )
    found = run(text)
    assert rung(found, "per-rank")["alters"] == ["two-hop"]
    view = ladder_view(found)
    assert view.rungs[1].removal_note == "Two hops (set otherwise)"
    assert "'per-rank', with another setting of 'Two hops' (" in words.removals(ladder_view(found))[0]


def test_what_stands_beside_the_metric_is_shown_for_every_rung_and_machine() -> None:
    found = run(DECODE.replace("rungs:", "beside: [requests_per_gpu, tpot_s]\nrungs:"))
    grid = ladder_grids.companion_grid(ladder_view(found))
    assert grid.title == "Requests a GPU and time per output token, choice by choice"
    ran = rung(found, "some")["cumulative"]["h800"]
    assert grid.rows[-1][1] == f"120 · {1e3 * ran['tpot_s']:.1f} ms"
    assert grid.rows[1][1:3] == ("-", "-")  # 400 requests do not fit
    assert any(
        "from the naive design to the full one: requests a GPU from 20 to 120, time per" in one
        for one in words.answer(ladder_view(found))
    )


@pytest.mark.parametrize(
    ("metric", "label"),
    [
        ("exposed_comm_s", "exposed communication"),
        ("dispatch.lower_bound_s", "dispatch lower bound"),
        ("dispatch.lower_bound_s + combine.lower_bound_s", "dispatch lower bound + combine lower bound"),
        ("memory_peak_bytes", "memory"),
        ("tpot_s", "time per output token"),
    ],
)
def test_a_metric_is_called_in_words_whichever_a_ladder_shows(metric: str, label: str) -> None:
    assert LadderMetric(metric).label == label


@pytest.mark.slow
def test_a_machine_without_a_price_is_named_in_the_note_and_breaks_even_with_none() -> None:
    grid = ladder_grids.price_grid(ladder_view(run(DECODE)))
    assert "no price" not in grid.note
    h100 = "h100: {cluster.hardware: h100, cluster.override: {cost: null}}"
    bare = f"hardware:\n  {h100}\n"
    first = ladder_grids.price_grid(
        ladder_view(run(DECODE.replace("hardware:\n", bare, 1).replace("  h800: {}\n", "")))
    )
    assert first.note == "H100: no price in the profile, so no cost of a token"
    assert len(first.heads) == len(grid.heads) - 1  # no price of the reference to compare with
    last = ladder_grids.price_grid(ladder_view(run(DECODE.replace("  dear:", f"  {h100}\n  dear:"))))
    assert last.note.endswith("; H100: no price in the profile, so no cost of a token")


def test_every_sentence_ends_and_none_speaks_of_machines_it_does_not_name(small: dict[str, Any]) -> None:
    for sentence in words.finding(ladder_view(small)):
        assert sentence.endswith(".")
        assert re.search(r"\bH[18]00\b", sentence)
        assert not re.search(r"\bthe (other|machine|reference)\b|\bthat machine\b", sentence)


# --- pictures -------------------------------------------------------------------------------------------------------


def test_every_kind_of_a_ladder_draws_and_its_title_states_the_finding(small: dict[str, Any]) -> None:
    for kind in ("ladder", "choices", "enough", "break_even"):
        for figure in plots.figures(kind, small).values():
            assert figure.data
            assert any(char.isdigit() for char in figure.layout.title.text)
            assert figure.layout.meta["alt"]


def test_bars_of_a_ladder_end_where_its_times_are(small: dict[str, Any]) -> None:
    figure = plots.figure("ladder", small)
    solid = next(bar for bar in figure.data if bar.name == "H800")
    pale = figure.data[list(figure.data).index(solid) + 1]
    times = [one["values"]["cumulative"]["h800"] for one in small["rungs"]]
    scale = times[0] / solid.x[0]
    for before, now, low, moved in zip([times[0], *times], times, solid.x, pale.x, strict=False):
        assert low * scale == pytest.approx(min(before, now))
        assert moved * scale == pytest.approx(abs(before - now))


def enough_traces(figure: Any) -> tuple[Any, Any, Any]:
    """The curve, what is enough and what the machine has."""
    curve = figure.data[0]
    found = {trace.marker.symbol or trace.name: trace for trace in figure.data[1:]}
    return curve, found["enough"], found["diamond"]


def test_what_a_machine_has_lies_on_its_curve_inside_the_figure(small: dict[str, Any]) -> None:
    text = SMALL.replace(
        "naive: true, hardware: h100, within: [10 %]",
        "naive: true, set: {cluster.override: {gpu.pcie.bandwidth: 10 TB/s}}",
    )
    found = run(text)
    figures = plots.figures("enough", found)
    assert len(figures) == 2
    for name, figure in figures.items():
        curve, _, has = enough_traces(figure)
        at = dict(zip(curve.x, curve.y, strict=True))
        assert has.y[0] == at[has.x[0]]
        assert figure.layout.yaxis.range[0] < has.y[0] < figure.layout.yaxis.range[1]
        one = found["enough"][name.removeprefix("enough-")]
        assert has.y[0] == pytest.approx(100 * (one["present"]["metric"] / one["unlimited"]["metric"] - 1))
    assert (
        enough_traces(figures["enough-naive"])[2].y[0] > 70
    )  # the NIC binds: above where a curve alone would end


def test_the_least_that_was_tried_is_marked_where_the_curve_is_when_it_is_enough() -> None:
    text = SMALL.partition("enough:")[0] + "enough: {nic: {key: nic.bandwidth, set: {cluster.nodes: 1}}}\n"
    found = run(text)
    curve, enough, _ = enough_traces(plots.figure("enough", found))
    assert list(enough.x) == [curve.x[0]]
    assert enough.y[0] == curve.y[0] == pytest.approx(0, abs=0.05)  # no NIC within a node
    assert (
        "even with 6.25 GB/s, the least that was tried, H800 takes as long as with an unlimited one"
        in words.enough_sentence(ladder_view(found).enough["nic"])
    )


def test_a_ladder_of_one_machine_has_no_gap_and_still_a_report() -> None:
    text = SMALL.replace("  h100: {cluster.hardware: h100}\n", "").replace("hardware: h100, ", "")
    alone = run(re.sub(r"  h800-450: .*\n", "", text))
    assert [one["gap_fraction"] for one in alone["rungs"]] == [None] * 4
    assert "gap" not in " ".join(ladder_grids.rung_grid(ladder_view(alone)).heads)
    assert ladder_page.ladder_html(alone)


@pytest.fixture(scope="module")
def report(small: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ladder") / "report.html"
    path.write_text(ladder_page.ladder_html(small), encoding="utf-8")
    return path


def test_the_report_says_what_was_asked_found_assumed_and_ruled(report: Path) -> None:
    from plotly.offline import get_plotlyjs

    text = report.read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    for part in ("Small: two nodes", "Two hops", "the NIC", "alone", "removed last", "How much is enough", "break even", "88 FR 73458",
                  "not legal advice", "What it leans on", "gpu.scale_up.bandwidth", "Run it again", "moesim ladder ladder.yaml"):  # fmt: skip
        assert part in text, part
    assert not re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}|@import|url\((?!data:)", text)


def test_the_ladder_of_a_report_runs_again_to_the_same_values(small: dict[str, Any]) -> None:
    again = run(documents.dumps(small["provenance"]["ladder"]))
    assert again["rungs"] == small["rungs"]


def test_text_of_a_ladder_cannot_become_markup() -> None:
    evil = "<script>alert(1)</script>"
    text = (
        SMALL.partition("enough:")[0]
        .replace("title: Two hops", f'title: "{evil}"')
        .replace("Small: two nodes", evil)
    )
    assert evil not in ladder_page.ladder_html(run(text))


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="no Chromium here")
def test_the_report_draws_every_figure_in_a_browser_without_fetching(report: Path) -> None:
    with browser.tab() as tab:
        tab.open(report)
        assert tab.run("document.querySelectorAll('.plot').length") == 6  # ladder, choices, two of each curve
        assert tab.run("document.querySelectorAll('.plot[data-drawn=yes]').length") == 6
        assert tab.errors == []
        assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [390, 800, 1300])
def test_no_text_of_a_figure_lies_on_another_or_is_cut_at_any_width(report: Path, width: int) -> None:
    with browser.tab() as tab:
        tab.open(report, width=width)
        assert tab.run("document.documentElement.scrollWidth") == width
        assert tab.run(browser.OVERLAPS) == []
