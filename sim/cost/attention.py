"""Attention cores: the products of queries, keys and values, in training, prefill and decode.

A core works on blocks of 128 queries by 128 keys. A block takes its products at the dense BF16 rate of one SM and, on top,
the clocks that softmax and waiting cost next to the tensor core; these do not shrink with a slower tensor core, so a part
with a quarter of the FLOPs loses less. Projections are GEMMs, and not in it. The clocks are
parameters of `hardware/compute/attention.yaml`.
"""

from __future__ import annotations

import math

from sim.cost.compute import Processor
from sim.workload.formats import Roof


def attention_blocks(
    sequence_tokens: int, context_tokens: float, causal: bool, block: int, before_tokens: int = 0
) -> tuple[float, float]:
    """Count the blocks of keys that the query blocks of one sequence visit.

    Parameters
    ----------
    sequence_tokens : int [tokens]
    context_tokens : float [tokens]
        The longest look-back: a window or chunk shorter than the sequence caps the visits.
    causal : bool
        A query block visits every key block up to its own last query's, that one in full.
    block : int [tokens]
        Queries, and keys, of a block.
    before_tokens : int [tokens]
        Tokens before the queries, whose keys are there already.

    Returns
    -------
    (float, float) [count]
        Visits of all query blocks, and of the longest one.
    """
    query_blocks, whole = math.ceil(sequence_tokens / block), before_tokens + sequence_tokens
    longest = math.ceil(min(context_tokens, whole) / block)
    if not causal:
        return float(query_blocks * longest), float(longest)
    before = math.ceil(before_tokens / block)
    # All query blocks but the last see one key block more each, until the look-back caps them.
    ramp = min(max(longest - before, 0), query_blocks - 1)
    seen = ramp * before + ramp * (ramp + 1) / 2.0 + (query_blocks - 1 - ramp) * longest
    return seen + min(math.ceil(whole / block), longest), float(longest)


def attention_forward_s(
    p: Processor,
    sequences: int,
    sequence_tokens: int,
    heads: int,
    qk_dim: int,
    v_dim: int,
    *,
    causal: bool = True,
    context_tokens: float | None = None,
    before_tokens: int = 0,
    roof: Roof = "bf16",
) -> float:
    """Time of a flash-attention forward core.

    Parameters
    ----------
    p : Processor
    sequences : int [count]
    sequence_tokens : int [tokens]
        Queries of each sequence.
    heads : int [count]
        Query heads; grouped heads differ in bytes only, which do not bind.
    qk_dim, v_dim : int [elements]
        Width of a query or key, and of a value.
    causal : bool
    context_tokens : float, optional [tokens]
        The longest look-back; the whole sequence by default.
    before_tokens : int [tokens]
        Tokens before the queries, whose keys and values are there already.
    roof : str
        Tensor rate of the products.

    Returns
    -------
    float [s]

    Notes
    -----
    Query blocks of 128 tokens are spread over the SMs, the longest first; the last one to start exposes half of the longest on
    average: t = launch + (blocks / SMs + longest / 2) block_s, and a block of 128 x 128 takes
    block_s = 2 (qk + v) 128^2 / (sustained rate of one SM) + other clocks / sustained clock.

    References
    ----------
    Clocks: hardware/compute/attention.yaml, fitted to tables of alibaba/InferSim and shenh10/DeepSeek_Simulator.
    """
    block_s = forward_block_s(p, qk_dim, v_dim, roof)
    return _core_s(p, sequences, sequence_tokens, heads, block_s, causal, context_tokens, before_tokens)


