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
from types import MappingProxyType

from sim.cost.attention_launches import attention, small_gate
from sim.cost.compute import Processor
from sim.cost.launches import (
    BF16,
    FP8,
    ComputeTime,
    Launch,
    Phase,
    RankBatch,
    again,
    cast,
    experts,
    gemm,
    input_gradient,
    memory,
    norm,
    phase_time,
    quantise,
    transposed_cast,
    transposed_weight,
    weight,
)
from sim.cost.shares import shared
from sim.workload.model import Model

PHASES: tuple[Phase, ...] = ("F", "B", "W")

INDEX = 8.0
"""One expert number of one token [bytes]."""


def layer_phases(
    model: Model, batch: RankBatch, *, dense: bool = False, layer_idx: int = 0
) -> dict[str, list[Launch]]:
    """List the launches of one layer in training, by phase.

    Parameters
    ----------
    model : Model
    batch : RankBatch
    dense : bool
        The layer has one dense feed-forward block, or none, instead of experts.
    layer_idx : int
        Place of the layer in the model, which decides its attention.

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

    def mlp(phase: Phase) -> list[Launch]:
        if not dense:
            return moe_mlp(model, batch, phase)
        has_mlp = model.layer(layer_idx).mlp != "none"
        return shared(dense_mlp(model, batch, phase), batch.tp, batch.cp) if has_mlp else []

    attn = {x: attention(model, batch, x, layer_idx=layer_idx, gated=not dense) for x in PHASES}
    phases = {f"attn({x})": shared(attn[x], batch.tp, batch.cp) for x in PHASES}
    return phases | {f"mlp({x})": mlp(x) for x in PHASES}


def gate(model: Model, batch: RankBatch) -> list[Launch]:
    """Launches of the gate and the cast before dispatch, which `attn(F)` ends with."""
    return shared([*small_gate(model, batch), *cast(batch, model.hidden)], batch.tp, batch.cp)


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


# --- feed-forward block -----------------------------------------------------------------------------------


def moe_mlp(model: Model, b: RankBatch, phase: Phase) -> list[Launch]:
    """Launches of the routed experts of one rank, of the shared expert, and of the projections around latent experts."""
    d, f, up = model.routed_width, model.expert_hidden, model.up_matrices
    own = _ffn(b, model.hidden, model.shared_width, up, phase) if model.shared_width else []
    if phase == "B" and model.shared_width and "shared_experts" in b.recomputed:
        own = [*again(_ffn(b, model.hidden, model.shared_width, up, "F")), *own]
    own = shared([*own, *_latent_projections(model, b, phase)], b.tp, b.cp)
    rows, held = float(sum(b.expert_rows)), len(b.expert_rows)
    if phase == "W":
        casts = 2 * transposed_cast(b, d, rows, from_fp8=True)
        ups = weight(b, "expert up weights", up * f, d, b.expert_rows)
        return [*own, *casts, ups, weight(b, "expert down weights", d, f, b.expert_rows)]
    record = b.record
    expand = memory("expand", (b.received_tokens + rows) * d * record)
    reduce = memory("reduce", (rows + b.received_tokens) * d * BF16)
    if phase == "F":
        numbers = b.received_tokens * model.top_k * INDEX
        return [
            *own,
            memory("count rows", numbers, blocks=held),
            memory("map rows", 2 * numbers, blocks=held),
            expand,
            *quantise(b, d, rows, fused=True),
            *transposed_weight(b, held * up * f * d),
            *transposed_weight(b, held * d * f),
            experts(b, "expert up", up * f, d),
            memory("swiglu", rows * f * (up * BF16 + record)),
            *quantise(b, f, rows, fused=True),
            experts(b, "expert down", d, f),
            reduce,
            *cast(b, up * f, rows),
        ]
    restore = [memory("restore", rows * up * f * (FP8 + BF16))] if b.is_blockwise else []
    normed = [norm(b, d)] if "layernorm" in b.recomputed else []
    swiglu = _swiglu_backward(rows * f, up, "moe_act" in b.recomputed)
    return [
        *own,
        *restore,
        expand,
        *quantise(b, d, rows),
        experts(b, "expert down input gradient", f, d, "input_gradient"),
        swiglu,
        memory("gate weight gradient", rows * f * 2 * BF16),
        *transposed_cast(b, f, rows, from_fp8="moe_act" not in b.recomputed),
        *normed,
        *cast(b, d),
        *cast(b, up * f, rows),
        *quantise(b, up * f, rows),
        experts(b, "expert up input gradient", d, up * f, "input_gradient"),
        reduce,
        *transposed_cast(b, up * f, rows),
    ]


def _latent_projections(model: Model, b: RankBatch, phase: Phase) -> list[Launch]:
    """To the width of latent experts, and back to the residual stream."""
    if model.expert_latent is None:
        return []
    d, latent = model.hidden, model.expert_latent
    if phase == "F":
        to, back = gemm(b, "to latent", latent, d), gemm(b, "from latent", d, latent)
        return [*quantise(b, d), to, *quantise(b, latent), back]
    if phase == "W":
        to = weight(b, "to latent weight", latent, d, of="to latent")
        return [to, weight(b, "from latent weight", d, latent, of="from latent")]
    return [*input_gradient(b, "to latent", latent, d), *input_gradient(b, "from latent", d, latent)]


def dense_mlp(model: Model, b: RankBatch, phase: Phase) -> list[Launch]:
    """Launches of the feed-forward block of a dense layer."""
    own = _ffn(b, model.hidden, model.dense_hidden, model.up_matrices, phase)
    if phase != "B":
        return own
    normed = [norm(b, model.hidden)] if "layernorm" in b.recomputed else []
    whole = _ffn(b, model.hidden, model.dense_hidden, model.up_matrices, "F") if "mlp" in b.recomputed else []
    return [*normed, *again(whole), *own]


def _swiglu_backward(elements: float, up: int, recomputed: bool) -> Launch:
    """Up and gate rows and the result's gradient in, the gradients of the rows out, and the result where it was not kept."""
    if recomputed:
        return memory("swiglu again and backward", elements * (2 * up + 2) * BF16)
    return memory("swiglu backward", elements * (2 * up + 1) * BF16)


