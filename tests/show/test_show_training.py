"""Training steps shown: tables that add up, sentences that say what changed, figures whose bars are the operations."""

from __future__ import annotations

import io
import re
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import browser
import sim
from sim.cost.measured import load_profile
from sim.errors import InputError
from sim.show.files import timelines
from sim.show.files.trace import document, encode
from sim.show.pages import report
from sim.show.plots import kinds as plots
from sim.show.plots import pair as plot_pair
from sim.show.tables import console as tables
from sim.show.tables import training
from sim.show.tables import validation as validation_tables
from sim.show.views import training as training_views
from sim.show.views.rerun import scenario_yaml
from sim.show.views.run import run_view, views_of
from sim.show.views.training import StepView
from sim.show.views.validation import validation_view
from sim.show.words import run as findings
from sim.show.words import validation
from traces import check_trace

KINDS = ("timeline", "layer_pair", "phases", "memory")
needs_browser = pytest.mark.skipif(browser.find() is None, reason="no Chromium here")


RUNS = ("1f1b", "dualpipe", "variants")


def printed(result: Any) -> str:
    out = io.StringIO()
    tables.print_result(result, Console(file=out, width=100))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    return text


def finding(result: Any) -> list[str]:
    return findings.finding(views_of(result))


def views(result: Any) -> tuple[StepView, ...]:
    return views_of(result).select(StepView)


def many(result: dict[str, Any]) -> dict[str, Any]:
    """The document with seven variants, one with a long name."""
    more = dict(result["variants"])
    for i in range(3):
        more[f"a-rather-long-name-of-variant-{i}"] = result["variants"]["h100"]
    return {**result, "variants": more}


# --- tables and sentences --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", RUNS)
def test_a_step_stands_beside_its_bound_with_mfu_and_throughput(steps: dict[str, Any], run: str) -> None:
    text = printed(steps[run])
    for step in views(steps[run]):
        m = step.metrics
        assert f"{m['step_time_s'] / m['lower_bound_s']:.3f}" in text
        assert f"{m['mfu_causal_fraction']:.1%}" in text
        assert f"{m['tokens_per_s_per_gpu']:,.0f}" in text
    assert "Metrics" not in text  # the long list is for workloads without tables of their own


def test_phases_and_their_shares_add_up_to_the_step(steps: dict[str, Any]) -> None:
    for run in ("1f1b", "dualpipe"):
        step = views(steps[run])[0]
        grid = training.phases_down([step])
        shares = [
            float(row[2].rstrip("%")) for row in grid.rows[: len(training_views.PHASES)] if row[2] != "-"
        ]
        assert sum(shares) == pytest.approx(100, abs=0.3)
        assert sum(step.phases.values()) == pytest.approx(step.step_time_s)


def test_parts_of_memory_and_what_is_free_make_the_capacity(steps: dict[str, Any]) -> None:
    step = views(steps["dualpipe"])[0]
    *parts, _, free = training.memory_down([step]).rows
    assert sum(float(row[2].rstrip("%")) for row in (*parts, free)) == pytest.approx(100, abs=0.3)
    assert step.fullest.total_bytes == pytest.approx(step.metrics["memory_peak_bytes"])


def test_a_whole_run_is_told_where_one_was_asked_for(steps: dict[str, Any]) -> None:
    text = printed(steps["variants"])
    hours = steps["dualpipe"]["metrics"]["run_gpu_hours"]
    assert "The whole run of 1 T tokens" in text
    assert f"{hours:,.0f}" in text
    assert f"${2 * hours:,.0f}" in text
    assert "whole run" not in printed(steps["1f1b"])


def test_costs_say_at_which_price_and_whose_it_is(steps: dict[str, Any]) -> None:
    """An H100 at the price of an H800 is no finding about the H100."""
    assert "all at 2 $/GPU-hour (the scenario's, for all hardware)" in finding(steps["variants"])[0]
    assert "a GPU-hour: the scenario's, for all hardware" in printed(steps["variants"])
    own = deepcopy(steps["variants"])
    for one in own["variants"].values():
        del one["scenario"]["workload"]["run"]["price"]
    own["variants"]["h100"]["metrics"]["run_cost_usd"] *= 1.5
    said = finding(own)[0]
    assert re.search(r"\$[\d,]+ in h800 at 2 \$/GPU-hour, \$[\d,]+ in h100 at 3 \$/GPU-hour,", said)
    assert said.endswith(", each at its profile's price of a GPU-hour.")


