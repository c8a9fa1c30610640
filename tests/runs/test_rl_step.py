"""An iteration of reinforcement learning: laws of its stages, its pools and its tail, and published times."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shared
import sim
from reinforcing import APART, JUDGE_POOLS, JUDGED, JUDGES, PARTIAL, POOLS, TEXT, TOGETHER, document, ran
from sim import documents
from sim.cluster.kernels import load_kernel
from sim.engine.rollout import iterate, roll_out, tail_wait_gpu_s
from sim.errors import InfeasibleError, InputError
from sim.runs.forward_passes import forward_s
from sim.runs.pass_memory import stage_memory
from sim.runs.rewards import last_judged_s
from sim.runs.run import run_document, run_scenario
from sim.runs.training_step import Step
from sim.runs.weight_sync import WeightSync, pairs, weight_sync
from sim.scenario.inference import Inference
from sim.scenario.resolve import resolve
from sim.scenario.rl_step import RlStep
from sim.show.pages.run import run_html
from sim.show.plots import kinds as plots
from sim.show.views.run import views_of
from sim.show.words.run import finding

SYNC = """\
name: sync
cluster: {hardware: h20, nodes: NODES}
model: deepseek-v3
workload:
  kind: rl_step
  prompts: 16
  lengths: {kind: fixed, mean: 1024, most: 1024}
  rollout: {layout: {ep: 16}, overlap: false, kernel: {kind: low_latency}}
  update: {layout: {pp: 2, ep: 8}, schedule: 1f1b, kernel: {kind: two_hop}}
  sync: {mode: MODE}
