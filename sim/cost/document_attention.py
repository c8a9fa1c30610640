"""Attention cores of packed documents, each of which attends within itself: one launch a microbatch, of all its documents."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from sim.cost.attention import attention_blocks, backward_block_s, forward_block_s
from sim.cost.compute import Processor
from sim.workload.formats import Roof

if TYPE_CHECKING:
    from sim.workload.packing import Documents, Floats


def documents_attention_s(
    p: Processor,
    documents: Documents,
    heads: int,
    qk_dim: int,
    v_dim: int,
    *,
    backward: bool,
    context_tokens: float,
    roof: Roof = "bf16",
) -> Floats:
    """Time of a causal flash-attention core of each microbatch of packed documents, one launch each.

    Parameters
    ----------
    p : Processor
    documents : Documents
    heads : int [count]
    qk_dim, v_dim : int [elements]
    backward : bool
    context_tokens : float [tokens]
        The longest look-back.
    roof : str
        Tensor rate of the products.

    Returns
    -------
    float, `documents.shape` [s]
        As of `attention_forward_s` and `attention_backward_s`, with the query blocks of all documents spread over the SMs.
    """
    block_s = (backward_block_s if backward else forward_block_s)(p, qk_dim, v_dim, roof)
    blocks, longest = document_blocks(documents, context_tokens, p.curves.attention.block_tokens)
    return p.curves.streaming.launch_s + (blocks * heads / p.sms + longest / 2.0) * block_s


@lru_cache(maxsize=32)
def document_blocks(documents: Documents, context_tokens: float, block: int) -> tuple[Floats, Floats]:
    """Count the blocks that a causal core of packed documents visits for one head.

    Parameters
    ----------
    documents : Documents
    context_tokens : float [tokens]
        The longest look-back.
    block : int [tokens]

    Returns
    -------
    (float, float), `documents.shape` each [count]
        As of `attention_blocks`: visits of all query blocks, and those of the longest one, less the blocks before its part.
    """

    def visits(queries: int, before: int) -> float:
        return attention_blocks(queries, context_tokens, True, block, before)[0]

    def longest(queries: int, before: int) -> float:
        most = attention_blocks(queries, context_tokens, True, block, before)[1]
        return max(0.0, most - math.ceil(before / block))

    return documents.summed(documents.counted(visits)), documents.largest(documents.counted(longest))
