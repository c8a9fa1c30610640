"""Layouts of deployments and steps: TP across nodes, pipeline stages, experts that TP splits, and few requests in all."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from sim.documents import Document
from sim.errors import DoesNotFitError, InputError
from sim.runs.run import run_document
from sim.runs.training import Step
from sim.scenario.resolve import resolve
from sim.workload.layout import derive
from sim.workload.model import load_model, parameters
from sim.workload.stages import stages

FP8_WEIGHT = 1.0 + 4.0 / 128**2  # a byte, and an FP32 scale for each block of 128 x 128
V3 = load_model("deepseek-v3")
TWO_NODES = {"hardware": "h100", "nodes": 2}


def run(cluster: dict[str, Any], layout: dict[str, Any], **work: Any) -> dict[str, Any]:
    """A decode step of DeepSeek-V3 without overlap, every all-to-all at its mean."""
    decode = {
        "kind": "decode", "context_tokens": 1024, "overlap": False, "gate": {"kind": "uniform", "sampling": "expected"},
        "kernel": {"kind": "low_latency"}, "skew": {"kernel_jitter": 0, "gpu_spread": 0},
        **({} if "requests" in work else {"requests_per_gpu": 1}), **work,
    }  # fmt: skip
    tree = {"name": "mine", "cluster": cluster, "model": "deepseek-v3", "layout": layout, "workload": decode}
    return run_document(Document(yaml.safe_load(yaml.safe_dump(tree)), "test"))


@pytest.fixture(scope="module")
def tp16() -> dict[str, Any]:
    return run(TWO_NODES, {"tp": 16, "ep": 1}, requests=1)


# --- TP across nodes ----------------------------------------------------------------------------------------


def test_one_request_on_tp16_is_above_its_floor_and_not_above_what_was_measured(tp16: dict[str, Any]) -> None:
    """Two all-reduces a layer over two nodes at 20 us, and 37e9 B / 16 of weights at 3.35 TB/s; SGLang's 23.1 ms."""
    metrics = tp16["metrics"]
    assert metrics["tpot_s"] > 61 * 2 * 20e-6 + 37e9 / 16 / 3.35e12
    assert metrics["tpot_s"] < 23.1e-3
    assert metrics["requests_per_gpu"] == 1 / 16
    assert metrics["tokens_per_s_per_gpu"] * 16 == pytest.approx(1 / metrics["tpot_s"])
    assert metrics["exposed_comm_s"] == pytest.approx(tp16["where"]["reductions"])  # no all-to-all
    assert metrics["exposed_comm_s"] > 61 * 2 * 4 * 8e-6
    assert sum(tp16["where"].values()) == pytest.approx(metrics["step_time_s"])


def test_all_reduces_between_nodes_take_four_phases_and_those_within_one_read_memory(
    tp16: dict[str, Any],
) -> None:
    """Of NCCL's 8 us each, against a launch of 3 us, two flags and a read there and back at 0.6 us, and 15 rows of BF16 at 338 GB/s; two
    all-reduces a layer, and that of the embedding; the logits take one phase more.
    """
    domain = {"hardware": "h100", "nodes": 1, "override": {"gpu.scale_up.domain": 16}}
    within = run(domain, {"tp": 16, "ep": 1}, requests=1)["metrics"]["tpot_s"]
    read_s = 3e-6 + 4 * 0.6e-6 + 15 * 7168 * 2 / 338e9
    more_s = (2 * 61 + 1) * (4 * 8e-6 - read_s) + 8e-6
    assert tp16["metrics"]["tpot_s"] - within == pytest.approx(more_s, rel=0.03)


