"""Launches of one rank where tensor and context parallelism share a layer.

Sequence parallelism holds between the blocks: what works row by row has the rank's own tokens. Inside a block a rank has its part
of the heads or of the width for the tokens of its whole TP group, so a product is narrower (its outputs are split) or shorter (its
inputs are, before a reduce-scatter). Down-projections to latents and the gate are whole on every rank and take its own tokens. CP
cuts the tokens of everything; a core, balanced over causal blocks, by its heads.

References
----------
Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models, arXiv 2205.05198. Duplicated latent projections:
Megatron-LM, megatron/core/transformer/multi_latent_attention.py.

Why this way: a launch of half the width takes more than half the time, by waves of tiles, launch and fill; only launches know it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sim.cost.launches import Launch


def shared(launches: Iterable[Launch], tp: int, cp: int) -> list[Launch]:
    """Take one rank's part of launches of a whole sequence and a whole layer that TP and CP share."""
    if tp * cp == 1:
        return list(launches)
    return [_part(op, tp, cp) for op in launches]


def _part(op: Launch, tp: int, cp: int) -> Launch:
    both, flops = tp * cp, op.flops / (tp * cp)
    if op.kind == "memory":
        ways = tp if op.name == "transpose weight" else both
        return replace(op, moved_bytes=op.moved_bytes / ways, cached_bytes=op.cached_bytes / ways)
    if op.heads:
        return replace(op, heads=-(-op.heads // both), flops=flops)
    if op.kind == "grouped_gemm":  # one product a head
        return replace(op, rows=op.rows[: -(-len(op.rows) // both)], flops=flops)
    if op.split == "tokens":
        return replace(op, rows=_cut(op.rows, both), flops=flops)
    n, k = (-(-op.n // tp), op.k) if op.split == "outputs" else (op.n, -(-op.k // tp))
    return replace(op, rows=_cut(op.rows, cp), n=n, k=k, flops=flops)


def _cut(rows: tuple[int, ...], ways: int) -> tuple[int, ...]:
    return tuple(max(1, -(-m // ways)) for m in rows)