"""


MORE = "updates: 4\n  logprobs: 1\n  reward: {time: 2 s}"


def harmonic(n: int) -> float:
    return sum(1 / i for i in range(1, n + 1))


# --- pools -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage_s", [1.0, 7.5])
def test_a_split_of_equal_stages_is_at_staleness_1_exactly_twice_as_fast(stage_s: float) -> None:
    waits, overlaps = (iterate([stage_s], [stage_s], 0.0, staleness) for staleness in (0, 1))
    assert waits.step_s == 2 * overlaps.step_s == 2 * stage_s
    assert (waits.staleness_mean, overlaps.staleness_mean) == (0.0, 1.0)


def test_with_perfect_scaling_and_no_sync_a_split_is_as_fast_as_all_gpus_together() -> None:
    """All GPUs roll out in 3 s and update in 5: 3/8 and 5/8 of them take 8 s for each, side by side."""
    assert iterate([3 / (3 / 8)], [5 / (5 / 8)], 0.0, 1).step_s == 3 + 5


def test_the_slower_pool_sets_the_pace_and_new_weights_cost_the_rollout() -> None:
    assert iterate([2.0], [5.0], 0.5, 1).step_s == 5.0
    assert iterate([5.0], [2.0], 0.5, 1).step_s == 5.5
    assert iterate([2.0], [5.0], 0.5, 0, reward_s=0.25).step_s == 2.0 + 5.0 + 0.5 + 0.25


def test_more_staleness_helps_only_where_rollouts_are_unlike() -> None:
    """Rollouts of 1 s and 9 s, updates of 5 s: the mean of both is 5 s, which a longer queue comes closer to."""
    paces = [iterate([1.0, 9.0], [5.0, 5.0], 0.0, staleness).step_s for staleness in (0, 1, 2, 3)]
    assert paces[0] == 10.0
    assert paces == sorted(paces, reverse=True)
    assert paces[-1] == 5.0


# --- rollout -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 8, 64])
def test_the_tail_of_n_exponential_lengths_is_waited_for_h_n_less_1_means(n: int) -> None:
    """The i-th of n exponential lengths in order is H_n - H_(n-i) means on average, and they are one on average."""
    mean = 10_000
    lengths = np.array([round(mean * (harmonic(n) - harmonic(n - i))) for i in range(1, n + 1)])
    record = roll_out(lengths, 0, lambda load, context: 1.0, most=n, num_ranks=n)
    assert tail_wait_gpu_s([record], n) == pytest.approx(n * mean * (harmonic(n) - 1), rel=1e-3, abs=1e-6)


def test_a_step_gets_quicker_as_samples_end() -> None:
    """Steps of 2 s with two samples and of 1 s with one: 100 steps with both, 200 with the longer alone."""
    record = roll_out(np.array([100, 300]), 0, lambda load, context: load, most=2)
    assert record.end_s.tolist() == [200.0, 400.0]
    assert record.busy_requests_s == 2 * 200 + 200


def test_the_context_that_a_step_reads_grows_with_the_answer() -> None:
    """From 50 tokens to 150, steps of 1 ms a token of context: 100 steps of 100 ms on average."""
    record = roll_out(np.array([100]), 50, lambda load, context: context * 1e-3, most=1)
    assert record.end_s[0] == pytest.approx(100 * 0.1)


def test_samples_that_find_no_place_follow_one_another() -> None:
    record = roll_out(np.array([10, 20, 30]), 0, lambda load, context: 1.0, most=1, tokens_per_step=2.0)
    assert record.end_s.tolist() == [5.0, 15.0, 30.0]


def test_a_full_cache_sends_the_youngest_back_and_all_samples_end() -> None:
    """Two samples of 100 tokens and room for 150: at 75 each the second goes back; then it has the cache to itself."""
    record = roll_out(np.array([100, 100]), 0, lambda load, context: 1.0, most=2, capacity_tokens=150)
    assert record.num_preempted == 1
    assert record.end_s.tolist() == [100.0, 125.0]
    with pytest.raises(InfeasibleError, match="a sample of 200 tokens does not fit"):
        roll_out(np.array([200]), 0, lambda load, context: 1.0, most=1, capacity_tokens=150)


# --- whole iterations ------------------------------------------------------------------------------------------------


def stages(metrics: dict[str, Any]) -> dict[str, float]:
    names = ("rollout_s", "reward_s", "logprob_s", "update_s", "sync_s", "offload_s")
    return {name: metrics[name] for name in names}


def test_stages_on_the_same_gpus_follow_one_another() -> None:
    metrics = ran(more=MORE)["metrics"]
    assert metrics["step_time_s"] == pytest.approx(sum(stages(metrics).values()), rel=1e-12)
    assert metrics["reward_s"] == 2.0
    assert metrics["stage_fraction"]["reward"] == pytest.approx(2.0 / metrics["step_time_s"])
    assert sum(metrics["stage_fraction"].values()) == pytest.approx(1)
    assert metrics["step_cost_usd"] == pytest.approx(32 * metrics["step_time_s"] / 3600 * 2.0)
    assert metrics["idle_fraction"] == {"colocated": pytest.approx(2.0 / metrics["step_time_s"])}


def test_training_states_go_over_pcie_to_the_host_and_back() -> None:
    work = resolve(document()).workload
    assert isinstance(work, RlStep)
    states = max(row.states_bytes for row in Step.from_scenario(work.update).memory)
    assert ran()["metrics"]["offload_s"] == pytest.approx(2 * states / 64e9)  # PCIe 5 x16


def test_pools_apart_overlap_with_staleness_and_each_is_idle_for_the_rest() -> None:
    waits, overlaps = (ran(APART, POOLS, f"staleness: {k}")["metrics"] for k in (0, 1))
    one = stages(waits)
    assert one == stages(overlaps)
    rolled, trained = one["rollout_s"] + one["sync_s"], one["logprob_s"] + one["update_s"]
    assert waits["step_time_s"] == pytest.approx(rolled + trained, rel=1e-9)
    assert overlaps["step_time_s"] == pytest.approx(max(rolled, trained), rel=0.02)  # two unlike rollouts
    for metrics in (waits, overlaps):
        idle = metrics["idle_fraction"]
        assert idle["rollout"] == pytest.approx(1 - rolled / metrics["step_time_s"])
        assert idle["update"] == pytest.approx(1 - trained / metrics["step_time_s"])
        assert metrics["step_cost_usd"] == pytest.approx(
            metrics["step_time_s"] / 3600 * (16 * 1.85 + 32 * 2.0)
        )
    assert waits["energy"]["total_kwh"] > overlaps["energy"]["total_kwh"]  # the same work and less waiting
    assert (waits["staleness_mean"], overlaps["staleness_mean"]) == (0.0, 1.0)


def test_every_token_is_trained_and_packs_hold_what_attention_costs() -> None:
    """Sequences are as long as the token-weighted mean, whose square is what attention costs."""
    work = resolve(document()).workload
    assert isinstance(work, RlStep)
    whole = (work.lengths + 128.0).ravel()
    step = work.update.workload
    assert step.spec.sequence_tokens == pytest.approx((whole**2).sum() / whole.sum(), abs=64)  # type: ignore[attr-defined]
    assert step.step_tokens >= whole.sum() / 2  # type: ignore[attr-defined]  # of two drawn iterations


def test_forward_passes_go_down_the_pipeline_at_the_pace_of_the_slowest_stage() -> None:
    work = resolve(document()).workload
    assert isinstance(work, RlStep)
    step = Step.from_scenario(work.update)
    times = {num: forward_s(step, num)[0] for num in (1, 8, 16, 200)}
    pace = (times[16] - times[8]) / 8
    assert times[8] == pytest.approx(times[1] + 7 * pace, rel=1e-6)
    assert times[200] == pytest.approx(times[1] + 199 * pace, rel=1e-6)  # of which 64 are run
    assert pace < times[1] < 4.5 * pace  # four stages and their sends


def test_more_updates_cost_their_reductions_and_bubbles() -> None:
    one, four = (ran(more=more)["metrics"] for more in ("", MORE))
    assert four["update_s"] > one["update_s"]
    assert four["rollout_s"] == one["rollout_s"]
    assert four["logprob_s"] == pytest.approx(one["logprob_s"] / 2)  # of one pass less


@pytest.mark.parametrize("more", ["", MORE])
def test_links_carry_every_update_and_every_forward_pass(more: str) -> None:
    """A GPU of the first stage sends each microbatch's activations, BF16, once a forward; gradients come to it."""
    work = resolve(document(more=more)).workload
    assert isinstance(work, RlStep)
    step = work.update.workload
    forwards = work.spec.updates * step.num_microbatches + work.spec.logprobs * work.microbatches  # type: ignore[attr-defined]
    expected = forwards * step.microbatch_tokens * 4096 * 2.0  # type: ignore[attr-defined]
    assert ran(more=more)["links"]["node0/nic0/tx"]["bytes"] == pytest.approx(expected, rel=1e-9)


