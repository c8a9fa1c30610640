"""Launches as data (kind, shape, bytes), and the time of a list of them.

`phase_time` adds the times of a list, split into what is bound by the SMs it has and what waits for memory.

Why this way: a quarter of a DeepSeek-V3 layer is memory-bound work, and the two parts behave differently: fewer SMs stretch
the first, a slower HBM the second. A list of launches shows both, and can be checked against the FLOPs of the model. The
launches of a layer are defined in `sim.cost.layers`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from sim.cost.attention import attention_backward_s, attention_forward_s
from sim.cost.compute import (
    Dtype,
    Gradient,
    Processor,
    gemm_s,
    grouped_gemm_s,
    weight_gemm_s,
)
from sim.cost.document_attention import documents_attention_s
from sim.cost.recompute import SELECTIVE
from sim.cost.streaming import streaming_s
from sim.workload.formats import FORMATS, PRODUCTS, Product, Roof

if TYPE_CHECKING:
    from sim.workload.packing import Documents

BF16, FP32 = FORMATS["bf16"].element_bytes, FORMATS["fp32"].element_bytes
FP8 = FORMATS["fp8_rows"].element_bytes
"""An element and its share of an FP32 scale [bytes]."""

Phase = Literal["F", "B", "W"]
Kind = Literal["gemm", "grouped_gemm", "weight_gemm", "attention_forward", "attention_backward", "memory"]
Split = Literal["outputs", "inputs", "tokens"]
"""The side of a projection that tensor parallelism splits; the tokens of one that every rank holds whole."""
_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("q down", "kv down", "gate", "to latent", "from latent", "index keys"), "tokens"),
    **dict.fromkeys(("o", "down"), "inputs"),  # behind split heads or a split width
}


@dataclass(frozen=True, slots=True)
class RankBatch:
    """Tokens that one rank computes on in one chunk.

    `expert_rows` are the (token, expert) pairs of each local expert, `received_tokens` the distinct tokens that came;
    `recomputed` the modules (`cost.recompute`) whose launches the backward runs again. `attention` is the tensor rate of attention
    cores, `forward_only` that no backward pass follows. `tp` and `cp` ranks share everything but its experts (`cost.shares`).
    With `documents` the work and time of attention cores are arrays over the microbatches of a step. `blocks` of keys come to a core
    one after another, and their results are added up.
    """

    sequences: int
    sequence_tokens: int
    expert_rows: tuple[int, ...] = ()
    received_tokens: float = 0.0
    precision: Dtype = "fp8"
    recomputed: frozenset[str] = SELECTIVE
    attention: Roof = "bf16"
    forward_only: bool = False
    tp: int = 1
    cp: int = 1
    documents: Documents | None = None
    blocks: int = 1

    @property
    def product(self) -> Product:
        """Formats of GEMMs."""
        return PRODUCTS[self.precision]

    @property
    def is_blockwise(self) -> bool:
        """True for FP8 with scales a block, whose casts, transposes and copies are launches of DeepSeek's."""
        return self.precision == "fp8"

    @property
    def record(self) -> float:
        """Bytes of an element that a fused launch writes for the product after it; in training other formats cast apart."""
        return self.product.inputs.element_bytes if self.is_blockwise or self.forward_only else BF16

    @property
    def tokens(self) -> int:
        """Tokens of this rank, before TP and CP share them [count]."""
        return self.sequences * self.sequence_tokens


@dataclass(frozen=True, slots=True)
class Launch:
    """One compute launch, repeated `count` times.

    `rows` has one entry for each GEMM of the launch (tokens, where weights are summed over them). `flops` are those a
    model is credited with: none for what is computed again. Of `moved_bytes`, `cached_bytes` are there for the time they
    take: a cache has them. `split` is the side of a projection that TP splits. `gradient` as in `compute.grouped_gemm_s`, `blocks` and `resident_grid` as in `compute.streaming_s`.
    """

    name: str
    kind: Kind
    dtype: Dtype = "bf16"
    gradient: Gradient = "forward"
    split: Split = "outputs"
    rows: tuple[int, ...] = ()
    n: int = 0
    k: int = 0
    moved_bytes: float = 0.0
    cached_bytes: float = 0.0
    count: int = 1
    flops: float = 0.0
    blocks: int | None = None
    resident_grid: bool = False
    heads: int = 0
    kv_heads: int = 0
    sequences: int = 0
    context_tokens: float = 0.0
    documents: Documents | None = None


