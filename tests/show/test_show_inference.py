"""Prefill, decode and serving shown: tables that add up, sentences with numbers, figures that hold what was recorded."""

from __future__ import annotations

import io
import itertools
import re
from typing import Any

import pytest
from rich.console import Console

import sim
from results import REQUESTS
from sim.errors import InputError
from sim.show.files import timelines
from sim.show.files.trace import document, encode
from sim.show.plots import kinds as plots
from sim.show.plots.serving import quantiles
from sim.show.tables import console as tables
from sim.show.tables import inference
from sim.show.tables import run as grids
from sim.show.views.inference import PassView
from sim.show.views.run import views_of
from sim.show.views.serving import ServiceView
from sim.show.words import run as findings
from traces import check_trace


@pytest.fixture(scope="module")
def found(runs: dict[str, Any]) -> dict[str, Any]:
    """A decode, a prefill, decodes on four GPUs, a serving run, and two of them."""
    decodes = sim.run("inference-hardware", {"expect": {}})
    slow = {**runs["serving"], "metrics": {**runs["serving"]["metrics"], "goodput_requests_per_s": 1.0}}
    return {
        "decode": runs["decode"],
        "prefill": sim.run("prefill-hardware", {"variants": {}, "expect": {}}),
        "decodes": decodes,
        "serving": runs["serving"],
        "servings": {"name": "two", "variants": {"quick": runs["serving"], "slow": slow}},
    }


RUNS = ("decode", "prefill", "decodes", "serving", "servings")
PASSES = ("decode", "prefill", "decodes")


def finding(result: Any) -> list[str]:
    return findings.finding(views_of(result))


def passes(result: Any) -> tuple[PassView, ...]:
    return views_of(result).select(PassView)


def printed(result: Any) -> str:
    out = io.StringIO()
    tables.print_result(result, Console(file=out, width=110))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 110
    return text


# --- what a result adds up to ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", PASSES)
def test_the_parts_of_a_pass_make_its_time(found: dict[str, Any], run: str) -> None:
    documents = found[run].get("variants", {"": found[run]}).values()
    for view, one in zip(passes(found[run]), documents, strict=True):
        assert sum(one["where"].values()) == pytest.approx(view.step_time_s, rel=1e-9)
        assert sum(view.where.values()) == pytest.approx(view.step_time_s, rel=1e-6)


@pytest.mark.parametrize("run", PASSES)
def test_the_lower_bound_is_the_longest_of_its_classes(found: dict[str, Any], run: str) -> None:
    for view in passes(found[run]):
        longest_s = max(view.bounds.values())
        assert longest_s / view.accepted_tokens_per_step == pytest.approx(view.lower_bound_s)
        assert longest_s <= view.step_time_s


@pytest.mark.parametrize("run", PASSES)
def test_what_a_gpu_holds_fits(found: dict[str, Any], run: str) -> None:
    for view in passes(found[run]):
        assert sum(view.held.values()) <= view.metrics["memory_capacity_bytes"]


def test_a_row_of_shares_adds_up_to_the_pass(found: dict[str, Any]) -> None:
    grid = inference.where(passes(found["decode"]))
    shares = [float(row[2].rstrip("%")) for row in grid.rows[:-1]]
    assert sum(shares) == pytest.approx(100, abs=0.3)


# --- sentences and tables --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", RUNS)
def test_every_run_is_told_with_numbers_and_fits_a_terminal(found: dict[str, Any], run: str) -> None:
    said = finding(found[run])
    assert said
    assert all(any(char.isdigit() for char in one) for one in said)
    text = printed(found[run])
    assert "Metrics" not in text  # the long list is for workloads without tables of their own
    for words in " ".join(said).split():
        assert words in text


def test_a_decode_is_told_with_both_speeds_its_bound_and_what_memory_holds(found: dict[str, Any]) -> None:
    m = found["decode"]["metrics"]
    first, second = finding(found["decode"])
    for words in (
        f"{m['tokens_per_s_per_user']:.1f} tokens/s",
        f"{m['tokens_per_s_per_gpu']:,.0f}",
        f"{m['tpot_s'] / m['lower_bound_s']:.2f}x its lower bound",
        f"{m['exposed_comm_s'] / m['step_time_s']:.1%}",
    ):
        assert words in first
    assert f"{m['max_batch_per_gpu']} requests would fit" in second


@pytest.mark.slow
def test_an_odd_number_that_fits_is_told_beside_the_even_one_that_runs() -> None:
    """Two microbatches take half of the requests each; one takes them all."""
    settings = {"workload.requests_per_gpu": None, "expect": {}, "workload.context_tokens": 5160}
    halved = sim.run("v3-decode-ep144", settings)
    fit, run = (halved["metrics"][key] for key in ("max_batch_per_gpu", "requests_per_gpu"))
    assert (fit % 2, run) == (1, fit - 1)
    assert f"{run} of them run: an even number, half in each microbatch." in finding(halved)[1]
    whole = sim.run("v3-decode-ep144", {**settings, "workload.overlap": False})
    assert whole["metrics"]["requests_per_gpu"] == whole["metrics"]["max_batch_per_gpu"]
    assert "of them run" not in finding(whole)[1]