def test_many_variants_with_long_names_still_fit_the_terminal(steps: dict[str, Any]) -> None:
    text = printed(many(steps["variants"]))
    assert re.search(r"^ h800 +mean ", text, re.MULTILINE)


def test_a_single_step_is_told_with_its_largest_part_bubble_and_memory(steps: dict[str, Any]) -> None:
    said = finding(steps["1f1b"])
    m = steps["1f1b"]["metrics"]
    assert f"bubble {m['phases_mean']['bubble_s'] / m['step_time_s']:.1%}" in said[0]
    assert "on the mean pipeline rank" in said[0]
    assert "backwards alone fill" in said[0]
    assert "of 80 GB" in said[1]


def test_documents_of_a_step_are_told_and_listed(steps: dict[str, Any]) -> None:
    packed = deepcopy(steps["1f1b"])
    packed["metrics"]["packing"] = {
        "documents": 3042, "padding_fraction": 0.002, "attention_fraction": 0.222, "max_over_mean_microbatch": 4.512, "max_over_mean_rank": 1.481,
    }  # fmt: skip
    told = finding(packed)[1]
    assert "3,042 documents have 22% of the attention" in told
    assert "4.51 times" in told
    assert "1.48 times" in told
    (row,) = training.packing(views(packed)).rows
    assert row[1:] == ("3,042", "0.2%", "22.2%", "4.512", "1.481")
    assert not training.packing(views(steps["1f1b"])).rows


def test_variants_are_told_against_the_first_and_by_the_phase_that_changed(steps: dict[str, Any]) -> None:
    slower = deepcopy(steps["variants"])
    slow = slower["variants"]["apart"]["metrics"]
    slow["step_time_s"] = 2 * slower["variants"]["h800"]["metrics"]["step_time_s"]
    slow["phases_mean"]["bubble_s"] += slow["step_time_s"]
    slow["phases"]["1F1B_s"] += 2 * slow["step_time_s"]  # of rank 0, of which the words do not speak
    _, lost, *said = finding(slower)
    assert lost.startswith("Failures leave ")
    assert "in h800" in said[0]
    assert said[1].startswith("apart takes")
    assert "2.00x as long" in said[1]
    assert "more in bubble" in said[1]


def test_the_layout_and_the_schedule_stand_among_the_facts(steps: dict[str, Any]) -> None:
    facts = dict(views(steps["variants"])[2].facts)
    assert facts["PP"] == "4"
    assert facts["DP"] == "8"
    assert facts["schedule"] == "dualpipe without overlap"
    assert "TP" not in facts


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("run", RUNS)
def test_every_kind_draws_every_step_that_has_its_data(steps: dict[str, Any], run: str, kind: str) -> None:
    if (run, kind) == ("1f1b", "layer_pair"):
        with pytest.raises(InputError, match="no forward of it overlaps a backward"):
            plots.figure(kind, steps[run])
        return
    figure = plots.figure(kind, steps[run])
    assert any(char.isdigit() for char in figure.layout.title.text)
    assert figure.layout.meta["alt"]
    assert "[" in (figure.layout.yaxis if kind == "memory" else figure.layout.xaxis).title.text


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_training_step_is_refused(kind: str) -> None:
    with pytest.raises(InputError, match=r"no training step|no course in time"):
        plots.figure(kind, {"metrics": {"time_s": 1.0}})


def areas(figure: Any) -> dict[str, list[float]]:
    """Widths of the boxes of each filled trace."""
    found = {}
    for trace in figure.data:
        if trace.fill == "toself":
            xs = list(trace.x)
            found[trace.name] = [xs[i + 1] - xs[i] for i in range(0, len(xs), 5)]
    return found


@pytest.mark.parametrize("run", ["1f1b", "dualpipe"])
def test_the_boxes_of_a_timeline_are_the_operations(steps: dict[str, Any], run: str) -> None:
    line = steps[run]["timeline"]
    drawn = areas(plots.figure("timeline", steps[run]))
    drawn.pop("optimizer")
    times = [e - s for one in line["pipeline"] for s, e in zip(one["start_s"], one["end_s"], strict=True)]
    assert sum(map(len, drawn.values())) == len(times)
    scale = 1e3 if line["end_s"] < 1 else 1
    assert sum(map(sum, drawn.values())) == pytest.approx(scale * sum(times), rel=1e-3)


