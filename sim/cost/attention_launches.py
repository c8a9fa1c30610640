"""Attention of a layer in training: its launches by phase, for each kind of `workload.attention`.

A core over many queries is a launch of attention, or for linear kinds a batch of products in chunks: that it runs like a
grouped GEMM of the same FLOPs is assumed. An indexer (DSA) scores all earlier tokens with small heads before the core.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sim.cost.attention import backward_passes_bytes
from sim.cost.launches import (
    BF16,
    FP32,
    Launch,
    Phase,
    RankBatch,
    again,
    cast,
    gemm,
    input_gradient,
    memory,
    norm,
    quantise,
    transposed_cast,
    transposed_weight,
    weight,
)
from sim.workload.attention import (
    CHUNK_TOKENS,
    GQA,
    MLA,
    Attention,
    Index,
    Recurrent,
    mean_context_tokens,
)
from sim.workload.model import Model

SAVED_ATTENTION = 1.5
"""The attention output kept for the backward pass has 12 bits an element, E5M6 [bytes]."""


SMALL_GATE_KERNELS = {"F": 34, "B": 26}
"""Kernels of a few microseconds of a gate that is not fused."""
TOP_K_PASSES = 18
"""Times a radix top-k of FP32 reads its row: 16 digits of two bits, then twice to gather (PyTorch, SortingRadixSelect).

