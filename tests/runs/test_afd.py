"""Attention and experts on pools of their own: the laws of microbatches that go round, bytes by hand, and who holds what."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest

import sim
from sim.cost.work import total_s
from sim.errors import DoesNotFitError, InputError
from sim.runs.afd import AfdPass
from sim.runs.afd_result import afd_batch
from sim.runs.pass_needs import REDUCTION
from sim.runs.run import run_document
from sim.runs.service import service_of
from sim.scenario import settings as scenario_settings
from sim.scenario.inference import Inference
from sim.scenario.resolve import resolve
from sim.schedule.serving import PassWork
from sim.workload.model import load_model, parameters

EXPERTS, GPUS, TOP_K, LAYERS, HIDDEN = 64, 8, 6, 26, 2048
"""Of DeepSeek-V2-Lite on eight GPUs of experts: layers with experts are all but the first."""
OUTSIDE = ("layout", "software", "fidelity")
POOLS = {"a": {"hardware": "h800", "nodes": 1}, "b": {"hardware": "h20", "nodes": 1}}


def tree(microbatches: int = 2, cluster: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    work = {
        "kind": "decode",
        "context_tokens": 4096,
        "requests_per_gpu": 48,
        "afd": {"attention": "a", "experts": "b", "microbatches": microbatches},
        "gate": {"kind": "uniform", "sampling": "expected"},
        "kernel": {"kind": "low_latency"},
    }
    whole = {"name": "mine", "cluster": {"pools": POOLS} | (cluster or {}), "model": "deepseek-v2-lite"}
    return whole | {"workload": {key: value for key, value in (work | changes).items() if value is not None}}


def decode(*args: Any, **changes: Any) -> Inference:
    work = resolve(scenario_settings.read(tree(*args, **changes))).workload
    assert isinstance(work, Inference)
    return work


def afd(*args: Any, **changes: Any) -> AfdPass:
    scenario = resolve(scenario_settings.read(tree(*args, **changes)))
    work = scenario.workload
    assert isinstance(work, Inference)
    assert work.requests is not None
    return AfdPass(scenario, work, work.requests * GPUS)


@cache
def result(microbatches: int = 2) -> dict[str, Any]:
    return run_document(scenario_settings.read(tree(microbatches)))


def layer_s(one: AfdPass) -> float:
    """Time from a layer to the next of one microbatch, in the middle of the step."""
    tasks = one.run().records[0].tasks
    starts = tasks.start_s[np.flatnonzero(tasks.microbatches[:, 0] == 0)]
    each = 2  # tasks of attention, and of shared experts
    return float(starts[20 * each] - starts[10 * each]) / 10


@pytest.mark.parametrize("microbatches", [1, 2, 3, 4])
@pytest.mark.parametrize("nic", ["400 Gb/s", "100 Gb/s"])
def test_a_layer_takes_the_round_trip_or_the_turns_of_the_slower_pool(microbatches: int, nic: str) -> None:
    """One microbatch: attention, transfer, experts, transfer. With enough of them the slowest of pools and links is all there is."""
    pools = {name: pool | {"override": {"nic.bandwidth": nic}} for name, pool in POOLS.items()}
    one = afd(microbatches, {"pools": pools})
    needs, kind = one.needs[0], one.attention.layer_kind(one.attention.blocks.layers[5])
    first, second, shared = (
        float(needs[part, kind, 0][0, 0]) for part in ("attention_0", "attention_1", "shared")
    )
    phase = {name: total_s(part) for name, part in one.phases.items()}
    attention = first + second + phase["attention dispatch"] + phase["attention combine"]
    experts = float(one.expert_needs[0][0, 0]) + phase["experts dispatch"] + phase["experts combine"]
    there, back = one.alone_s("dispatch"), one.alone_s("combine")
    line_s = max(flows.line_by_resource(len(one.cluster.capacity)).max() for flows in one.flows.values())
    line_s /= float(one.cluster.nic_rate.max())
    turns = microbatches * max(attention + shared, experts, line_s)
    assert layer_s(one) == pytest.approx(max(turns, attention + there + experts + back), rel=0.02)
    if microbatches == 1:
        assert layer_s(one) > 1.5 * turns
    if microbatches == 4:
        assert layer_s(one) == pytest.approx(turns, rel=0.02)


def test_a_token_goes_to_each_gpu_that_holds_an_expert_of_it() -> None:
    """With probability 1 - C(E - E/N, k) / C(E, k), in FP8 with a scale for 128 values; results come back in BF16."""
    found = run_document(scenario_settings.read(tree(kernel={"kind": "flat"})))
    sent = 1 - math.comb(EXPERTS - EXPERTS // GPUS, TOP_K) / math.comb(EXPERTS, TOP_K)
    copies = 24 * GPUS * sent
    sizes = {"dispatch": copies * (HIDDEN + HIDDEN / 128 * 4), "combine": copies * 2 * HIDDEN}
    for direction, size in sizes.items():
        assert found["exchanges"][direction]["gpu_bytes"] == pytest.approx(size, rel=1e-6)
    for nic, direction in (
        ("node0/nic0/tx", "dispatch"),
        ("node1/nic0/tx", "combine"),
        ("node0/nic0/rx", "combine"),
    ):
        assert found["links"][nic]["bytes"] == pytest.approx(2 * LAYERS * sizes[direction], rel=1e-6)


def test_a_low_latency_kernel_sends_a_token_once_for_each_expert() -> None:
    assert result()["exchanges"]["combine"]["gpu_bytes"] == pytest.approx(24 * TOP_K * 2 * HIDDEN)


def test_a_kernel_that_copies_holds_its_sms_where_other_microbatches_compute() -> None:
    kernel = {"kind": "flat", "comm_sms": 20}
    alone, beside = (afd(num, kernel=kernel).processors for num in (1, 2))
    assert [own.sms - other.sms for own, other in zip(alone, beside, strict=True)] == [20, 20]


def test_each_pool_holds_what_it_computes() -> None:
    attention, experts = result()["memory"]
    assert attention["routed experts"] == 0 == experts["cache"] == experts["attention"]
    model = load_model("deepseek-v2-lite")
    assert experts["routed experts"] * GPUS == pytest.approx(
        LAYERS * EXPERTS * parameters(model).expert * (1 + 4 / 128**2), rel=1e-9
    )
    plain = tree(afd=None, cluster={"pools": POOLS, "pool": "a"})
    together = run_document(scenario_settings.read(plain))["memory"][0]
    same = ("attention", "dense layers", "cache", "gates", "embedding and head")
    assert [attention[part] for part in same] == [together[part] for part in same]


def test_idle_time_is_what_a_pool_does_not_compute() -> None:
    """One microbatch is in one place at a time; the pools' busy shares add up to less than one."""
    idle = result(1)["metrics"]["idle_fraction"]
    assert 1 < idle["attention"] + idle["experts"] < 2
    metrics = result(2)["metrics"]
    assert metrics["lower_bound_s"] < metrics["tpot_s"] < result(1)["metrics"]["tpot_s"]
    assert metrics["tokens_per_s_per_gpu"] == pytest.approx(48 * GPUS / metrics["step_time_s"] / (2 * GPUS))
    assert sum(result(2)["where"].values()) == pytest.approx(metrics["step_time_s"])
    assert all(link["utilisation_fraction"] <= 1 for link in result(2)["links"].values())