def test_phases_of_every_pipeline_rank_fill_the_step(steps: dict[str, Any]) -> None:
    step = views(steps["dualpipe"])[0]
    assert len(step.rank_phases) == 4
    for phases in step.rank_phases.values():
        assert sum(phases.values()) == pytest.approx(step.step_time_s)
    assert step.rank_phases["0"] == pytest.approx(step.phases)


def test_the_legend_of_a_pair_says_which_exchanges_a_kernel_runs(steps: dict[str, Any]) -> None:
    """The backward of a combine sends what a dispatch sends."""
    names = {trace.name for trace in plots.figure("layer_pair", steps["dualpipe"]).data}
    assert {"dispatch kernels: dispatch(F), combine(B)", "combine kernels: combine(F), dispatch(B)"} <= names


def test_bars_of_variants_are_phases_of_the_mean_pipeline_rank(steps: dict[str, Any]) -> None:
    figure = plots.figure("phases", steps["variants"])
    bubble = next(trace for trace in figure.data if trace.name == "bubble")
    means = [step.phases_mean["bubble_s"] for step in views(steps["variants"])]
    assert [x / 1e3 for x in bubble.x] == pytest.approx(means)
    assert "mean pipeline rank" in figure.layout.xaxis.title.text


def test_bars_of_memory_are_what_each_rank_holds(steps: dict[str, Any]) -> None:
    figure = plots.figure("memory", steps["dualpipe"])
    for i, held in enumerate(views(steps["dualpipe"])[0].memory):
        assert sum(trace.y[i] for trace in figure.data) == pytest.approx(held.total_bytes / 1e9)
    assert figure.layout.shapes[0].y0 == pytest.approx(80)


def test_a_layer_pair_keeps_the_order_of_both_streams(steps: dict[str, Any]) -> None:
    bars = plot_pair.pair_of(views(steps["dualpipe"])[0])
    assert bars is not None
    inside = [bar for bar in bars if bar.stream == "compute" and bar.start_s >= 0]
    assert [bar.name for bar in inside] == ["attn(F)", "mlp(B)", "mlp(W)", "mlp(F)", "attn(B)", "attn(W)"]
    ends = {bar.name: bar.end_s for bar in inside}
    starts = {bar.name: bar.start_s for bar in bars}
    for before, after in pairwise(inside):
        assert after.start_s >= before.end_s - 1e-12
    for exchange, phase in (("dispatch(F)", "attn(F)"), ("dispatch(B)", "mlp(B)"), ("combine(F)", "mlp(F)")):
        assert starts[exchange] >= ends[phase] - 1e-12


def test_a_measured_pair_stands_beside_the_step_it_was_measured_on() -> None:
    profile = load_profile("h800-train-measured")
    bars = [bar for bar in plot_pair.measured_bars(profile) if bar.stream == "compute" and bar.start_s >= 0]
    assert sum(bar.end_s - bar.start_s for bar in bars) == pytest.approx(31.61e-3, rel=1e-3)

    def measured(scenario: dict[str, Any]) -> Any:
        phases: dict[str, Any] = {"phases": {}, "phases_mean": {}}
        step = run_view(
            {"metrics": {**phases, "step_time_s": 1.0, "tokens_per_s_per_gpu": 1.0}, "scenario": scenario}
        )
        assert isinstance(step, StepView)
        return plot_pair.measured_for(step)

    scenario: dict[str, Any] = {
        "cluster": {"hardware": "h800"},
        "model": "deepseek-v3",
        "layout": {"ep": 64},
        "workload": {"microbatch_sequences": 1, "sequence_tokens": 4096},
    }
    assert measured(scenario) == profile
    for other in ({"cluster": {"hardware": "h100"}}, {"layout": {"ep": 32}}, {"model": "qwen3-235b-a22b"}):
        assert measured({**scenario, **other}) is None
    named = {**scenario, "cluster": {"hardware": "h100"}, "workload": {"profile": "h800-train-measured"}}
    assert measured(named) == profile


