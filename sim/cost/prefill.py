"""Prefill: the work of each part of a layer on one GPU, launch by launch.

Parts are cut where communication starts or ends: `attention` (to the gate), `shared` (shared experts), `experts`; `dense` is
the feed-forward block of a layer without experts. Launches are those of a training forward (`cost.layers`) without what the
backward pass alone needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sim.cost import layers, work
from sim.cost.attention import attention_forward_s
from sim.cost.compute import Dtype, Processor, streaming_s
from sim.cost.launches import BF16, FP8, Launch, RankBatch
from sim.cost.serving_kernels import fused_gate
from sim.cost.work import Part, Work
from sim.workload.model import MLA, Model, mean_context_tokens

_FOR_BACKWARD = ("keep output", "transpose weight", "cast", "transpose scales")
"""Launches of a training forward that only the backward pass needs; casts are needed in attention, where they feed GEMMs."""


@dataclass(frozen=True, slots=True)
class PrefillBatch:
    """Prompts that one GPU prefills at once: their number, the tokens of each computed now, and those already in the cache."""

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


def prefill_attention(
    p: Processor, model: Model, b: PrefillBatch, layer_idx: int, *, gated: bool = True
) -> Part:
    """Time and work of norms, projections, core and gate of one layer in prefill.

    Parameters
    ----------
    p : Processor
    model : Model
    b : PrefillBatch
    layer_idx : int
        Place of the layer in the model: it decides whether its attention has a window.
    gated : bool
        A gate follows: the layer has experts.

    Returns
    -------
    Part
        Launches by name.

    Notes
    -----
    The core of a prompt of which c tokens are cached is that of the whole prompt less that of its first c tokens. Their latents
    are projected again to keys and values (MLA keeps only latents). TP: every rank has its part of the heads for the tokens of its
    whole group, so times are those of its own tokens.
    """
    batch = RankBatch(b.sequences, b.new_tokens, precision=b.precision)
    ops = layers.attention(model, batch, "F", layer_idx=layer_idx, gated=gated and not b.fused_gate)
    kernels = [
        work.launch_work(p, op) for op in ops if op.kind != "attention_forward" and op.name != "keep output"
    ]
    kernels.append(_core(p, next(op for op in ops if op.kind == "attention_forward"), b))
    a = model.attention
    if b.cached_tokens and isinstance(a, MLA):
        width = a.num_heads * (a.qk_nope_head_dim + a.v_head_dim)
        rows = b.sequences * b.cached_tokens
        kernels.append(work.gemm(p, "kv up, cached", rows, width, a.kv_lora_rank, b.precision))
    fused = fused_gate(p, model, b.tokens) if gated and b.fused_gate else ()
    return work.part(*kernels, *fused)


def _core(p: Processor, op: Launch, b: PrefillBatch) -> Work:
    def window(tokens: int) -> int | None:
        return min(round(op.context_tokens), tokens) if op.context_tokens < b.new_tokens else None

    def scores(tokens: int) -> float:
        """Query-key pairs of one sequence."""
        return tokens * mean_context_tokens(tokens, True, window(tokens), None)

    context = b.cached_tokens + b.new_tokens
    new = scores(context) - (scores(b.cached_tokens) if b.cached_tokens else 0.0)
    moved = work.attention_bytes(b.tokens, b.sequences * context, op.heads, op.kv_heads, op.k, op.n)
    computed_s = attention_forward_s(
        p,
        b.sequences,
        b.new_tokens,
        op.heads,
        op.k,
        op.n,
        context_tokens=window(context),
        before_tokens=b.cached_tokens,
    )
    return Work(
        "attention core",
        "bf16",
        2.0 * b.sequences * op.heads * (op.k + op.n) * new,
        moved,
        max(
            computed_s, streaming_s(p, moved)
        ),  # a few queries after a long prompt only read its keys and values
    )


def prefill_shared(p: Processor, model: Model, b: PrefillBatch) -> Part:
    """Time and work of the shared experts in prefill, on this GPU's own tokens.

    Parameters
    ----------
    p : Processor
    model : Model
    b : PrefillBatch

    Returns
    -------
    Part
        Launches by name.
    """
    if not model.num_shared_experts:
        return {}
    return _ffn_prefill(p, b, model.hidden, model.expert_hidden * model.num_shared_experts)


def prefill_dense(p: Processor, model: Model, b: PrefillBatch) -> Part:
    """Time and work of the feed-forward block of a dense layer in prefill.

    Parameters
    ----------
    p : Processor
    model : Model
    b : PrefillBatch

    Returns
    -------
    Part
        Launches by name.
    """
    return _ffn_prefill(p, b, model.hidden, model.dense_hidden)


def prefill_experts(
    p: Processor, model: Model, b: PrefillBatch, rows: Sequence[float], received_tokens: float
) -> Part:
    """Time and work of the routed experts of one rank in prefill.

    Parameters
    ----------
    p : Processor
    model : Model
    b : PrefillBatch
    rows : sequence of float, [num_local_experts]
        (token, expert) pairs of each expert.
    received_tokens : float
        Distinct tokens that came.

    Returns
    -------
    Part
        Launches by name.
    """
    batch = RankBatch(
        b.sequences,
        b.new_tokens,
        expert_rows=tuple(round(r) for r in rows),
        received_tokens=received_tokens,
        precision=b.precision,
    )
    ops = layers.moe_mlp(_without_shared(model), batch, "F")
    return work.part(*(work.launch_work(p, op) for op in ops if op.name not in _FOR_BACKWARD))


def _without_shared(model: Model) -> Model:
    """The model without shared experts: what its routed experts take alone."""
    return replace(model, num_shared_experts=0)


def _ffn_prefill(p: Processor, b: PrefillBatch, d: int, f: int) -> Part:
    t, record = b.tokens, FP8 if b.precision == "fp8" else BF16
    return work.part(
        work.gemm(p, "up", t, 2 * f, d, b.precision),
        work.streaming(p, "swiglu", t * f * (2 * BF16 + record)),
        work.gemm(p, "down", t, d, f, b.precision),
    )
