"""The ends of a model: embedding, output head and multi-token-prediction projections, as launches by phase."""

from __future__ import annotations

from dataclasses import replace

from sim.cost.launches import (
    BF16,
    FP32,
    Launch,
    Phase,
    RankBatch,
    cast,
    gemm,
    input_gradient,
    memory,
    norm,
    quantise,
    transposed_cast,
    weight,
)
from sim.workload.model import Model


def embedding(model: Model, b: RankBatch, phase: Phase) -> list[Launch]:
    """List the launches of the embedding.

    Parameters
    ----------
    model : Model
    b : RankBatch
    phase : str
        "F", "B" or "W".

    Returns
    -------
    list of Launch
        A row of the table for each token; backward adds to FP32 rows, and there is no separate weight gradient.
    """
    if phase == "W":
        return []
    row = 2 * BF16 if phase == "F" else BF16 + 2 * FP32
    return [memory("embedding", b.tokens * model.hidden * row)]


def head(model: Model, b: RankBatch, phase: Phase) -> list[Launch]:
    """List the launches of the final norm, the output head in BF16 and the cross entropy in FP32.

    Parameters
    ----------
    model : Model
    b : RankBatch
    phase : str
        "F", "B" or "W".

    Returns
    -------
    list of Launch
    """
    t, d, v = b.tokens, model.hidden, model.vocab
    if phase == "W":
        return [replace(weight(b, "head weight", v, d), dtype="bf16")]
    if phase == "F":
        entropy = memory("cross entropy", t * v * (BF16 + FP32 + FP32))
        return [norm(b, d), gemm(b, "head", v, d, dtype="bf16"), entropy]
    gradient = memory("cross entropy gradient", t * v * (FP32 + BF16))
    return [gradient, gemm(b, "head", d, v, dtype="bf16", turned=True), norm(b, d, backward=True)]


def mtp_projection(model: Model, b: RankBatch, phase: Phase) -> list[Launch]:
    """List the launches of a multi-token-prediction module without its layer and its pass of the head: two norms, one projection.

    Parameters
    ----------
    model : Model
    b : RankBatch
    phase : str
        "F", "B" or "W".

    Returns
    -------
    list of Launch
    """
    t, d = b.tokens, model.hidden
    if phase == "W":
        return [weight(b, "join weight", d, 2 * d)]
    if phase == "F":
        return [
            norm(b, d),
            norm(b, d),
            memory("join", 4 * t * d * BF16),
            *cast(b, 2 * d),
            *quantise(b, 2 * d),
            gemm(b, "join", d, 2 * d),
        ]
    norms = [norm(b, d, backward=True), norm(b, d, backward=True)]
    return [*input_gradient(b, "join", d, 2 * d), *transposed_cast(b, 2 * d), *norms]
