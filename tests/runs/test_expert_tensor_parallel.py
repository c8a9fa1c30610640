"""Experts split by ETP within each of the EP ranks: bytes held, tokens gathered and results scattered, in steps and deployments."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from sim.cost.curves import load_curves
from sim.documents import Document
from sim.runs import passes
from sim.runs.pass_needs import REDUCTION
from sim.runs.passes import forwards
from sim.runs.run import run_document
from sim.runs.training import Step
from sim.scenario.inference import Inference
from sim.scenario.resolve import resolve
from sim.schedule.reductions import scatter_s
from sim.workload.model import load_model, parameters

V3, MIXTRAL = load_model("deepseek-v3"), load_model("mixtral-8x7b")
REQUESTS, TOKENS = 32, 4096
DECODE = {
    "kind": "decode",
    "context_tokens": 1024,
    "requests_per_gpu": REQUESTS,
    "kernel": {"kind": "low_latency"},
}
PREFILL = {"kind": "prefill", "prompt_tokens": TOKENS, "prompts_per_gpu": 1, "kernel": {"kind": "two_hop"}}


def deployed(layout: dict[str, int], work: dict[str, Any] = DECODE) -> Document:
    """A pass of DeepSeek-V3 on two nodes whose memory is no matter."""
    tree = {
        "name": "mine", "cluster": {"hardware": "h100", "nodes": 2, "override": {"gpu.hbm.capacity": "400 GB"}},
        "model": "deepseek-v3", "layout": layout,
        "workload": {**work, "overlap": False, "gate": {"kind": "uniform", "sampling": "expected"}},
    }  # fmt: skip
    return Document(yaml.safe_load(yaml.safe_dump(tree)), "test")


def step(layout: dict[str, int]) -> Step:
    """A step of Mixtral on two nodes."""
    tree = {
        "name": "mine", "cluster": {"hardware": "h200", "nodes": 2, "override": {"gpu.hbm.capacity": "400 GB"}},
        "model": "mixtral-8x7b", "layout": layout,
        "workload": {
            "kind": "training", "global_batch": 32, "schedule": "1f1b", "overlap": False, "precision": "bf16",
            "dispatch_dtype": "bf16", "gate": {"kind": "uniform", "sampling": "expected"}, "kernel": {"kind": "nccl"},
            "skew": {"routed_load": 0, "kernel_jitter": 0, "gpu_spread": 0},
        },
    }  # fmt: skip
    return Step.from_scenario(resolve(Document(yaml.safe_load(yaml.safe_dump(tree)), "test")))


def test_a_gpu_holds_its_part_of_its_share_of_the_experts() -> None:
    held = [
        run_document(deployed(layout))["memory"][0]["routed experts"]
        for layout in ({"ep": 16}, {"ep": 8, "etp": 2}, {"ep": 8})
    ]
    assert held[1] == held[0] == held[2] / 2


@pytest.mark.parametrize(("ep", "etp"), [(8, 2), (2, 8), (1, 16)])
def test_tokens_of_experts_are_gathered_and_results_scattered_between_the_ranks_that_split_them(
    ep: int, etp: int
) -> None:
    """A token is sent to each of 8 experts in FP8 with 56 scales; without EP it is only gathered, once and in BF16."""
    found = run_document(deployed({"ep": ep, "etp": etp}))
    links = step({"pp": 1, "ep": 8}).links  # those of an H200 are an H100's
    copies, sent = (REQUESTS * etp * 8, 7168 + 4 * 56) if ep > 1 else (REQUESTS * etp, 2 * 7168)
    near = min(etp, 8)
    layer = scatter_s(links, copies * sent, etp, near) + scatter_s(links, copies * 2 * 7168, etp, near)
    assert found["where"]["reductions"] == pytest.approx(58 * layer, rel=1e-3)
    assert found["metrics"]["lower_bound_s"] < found["metrics"]["step_time_s"]


def test_a_rank_sends_no_more_because_others_split_the_experts_it_sends_to() -> None:
    """Each of 16 ranks has 8 selections of 32 tokens, of which 7 of 8 are of experts elsewhere; their latents are as they were."""
    whole, split = (resolve(deployed(layout)) for layout in ({"ep": 8}, {"ep": 8, "etp": 2}))
    sent = []
    for scenario in (whole, split):
        assert isinstance(scenario.workload, Inference)
        flows = forwards(scenario, scenario.workload, REQUESTS)[0].collectives.flows
        sent.append(sum(float(dispatch.payload_bytes.sum()) for dispatch in flows[::2]))
    assert sent[0] == sent[1] == pytest.approx(16 * REQUESTS * 8 * 7 / 8 * 7408, rel=0.01)


def test_ranks_that_split_the_vocabulary_sum_the_embeddings_of_their_tokens_and_bring_logits_together() -> (
    None
):
    """Of a pair's 64 tokens: rows of 7,168 are read from each other in one shot, 129,280 logits gathered, in BF16."""
    scenario = resolve(deployed({"ep": 16, "tp": 2}))
    assert isinstance(scenario.workload, Inference)
    forward = forwards(scenario, scenario.workload, REQUESTS)[0]
    rates = passes.links(forward.plan)
    moved_s = 2 * REQUESTS * 2 * (2 * 7168 + 129_280) / 2 / rates.scale_up_bytes_per_s
    assert passes.ends(forward)["ends"][REDUCTION].time_s == pytest.approx(
        moved_s + rates.latency_s + 4 * rates.flag_s + load_curves().streaming.launch_s
    )


