"""Compute: how long one kernel takes on a GPU, from its shape, the profile and a few curves.

Pure arithmetic. A `Processor` is the part of a GPU that a kernel may use: so many SMs, at the peak or the sustained
clock, with so much of the HBM rate. Its numbers follow from the profile alone; nothing here knows a GPU by name.

Why this way: published GEMM times on the H800 are steps, not curves. A tile of 128 x 128 costs the same whether it is
needed in full or not, tiles come in waves of one per SM, an SM is fed through a port of 64 bytes a clock, and storing a
tile is hardly overlapped. These four facts give the efficiency by shape; no table of efficiencies is needed, and fewer
SMs, another clock or another memory change the result for the right reason. What remains to be fitted stands in
`hardware/compute/`, with what was fitted on what.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from sim.cluster.hardware import Hardware
from sim.cost.curves import Curves, GemmCurve, load_curves

Dtype = Literal["bf16", "fp8"]
Layout = Literal["dense", "contiguous", "masked"]

ELEMENT_BYTES = {"bf16": 2.0, "fp8": 1.0}
PAD_ROWS = 128
"""Rows of one expert in the contiguous layout are padded to a multiple of this."""
_BLOCK_BYTES = 128
"""Bytes of K that one step of the main loop takes: 128 FP8 or 64 BF16 elements."""
_TILE_ROWS = (64, 128)
_TILE_COLUMNS = (16, 32, 48, 64, 80, 96, 112, 128)
_HOPPER_BF16_FLOP_PER_CLOCK_PER_SM = 4096.0
"""Where the fill of an SM was measured; an SM with a faster tensor core is taken to be fed in proportion."""


@dataclass(frozen=True, slots=True)
class Processor:
    """The part of one GPU that compute kernels may use; rates in SI.

    `whole_sms` are the SMs of the whole GPU. `hbm_bytes_per_s` is the datasheet rate times the share that is left by
    others. `sustained_fraction` is the clock under long tensor load over the peak clock: GEMMs run at `clock_fraction`
    (1 in a short benchmark, the sustained one inside a step), attention cores were measured at the sustained clock.
    """

    sms: int
    whole_sms: int
    clock_hz: float
    clock_fraction: float
    sustained_fraction: float
    bf16_flops: float
    fp8_flops: float | None
    scales_in_tensor_core: bool
    hbm_bytes_per_s: float
    streaming_fraction: float
    generation: str
    curves: Curves = field(hash=False)

    def flops_per_sm(self, dtype: Dtype) -> float:
        """Dense rate of one SM at the peak clock [FLOP/s]; a part without FP8 computes in BF16."""
        rate = self.fp8_flops if dtype == "fp8" and self.fp8_flops else self.bf16_flops
        return rate / self.whole_sms


def processor(
    hardware: Hardware,
    *,
    sms: int | None = None,
    sustained: bool = False,
    hbm_share_fraction: float = 1.0,
    generation: str = "march_2025",
    curves: Curves | None = None,
) -> Processor:
    """The part of a GPU that compute kernels may use.

    Parameters
    ----------
    sms : int, optional [count]
        SMs left for compute; all of them by default.
    sustained : bool
        Whether tensor kernels run at the clock that the part holds under long load.
    hbm_share_fraction : float
        Part of the HBM rate that communication leaves.
    generation : str
        Of the GEMM kernels; a key of `GemmCurve.generations`.
    """
    gpu = hardware.gpu
    usable = gpu.sms if sms is None else sms
    if not 1 <= usable <= gpu.sms:
        raise ValueError(f"sms is {usable}; {hardware.name} has {gpu.sms}")
    return Processor(
        sms=usable,
        whole_sms=gpu.sms,
        clock_hz=gpu.tensor_clock_hz,
        clock_fraction=gpu.sustained_clock_fraction if sustained else 1.0,
        sustained_fraction=gpu.sustained_clock_fraction,
        bf16_flops=gpu.dense_flops.bf16,
        fp8_flops=gpu.dense_flops.fp8,
        # Blackwell, the first with FP4, scales blocks inside the tensor core.
        scales_in_tensor_core=gpu.dense_flops.fp4 is not None,
        hbm_bytes_per_s=gpu.hbm.bandwidth_bytes_per_s * hbm_share_fraction,
        streaming_fraction=gpu.hbm.efficiency_fraction,
        generation=generation,
        curves=curves or load_curves(),
    )


# --- matrix multiplications -------------------------------------------------------------------------------


def gemm_s(p: Processor, m: int, n: int, k: int, dtype: Dtype = "fp8") -> float:
    """Time of C[m, n] = A[m, k] B[n, k]^T with a BF16 result [s]; see `grouped_gemm_s`."""
    return grouped_gemm_s(p, (m,), n, k, dtype, layout="dense")


def grouped_gemm_s(
    p: Processor,
    rows: Sequence[int],
    n: int,
    k: int,
    dtype: Dtype = "fp8",
    *,
    layout: Layout = "contiguous",
    expected_rows: float | None = None,
) -> float:
    """Time of one GEMM per expert in one kernel [s].

    Parameters
    ----------
    rows : [num_experts] [count]
        Rows of each expert; an expert without rows costs nothing.
    layout : str
        "contiguous" pads each expert to 128 rows; "masked" computes only the tiles that hold rows, "dense" is one GEMM.
    expected_rows : float, optional
        Rows an expert that the library was told to plan for; the mean by default. It chooses the tile, `rows` count.

    Notes
    -----
    The library takes the tile of at most 128 x 128 that minimises waves x tile time, with

        tile   = ceil(k / k_block) max(tensor + promotion, operands / fill) + exposure x stored bytes / (HBM / SMs)
        t      = launch + (tiles^q + memory^q)^(1/q),  tiles = ceil(tiles / SMs) tile,  memory = bytes / HBM
    """
    counted = tuple(sorted(int(r) for r in rows if r > 0))
    if not counted:
        return 0.0
    if layout == "contiguous":
        counted = tuple(_padded(r) for r in counted)
    planned = counted if expected_rows is None else (max(1, round(expected_rows)),) * len(counted)
    kernel = p.curves.gemm.generations[p.generation]
    return kernel.launch_s + _tiled_s(
        p,
        counted,
        planned,
        n,
        k,
        dtype,
        grouped=layout != "dense",
        rows_only_128=layout == "contiguous",
        promotions=p.curves.gemm.tile_scale_promotions,
        stored_bytes=2.0,
        store_exposure=kernel.store_exposure,
        store_fraction=p.curves.gemm.stream_fraction,
    )


def weight_gemm_s(p: Processor, tokens: Sequence[int], n: int, k: int, dtype: Dtype = "fp8") -> float:
    """Time of weight gradients dW[n, k] += dY[t, n]^T X[t, k], one kernel for each entry of `tokens` [s].

    Notes
    -----
    The sum runs over tokens. Both operands carry a scale a row, twice the promotion work; the FP32 gradient is read,
    added to and written back (8 bytes an element) after each tile, at the rate of mixed reads and writes; none of that is
    hidden, and a generation that stores slowly does so here too.
    """
    kernel = p.curves.gemm.generations[p.generation]
    return sum(
        kernel.launch_s
        + _tiled_s(
            p,
            (n,),
            (n,),
            k,
            t,
            dtype,
            grouped=False,
            rows_only_128=True,
            promotions=p.curves.gemm.row_scale_promotions,
            stored_bytes=8.0,
            store_exposure=max(1.0, kernel.store_exposure),
            store_fraction=p.streaming_fraction,
        )
        for t in tokens
        if t > 0
    )


@functools.lru_cache(maxsize=65536)
def _tiled_s(
    p: Processor,
    rows: tuple[int, ...],
    planned: tuple[int, ...],
    n: int,
    k: int,
    dtype: Dtype,
    *,
    grouped: bool,
    rows_only_128: bool,
    promotions: float,
    stored_bytes: float,
    store_exposure: float,
    store_fraction: float,
) -> float:
    c = p.curves.gemm
    size = ELEMENT_BYTES[dtype] if p.fp8_flops else 2.0
    k_block = _BLOCK_BYTES / size
    clock = p.clock_hz * p.clock_fraction
    fill = _fill_bytes_per_s(p, c, clock, grouped=grouped)
    tensor = p.flops_per_sm(dtype) * p.clock_fraction
    promoted = 0.0 if size != 1.0 or p.scales_in_tensor_core else promotions
    steps = math.ceil(k / k_block)
    store_rate = min(p.hbm_bytes_per_s * store_fraction / p.sms, fill)
    best_s, tiles_s = math.inf, math.inf
    for height in _TILE_ROWS[1:] if rows_only_128 else _TILE_ROWS:
        planned_rows = sum(-(-m // height) for m in planned)
        actual_rows = sum(-(-m // height) for m in rows)
        for width in _TILE_COLUMNS:
            columns = -(-n // width)
            area = height * width
            multiply = 2.0 * area * k_block / tensor + promoted * area / (c.fp32_lanes_per_sm * clock)
            tile = steps * max(multiply, (height + width) * _BLOCK_BYTES / fill)
            tile += store_exposure * stored_bytes * area / store_rate
            planned_s = -(-planned_rows * columns // p.sms) * tile
            if planned_s < best_s:
                best_s, tiles_s = planned_s, -(-actual_rows * columns // p.sms) * tile
    m = sum(rows)
    moved = size * k * (m + len(rows) * n) + stored_bytes * m * n
    memory_s = moved / min(p.hbm_bytes_per_s * c.stream_fraction, p.sms * fill)
    q = c.overlap_exponent
    longer, shorter = max(tiles_s, memory_s), min(tiles_s, memory_s)
    return float(longer * (1.0 + (shorter / longer) ** q) ** (1.0 / q))


def _fill_bytes_per_s(p: Processor, c: GemmCurve, clock: float, *, grouped: bool) -> float:
    """What reaches one SM [bytes/s]."""
    per_clock = c.grouped_fill_bytes_per_clock if grouped else c.dense_fill_bytes_per_clock
    tensor = p.bf16_flops / p.whole_sms / p.clock_hz / _HOPPER_BF16_FLOP_PER_CLOCK_PER_SM
    return per_clock * max(1.0, tensor) * clock


def _padded(rows: int) -> int:
    return -(-rows // PAD_ROWS) * PAD_ROWS


# --- attention --------------------------------------------------------------------------------------------


def attention_blocks(sequence_tokens: int, context_tokens: float, causal: bool, block: int) -> tuple[float, float]:
    """Blocks of keys that all query blocks of one sequence visit, and that the longest one visits [count].

    A causal query block visits every key block up to its own, the one on the diagonal in full; a window or chunk
    shorter than the sequence (`context_tokens` is the longest look-back) caps it.
    """
    query_blocks = math.ceil(sequence_tokens / block)
    longest = math.ceil(min(context_tokens, sequence_tokens) / block)
    if not causal:
        return float(query_blocks * longest), float(longest)
    ramp = min(longest, query_blocks)
    return ramp * (ramp + 1) / 2.0 + (query_blocks - ramp) * ramp, float(ramp)


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
) -> float:
    """Time of a flash-attention forward core in BF16 [s]; grouped heads differ in bytes only, which do not bind.

    Notes
    -----
    Query blocks of 128 tokens are spread over the SMs, the longest first; the last one to start exposes half of the
    longest on average: t = launch + (blocks / SMs + longest / 2) block_s, and a block of 128 x 128 takes
    block_s = 2 (qk + v) 128^2 / (sustained rate of one SM) + other clocks / sustained clock.
    """
    block_s = _forward_block_s(p, qk_dim, v_dim)
    return _core_s(p, sequences, sequence_tokens, heads, block_s, causal, context_tokens)


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
) -> float:
    """Time of a flash-attention backward core in BF16 [s]: five products, three of qk and two of v width.

    The passes before and after it (row sums, conversion of the FP32 query gradient) are memory-bound and not in it.
    """
    more = (3 * qk_dim + 2 * v_dim) / (qk_dim + v_dim)
    block_s = _forward_block_s(p, qk_dim, v_dim) * more / p.curves.attention.backward_to_forward
    return _core_s(p, sequences, sequence_tokens, heads, block_s, causal, context_tokens)


def _forward_block_s(p: Processor, qk_dim: int, v_dim: int) -> float:
    a = p.curves.attention
    return _block_s(p, 2.0 * (qk_dim + v_dim), a.forward_other_clocks)


def _block_s(p: Processor, flop_per_score: float, other_clocks: float) -> float:
    """Time of one SM on a block of queries x keys, at the sustained clock [s]."""
    tensor_s = flop_per_score * p.curves.attention.block_tokens**2 / (p.flops_per_sm("bf16") * p.sustained_fraction)
    return tensor_s + other_clocks / (p.clock_hz * p.sustained_fraction)


def _core_s(
    p: Processor,
    sequences: int,
    sequence_tokens: int,
    heads: int,
    block_s: float,
    causal: bool,
    context_tokens: float | None,
) -> float:
    block = p.curves.attention.block_tokens
    context = float(sequence_tokens) if context_tokens is None else context_tokens
    blocks, longest = attention_blocks(sequence_tokens, context, causal, block)
    return p.curves.streaming_launch_s + (blocks * sequences * heads / p.sms + longest / 2.0) * block_s


def mla_decode_s(
    p: Processor,
    requests: float,
    context_tokens: float,
    heads: int,
    *,
    latent_dim: int = 512,
    rope_dim: int = 64,
    queries: int = 1,
) -> float:
    """Time of an absorbed MLA decode core [s]: every head reads one latent, so the FLOPs of a byte grow with heads.

    Parameters
    ----------
    requests : [count]
    context_tokens : mean context of a request [tokens]
    queries : query tokens a request in this step (2 with one speculated token) [count]

    Notes
    -----
    t = launch + max(compute, 2 (latent + rope) tokens / HBM); computing spreads over the SMs, 2 (2 latent + rope) FLOP and
    other clocks a score, heads x queries scores for each token of context.
    """
    scores = heads * queries * requests * context_tokens
    stream = 2.0 * (latent_dim + rope_dim) * requests * context_tokens
    return _decode_s(p, scores, 2.0 * (2 * latent_dim + rope_dim), stream)


def gqa_decode_s(
    p: Processor, requests: float, context_tokens: float, heads: int, kv_heads: int, head_dim: int, *, queries: int = 1
) -> float:
    """Time of a grouped-query decode core [s]: keys and values of every KV head are read once; see `mla_decode_s`.

    The clocks beside the tensor core are those of MLA; with less than some 100 FLOP a byte, reading binds anyway.
    """
    scores = heads * queries * requests * context_tokens
    return _decode_s(p, scores, 4.0 * head_dim, 4.0 * kv_heads * head_dim * requests * context_tokens)


def _decode_s(p: Processor, scores: float, flop_per_score: float, stream_bytes: float) -> float:
    a = p.curves.attention
    blocks = scores / a.block_tokens**2
    compute_s = blocks / p.sms * _block_s(p, flop_per_score, a.decode_other_clocks)
    return a.decode_launch_s + max(compute_s, stream_bytes / (p.hbm_bytes_per_s * a.decode_stream_fraction))


# --- memory-bound operations ------------------------------------------------------------------------------


def streaming_s(p: Processor, moved_bytes: float, *, blocks: int | None = None, resident_grid: bool = False) -> float:
    """Time of a kernel that only moves bytes [s].

    Parameters
    ----------
    moved_bytes : bytes read and written [bytes]
    blocks : int, optional [count]
        Thread blocks, where there are fewer than SMs: each has one SM's share of the HBM rate.
    resident_grid : bool
        The kernel launches one round of blocks for every SM of the whole GPU (row norms do); on fewer SMs the rest waits
        for a second round.
    """
    rate = p.hbm_bytes_per_s * p.streaming_fraction
    if blocks is not None:
        rate *= min(1.0, blocks / p.whole_sms)
    rounds = math.ceil(p.whole_sms / p.sms) if resident_grid else 1
    return p.curves.streaming_launch_s + rounds * moved_bytes / rate
