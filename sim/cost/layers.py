"""Layers: the launches of one layer of a model in training, by phase.

Six phases: forward (F), input gradient (B) and weight gradient (W) of attention and of the feed-forward block. The
list of launches (casts to FP8, transposes of operands and scales, norms and up-projections computed again in the backward
pass, a gate that is not fused) is that of DeepSeek's published training profile (deepseek-ai/profile-data @4496024,
train.json); their times follow from `sim.cost.compute`. In `bf16` there is nothing to cast or to transpose.

Bytes are those a kernel must read and write once, in elements times their size; weights are shared by all tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

from sim.cost.attention import backward_passes_bytes
from sim.cost.compute import Processor
from sim.cost.launches import (
    BF16,
    FP8,
    FP32,
    ComputeTime,
    Launch,
    RankBatch,
    cast,
    experts,
    gemm,
    memory,
    norm,
    phase_time,
    transposed_cast,
    transposed_weight,
    weight,
)
from sim.workload.model import GQA, MLA, Model, mean_context_tokens

Phase = Literal["F", "B", "W"]
PHASES: tuple[Phase, ...] = ("F", "B", "W")

SAVED_ATTENTION = 1.5
"""The attention output kept for the backward pass has 12 bits an element, E5M6 [bytes]."""
INDEX = 8.0
"""One expert number of one token [bytes]."""
SMALL_GATE_KERNELS = {"F": 34, "B": 26}
"""Kernels of a few microseconds of a gate that is not fused."""
TOP_K_PASSES = 18
"""Times a radix top-k of FP32 reads its row: 16 digits of two bits, then twice to gather (PyTorch, SortingRadixSelect).

