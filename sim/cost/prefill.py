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
from sim.cost.attention_launches import attention
from sim.cost.compute import Dtype, Processor
from sim.cost.launches import BF16, Launch, RankBatch
from sim.cost.serving_kernels import around_latent, fused_gate
from sim.cost.streaming import streaming_s
from sim.cost.work import Part, Work
from sim.workload.attention import GQA, MLA, Attention, Recurrent, mean_context_tokens
from sim.workload.formats import PRODUCTS, Roof
from sim.workload.model import Model

_FOR_BACKWARD = ("keep output", "transpose weight", "cast", "transpose scales")
"""Launches of a training forward that only the backward pass needs; casts are needed in attention, where they feed GEMMs."""


KV_UP = "kv up, cached"
"""Name of the projection of latents that are cached, or gathered from other ranks of CP."""


@dataclass(frozen=True, slots=True)
class PrefillBatch:
    """Prompts that one GPU prefills at once: their number, the tokens of each computed now, and those already in the cache.

    `attention` is the tensor rate of attention cores. `split` ranks have as many tokens of each prompt.
    """

    sequences: int
    new_tokens: int
    cached_tokens: int = 0
    tp: int = 1
    cp: int = 1
    split: int = 1
    precision: Dtype = "fp8"
    attention: Roof = "bf16"
    fused_gate: bool = True

    @property
    def tokens(self) -> int:
        """Tokens computed on this GPU."""
        return self.sequences * self.new_tokens


def prefill_attention(
    p: Processor,
    model: Model,
    b: PrefillBatch,
    layer_idx: int,
    *,
    gated: bool = True,
    core_s: float | None = None,
) -> Part:
    """Time and work of norms, projections, core and gate of one layer in prefill.

    Parameters
    ----------
    p : Processor
    model : Model
    b : PrefillBatch
    layer_idx : int
        Place of the layer in the model, which decides its attention.
    gated : bool
        A gate follows: the layer has experts.
    core_s : float, optional [s]
        Time of `attention_core` instead, where prompts are unlike each other.

    Returns
    -------
    Part
        Launches by name.

    Notes
    -----
    The core of a prompt of which c tokens are cached is that of the whole prompt less that of its first c tokens. Their latents
    are projected again to keys and values (MLA keeps only latents). TP: every rank has its part of the heads for the tokens of its
    whole group, so times are those of its own tokens. CP: it has its part of the queries of all prompts of the group, cut so that
    all see as many keys; latents that it gathers are projected by each rank.
    """
    a, ops = model.layer(layer_idx).attention, _attention_ops(model, b, layer_idx, gated=gated)
    kernels = [
        work.launch_work(p, op) for op in ops if op.kind != "attention_forward" and op.name != "keep output"
    ]
    if core_s is None:
        kernels += attention_core(p, model, b, layer_idx)
    elif a:
        kernels.append(Work("attention core", "bf16", 0.0, 0.0, core_s))
    fused = fused_gate(p, model, b.tokens) if gated and b.fused_gate else ()
    return work.part(*kernels, *fused)


def _attention_ops(model: Model, b: PrefillBatch, layer_idx: int, *, gated: bool) -> list[Launch]:
    batch = RankBatch(
        b.sequences, b.new_tokens, precision=b.precision, attention=b.attention, forward_only=True
    )
    return attention(model, batch, "F", layer_idx=layer_idx, gated=gated and not b.fused_gate)


def attention_core(p: Processor, model: Model, b: PrefillBatch, layer_idx: int) -> list[Work]:
    """Time and work in prefill of what depends on the tokens of each prompt, and not on those of all alone, in a layer.

    The core, an indexer's scores, and the projection of cached and gathered latents to keys and values.
    """
    if b.split > 1:
        new, cached = b.new_tokens * b.split, b.cached_tokens * b.split
        whole = attention_core(p, model, replace(b, new_tokens=new, cached_tokens=cached, split=1), layer_idx)
        return [
            replace(
                w, flops=w.flops / b.split, moved_bytes=w.moved_bytes / b.split, time_s=w.time_s / b.split
            )
            for w in whole
        ]
    a = model.layer(layer_idx).attention
    ops = _attention_ops(model, b, layer_idx, gated=False)
    kernels = [_core(p, a, op, b) for op in ops if a and op.kind == "attention_forward"]
    rows = b.sequences * (b.cached_tokens * b.cp + b.new_tokens * (b.cp - 1))
    if rows and isinstance(a, MLA) and a.index is None:
        width = a.num_heads * (a.qk_nope_head_dim + a.v_head_dim)
        kernels.append(work.gemm(p, KV_UP, rows, width, a.kv_lora_rank, b.precision))
    return kernels


def _core(p: Processor, a: Attention, op: Launch, b: PrefillBatch) -> Work:
    """The core, or the indexer's scores, of the new tokens of each prompt; chunks are prompts of their own."""
    is_core = op.name == "attention forward"
    window = a.window if is_core and not isinstance(a, Recurrent) else None
    chunk = a.chunk if is_core and isinstance(a, GQA) else None
    sequences, new, cached = b.sequences, b.new_tokens, b.cached_tokens
    if chunk is not None and cached + new > chunk:
        sequences, new = sequences * -(-new // chunk), min(new, chunk)
        cached = min(cached, (chunk - new) // 2)  # on average of where in its chunk the first one starts

    def scores(tokens: int) -> float:
        """Query-key pairs of one sequence."""
        return tokens * mean_context_tokens(tokens, True, window, None)

    context = cached + new
    pairs = scores(context) - (scores(cached) if cached else 0.0)
    # A window ends at its query; the tokens that an indexer chooses lie anywhere.
    kept = min(context, new + window) if window is not None and isinstance(a, GQA) else context
    roof = b.attention if is_core else "bf16"
    moved = work.attention_bytes(sequences * new, sequences * kept, op.heads, op.kv_heads, op.k, op.n, roof)
    computed_s = attention_forward_s(
        p,
        sequences,
        new,
        op.heads,
        op.k,
        op.n,
        context_tokens=window if window is not None and window < context else None,
        before_tokens=cached,
        roof=roof,
    )
    return Work(
        "attention core" if is_core else op.name,
        roof,
        2.0 * sequences * op.heads * (op.k + op.n) * pairs,
        moved,
        max(
            computed_s, streaming_s(p, moved)
        ),  # a few queries after a long prompt only read its keys and values
    )


def prefill_shared(p: Processor, model: Model, b: PrefillBatch) -> Part:
    """Time and work in prefill, on this GPU's own tokens, of the shared experts and the projections around latent ones.

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
    shared = _ffn_prefill(p, model, b, model.shared_width) if model.shared_width else {}
    return work.part(*shared.values(), *around_latent(p, model, b.tokens, b.precision))


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
    return _ffn_prefill(p, model, b, model.dense_hidden)


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
    received_tokens : float [tokens]
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
        forward_only=True,
    )
    ops = layers.moe_mlp(model.routed_alone(), batch, "F")
    return work.part(*(work.launch_work(p, op) for op in ops if op.name not in _FOR_BACKWARD))


def _ffn_prefill(p: Processor, model: Model, b: PrefillBatch, f: int) -> Part:
    t, record = b.tokens, PRODUCTS[b.precision].inputs.element_bytes
    d, up = model.hidden, model.up_matrices
    return work.part(
        work.gemm(p, "up", t, up * f, d, b.precision),
        work.streaming(p, "swiglu", t * f * (up * BF16 + record)),
        work.gemm(p, "down", t, d, f, b.precision),
    )