def test_tp_splits_everything_but_what_all_heads_read(tp16: dict[str, Any]) -> None:
    """By hand: 256 experts / 16, the shared one / 16, MLA's down-projections whole, tables / 16, gates whole."""
    (held,), count = tp16["memory"], parameters(V3)
    size = FP8_WEIGHT
    down = (1536 + 512 + 64) * 7168
    assert held["routed experts"] == pytest.approx(58 * 256 * count.expert * size / 16)
    assert held["shared experts"] == pytest.approx(58 * count.expert * size / 16)
    assert held["dense layers"] == pytest.approx(3 * count.dense_ffn * size / 16)
    assert held["embedding and head"] == pytest.approx(2 * 129280 * 7168 * 2 / 16)
    assert held["gates"] == pytest.approx(58 * 256 * 7168 * 2, rel=1e-3)
    assert held["attention"] > 61 * down * size
    assert held["cache"] == pytest.approx(
        1024 * 576 * 2 * 61
    )  # each rank keeps the latents of the only request
    assert held["communication buffers"] == 0.0


def test_experts_split_by_tp_weigh_as_much_as_experts_shared_out() -> None:
    split, shared = (
        run({"hardware": "h200", "nodes": 2}, layout, requests=16)["memory"][0]["routed experts"]
        for layout in ({"tp": 16, "ep": 1}, {"tp": 16, "ep": 16})
    )
    assert split == shared
    with pytest.raises(DoesNotFitError, match="routed experts 65"):
        run(TWO_NODES, {"tp": 16, "ep": 1, "etp": 1}, requests=16)


# --- HBM ----------------------------------------------------------------------------------------------------


def test_r1_in_fp8_fits_on_eight_h20() -> None:
    """81.8 + 2.36 + 0.32 + 0.49 + 0.15 GB of weights in nine tenths of what the driver reports; 5 to 8 GB are left."""
    asked = run({"hardware": "h20", "nodes": 1}, {"tp": 8}, context_tokens=1900)
    (held,) = asked["memory"]
    assert asked["metrics"]["memory_capacity_bytes"] == 97_871 * 2**20
    for part, gigabytes in (
        ("routed experts", 81.8), ("attention", 2.36), ("shared experts", 0.32), ("dense layers", 0.15),
    ):  # fmt: skip
        assert held[part] == pytest.approx(gigabytes * 1e9, rel=0.02)
    assert held["reserve"] + held["graphs and activations"] == pytest.approx(0.1 * 97_871 * 2**20)
    used = sum(size for part, size in held.items() if part != "cache")
    assert 5e9 < 97_871 * 2**20 - used < 8e9


# --- pipeline stages ----------------------------------------------------------------------------------------


def test_two_stages_take_as_long_as_one_of_all_layers_and_a_send_and_a_return() -> None:
    """Where requests are too few for a second microbatch, nobody waits for a turn."""
    big = {"hardware": "h100", "override": {"gpu.hbm.capacity": "200 GB"}}
    two = run({**big, "nodes": 2}, {"pp": 2, "tp": 8, "ep": 8}, requests=1)
    one = run({**big, "nodes": 1}, {"tp": 8, "ep": 8}, requests=1)
    hop = 8e-6 + 7168 * 2 / 8 / (50e9 * 0.888)
    assert two["metrics"]["step_time_s"] - one["metrics"]["step_time_s"] == pytest.approx(
        hop + 8e-6, rel=1e-6
    )
    assert two["where"]["pipeline"] == pytest.approx(hop + 8e-6, rel=1e-6)
    assert sum(two["where"].values()) == pytest.approx(two["metrics"]["step_time_s"])


def test_a_stage_holds_its_layers_and_the_cache_of_them_for_all_microbatches() -> None:
    asked = run(TWO_NODES, {"pp": 2, "tp": 8, "ep": 8}, requests_per_gpu=2)
    whole = 1024 * 576 * 2 * 8 * 2 * 2  # of a layer: two microbatches of 2 requests a GPU, on each of 8
    held, layers = asked["memory"], [len(stage.layers) for stage in stages(V3, 2)]
    assert [row["cache"] for row in held] == pytest.approx([whole * number for number in layers])
    assert [row["embedding and head"] for row in held] == pytest.approx([129280 * 7168 * 2 / 8] * 2)
    assert held[1]["dense layers"] == 0.0
    total = sum(row["routed experts"] for row in held)
    assert total == pytest.approx(58 * 256 * parameters(V3).expert * FP8_WEIGHT / 8)