def test_attention_split_by_tp_waits_for_its_group_within_the_step() -> None:
    """Two all-reduces of a layer with shared experts, of all microbatches: what they take is no compute, and the parts still add up."""
    found = run_document(scenario_settings.read(tree(requests_per_gpu=12) | {"layout": {"tp": 4}}))
    where, metrics = found["where"], found["metrics"]
    assert where["reductions"] > 2 * 2 * LAYERS * 5e-6
    assert sum(where.values()) == pytest.approx(metrics["step_time_s"])
    held = sum(where[name] for name in ("dispatch send", "combine receive"))
    assert metrics["exposed_comm_s"] == pytest.approx(where["pool"] + where["reductions"] + held)
    assert result()["where"]["reductions"] == 0


def test_experts_at_half_the_clock_take_twice_as_long() -> None:
    """And nothing else does: with one microbatch a layer is longer by what they took."""
    healthy = afd(1)
    slow = afd(1, {"faults": [{"node": 1, "clock": "50 %"}]})
    experts = float(healthy.expert_needs[0][0, 0]) + sum(
        total_s(healthy.phases[f"experts {name}"]) for name in ("dispatch", "combine")
    )
    assert layer_s(slow) - layer_s(healthy) == pytest.approx(experts, rel=1e-6)


def test_drawn_tokens_give_each_gpu_of_the_experts_its_own_load() -> None:
    """The slowest is waited for, and all bytes together are the same."""
    drawn = afd(1, gate={"kind": "uniform", "sampling": "tokens"})
    assert [drawn.experts_s(i) for i in range(4)] == [float(need[0].max()) for need in drawn.expert_needs]
    assert all(np.ptp(need[0]) > 0 for need in drawn.expert_needs)
    assert drawn.records("dispatch").sum() == pytest.approx(48 * GPUS * TOP_K)


