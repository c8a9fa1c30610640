"""Serving on pools of unlike hardware: each pool as it is by itself, and KV between them at the rate of the slower NIC."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from sim.cluster.kernels import load_kernel
from sim.errors import InputError
from sim.runs.result import provenance
from sim.runs.run import run_document
from sim.runs.service import places, service_of
from sim.runs.service_faults import at_fault, instance_faults
from sim.scenario import settings as scenario_settings
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.scenario.resolve import resolve
from sim.scenario.serving import Serving
from sim.schedule.serving import PassWork, Service

KV = 27 * 576 * 2
"""Bytes of a token of DeepSeek-V2-Lite in BF16: a latent of 512 and a key of 64 in each of 27 layers."""
POOLS = {
    "a": {"hardware": "h800", "nodes": 2, "override": {"cost.gpu_hour": "5 $/GPU-hour"}},
    "b": {
        "hardware": {"chip": "h20", "node": "dgx-4nic"},
        "nodes": 2,
        "override": {"nic.bandwidth": "200 Gb/s"},
    },
}
"""Two GPUs of b share a NIC of half the rate."""


def tree(
    cluster: dict[str, Any], prefill: str | None = None, decode: str | None = None, **changes: Any
) -> Any:
    plan = {"gate": {"kind": "uniform", "sampling": "expected"}, "kv_dtype": "bf16", "overlap": False}
    fixed = {"kind": "fixed", "mean": 3000}
    work = {
        "kind": "serving",
        "arrivals": {"kind": "poisson", "requests": 1, "requests_per_s": 1, "prompt": fixed, "output": fixed},
        "prefill": {"ep": 8, "plan": plan | {"kernel": {"kind": "two_hop", "comm_sms": 24}}},
        "decode": {"ep": 8, "requests_per_gpu": 8, "plan": plan | {"kernel": {"kind": "low_latency"}}},
    }
    for name, pool in (("prefill", prefill), ("decode", decode)):
        work[name] |= {"pool": pool} if pool else {}
    for key, value in changes.items():
        pool, _, name = key.partition("_")
        work[pool][name] = value
    return {"name": "mine", "cluster": cluster, "model": "deepseek-v2-lite", "workload": work}


def scenario(*args: Any, **changes: Any) -> Scenario:
    return resolve(scenario_settings.read(tree(*args, **changes)))


@cache
def service(*names: str) -> Service:
    """The service of two pools, or of a cluster of one of them."""
    if len(names) == 2:
        return service_of(scenario({"pools": POOLS}, *names), lambda _: None)
    return service_of(scenario(POOLS[names[0]]), lambda _: None)


@cache
def metrics() -> dict[str, Any]:
    found = run_document(scenario_settings.read(tree({"pools": POOLS}, "a", "b")))["metrics"]
    assert isinstance(found, dict)
    return found


def test_a_pool_costs_what_it_costs_on_a_cluster_of_its_own() -> None:
    """Prefill as on H800 alone, decode as on H20 alone; the other way round it is not."""
    both, compute, memory = service("a", "b"), service("a"), service("b")
    nobody = np.zeros(8, dtype=np.int64), np.zeros(8)
    prompts = PassWork({0: [(3000, 0)], 3: [(500, 2500)]}, *nobody)
    step = PassWork({}, np.full(8, 3), np.full(8, 9000.0))
    assert both.prefill_s(prompts) == compute.prefill_s(prompts) < memory.prefill_s(prompts)
    assert both.decode_step_s(step) == memory.decode_step_s(step) != compute.decode_step_s(step)
    assert both.decode is not None
    assert memory.decode is not None
    assert both.prefill == compute.prefill
    assert both.decode == memory.decode


def test_kv_of_a_lone_request_takes_its_bytes_over_the_narrower_nic() -> None:
    """3,000 tokens at what NCCL reaches of 25 GB/s, and the latency of a send."""
    nccl = load_kernel("nccl")
    expected = 3000 * KV / (25e9 * nccl.nic_efficiency_fraction) + service("a", "b").transfer_latency_s
    assert metrics()["kv_transfer"]["mean_s"] == pytest.approx(expected, rel=1e-9)
    assert 5e-6 < service("a", "b").transfer_latency_s < 100e-6


def test_kv_is_what_the_group_that_prefills_holds() -> None:
    """A group of TP 2 keeps a latent twice and sends both, to a rank of decode that has room for one."""
    plan = {"prefill_ep": None, "prefill_layout": {"tp": 2, "ep": 8}}
    split = service_of(scenario({"pools": POOLS}, "a", "b", **plan), lambda _: None)
    assert split.kv_bytes_per_token == 2 * KV
    assert split.decode is not None
    assert split.decode.kv_bytes_per_token == KV == service("a", "b").kv_bytes_per_token
    assert split.rank_capacity_tokens(split.decode) == service("b").rank_capacity_tokens(split.decode)


def test_gpus_are_rented_and_powered_by_their_pools() -> None:
    """8 H800 at 5 $ and 8 H20 at 1.85 $ for the whole time; none draws more than its TDP nor less than when idle."""
    found = metrics()
    rent = 8 * (5 + 1.85) * found["makespan_s"] / 3600
    assert found["cost_usd_per_million_tokens"] == pytest.approx(rent / 3000 * 1e6)
    seconds = 8 * found["makespan_s"]
    assert found["energy"]["gpu_kwh"] * 3.6e6 < seconds * (700 + 400)
    assert found["energy"]["gpu_w"] == pytest.approx(found["energy"]["gpu_kwh"] * 3.6e6 / seconds / 2)
    assert found["energy"]["per_token_j"] * 3000 == pytest.approx(found["energy"]["total_kwh"] * 3.6e6)


def test_a_result_says_what_it_leans_on_in_every_pool_and_what_export_rules_say_of_each() -> None:
    origin = provenance(scenario({"pools": POOLS}, "a", "b"))
    assert set(origin["pools"]) == {"b"}  # the first is the result's own
    assert origin["pools"]["b"]["hardware"]["overrides"] == {"nic.bandwidth": "200 Gb/s"}
    flagged = {
        name: {row["rule"]: row["holds"] for row in part["export_rules"]["verdicts"]}
        for name, part in (("a", origin), ("b", origin["pools"]["b"]))
    }
    assert (flagged["a"]["R2023.a"], flagged["b"]["R2023.a"]) == (True, False)
    assert {"cost.gpu_hour", "b.nic.bandwidth"} <= {
        row["key"] for row in origin["leaned_on"] if row["grade"] == "override"
    }


def test_instances_stand_one_after_the_other_on_their_pools_and_have_the_faults_there() -> None:
    """Node 3 of the cluster is the second of b."""
    faults = {"pools": POOLS, "faults": [{"node": 3, "clock": "50 %"}]}
    whole = scenario(faults, "a", "b", decode_instances=2)
    work = whole.workload
    assert isinstance(work, Serving)
    prefills, decodes = places(whole, work)
    assert [gpus.tolist() for gpus in (*prefills, *decodes)] == [
        [*range(8)], [*range(8)], [*range(8, 16)],
    ]  # fmt: skip
    assert instance_faults(whole, work.prefill, prefills[0]) == ()
    assert instance_faults(whole, work.decode, decodes[0]) == ()
    slow = at_fault(work.decode, instance_faults(whole, work.decode, decodes[1]))
    assert slow.slowness().tolist() == [2.0] * 8
    both = scenario({"pools": POOLS}, "a", "a")
    work = both.workload
    assert isinstance(work, Serving)
    assert [gpus[0] for pool in places(both, work) for gpus in pool] == [0, 8]


@pytest.mark.parametrize(
    ("cluster", "pools", "changes", "place", "words"),
    [
        ({"pools": POOLS}, (), {}, "workload.prefill", ["the key 'pool'", "a, b"]),
        ({"pools": POOLS}, ("a", "c"), {}, "workload.decode.pool", ["'c'", "one of: a, b"]),
        (POOLS["a"], ("a", "a"), {}, "workload.prefill.pool", ["a cluster of 'pools'"]),
        ({"pools": POOLS, "pool": "a"}, ("a", "b"), {}, "workload.prefill.pool", ["next to cluster.pool"]),
        ({"pools": POOLS, "gpus": 8}, ("a", "b"), {}, "cluster.gpus", ["first nodes of their pools"]),
        ({"pools": POOLS}, ("a", "b"), {"decode_instances": 0}, "workload.decode.pool", ["'a', that of the prefill"]),
        ({"pools": POOLS}, ("a", "b"), {"decode_instances": 3}, "cluster.pools.b.nodes", ["3 or more", "24 GPUs"]),
        ({"pools": POOLS, "faults": [{"link": "node3/nic2/tx", "bandwidth": "50 %"}]}, ("a", "b"), {}, "cluster.faults.0", ["NICs, rails and GPUs: serving"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_pools_of_serving_is_named(
    cluster: Any, pools: tuple[str, ...], changes: dict[str, Any], place: str, words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        scenario(cluster, *pools, **changes)
    problem = str(caught.value.problems[0])
    assert place in problem
    assert all(word in problem for word in words), problem


def test_a_deployment_may_stand_on_one_pool_as_on_a_cluster_of_it() -> None:
    on_pool = service_of(scenario({"pools": POOLS, "pool": "b"}), lambda _: None)
    step = PassWork({}, np.full(8, 3), np.full(8, 9000.0))
    assert on_pool.decode_step_s(step) == service("b").decode_step_s(step)


def test_speculated_tokens_may_be_accepted_by_their_place_in_the_step() -> None:
    plan = {"tokens_per_step": 3, "acceptance": ["80 %", "50 %"]}
    changes = [f"workload.decode.plan.{key}={value}" for key, value in plan.items()]
    document = scenario_settings.read("serving-example", changes)
    work = resolve(scenario_settings.variants(document)["apart"]).workload
    assert isinstance(work, Serving)
    decode = work.decode.workload
    assert isinstance(decode, Inference)
    assert decode.acceptance == (0.8, 0.5)
    assert decode.accepted_tokens == pytest.approx(1 + 0.8 + 0.8 * 0.5)