def test_a_full_pipeline_turns_at_the_pace_of_its_slowest_stage() -> None:
    """Two microbatches are in flight, and the stages are cut to be as costly as each other."""
    asked = run(TWO_NODES, {"pp": 2, "tp": 8, "ep": 8}, requests_per_gpu=16)
    spent = sum(time for part, time in asked["where"].items() if part != "pipeline")
    assert asked["metrics"]["step_time_s"] >= spent
    assert asked["metrics"]["step_time_s"] < 1.15 * spent


# --- requests in all ----------------------------------------------------------------------------------------


def test_requests_in_all_are_those_of_each_gpu_together() -> None:
    cluster = {"hardware": "h200", "nodes": 2}
    each, together = (
        run(cluster, {"ep": 16}, **asked)["metrics"] for asked in ({"requests_per_gpu": 4}, {"requests": 64})
    )
    assert together == each
    few = run(cluster, {"ep": 16}, requests=8)["metrics"]
    assert few["requests_per_gpu"] == 0.5
    assert few["tpot_s"] < run(cluster, {"ep": 16}, requests_per_gpu=1)["metrics"]["tpot_s"]


# --- training -----------------------------------------------------------------------------------------------


def mixtral(**layout: int) -> dict[str, Any]:
    tree = {
        "name": "mine", "cluster": {"hardware": "h200", "nodes": 1}, "model": "mixtral-8x7b", "layout": layout,
        "workload": {
            "kind": "training", "global_batch": 8, "schedule": "1f1b", "overlap": False, "precision": "bf16",
            "dispatch_dtype": "bf16", "gate": {"kind": "uniform", "sampling": "expected"}, "kernel": {"kind": "nccl"},
            "skew": {"routed_load": 0, "kernel_jitter": 0, "gpu_spread": 0},
        },
    }  # fmt: skip
    return run_document(Document(yaml.safe_load(yaml.safe_dump(tree)), "test"))


def test_experts_of_a_training_step_are_split_over_tp_like_everything_else() -> None:
    """46.7e9 parameters / 8: 2 bytes of weight and 4 of gradient each, and 8 of optimizer, which no other GPU shares."""
    (held,) = (split := mixtral(pp=1, ep=1, tp=8))["memory"]
    count = parameters(load_model("mixtral-8x7b")).total / 8
    assert [held[part] for part in ("weights", "gradients", "optimizer")] == pytest.approx(
        [2 * count, 4 * count, 8 * count], rel=2e-3
    )
    shared = mixtral(pp=1, ep=8, tp=8)["metrics"]
    # Experts that are split return sums over TP, forward and backward; whole ones return a rank's part of the sequence.
    reduced = 8 * 32 * 2 * 2 * (7 / 8) * 2 * 4096 * 4096 / 450e9
    assert split["metrics"]["lower_bound_s"] - shared["lower_bound_s"] == pytest.approx(reduced, rel=0.01)
    assert split["metrics"]["step_time_s"] == pytest.approx(shared["step_time_s"], rel=0.15)


