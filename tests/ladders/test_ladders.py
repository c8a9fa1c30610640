"""Ladders of design choices: how a file is read, what the three readings and the gap mean, and what shipped ones find."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import pytest

import shared
import sim
from command import Moesim
from laddering import DECODE, SMALL, run, rung
from sim import documents
from sim.documents import shipped
from sim.errors import InfeasibleError, InputError
from sim.ladders import run as ladders
from sim.ladders.break_even import break_even
from sim.ladders.designs import gap
from sim.ladders.enough import search
from sim.ladders.removals import Removal, effect, removals
from sim.ladders.spec import ladder_of
from sim.metrics import more_is_better
from sim.runs.run import run_document
from sim.show.plots import kinds as plots
from sim.show.tables import ladder as ladder_grids
from sim.show.views.ladder import ladder_view
from sim.show.words import ladder as words

pytestmark = pytest.mark.xdist_group("ladders")


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    return run(SMALL)


# --- arithmetic -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.1])
def test_a_time_that_falls_as_the_link_grows_needs_the_link_of_theory(fraction: float) -> None:
    """t = max(1, B0/B): within a fraction of 1 from B0 / (1 + fraction) on."""
    for needed_rate in (8.0, 40.0, 700.0):
        found = search(lambda rate, b=needed_rate: max(1.0, b / rate), 50.0, [fraction])
        assert found.needed[0].value == pytest.approx(needed_rate / (1 + fraction), rel=0.011)
        assert found.needed[0].value >= needed_rate / (1 + fraction)
        assert found.monotone


def test_a_time_that_nothing_hides_needs_the_inverse_of_the_fraction() -> None:
    """t = 1 + b/B: within f of its limit from B = b/f on, up to what is left at a thousand times the rate."""
    found = search(lambda rate: 1 + 20.0 / rate, 50.0, [0.01, 0.05, 0.1])
    unlimited = 1 + 20.0 / 50_000
    for need in found.needed:
        assert need.value == pytest.approx(20.0 / (unlimited * (1 + need.within_fraction) - 1), rel=0.011)


@pytest.mark.parametrize("crossing", [8.0, 61.0, 390.0])
def test_a_search_takes_few_runs_whatever_the_curve(crossing: float) -> None:
    """Eight on the grid, and at most seven halvings of a doubling to a hundredth for each of three thresholds."""
    for cost in (
        lambda rate: max(1.0, crossing / rate),
        lambda rate: 1.0 if rate >= crossing else 2.0,
        lambda rate: 1.0 if rate >= crossing else 1 + (crossing / rate) ** 9,
    ):
        tried: list[float] = []
        search(lambda rate, f=cost, seen=tried: (seen.append(rate), f(rate))[1], 50.0, [0.01, 0.05, 0.1])
        assert len(tried) <= 8 + 3 * 7


def test_a_link_that_nothing_waits_for_is_enough_at_the_least_that_is_tried() -> None:
    found = search(lambda rate: 1.0, 8.0, [0.01])
    assert found.needed[0].at_most
    assert found.needed[0].value == 1.0


def test_what_does_not_run_below_a_size_is_not_enough_there() -> None:
    found = search(lambda size: 1.0 if size >= 75.0 else math.inf, 80.0, [0.05])
    assert found.needed[0].value == pytest.approx(75.0, rel=0.011)
    assert found.monotone


def test_a_curve_that_rises_again_is_told_and_its_last_crossing_counts() -> None:
    found = search(lambda rate: 1.0 if rate < 20 or rate > 100 else 2.0, 50.0, [0.05])
    assert not found.monotone
    assert found.needed[0].value == pytest.approx(100.0, rel=0.011)


def test_machines_break_even_where_the_gap_falls_below_the_mark() -> None:
    found = break_even([8, 16, 32, 64], [1.2, 0.51, 0.01, 0.0], 0.01)
    assert found["at"] == [32, 64]
    assert found["crossings"] == [pytest.approx(32.0)]
    assert break_even([4, 8], [0.0, 0.04], 0.01)["crossings"] == [pytest.approx(5.0)]
    assert break_even([4, 8], [-0.5, -0.6], 0.01) == {"at": [4, 8], "crossings": []}


def test_the_name_of_a_metric_says_whether_more_is_better() -> None:
    more = (
        "tokens_per_s_per_gpu",
        "tokens_per_day",
        "dispatch.logical_rdma_bytes_per_s",
        "mfu_causal_fraction",
    )
    less = (
        "step_time_s",
        "dispatch.time_s",
        "memory_peak_bytes",
        "run_cost_usd",
        "run_energy_kwh",
        "dispatch.nodes_per_token",
    )
    assert [more_is_better(name) for name in more] == [True] * 4
    assert [more_is_better(name) for name in less] == [False] * 6
    assert more_is_better("dispatch.binding") is None


# --- what a ladder means --------------------------------------------------------------------------------------------


def test_the_document_has_the_promised_keys(small: dict[str, Any]) -> None:
    assert small["schema"] == "moesim.ladder/1"
    assert [one["name"] for one in small["rungs"]] == ["naive", "per-rank", "two-hop", "fp8"]
    for one in small["rungs"]:
        for way in ("cumulative", "added_first", "removed_last"):
            assert list(one[way]) == ["h800", "h100", "h800-450"]
            assert one[way]["h800"]["dispatch"]["time_s"] == one["values"][way]["h800"]
    assert json.loads(json.dumps(small, allow_nan=False)) == small


def test_cumulative_added_first_and_removed_last_are_the_designs_they_say(small: dict[str, Any]) -> None:
    base = SMALL.partition("base: &base\n")[2].partition("\nset:")[0].replace("\n  ", "\n").removeprefix("  ")

    def time_s(kernel: str, dtype: str) -> float:
        text = f"name: one\n{base}".replace("{kind: two_hop}", kernel)
        document = documents.loads(
            text.replace("kind: all_to_all", f"kind: all_to_all\n  dispatch_dtype: {dtype}"), "one"
        )
        return float(run_document(document)["metrics"]["dispatch"]["time_s"])

    expert, rank, hops = (
        "{kind: flat, copies: per_expert}", "{kind: flat, copies: per_rank}", "{kind: two_hop}",
    )  # fmt: skip
    wanted = {
        "naive": ((expert, "bf16"), (expert, "bf16"), (hops, "fp8")),
        "per-rank": ((rank, "bf16"), (rank, "bf16"), (expert, "fp8")),
        "two-hop": ((hops, "bf16"), (hops, "bf16"), (rank, "fp8")),
        "fp8": ((hops, "fp8"), (expert, "fp8"), (hops, "bf16")),
    }
    for name, designs in wanted.items():
        for way, design in zip(ladders.WAYS, designs, strict=True):
            assert rung(small, name)["values"][way]["h800"] == time_s(*design), (name, way)


def test_the_gap_is_what_the_reference_takes_over_the_other(small: dict[str, Any]) -> None:
    for one in small["rungs"]:
        times = one["values"]["cumulative"]
        assert one["gap_fraction"] == pytest.approx(times["h800"] / times["h100"] - 1, abs=1e-11)
    assert rung(small, "naive")["gap_fraction"] == pytest.approx(0, abs=1e-3)  # the NIC binds both
    assert rung(small, "fp8")["gap_fraction"] > 0.4  # then NVLink binds the H800


def test_a_gap_in_a_rate_is_told_of_the_time_that_it_leaves() -> None:
    text = SMALL.partition("enough:")[0].replace(
        "metric: dispatch.time_s", "metric: dispatch.logical_rdma_bytes_per_s"
    )
    by_rate = run(text)
    one = rung(by_rate, "fp8")["values"]["cumulative"]
    assert one["h100"] > one["h800"]
    assert rung(by_rate, "fp8")["gap_fraction"] == pytest.approx(one["h100"] / one["h800"] - 1, rel=1e-9)


def test_machines_that_take_nothing_are_equal_and_a_gap_over_nothing_is_none() -> None:
    assert gap(0.0, 0.0, False) == gap(0.0, 0.0, True) == 0.0
    assert gap(1.0, 0.0, False) is gap(1.0, 0.0, True) is gap(0.0, 1.0, True) is None
    assert gap(0.0, 1.0, False) == -1.0
    nothing = run(
        SMALL.partition("enough:")[0].replace("dispatch.time_s", "dispatch.wire_nic_bytes")
        + "curves: {ep: {title: EP, points: {8: {cluster.nodes: 1}, 16: {}}}}\n"
    )
    assert nothing["curves"]["ep"]["points"][0]["gaps"] == {"h100": 0.0, "h800-450": 0.0}


def test_an_h800_with_an_h100s_nvlink_has_no_gap_to_it_on_any_rung(small: dict[str, Any]) -> None:
    for one in small["rungs"]:
        assert one["cumulative"]["h800-450"] == one["cumulative"]["h100"]


def test_a_removal_tells_which_other_choices_go_with_it(small: dict[str, Any]) -> None:
    """Without one copy a rank the kernel is flat per expert again: the second hop goes too."""
    assert rung(small, "per-rank")["takes_along"] == ["two-hop"]
    for name in ("naive", "two-hop", "fp8"):
        assert rung(small, name)["takes_along"] == []
    assert all(one["alters"] == [] for one in small["rungs"])


@pytest.mark.parametrize(
    ("removed", "values", "without", "takes_along", "alters"),
    [
        ("b", [0, 1, 2, 2], 1, (), ()),  # what was there before
        ("a", [0, 1, 2, 2], 0, ("b",), ()),  # as if neither had been
        ("a", [0, 1, 2, 2], 2, (), ()),  # b stands
        ("a", [0, 1, 2, 2], 7, (), ("b",)),  # something else in b's place
        ("b", [0, 1, 2, 2], 7, (), ()),  # something else in its own
        ("c", [0, 1, 2, 1], 0, ("a", "b"), ()),
        ("a", [0, 0, 0, 0], 7, (), ()),  # what no choice moves
        ("a", [None, 1, 2, 2], None, ("b",), ()),  # a key that the naive design does not have
    ],
)
def test_a_removal_takes_along_the_choices_that_moved_a_key_since(
    removed: str,
    values: list[int | None],
    without: int | None,
    takes_along: tuple[str, ...],
    alters: tuple[str, ...],
) -> None:
    key = ("workload", "key")
    designs = [{} if value is None else {key: value} for value in values]
    found = effect(removed, ["a", "b", "c"], designs, {} if without is None else {key: without})
    assert (found.takes_along, found.alters) == (takes_along, alters)


def test_a_key_below_a_model_stays_set_when_the_model_is_taken_out() -> None:
    text = SMALL.partition("rungs:")[0].replace("set:\n", "set:\n  model: v3-coarse\n")
    text += "rungs:\n  fine: {set: {model: deepseek-v3}}\n  six: {set: {model.top_k: 6}}\n"
    ladder = ladder_of(documents.loads(text, "small.yaml"))
    assert ladder.design_without("fine").get(("model", "top_k")) == 6
    assert removals(ladder) == {"fine": Removal((), ()), "six": Removal((), ())}


def test_equal_designs_run_once() -> None:
    found = run(SMALL.partition("enough:")[0])
    # Of 3 x 4 readings six designs differ: each of three kernels in each of two formats.
    assert found["provenance"]["runs"] == 6 * 3


def test_metrics_may_be_added() -> None:
    both = run(
        SMALL.partition("enough:")[0].replace(
            "metric: dispatch.time_s", "metric: dispatch.time_s + combine.time_s"
        )
    )
    one = rung(both, "fp8")
    parts = one["cumulative"]["h800"]
    assert one["values"]["cumulative"]["h800"] == parts["dispatch"]["time_s"] + parts["combine"]["time_s"]


def test_enough_of_a_link_brings_a_run_within_its_mark(small: dict[str, Any]) -> None:
    found = small["enough"]["nvlink"]
    assert found["monotone"]
    by_rate = {point["value"]: point["metric"] for point in found["points"]}
    best = found["unlimited"]["metric"]
    rates = [need["value"] for need in found["needed"]]
    assert rates == sorted(rates, reverse=True)
    for need in found["needed"]:
        assert by_rate[need["value"]] <= best * (1 + need["within_fraction"])
        below = max(rate for rate in by_rate if rate < need["value"])
        assert by_rate[below] > best * (1 + need["within_fraction"])
        assert need["value"] / below < 1.01
    assert 200e9 < rates[-1] < 450e9  # at EP16 the H800 has too little, the H100 enough


def test_curves_break_even_where_the_nic_begins_to_bind(small: dict[str, Any]) -> None:
    found = small["curves"]["ep"]
    assert [point["value"] for point in found["points"]] == [8, 16, 32]
    assert found["break_even"]["h100"]["at"] == [32]
    assert 16 < found["break_even"]["h100"]["crossings"][0] < 32
    assert small["curves"]["tokens"]["points"][1]["values"] == rung(small, "fp8")["values"]["cumulative"]


def test_export_rules_stand_beside_every_machine_hypothetical_ones_too(small: dict[str, Any]) -> None:
    def verdict(name: str) -> bool:
        rules = {
            one["rule"]: one for one in small["hardware"][name]["provenance"]["export_rules"]["verdicts"]
        }
        assert rules["R2022"]["citation"] == "87 FR 62186"
        return bool(rules["R2022"]["holds"])

    assert [verdict(name) for name in ("h800", "h100", "h800-450")] == [False, True, True]
    part = small["hardware"]["h800-450"]["provenance"]["hardware"]
    assert part["overrides"] == {"gpu.scale_up.bandwidth": "450 GB/s"}
    assert "not legal advice" in small["hardware"]["h800"]["provenance"]["export_rules"]["note"]


def test_a_design_that_does_not_fit_keeps_its_reason_and_the_others_run() -> None:
    found = run(DECODE)
    bad, good = rung(found, "too-many"), rung(found, "some")
    assert bad["cumulative"] == {"h800": None, "dear": None}
    assert bad["gap_fraction"] is None
    assert "400 requests of 4096 tokens a GPU need" in bad["reasons"]["cumulative"]["h800"]
    assert good["values"]["cumulative"]["h800"] > found["rungs"][0]["values"]["cumulative"]["h800"]
    assert any(
        "does not fit" in cell for row in ladder_grids.rung_grid(ladder_view(found)).rows for cell in row
    )
    assert len(ladder_grids.refusal_grid(ladder_view(found)).rows) > 0
    assert plots.figure("ladder", found).data


def test_a_ladder_of_which_nothing_fits_says_why() -> None:
    text = DECODE.replace(": 20}", ": 500}").replace(": 120}", ": 600}")
    with pytest.raises(InfeasibleError, match=r"no design of ladder batch fits.*500 requests"):
        run(text)


def test_a_token_costs_the_hour_over_what_is_made_in_it() -> None:
    found = run(DECODE)
    for name, price in (("h800", 2.0), ("dear", 4.0)):
        rate = rung(found, "some")["values"]["cumulative"][name]
        assert found["hardware"][name]["usd_per_million_tokens"]["full"] == pytest.approx(
            price / (3600 * rate) * 1e6
        )
    row = next(row for row in ladder_grids.price_grid(ladder_view(found)).rows if row[0] == "dear")
    assert float(row[-1]) == pytest.approx(2.0, rel=0.02)  # as fast as the H800, so worth as much


def test_rungs_that_change_nothing_are_warned_about_with_their_place() -> None:
    text = (
        SMALL.partition("enough:")[0]
        + "  again: {set: {workload.dispatch_dtype: fp8}}\n  idle: {set: {workload.combine_dtype: fp8}}\n"
    )
    said = run(text)["warnings"]
    assert any(re.search(r"small.yaml:\d+:\d+: rung again changes nothing", one) for one in said)
    assert any("rung idle moves dispatch.time_s nowhere" in one for one in said)
    assert any("rung fp8 changes nothing when it is removed last" in one and "without" in one for one in said)
    assert run(SMALL.partition("enough:")[0])["warnings"] == []


def test_a_key_below_a_named_model_changes_that_model() -> None:
    narrow, wide = (
        sim.run("deepep-ep16-h800", settings=("expect={}", "workload.tokens_per_rank=64", f"model.top_k={k}"))
        for k in (4, 8)
    )
    assert narrow["scenario"]["model"]["top_k"] == 4
    assert narrow["scenario"]["model"]["hidden"] == 7168
    assert narrow["metrics"]["dispatch"]["ranks_per_token"] < wide["metrics"]["dispatch"]["ranks_per_token"]
    assert (
        wide["metrics"]
        == sim.run("deepep-ep16-h800", settings=("expect={}", "workload.tokens_per_rank=64"))["metrics"]
    )


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("workload.dispatch_dtype: fp8", "workload.dispatch_dtyp: fp8", "28:15: workload.dispatch_dtyp", ["unknown key", "did you mean dispatch_dtype"]),
        ("workload.dispatch_dtype: fp8", "workload.dispatch_dtype: fp7", "28:15: workload.dispatch_dtype", ["'fp7'", "fp8, bf16"]),
        ("cluster.hardware: h100", "cluster.hardware: h10", "16:10: ", ["'h10'", "did you mean h100"]),
        ("metric: dispatch.time_s", "metric: dispatch.time", "18:9: metric", ["a time, a size, a cost or a rate"]),
        ("metric: dispatch.time_s", "metric: dispatc.time_s", "18:9: metric", ["'dispatc.time_s'", "did you mean dispatch.time_s"]),
        ("metric: dispatch.time_s", "metric: dispatch.time_s\nbeside: [combine.time_s, dispatch.tim_s]", "19:26: beside.1", ["'dispatch.tim_s'", "did you mean dispatch.time_s"]),
        ("metric: dispatch.time_s", "metric: dispatch.time_s + dispatch.logical_rdma_bytes_per_s", "18:9: metric", ["metrics of one kind"]),
        ("works_around: the NIC", "work_around: the NIC", "23:5: rungs.per-rank.work_around", ["did you mean works_around"]),
        ("  per-rank:\n", "  naive:\n", "20:3: rungs.naive", ["another name"]),
        ("naive: true, hardware: h100", "naive: true, hardware: h200", "31:54: enough.naive.hardware", ["'h200'", "did you mean h800"]),
        ("key: nic.bandwidth", "key: nic.bandwith", "31:16: enough.naive.key", ["did you mean nic.bandwidth"]),
        ("key: nic.bandwidth", "key: gpu.scale_up.latency", "31:16: enough.naive.key", ["a rate or a size"]),
        ("within: [10 %]", "within: [0 %]", "31:68: enough.naive.within", ["above 0"]),
        ("key: workload.tokens_per_rank, points", "points", "34:20: curves.tokens.points", ["the key that they set"]),
        ("points: [64, 2048]", "points: [64, many]", "34:51: curves.tokens.points", ["'many'", "numbers"]),
        ("{key: workload.tokens_per_rank, points: [64, 2048]}", "{key: workload.tokens, points: [64, 2048]}", "workload.tokens", ["did you mean tokens_per_rank"]),
    ],
)  # fmt: skip
def test_a_problem_names_its_place_in_the_ladder_and_what_was_meant(
    old: str, new: str, place: str, words: list[str]
) -> None:
    assert old in SMALL
    with pytest.raises(InputError) as error:
        run(SMALL.replace(old, new, 1))
    [problem] = error.value.problems
    assert str(problem).startswith("small.yaml:")
    assert place in str(problem)
    for word in words:
        assert word in str(problem)


def test_all_problems_of_a_ladder_are_told_together_each_once() -> None:
    text = SMALL.replace("dispatch_dtype: bf16", "dispatch_type: bf16").replace(
        "{cluster.nodes: 1}", "{cluster.node: 1}"
    )
    with pytest.raises(InputError) as error:
        run(text)
    assert sorted(problem.key for problem in error.value.problems) == [
        "cluster.node",
        "workload.dispatch_type",
    ]


def test_a_base_with_variants_is_refused_and_expectations_of_a_base_are_left_out() -> None:
    text = SMALL[SMALL.index("\nhardware:") : SMALL.index("enough:")]
    with pytest.raises(InputError, match="a scenario with variants"):
        run(f"name: small\nbase: h800-vs-h100\n{text}")
    found = run(f"name: small\nbase: deepep-ep16-h800\nset: {{workload.tokens_per_rank: 64}}\n{text}")
    assert rung(found, "naive")["values"]["cumulative"]["h800"] > 0


def test_an_unknown_ladder_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean v3-training"):
        sim.ladder("v3-trainin")


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_prints_one_document_and_writes_it_with_a_report(moesim: Moesim, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    said = moesim("ladder", "small.yaml", "--json")
    assert said.code == 0
    assert json.loads((tmp_path / "results" / "small" / "ladder.json").read_text()) == said.json
    assert (tmp_path / "results" / "small" / "report.html").stat().st_size > 10_000
    shown = moesim("ladder", "small.yaml", "--out", "elsewhere")
    assert shown.out == ""
    for part in (
        "Two hops",
        "gap before",
        "removed last",
        "How much is enough",
        "87 FR 62186",
        "not legal advice",
        "elsewhere/ladder.json",
    ):
        assert part in " ".join(shown.err.split())
    assert json.loads((tmp_path / "elsewhere" / "ladder.json").read_text()) == said.json
    drawn = moesim("plot", "results/small", "--kind", "enough")
    assert [Path(line).name for line in drawn.out.split()] == ["enough-nvlink.html", "enough-naive.html"]
    refused = moesim("plot", "results/small", "--kind", "bars")
    assert refused.code == 2
    assert "can be drawn as ladder, choices, enough, break_even" in refused.err


def test_a_bad_ladder_exits_with_2_and_writes_nothing(moesim: Moesim, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(
        SMALL.replace("workload.dispatch_dtype: fp8", "workload.dispatch_dtyp: fp8")
    )
    for command in ("ladder", "check"):
        said = moesim(command, "small.yaml")
        assert said.code == 2
        assert "small.yaml:28:15: workload.dispatch_dtyp" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def test_check_and_schema_know_ladders(moesim: Moesim, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    said = moesim("check", "small.yaml", "v3-small-ep")
    assert said.code == 0
    assert said.err.count("a valid ladder") == 2
    schema = moesim("schema", "ladder").json
    assert {"base", "set", "hardware", "metric", "rungs", "enough", "curves"} <= set(schema["properties"])


# --- shipped ladders ------------------------------------------------------------------------------------------------

NAMES = list(shipped("scenarios/ladders"))


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_ladder_says_what_it_asks_and_expects(name: str) -> None:
    lines = shipped("scenarios/ladders")[name].read_text().splitlines()
    (expects,) = (line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("#"), lines))
    assert documents.load(shipped("scenarios/ladders")[name]).tree["question"]["ask"].endswith("?")
    assert expects.startswith("Expects: ")
    assert expects.endswith(".")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name == "restriction-exchange" else ()) for name in NAMES],
)
def test_a_shipped_ladder_resolves_under_its_own_name_and_says_what_each_rung_works_around(name: str) -> None:
    ladder = ladders.read(name)
    assert ladder.spec.name == name
    assert all(one.title and one.works_around for one in ladder.spec.rungs.values())
    ladders.check(name)


def missed(document: dict[str, Any], name: str) -> float:
    """How much more the full design takes on an H800 without a choice, less one."""
    view, names = ladder_view(document), [one["name"] for one in document["rungs"]]
    change = view.rungs[names.index(name)].removed["h800"].change
    assert change is not None
    return view.metric.cost(change)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choice", "published_ms"),
    [("per-rank", 27.9), ("two-hop", 26.1), ("group-limit", 18.4), ("fp8-dispatch", 18.2), ("naive", 13.8)],
)
def test_exchanges_of_a_layer_without_one_choice_are_those_of_the_closed_form(
    choice: str, published_ms: float
) -> None:
    """2 dispatch + 2 combine at EP64, 45 GB/s of NIC and 135 of NVLink: flat per expert, flat per rank, no limit, BF16, full."""
    metrics = rung(shared.ladder("v3-training"), choice)["removed_last"]["h800"]
    assert metrics["layer_comm_alone_s"] == pytest.approx(published_ms * 1e-3, rel=0.10)


@pytest.mark.slow
def test_without_overlap_the_exchanges_add_half_of_a_layer_and_a_third_where_their_sms_compute() -> None:
    full = rung(shared.ladder("v3-training"), "overlap")["cumulative"]["h800"]
    assert full["layer_time_s"] == pytest.approx(31.5e-3, rel=0.02)
    assert 0.43 <= full["layer_time_exposed_s"] / full["layer_time_s"] - 1 <= 0.65
    # All 132 SMs compute while nothing moves: 12 % of compute comes back.
    assert 0.28 <= full["layer_time_serial_s"] / full["layer_time_s"] - 1 <= 0.40


@pytest.mark.slow
def test_five_choices_nearly_halve_the_training_step_on_both_and_leave_a_gap_below_a_percent() -> None:
    ladder = shared.ladder("v3-training")
    assert rung(ladder, "naive")["values"]["cumulative"]["h800"] == pytest.approx(34, rel=0.03)
    assert rung(ladder, "overlap")["values"]["cumulative"]["h800"] == pytest.approx(18.5, rel=0.02)
    assert all(0 <= one["gap_fraction"] < 0.01 for one in ladder["rungs"])
    for one in ladder["rungs"][1:]:
        assert missed(ladder, one["name"]) > 0.01
    nvlink, nic = (ladder["enough"][name]["needed"][0]["value"] for name in ("nvlink", "nic"))
    assert nvlink < 200e9 * 0.67  # a third of the cut NVLink is spare
    assert nic > 50e9
    assert ladder["warnings"] == []


@pytest.mark.slow
def test_within_one_and_two_nodes_the_ratio_of_nvlink_shows_and_elsewhere_it_does_not() -> None:
    ladder = shared.ladder("v3-small-ep")
    ratio = {point["value"]: 1 + point["gaps"]["h100"] for point in ladder["curves"]["ep"]["points"]}
    assert ratio[8] == pytest.approx(450 / 200, rel=0.05)
    assert ratio[16] == pytest.approx(1.5, abs=0.1)
    for ep in (32, 64, 128):
        assert ratio[ep] == pytest.approx(1, abs=0.005)
    assert rung(ladder, "naive")["gap_fraction"] == pytest.approx(0, abs=1e-3)
    assert rung(ladder, "one-node")["gap_fraction"] == pytest.approx(1.2, abs=0.05)


@pytest.mark.slow
def test_nvlink_binds_an_h800_from_fourteen_experts_on_four_nodes_and_an_h100_never() -> None:
    """V3 report, section 3.2.2: 13 experts at the cost of 8 (160 / 50 = 3.2 on each of 4 nodes)."""
    curve = shared.ladder("v3-small-ep")["curves"]["top-k"]
    binding = {
        on: {p["value"]: p["metrics"][on]["dispatch"]["binding"] for p in curve["points"]}
        for on in ("h800", "h100")
    }
    assert [k for k, name in binding["h800"].items() if name == "scale_up"] == [14, 16, 20, 24, 32]
    assert "scale_up" not in binding["h100"].values()
    assert curve["break_even"]["h100"]["crossings"][0] == pytest.approx(13.7, abs=0.4)


@pytest.mark.slow
def test_fewer_than_three_nodes_a_token_help_an_h100_and_hardly_an_h800() -> None:
    """Group-limit table: ratios 1.87, 1.13 and 1.00 at one, two, and three or more groups."""
    curve = shared.ladder("v3-small-ep")["curves"]["groups"]
    ratio = {point["value"]: 1 + point["gaps"]["h100"] for point in curve["points"]}
    assert ratio[1] == pytest.approx(1.87, rel=0.05)
    assert ratio[2] == pytest.approx(1.13, rel=0.03)
    assert all(ratio[groups] == pytest.approx(1, abs=0.005) for groups in range(3, 9))


@pytest.mark.slow
def test_attention_and_experts_apart_pay_between_one_and_twelve_nodes_of_attention_for_one_of_experts() -> (
    None
):
    """With few experts memory bounds the rows of each; beyond, attention waits for experts that all nodes send to."""
    ladder = shared.ladder("afd-h800-h20")
    rates = {one["name"]: one["values"]["cumulative"] for one in ladder["rungs"]}
    assert rates["naive"]["h20-h800"] < 0.7 * rates["naive"]["h20"]
    assert rates["attention"]["h20-h800"] > 1.15 * max(rates["attention"]["h20"], rates["attention"]["h800"])
    assert rates["network"]["h20-h800"] == pytest.approx(rates["attention"]["h20-h800"], rel=0.01)
    points = {point["value"]: point for point in ladder["curves"]["nodes"]["points"]}
    better = [
        num
        for num, point in points.items()
        if point["values"]["h20-h800"] > max(point["values"]["h20"], point["values"]["h800"])
    ]
    assert better == [2, 3, 4, 5, 6, 8]
    idle = {num: point["metrics"]["h20-h800"]["idle_fraction"] for num, point in points.items()}
    assert idle[4]["attention"] < 0.02 < 0.3 < idle[12]["attention"]
    assert idle[12]["experts"] < idle[1]["experts"] / 2


@pytest.mark.slow
def test_attention_without_tp_closes_the_gap_of_prefill() -> None:
    ladder = shared.ladder("v3-prefill")
    assert rung(ladder, "naive")["gap_fraction"] == pytest.approx(0.24, abs=0.02)
    assert rung(ladder, "data-parallel")["gap_fraction"] == pytest.approx(0, abs=0.005)
    assert rung(ladder, "data-parallel")["gaps"]["h100"]["removed_last"] == pytest.approx(0.49, abs=0.03)
    gains = {
        b["name"]: b["values"]["cumulative"]["h800"] / a["values"]["cumulative"]["h800"]
        for a, b in pairwise(ladder["rungs"])
    }
    assert gains["two-hop"] == pytest.approx(1.50, abs=0.05)
    assert gains["overlap"] == pytest.approx(1.38, abs=0.05)
    assert (
        rung(ladder, "overlap")["values"]["cumulative"]["h20"]
        < rung(ladder, "fp8-dispatch")["values"]["cumulative"]["h20"]
    )


@pytest.mark.slow
def test_caches_and_large_ep_count_most_for_decode() -> None:
    ladder = shared.ladder("v3-decode")
    costs = {one["name"]: missed(ladder, one["name"]) for one in ladder["rungs"][1:]}
    assert sorted(costs, key=lambda name: -costs[name])[:4] == ["large-ep", "mla", "replicas", "overlap"]
    assert all(abs(one["gap_fraction"]) < 0.05 for one in ladder["rungs"])
    assert all(abs(one["gap_fraction"]) < 0.001 for one in ladder["rungs"][2:])


@pytest.mark.slow
def test_wider_ep_decodes_faster_at_a_replica_a_gpu_as_under_a_limit_on_time_per_token() -> None:
    """The sweep v3-decode-batch, at 50 ms a token, has EP32 a fifth behind EP72: memory holds fewer requests there."""
    points = {
        one["value"]: one["metrics"]["h800"] for one in shared.ladder("v3-decode")["curves"]["ep"]["points"]
    }
    for metric in ("tokens_per_s_per_gpu", "requests_per_gpu", "tpot_s"):
        along = [points[ep][metric] for ep in (16, 32, 64, 128)]
        assert along == sorted(along)
    ratio = points[32]["tokens_per_s_per_gpu"] / points[128]["tokens_per_s_per_gpu"]
    assert ratio == pytest.approx(0.84, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v3-prefill", "v3-small-ep", "v3-training"])
def test_a_headline_ranks_what_comes_out_by_itself_and_flat_kernels_take_the_second_hop_along(
    name: str,
) -> None:
    ladder = shared.ladder(name)
    assert rung(ladder, "per-rank")["takes_along"] == ["two-hop"]
    headline, other = words.removals(ladder_view(ladder))
    assert "One copy a rank" not in headline
    assert other.startswith(
        "Without 'One copy a rank', and with it 'Two hops, one copy a node', the full design on H800 "
    )


@pytest.mark.slow
def test_tensor_parallelism_is_what_the_cut_nvlink_costs_and_fine_experts_cost_bytes() -> None:
    """TP8: two all-reduces of 58.7 MB a layer, of attention, and two more where shared experts are split by TP."""
    ladder = shared.ladder("v3-layout")
    assert 0.10 < rung(ladder, "experts")["gap_fraction"] < 0.15
    assert 0.17 < rung(ladder, "fine-grained")["gap_fraction"] < 0.25
    for name in ("no-tp", "dualpipe"):
        assert rung(ladder, name)["gap_fraction"] < 0.01
    assert missed(ladder, "fine-grained") == pytest.approx(-0.065, abs=0.01)
