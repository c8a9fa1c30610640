"""Capacity of experts: how many tokens of a rank an expert takes before the rest are dropped.

Why this way: as in Megatron-Core, a rank counts its own tokens only, before anything is sent, so no rank waits for another's
counts. Which tokens go is of no matter to time or bytes: here the last ones.

Reference: NVIDIA/Megatron-LM, megatron/core/transformer/moe, `moe_expert_capacity_factor`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

DROPPED = -1
"""Expert of a selection that is dropped."""


def capacity_of(factor: float, num_tokens: int, top_k: int, num_experts: int) -> int:
    """Count the tokens of a rank that an expert takes; 1 is the factor of a gate that gives every expert the same.

    Examples
    --------
    >>> capacity_of(1.25, 4096, 8, 256)
    160
    """
    return math.ceil(factor * num_tokens * top_k / num_experts - 1e-9)


def drop_above(
    ids: NDArray[np.int32], tokens_per_rank: int, num_experts: int, factor: float
) -> NDArray[np.int32]:
    """Drop selections [num_sources * tokens_per_rank, top_k] above their expert's capacity: `DROPPED` for each.

    Tokens of source rank 0 come first, and are kept first.
    """
    kept, top_k = ids.copy(), ids.shape[1]
    most = capacity_of(factor, tokens_per_rank, top_k, num_experts)
    for first in range(0, len(ids), tokens_per_rank):
        own = kept[first : first + tokens_per_rank].ravel()  # a view
        order = np.argsort(own, kind="stable")
        counts = np.bincount(own, minlength=num_experts)
        place = np.arange(own.size) - np.repeat(np.cumsum(counts) - counts, counts)
        own[order[place >= most]] = DROPPED
    return kept