def test_the_block_of_a_dense_model_is_split_by_tp_without_a_word_about_experts() -> None:
    """Llama 3.1 8B: 32 blocks of 3 x 4096 x 14336 in BF16, an eighth on each of TP8; all of it where ranks are alike."""
    asked = {
        "kind": "decode", "context_tokens": 1024, "requests_per_gpu": 1, "overlap": False, "precision": "bf16",
        "gate": {"kind": "uniform"}, "kernel": {"kind": "low_latency"},
    }  # fmt: skip
    whole = 32 * 3 * 4096 * 14336 * 2
    for layout, share in (({"tp": 8}, 1 / 8), ({}, 1), ({"cp": 8}, 1)):
        tree = {
            "name": "mine", "cluster": {"hardware": "h100", "nodes": 1}, "model": "llama-3.1-8b", "layout": layout,
            "workload": asked,
        }  # fmt: skip
        found = run_document(Document(yaml.safe_load(yaml.safe_dump(tree)), "test"))
        assert found["memory"][0]["routed experts"] == whole * share
    assert (derive(8, tp=8, num_experts=1).etp, derive(8, tp=8, num_experts=8).etp) == (8, 1)


# --- order --------------------------------------------------------------------------------------------------


PP_CLOSE = "tp-cp-ep-pp-dp"


def training(**layout: Any) -> Document:
    """A step of Mixtral on two nodes."""
    tree = {
        "name": "mine", "cluster": {"hardware": "h200", "nodes": 2}, "model": "mixtral-8x7b", "layout": layout,
        "workload": {
            "kind": "training", "global_batch": 32, "schedule": "1f1b", "overlap": False, "precision": "bf16",
            "dispatch_dtype": "bf16", "gate": {"kind": "uniform", "sampling": "expected"}, "kernel": {"kind": "two_hop"},
            "skew": {"routed_load": 0, "kernel_jitter": 0, "gpu_spread": 0},
        },
    }  # fmt: skip
    return Document(yaml.safe_load(yaml.safe_dump(tree)), "test")


def test_the_order_of_the_dimensions_decides_which_groups_stay_within_a_node() -> None:
    usual, same, apart = (
        run_document(training(ep=8, **order))
        for order in ({}, {"order": "tp-cp-ep-dp-pp"}, {"order": "tp-cp-dp-ep-pp"})
    )
    assert usual["metrics"] == same["metrics"]
    assert usual["exchanges"]["dispatch"]["nodes_per_token"] == 1.0
    assert apart["exchanges"]["dispatch"]["nodes_per_token"] > 1.5
    assert apart["exchanges"]["dispatch"]["alone_s"] > 1.5 * usual["exchanges"]["dispatch"]["alone_s"]
    # Gradients of experts are then reduced between neighbours, those of everything else between all GPUs as before.
    assert apart["metrics"]["optimizer_s"] < usual["metrics"]["optimizer_s"]