def test_pools_of_unlike_size_and_few_requests_decode_too() -> None:
    """Eight GPUs send to sixteen that split every expert; four requests are in as many microbatches."""
    pools = {"a": POOLS["a"], "b": {"hardware": "h20", "nodes": 2}}
    wide = tree(8, {"pools": pools}, requests=4, requests_per_gpu=None) | {"layout": {"ep": 1, "etp": 16}}
    found = run_document(scenario_settings.read(wide))
    assert found["metrics"]["microbatches"] == 4
    assert found["metrics"]["requests_per_gpu"] == 0.5
    assert found["scenario"]["layout"] == {"ep": 1, "tp": 1, "etp": 16}
    sent = sum(
        row["bytes"]
        for name, row in found["links"].items()
        if name.startswith("node0/nic") and name.endswith("/rx")
    )
    assert sent == pytest.approx(4 * LAYERS * 16 * TOP_K * 2 * HIDDEN)


def test_as_many_requests_as_attention_has_room_for_are_cut_into_equal_microbatches() -> None:
    (kept, _), requests = afd_batch(decode(7, requests_per_gpu=None))
    assert kept.max_batch % 7
    assert requests == GPUS * (kept.max_batch // 7) * 7


def test_more_requests_than_attention_has_room_for_do_not_fit() -> None:
    with pytest.raises(DoesNotFitError, match="10000 requests of 4096 tokens a GPU of attention need"):
        run_document(scenario_settings.read(tree(requests_per_gpu=10_000)))


@pytest.mark.parametrize(
    ("changes", "place", "words"),
    [
        ({"afd": {"attention": "a", "experts": "c"}}, "workload.afd.experts", ["'c'", "one of: a, b"]),
        ({"afd": {"attention": "a", "experts": "a"}}, "workload.afd.experts", ["another pool"]),
        ({"cluster": {"pools": POOLS, "pool": "a"}}, "cluster.pool", ["both pools are taken whole"]),
        ({"cluster": {"pools": POOLS, "gpus": 8}}, "cluster.gpus", ["both pools are taken whole"]),
        ({"kernel": {"kind": "two_hop"}}, "workload.kernel.kind", ["low_latency, flat, nccl"]),
        ({"overlap": True}, "workload.overlap", ["afd.microbatches"]),
        ({"fidelity": "closed_form"}, "fidelity", ["flow"]),
        ({"placement": {"kind": "per_microbatch", "redundant_experts": 8}}, "workload.placement.kind", ["contiguous or eplb"]),
        ({"layout": {"ep": 4}}, "layout.ep", ["8: all GPUs of the pool 'b'"]),
        ({"layout": {"pp": 2}}, "layout.pp", ["next to afd"]),
        ({"software": "sglang_2025_05"}, "software", ["no host is in it"]),
        ({"cluster": {"hardware": "h800", "nodes": 2, "pools": {}}}, "workload.afd.attention", ["a cluster of 'pools'"]),
        ({"afd": None}, "cluster", ["the key 'pool'"]),
        ({"cluster": {"pools": POOLS, "faults": [{"node": 1, "clock": "50 %", "until": "1 s"}]}}, "cluster.faults", ["for the whole run"]),
        ({"afd": {"attention": "a", "experts": "b", "microbatches": 9}}, "workload.afd.microbatches", ["8"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_pools_apart_is_named(
    changes: dict[str, Any], place: str, words: list[str]
) -> None:
    whole = tree(**{key: value for key, value in changes.items() if key not in OUTSIDE})
    whole |= {key: changes[key] for key in OUTSIDE if key in changes}
    with pytest.raises(InputError) as caught:
        resolve(scenario_settings.read(whole))
    problem = str(caught.value.problems[0])
    assert place in problem
    assert all(word in problem for word in words), problem


# --- next to prefill -------------------------------------------------------------------------------------------------


def served(decode: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    plan = {"gate": {"kind": "uniform", "sampling": "expected"}, "kv_dtype": "bf16"}
    fixed = {"kind": "fixed", "mean": 3000}
    afd_ = {"attention": "a", "experts": "b", "microbatches": 2}
    work = {
        "kind": "serving",
        "arrivals": {
            "kind": "poisson",
            "requests": 3,
            "requests_per_s": 1,
            "prompt": fixed,
            "output": fixed | {"mean": 100},
        },
        "prefill": {
            "pool": "p",
            "ep": 8,
            "plan": plan | {"kernel": {"kind": "two_hop", "comm_sms": 24}, "overlap": False},
        },
        "decode": {"afd": afd_, "requests_per_gpu": 48, "plan": plan | {"kernel": {"kind": "low_latency"}}}
        | (decode or {}),
    }
    pools = {"pools": {"p": POOLS["a"]} | POOLS} | changes
    return {"name": "mine", "cluster": pools, "model": "deepseek-v2-lite", "workload": work}


def test_serving_decodes_with_experts_apart_as_a_decode_does() -> None:
    """Six requests of 4,096 tokens on each of eight GPUs; KV of a lone request goes to attention's pool, and all three are rented."""
    scenario = resolve(scenario_settings.read(served()))
    service = service_of(scenario, lambda _: None)
    step = PassWork({}, np.full(GPUS, 6), np.full(GPUS, 6 * 4096.0))
    alone = run_document(scenario_settings.read(tree(requests_per_gpu=6)))["metrics"]["step_time_s"]
    assert service.decode_step_s(step) == pytest.approx(alone, rel=1e-9)
    one_more = PassWork({}, np.array([7, *[6] * 7]), np.full(GPUS, 6 * 4096.0))
    assert alone < service.decode_step_s(one_more) < 1.2 * alone
    found = run_document(scenario_settings.read(served()))
    metrics = found["metrics"]
    assert metrics["tpot"]["p50_s"] > metrics["tpot_bound"]["p50_s"] > 0
    received = {name.split("/")[0] for name in found["links"] if name.endswith("/rx")}
    assert received == {"node1"}
    rent = GPUS * (2 + 2 + 1.85) * metrics["makespan_s"] / 3600
    assert metrics["cost_usd_per_million_tokens"] == pytest.approx(rent / 300 * 1e6)


@pytest.mark.parametrize(
    ("decode", "place", "words"),
    [
        ({"pool": "a"}, "workload.decode.pool", ["no such key next to afd"]),
        ({"ep": 8}, "workload.decode.ep", ["no such key next to afd"]),
        ({"instances": 2}, "workload.decode.instances", ["1 next to afd"]),
        ({"afd": {"attention": "p", "experts": "b"}}, "workload.decode.afd.attention", ["another pool than that of prefill"]),
        ({"afd": {"attention": "a", "experts": "c"}}, "workload.decode.afd.experts", ["one of: p, a, b"]),
        ({"plan": {"afd": {"attention": "a", "experts": "b"}, "kernel": {"kind": "low_latency"}}}, "workload.decode.plan.afd", ["no such key"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_experts_apart_in_serving_is_named(
    decode: dict[str, Any], place: str, words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        resolve(scenario_settings.read(served(decode)))
    problem = str(caught.value.problems[0])
    assert place in problem
    assert all(word in problem for word in words), problem


def test_a_gpu_of_two_pools_is_rented_at_their_mean() -> None:
    work = afd().work
    assert work.stated_price_usd == pytest.approx((2 + 1.85) / 2)


def test_on_an_ordinary_cluster_fine_experts_are_decoded_faster_together() -> None:
    """DeepSeek-V3 on 64 GPUs: a third microbatch keeps attention busy with smaller batches, and one pool of H800 does a quarter more."""
    apart = sim.run("decode-disaggregated")["metrics"]
    assert apart["idle_fraction"]["attention"] == pytest.approx(0.2, abs=0.03)
    assert apart["idle_fraction"]["experts"] == pytest.approx(0.5, abs=0.03)
    third = sim.run("decode-disaggregated", settings=("workload.afd.microbatches=3",))["metrics"]
    assert third["idle_fraction"]["attention"] < 0.02
    assert third["tokens_per_s_per_gpu"] < apart["tokens_per_s_per_gpu"]
    settings = (
        "workload.afd=null",
        "cluster.pool=attention",
        "cluster.pools.attention.nodes=8",
        "workload.requests_per_gpu=60",
    )
    together = sim.run("decode-disaggregated", settings=settings)["metrics"]
    assert together["tokens_per_s_per_gpu"] == pytest.approx(1.25 * apart["tokens_per_s_per_gpu"], rel=0.05)
    assert together["tpot_s"] < apart["tpot_s"]


def test_ranks_that_split_experts_each_get_every_token_of_them_and_gather_none() -> None:
    """EP4 x ETP2 on 8 GPUs: a record of each selection to both of two, and the weights of EP8, half of twice as many experts."""

    def laid_out(**layout: int) -> AfdPass:
        scenario = resolve(scenario_settings.read(tree() | {"layout": layout}))
        work = scenario.workload
        assert isinstance(work, Inference)
        assert work.requests is not None
        return AfdPass(scenario, work, work.requests * GPUS)

    whole, split = laid_out(ep=8), laid_out(ep=4, etp=2)
    sent = [float(one.flows["dispatch"].payload_bytes.sum()) for one in (whole, split)]
    assert sent[1] == pytest.approx(2 * sent[0])
    moved = [float(one.expert_needs[0][2].mean()) for one in (whole, split)]
    assert moved[1] == pytest.approx(moved[0], rel=0.35)  # weights, and twice the rows
    assert REDUCTION not in split.needs[1]["experts"]
