"""Layers in serving: what each part of a layer takes on one GPU, kernel by kernel, in prefill and in decode.

Parts are cut where communication starts or ends. Prefill: `attention` (to the gate), `shared` (shared experts), `experts`;
decode: `attention_0` (norm and projections before the core), `attention_1` (core, output projection, gate), `shared`,
`experts`. `dense` is the feed-forward block of a layer without experts. Each function returns name -> time [s].

Prefill runs the forward kernels of training (`cost.layers`) without what is there for the backward pass. Decode has its own
list: MLA is absorbed (queries go through the key up-projection and meet the latents, the results through the value
up-projection), kernels are replayed from a graph and fused as serving engines do: norm with residual and cast, rotary
embedding with the write into the cache, gate logits to experts in one kernel. Its kernels are so short that each one's
launch counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sim.cost import layers
from sim.cost.attention import attention_forward_s, gqa_decode_s, mla_decode_s
from sim.cost.compute import Dtype, Processor, gemm_s, grouped_gemm_s, streaming_s
from sim.cost.layers import BF16, FP8, FP32
from sim.cost.operations import Batch, Operation, operation_s
from sim.workload.model import GQA, MLA, Model

Times = Mapping[str, float]

_FOR_BACKWARD = ("keep output", "transpose weight", "cast", "transpose scales")
"""Kernels of a training forward that only the backward pass needs; casts are needed in attention, where they feed GEMMs."""


@dataclass(frozen=True, slots=True)
class PrefillBatch:
    """What one GPU prefills at once: prompts, the tokens of each computed now, and those already in the cache."""

    sequences: int
    new_tokens: int
    cached_tokens: int = 0
    tp: int = 1
    precision: Dtype = "fp8"
    fused_gate: bool = True

    @property
    def tokens(self) -> int:
        """Tokens computed on this GPU."""
        return self.sequences * self.new_tokens


@dataclass(frozen=True, slots=True)
class DecodeBatch:
    """What one GPU decodes at once: requests, query tokens of each, and their mean context."""

    requests: float
    queries: int
    context_tokens: float
    tp: int = 1
    precision: Dtype = "fp8"
    kv_bytes_per_element: float = BF16
    fused_gate: bool = True

    @property
    def tokens(self) -> int:
        """Tokens computed on this GPU, rounded up."""
        return max(1, math.ceil(self.requests * self.queries))

    @property
    def group_tokens(self) -> int:
        """Tokens of the tensor-parallel group, which every rank of it projects with its part of the heads."""
        return self.tokens * self.tp


# --- prefill ----------------------------------------------------------------------------------------------


def prefill_attention(
    p: Processor, model: Model, b: PrefillBatch, layer_idx: int, *, gated: bool = True
) -> Times:
    """Norms, projections, core and gate of one layer.

    Notes
    -----
    The core of a prompt of which c tokens are cached is that of the whole prompt less that of its first c tokens. Their
    latents are projected again to keys and values (MLA keeps only latents). TP: every rank has its part of the heads for
    the tokens of its whole group, so times are those of its own tokens.
    """
    batch = Batch(b.sequences, b.new_tokens, precision=b.precision)
    fused = _fused_gate(p, model, b.tokens) if gated and b.fused_gate else {}
    ops = layers.attention(model, batch, "F", layer_idx=layer_idx, gated=gated and not b.fused_gate)
    times = _sums(p, (op for op in ops if op.kind != "attention_forward" and op.name != "keep output"))
    core = next(op for op in ops if op.kind == "attention_forward")
    times["attention core"] = _core_s(p, core, b)
    a = model.attention
    if b.cached_tokens and isinstance(a, MLA):
        width = a.num_heads * (a.qk_nope_head_dim + a.v_head_dim)
        rows = b.sequences * b.cached_tokens
        times["kv up, cached"] = gemm_s(p, rows, width, a.kv_lora_rank, b.precision)
    return times | fused


def _core_s(p: Processor, op: Operation, b: PrefillBatch) -> float:
    def whole(tokens: int) -> float:
        window = min(op.context_tokens, tokens) if op.context_tokens < b.new_tokens else None
        return attention_forward_s(p, b.sequences, tokens, op.heads, op.k, op.n, context_tokens=window)

    before = whole(b.cached_tokens) - p.curves.streaming_launch_s if b.cached_tokens else 0.0
    return whole(b.cached_tokens + b.new_tokens) - before


def prefill_shared(p: Processor, model: Model, b: PrefillBatch) -> Times:
    """The shared experts, on this GPU's own tokens."""
    if not model.num_shared_experts:
        return {}
    return _ffn_prefill(p, b, model.hidden, model.expert_hidden * model.num_shared_experts)


def prefill_dense(p: Processor, model: Model, b: PrefillBatch) -> Times:
    """The feed-forward block of a dense layer."""
    return _ffn_prefill(p, b, model.hidden, model.dense_hidden)


