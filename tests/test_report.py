"""The report: one page, nothing fetched, everything drawn in a real browser, light and dark, wide and narrow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import pytest
from test_plots import results

import sim
from sim.show import page, plots, report

__all__ = ["results"]  # the fixture

needs_browser = pytest.mark.skipif(browser.find() is None, reason="no Chromium here")
RUNS = ("single", "variants", "closed", "flows", "exchange", "validation")


@pytest.fixture(scope="module")
def pages(results: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    found = {}
    for run in RUNS:
        found[run] = folder / f"{run}.html"
        found[run].write_text(report.report_html(results[run]), encoding="utf-8")
    return found


def without_plotly(text: str) -> str:
    assert text.count(page.plotly()) == 1
    return text.replace(page.plotly(), "")


@pytest.mark.parametrize("run", RUNS)
def test_a_page_is_one_small_file_without_a_foreign_address(pages: dict[str, Path], run: str) -> None:
    text = pages[run].read_text(encoding="utf-8")
    assert len(text.encode()) < 6e6
    assert not re.findall(
        r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}|@import|url\((?!data:)", without_plotly(text)
    )


def test_the_same_result_gives_the_same_bytes(results: dict[str, Any]) -> None:
    assert report.report_html(results["single"]) == report.report_html(results["single"])


@pytest.mark.parametrize("run", ["single", "variants"])
def test_a_report_holds_answer_times_assumptions_and_scenario(pages: dict[str, Path], run: str) -> None:
    text = without_plotly(pages[run].read_text(encoding="utf-8"))
    for said in (
        "Answer",
        "Times beside their lower bounds",
        "assumed",
        "gpu.pcie.bandwidth",
        "tokens_per_rank: 128",
    ):
        assert said in text


def test_the_scenario_of_a_report_runs_again_to_the_same_metrics(
    results: dict[str, Any], tmp_path: Path
) -> None:
    again = tmp_path / "again.yaml"
    again.write_text(report.scenario_yaml(results["variants"]))
    for name, one in sim.run(again)["variants"].items():
        assert one["metrics"] == results["variants"]["variants"][name]["metrics"]
    again.write_text(report.scenario_yaml(results["single"]))
    assert sim.run(again)["metrics"] == results["single"]["metrics"]


def test_text_from_a_scenario_cannot_become_markup(results: dict[str, Any]) -> None:
    evil = "<script>alert(1)</script>"
    text = report.report_html({**results["single"], "title": evil, "name": evil})
    assert evil not in text


def test_a_report_without_transfers_is_a_page_too() -> None:
    later = {
        "name": "later",
        "metrics": {"step_time_s": 19.9},
        "scenario": {"workload": {"kind": "training"}},
    }
    assert "19.9 s" in report.report_html(later)


@pytest.fixture(scope="module")
def tab() -> Iterator[browser.Tab]:
    with browser.tab() as opened:
        yield opened


DRAWN = """
(() => { for (const fold of document.querySelectorAll("details")) fold.open = true; })();
moesim.drawAll().then(() => [...document.querySelectorAll(".plot")].map(div =>
  [div.id, !!div.querySelector(".main-svg"), (div._fullData || []).every((trace, i) => trace.type === (div.data[i].type || "scatter")),
   !!div.getAttribute("aria-label")]))
"""


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(
    ("run", "width", "dark"),
    [("single", 390, True), ("variants", 1400, False), ("flows", 1400, True), ("validation", 390, False)],
)
def test_everything_is_drawn_in_a_browser(
    tab: browser.Tab, pages: dict[str, Path], run: str, width: int, dark: bool
) -> None:
    tab.open(pages[run], width=width, dark=dark)
    drawn = tab.run(DRAWN)
    tab.settle()
    assert drawn
    for ident, has_svg, types_kept, has_label in drawn:
        assert has_svg, ident
        assert types_kept, ident
        assert has_label, ident
    assert tab.errors == []
    assert tab.requests == []
    assert tab.run("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    ground = tab.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == dark
    ink = tab.run("getComputedStyle(document.querySelector('.plot text')).fill")
    assert (sum(map(int, re.findall(r"\d+", ink)[:3])) > 380) == dark


@needs_browser
def test_every_control_can_be_reached_by_keyboard(tab: browser.Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["variants"])
    reachable = tab.run(
        "[...document.querySelectorAll('.scroll, pre, summary, button, a')].every(one => one.tabIndex >= 0)"
    )
    assert reachable


@pytest.mark.slow
@needs_browser
def test_a_single_figure_page_draws(tab: browser.Tab, results: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "bars.html"
    path.write_text(page.figure_page("bars", plots.figure("bars", results["variants"])), encoding="utf-8")
    tab.open(path, width=390)
    assert tab.run("document.querySelectorAll('.plot .main-svg').length") > 0
    assert tab.errors == []
    assert tab.requests == []
