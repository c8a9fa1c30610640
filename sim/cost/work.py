"""Work: FLOPs, bytes of HBM and time of a launch; the points of a roofline.

FLOPs are those of products on the tensor cores, two for a multiply and an add, of rows that exist: padding and what a
masked attention block computes for nothing are left out, what is computed again is not. Bytes are what HBM must give and
take once: operands with their scales, results, and for a weight gradient the FP32 sum that it reads and writes. Neither is what sets the time: that follows from `sim.cost.compute` and `sim.cost.attention`, and no kernel may beat
max(FLOPs / dense peak, bytes / HBM rate).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.cluster.hardware import Gpu
from sim.cost.attention import gqa_bytes, gqa_decode_s, index_decode_s, mla_bytes, mla_decode_s
from sim.cost.compute import (
    Dtype,
    Gradient,
    Layout,
    Processor,
    gemm_s,
    grouped_gemm_s,
    operands,
    product_bytes,
)
from sim.cost.launches import Launch, launches_s
from sim.cost.streaming import streaming_s
from sim.workload.attention import Index
from sim.workload.formats import PRODUCTS, ROOFS, Roof

_BF16, _FP32 = 2.0, 4.0
_RESULT_BYTES = 2.0  # of an element that a GEMM writes
_SUM_BYTES = 8.0  # of an element of a weight gradient: read, added to and written back in FP32


@dataclass(frozen=True, slots=True)
class Work:
    """One launch, or several of one name, counted together."""

    name: str
    dtype: str
    """Tensor rate of its products, one of `formats.ROOFS`; empty where it multiplies nothing."""
    flops: float
    moved_bytes: float
    time_s: float
    count: int = 1


Part = Mapping[str, Work]
"""Name -> launches that run one after the other."""


def total_s(part: Part) -> float:
    """Sum of a part's launches [s]."""
    return float(sum(work.time_s for work in part.values()))


def dense_peaks(gpu: Gpu) -> dict[str, float]:
    """Tensor rate -> dense peak of the GPU, for the rates that it has [FLOP/s]."""
    peaks = {roof: getattr(gpu.dense_flops, roof) for roof in ROOFS}
    return {dtype: rate for dtype, rate in peaks.items() if rate is not None}


def least_s(part: Part, peak_flops: Mapping[str, float]) -> float:
    """FLOPs of a part's launches, each over the dense peak of its own rate [s]; `peak_flops` by rate [FLOP/s]."""
    return float(sum(work.flops / peak_flops[work.dtype] for work in part.values() if work.flops))


def num_launches(part: Part) -> int:
    """Launches of a part [count]."""
    return sum(work.count for work in part.values())


def hbm_bytes(part: Part) -> float:
    """Bytes of HBM that a part's launches move [bytes]."""
    return float(sum(work.moved_bytes for work in part.values()))


def part(*launches: Work) -> dict[str, Work]:
    """Launches under their names; those of one name together."""
    named: dict[str, Work] = {}
    for own in launches:
        named[own.name] = together(own.name, (named[own.name], own)) if own.name in named else own
    return named


def together(name: str, launches: Iterable[Work]) -> Work:
    """Several launches as one; of their formats, the one that computes most."""
    parts = tuple(launches)
    return Work(
        name,
        max(parts, key=lambda work: work.flops).dtype if parts else "",
        sum(work.flops for work in parts),
        sum(work.moved_bytes for work in parts),
        sum(work.time_s for work in parts),
        sum(work.count for work in parts),
    )


# --- kernels ----------------------------------------------------------------------------------------------


def gemm(p: Processor, name: str, m: int, n: int, k: int, dtype: Dtype) -> Work:
    """C[m, n] = A[m, k] B[n, k]^T; see `compute.gemm_s`."""
    return _product(name, (m,), n, k, dtype, gemm_s(p, m, n, k, dtype))


def grouped_gemm(
    p: Processor,
    name: str,
    rows: Sequence[int],
    n: int,
    k: int,
    dtype: Dtype,
    layout: Layout = "masked",
    expected_rows: float | None = None,
) -> Work:
    """One GEMM per expert or head in one launch; see `compute.grouped_gemm_s`."""
    time_s = grouped_gemm_s(p, rows, n, k, dtype, layout=layout, expected_rows=expected_rows)
    return _product(name, rows, n, k, dtype, time_s)


def streaming(p: Processor, name: str, moved_bytes: float, count: int = 1) -> Work:
    """A launch that only moves bytes, repeated `count` times."""
    return Work(name, "", 0.0, count * moved_bytes, count * streaming_s(p, moved_bytes), count)