def prefill_experts(
    p: Processor, model: Model, b: PrefillBatch, rows: Sequence[float], received_tokens: float
) -> Times:
    """Routed experts of one rank.

    `rows` [num_local_experts]: (token, expert) pairs of each; `received_tokens`: distinct tokens that came.
    """
    batch = Batch(
        b.sequences,
        b.new_tokens,
        expert_rows=tuple(round(r) for r in rows),
        received_tokens=received_tokens,
        precision=b.precision,
    )
    alone = _without_shared(model)
    return _sums(p, (op for op in layers.moe_mlp(alone, batch, "F") if op.name not in _FOR_BACKWARD))


def _without_shared(model: Model) -> Model:
    """The model without shared experts: what its routed experts take alone."""
    return replace(model, num_shared_experts=0)


def _ffn_prefill(p: Processor, b: PrefillBatch, d: int, f: int) -> dict[str, float]:
    t, record = b.tokens, FP8 if b.precision == "fp8" else BF16
    return {
        "up": gemm_s(p, t, 2 * f, d, b.precision),
        "swiglu": streaming_s(p, t * f * (2 * BF16 + record)),
        "down": gemm_s(p, t, d, f, b.precision),
    }


def _fused_gate(p: Processor, model: Model, tokens: int) -> dict[str, float]:
    """Gate logits in BF16, then scores, groups and top-k of a token in one kernel."""
    if not model.num_experts:
        return {}
    logits = gemm_s(p, tokens, model.num_experts, model.hidden, "bf16")
    return {"gate": logits, "top-k": streaming_s(p, tokens * model.num_experts * 2 * FP32)}


def _sums(p: Processor, ops: Iterable[Operation]) -> dict[str, float]:
    found: dict[str, float] = {}
    for op in ops:
        found[op.name] = found.get(op.name, 0.0) + float(operation_s(p, op))
    return found


# --- decode -----------------------------------------------------------------------------------------------


def decode_attention_0(p: Processor, model: Model, b: DecodeBatch) -> Times:
    """From the residual stream to the queries: what can run before the core."""
    a, d, t = model.attention, model.hidden, b.group_tokens
    record = FP8 if b.precision == "fp8" else BF16
    times = {"add, norm and cast": streaming_s(p, t * d * (3 * BF16 + record))}
    if isinstance(a, GQA):
        width = (a.num_heads + 2 * a.num_kv_heads) // b.tp * a.head_dim
        times["qkv"] = gemm_s(p, t, width, d, b.precision)
        times["rotary and cache"] = streaming_s(p, 2 * t * width * BF16)
        return times
    heads, latent = a.num_heads // b.tp, a.kv_lora_rank + a.qk_rope_head_dim
    times["q and kv down"] = gemm_s(p, t, a.q_lora_rank + latent, d, b.precision)
    times["norms and cast of latents"] = streaming_s(p, t * (a.q_lora_rank + latent) * (BF16 + record))
    times["q up"] = gemm_s(p, t, heads * a.qk_head_dim, a.q_lora_rank, b.precision)
    times["absorb keys"] = grouped_gemm_s(
        p, (t,) * heads, a.kv_lora_rank, a.qk_nope_head_dim, "bf16", layout="masked"
    )
    times["rotary and cache"] = streaming_s(p, 2 * t * (heads * a.qk_rope_head_dim + latent) * BF16)
    return times