Timed as HBM bytes, though most reads hit a cache: an assumption that stands for the latency of the passes."""


def attention(
    model: Model, b: RankBatch, phase: Phase, *, layer_idx: int = 0, gated: bool = True
) -> list[Launch]:
    """Launches of attention: norm, projections, rotary embedding, core, output projection, then the norm and the gate."""
    layer, d = model.layer(layer_idx), model.hidden
    a = layer.attention
    if phase == "W":
        return [weight(b, name, n, k) for name, n, k in projections(a, d)] if a else []
    scale = [memory("scale", 2 * b.tokens * d * BF16)]
    if phase == "F":
        own = [*_latents(a, b, d), *_core_forward(a, b, d), *added_up(a, b, phase), *scale] if a else []
        block = [norm(b, d)] if gated or layer.mlp != "none" else []
        return [*own, *block, *([*small_gate(model, b), *cast(b, d)] if gated else [])]
    gate = _gate_backward(model, b) if gated else []
    block = [norm(b, d, backward=True)] if gated or layer.mlp != "none" else []
    own = [*scale, *_core_backward(a, b, d), *added_up(a, b, phase), *_latents_backward(a, b, d)] if a else []
    return [*gate, *block, *own]


def added_up(a: Attention, b: RankBatch, phase: Phase) -> list[Launch]:
    """Launches that add the results of a block of keys to those of the blocks before, backward gradients of queries, keys and values.

    Each reads both and writes the sum: of all rows where the block lies before both of the rank's parts of the sequence, of the later
    half where it lies between them, three quarters on average. Sums in BF16 are assumed.

    References
    ----------
    Transformer Engine, `AttnFuncWithCPAndKVP2P`.
    """
    if b.blocks == 1 or isinstance(a, Recurrent):
        return []
    qk, v = a.core_dims
    width = a.num_heads * v if phase == "F" else a.num_heads * qk + _core_kv_heads(a) * (qk + v)
    return [memory("add up blocks", 3 * 0.75 * b.tokens * width * BF16, count=b.blocks - 1)]


def projections(a: Attention, hidden: int) -> list[tuple[str, int, int]]:
    """Name, outputs and inputs of the weights of attention, the output projection first."""
    out = ("o", hidden, a.output_width)
    if isinstance(a, GQA) and a.q_lora_rank:
        return [out, *a.ups, ("kv", a.input_width - a.q_lora_rank, hidden), ("q down", a.q_lora_rank, hidden)]
    if isinstance(a, GQA):
        return [out, ("qkv", a.input_width, hidden)]
    if isinstance(a, Recurrent):
        return [out, *a.ups, ("in", a.input_width, hidden)]
    queries = a.num_heads * a.qk_head_dim
    kv = ("kv up", a.num_heads * (a.qk_nope_head_dim + a.v_head_dim), a.kv_lora_rank)
    down = ("kv down", a.latent_dim, hidden)
    index = []
    if own := a.indexer:
        index = [
            ("index queries", own.num_heads * own.head_dim, a.q_lora_rank or hidden),
            ("index keys", own.head_dim + own.num_heads, hidden),
        ]
    if a.q_lora_rank is None:
        return [out, kv, down, ("q", queries, hidden), *index]
    return [out, ("q up", queries, a.q_lora_rank), kv, down, ("q down", a.q_lora_rank, hidden), *index]


def _latents(a: Attention, b: RankBatch, d: int) -> list[Launch]:
    """Everything between the residual stream and the heads: a norm and the (down-) projections."""
    first = [norm(b, d), *cast(b, d), *quantise(b, d)]
    if not isinstance(a, MLA):
        return [*first, *(gemm(b, name, n, k) for name, n, k in projections(a, d)[:0:-1])]
    queries = a.q_lora_rank or a.num_heads * a.qk_head_dim
    return [
        *first,
        gemm(b, "q down" if a.q_lora_rank else "q", queries, d),
        *cast(b, d),
        gemm(b, "kv down", a.latent_dim, d),
    ]


def _heads(a: Attention, b: RankBatch, *, credited: bool) -> list[Launch]:
    """From latents to rotated queries, keys and values; run again in the backward pass for MLA."""
    t = b.tokens
    if isinstance(a, GQA):
        return [memory("rotary", 2 * t * (a.num_heads + a.num_kv_heads) * a.head_dim * BF16)]
    if isinstance(a, Recurrent):
        return [memory("convolution", 2 * t * a.conv_width * BF16)]
    nope, v, rope = (a.num_heads * width for width in (a.qk_nope_head_dim, a.v_head_dim, a.qk_rope_head_dim))
    q = a.q_lora_rank
    return [
        *([norm(b, q)] if q else []),
        norm(b, a.kv_lora_rank),
        *([memory("copy latents", 2 * t * q * BF16, count=2), *cast(b, q), *quantise(b, q)] if q else []),
        *([gemm(b, "q up", a.num_heads * a.qk_head_dim, q, credited=credited)] if q else []),
        *cast(b, a.kv_lora_rank),
        *quantise(b, a.kv_lora_rank),
        gemm(b, "kv up", nope + v, a.kv_lora_rank, credited=credited),
        memory("rotary key", 2 * t * a.qk_rope_head_dim * BF16),
        memory("assemble keys", t * (2 * nope + rope) * BF16),
        memory("copy values", 2 * t * v * BF16),
        memory("rotary queries", 2 * t * rope * BF16),
    ]


def _core(a: Attention, b: RankBatch, *, backward: bool) -> list[Launch]:
    """The core; credited with the attended half of the products, backward with twice the forward."""
    if isinstance(a, Recurrent):
        return [_recurrence(a, b, backward=backward)]
    qk, v = a.core_dims
    s = b.sequence_tokens
    chunk = a.chunk if isinstance(a, GQA) else None
    attended = _attended_tokens(b, a.window, chunk)
    # Chunks are sequences of their own.
    rows = min(s, chunk or s)
    core = Launch(
        "attention backward" if backward else "attention forward",
        "attention_backward" if backward else "attention_forward",
        dtype="fp8" if b.attention == "fp8" else "bf16",
        rows=(rows,),
        n=v,
        k=qk,
        flops=2.0 * a.num_heads * (qk + v) * attended * b.tokens * (2.0 if backward else 1.0),
        heads=a.num_heads,
        kv_heads=_core_kv_heads(a),
        sequences=-(-b.sequences * s // rows),
        context_tokens=float(min(rows, a.window or rows)),
        documents=b.documents.chunked(chunk) if b.documents else None,
    )
    if b.attention != "bf16" and not backward:  # its inputs in FP8, one scale a head
        width = a.num_heads * qk + _core_kv_heads(a) * (qk + v)
        core_inputs = [memory("quantise heads", b.tokens * width * (BF16 + 1.0))]
    else:
        core_inputs = []
    if isinstance(a, GQA) or a.indexer is None:
        return [*core_inputs, core]
    return [*_index_scores(a.indexer, b, backward=backward), *core_inputs, core]


def _attended_tokens(b: RankBatch, window: float | None, chunk: float | None) -> Any:
    """Tokens that the mean query attends to, with documents of each rank and microbatch."""
    if b.documents is not None:
        return b.documents.attended_tokens(window, chunk)
    return mean_context_tokens(b.sequence_tokens, True, window, chunk)


def _core_kv_heads(a: MLA | GQA) -> int:
    """Heads of keys and values that the core reads: those of MLA are as many as its queries', or latents that all share."""
    if isinstance(a, GQA):
        return a.num_kv_heads
    return 1 if a.index else a.num_heads


def _index_scores(index: Index, b: RankBatch, *, backward: bool) -> list[Launch]:
    """Scores of all earlier tokens, and forward the choice of the best; timed as a core without values."""
    s = b.sequence_tokens
    attended = _attended_tokens(b, None, None)
    scores = Launch(
        "index scores",
        "attention_backward" if backward else "attention_forward",
        rows=(s,),
        n=0,
        k=index.head_dim,
        flops=2.0 * index.num_heads * index.head_dim * attended * b.tokens * (2.0 if backward else 1.0),
        heads=index.num_heads,
        kv_heads=1,
        sequences=b.sequences,
        context_tokens=float(s),
        documents=b.documents,
    )
    return [scores] if backward else [scores, memory("index top-k", 2 * b.tokens * attended * FP32)]


def _recurrence(a: Recurrent, b: RankBatch, *, backward: bool) -> Launch:
    """Chunks: products inside each, and of each with the state; for each head one GEMM of as many FLOPs."""
    s = a.state
    inside = CHUNK_TOKENS * (s.key_dim + s.value_dim) / s.value_dim * (s.products - 1)
    return Launch(
        "recurrence backward" if backward else "recurrence",
        "grouped_gemm",
        rows=(b.tokens,) * s.num_heads,
        n=s.value_dim,
        k=round(s.products * s.key_dim + inside),
        count=2 if backward else 1,
        flops=a.core_flops(b.sequence_tokens, True) * b.tokens,
    )