def test_exposed_communication_is_waits_and_what_kernels_hold_of_the_sms(found: dict[str, Any]) -> None:
    view = passes(found["decode"])[0]
    m, spent = view.metrics, view.where
    step_s = m["step_time_s"]
    assert spent["waits"] + spent["phases"] + spent.get("last_rank", 0.0) == pytest.approx(
        m["exposed_comm_s"], rel=0.02
    )
    said = finding(found["decode"])[0]
    assert f"exposed communication {m['exposed_comm_s'] / step_s:.1%}" in said
    assert f"waits for exchanges {spent['waits'] / step_s:.1%}" in said
    assert f"sends and receives on SMs {spent['phases'] / step_s:.1%}" in said
    title = plots.figure("timeline", found["decode"]).layout.meta["title"]
    assert re.match(r"In the first \d+% of a pass the compute stream computes \d+% of the time", title)
    shares = [int(one) for one in re.findall(r"(?:computes|records|exchanges) (\d+)%", title)]
    assert sum(shares) == pytest.approx(100, abs=1)


def test_variants_of_a_decode_are_told_against_the_first(found: dict[str, Any]) -> None:
    said = finding({key: value for key, value in found["decodes"].items() if key != "question"})
    metrics = {name: one["metrics"] for name, one in found["decodes"]["variants"].items()}
    ratio = metrics["h20"]["tpot_s"] / metrics["h800"]["tpot_s"]
    assert said[0] == (
        f"nvl72 is best for both: {metrics['nvl72']['tokens_per_s_per_gpu']:,.0f} tokens/s a GPU, "
        f"{metrics['nvl72']['tokens_per_s_per_user']:.1f} tokens/s a user."
    )
    assert said[1].startswith("h800 has a TPOT of")
    assert any(one.startswith("h20 takes") and f"{ratio:.2f}x as long" in one for one in said)


def test_a_serving_run_is_told_with_its_goodput_and_what_users_felt(found: dict[str, Any]) -> None:
    m = found["serving"]["metrics"]
    first = finding(found["serving"])[0]
    assert first.startswith(
        f"{m['good_fraction']:.0%} of {REQUESTS} requests meet a TTFT of 2 s and TPOT of 50 ms"
    )
    both = finding(found["servings"])
    assert any(one.startswith("In slow, ") and "1 a second" in one for one in both)


@pytest.mark.parametrize("run", ["decode", "serving"])
def test_sizes_and_objectives_stand_among_the_facts(found: dict[str, Any], run: str) -> None:
    facts = dict(views_of(found[run]).runs[0].facts)
    if run == "decode":
        assert facts["context tokens"] == "4,096"
        assert facts["requests a GPU"] == "64"
    else:
        assert facts["objectives"] == "TTFT 2 s and TPOT 50 ms"
        assert facts["prefill pool"] == "1 x EP 32"


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", PASSES)
def test_bars_of_phases_end_at_the_time_of_the_pass(found: dict[str, Any], run: str) -> None:
    figure = plots.figure("phases", found[run])
    views = passes(found[run])
    scale = 1e3 if max(view.step_time_s for view in views) < 1 else 1.0
    for i, view in enumerate(views):
        drawn = sum(trace.x[i] for trace in figure.data if trace.type == "bar")
        assert drawn == pytest.approx(view.step_time_s * scale, rel=1e-6)
    assert "time of a pass [" in figure.layout.xaxis.title.text
    marks = next(trace for trace in figure.data if trace.name == "lower bound")
    assert len(marks.x) == len(views)


@pytest.mark.parametrize("run", PASSES)
def test_bars_of_memory_end_at_what_a_gpu_holds(found: dict[str, Any], run: str) -> None:
    figure = plots.figure("memory", found[run])
    for i, view in enumerate(passes(found[run])):
        drawn = sum(trace.x[i] for trace in figure.data if trace.type == "bar")
        assert drawn * 1e9 == pytest.approx(sum(view.held.values()))


def test_a_title_names_the_first_the_quickest_and_the_slowest_of_many(found: dict[str, Any]) -> None:
    many = {**found["decodes"]["variants"], **{f"more-{i}": found["decode"] for i in range(3)}}
    title = plots.figure("phases", {"name": "many", "variants": many}).layout.meta["title"]
    assert [name for name in many if f" in {name} " in title] == ["h800", "h20", "nvl72"]


def test_variants_of_a_pass_share_a_figure_of_memory(found: dict[str, Any]) -> None:
    assert list(plots.figures("memory", found["decodes"])) == ["memory"]


