"""Compute: the time of one launch on a GPU, from its shape, the profile and a few curves.

Pure arithmetic. A `Processor` is the part of a GPU that a launch may use: so many SMs, at the peak or the sustained
clock, with so much of the HBM rate. Its numbers follow from the profile alone; nothing here knows a GPU by name.

Why this way: published GEMM times on the H800 are steps, not curves. A tile of 128 x 128 costs the same whether it is
needed in full or not, tiles come in waves of one per SM, an SM is fed through a port of 64 bytes a clock, and storing a
tile is hardly overlapped. Nor is it faster on an H200, whose memory is 1.4 times that of an H100: a tile leaves at what its
SM gives. These four facts give the efficiency by shape; no table of efficiencies is needed, and fewer
SMs, another clock or another memory change the result for the right reason. The remaining parameters are those of
`hardware/compute/`, each with the data that it was fitted to.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from sim.cluster.hardware import Hardware
from sim.cost.curves import Curves, Generation, load_curves
from sim.errors import InfeasibleError
from sim.workload.formats import PRODUCTS, NumberFormat, Product, ProductName, Roof

Dtype = ProductName
Layout = Literal["dense", "contiguous", "masked"]
Gradient = Literal["forward", "input_gradient", "weight_gradient"]

PAD_ROWS = 128
"""Rows of one expert in the contiguous layout are padded to a multiple of this."""
_BLOCK_BYTES = 128
"""Bytes of K that one step of the main loop takes of its inputs: 128 FP8 or 64 BF16 elements."""
_TILE_ROWS = (64, 128)
_WIDENED_ROWS = 16
"""Rows of the least tile of kernels that widen weights (MARLIN, arXiv 2408.11743: mma of 16 rows)."""
_TILE_COLUMNS = 16
"""Columns of a tile are a multiple of this, up to what the generation knows."""
_HOPPER_BF16_FLOP_PER_CLOCK_PER_SM = 4096.0
"""Rate of the SM whose port was measured; one with a faster tensor core is taken to be fed in proportion."""


@dataclass(frozen=True, slots=True)
class Processor:
    """The part of one GPU that compute kernels may use; rates in SI.

    `whole_sms` are the SMs of the whole GPU. `hbm_bytes_per_s` is the datasheet rate times the share that is left by
    others. `clock_fraction` is the clock of GEMMs over the tensor clock: that of their generation in a short benchmark,
    lower by `sustained_fraction`, the clock after seconds of tensor load over that of a short benchmark, inside a step.
    Attention cores were measured at the sustained clock. `lent_fraction` is the part of the time in which the other SMs are
    lent; libraries that are told of it leave them free all the time.
    """

    sms: int
    whole_sms: int
    clock_hz: float
    clock_fraction: float
    sustained_fraction: float
    bf16_flops: float
    fp8_flops: float | None
    int8_flops: float | None
    fp4_flops: float | None
    scales_in_tensor_core: bool
    hbm_bytes_per_s: float
    streaming_fraction: float
    generation: str
    curves: Curves = field(hash=False)
    lent_fraction: float = 1.0

    def flops_per_sm(self, roof: Roof) -> float:
        """Dense rate of one SM at the peak clock [FLOP/s]; raises `InfeasibleError` where the GPU lacks the format."""
        rate: float | None = getattr(self, f"{roof}_flops")
        if rate is None:
            raise InfeasibleError(f"this GPU has no {roof.upper()} tensor rate")
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
    """Take the part of a GPU that compute launches may use.

    Parameters
    ----------
    hardware : Hardware
    sms : int, optional [count]
        SMs left for compute; all of them by default.
    sustained : bool
        Tensor launches run at the clock that the part holds under long load, not at that of a short benchmark.
    hbm_share_fraction : float [0 to 1]
        Part of the HBM rate that communication leaves.
    generation : str
        Generation of GEMMs; a key of `GemmCurve.generations`.
    curves : Curves, optional
        The shipped ones by default.

    Returns
    -------
    Processor

    Raises
    ------
    ValueError
        For more SMs than the GPU has.

    Examples
    --------
    >>> from sim.cluster.hardware import load_hardware
    >>> processor(load_hardware("h800"), sms=112).sms
    112
    """
    gpu = hardware.gpu
    usable = gpu.sms if sms is None else sms
    if not 1 <= usable <= gpu.sms:
        raise ValueError(f"sms is {usable}; {hardware.name} has {gpu.sms}")
    curves = curves or load_curves()
    short = curves.gemm.generations[generation].clock_fraction
    return Processor(
        sms=usable,
        whole_sms=gpu.sms,
        clock_hz=gpu.tensor_clock_hz,
        clock_fraction=short * (gpu.sustained_clock_fraction if sustained else 1.0),
        sustained_fraction=gpu.sustained_clock_fraction,
        bf16_flops=gpu.dense_flops.bf16,
        fp8_flops=gpu.dense_flops.fp8,
        int8_flops=gpu.dense_flops.int8,
        fp4_flops=gpu.dense_flops.fp4,
        scales_in_tensor_core=gpu.scales_blocks,
        hbm_bytes_per_s=gpu.hbm.bandwidth_bytes_per_s * hbm_share_fraction,
        streaming_fraction=gpu.hbm.efficiency_fraction,
        generation=generation,
        curves=curves,
    )


# --- matrix multiplications -------------------------------------------------------------------------------


def gemm_s(
    p: Processor, m: int, n: int, k: int, dtype: Dtype = "fp8", *, gradient: Gradient = "forward"
) -> float:
    """Time of C[m, n] = A[m, k] B[n, k]^T with a BF16 result.

    Parameters
    ----------
    p : Processor
    m, n, k : int [count]
    dtype : str
        A name of `workload.formats.PRODUCTS`.
    gradient : str
        As of `grouped_gemm_s`.

    Returns
    -------
    float [s]

    Raises
    ------
    InfeasibleError
        Where the GPU lacks the format.

    Notes
    -----
    One dense `grouped_gemm_s`.

    Examples
    --------
    >>> from sim.cluster.hardware import load_hardware
    >>> h800 = load_hardware("h800")
    >>> 2 * 4096 * 7168 * 16384 / gemm_s(processor(h800), 4096, 7168, 16384) < h800.gpu.dense_flops.peak("fp8")
    True
    """
    return grouped_gemm_s(p, (m,), n, k, dtype, layout="dense", gradient=gradient)


def grouped_gemm_s(
    p: Processor,
    rows: Sequence[int],
    n: int,
    k: int,
    dtype: Dtype = "fp8",
    *,
    layout: Layout = "contiguous",
    expected_rows: float | None = None,
    gradient: Gradient = "forward",
) -> float:
    """Time of one GEMM per expert in one launch.

    Parameters
    ----------
    p : Processor
    rows : sequence of int, [num_experts] [count]
        Rows of each expert; an expert without rows costs nothing.
    n, k : int [count]
        Outputs and inputs of every expert.
    dtype : str
        A name of `workload.formats.PRODUCTS`.
    layout : str
        "contiguous" pads each expert to 128 rows; "masked" computes only the tiles that hold rows, "dense" is one GEMM.
    expected_rows : float [rows], optional
        Rows an expert that the library plans for; the mean by default. It chooses the tile, `rows` count.
    gradient : str
        "input_gradient" for a product of the backward pass, whose sums a format may promote more often.

    Returns
    -------
    float [s]

    Notes
    -----
    The library takes the tile that minimises waves x tile time, of at most 128 x 128 (a generation may know wider ones, or one
    alone for FP8), with

        tile   = ceil(k / k_block) max(tensor + other, operands / fill) + stored bytes / store
        t      = launch + (tiles^q + memory^q)^(1/q),  tiles = ceil(tiles / SMs) tile,  memory = bytes / HBM

    Resident blocks (of a generation) are as many as the whole GPU has SMs; on fewer they take rounds, in the part of the time in
    which the others are lent. `other` is the work of CUDA cores next to the tensor core: promoting sums that are scaled by blocks, widening weights that are
    held in fewer bits than their inputs. Valid for the generations of `hardware/compute/gemm.yaml`, which also holds every fitted number with its source.

    References
    ----------
    Promotion: DeepSeek-V3, arXiv 2412.19437, section 3.3.2. Times that the curves were fitted to: scenarios/published/gemm.yaml
    (deepseek-ai/DeepGEMM, shenh10/DeepSeek_Simulator, alibaba/InferSim) and kernels_h200.yaml.
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
        gradient=gradient,
        stored_bytes=2.0,
    )


