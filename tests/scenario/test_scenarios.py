"""Every shipped scenario: it says what it asks and expects, resolves, runs, and what it expects comes true."""

from __future__ import annotations

import math
from itertools import takewhile
from typing import Any

import pytest

import sim
from shared import scenario as result
from sim import documents
from sim.documents import shipped
from sim.runs import result as run_results
from sim.scenario import resolve as scenarios
from sim.scenario import settings as scenario_settings
from sim.show.views.run import views_of
from sim.show.words.run import finding
from sim.trees import flatten
from sim.validation.validate import GROUPS, load

pytestmark = pytest.mark.xdist_group("scenarios")
SLOW_STEPS = ("fabrics", "faults", "h800", "h800-vs-h100", "measured")
SLOW = (
    "group-limit",
    "inference-eplb",
    "inference-hardware",
    "qwen3-training",
    "long-context-packing",
    "r1-zero",
    "serving-beside-training",
    "serving-disaggregated-h20-h800",
    "serving-example",
    "serving-fault",
    "serving-long-prompts",
    "serving-mooncake",
    "v3-decode-ep144",
    "v3-decode-ep320",
    "v3-failures",
    "v3-pretraining-cost",
    "v3-whole-cost",
    *(f"v3-training-{name}" for name in SLOW_STEPS),
)
NAMES = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in shipped("scenarios")]


def variants(name: str) -> dict[str, Any]:
    found = result(name)
    return found.get("variants") or {"": found}


def metric(name: str, variant: str, key: str) -> float:
    return flatten(variants(name)[variant]["metrics"])[key]


@pytest.mark.parametrize("name", shipped("scenarios"))
def test_a_scenario_says_what_it_asks_and_expects(name: str) -> None:
    lines = shipped("scenarios")[name].read_text().splitlines()
    expects = [line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("#"), lines)]
    assert documents.load(shipped("scenarios")[name]).tree["question"]["ask"].endswith("?")
    assert expects[0].startswith("Expects: ")
    assert expects[-1].endswith(".")


@pytest.mark.parametrize("name", shipped("scenarios"))
def test_a_scenario_resolves_with_lower_case_variants(name: str) -> None:
    document = scenario_settings.read(name)
    assert document.get(("name",)) == name
    for variant, one in scenario_settings.variants(document).items():
        assert variant == variant.lower()
        scenarios.resolve(one)


@pytest.mark.parametrize("name", NAMES)
def test_a_scenario_runs_and_meets_its_bounds_and_expectations(name: str) -> None:
    assert run_results.missed(result(name)) == []
    for one in variants(name).values():
        assert all(math.isfinite(value) for value in flatten(one["metrics"]).values())
        for part in bounded(one["metrics"]):
            whole_s = next(
                part[key]
                for key in ("step_time_s", "makespan_s", "completion_time_s", "time_s")
                if key in part
            )
            assert 0 < part["lower_bound_s"] <= whole_s
            assert part.get("time_s", 0) <= whole_s * (1 + 1e-12)
        assert all(link["utilisation_fraction"] <= 1 + 1e-9 for link in one["links"].values())