def test_parts_of_an_iteration_add_up_to_it() -> None:
    together, apart = ran(), ran(APART, POOLS, "staleness: 1")
    assert sum(together["where"].values()) == pytest.approx(together["metrics"]["step_time_s"])
    assert sum(apart["where"].values()) == pytest.approx(apart["metrics"]["step_time_s"], rel=0.02)


def test_a_result_says_where_the_time_goes() -> None:
    result = ran(APART, POOLS, "staleness: 1")
    sentences = finding(views_of(result))
    assert sentences[0].startswith("An iteration takes ")
    assert any(sentence.startswith("Idle part of the time: update ") for sentence in sentences)
    assert "An iteration of reinforcement learning" in run_html(result)


# --- rewards ---------------------------------------------------------------------------------------------------------


def test_samples_are_judged_in_the_order_of_their_ends() -> None:
    """Two judges: 3 s and 5 s from 0 and 1, then the third from 3, when the first is free, and the fourth from 10."""
    begins, takes = np.array([0.0, 1.0, 2.0, 10.0]), np.array([3.0, 5.0, 4.0, 2.5])
    assert last_judged_s(begins, takes, 2) == 12.5
    assert last_judged_s(begins[:3], takes[:3], 2) == 7.0


@pytest.mark.parametrize(
    ("cluster", "pools", "ranks"), [(TOGETHER, "colocated", 32), (JUDGES, JUDGE_POOLS, 8)]
)
def test_a_model_that_judges_reads_every_sample_once(cluster: str, pools: str, ranks: int) -> None:
    """128 samples of 640 tokens that end together: ranks read 640 tokens each, one after the other, at the pace of a full pass."""
    equal = (
        "lengths: {kind: lognormal, mean: 500, spread: 1, most: 2000}",
        "lengths: {kind: fixed, mean: 512, most: 512}",
    )
    text = TEXT.replace(*equal).replace("CLUSTER", cluster).replace("POOLS", pools).replace("MORE", JUDGED)
    mine = documents.loads(text, "mine.yaml")
    work = resolve(mine).workload
    assert isinstance(work, RlStep)
    assert work.judge is not None
    own = run_scenario(work.judge)["metrics"]
    token_s = own["step_time_s"] / (640 * 2)  # two prompts of the mean length on each GPU
    metrics = run_document(mine)["metrics"]
    assert metrics["reward_s"] == pytest.approx(128 / ranks * 640 * token_s, rel=1e-9)
    idle = metrics["idle_fraction"]
    idles = 1 - metrics["reward_s"] / metrics["step_time_s"]
    pool, expected = ("colocated", 0.0) if ranks == 32 else ("reward", idles)
    assert idle[pool] == pytest.approx(expected, abs=1e-12)