def _core_forward(a: Attention, b: RankBatch, d: int) -> list[Launch]:
    out = a.output_width
    kept = [memory("keep output", b.tokens * out * (BF16 + SAVED_ATTENTION))] if b.is_blockwise else []
    return [
        *_heads(a, b, credited=True),
        *_index_projections(a, b, d),
        *_core(a, b, backward=False),
        *kept,
        *cast(b, out),
        *quantise(b, out),
        gemm(b, "o", d, out),
    ]


def _index_projections(a: Attention, b: RankBatch, d: int) -> list[Launch]:
    return [gemm(b, name, n, k) for name, n, k in projections(a, d) if name.startswith("index")]


def _core_backward(a: Attention, b: RankBatch, d: int) -> list[Launch]:
    t, out = b.tokens, a.output_width
    kept = [memory("restore output", t * out * (BF16 + SAVED_ATTENTION))] if b.is_blockwise else []
    passes: list[Launch] = _core(a, b, backward=True)
    if not isinstance(a, Recurrent):
        before, after = backward_passes_bytes(t, a.num_heads, *a.core_dims)
        passes = [
            memory("attention row sums", before),
            *passes,
            memory("attention query gradient", after),
        ]
    heads = isinstance(a, MLA) and "mla_up_proj" in b.recomputed
    return [
        *kept,
        *cast(b, d),
        *quantise(b, d),
        *transposed_weight(b, d * out),
        gemm(b, "o", out, d, gradient="input_gradient", turned=True),
        *transposed_cast(b, out),
        *transposed_cast(b, d),
        *(_heads(a, b, credited=False) if heads else []),
        *(again(_core(a, b, backward=False)) if "core_attn" in b.recomputed else []),
        *passes,
    ]


def _latents_backward(a: Attention, b: RankBatch, d: int) -> list[Launch]:
    t = b.tokens
    add, last = memory("add", 3 * t * d * BF16), norm(b, d, backward=True)
    first = [norm(b, d)] if "layernorm" in b.recomputed else []
    if not isinstance(a, MLA):
        rotary = _heads(a, b, credited=False)
        gradients = [op for name, n, k in projections(a, d)[1:] for op in input_gradient(b, name, n, k)]
        return [*rotary, *first, *gradients, *transposed_cast(b, d), add, last]
    q, c, r = a.num_heads * a.qk_head_dim, a.kv_lora_rank, a.qk_rope_head_dim
    kv, low = a.num_heads * (a.qk_nope_head_dim + a.v_head_dim), a.q_lora_rank
    index = [
        launch
        for name, n, k in projections(a, d)
        if name.startswith("index")
        for launch in input_gradient(b, name, n, k)
    ]
    return [
        *index,
        memory("rotary queries", 2 * t * a.num_heads * r * BF16),
        *(input_gradient(b, "q up", q, low) if low else []),
        memory("sum rotary keys", t * a.num_heads * r * BF16),
        memory("rotary key", 2 * t * r * BF16),
        memory("assemble gradients", t * kv * BF16, count=2),
        *input_gradient(b, "kv up", kv, c),
        *transposed_cast(b, c),
        *(transposed_cast(b, low) if low else []),
        norm(b, c, backward=True),
        *([norm(b, low, backward=True)] if low else []),
        memory("join latents", 2 * t * (c + r) * BF16, count=5),
        *first,
        *input_gradient(b, "kv down", c + r, d),
        *transposed_cast(b, d),
        *(input_gradient(b, "q down", low, d) if low else input_gradient(b, "q", q, d)),
        *transposed_cast(b, d),
        add,
        last,
    ]


def small_gate(model: Model, b: RankBatch) -> list[Launch]:
    """The gate as small launches, one after the other."""
    if not model.has_gate:
        return []
    small = memory("gate, small kernels", b.tokens * model.gate_width * FP32, count=SMALL_GATE_KERNELS["F"])
    logits = gemm(b, "gate", model.gate_width, model.hidden, dtype="bf16")
    row_bytes = b.tokens * model.gate_width * FP32
    top = memory("gate, top-k", TOP_K_PASSES * row_bytes, count=2)
    top = replace(top, cached_bytes=(TOP_K_PASSES - 1) * row_bytes)
    return [logits, small, top]


def _gate_backward(model: Model, b: RankBatch) -> list[Launch]:
    if not model.has_gate:
        return []
    t, d, e = b.tokens, model.hidden, model.gate_width
    small = memory("gate, small kernels", t * e * FP32, count=SMALL_GATE_KERNELS["B"])
    gradient = replace(weight(b, "gate weight", e, d, of="gate"), dtype="bf16")
    return [
        small,
        gemm(b, "gate", d, e, dtype="bf16", turned=True),
        gradient,
        memory("add", 3 * t * d * BF16),
    ]