def bounded(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Metrics that have a bound: of the run, its directions or its jobs."""
    if "lower_bound_s" in metrics:
        return [metrics]
    return [part for inner in metrics.values() if isinstance(inner, dict) for part in bounded(inner)]


def test_expectations_name_a_published_source() -> None:
    sources = {key for group in GROUPS for key in load(group).sources}
    named = {
        expectation.source
        for name in shipped("scenarios")
        for one in scenario_settings.variants(scenario_settings.read(name)).values()
        for expectation in scenarios.resolve(one).expectations
    }
    assert named
    assert named <= sources


# --- what the comments promise --------------------------------------------------------------------------------------


def test_an_h800_is_slower_within_two_nodes_and_equal_from_ep32_on() -> None:
    def ratio(ep: int, key: str) -> float:
        h800, h100 = (metric("h800-vs-h100", f"{gpu}-ep{ep}", key) for gpu in ("h800", "h100"))
        return h800 / h100

    assert ratio(8, "dispatch.time_s") == pytest.approx(2.2, abs=0.05)
    assert ratio(16, "dispatch.time_s") == pytest.approx(1.7, abs=0.05)
    for ep in (32, 64):
        assert ratio(ep, "dispatch.time_s") == pytest.approx(1, abs=0.01)
        assert ratio(ep, "combine.time_s") == pytest.approx(1, abs=0.01)
        assert variants("h800-vs-h100")[f"h800-ep{ep}"]["metrics"]["dispatch"]["binding"] == "nic"


@pytest.mark.slow
def test_a_limit_below_three_nodes_binds_the_h800_by_nvlink() -> None:
    for groups in range(1, 9):
        ours = metric("group-limit", f"h800-groups{groups}", "dispatch.time_s")
        ratio = ours / metric("group-limit", f"h100-groups{groups}", "dispatch.time_s")
        binding = variants("group-limit")[f"h800-groups{groups}"]["metrics"]["dispatch"]["binding"]
        assert ratio == pytest.approx({1: 1.8, 2: 1.13}.get(groups, 1.0), abs=0.02)
        assert binding == ("scale_up" if groups < 3 else "nic")


@pytest.mark.slow
def test_a_cache_that_finds_what_the_trace_repeats_cuts_ttft_below_a_third() -> None:
    plain, cached = (metric("serving-mooncake", one, "ttft.mean_s") for one in ("uncached", "cached"))
    assert 0.2 * plain < cached < plain / 3
    assert metric("serving-mooncake", "uncached", "arrivals.reusable_fraction") == pytest.approx(
        0.66, abs=0.005
    )


@pytest.mark.slow
def test_h800_that_prefill_and_h20_that_decode_take_from_each_what_they_are_better_at() -> None:
    def of(key: str) -> list[float]:
        return [metric("serving-disaggregated-h20-h800", one, key) for one in ("h800-h20", "h800", "h20")]

    both, compute, memory = of("ttft.p50_s")
    assert both == compute
    assert memory / both == pytest.approx(7.1, abs=0.5)
    both, compute, memory = of("tpot.p50_s")
    assert both == pytest.approx(memory, rel=0.1)
    assert compute < 0.75 * both
    both, compute, _ = of("cost_usd_per_million_tokens")
    assert compute / both == pytest.approx(1.155, abs=0.02)
    assert of("good_fraction") == [pytest.approx(0.87, abs=0.01)] * 2 + [pytest.approx(0, abs=0.01)]


@pytest.mark.slow
def test_training_next_door_makes_first_tokens_late_and_halves_of_pods_cost_both_more() -> None:
    def of(key: str) -> list[float]:
        rows = ("alone", "next-door", "pods-apart")
        return [metric("serving-beside-training", one, f"jobs.{key}") for one in rows]

    for key in ("train.step_time_s", "users.ttft.p50_s", "users.tpot.p50_s", "users.kv_transfer.p50_s"):
        alone, beside, apart = of(key)
        assert apart < alone < beside
    alone, beside, apart = of("train.step_time_s")
    assert beside / alone == pytest.approx(1.09, abs=0.02)
    assert apart / alone == pytest.approx(2 / 3, abs=0.04)
    late = of("users.ttft.p50_s")
    assert late[1] / late[0] == pytest.approx(1.36, abs=0.05)
    good = of("users.good_fraction")
    assert good[0] - good[1] == pytest.approx(0.2, abs=0.03)
    busy = variants("serving-beside-training")["alone"]["links"]["pod0/up"]["utilisation_fraction"]
    assert busy == pytest.approx(0.55, abs=0.05)


@pytest.mark.slow
def test_long_prompts_take_what_their_gpus_need_and_hold_up_no_short_ones() -> None:
    """Of 81,920 tokens the attention takes 28.7 s of a GPU; one on each of 32 takes 41.6 s as a prefill of the same plan."""
    plan = variants("serving-long-prompts")["house"]["scenario"]["workload"]["prefill"]["plan"]
    prefill = {"kind": "prefill", "prompt_tokens": 81_920, "chunk_tokens": 8192, "prompts_per_gpu": 1}
    cluster = {"hardware": "h800", "nodes": 4}
    whole = {"name": "same", "cluster": cluster, "model": "deepseek-v3", "workload": prefill | plan}
    house = metric("serving-long-prompts", "house", "ttft.p99_s")
    assert house == pytest.approx(41.6, rel=0.02)
    assert house == pytest.approx(sim.run(whole)["metrics"]["ttft_s"], rel=0.02)
    assert 28.7 < metric("serving-long-prompts", "lone", "ttft.mean_s") < house
    assert metric("serving-long-prompts", "beside", "ttft.p90_s") < 2


def test_replicas_win_back_what_popular_experts_cost() -> None:
    even, skewed, balanced, moved = (
        metric("skewed-eplb", one, "dispatch.completion_time_s")
        for one in ("even", "skewed", "skewed-eplb", "skewed-moved")
    )
    assert skewed > 1.4 * even
    assert balanced < 1.03 * even
    assert balanced < moved < skewed


def test_a_slow_nic_and_a_dead_rail_each_double_the_time_of_everyone() -> None:
    healthy, half, dead = (
        metric("faults", one, "dispatch.time_s") for one in ("healthy", "nic-at-half", "dead-rail")
    )
    assert half == pytest.approx(2 * healthy, rel=0.04)
    assert dead == pytest.approx(2 * healthy, rel=0.04)


def test_half_a_nic_for_a_millisecond_costs_half_a_millisecond_and_nothing_later() -> None:
    """A little less: the slow NIC has less to carry than the busiest of all."""
    for name, later_s in (("dispatch", 0.5e-3), ("combine", 0.0)):
        healthy, slow = (
            metric("faults", one, f"{name}.completion_time_s") for one in ("healthy", "nic-at-half-for-1-ms")
        )
        assert slow - healthy == pytest.approx(later_s, abs=0.05e-3)


def test_faults_are_told_beside_the_healthy_cluster_the_worst_first() -> None:
    dead, slow, _ = result("faults").finding()
    assert slow.startswith("nic-at-half: dispatch takes 4.77 ms against 2.43 ms in healthy (1.96x as long)")
    assert dead.startswith("dead-rail: dispatch takes 4.79 ms against 2.43 ms in healthy (1.97x as long)")


def test_what_replicas_win_back_is_told_beside_the_skewed_gate() -> None:
    """Even and balanced are within two per cent of each other, and moved experts win less."""
    even, balanced, moved = result("skewed-eplb").finding()
    assert "against 2.88 ms in skewed" in even
    assert balanced.startswith(
        "skewed-eplb: dispatch takes 1.93 ms against 2.88 ms in skewed (1.49x as fast)"
    )
    assert moved.startswith("skewed-moved: ")


@pytest.mark.slow
def test_the_group_limit_is_told_before_the_hardware() -> None:
    found = {key: value for key, value in result("group-limit").items() if key != "question"}
    said = finding(views_of(found))
    assert said[0].startswith("h800-groups1: dispatch takes 1.17 ms against 2.41 ms in h800-groups4")
    assert said[1].startswith(
        "h800-groups8: dispatch takes 3.2 ms against 2.41 ms in h800-groups4 (1.33x as long)"
    )
    assert said[2].startswith("The H100 gains most against h800-groups1")


def test_hardware_of_two_sizes_of_cluster_is_no_choice() -> None:
    """More nodes are another task: EP64 takes longer than EP8 on every machine."""
    found = {key: value for key, value in result("h800-vs-h100").items() if key != "question"}
    assert all(" gains " in one for one in finding(views_of(found)))


def test_twins_of_one_hardware_are_told_by_their_names() -> None:
    found = {key: value for key, value in result("h800-450").items() if key != "question"}
    assert finding(views_of(found))[0].startswith("h800-450 gains most against h800")


def test_three_senders_into_one_host_end_together_after_the_time_of_three() -> None:
    rows = {int(row[0]): row for row in result("flows-example")["flow_completion"]}
    three_us = 3 * 1048576 * 4160 / 4096 / 50e9 * 1e6
    for flow in (1, 2, 3):
        assert rows[flow][2] == pytest.approx(three_us, abs=3.2)  # and at most 3.15 us of idle latency
    assert rows[5][1] > rows[4][2]


def test_planes_cost_nccl_nothing() -> None:
    plane, rail = (
        metric("nccl-multi-plane", one, "exchange.time_s") for one in ("multi-plane", "rail-optimized")
    )
    assert plane == pytest.approx(rail, rel=1e-3)


def test_four_bits_are_quicker_than_eight_and_with_few_requests_alike() -> None:
    tpot = {name: metric("decode-formats", name, "tpot_s") for name in variants("decode-formats")}
    assert tpot["w4a8"] < tpot["fp8-cache"] < tpot["fp8"]
    assert tpot["int4"] == pytest.approx(tpot["w4a8"], rel=0.05)
    assert tpot["b300-nvfp4"] < 0.8 * tpot["b300-fp8"]


def test_an_h800_with_an_h100s_nvlink_is_an_h100() -> None:
    found = variants("h800-450")
    assert found["h800-450"]["metrics"] == found["h100"]["metrics"]
    assert found["h800"]["metrics"] != found["h100"]["metrics"]


@pytest.mark.slow
def test_rails_that_never_meet_cost_a_training_step_nothing() -> None:
    found = {
        name: metric("v3-training-fabrics", name, "step_time_s") for name in variants("v3-training-fabrics")
    }
    planes = found["multi-plane"]
    for name in ("multi-rail", "rail-only", "three-tier"):
        assert found[name] == pytest.approx(planes, rel=1e-3)
    assert found["leaves-4-to-1"] == pytest.approx(1.011 * planes, rel=0.005)
    assert found["three-tier-4-to-1"] == pytest.approx(1.09 * planes, rel=0.01)


@pytest.mark.slow
def test_one_broken_part_of_2048_costs_the_step_what_its_group_waits_for() -> None:
    found = {
        name: metric("v3-training-faults", name, "step_time_s") for name in variants("v3-training-faults")
    }
    healthy = found["healthy"]
    for name, times in (("nic-at-half", 1.075), ("dead-rail", 1.197), ("gpu-at-half-clock", 1.683)):
        assert found[name] == pytest.approx(times * healthy, rel=0.01)


@pytest.mark.slow
def test_full_nvlink_wins_a_few_percent_of_a_step_at_most_and_overlap_much_more() -> None:
    def step_s(variant: str) -> float:
        return metric("v3-training-h800-vs-h100", variant, "step_time_s")

    for ours, theirs in (("h800", "h100"), ("h800-no-overlap", "h100-no-overlap")):
        assert 0.95 * step_s(ours) <= step_s(theirs) <= step_s(ours)
    for hardware in ("h800", "h100"):
        assert step_s(f"{hardware}-no-overlap") > 1.15 * step_s(hardware)


@pytest.mark.slow
def test_measured_layers_make_the_step_of_modelled_ones() -> None:
    modelled, measured = (metric(f"v3-training-{name}", "", "step_time_s") for name in ("h800", "measured"))
    assert measured == pytest.approx(modelled, rel=0.02)


def test_within_a_node_full_nvlink_trains_a_coarse_moe_faster() -> None:
    h800, h100 = (metric("mixtral-training", gpu, "step_time_s") for gpu in ("h800", "h100"))
    assert 0.9 * h800 < h100 < 0.99 * h800


@pytest.mark.slow
def test_dualpipe_hides_most_of_what_1f1b_exposes() -> None:
    hidden, exposed = (metric("qwen3-training", one, "exposed_comm_s") for one in ("h800", "h800-1f1b"))
    assert hidden < 0.5 * exposed