# --- trace -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", RUNS)
def test_a_step_is_a_sound_trace_with_a_slice_for_each_operation(steps: dict[str, Any], run: str) -> None:
    trace = document(timelines.timeline(steps[run]))
    assert check_trace(encode(trace)) == []
    names = {
        (e["pid"], e["tid"]): e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"
    }
    on = [names[e["pid"], e["tid"]] for e in trace["traceEvents"] if e["ph"] == "X"]
    ranks = [rank for step in views(steps[run]) for rank in step.pipeline]
    assert on.count("operations") == sum(len(rank.kinds) for rank in ranks) + len(ranks)  # and the optimizers
    assert "compute" in on
    moved = [e for e in trace["traceEvents"] if e["ph"] == "b"]
    assert {names[e["pid"], e["tid"]] for e in moved} == {"communication"}
    assert {e["name"].partition("(")[0] for e in moved} == {"dispatch", "combine"}


# --- report ----------------------------------------------------------------------------------------------------------


def deep(result: dict[str, Any], num_ranks: int, times: int) -> dict[str, Any]:
    """The step with more pipeline ranks and operations than it has."""
    grown = deepcopy(result)
    line = grown["timeline"]
    ranks = []
    for number in range(num_ranks):
        one = line["pipeline"][number % 4]
        ends = [end + i * line["end_s"] for i in range(times) for end in one["end_s"]]
        starts = [start + i * line["end_s"] for i in range(times) for start in one["start_s"]]
        ranks.append(
            {
                "rank": number,
                "kinds": one["kinds"] * times,
                "microbatches": one["microbatches"] * times,
                "start_s": starts,
                "end_s": ends,
            }
        )
    line["pipeline"], line["optimizer_s"] = ranks, [line["optimizer_s"][0]] * num_ranks
    line["end_s"] *= times
    return grown


def test_ten_thousand_operations_make_a_page_below_six_megabytes(steps: dict[str, Any]) -> None:
    big = deep(steps["dualpipe"], 16, 40)
    assert 9_000 < sum(len(rank.kinds) for rank in views(big)[0].pipeline) <= 10_000
    text = report.report_html(big)
    assert "fig-timeline" in text
    assert len(text.encode()) < 6e6
    several = {**steps["variants"], "variants": dict.fromkeys(("a", "b", "c"), big)}
    text = report.report_html(several)
    assert len(text.encode()) < 6e6
    assert text.count('class="plot" id="fig-timeline') == 3  # those beyond ten thousand bars as rasters