def test_pipeline_neighbours_on_one_node_send_over_scale_up() -> None:
    """TP4 and EP4 take half a node each stage; with pp before dp the other half is the next stage, not a replica."""
    sizes = {"pp": 2, "tp": 4, "ep": 4}
    far, near = (
        Step.from_scenario(resolve(training(**sizes, **order))) for order in ({}, {"order": PP_CLOSE})
    )
    sent = 4096 / 4 * 4096 * 2
    assert far.send_s(far.links) == pytest.approx(sent / far.links.nic_bytes_per_s)
    assert near.send_s(near.links) == pytest.approx(sent / near.links.scale_up_bytes_per_s)
    assert near.place.ranks[:, 0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    # Who reduces with whom crosses the nodes instead.
    assert {name: step.work.layout.near(8, "dp") for name, step in (("far", far), ("near", near))} == {
        "far": 2,
        "near": 1,
    }
    with pytest.raises(InputError, match="they share pipeline stages"):
        resolve(training(pp=2, ep=8, order=PP_CLOSE))
    with pytest.raises(InputError, match="each of tp-cp-ep-dp-pp once"):
        resolve(training(pp=2, order="tp-pp"))


def test_a_deployment_places_its_ep_groups_by_the_order() -> None:
    cluster = {"hardware": "h200", "nodes": 2, "override": {"gpu.hbm.capacity": "400 GB"}}
    near, far = (
        run(cluster, {"ep": 8, **order})["exchanges"]["dispatch"]["nodes_per_token"]
        for order in ({}, {"order": "tp-cp-dp-ep-pp"})
    )
    assert (near, far) == (1.0, pytest.approx(2.0, abs=0.02))


def test_a_pool_of_serving_has_the_gpus_that_its_layout_makes() -> None:
    """Two instances of TP16 EP1 on four nodes; a token of an answer takes a step of the decode instance."""
    lengths = {"prompt": {"kind": "fixed", "mean": 1000}, "output": {"kind": "fixed", "mean": 4}}
    pool = {"layout": {"tp": 16, "ep": 1}, "plan": {"overlap": False, "kernel": {"kind": "low_latency"}}}
    tree = {
        "name": "mine", "cluster": {**TWO_NODES, "nodes": 4}, "model": "deepseek-v3",
        "workload": {
            "kind": "serving", "arrivals": {"kind": "poisson", "requests": 2, "requests_per_s": 0.01, **lengths},
            "prefill": pool, "decode": {**pool, "requests_per_gpu": 1},
        },
    }  # fmt: skip
    document = Document(yaml.safe_load(yaml.safe_dump(tree)), "test")
    assert resolve(document).workload.num_gpus == 32
    alone = run(TWO_NODES, {"tp": 16, "ep": 1}, requests=1, context_tokens=1002)["metrics"]["tpot_s"]
    served = run_document(document)["metrics"]
    assert served["token_gap"]["p50_s"] == pytest.approx(alone, rel=0.02)


def test_shared_experts_that_are_whole_are_held_by_every_rank_and_reduce_nothing() -> None:
    """58 layers have one reduction less, of 32,768 tokens in BF16 at NCCL's three quarters of NVLink; every rank has their weights."""

    def prefill(held: str) -> dict[str, Any]:
        work = {
            "kind": "prefill", "prompts_per_gpu": 1, "overlap": False, "gate": {"kind": "uniform", "sampling": "expected"},
            "kernel": {"kind": "two_hop", "comm_sms": 24}, "shared_experts": held,
        }  # fmt: skip
        tree = {"cluster": {"hardware": "h800", "nodes": 4}, "model": "deepseek-v3", "layout": {"tp": 8}}
        return run_document(Document({"name": "mine", **tree, "workload": work}, "test"))

    split, whole = prefill("split"), prefill("whole")
    weights = 58 * 3 * 7168 * 2048 * FP8_WEIGHT
    assert whole["memory"][0]["shared experts"] == pytest.approx(weights)
    assert split["memory"][0]["shared experts"] == pytest.approx(weights / 8)
    all_reduce_s = 2 * 7 / 8 * 8 * 4096 * 7168 * 2 / (200e9 * 0.752)
    less_s = split["where"]["reductions"] - whole["where"]["reductions"]
    assert less_s == pytest.approx(58 * all_reduce_s, rel=0.02)  # but for fixed times
    assert split["metrics"]["step_time_s"] - whole["metrics"]["step_time_s"] == pytest.approx(
        less_s, rel=0.05
    )


def test_a_lone_request_lies_whole_on_one_tensor_parallel_group() -> None:
    """Latents of 131,072 tokens, 61 x 576 x 2 B each, are on every GPU of its group: 9.21 GB of 80, and eight times that of eight."""
    asked = {"context_tokens": 131072, "gate": {"kind": "uniform"}}
    lone = run(TWO_NODES, {"ep": 16, "tp": 8}, **asked, requests=1)
    assert lone["metrics"]["kv_cache_bytes"] == lone["memory"][0]["cache"] == 61 * 576 * 2 * 131072
    assert 61e9 < sum(size for part, size in lone["memory"][0].items() if part != "rank") < 69e9
    with pytest.raises(
        DoesNotFitError, match=r"on each GPU, 8 a TP group.* at most 2 a TP group of 8 GPUs fit"
    ):
        run(TWO_NODES, {"ep": 16, "tp": 8}, **asked)