def test_a_prefill_computes_as_many_rows_of_narrower_experts() -> None:
    """16 ranks x 4,096 tokens x 8 over 256 experts: 2,048 rows each, whoever splits it; a rank of ETP2 has twice the experts."""
    found = [run_document(deployed(layout, PREFILL)) for layout in ({"ep": 16}, {"ep": 8, "etp": 2})]
    one, two = (
        sum(row["flops"] for row in result["kernels"] if row["phase"] == "experts") for result in found
    )
    assert one == two == pytest.approx(6 * 16 * 2048 * 7168 * 2048, rel=0.01)
    assert found[1]["metrics"]["step_time_s"] > found[0]["metrics"]["step_time_s"]


def test_what_a_step_gathers_inside_a_block_of_experts_is_what_came_to_its_ranks() -> None:
    """By hand, of 4 ranks and 8 experts: a token's two are on 1 + (1 - 1 / 7) ranks; TP2 leaves half of the tokens to a rank."""
    made = step({"pp": 1, "ep": 4, "etp": 2, "tp": 2})
    ranks = 2 - 1 / 7
    assert made.routing.ranks_per_token == pytest.approx(ranks)
    size = TOKENS / 2 * ranks * 2 * 4096 * 2
    inside = made._inside_layers_s(made.links)
    assert (
        inside["experts(F)"] == inside["experts(B)"] == pytest.approx(2 * scatter_s(made.links, size, 2, 2))
    )
    dense = 2 * scatter_s(
        made.links, TOKENS * 4096 * 2, 2, 2
    )  # Mixtral has no shared experts for TP to reduce
    assert inside["mlp(F)"] == pytest.approx(dense)


@pytest.mark.parametrize(("ep", "etp"), [(8, 1), (8, 2), (4, 2), (1, 8)])
def test_weights_of_a_step_are_divided_by_both(ep: int, etp: int) -> None:
    count = parameters(MIXTRAL)
    experts = 32 * 8 * count.expert / (ep * etp)
    (held,) = {row.weights_bytes for row in step({"pp": 1, "ep": ep, "etp": etp}).memory}
    assert held == pytest.approx(2 * (count.total - 32 * 8 * count.expert + experts), rel=1e-3)


def test_etp_of_1_is_the_layout_without_it() -> None:
    named, left_out = (run_document(deployed({"ep": 8, "tp": 2} | etp)) for etp in ({"etp": 1}, {}))
    assert named["metrics"] == left_out["metrics"]
    trained = [step({"pp": 1, "ep": 8} | etp).alone() for etp in ({"etp": 1}, {})]
    assert trained[0] == trained[1]
