"""The report: one page, nothing fetched, everything drawn in a real browser, light and dark, wide and narrow."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

import browser
import shared
import sim
from sim.show.canvas import Picture
from sim.show.pages import page, report
from sim.show.pages.parts import Head
from sim.show.plots import kinds as plots
from sim.show.tables import rules
from sim.show.views.rerun import scenario_yaml
from sim.show.views.run import views_of
from sim.show.words import run as findings
from sim.show.words import transfers

needs_browser = pytest.mark.skipif(browser.find() is None, reason="no Chromium here")
RUNS = ("single", "variants", "closed", "flows", "exchange", "validation")
WORKLOADS = ("all_to_all", "exchange", "flows", "training", "prefill", "decode", "decodes", "serving")


@pytest.fixture(scope="module")
def all_runs(results: dict[str, Any], runs: dict[str, Any]) -> dict[str, Any]:
    """A run of every workload, and some of several variants."""
    decodes = {"variants": {"a": runs["decode"], "b": runs["decode"]}, "name": "two", "title": "Two"}
    prefill = sim.run("prefill-hardware", {"variants": {}, "expect": {}})
    return {**results, **runs, "prefill": prefill, "decodes": decodes}


@pytest.fixture(scope="module")
def pages(all_runs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    found = {}
    for run in dict.fromkeys((*RUNS, *WORKLOADS)):
        found[run] = folder / f"{run}.html"
        found[run].write_text(report.report_html(all_runs[run]), encoding="utf-8")
    return found


def without_plotly(text: str) -> str:
    assert text.count(page.plotly()) == 1
    return text.replace(page.plotly(), "")


@pytest.mark.parametrize("run", [*RUNS, "prefill", "decodes", "serving"])
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


def body(path: Path) -> str:
    """The text of a page without figures and scripts."""
    text = without_plotly(path.read_text(encoding="utf-8"))
    return html.unescape(re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL))


@pytest.mark.parametrize("run", WORKLOADS)
def test_a_report_answers_with_numbers_and_shows_what_it_stands_on(
    pages: dict[str, Path], all_runs: dict[str, Any], run: str
) -> None:
    text = body(pages[run])
    said = findings.finding(views_of(all_runs[run]))
    assert said
    assert any(char.isdigit() for char in said[0])
    for words in (*said, "bound", "Where the time goes", "Run it again", "How to read it", "kind: "):
        assert words in text
    shown = set(re.findall(r'class="plot" id="fig-(\w+)', text))
    assert "timeline" in shown
    if run in ("training", "prefill", "decode", "decodes"):
        assert {"phases", "memory", "roofline"} <= shown
    elif run == "serving":
        assert {"phases", "queues", "latencies"} <= shown
    else:
        assert {"bars", "links", "fabric_map"} <= shown


@pytest.mark.parametrize("run", [run for run in WORKLOADS if run != "flows"])
def test_a_report_tells_the_export_rules_of_its_hardware(pages: dict[str, Path], run: str) -> None:
    text = body(pages[run])
    for words in (
        "Export rules",
        "87 FR 62186",
        "R2022",
        "not legal advice",
        "Not restricted: I/O of 528 GB/s",
    ):
        assert words in text


def test_a_bare_fabric_has_no_export_rules(pages: dict[str, Path]) -> None:
    assert "Export rules" not in body(pages["flows"])


def test_an_override_changes_the_verdict_of_its_part_alone() -> None:
    """400 GB/s of NVLink both ways passed the rule of 2022, 900 GB/s did not (87 FR 62186: I/O of 600 GB/s or more)."""
    result = sim.run(
        "h800-450", {"workload.tokens_per_rank": 16, "workload.gate.sampling": "expected", "expect": {}}
    )
    grid = rules.grid(views_of(result).runs)
    assert grid.heads[2:5] == ("H800", "H800 with gpu.scale_up.bandwidth 450 GB/s", "H100")
    assert next(row for row in grid.rows if row[0] == "R2022")[2:5] == (
        "not restricted",
        "restricted",
        "restricted",
    )
    told = result["variants"]["h800-450"]["provenance"]
    assert told["hardware"]["overrides"] == {"gpu.scale_up.bandwidth": "450 GB/s"}
    first = told["export_rules"]["verdicts"][0]
    assert {one["name"]: one["value"] for one in first["numbers"]}["IO"] == pytest.approx(2 * 450 + 2 * 64)


def test_the_scenario_of_a_report_runs_again_to_the_same_metrics(
    results: dict[str, Any], tmp_path: Path
) -> None:
    again = tmp_path / "again.yaml"
    again.write_text(scenario_yaml(views_of(results["variants"])))
    for name, one in sim.run(again)["variants"].items():
        assert one["metrics"] == results["variants"]["variants"][name]["metrics"]
    again.write_text(scenario_yaml(views_of(results["single"])))
    assert sim.run(again)["metrics"] == results["single"]["metrics"]


def test_text_from_a_scenario_cannot_become_markup(results: dict[str, Any]) -> None:
    evil = "<script>alert(1)</script>"
    text = report.report_html({**results["single"], "title": evil, "name": evil})
    assert evil not in text


TEMPLATES = sorted(Path(page.__file__).with_name("templates").glob("*.j2"))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_escapes_every_text_and_says_what_it_shows(template: Path) -> None:
    text = template.read_text(encoding="utf-8")
    assert text.startswith("{# ")
    assert not re.findall(r"\bsafe\b|autoescape", text)
    data = {
        "parts.html.j2": '<script type="application/json" id="{{ drawing.ident }}-data">{{ drawing.data | in_script }}</script>',
        "motion.html.j2": '<script type="application/json" id="motion">{{ page.data | in_script }}</script>',
        "explorer.html.j2": '<script type="application/json" id="cube">{{ page.data | in_script }}</script>',
    }
    lines = [line for line in text.splitlines() if "in_script" in line]
    assert lines == [text for name, text in data.items() if name == template.name]


def test_a_figure_s_data_cannot_leave_its_script() -> None:
    evil = "</script><!--<script>alert(1)"
    text = without_plotly(
        page.figure_page(evil, Picture(({"type": "bar", "name": evil},), {"meta": {"title": evil}}))
    )
    assert evil not in text
    data = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert data
    assert json.loads(data[1])["data"][0]["name"] == evil


def test_a_report_without_transfers_is_a_page_too() -> None:
    later = {
        "name": "later",
        "metrics": {"step_time_s": 19.9},
        "scenario": {"workload": {"kind": "training"}},
    }
    assert "19.9 s" in report.report_html(later)


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
    [
        ("single", 390, True),
        ("variants", 1400, False),
        ("flows", 1400, True),
        ("validation", 390, False),
        ("decode", 390, False),
        ("decodes", 1400, True),
        ("serving", 390, True),
        ("prefill", 1400, False),
    ],
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


FIRST_SCREEN = """(() => {
  const bottom = part => document.querySelector(part).getBoundingClientRect().bottom;
  const plot = document.querySelector(".plot"), top = plot.getBoundingClientRect().top;
  return [bottom("h1") <= innerHeight, bottom(".answer") <= innerHeight, (innerHeight - top) / plot.clientHeight, innerHeight - top,
          plot.querySelectorAll("svg").length > 0];
})()"""


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(("width", "height", "least_px"), [(1280, 800, 200), (390, 844, 150)])
def test_question_answer_and_picture_stand_on_the_first_screen(
    tab: browser.Tab, pages: dict[str, Path], width: int, height: int, least_px: int
) -> None:
    for run, path in pages.items():
        tab.open(path, width=width, height=height, draw=False)
        asked, answered, seen_fraction, seen_px, drawn = tab.run(FIRST_SCREEN)
        assert asked and answered and drawn, run  # noqa: PT018
        assert seen_fraction >= 1 or seen_px >= least_px, run


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(
    "name",
    [
        "two-jobs",
        "rl-split",
        "rl-tail",
        "decode-disaggregated",
        "kernel-launches",
        "serving-disaggregated-h20-h800",
        pytest.param("serving-beside-training", marks=pytest.mark.slow),
    ],
)
def test_pages_of_jobs_pools_launches_and_iterations_are_whole(
    tab: browser.Tab, tmp_path: Path, name: str
) -> None:
    """Drawn, labelled, reached by the keyboard, quiet, and with its answer on the first screen of a desk and of a telephone."""
    path = tmp_path / f"{name}.html"
    path.write_text(report.report_html(shared.scenario(name)), encoding="utf-8")
    for width, height, dark in ((1280, 800, True), (390, 844, False)):
        tab.open(path, width=width, height=height, dark=dark)
        for ident, has_svg, types_kept, has_label in tab.run(DRAWN):
            assert has_svg and types_kept and has_label, ident  # noqa: PT018
        asked, answered, seen_fraction, seen_px, _ = tab.run(FIRST_SCREEN)
        assert asked and answered and (seen_fraction >= 1 or seen_px >= 150), width  # noqa: PT018
        assert tab.run("document.documentElement.scrollWidth <= innerWidth")
        assert tab.run(REACHABLE)
        assert (tab.errors, tab.requests) == ([], [])


REACHABLE = (
    "[...document.querySelectorAll('.scroll, pre, summary, button, a')].every(one => one.tabIndex >= 0)"
)


@pytest.mark.slow
@needs_browser
def test_every_control_can_be_reached_by_keyboard(tab: browser.Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["variants"])
    assert tab.run(REACHABLE)


def test_an_answer_leaves_room_for_its_picture() -> None:
    """A first sentence always stands above it, and as many more as 380 characters hold."""
    for answer, above in (
        (["a" * 500, "b"], 1),
        (["a" * 100, "b" * 100, "c" * 100, "d" * 100], 3),
        (["a"], 1),
    ):
        assert Head("", "", (), answer, ()).num_above == above


@pytest.mark.slow
@needs_browser
def test_figures_are_drawn_when_they_come_near_the_screen(tab: browser.Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["single"], height=700, draw=False)
    tab.run(
        "new Promise(done => { const look = () => performance.getEntriesByName('moesim: in view').length ? done() : setTimeout(look, 50); look(); })"
    )
    drawn = "[...document.querySelectorAll('.plot')].map(div => !!div.dataset.drawn)"
    before = tab.run(drawn)
    assert before[0]
    assert not before[-1]
    tab.run("[...document.querySelectorAll('.plot')].at(-1).scrollIntoView()")
    tab.run(
        "new Promise(done => { const look = () => [...document.querySelectorAll('.plot')].at(-1).dataset.drawn ? done() : setTimeout(look, 50); look(); })"
    )
    assert tab.run(drawn)[-1]
    assert tab.errors == []


def without(what: str, page: Path, folder: Path) -> Path:
    """A page in a browser that lacks something."""
    path, text = folder / "old.html", page.read_text(encoding="utf-8")
    script = f"<body><script>delete window.{what}</script>"
    path.write_text(text.replace("<body>", script, 1), encoding="utf-8")
    return path


@pytest.mark.slow
@needs_browser
def test_without_an_observer_all_is_drawn_at_once(
    tab: browser.Tab, pages: dict[str, Path], tmp_path: Path
) -> None:
    tab.open(without("IntersectionObserver", pages["single"], tmp_path), draw=False)
    tab.run(
        "new Promise(done => { const look = () => [...document.querySelectorAll('.plot')].every(div => div.dataset.drawn) ? done() : setTimeout(look, 50); look(); })"
    )
    assert tab.errors == []


@pytest.mark.slow
@needs_browser
def test_a_browser_without_decompression_says_so(
    tab: browser.Tab, pages: dict[str, Path], tmp_path: Path
) -> None:
    tab.open(without("DecompressionStream", pages["single"], tmp_path), draw=False)
    assert "too old to draw" in tab.run("document.querySelector('.plot').textContent")


@pytest.mark.slow
@needs_browser
def test_on_paper_every_fold_is_open_and_drawn_and_closed_again_after(
    tab: browser.Tab, pages: dict[str, Path]
) -> None:
    tab.open(pages["variants"], dark=True)
    closed = "document.querySelectorAll('details:not([open])').length"
    before = tab.run(closed)
    assert before
    tab.run("dispatchEvent(new Event('beforeprint'))")
    assert tab.run(closed) == 0
    assert tab.run("[...document.querySelectorAll('.plot')].every(div => div.querySelector('.main-svg'))")
    tab.run("dispatchEvent(new Event('afterprint'))")
    assert tab.run(closed) == before
    inks = tab.run("[...document.querySelectorAll('.plot text')].map(text => getComputedStyle(text).fill)")
    assert "rgb(232, 236, 240)" in inks  # a fold that was opened for paper alone is dark again too
    assert "rgb(28, 33, 38)" not in inks
    assert tab.errors == []


@pytest.mark.slow
@needs_browser
def test_no_text_of_a_figure_is_cut_on_a_telephone(tab: browser.Tab, pages: dict[str, Path]) -> None:
    for run in ("validation", "decode"):
        tab.open(pages[run], width=390)
        assert [found for found in tab.run(browser.OVERLAPS) if found[2] == "cut"] == [], run


@pytest.mark.slow
@needs_browser
def test_a_printed_report_has_every_figure_on_white(
    tab: browser.Tab, pages: dict[str, Path], tmp_path: Path
) -> None:
    tab.open(pages["decode"], dark=True, draw=False)
    tab.run("moesim.drawAll().then(() => dispatchEvent(new Event('beforeprint')))")
    ink = tab.run("getComputedStyle(document.querySelector('.plot text')).fill")
    assert sum(map(int, re.findall(r"\d+", ink)[:3])) < 380
    tab.run("dispatchEvent(new Event('afterprint'))")
    tab.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").stat().st_size > 20_000


@pytest.mark.slow
@needs_browser
def test_a_single_figure_page_draws(tab: browser.Tab, results: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "bars.html"
    path.write_text(page.figure_page("bars", plots.figure("bars", results["variants"])), encoding="utf-8")
    tab.open(path, width=390)
    assert tab.run("document.querySelectorAll('.plot .main-svg').length") > 0
    assert tab.errors == []
    assert tab.requests == []


def test_a_fold_says_what_binds_in_each_of_its_variants_or_in_all(results: dict[str, Any]) -> None:
    one, other = (dict(run) for run in results["variants"]["variants"].values())
    for run, dispatch, combine in ((one, "scale_up", "scale_up"), (other, "nic", "copy_sms")):
        made = {"dispatch": dispatch, "combine": combine}
        run["metrics"] = {
            name: {**run["metrics"][name], "binding": binding} for name, binding in made.items()
        }
    text = report.report_html({**results["variants"], "variants": {"h800": one, "h100": other}})
    assert "h800: NVLink binds; h100: dispatch the NIC binds, combine the copy SMs bind" in text
    alike = report.report_html(
        {**results["variants"], "variants": {"h800": one, "h100": {**other, "metrics": one["metrics"]}}}
    )
    assert '<span class="soft">NVLink binds</span>' in alike


@pytest.mark.parametrize(
    ("times_s", "words"),
    [
        ([1.5], "1.50 times its lower bound"),
        ([1.5, 1.504], "1.50 times their lower bounds"),
        ([1.5, 2.0], "1.50 to 2.00 times their lower bounds"),
    ],
)
def test_a_span_of_bounds_names_two_ends_only_where_they_differ(times_s: list[float], words: str) -> None:
    variants = {
        f"v{i}": {"metrics": {"exchange": {"time_s": t, "completion_time_s": t, "lower_bound_s": 1.0, "binding": "nic"}}}
        for i, t in enumerate(times_s)
    }  # fmt: skip
    assert words in transfers.bounds(views_of({"variants": variants}))