def test_bars_of_a_request_end_at_its_mean_response(found: dict[str, Any]) -> None:
    figure = plots.figure("phases", found["serving"])
    drawn = sum(trace.x[0] for trace in figure.data)  # in seconds, or in ms where these are few
    mean_s = found["serving"]["metrics"]["response"]["mean_s"]
    assert drawn == pytest.approx(mean_s if mean_s >= 1 else 1e3 * mean_s, rel=1e-6)


def test_curves_of_latency_cross_the_objective_at_the_share_that_met_it(found: dict[str, Any]) -> None:
    figure = plots.figure("latencies", found["serving"])
    rows = found["serving"]["requests"]
    ttft = [f - a for a, f in zip(rows["arrival_s"], rows["first_token_s"], strict=True)]
    curve = next(trace for trace in figure.data if trace.xaxis == "x" and trace.name != "objective")
    scale = 1.0 if max(ttft) >= 1 else 1e3
    assert sorted(ttft) == pytest.approx([x / scale for x in curve.x])
    assert list(curve.y) == pytest.approx([100 * (i + 1) / REQUESTS for i in range(REQUESTS)])
    limit = views_of(found["serving"]).select(ServiceView)[0].objectives["ttft"]
    assert f"TTFT: {sum(one <= limit for one in ttft) / REQUESTS:.0%}" in figure.layout.title.text


@pytest.mark.slow
def test_classes_have_a_row_a_curve_and_a_share_in_the_words() -> None:
    lengths = {"prompt": {"kind": "exponential", "mean": 900}, "output": {"kind": "exponential", "mean": 60}}
    result = sim.run(
        "serving-example",
        {
            "variants": {},
            "expect": {},
            "workload.arrivals": {"kind": "poisson", "requests_per_s": 8, "requests": REQUESTS, **lengths},
            "workload.classes": {"short": {"most_prompt_tokens": 600}, "long": {"slo": {"ttft": "9 s"}}},
        },
    )
    classes = result["metrics"]["classes"]
    grid = next(
        grid for grid in grids.grids(views_of(result), wide=True) if grid.title == "Classes of requests"
    )
    assert [row[0] for row in grid.rows] == ["short", "long"]
    assert [row[1] for row in grid.rows] == [str(own["num_ended"]) for own in classes.values()]
    curves = [trace for trace in plots.figure("latencies", result).data if trace.xaxis == "x"]
    drawn = {trace.name: len(trace.x) for trace in curves if trace.name != "objective"}
    assert drawn == {name: own["num_ended"] for name, own in classes.items()}
    assert sorted(trace.x[0] for trace in curves if trace.name == "objective") == [
        2e3,
        9e3,
    ]  # of all, and of the long
    shares = {name: f"{own['good_fraction']:.0%} of {name}" for name, own in classes.items()}
    assert any(all(share in sentence for share in shares.values()) for sentence in finding(result))


def test_many_requests_make_a_short_curve_that_ends_at_the_last() -> None:
    times = [float(i) for i in range(1, 10_001)]
    kept = quantiles(times)
    assert len(kept) == 200
    assert kept[-1] == 10_000
    assert all(a < b for a, b in itertools.pairwise(kept))
    assert kept[99] == 5_000  # half of all are at least as quick


def test_queues_hold_every_request_that_is_in_the_system(found: dict[str, Any]) -> None:
    figure = plots.figure("queues", found["serving"])
    drawn = {trace.name: list(trace.y) for trace in figure.data}
    assert drawn["decode"] == found["serving"]["timeline"]["decoding"]
    assert figure.layout.yaxis.title.text == "requests"


@pytest.mark.parametrize("kind", ["queues", "latencies"])
def test_what_serves_nobody_has_no_queues(found: dict[str, Any], kind: str) -> None:
    with pytest.raises(InputError, match="served no requests"):
        plots.figure(kind, found["decode"])


def test_equal_points_of_interactivity_share_their_name(found: dict[str, Any]) -> None:
    figure = plots.figure("interactivity", found["decodes"])
    assert "h100, h800" in figure.data[-1].text


# --- trace -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", RUNS)
def test_passes_and_requests_are_sound_traces(found: dict[str, Any], run: str) -> None:
    trace = document(timelines.timeline(found[run]))
    assert check_trace(encode(trace)) == []
    begun = [event for event in trace["traceEvents"] if event["ph"] == "b"]
    assert begun
    if run == "serving":
        rows = found[run]["requests"]
        decoded = sum(
            end is not None and start is not None and end > start
            for start, end in zip(rows["decode_start_s"], rows["end_s"], strict=True)
        )
        assert sum(event["name"] == "decode" for event in begun) == decoded
        counters = {event["name"] for event in trace["traceEvents"] if event["ph"] == "C"}
        assert {"prefill queue", "decoding"} <= counters


def test_the_table_of_a_pass_keeps_its_bound_and_what_sets_it(found: dict[str, Any]) -> None:
    grid = next(one for one in grids.grids(views_of(found["decodes"])) if one.title.startswith("The pass"))
    column = grid.heads.index("set by")
    assert {row[column] for row in grid.rows} <= {"links", "HBM", "compute"}