def mla_decode(
    p: Processor,
    name: str,
    requests: float,
    context_tokens: float,
    heads: int,
    *,
    latent_dim: int,
    rope_dim: int,
    queries: int,
    cache_bytes: float = _BF16,
    roof: Roof = "bf16",
) -> Work:
    """An absorbed MLA core; `cache_bytes` of an element of the cache. See `attention.mla_decode_s`."""
    time_s = mla_decode_s(
        p,
        requests,
        context_tokens,
        heads,
        latent_dim=latent_dim,
        rope_dim=rope_dim,
        queries=queries,
        cache_bytes=cache_bytes,
        roof=roof,
    )
    flops = 2.0 * (2 * latent_dim + rope_dim) * heads * queries * requests * context_tokens
    moved = mla_bytes(requests, context_tokens, heads, latent_dim, rope_dim, queries, cache_bytes)
    return Work(name, roof, flops, sum(moved), time_s)


def index_scores(
    p: Processor, name: str, requests: float, context_tokens: float, index: Index, *, queries: int
) -> Work:
    """Scores of an indexer over all of the context; see `attention.index_decode_s`."""
    scores = index.num_heads * queries * requests * context_tokens
    moved = requests * context_tokens * index.key_bytes
    time_s = index_decode_s(p, scores, index.head_dim, moved)
    return Work(name, "bf16", 2.0 * index.head_dim * scores, moved, time_s)


def gqa_decode(
    p: Processor,
    name: str,
    requests: float,
    context_tokens: float,
    heads: int,
    kv_heads: int,
    head_dim: int,
    *,
    queries: int,
    cache_bytes: float = _BF16,
    roof: Roof = "bf16",
) -> Work:
    """A grouped-query core; see `attention.gqa_decode_s`."""
    time_s = gqa_decode_s(
        p,
        requests,
        context_tokens,
        heads,
        kv_heads,
        head_dim,
        queries=queries,
        cache_bytes=cache_bytes,
        roof=roof,
    )
    flops = 4.0 * head_dim * heads * queries * requests * context_tokens
    moved = gqa_bytes(requests, context_tokens, heads, kv_heads, head_dim, queries, cache_bytes)
    return Work(name, roof, flops, sum(moved), time_s)


def attention_bytes(
    queries: float, keys: float, heads: int, kv_heads: int, qk: int, v: int, roof: Roof = "bf16"
) -> float:
    """Bytes that a forward core reads and writes: queries and results of `heads`, keys and values of `kv_heads` [bytes].

    Results are BF16, whatever the format of the core's products.
    """
    element = _BF16 if roof == "bf16" else 1.0
    return element * (queries * heads * qk + keys * kv_heads * (qk + v)) + _BF16 * queries * heads * v


# --- operations of training -------------------------------------------------------------------------------


def launch_work(p: Processor, op: Launch) -> Work:
    """Count the work of all repetitions of one launch.

    Parameters
    ----------
    p : Processor
    op : Launch

    Returns
    -------
    Work
        FLOPs of products of rows that exist, bytes that HBM must move once, and the time of `launches_s`.
    """
    time_s = launches_s(p, op)
    if not isinstance(time_s, float):  # of packed documents: the mean microbatch's
        flops, moved = float(np.mean(op.flops)), float(np.mean(op.moved_bytes))
        op, time_s = replace(op, flops=flops, moved_bytes=moved), float(time_s.mean())
    if op.kind == "memory":
        return Work(op.name, "", 0.0, op.count * (op.moved_bytes - op.cached_bytes), time_s, op.count)
    if op.kind in ("attention_forward", "attention_backward"):
        return _core(op, time_s)
    if op.kind == "weight_gemm":
        gradients = [
            _product(op.name, (op.n,), op.k, t, op.dtype, 0.0, _SUM_BYTES, "weight_gradient")
            for t in op.rows
            if t
        ]
        once = together(op.name, gradients)
    else:
        once = _product(op.name, op.rows, op.n, op.k, op.dtype, time_s)
    return Work(op.name, once.dtype, op.count * once.flops, op.count * once.moved_bytes, time_s, op.count)


def _core(op: Launch, time_s: float) -> Work:
    """Forward: two products, of qk and of v width. Backward: three and two; its query gradient is summed in FP32."""
    qk, v, tokens = op.k, op.n, float(op.sequences * op.rows[0])
    roof = PRODUCTS[op.dtype].roof
    moved = attention_bytes(tokens, tokens, op.heads, op.kv_heads, qk, v, roof)
    if op.kind == "attention_forward":
        return Work(op.name, roof, op.flops, moved, time_s)
    # Credited with twice the forward; besides results it reads their gradients, and writes those of all three inputs.
    flops = op.flops / 2.0 * (3 * qk + 2 * v) / (qk + v)
    moved += tokens * (op.heads * (_BF16 * v + _FP32 * qk) + op.kv_heads * _BF16 * (qk + v))
    return Work(op.name, roof, flops, moved, time_s)


def _product(
    name: str,
    rows: Sequence[int],
    n: int,
    k: int,
    dtype: Dtype,
    time_s: float,
    stored_bytes: float = _RESULT_BYTES,
    gradient: Gradient = "forward",
) -> Work:
    counted = [row for row in rows if row > 0]
    moved = product_bytes(counted, n, k, *operands(PRODUCTS[dtype], gradient), stored_bytes)
    return Work(name, PRODUCTS[dtype].roof, 2.0 * sum(counted) * n * k, moved, time_s)