Timed as HBM bytes, though most reads hit a cache: an assumption that stands for the latency of the passes."""


def layer_phases(
    model: Model, batch: RankBatch, *, dense: bool = False, layer_idx: int = 0
) -> dict[str, list[Launch]]:
    """List the launches of one layer in training, by phase.

    Parameters
    ----------
    model : Model
    batch : RankBatch
    dense : bool
        The layer has one dense feed-forward block instead of experts.
    layer_idx : int
        Place of the layer in the model: it decides whether its attention has a window (`GQA.full_every`).

    Returns
    -------
    dict of str to list of Launch
        `attn(F)`, `attn(B)`, `attn(W)`, `mlp(F)`, `mlp(B)`, `mlp(W)`. The gate and the norm before it belong to attention, as
        dispatch follows them.

    References
    ----------
    The list of launches: deepseek-ai/profile-data @4496024, train.json.

    Examples
    --------
    >>> from sim.workload.model import load_model
    >>> phases = layer_phases(load_model("deepseek-v3"), RankBatch(1, 4096, (4096,) * 4, 2.0 * 4096))
    >>> [launch.name for launch in phases["mlp(W)"] if launch.kind == "weight_gemm"]
    ['up weight', 'down weight', 'expert up weights', 'expert down weights']
    """
    mlp = dense_mlp if dense else moe_mlp
    attn = {f"attn({x})": attention(model, batch, x, layer_idx=layer_idx, gated=not dense) for x in PHASES}
    return attn | {f"mlp({x})": mlp(model, batch, x) for x in PHASES}


@functools.lru_cache(maxsize=4096)
def layer_times(
    p: Processor, model: Model, batch: RankBatch, *, dense: bool = False, layer_idx: int = 0
) -> Mapping[str, ComputeTime]:
    """Time of each phase of one layer; kept, as a schedule asks for the same layer often.

    Parameters
    ----------
    p : Processor
    model : Model
    batch : RankBatch
    dense : bool
    layer_idx : int
        As of `layer_phases`.

    Returns
    -------
    mapping of str to ComputeTime
    """
    phases = layer_phases(model, batch, dense=dense, layer_idx=layer_idx)
    return MappingProxyType({name: phase_time(p, launches) for name, launches in phases.items()})


# --- attention --------------------------------------------------------------------------------------------


def _core(model: Model, b: RankBatch, name: str, layer_idx: int, *, backward: bool) -> Launch:
    """The attention core; credited with the attended half of the products, backward with twice the forward."""
    a = model.attention
    qk, v = (a.qk_head_dim, a.v_head_dim) if isinstance(a, MLA) else (a.head_dim, a.head_dim)
    s = b.sequence_tokens
    partial = isinstance(a, GQA) and (layer_idx + 1) % a.full_every != 0
    window = a.window if isinstance(a, GQA) and partial else None
    chunk = a.chunk if isinstance(a, GQA) and partial else None
    flops = 2.0 * a.num_heads * (qk + v) * mean_context_tokens(s, True, window, chunk) * b.tokens
    return Launch(
        name,
        "attention_backward" if backward else "attention_forward",
        rows=(s,),
        n=v,
        k=qk,
        flops=flops * (2.0 if backward else 1.0),
        heads=a.num_heads,
        kv_heads=a.num_kv_heads if isinstance(a, GQA) else a.num_heads,
        sequences=b.sequences,
        context_tokens=float(min(s, window or s, chunk or s)),
    )


def attention(
    model: Model, b: RankBatch, phase: Phase, *, layer_idx: int = 0, gated: bool = True
) -> list[Launch]:
    """Launches of attention: norm, projections, rotary embedding, core, output projection, then the norm and the gate."""
    if phase == "W":
        return [weight(b, name, n, k) for name, n, k in _projections(model)]
    t, d = b.tokens, model.hidden
    if phase == "F":
        gate = [*small_gate(model, b), *cast(b, model.hidden)] if gated else []
        scale = memory("scale", 2 * t * d * BF16)
        return [*_latents(model, b), *_core_forward(model, b, layer_idx), scale, norm(b, d), *gate]
    gate = _gate_backward(model, b) if gated else []
    scale = memory("scale", 2 * t * d * BF16)
    return [
        *gate,
        norm(b, d, backward=True),
        scale,
        *_core_backward(model, b, layer_idx),
        *_latents_backward(model, b),
    ]


def _projections(model: Model) -> list[tuple[str, int, int]]:
    """Name, outputs and inputs of the weights of attention, the output projection first."""
    a, d = model.attention, model.hidden
    if isinstance(a, GQA):
        qkv = (a.num_heads + 2 * a.num_kv_heads) * a.head_dim
        return [("o", d, a.num_heads * a.head_dim), ("qkv", qkv, d)]
    return [
        ("o", d, a.num_heads * a.v_head_dim),
        ("q up", a.num_heads * a.qk_head_dim, a.q_lora_rank),
        ("kv up", a.num_heads * (a.qk_nope_head_dim + a.v_head_dim), a.kv_lora_rank),
        ("kv down", a.kv_lora_rank + a.qk_rope_head_dim, d),
        ("q down", a.q_lora_rank, d),
    ]


def _latents(model: Model, b: RankBatch) -> list[Launch]:
    """Everything between the residual stream and the heads: a norm and the (down-) projections."""
    a, d = model.attention, model.hidden
    if isinstance(a, GQA):
        return [norm(b, d), *cast(b, d), *(gemm(b, name, n, k) for name, n, k in _projections(model)[1:])]
    return [
        norm(b, d),
        *cast(b, d),
        gemm(b, "q down", a.q_lora_rank, d),
        *cast(b, d),
        gemm(b, "kv down", a.kv_lora_rank + a.qk_rope_head_dim, d),
    ]


def _heads(model: Model, b: RankBatch, *, credited: bool) -> list[Launch]:
    """From latents to rotated queries, keys and values; run again in the backward pass for MLA."""
    a, t = model.attention, b.tokens
    if isinstance(a, GQA):
        return [memory("rotary", 2 * t * (a.num_heads + a.num_kv_heads) * a.head_dim * BF16)]
    nope, v, rope = (a.num_heads * width for width in (a.qk_nope_head_dim, a.v_head_dim, a.qk_rope_head_dim))
    return [
        norm(b, a.q_lora_rank),
        norm(b, a.kv_lora_rank),
        memory("copy latents", 2 * t * a.q_lora_rank * BF16, count=2),
        *cast(b, a.q_lora_rank),
        gemm(b, "q up", a.num_heads * a.qk_head_dim, a.q_lora_rank, credited=credited),
        *cast(b, a.kv_lora_rank),
        gemm(b, "kv up", nope + v, a.kv_lora_rank, credited=credited),
        memory("rotary key", 2 * t * a.qk_rope_head_dim * BF16),
        memory("assemble keys", t * (2 * nope + rope) * BF16),
        memory("copy values", 2 * t * v * BF16),
        memory("rotary queries", 2 * t * rope * BF16),
    ]


def _core_forward(model: Model, b: RankBatch, layer_idx: int) -> list[Launch]:
    _, d, out = _projections(model)[0]
    kept = [memory("keep output", b.tokens * out * (BF16 + SAVED_ATTENTION))] if b.precision == "fp8" else []
    return [
        *_heads(model, b, credited=True),
        _core(model, b, "attention forward", layer_idx, backward=False),
        *kept,
        *cast(b, out),
        gemm(b, "o", d, out),
    ]


def _core_backward(model: Model, b: RankBatch, layer_idx: int) -> list[Launch]:
    a, t = model.attention, b.tokens
    _, d, out = _projections(model)[0]
    qk, v = (a.qk_head_dim, a.v_head_dim) if isinstance(a, MLA) else (a.head_dim, a.head_dim)
    before, after = backward_passes_bytes(t, a.num_heads, qk, v)
    kept = [memory("restore output", t * out * (BF16 + SAVED_ATTENTION))] if b.precision == "fp8" else []
    again = _heads(model, b, credited=False) if isinstance(a, MLA) else []
    return [
        *kept,
        *cast(b, d),
        *transposed_weight(b, d * out),
        gemm(b, "o input gradient", out, d),
        *transposed_cast(b, out),
        *transposed_cast(b, d),
        *again,
        memory("attention row sums", before),
        _core(model, b, "attention backward", layer_idx, backward=True),
        memory("attention query gradient", after),
    ]


def _latents_backward(model: Model, b: RankBatch) -> list[Launch]:
    a, t, d = model.attention, b.tokens, model.hidden
    add, last = memory("add", 3 * t * d * BF16), norm(b, d, backward=True)
    if isinstance(a, GQA):
        heads = (a.num_heads + 2 * a.num_kv_heads) * a.head_dim
        rotary = memory("rotary", 2 * t * (a.num_heads + a.num_kv_heads) * a.head_dim * BF16)
        return [rotary, norm(b, d), *input_gradient(b, "qkv", heads, d), *transposed_cast(b, d), add, last]
    q, c, r = a.num_heads * a.qk_head_dim, a.kv_lora_rank, a.qk_rope_head_dim
    kv = a.num_heads * (a.qk_nope_head_dim + a.v_head_dim)
    return [
        memory("rotary queries", 2 * t * a.num_heads * r * BF16),
        *input_gradient(b, "q up", q, a.q_lora_rank),
        memory("sum rotary keys", t * a.num_heads * r * BF16),
        memory("rotary key", 2 * t * r * BF16),
        memory("assemble gradients", t * kv * BF16, count=2),
        *input_gradient(b, "kv up", kv, c),
        *transposed_cast(b, c),
        *transposed_cast(b, a.q_lora_rank),
        norm(b, c, backward=True),
        norm(b, a.q_lora_rank, backward=True),
        memory("join latents", 2 * t * (c + r) * BF16, count=5),
        norm(b, d),
        *input_gradient(b, "kv down", c + r, d),
        *transposed_cast(b, d),
        *input_gradient(b, "q down", a.q_lora_rank, d),
        *transposed_cast(b, d),
        add,
        last,
    ]


def input_gradient(b: RankBatch, name: str, outputs: int, inputs: int) -> list[Launch]:
    """dX = dY W: cast dY by rows, transpose W, multiply, and cast dY by columns for the weight gradient."""
    return [
        *cast(b, outputs),
        *transposed_weight(b, outputs * inputs),
        gemm(b, f"{name} input gradient", inputs, outputs),
        *transposed_cast(b, outputs),
    ]


def small_gate(model: Model, b: RankBatch) -> list[Launch]:
    """The gate as small launches, one after the other."""
    small = memory("gate, small kernels", b.tokens * model.num_experts * FP32, count=SMALL_GATE_KERNELS["F"])
    logits = gemm(b, "gate", model.num_experts, model.hidden, dtype="bf16")
    row_bytes = b.tokens * model.num_experts * FP32
    top = memory("gate, top-k", TOP_K_PASSES * row_bytes, count=2)
    top = replace(top, cached_bytes=(TOP_K_PASSES - 1) * row_bytes)
    return [logits, small, top]


def _gate_backward(model: Model, b: RankBatch) -> list[Launch]:
    t, d, e = b.tokens, model.hidden, model.num_experts
    small = memory("gate, small kernels", t * e * FP32, count=SMALL_GATE_KERNELS["B"])
    gradient = replace(weight(b, "gate weight", e, d), dtype="bf16")
    return [
        small,
        gemm(b, "gate input gradient", d, e, dtype="bf16"),
        gradient,
        memory("add", 3 * t * d * BF16),
    ]


# --- feed-forward block -----------------------------------------------------------------------------------


def moe_mlp(model: Model, b: RankBatch, phase: Phase) -> list[Launch]:
    """Launches of the routed experts of one rank and of the shared expert."""
    d, f = model.hidden, model.expert_hidden
    shared = _ffn(b, d, f * model.num_shared_experts, phase) if model.num_shared_experts else []
    rows, held = float(sum(b.expert_rows)), len(b.expert_rows)
    if phase == "W":
        casts = 2 * transposed_cast(b, d, rows, from_fp8=True)
        ups = weight(b, "expert up weights", 2 * f, d, b.expert_rows)
        return [*shared, *casts, ups, weight(b, "expert down weights", d, f, b.expert_rows)]
    record = FP8 if b.precision == "fp8" else BF16
    expand = memory("expand", (b.received_tokens + rows) * d * record)
    reduce = memory("reduce", (rows + b.received_tokens) * d * BF16)
    if phase == "F":
        numbers = b.received_tokens * model.top_k * INDEX
        return [
            *shared,
            memory("count rows", numbers, blocks=held),
            memory("map rows", 2 * numbers, blocks=held),
            expand,
            *transposed_weight(b, held * 2 * f * d),
            *transposed_weight(b, held * d * f),
            experts(b, "expert up", 2 * f, d),
            memory("swiglu", rows * f * (2 * BF16 + record)),
            experts(b, "expert down", d, f),
            reduce,
            *cast(b, 2 * f, rows),
        ]
    restore = [memory("restore", rows * 2 * f * (FP8 + BF16))] if b.precision == "fp8" else []
    again = [norm(b, d), *cast(b, d)] if b.precision == "fp8" else []
    return [
        *shared,
        *restore,
        expand,
        experts(b, "expert down input gradient", f, d),
        memory("swiglu again and backward", rows * f * 6 * BF16),
        memory("gate weight gradient", rows * f * 2 * BF16),
        *transposed_cast(b, f, rows),
        *again,
        *cast(b, 2 * f, rows),
        experts(b, "expert up input gradient", d, 2 * f),
        reduce,
        *transposed_cast(b, 2 * f, rows),
    ]


def dense_mlp(model: Model, b: RankBatch, phase: Phase) -> list[Launch]:
    """Launches of the feed-forward block of a dense layer."""
    again = [norm(b, model.hidden)] if phase == "B" else []
    return [*again, *_ffn(b, model.hidden, model.dense_hidden, phase)]


def _ffn(b: RankBatch, d: int, f: int, phase: Phase) -> list[Launch]:
    """A feed-forward block that every token takes, its first cast shared with what runs next to it."""
    t = b.tokens
    record = FP8 if b.precision == "fp8" else BF16
    if phase == "W":
        return [weight(b, "up weight", 2 * f, d), weight(b, "down weight", d, f)]
    if phase == "F":
        swiglu = memory("swiglu", t * f * (2 * BF16 + record))
        return [gemm(b, "up", 2 * f, d), swiglu, gemm(b, "down", d, f), *cast(b, 2 * f)]
    restore = [memory("restore", t * w * (FP8 + BF16)) for w in (2 * f, d)] if b.precision == "fp8" else []
    again = [memory("swiglu, cast and transpose", t * f * (2 * BF16 + FP8))] if b.precision == "fp8" else []
    return [
        *restore,
        *transposed_weight(b, d * f),
        gemm(b, "down input gradient", f, d),
        *transposed_cast(b, d, from_fp8=True),
        *again,
        memory("swiglu backward", t * f * 5 * BF16),
        *input_gradient(b, "up", 2 * f, d),
        *transposed_cast(b, d),
    ]