def test_a_judge_that_does_not_fit_is_named() -> None:
    with pytest.raises(InfeasibleError, match=r"^reward: .* need"):
        run_document(document(more=JUDGED.replace("qwen3-30b-a3b", "deepseek-v3")))


def test_judges_apart_work_while_samples_are_rolled_out() -> None:
    after = ran(APART, POOLS, JUDGED)["metrics"]
    beside = ran(JUDGES, JUDGE_POOLS, JUDGED)["metrics"]
    assert beside["reward_s"] < after["reward_s"]
    assert beside["idle_fraction"]["reward"] > 0.9
    assert after["step_time_s"] == pytest.approx(
        sum(after[f"{name}_s"] for name in ("rollout", "reward", "logprob", "update", "sync"))
    )


# --- the tail ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["partial_rollouts", "tail_batching"])
def test_a_tail_of_which_all_is_waited_for_changes_nothing(kind: str) -> None:
    plain, same = ran()["metrics"], ran(more=f"tail: {{kind: {kind}, done: 100 %}}")["metrics"]
    assert {name: same[name] for name in plain} == plain
    assert (same["carried_samples"], same["stale_tokens_fraction"], same["recompute_s"]) == (0, 0, 0)


def test_partial_rollouts_shorten_the_rollout_and_read_again_what_goes_on() -> None:
    plain, own = ran()["metrics"], ran(more=PARTIAL)["metrics"]
    assert own["rollout_s"] < 0.7 * plain["rollout_s"]
    assert own["step_time_s"] - own["rollout_s"] == pytest.approx(plain["step_time_s"] - plain["rollout_s"])
    assert 0 < own["stale_tokens_fraction"] < 0.5
    assert 0 < own["recompute_s"] < 0.1 * own["rollout_s"]
    assert own["discarded_tokens_fraction"] == 0


def test_keys_and_values_that_stay_are_not_read_again() -> None:
    again, keeps = (ran(APART, POOLS, PARTIAL[:-1] + more)["metrics"] for more in ("}", ", cache: keep}"))
    assert again["recompute_s"] > keeps["recompute_s"] == 0
    assert keeps["rollout_s"] < again["rollout_s"]


def test_tail_batching_keeps_every_token_fresh_and_throws_some_away() -> None:
    own = ran(more="tail: {kind: tail_batching, done: 75 %}")["metrics"]
    assert own["rollout_s"] < ran()["metrics"]["rollout_s"]
    assert own["stale_tokens_fraction"] == own["recompute_s"] == 0 < own["discarded_tokens_fraction"]


def test_a_picture_shows_when_samples_end_and_how_long_the_last_tenth_takes() -> None:
    """Ten samples: nine have ended after 30 of 120 s, so the last takes three quarters."""
    result = deepcopy(ran(more=PARTIAL))
    result["timeline"]["samples"] = {"end_s": [10.0, 30.0, 120.0], "left": [9, 1, 0]}
    figure = plots.figure("tail", result)
    assert "The last tenth of the samples takes 75%" in figure.layout.title.text
    assert list(figure.data[0].y) == [10, 9, 1, 0]
    assert "older weights made" in " ".join(finding(views_of(result)))


# --- new weights -----------------------------------------------------------------------------------------------------