def attention_backward_s(
    p: Processor,
    sequences: int,
    sequence_tokens: int,
    heads: int,
    qk_dim: int,
    v_dim: int,
    *,
    causal: bool = True,
    context_tokens: float | None = None,
    roof: Roof = "bf16",
) -> float:
    """Time of a flash-attention backward core.

    Parameters
    ----------
    p : Processor
    sequences : int [count]
    sequence_tokens : int [tokens]
    heads : int [count]
    qk_dim, v_dim : int [elements]
    causal : bool
    context_tokens : float, optional [tokens]
        The longest look-back; the whole sequence by default.
    roof : str
        Tensor rate of the products.

    Returns
    -------
    float [s]

    Notes
    -----
    Five products, three of qk and two of v width, at a part of the forward core's FLOP rate. The passes before and after it are
    memory-bound and not in it; see `backward_passes_bytes`.

    References
    ----------
    Rate of the backward over that of the forward core: FlashAttention-3, arXiv 2407.08608.
    """
    block_s = backward_block_s(p, qk_dim, v_dim, roof)
    return _core_s(p, sequences, sequence_tokens, heads, block_s, causal, context_tokens)


def backward_passes_bytes(tokens: int, heads: int, qk_dim: int, v_dim: int) -> tuple[float, float]:
    """Bytes that the passes before and after a backward core move.

    Parameters
    ----------
    tokens, heads : int [count]
    qk_dim, v_dim : int [elements]

    Returns
    -------
    (float, float) [bytes]

    Notes
    -----
    Before: the output and its gradient are read for their row sums, and the FP32 query gradient is cleared. After: it is
    converted to BF16.
    """
    queries = float(tokens * heads * qk_dim)
    return 4.0 * tokens * heads * v_dim + 4.0 * queries, (4.0 + 2.0) * queries


def forward_block_s(p: Processor, qk_dim: int, v_dim: int, roof: Roof) -> float:
    """Time of one SM on a block of a forward core, of 128 queries by 128 keys [s]."""
    a = p.curves.attention
    return _block_s(p, 2.0 * (qk_dim + v_dim), a.forward_other_clocks, roof)


def backward_block_s(p: Processor, qk_dim: int, v_dim: int, roof: Roof) -> float:
    """Time of one SM on a block of a backward core; see `attention_backward_s` [s]."""
    more = (3 * qk_dim + 2 * v_dim) / (qk_dim + v_dim)
    return forward_block_s(p, qk_dim, v_dim, roof) * more / p.curves.attention.backward_to_forward


def _block_s(p: Processor, flop_per_score: float, other_clocks: float, roof: Roof) -> float:
    """Time of one SM on a block of queries x keys, at the sustained clock [s]."""
    rate = p.flops_per_sm(roof) * p.sustained_fraction
    tensor_s = flop_per_score * p.curves.attention.block_tokens**2 / rate
    return tensor_s + other_clocks / (p.clock_hz * p.sustained_fraction)


def _core_s(
    p: Processor,
    sequences: int,
    sequence_tokens: int,
    heads: int,
    block_s: float,
    causal: bool,
    context_tokens: float | None,
    before_tokens: int = 0,
) -> float:
    block = p.curves.attention.block_tokens
    context = float(before_tokens + sequence_tokens) if context_tokens is None else context_tokens
    blocks, longest = attention_blocks(sequence_tokens, context, causal, block, before_tokens)
    exposed = (
        max(0.0, longest - math.ceil(before_tokens / block)) / 2.0
    )  # chunks expose what their whole would
    return p.curves.streaming.launch_s + (blocks * sequences * heads / p.sms + exposed) * block_s


def mla_decode_s(
    p: Processor,
    requests: float,
    context_tokens: float,
    heads: int,
    *,
    latent_dim: int = 512,
    rope_dim: int = 64,
    queries: int = 1,
    cache_bytes: float = 2.0,
    roof: Roof = "bf16",
) -> float:
    """Time of an absorbed MLA decode core: every head reads one latent, so the FLOPs of a byte grow with heads.

    Parameters
    ----------
    p : Processor
    requests : float [count]
    context_tokens : float [tokens]
        Mean context of a request.
    heads : int [count]
    latent_dim, rope_dim : int [elements]
        Width of the cached latent, and of the rotary key next to it.
    queries : int [count]
        Query tokens a request in this step (2 with one speculated token).
    cache_bytes : float [bytes]
        Of an element of the cache.
    roof : str
        Tensor rate of the products, whatever the cache is kept in.

    Returns
    -------
    float [s]

    Notes
    -----
    t = launch + max(compute, bytes of (latent + rope) tokens / HBM); computing spreads over the SMs, 2 (2 latent + rope) FLOP and
    other clocks a score, heads x queries scores for each token of context. Queries and results move too: they count against the
    datasheet rate, which binds where the context is shorter than the heads are many.

    References
    ----------
    FlashMLA README and deep-dive of 2025-04-22, deepseek-ai/FlashMLA.
    """
    scores = heads * queries * requests * context_tokens
    moved = mla_bytes(requests, context_tokens, heads, latent_dim, rope_dim, queries, cache_bytes)
    return _decode_s(p, scores, 2.0 * (2 * latent_dim + rope_dim), *moved, roof)