@dataclass(frozen=True, slots=True)
class ComputeTime:
    """Time of a phase [s]: of launches bound by the SMs they have, and by memory."""

    sm_bound_s: float
    memory_bound_s: float

    @property
    def total_s(self) -> float:
        """Both, one after the other [s]."""
        return self.sm_bound_s + self.memory_bound_s

    def __add__(self, other: ComputeTime) -> ComputeTime:
        return ComputeTime(self.sm_bound_s + other.sm_bound_s, self.memory_bound_s + other.memory_bound_s)


def launches_s(p: Processor, op: Launch) -> Any:
    """Time of all repetitions of one launch.

    Parameters
    ----------
    p : Processor
    op : Launch

    Returns
    -------
    float [s]
        Of a core of packed documents, one for each rank and microbatch, `Documents.shape`.
    """
    if op.kind == "gemm":
        return op.count * gemm_s(p, op.rows[0], op.n, op.k, op.dtype, gradient=op.gradient)
    if op.kind == "grouped_gemm":
        return op.count * grouped_gemm_s(p, op.rows, op.n, op.k, op.dtype, gradient=op.gradient)
    if op.kind == "weight_gemm":
        return op.count * weight_gemm_s(p, op.rows, op.n, op.k, op.dtype)
    if op.kind == "memory":
        once = streaming_s(p, op.moved_bytes, blocks=op.blocks, resident_grid=op.resident_grid)
        return op.count * once
    if op.documents is not None:
        return op.count * documents_attention_s(
            p,
            op.documents,
            op.heads,
            op.k,
            op.n,
            backward=op.kind == "attention_backward",
            context_tokens=op.context_tokens,
            roof=PRODUCTS[op.dtype].roof,
        )
    core = attention_forward_s if op.kind == "attention_forward" else attention_backward_s
    return op.count * core(
        p,
        op.sequences,
        op.rows[0],
        op.heads,
        op.k,
        op.n,
        context_tokens=op.context_tokens,
        roof=PRODUCTS[op.dtype].roof,
    )


def phase_time(p: Processor, launches: Iterable[Launch]) -> ComputeTime:
    """Time of launches that run one after the other, by what binds them.

    Parameters
    ----------
    p : Processor
    launches : iterable of Launch

    Returns
    -------
    ComputeTime
        Launches of kind "memory" count as memory-bound, all others as SM-bound.
    """
    sm_bound: Any = 0.0
    memory_bound: Any = 0.0
    for op in launches:
        if op.kind == "memory":
            memory_bound = memory_bound + launches_s(p, op)
        else:
            sm_bound = sm_bound + launches_s(p, op)
    return ComputeTime(sm_bound, memory_bound)


def count(launches: Iterable[Launch]) -> int:
    """Count launches with their repetitions."""
    return sum(op.count for op in launches)


# --- launches of a batch ------------------------------------------------------------------------------------------


def again(launches: Iterable[Launch]) -> list[Launch]:
    """Launches of a forward that the backward runs again, for which nobody is credited."""
    return [replace(launch, name=f"{launch.name} again", flops=0.0) for launch in launches]


def memory(name: str, moved_bytes: float, count: int = 1, blocks: int | None = None) -> Launch:
    """A launch that only moves bytes."""
    return Launch(name, "memory", moved_bytes=moved_bytes, count=count, blocks=blocks)


def norm(b: RankBatch, width: int, *, backward: bool = False) -> Launch:
    """A row norm: x in and y out; backward dy and x in, dx out. Its grid fills the whole GPU once."""
    moved = b.tokens * width * BF16 * (3 if backward else 2)
    return Launch("norm backward" if backward else "norm", "memory", moved_bytes=moved, resident_grid=True)


def cast(b: RankBatch, width: int, rows: float | None = None) -> list[Launch]:
    """A cast to FP8 by rows and the transpose of its scales, which GEMMs read by columns."""
    if not b.is_blockwise:
        return []
    n = b.tokens if rows is None else rows
    return [memory("cast", n * width * (BF16 + FP8)), memory("transpose scales", n * width * 8.0 / 128)]


