"""Decode, and the ends of a model in serving: the work of each part on one GPU, launch by launch.

Parts are cut where communication starts or ends: `attention_0` (norm and projections before the core), `attention_1` (core,
output projection, gate), `shared` (shared experts), `experts`; `dense` is the feed-forward block of a layer without experts.
Prefill is defined in `sim.cost.prefill`. Each function returns name -> `cost.work.Work`.

MLA is absorbed (queries go through the key up-projection and meet the latents, the results through the value up-projection);
launches are replayed from a graph and fused as serving engines do: norm with residual and cast, rotary embedding with the
write into the cache, gate logits to experts in one launch. They are so short that the overhead of each counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sim.cost import work
from sim.cost.attention_launches import small_gate
from sim.cost.compute import Dtype, Processor
from sim.cost.launches import BF16, FP32, RankBatch
from sim.cost.work import Part, Work
from sim.workload.attention import GQA, MLA, Attention, Recurrent
from sim.workload.formats import PRODUCTS, Roof
from sim.workload.model import Model

_FEW_TOKENS = 16  # of a gate that is no GEMM


@dataclass(frozen=True, slots=True)
class DecodeBatch:
    """Requests that one GPU decodes at once, query tokens of each, and their mean context; `attention` is the rate of cores.

    Each of `cp` ranks has its part of the context of the requests of all, and attends to it for them.
    """

    requests: float
    queries: int
    context_tokens: float
    tp: int = 1
    cp: int = 1
    precision: Dtype = "fp8"
    kv_bytes_per_element: float = BF16
    attention: Roof = "bf16"
    fused_gate: bool = True

    @property
    def record(self) -> float:
        """Bytes of an element that a fused launch writes for the product after it."""
        return PRODUCTS[self.precision].inputs.element_bytes

    @property
    def tokens(self) -> int:
        """Tokens computed on this GPU, rounded up."""
        return max(1, math.ceil(self.requests * self.queries))

    @property
    def group_tokens(self) -> int:
        """Tokens of the tensor-parallel group, which every rank of it projects with its part of the heads."""
        return max(1, math.ceil(self.requests * self.tp * self.queries))

    def group(self) -> DecodeBatch:
        """The batch of the whole tensor-parallel group, on one GPU."""
        return replace(self, requests=self.requests * self.tp, tp=1)


def fused_gate(p: Processor, model: Model, tokens: int) -> tuple[Work, ...]:
    """Gate logits in BF16, then scores, groups and top-k of a token in one kernel.

    Of few tokens the product is no GEMM: a block of threads for each expert reads its weights once, for all tokens (`dsv3_router_gemm` of
    TensorRT-LLM and SGLang, 1 to 16 tokens).
    """
    if not model.has_gate:
        return ()
    logits = work.gemm(p, "gate", tokens, model.gate_width, model.hidden, "bf16")
    if tokens <= _FEW_TOKENS:
        read = (model.gate_width * (model.hidden + tokens) + tokens * model.hidden) * BF16
        few = replace(logits, time_s=min(logits.time_s, work.streaming(p, "gate", read).time_s))
        return few, work.streaming(p, "top-k", tokens * model.gate_width * 2 * FP32)
    return logits, work.streaming(p, "top-k", tokens * model.gate_width * 2 * FP32)


# --- decode -----------------------------------------------------------------------------------------------


def decode_attention_0(p: Processor, model: Model, b: DecodeBatch, layer_idx: int = 0) -> Part:
    """Time and work in decode from the residual stream to the queries: the part that can run before the core.

    Parameters
    ----------
    p : Processor
    model : Model
    b : DecodeBatch
    layer_idx : int
        Place of the layer in the model, which decides its attention.

    Returns
    -------
    Part
        Launches by name; none where the layer has no attention.
    """
    a, d, t = model.layer(layer_idx).attention, model.hidden, b.group_tokens
    if a is None:
        return {}
    record = b.record
    joined = work.streaming(p, "add, norm and cast", t * d * (3 * BF16 + record))
    if isinstance(a, GQA):
        kv = a.kv_width // min(b.tp, a.num_kv_heads)  # repeated where TP has more ranks
        low = a.q_lora_rank or 0  # whole on every rank
        width = low + (a.input_width - a.kv_width - low) // b.tp + kv
        heads = a.num_heads * a.head_dim // b.tp + kv if low else width
        return work.part(
            joined,
            work.gemm(p, "q down and kv" if low else "qkv", t, width, d, b.precision),
            *(work.gemm(p, name, t, n // b.tp, k, b.precision) for name, n, k in a.ups),
            work.streaming(p, "rotary and cache", 2 * t * heads * BF16),
        )
    if isinstance(a, Recurrent):
        return work.part(
            joined,
            work.gemm(p, "in", t, a.input_width // b.tp, d, b.precision),
            *(work.gemm(p, name, t, n // b.tp, k, b.precision) for name, n, k in a.ups),
            work.streaming(p, "convolution", 2 * t * a.conv_width / b.tp * BF16),
        )
    heads, latent, queries = a.num_heads // b.tp, a.latent_dim, a.num_heads // b.tp * a.qk_head_dim
    project: tuple[Work, ...]
    if a.q_lora_rank is None:
        project = (
            work.gemm(p, "q and kv down", t, queries + latent, d, b.precision),
            work.streaming(p, "norm of the latent", t * latent * 2 * BF16),
        )
    else:
        low = a.q_lora_rank
        project = (
            work.gemm(p, "q and kv down", t, low + latent, d, b.precision),
            work.streaming(p, "norms and cast of latents", t * (low + latent) * (BF16 + record)),
            work.gemm(p, "q up", t, queries, low, b.precision),
        )
    return work.part(
        joined,
        *project,
        work.grouped_gemm(p, "absorb keys", (t,) * heads, a.kv_lora_rank, a.qk_nope_head_dim, "bf16"),
        work.streaming(p, "rotary and cache", 2 * t * (heads * a.qk_rope_head_dim + latent) * BF16),
        *_index(p, a, b, d),
    )


def _index(p: Processor, a: MLA, b: DecodeBatch, d: int) -> tuple[Work, ...]:
    """Indexer of sparse attention: its projections, the scores of all of the context, and the best of them.

    It is not cut by TP: each rank chooses the same tokens for its own heads.
    """
    own = a.indexer
    if own is None:
        return ()
    t, requests, context_tokens = b.group_tokens, b.requests * b.tp * b.cp, b.context_tokens / b.cp
    return (
        work.gemm(p, "index queries", t, own.num_heads * own.head_dim, a.q_lora_rank or d, b.precision),
        work.gemm(p, "index keys", t, own.head_dim + own.num_heads, d, b.precision),
        work.index_scores(p, "index scores", requests, context_tokens, own, queries=b.queries),
        work.streaming(p, "index top-k", 2 * FP32 * requests * b.queries * context_tokens),
    )


def decode_attention_1(
    p: Processor, model: Model, b: DecodeBatch, layer_idx: int, *, gated: bool = True
) -> Part:
    """Time and work of core, output projection, norm and gate in decode.

    Parameters
    ----------
    p : Processor
    model : Model
    b : DecodeBatch
    layer_idx : int
        Place of the layer in the model, which decides its attention.
    gated : bool
        A gate follows: the layer has experts.

    Returns
    -------
    Part
        Launches by name.
    """
    layer, d, t = model.layer(layer_idx), model.hidden, b.group_tokens
    record = b.record
    kernels: list[Work] = []
    if layer.attention:
        kernels, out = decode_core(p, layer.attention, b), layer.attention.output_width // b.tp
        if record != BF16:
            kernels.append(work.streaming(p, "cast", t * out * (BF16 + record)))
        kernels.append(work.gemm(p, "o", t, d, out, b.precision))
    if gated or layer.mlp != "none":
        kernels.append(work.streaming(p, "add, norm and cast", b.tokens * d * (3 * BF16 + record)))
    if gated:
        kernels += fused_gate(p, model, b.tokens) if b.fused_gate else _small_gate(p, model, b.tokens)
    return work.part(*kernels)


def decode_core(p: Processor, a: Attention, b: DecodeBatch) -> list[Work]:
    """Time and work in decode of the core of one TP rank, with the value up-projection of absorbed MLA."""
    requests, heads = b.requests * b.tp, a.num_heads // b.tp
    if isinstance(a, Recurrent):
        # Every token reads and writes the states; tokens of one step share them.
        return [work.streaming(p, "state update", 2 * requests * a.state_bytes / b.tp)]
    requests *= b.cp
    if isinstance(a, GQA):
        core = work.gqa_decode(
            p,
            "attention core",
            requests,
            a.attended_tokens(b.context_tokens) / b.cp,
            heads,
            max(1, a.num_kv_heads // b.tp),
            (a.head_dim + a.value_dim) // 2,
            queries=b.queries,
            cache_bytes=b.kv_bytes_per_element,
            roof=b.attention,
        )
        return [core]
    sparse = a.index is not None and a.index.top_k < b.context_tokens
    core = work.mla_decode(
        p,
        "attention core",
        requests * b.queries if sparse else requests,  # tokens of a step choose each its own
        min(b.context_tokens, a.window or b.context_tokens) / b.cp,
        heads,
        latent_dim=a.kv_lora_rank,
        rope_dim=a.qk_rope_head_dim,
        queries=1 if sparse else b.queries,
        cache_bytes=b.kv_bytes_per_element,
        roof=b.attention,
    )
    values = (b.group_tokens,) * heads
    return [core, work.grouped_gemm(p, "absorb values", values, a.v_head_dim, a.kv_lora_rank, "bf16")]


def _small_gate(p: Processor, model: Model, tokens: int) -> tuple[Work, ...]:
    """The gate as in training."""
    return tuple(work.launch_work(p, op) for op in small_gate(model, RankBatch(1, tokens)))


def around_latent(p: Processor, model: Model, tokens: int, precision: Dtype) -> tuple[Work, ...]:
    """The projections to the width of latent experts and back; none where they have the model's own."""
    if model.expert_latent is None:
        return ()
    d, latent = model.hidden, model.expert_latent
    return (
        work.gemm(p, "to latent", tokens, latent, d, precision),
        work.gemm(p, "from latent", tokens, d, latent, precision),
    )