def decode_attention_1(
    p: Processor, model: Model, b: DecodeBatch, layer_idx: int, *, gated: bool = True
) -> Times:
    """Core, output projection, norm and gate."""
    a, d, t = model.attention, model.hidden, b.group_tokens
    record = FP8 if b.precision == "fp8" else BF16
    requests, heads = b.requests * b.tp, a.num_heads // b.tp
    # The stream of a cache in FP8 is half; the products stay in BF16.
    share = b.kv_bytes_per_element / BF16
    times: dict[str, float] = {}
    if isinstance(a, GQA):
        context = _attended(a, b.context_tokens, layer_idx)
        kv_heads = max(1, a.num_kv_heads // b.tp)
        reading = replace(p, hbm_bytes_per_s=p.hbm_bytes_per_s / share)
        times["attention core"] = gqa_decode_s(
            reading, requests, context, heads, kv_heads, a.head_dim, queries=b.queries
        )
        out = heads * a.head_dim
    else:
        reading = replace(p, hbm_bytes_per_s=p.hbm_bytes_per_s / share)
        times["attention core"] = mla_decode_s(
            reading,
            requests,
            b.context_tokens,
            heads,
            latent_dim=a.kv_lora_rank,
            rope_dim=a.qk_rope_head_dim,
            queries=b.queries,
        )
        times["absorb values"] = grouped_gemm_s(
            p, (t,) * heads, a.v_head_dim, a.kv_lora_rank, "bf16", layout="masked"
        )
        out = heads * a.v_head_dim
    if b.precision == "fp8":
        times["cast"] = streaming_s(p, t * out * (BF16 + FP8))
    times["o"] = gemm_s(p, t, d, out, b.precision)
    times["add, norm and cast"] = streaming_s(p, b.tokens * d * (3 * BF16 + record))
    if gated:
        times |= _fused_gate(p, model, b.tokens) if b.fused_gate else _small_gate(p, model, b.tokens)
    return times


def _small_gate(p: Processor, model: Model, tokens: int) -> dict[str, float]:
    """The gate as in training: the small kernels of `cost.layers`, one after the other."""
    few = tokens * model.num_experts * FP32
    small = layers.SMALL_GATE_KERNELS["F"] * streaming_s(p, few)
    top = 2 * streaming_s(p, layers.TOP_K_PASSES * few)
    return {
        "gate": gemm_s(p, tokens, model.num_experts, model.hidden, "bf16"),
        "gate, small kernels": small,
        "gate, top-k": top,
    }


def _attended(a: GQA, context_tokens: float, layer_idx: int) -> float:
    """Context that a layer reads: all of it, or its window or chunk."""
    if (layer_idx + 1) % a.full_every == 0:
        return context_tokens
    return min(context_tokens, a.window or context_tokens, (a.chunk or 2 * context_tokens) / 2)


def decode_shared(p: Processor, model: Model, b: DecodeBatch) -> Times:
    """The shared experts, on this GPU's own tokens."""
    if not model.num_shared_experts:
        return {}
    return _ffn_decode(p, b, model.hidden, model.expert_hidden * model.num_shared_experts)


def decode_dense(p: Processor, model: Model, b: DecodeBatch) -> Times:
    """The feed-forward block of a dense layer; TP cuts its width."""
    wide = replace(b, requests=b.requests * b.tp, tp=1)
    return _ffn_decode(p, wide, model.hidden, model.dense_hidden // b.tp)


def _ffn_decode(p: Processor, b: DecodeBatch, d: int, f: int) -> dict[str, float]:
    t, record = b.tokens, FP8 if b.precision == "fp8" else BF16
    return {
        "up": gemm_s(p, t, 2 * f, d, b.precision),
        "swiglu and cast": streaming_s(p, t * f * (2 * BF16 + record)),
        "down": gemm_s(p, t, d, f, b.precision),
    }


def decode_experts(
    p: Processor, model: Model, precision: Dtype, rows: Sequence[float], expected_rows: float
) -> Times:
    """Routed experts of one rank: two masked grouped GEMMs, planned for the mean of all ranks.

    An expert that any token chose streams its weights; `rows` [num_local_experts].
    """
    d, f = model.hidden, model.expert_hidden
    counts = [max(1, round(r)) for r in rows if r > 0]
    record = FP8 if precision == "fp8" else BF16
    return {
        "expert up": grouped_gemm_s(
            p, counts, 2 * f, d, precision, layout="masked", expected_rows=expected_rows
        ),
        "swiglu and cast": streaming_s(p, sum(counts) * f * (2 * BF16 + record)),
        "expert down": grouped_gemm_s(
            p, counts, d, f, precision, layout="masked", expected_rows=expected_rows
        ),
    }


# --- ends, and the SM phases of low-latency kernels ---------------------------------------------------------


def ends_s(p: Processor, model: Model, tokens: float, sampled: float) -> Times:
    """Embedding of `tokens`, final norm, output head and sampling of the `sampled` ones."""
    d, v = model.hidden, model.vocab
    rows = max(1, round(sampled))
    return {
        "embedding": streaming_s(p, tokens * d * 2 * BF16),
        "final norm": streaming_s(p, rows * d * 3 * BF16),
        "head": gemm_s(p, rows, v, d, "bf16"),
        "sampling": streaming_s(p, rows * v * (BF16 + 2 * FP32)),
    }


def mtp_join(p: Processor, model: Model, tokens: float) -> Times:
    """What a multi-token-prediction module has before its layer: an embedding row, two norms, one projection."""
    d, rows = model.hidden, max(1, round(tokens))
    return {
        "norms of the join": 2 * streaming_s(p, rows * d * 3 * BF16),
        "join": gemm_s(p, rows, d, 2 * d, "fp8"),
    }


def phases_s(
    p: Processor, copies: float, tokens: float, hidden: int, record_bytes: float, direction: str
) -> tuple[float, float]:
    """Send and receive phase of a low-latency kernel, for which it takes the SMs [s].

    Memory-bound: a dispatch reads each token once, casts and writes a record for each choice; receiving packs what came.
    A combine writes a record a choice, and its receiver reads them all and writes their weighted sum.
    """
    records, token = copies * record_bytes, tokens * hidden * BF16
    if direction == "dispatch":
        return streaming_s(p, token + records), streaming_s(p, 2 * records)
    return streaming_s(p, 2 * records), streaming_s(p, records + token)


def total_s(times: Times) -> float:
    """Sum of a part's kernels [s]."""
    return float(sum(times.values()))