def quantise(b: RankBatch, width: int, rows: float | None = None, *, fused: bool = False) -> list[Launch]:
    """Make the operand of a product whose scales are of a tensor, a row or a microscaled block.

    Parameters
    ----------
    b : RankBatch
    width : int [elements]
    rows : float, optional [count]
        The rank's own tokens by default.
    fused : bool
        The launch before it does this where no backward pass follows.

    Returns
    -------
    list of Launch
        None in BF16, and none with blocks of 128, whose casts are `cast` and `transposed_cast`.

    Notes
    -----
    In training one pass reads BF16 and writes both copies, by rows and by columns, so that nothing is cast or transposed again in
    the backward; a scale of the whole tensor (current scaling) takes a pass for its greatest magnitude before. Weights are cast
    once a step, which is not counted (4 bytes a parameter). Without a backward, one pass finds a row's scale and casts.

    References
    ----------
    NVIDIA Transformer Engine, `cast_transpose` kernels and recipes `Float8CurrentScaling`, `MXFP8BlockScaling`.
    """
    inputs, n = b.product.inputs, b.tokens if rows is None else rows
    if b.is_blockwise or inputs.bits == FORMATS["bf16"].bits or (fused and b.forward_only):
        return []
    if b.forward_only:
        return [memory("quantise", n * width * (BF16 + inputs.element_bytes))]
    both = memory("cast and transpose", n * width * (BF16 + 2.0 * inputs.element_bytes))
    return [both] if inputs.block else [memory("greatest magnitude", n * width * BF16), both]


def transposed_cast(
    b: RankBatch, width: int, rows: float | None = None, *, from_fp8: bool = False
) -> list[Launch]:
    """A cast by columns and transpose, as a weight gradient reads its operands."""
    if not b.is_blockwise:
        return []
    n = b.tokens if rows is None else rows
    return [memory("cast and transpose", n * width * ((FP8 if from_fp8 else BF16) + FP8))]


def transposed_weight(b: RankBatch, elements: float) -> list[Launch]:
    """An FP8 weight transposed for the input gradient."""
    return [memory("transpose weight", 2.0 * elements)] if b.is_blockwise else []


def split_of(projection: str, *, turned: bool = False) -> Split:
    """The side that TP splits of a projection of some name, or, `turned`, of the product that gives the gradient of its inputs."""
    split = _SPLITS.get(projection, "outputs")
    if turned and split != "tokens":
        return "outputs" if split == "inputs" else "inputs"
    return split


def gemm(
    b: RankBatch,
    name: str,
    n: int,
    k: int,
    *,
    credited: bool = True,
    dtype: Dtype | None = None,
    gradient: Gradient = "forward",
    turned: bool = False,
) -> Launch:
    """A projection to `n` outputs from `k` inputs, or, `turned`, the gradient of its inputs.

    Not `credited` where it is computed again.
    """
    return Launch(
        f"{name} input gradient" if turned else name,
        "gemm",
        dtype=dtype or b.precision,
        gradient=gradient,
        split=split_of(name, turned=turned),
        rows=(b.tokens,),
        n=n,
        k=k,
        flops=2.0 * b.tokens * n * k if credited else 0.0,
    )


def experts(b: RankBatch, name: str, n: int, k: int, gradient: Gradient = "forward") -> Launch:
    """A grouped projection of the rank's experts, to `n` outputs from `k` inputs."""
    flops = 2.0 * sum(b.expert_rows) * n * k
    return Launch(
        name, "grouped_gemm", dtype=b.precision, gradient=gradient, rows=b.expert_rows, n=n, k=k, flops=flops
    )


def weight(
    b: RankBatch, name: str, n: int, k: int, rows: tuple[int, ...] | None = None, *, of: str = ""
) -> Launch:
    """The gradient of a weight of `n` outputs and `k` inputs, summed over the tokens (of each expert).

    `of` is the projection where the launch has another name.
    """
    tokens = (b.tokens,) if rows is None else rows
    return Launch(
        name,
        "weight_gemm",
        dtype=b.precision,
        split=split_of(of or name),
        rows=tokens,
        n=n,
        k=k,
        flops=2.0 * sum(tokens) * n * k,
    )


def input_gradient(b: RankBatch, name: str, outputs: int, inputs: int) -> list[Launch]:
    """dX = dY W: cast dY by rows, transpose W, multiply, and cast dY by columns for the weight gradient."""
    return [
        *cast(b, outputs),
        *quantise(b, outputs),
        *transposed_weight(b, outputs * inputs),
        gemm(b, name, inputs, outputs, gradient="input_gradient", turned=True),
        *transposed_cast(b, outputs),
    ]