def decode_shared(p: Processor, model: Model, b: DecodeBatch) -> Part:
    """Time and work in decode of the shared experts, of which TP cuts the width, and of the projections around latent ones.

    Parameters
    ----------
    p : Processor
    model : Model
    b : DecodeBatch

    Returns
    -------
    Part
        Launches by name.
    """
    width = model.shared_width // b.tp
    shared = _ffn_decode(p, model, b.group(), width) if width else {}
    return work.part(*shared.values(), *around_latent(p, model, b.tokens, b.precision))


def decode_dense(p: Processor, model: Model, b: DecodeBatch) -> Part:
    """Time and work of the feed-forward block of a dense layer in decode; TP cuts its width.

    Parameters
    ----------
    p : Processor
    model : Model
    b : DecodeBatch

    Returns
    -------
    Part
        Launches by name.
    """
    return _ffn_decode(p, model, b.group(), model.dense_hidden // b.tp)


def _ffn_decode(p: Processor, model: Model, b: DecodeBatch, f: int) -> Part:
    t, record = b.tokens, b.record
    d, up = model.hidden, model.up_matrices
    return work.part(
        work.gemm(p, "up", t, up * f, d, b.precision),
        work.streaming(p, "swiglu and cast", t * f * (up * BF16 + record)),
        work.gemm(p, "down", t, d, f, b.precision),
    )


def decode_experts(
    p: Processor, model: Model, precision: Dtype, rows: Sequence[float], expected_rows: float
) -> Part:
    """Time and work of the routed experts of one rank in decode: two masked grouped GEMMs, planned for the mean of all ranks.

    Parameters
    ----------
    p : Processor
    model : Model
    precision : str
        A name of `workload.formats.PRODUCTS`.
    rows : sequence of float, [num_local_experts]
        (token, expert) pairs of each expert; one that any token chose streams its weights.
    expected_rows : float [rows]
        Mean rows an expert over all ranks, which the library plans for.

    Returns
    -------
    Part
        Launches by name.
    """
    d, f, up = model.routed_width, model.expert_hidden, model.up_matrices
    counts = [max(1, round(r)) for r in rows if r > 0]
    record = PRODUCTS[precision].inputs.element_bytes
    return work.part(
        work.grouped_gemm(p, "expert up", counts, up * f, d, precision, expected_rows=expected_rows),
        work.streaming(p, "swiglu and cast", sum(counts) * f * (up * BF16 + record)),
        work.grouped_gemm(p, "expert down", counts, d, f, precision, expected_rows=expected_rows),
    )


# --- ends, and the SM phases of low-latency kernels ---------------------------------------------------------


def ends(p: Processor, model: Model, tokens: float, sampled: float, tp: int = 1) -> Part:
    """Launches of embedding, final norm, output head and sampling, each rank of a TP group with its part of the vocabulary.

    `tokens` of the whole group are embedded, `sampled` of them go through the head.
    """
    d, v = model.hidden, -(-model.vocab // tp)
    rows = max(1, round(sampled))
    return work.part(
        work.streaming(p, "embedding", tokens * d * 2 * BF16),
        work.streaming(p, "final norm", rows * d * 3 * BF16),
        work.gemm(p, "head", rows, v, d, "bf16"),
        work.streaming(p, "sampling", rows * v * (BF16 + 2 * FP32)),
    )


def mtp_join(p: Processor, model: Model, tokens: float, precision: Dtype) -> Part:
    """Launches of a multi-token-prediction module up to its layer: an embedding row, two norms and one projection."""
    d, rows = model.hidden, max(1, round(tokens))
    return work.part(
        work.streaming(p, "norms of the join", rows * d * 3 * BF16, count=2),
        work.gemm(p, "join", rows, d, 2 * d, precision),
    )


def phases(
    p: Processor, copies: float, tokens: float, hidden: int, record_bytes: float, direction: str
) -> tuple[Work, Work]:
    """Work of the send and the receive phase of a low-latency kernel, for which it takes the SMs.

    Parameters
    ----------
    p : Processor
    copies, tokens : float
        Records that a rank sends, and its tokens.
    hidden : int [elements]
    record_bytes : float [bytes]
    direction : str
        "dispatch" or "combine".

    Returns
    -------
    (Work, Work)

    Notes
    -----
    Memory-bound: a dispatch reads each token once, casts and writes a record for each choice; receiving packs the records that
    came. A combine writes a record a choice, and its receiver reads them all and writes their weighted sum.
    """
    records, token = copies * record_bytes, tokens * hidden * BF16
    sent, received = (
        (token + records, 2 * records) if direction == "dispatch" else (2 * records, records + token)
    )
    return work.streaming(p, "send", sent), work.streaming(p, "receive", received)
