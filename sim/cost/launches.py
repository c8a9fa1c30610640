"""Launches as data (kind, shape, bytes), and the time of a list of them.

`phase_time` adds the times of a list, split into what is bound by the SMs it has and what waits for memory.

Why this way: a quarter of a DeepSeek-V3 layer is memory-bound work, and the two parts behave differently: fewer SMs stretch
the first, a slower HBM the second. A list of launches shows both, and can be checked against the FLOPs of the model. The
launches of a layer are defined in `sim.cost.layers`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sim.cost.attention import attention_backward_s, attention_forward_s
from sim.cost.compute import (
    Dtype,
    Processor,
    gemm_s,
    grouped_gemm_s,
    streaming_s,
    weight_gemm_s,
)

Kind = Literal["gemm", "grouped_gemm", "weight_gemm", "attention_forward", "attention_backward", "memory"]


@dataclass(frozen=True, slots=True)
class RankBatch:
    """Tokens that one rank computes on in one chunk.

    `expert_rows` are the (token, expert) pairs of each local expert, `received_tokens` the distinct tokens that came.
    """

    sequences: int
    sequence_tokens: int
    expert_rows: tuple[int, ...] = ()
    received_tokens: float = 0.0
    precision: Dtype = "fp8"

    @property
    def tokens(self) -> int:
        """Tokens of this rank [count]."""
        return self.sequences * self.sequence_tokens


@dataclass(frozen=True, slots=True)
class Launch:
    """One compute launch, repeated `count` times.

    `rows` has one entry for each GEMM of the launch (tokens, where weights are summed over them). `flops` are those a
    model is credited with: none for what is computed again. Of `moved_bytes`, `cached_bytes` are there for the time they
    take: a cache has them. `blocks` and `resident_grid` as in `compute.streaming_s`.
    """

    name: str
    kind: Kind
    dtype: Dtype = "bf16"
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


def launches_s(p: Processor, op: Launch) -> float:
    """Time of all repetitions of one launch [s]."""
    if op.kind == "gemm":
        return op.count * gemm_s(p, op.rows[0], op.n, op.k, op.dtype)
    if op.kind == "grouped_gemm":
        return op.count * grouped_gemm_s(p, op.rows, op.n, op.k, op.dtype)
    if op.kind == "weight_gemm":
        return op.count * weight_gemm_s(p, op.rows, op.n, op.k, op.dtype)
    if op.kind == "memory":
        once = streaming_s(p, op.moved_bytes, blocks=op.blocks, resident_grid=op.resident_grid)
        return op.count * once
    core = attention_forward_s if op.kind == "attention_forward" else attention_backward_s
    return op.count * core(
        p, op.sequences, op.rows[0], op.heads, op.k, op.n, context_tokens=op.context_tokens
    )


def phase_time(p: Processor, launches: Iterable[Launch]) -> ComputeTime:
    """Time of launches that run one after the other, by what binds them."""
    sm_bound = memory_bound = 0.0
    for op in launches:
        if op.kind == "memory":
            memory_bound += launches_s(p, op)
        else:
            sm_bound += launches_s(p, op)
    return ComputeTime(sm_bound, memory_bound)