def _ffn(b: RankBatch, d: int, f: int, up: int, phase: Phase) -> list[Launch]:
    """A feed-forward block that every token takes, its first cast shared with what runs next to it."""
    t = b.tokens
    if phase == "W":
        return [weight(b, "up weight", up * f, d, of="up"), weight(b, "down weight", d, f, of="down")]
    if phase == "F":
        swiglu = memory("swiglu", t * f * (up * BF16 + b.record))
        both = [*quantise(b, d), gemm(b, "up", up * f, d), swiglu, *quantise(b, f), gemm(b, "down", d, f)]
        return [*both, *cast(b, up * f)]
    restore = [memory("restore", t * w * (FP8 + BF16)) for w in (up * f, d)] if b.is_blockwise else []
    kept = "ffn_act" not in b.recomputed
    if not b.is_blockwise:
        swiglus = [_swiglu_backward(t * f, up, not kept)]
    else:  # again on the way to the weight gradient's operand, or that operand as it was kept
        operand = [memory("swiglu, cast and transpose", t * f * (up * BF16 + FP8))]
        operand = transposed_cast(b, f, from_fp8=True) if kept else operand
        swiglus = [*operand, _swiglu_backward(t * f, up, False)]
    return [
        *restore,
        *quantise(b, d),
        *transposed_weight(b, d * f),
        gemm(b, "down", f, d, gradient="input_gradient", turned=True),
        *transposed_cast(b, d, from_fp8=True),
        *swiglus,
        *input_gradient(b, "up", up * f, d),
        *transposed_cast(b, d),
    ]
