"""The lower bound of a pass: its FLOPs by hand, each at the peak of its own format, and no pass below it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_inference import DECODE, PREFILL, document, metrics

import sim
from sim.cluster.hardware import load_hardware
from sim.errors import InfeasibleError, InputError
from sim.runs.run import run_document
from sim.workload.model import load_model

V2 = load_model("deepseek-v2")
HALF = {"value": 0.5, "grade": "assumed", "why": "a test"}
FASTER = {"kind": "two_hop", "override": {"beside_compute_slowdown": {"dispatch": HALF, "combine": HALF}}}
"""Exchanges that are quicker beside compute than alone."""
ROOMY = {"gpu.hbm.capacity": "10 TB"}


def bounds(tree: dict[str, Any], **settings_: Any) -> dict[str, float]:
    found: dict[str, float] = run_document(document(tree, **settings_))["bounds"]
    return found


def decode_flops(requests: int, context_tokens: int) -> tuple[float, float]:
    """FLOPs of a decode step of DeepSeek-V2 on one GPU, in FP8 and in BF16: two for a multiply and an add."""
    d, heads, latent, rope, nope, v = V2.hidden, 128, 512, 64, 128, 128
    moe, layers = V2.num_moe_layers, V2.num_layers
    projections = d * (1536 + latent + rope) + 1536 * heads * (nope + rope) + heads * v * d
    experts = 3 * d * V2.expert_hidden * (V2.top_k + V2.num_shared_experts)
    fp8 = layers * projections + moe * experts + V2.num_dense_layers * 3 * d * V2.dense_hidden
    core = heads * context_tokens * (2 * latent + rope)
    absorbed = heads * latent * (nope + v)
    bf16 = layers * (core + absorbed) + moe * d * V2.num_experts + d * V2.vocab
    return 2.0 * requests * fp8, 2.0 * requests * bf16


@pytest.mark.parametrize("name", ["h800", "h20"])
def test_a_decode_step_computes_its_projections_in_fp8_and_its_core_in_bf16(name: str) -> None:
    peaks = load_hardware(name).gpu.dense_flops
    # 80 requests make 24 rows an expert and microbatch: nothing is rounded.
    found = bounds(DECODE, cluster__hardware=name, cluster__override=ROOMY, workload__requests_per_gpu=80)
    fp8, bf16 = decode_flops(80, 2048)
    assert peaks.fp8 is not None
    assert found["compute"] == pytest.approx(fp8 / peaks.fp8 + bf16 / peaks.bf16, rel=1e-6)
    assert bf16 / peaks.bf16 > fp8 / peaks.fp8  # or the formats would not matter


def test_a_step_of_two_microbatches_reads_its_weights_twice_and_its_cache_once() -> None:
    few, many = (
        bounds(
            DECODE,
            cluster__override=ROOMY,
            workload__requests_per_gpu=80,
            workload__context_tokens=n,
            workload__overlap=True,
        )
        for n in (2048, 4096)
    )
    cache = 80 * 2048 * 2 * (512 + 64) * V2.num_layers
    assert (many["hbm"] - few["hbm"]) * 3.35e12 == pytest.approx(cache, rel=1e-9)
    once = bounds(DECODE, cluster__override=ROOMY, workload__requests_per_gpu=80, workload__overlap=False)[
        "hbm"
    ]
    experts = 10 * 3 * V2.hidden * V2.expert_hidden * V2.num_moe_layers  # of a rank, a byte each
    assert (few["hbm"] - once) * 3.35e12 > experts


def test_what_an_h20_lacks_in_flops_bounds_its_decode() -> None:
    """28 requests of 4,989 tokens, two tokens each: 2 x 128 heads x 1,088 FLOP a token of context in 62 layers at 148 TFLOP/s."""
    settings_ = {
        "cluster.hardware": "h20",
        "cluster.nodes": 8,
        "workload.placement.redundant_experts": 64,
        "workload.requests_per_gpu": 28,
        "expect": {},
    }
    found = sim.run("v3-decode-ep144", settings_)
    core_s = 28 * 2 * 4989 * 2 * 128 * 1088 * 62 / 148e12
    assert core_s == pytest.approx(32.6e-3, rel=1e-2)
    step_bound_s = found["metrics"]["lower_bound_s"] * found["metrics"]["accepted_tokens_per_step"]
    assert core_s < step_bound_s < found["metrics"]["step_time_s"]
    assert found["bounds"]["compute"] == step_bound_s


# --- properties -----------------------------------------------------------------------------------------------------

common = {
    "cluster__hardware": st.sampled_from(["a100", "h20", "h800", "h100", "b200"]),
    "model": st.sampled_from(["deepseek-v2", "mixtral-8x7b", "gpt-oss-120b", "qwen3-235b-a22b"]),
    "workload__overlap": st.booleans(),
    "workload__precision": st.sampled_from([None, "bf16"]),
    "workload__fused_gate": st.booleans(),
    "workload__gate": st.sampled_from(
        [
            {"kind": "uniform", "sampling": "expected"},
            {"kind": "balanced", "sampling": "expected"},
            {"kind": "zipf", "exponent": 0.8},
        ]
    ),
    "cluster__override": st.fixed_dictionaries(
        {"gpu.hbm.capacity": st.just("100 TB")},
        optional={
            "gpu.dense_flops.bf16": st.sampled_from(["10 TFLOP/s", "5000 TFLOP/s"]),
            "gpu.hbm.bandwidth": st.sampled_from(["200 GB/s", "50 TB/s"]),
            "nic.bandwidth": st.sampled_from(["25 Gb/s", "3200 Gb/s"]),
        },
    ),
    "layout": st.sampled_from([{"ep": 16}, {"ep": 8}, {"ep": 16, "tp": 2}, {"ep": 8, "tp": 8}]),
}
decodes = st.fixed_dictionaries(
    common
    | {
        "workload__requests_per_gpu": st.sampled_from([1, 2, 7, 64, 512]),
        "workload__context_tokens": st.sampled_from([1, 64, 2048, 50_000]),
        "workload__kv_dtype": st.sampled_from(["bf16", "fp8"]),
        "workload__kernel": st.sampled_from(
            [{"kind": "low_latency"}, {"kind": "low_latency", "nvlink": False}, {"kind": "two_hop"}, FASTER]
        ),
    }
)
prompts = st.sampled_from(
    [(16, 0, None), (4096, 0, None), (4096, 4080, None), (4096, 1000, 516), (300, 299, None)]
)
prefills = st.fixed_dictionaries(
    common
    | {
        "prompt": prompts,
        "workload__prompts_per_gpu": st.sampled_from([2, 8]),
        "workload__kernel": st.sampled_from([{"kind": "two_hop"}, {"kind": "nccl"}, FASTER]),
    }
)


def no_pass_is_below_its_bound(tree: dict[str, Any], **changes: Any) -> None:
    if "prompt" in changes:
        names = ("prompt_tokens", "cached_tokens", "chunk_tokens")
        pairs = zip(names, changes.pop("prompt"), strict=True)
        changes |= {f"workload__{name}": value for name, value in pairs if value}
    try:
        found = metrics(tree, workload__drawn_layers=1, **changes)
    except (InfeasibleError, InputError):  # the model has no such layout
        return
    latency_s = found["tpot_s"] if "tpot_s" in found else found["ttft_s"]
    assert 0 < found["lower_bound_s"] <= latency_s * (1 + 1e-12)


@settings(max_examples=15, deadline=None)
@given(changes=decodes)
def test_no_decode_step_is_below_its_bound(changes: dict[str, Any]) -> None:
    no_pass_is_below_its_bound(DECODE, **changes)


@settings(max_examples=10, deadline=None)
@given(changes=prefills)
def test_no_prefill_pass_is_below_its_bound(changes: dict[str, Any]) -> None:
    no_pass_is_below_its_bound(PREFILL, **changes)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(changes=decodes)
def test_no_decode_step_of_many_is_below_its_bound(changes: dict[str, Any]) -> None:
    no_pass_is_below_its_bound(DECODE, **changes)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(changes=prefills)
def test_no_prefill_pass_of_many_is_below_its_bound(changes: dict[str, Any]) -> None:
    no_pass_is_below_its_bound(PREFILL, **changes)