def test_the_scenario_of_a_report_runs_again_to_the_same_metrics(
    steps: dict[str, Any], tmp_path: Path
) -> None:
    again = tmp_path / "again.yaml"
    again.write_text(scenario_yaml(views_of(steps["1f1b"])), encoding="utf-8")
    assert sim.run(again)["metrics"] == steps["1f1b"]["metrics"]


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(("run", "width", "dark"), [("1f1b", 390, False), ("variants", 1400, True)])
def test_a_report_of_a_step_is_drawn_in_a_browser(
    tab: browser.Tab, steps: dict[str, Any], tmp_path: Path, run: str, width: int, dark: bool
) -> None:
    path = tmp_path / "report.html"
    path.write_text(report.report_html(steps[run]), encoding="utf-8")
    tab.open(path, width=width, dark=dark)
    tab.run("for (const fold of document.querySelectorAll('details')) fold.open = true")
    tab.draw_all()
    drawn = tab.run(
        "[...document.querySelectorAll('.plot')].map(one => [one.id, !!one.querySelector('.main-svg')])"
    )
    assert all(has_svg for _, has_svg in drawn)
    assert {ident.split("-")[1] for ident, _ in drawn} >= {"phases", "timeline", "memory"}
    assert tab.errors == []
    assert tab.requests == []
    assert tab.run("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"


@pytest.mark.slow
@needs_browser
def test_thousands_of_operations_are_a_handful_of_shapes(
    tab: browser.Tab, steps: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(report.report_html(deep(steps["dualpipe"], 16, 13)), encoding="utf-8")
    tab.open(path)
    assert tab.run("document.querySelectorAll('#fig-timeline .scatterlayer path').length") < 20


# --- rows without a tolerance ----------------------------------------------------------------------------------------


def test_a_validation_row_without_a_tolerance_is_drawn_and_printed_with_a_dash() -> None:
    row = {
        "id": "opt_s", "quantity": "opt_s", "unit": "s", "published": 0.29, "simulated": 0.18, "error_fraction": -0.38,
        "tolerance_fraction": None, "use": "validation", "bar": None, "ok": True,
    }  # fmt: skip
    counted = row | {"id": "step_s", "tolerance_fraction": 0.05, "error_fraction": 0.01, "bar": "main"}
    group = {
        "ok": True,
        "mean_abs_error_fraction": 0.01,
        "worst_error_fraction": 0.01,
        "rows": [row, counted],
    }
    report_ = {"groups": {"training_step": group}}
    grid = validation_tables.group_grid(validation_view(report_).groups[0])
    assert grid.rows[0][5] == "-"
    assert grid.rows[0][-1] == ""
    assert plots.figure("validation", report_).data
    assert "1 figure (1 published)" in validation.finding(validation_view(report_))[0]
    bar = {
        "name": "main",
        "ok": True,
        "mean_abs_error_fraction": 0.0,
        "worst_error_fraction": 0.0,
        "mean_bar_fraction": 0.25,
    }
    report_["groups"]["tp16"] = {**group, "bars": [bar], "rows": [row]}
    view = validation_view(report_)
    assert validation_tables.summary_grid(view).rows[1][5:] == ("-", "-", "-", "-", "printed only")
    assert "The bar is met" in validation.finding(view)[0]


# --- whole runs ---------------------------------------------------------------------------------------------


def phased(result: dict[str, Any]) -> dict[str, Any]:
    """The same run as two phases, the second a ninth of the first."""
    found = deepcopy(result)
    for one in found["variants"].values():
        first = {**one["run"]["phases"][0], "name": "early"}
        keys = ("days", "gpu_hours", "cost_usd", "energy_kwh")
        late = {"name": "late", **{key: first[key] / 9 for key in keys if key in first}}
        one["run"]["phases"] = [first, late]
    return found


def test_phases_of_a_run_are_listed_and_drawn_with_their_shares(steps: dict[str, Any]) -> None:
    found = phased(steps["variants"])
    text = printed(found)
    assert "The run, phase by phase" in text
    assert re.search(r"h800 +late +- +- +given", text)
    assert "phase by phase" not in printed(steps["1f1b"])
    picture = plots.figure("whole_run", found)
    early, late = picture.data
    assert (early.name, late.name) == ("early", "late")
    assert late.x[0] == pytest.approx(early.x[0] / 9)
    assert "Early takes 90% of the cost in h800" in picture.layout.meta["title"]


def test_failures_are_told_with_what_they_leave(steps: dict[str, Any]) -> None:
    m, text = steps["dualpipe"]["metrics"], printed(steps["variants"])
    lost = next(one for one in finding(steps["variants"]) if one.startswith("Failures leave"))
    assert f"{m['ettr_fraction']:.1%} in h800" in lost
    row = next(
        line.split() for line in text.partition("What failures take")[2].splitlines() if " h800 " in line
    )
    shares = [float(cell.rstrip("%")) for cell in row if cell.endswith("%")]
    ettr, _, *parts = shares
    assert ettr + sum(parts) == pytest.approx(100, abs=0.4)


def test_the_energy_of_a_step_is_drawn_whole_by_where_it_goes(steps: dict[str, Any]) -> None:
    used = steps["dualpipe"]["metrics"]["energy"]
    figure = plots.figure("energy", steps["dualpipe"])
    joules = {"energy of a token [J]": 1.0, "energy of a token [mJ]": 1e-3}[figure.layout.xaxis.title.text]
    bars = {bar.name: bar.x[0] * joules for bar in figure.data}
    assert sum(bars.values()) == pytest.approx(used["per_token_j"])
    assert bars["GPUs, idle"] == pytest.approx(used["idle_kwh"] / used["total_kwh"] * used["per_token_j"])
    assert bars["building"] == pytest.approx(used["per_token_j"] * (1 - 1 / 1.2))


def test_what_failures_take_is_drawn_where_a_run_has_no_phases(steps: dict[str, Any]) -> None:
    """Training that counts and all that is lost are the whole time on the clock."""
    picture = plots.figure("whole_run", steps["variants"])
    counts = next(bar for bar in picture.data if bar.name == "training that counts")
    assert counts.x[0] == pytest.approx(100 * steps["dualpipe"]["metrics"]["ettr_fraction"], rel=1e-6)
    assert sum(bar.x[0] for bar in picture.data) == pytest.approx(100)
    with pytest.raises(InputError, match="none with failures"):
        plots.figure("whole_run", steps["1f1b"])