def synced(nodes: int, mode: str) -> WeightSync:
    work = resolve(
        documents.loads(SYNC.replace("NODES", str(nodes)).replace("MODE", mode), "mine.yaml")
    ).workload
    assert isinstance(work, RlStep)
    return weight_sync(work.spec.sync, work.rollout, work.rolling, work.update)


def test_broadcast_of_deepseek_v3_to_16_and_to_256_h20_grows_as_published() -> None:
    """checkpoint-engine: 10.19 s on 16 GPUs, which `apply` is calibrated on, and 11.33 s on 256: 1.14 s more, within 50 %."""
    few, many = (synced(nodes, "broadcast") for nodes in (2, 32))
    assert few.time_s == pytest.approx(10.19, rel=2e-3)
    assert few.bytes_per_gpu == pytest.approx(671e9, rel=0.01)  # FP8
    assert many.time_s - few.time_s == pytest.approx(11.33 - 10.19, rel=0.5)


def test_weights_that_go_straight_to_their_gpus_take_the_same_for_any_number_of_instances() -> None:
    few, many = (synced(nodes, "p2p") for nodes in (2, 32))
    assert few == many
    assert few.bytes_per_gpu < 0.1 * synced(2, "broadcast").bytes_per_gpu


@pytest.mark.parametrize(("nodes", "bound"), [(2, "receivers"), (16, "senders")])
def test_flows_between_pools_take_what_the_busier_nics_need(nodes: int, bound: str) -> None:
    """Four H800 nodes hold all weights twice or more; each H20 gets its part: few wait for their own NICs, many for the senders'."""
    cluster = (
        f"{{pools: {{rollout: {{hardware: h20, nodes: {nodes}}}, update: {{hardware: h800, nodes: 4}}}}}}"
    )
    work = resolve(document(cluster, POOLS, "sync: {mode: p2p}")).workload
    assert isinstance(work, RlStep)
    own = weight_sync(work.spec.sync, work.rollout, work.rolling, work.update)
    nic = 50e9 * load_kernel("nccl").nic_efficiency_fraction
    senders, receivers = 32, 8 * nodes
    sent_s = own.bytes_per_gpu * (receivers / senders if bound == "senders" else 1.0) / nic
    assert own.time_s - own.bytes_per_gpu / work.spec.sync.apply == pytest.approx(sent_s, rel=1e-3)


def test_new_weights_need_a_cable_where_nodes_have_unlike_nics() -> None:
    """Two GPUs share a NIC of a rollout's node, so that its rails are four, and the update's eight go on past the last."""
    cluster = (
        "{fabric: {kind: rail_only}, pools: {rollout: {hardware: {chip: h20, node: dgx-4nic}, nodes: 4}, "
        "update: {hardware: h800, nodes: 4}}}"
    )
    work = resolve(document(cluster, POOLS, "sync: {mode: p2p}")).workload
    assert isinstance(work, RlStep)
    with pytest.raises(InfeasibleError, match="no cable joins the rails"):
        weight_sync(work.spec.sync, work.rollout, work.rolling, work.update)


@pytest.mark.parametrize("layout", ["{ep: 8}", "{tp: 2, ep: 16}", "{pp: 2, ep: 8}"])
def test_every_gpu_gets_just_the_weights_of_its_stage_and_all_copies_send(layout: str) -> None:
    text = TEXT.replace("layout: {ep: 8}", f"layout: {layout}").replace("mixtral-8x7b", "qwen3-30b-a3b")
    text = text.replace("CLUSTER", APART).replace("POOLS", POOLS).replace("MORE", "")
    work = resolve(documents.loads(text, "mine.yaml")).workload
    assert isinstance(work, RlStep)
    assert isinstance(work.rollout.workload, Inference)
    src, dst, num_bytes = pairs(work.rollout, len(work.rolling), work.update)
    own = work.rollout.workload.layout
    stages_of = {rank: i for i, ranks in enumerate(own.stages().tolist()) for rank in ranks}
    held = stage_memory(work.rollout, work.rollout.workload)
    got = np.bincount(dst, num_bytes, len(work.rolling))
    for gpu, total in enumerate(got.tolist()):
        assert total == pytest.approx(held[stages_of[gpu % own.num_ranks]].weights_bytes, rel=1e-12)
    assert set(src.tolist()) == set(range(32))


