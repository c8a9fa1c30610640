"""How long pages take to open. Run with `pytest -o addopts= tests/benchmarks`; aims beside each case.

From the start of navigation to the moment when all that the first screen shows is drawn (the page's own performance mark),
in a fresh browser each time; half of it is plotly's script, whatever is drawn. Sizes stand in `extra_info`, and what the
text alone takes to be seen. Medians count: machines are shared.
"""

from __future__ import annotations

import statistics
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

import browser
import sim
from sim.show.pages import page, report
from sim.show.plots import kinds as plots

pytestmark = pytest.mark.skipif(browser.find() is None, reason="no Chromium here")
ROUNDS = 5
BALANCED = {f"workload.skew.{key}": 0 for key in ("routed_load", "kernel_jitter", "gpu_spread")}
MARKS = """(() => { const paint = performance.getEntriesByName("first-contentful-paint")[0];
  const drawn = performance.getEntriesByName("moesim: in view")[0];
  return [paint ? paint.startTime : 0, drawn ? drawn.startTime : 0]; })()"""


@pytest.fixture(scope="module")
def step() -> dict[str, Any]:
    return sim.run("v3-training-h800", {**BALANCED, "expect": {}})


def deep(result: dict[str, Any], num_bars: int) -> dict[str, Any]:
    """The step repeated until it has so many operations; on 64 pipeline ranks where there are very many."""
    grown = deepcopy(dict(result))
    line = grown["timeline"]
    ranks = line["pipeline"]
    num_ranks = 64 if num_bars > 20_000 else len(ranks)
    times = -(-num_bars // (num_ranks * len(ranks[0]["kinds"])))
    line["pipeline"] = [
        {
            "rank": number,
            "kinds": one["kinds"] * times,
            "microbatches": one["microbatches"] * times,
            "start_s": [start + i * line["end_s"] for i in range(times) for start in one["start_s"]],
            "end_s": [end + i * line["end_s"] for i in range(times) for end in one["end_s"]],
        }
        for number, one in ((number, ranks[number % len(ranks)]) for number in range(num_ranks))
    ]
    line["optimizer_s"] = [line["optimizer_s"][0]] * num_ranks
    line["end_s"] *= times
    return grown


def grid(num_points: int) -> dict[str, Any]:
    """The document of a sweep over three axes; metrics are made up."""
    axes = {
        "layout.ep": list(range(num_points // 100)),
        "layout.pp": list(range(10)),
        "layout.tp": list(range(10)),
    }
    points = [
        {
            "values": {"layout.ep": ep, "layout.pp": pp, "layout.tp": tp},
            "status": "ok",
            "reason": "",
            "metrics": {
                "step_time_s": 20 + (7 * ep + 3 * pp) % 11 + tp / (1 + ep),
                "memory_peak_bytes": 1e9 * (1 + pp + tp * ep % 17),
            },
        }
        for ep in axes["layout.ep"]
        for pp in axes["layout.pp"]
        for tp in axes["layout.tp"]
    ]
    ranked = sorted(range(len(points)), key=lambda i: points[i]["metrics"]["step_time_s"])
    counts = {"points": len(points), "ok": len(points), "infeasible": 0, "pruned": 0, "failed": 0}
    return {
        "schema": "moesim.sweep/1", "name": "grid", "title": "A grid", "version": "", "sweep": {"name": "grid"}, "given": [],
        "objectives": {"step_time_s": "minimise"}, "axes": axes, "num_combinations": len(points), "counts": counts,
        "runs": {"computed": len(points), "remembered": 0, "of_changes": 0}, "points": points, "ranked": ranked, "best": ranked[:1], "pareto": ranked[:1], "changes": [],
    }  # fmt: skip


def opened(path: Path) -> tuple[float, float]:
    """Seconds to the first text, and to the last figure of the first screen."""
    with browser.tab() as tab:
        tab.send(
            "Emulation.setDeviceMetricsOverride", width=1400, height=950, deviceScaleFactor=1, mobile=False
        )
        tab.send("Page.navigate", url=path.resolve().as_uri())
        end = time.monotonic() + 120
        while not (marks := tab.run(MARKS))[1]:
            if time.monotonic() > end:
                raise TimeoutError(str(path))
            time.sleep(0.1)
    return marks[0] / 1e3, marks[1] / 1e3


@pytest.mark.parametrize(
    ("case", "aim_s"),
    [
        ("report of the 2,048-GPU step", 3.0),
        ("4,000 bars", 3.0),
        ("10,000 bars", 3.0),
        ("100,000 bars", 5.0),
        ("sweep of 10,000 points", 3.0),
    ],
)
def test_a_page_opens(benchmark: Any, step: dict[str, Any], tmp_path: Path, case: str, aim_s: float) -> None:
    path = tmp_path / "page.html"
    if case.endswith("bars"):
        grown = deep(step, int(case.split()[0].replace(",", "")))
        text = page.figure_page("timeline", plots.figure("timeline", grown))
    elif case.startswith("sweep"):
        text = report.report_html(grid(10_000))
    else:
        text = report.report_html(step)
    path.write_text(text, encoding="utf-8")
    times: list[tuple[float, float]] = []
    benchmark.pedantic(lambda: times.append(opened(path)), rounds=ROUNDS, iterations=1, warmup_rounds=1)
    text_s, drawn_s = (statistics.median(column) for column in zip(*times[-ROUNDS:], strict=True))
    size = len(text.encode())
    benchmark.extra_info |= {"aim_s": aim_s, "text_s": text_s, "in_view_s": drawn_s, "page_bytes": size}
    print(
        f"\n{case}: text after {text_s:.2f} s, first screen drawn after {drawn_s:.2f} s (aim {aim_s} s), {size / 1e6:.1f} MB"
    )
    assert size < 6e6