def weight_gemm_s(
    p: Processor, tokens: Sequence[int], n: int, k: int, dtype: Dtype = "fp8", *, added: bool = True
) -> float:
    """Time of weight gradients dW[n, k] += dY[t, n]^T X[t, k].

    Parameters
    ----------
    p : Processor
    tokens : sequence of int [count]
        Tokens t of each gradient, one launch each.
    n, k : int [count]
        Outputs and inputs of the weight.
    dtype : str
        A name of `workload.formats.PRODUCTS`.
    added : bool
        The FP32 gradient is read and added to, not only written.

    Returns
    -------
    float [s]

    Notes
    -----
    The sum runs over tokens. In FP8 with scales a block both operands carry one a row, twice the promotion work; the FP32 gradient is read, added to and
    written back (8 bytes an element; 4 where it is not `added`) after each tile, at the rate at which a generation stores. Otherwise
    as `grouped_gemm_s`.
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
            gradient="weight_gradient",
            stored_bytes=8.0 if added else 4.0,
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
    gradient: Gradient,
    stored_bytes: float,
) -> float:
    c, product = p.curves.gemm, PRODUCTS[dtype]
    weights, inputs = operands(product, gradient)
    if product.scales_in_core and not p.scales_in_tensor_core:
        raise InfeasibleError(
            f"this GPU does not scale blocks of {product.inputs.name.upper()} in its tensor cores"
        )
    k_block = _BLOCK_BYTES * 8.0 / inputs.bits
    clock = p.clock_hz * p.clock_fraction
    fill = _fill_bytes_per_s(p, clock, grouped=grouped)
    tensor = p.flops_per_sm(product.roof) * p.clock_fraction
    promoted = (
        0.0 if p.scales_in_tensor_core else c.promotions_per_element.operations(getattr(product, gradient))
    )
    widened = c.widening_per_weight if weights.bits < inputs.bits else 0.0
    cuda_cores = c.fp32_lanes_per_sm * clock
    steps = math.ceil(k / k_block)
    store = _port_bytes_per_s(p, p.clock_hz, c.generations[p.generation].store_bytes_per_clock)
    best_s, tiles_s = math.inf, math.inf
    known_sms = p.whole_sms if c.generations[p.generation].resident_blocks else p.sms
    heights, widths = _tiles(c.generations[p.generation], product, rows_only_128)
    for height in heights:
        planned_rows = sum(-(-m // height) for m in planned)
        actual_rows = sum(-(-m // height) for m in rows)
        for width in widths:
            columns = -(-n // width)
            area = height * width
            multiply = 2.0 * area * k_block / tensor + promoted * area / cuda_cores
            multiply += widened * width * k_block / cuda_cores
            loaded = height * _BLOCK_BYTES + width * k_block * weights.bits / 8.0
            tile = steps * max(multiply, loaded / fill)
            tile += stored_bytes * area / store
            planned_s = -(-planned_rows * columns // known_sms) * tile
            if planned_s < best_s:
                best_s, tiles = planned_s, actual_rows * columns
                tiles_s = -(-tiles // known_sms) * tile * _rounds(p, min(tiles, known_sms))
    moved = product_bytes(rows, n, k, weights, inputs, stored_bytes)
    memory_s = moved / min(p.hbm_bytes_per_s * c.stream_fraction, p.sms * fill)
    q = c.overlap_exponent
    longer, shorter = max(tiles_s, memory_s), min(tiles_s, memory_s)
    return float(longer * (1.0 + (shorter / longer) ** q) ** (1.0 / q))


def _rounds(p: Processor, blocks: int) -> float:
    """Time of blocks that hold an SM until their last tile, over that on the whole GPU: twice while some find no SM at first."""
    rounds = -(-blocks // p.sms)
    return 1.0 / (1.0 - p.lent_fraction * (1.0 - 1.0 / rounds)) if rounds > 1 else 1.0


def operands(product: Product, gradient: Gradient) -> tuple[NumberFormat, NumberFormat]:
    """Formats of the operand with n rows and of the one with m: a weight gradient multiplies two inputs."""
    return product.inputs if gradient == "weight_gradient" else product.weights, product.inputs


def _tiles(kernel: Generation, product: Product, rows_only_128: bool) -> tuple[Sequence[int], Sequence[int]]:
    """Rows and columns of the tiles to choose from."""
    if product.roof == "fp8" and kernel.fp8_tile:
        return (kernel.fp8_tile,), (kernel.fp8_tile,)
    rows = (_WIDENED_ROWS, *_TILE_ROWS) if product.is_weight_only else _TILE_ROWS
    heights = _TILE_ROWS[-1:] if rows_only_128 else rows
    return heights, range(_TILE_COLUMNS, kernel.widest_tile + 1, _TILE_COLUMNS)


def product_bytes(
    rows: Sequence[int], n: int, k: int, weights: NumberFormat, inputs: NumberFormat, stored_bytes: float
) -> float:
    """Operands with their scales read once and results of `stored_bytes` an element, for one GEMM of each of `rows` [bytes]."""
    m = sum(rows)
    return k * (m * inputs.element_bytes + len(rows) * n * weights.element_bytes) + stored_bytes * m * n


def _fill_bytes_per_s(p: Processor, clock: float, *, grouped: bool) -> float:
    """Rate at which operands reach one SM [bytes/s]."""
    c = p.curves.gemm
    fitted = c.fill_bytes_per_clock.grouped if grouped else c.fill_bytes_per_clock.dense
    return _port_bytes_per_s(p, clock, c.generations[p.generation].fill_bytes_per_clock or fitted)


def _port_bytes_per_s(p: Processor, clock: float, per_clock: float) -> float:
    """Rate of one SM's port at a clock, from its bytes a clock on Hopper [bytes/s]."""
    tensor = p.bf16_flops / p.whole_sms / p.clock_hz / _HOPPER_BF16_FLOP_PER_CLOCK_PER_SM
    return per_clock * max(1.0, tensor) * clock


def _padded(rows: int) -> int:
    return -(-rows // PAD_ROWS) * PAD_ROWS