def mla_bytes(
    requests: float,
    context_tokens: float,
    heads: int,
    latent_dim: int,
    rope_dim: int,
    queries: int,
    cache_bytes: float,
) -> tuple[float, float]:
    """Bytes of an absorbed core, as of `mla_decode_s`: the cache that it reads, and its BF16 queries and results."""
    stream = cache_bytes * (latent_dim + rope_dim) * requests * context_tokens
    return stream, 2.0 * (requests * queries) * heads * (2 * latent_dim + rope_dim)


def gqa_decode_s(
    p: Processor,
    requests: float,
    context_tokens: float,
    heads: int,
    kv_heads: int,
    head_dim: int,
    *,
    queries: int = 1,
    cache_bytes: float = 2.0,
    roof: Roof = "bf16",
) -> float:
    """Time of a grouped-query decode core: keys and values of every KV head are read once.

    Parameters
    ----------
    p : Processor
    requests : float [count]
    context_tokens : float [tokens]
        Mean context of a request.
    heads, kv_heads : int [count]
    head_dim : int [elements]
    queries : int [count]
        Query tokens a request in this step.
    cache_bytes : float [bytes]
        Of an element of the cache.
    roof : str
        Tensor rate of the products.

    Returns
    -------
    float [s]

    Notes
    -----
    As `mla_decode_s` with 4 head_dim FLOP a score. The clocks next to the tensor core are those of MLA; with less than some 100
    FLOP a byte, reading binds anyway.
    """
    scores = heads * queries * requests * context_tokens
    moved = gqa_bytes(requests, context_tokens, heads, kv_heads, head_dim, queries, cache_bytes)
    return _decode_s(p, scores, 4.0 * head_dim, *moved, roof)


def gqa_bytes(
    requests: float,
    context_tokens: float,
    heads: int,
    kv_heads: int,
    head_dim: int,
    queries: int,
    cache_bytes: float,
) -> tuple[float, float]:
    """Bytes of a grouped-query core, as of `gqa_decode_s`: the cache that it reads, and its BF16 queries and results."""
    stream = 2.0 * cache_bytes * kv_heads * head_dim * requests * context_tokens
    return stream, 2.0 * (requests * queries) * heads * 2 * head_dim


def index_decode_s(p: Processor, scores: float, head_dim: int, stream_bytes: float) -> float:
    """Time of the scores of an indexer: keys of the whole context are read once, for small heads without values.

    Parameters
    ----------
    p : Processor
    scores : float [count]
        Heads x queries x tokens of context.
    head_dim : int [elements]
    stream_bytes : float [bytes]
        Keys that are read.

    Returns
    -------
    float [s]

    Notes
    -----
    As `mla_decode_s` with 2 head_dim FLOP a score, at the BF16 rate; that an FP8 kernel is no faster is assumed.
    """
    return _decode_s(p, scores, 2.0 * head_dim, stream_bytes, 0.0)


def _decode_s(
    p: Processor,
    scores: float,
    flop_per_score: float,
    stream_bytes: float,
    ends_bytes: float,
    roof: Roof = "bf16",
) -> float:
    a = p.curves.attention
    blocks = scores / a.block_tokens**2
    compute_s = blocks / p.sms * _block_s(p, flop_per_score, a.decode_other_clocks, roof)
    stream_s = stream_bytes / (p.hbm_bytes_per_s * a.decode_stream_fraction)
    return a.decode_launch_s + max(compute_s, stream_s, (stream_bytes + ends_bytes) / p.hbm_bytes_per_s)