# --- shipped ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_h20_that_roll_out_are_the_cheapest_at_every_rung() -> None:
    for rung in shared.ladder("rl-h800-h20")["rungs"]:
        costs = {machine: metrics["step_cost_usd"] for machine, metrics in rung["cumulative"].items()}
        assert min(costs, key=lambda machine: costs[machine]) == "h20-h800"
        assert costs["h20-h800"] < 0.7 * costs["h800-h800"]


@pytest.mark.slow
def test_sixteen_nodes_are_split_best_where_the_pools_are_in_balance(tmp_path: Path) -> None:
    result = sim.sweep("rl-split", folder=tmp_path)
    best = result["points"][result["best"][0]]
    assert best["values"] == {"split": "14-2", "workload.staleness": 1}
    idle = best["metrics"]["idle_fraction"]
    assert max(idle["rollout"], idle["update"]) < 0.22


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cluster", "pools", "more", "place", "words"),
    [
        (TOGETHER, "colocated", "staleness: 1", "workload.staleness", ["0: pools of their own"]),
        (APART, "colocated", "", "workload.pools", ["cluster.pool"]),
        (APART, "{rollout: rollout, update: updates}", "", "workload.pools.update", ["did you mean update?"]),
        (APART, "{rollout: update, update: update}", "", "workload.pools.update", ["another pool"]),
        (TOGETHER, "colocated", "sync: {apply: 0 GB/s}", "workload.sync.apply", ["more than 0"]),
        (TOGETHER, "colocated", "tail: {kind: tail_batching, done: 0 %}", "workload.tail.done", ["to 100 %"]),
        (TOGETHER, "colocated", "tail: {kind: partial_rollouts, cache: keep}", "workload.tail.cache", ["recompute"]),
        (TOGETHER, "colocated", "tail: {kind: tail_batching, cache: keep}", "workload.tail.cache", ["done, kind"]),
        (TOGETHER, "colocated", "tail: {kind: partial_rollouts, prefill: {batch: 4}}", "workload.tail.prefill.batch", ["unknown"]),
        (TOGETHER, "apart", "", "workload.pools", ["colocated, or a mapping"]),
        (TOGETHER, "colocated", "prompt_correlation: 120 %", "workload.prompt_correlation", ["0 % to 100 %"]),
        (JUDGES, JUDGE_POOLS.replace("d: reward", "d: update"), JUDGED, "workload.pools.reward", ["a pool of its own"]),
        (TOGETHER, "colocated", "reward: {model: mixtral-8x7b}", "workload.reward.prefill", ["'layout'"]),
        (TOGETHER, "colocated", JUDGED.replace("model: qwen3-30b-a3b, ", ""), "workload.reward.prefill", ["'model'"]),
        (TOGETHER, "colocated", JUDGED.replace("ep: 8", "ep: 12"), "workload.reward.prefill.layout", ["divisor of the 32"]),
        (TOGETHER, "colocated", "sample: 3", "workload.sample", ["did you mean samples?"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_at_its_place(
    cluster: str, pools: str, more: str, place: str, words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        resolve(document(cluster, pools, more))
    (problem,) = map(str, caught.value.problems)
    assert place in problem
    assert all(word in problem for word in words), problem


def test_problems_of_a_part_stand_where_they_are_written() -> None:
    for old, new, place in (
        ("layout: {ep: 8}", "layout: {ep: 12}", "workload.rollout.layout"),
        ("overlap: false", "overlaps: false", "workload.rollout.overlaps"),
        ("schedule: 1f1b", "schedule: 1f2b", "workload.update.schedule"),
        ("layout: {pp: 4, ep: 8}", "layout: {pp: 4, ep: 8}, microbatches: 3", "workload.update.microbatches"),
    ):
        text = (
            TEXT.replace(old, new)
            .replace("CLUSTER", TOGETHER)
            .replace("POOLS", "colocated")
            .replace("MORE", "")
        )
        with pytest.raises(InputError, match=place):
            resolve(documents.loads(text, "mine.yaml"))
