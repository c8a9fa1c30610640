"""Scores: the groups that a token keeps, and the number of experts of each, where all scores follow one law.

Only the largest few scores of a group matter, so they are drawn as order statistics. Scores are kept as
w = -log(U), U the score's quantile: the smallest w is the largest score, and the j-th smallest of n is the
(j-1)-th plus an exponential of rate n-j+1 (Rényi). Arrays run over tokens last, for speed.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from sim.workload.gates import Gate

IntArray = NDArray[np.int32]


def kept_groups(
    gate: Gate, num_tokens: int, group_size: int, top_k: int, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Draw the groups that each token keeps, ascending, and the experts it takes of each [num_tokens, top_groups]."""
    assert gate.num_groups is not None
    assert gate.top_groups is not None
    ranked = ranked_scores(gate, group_size)
    depth = min(group_size, top_k)
    head = _order_statistics(rng, 0, ranked, group_size, (gate.num_groups, num_tokens))
    score = -head[0] if ranked == 1 else _score_of(head[0]) + _score_of(head[1])
    kept = best_groups(score, gate.top_groups)
    if top_k == gate.top_groups * depth:
        return kept, np.full(kept.shape, depth, dtype=np.int32)
    w = np.empty((depth, gate.top_groups, num_tokens), dtype=np.float32)
    w[: min(ranked, depth)] = head[: min(ranked, depth), kept.T, np.arange(num_tokens)]
    if depth > ranked:
        w[ranked:] = _order_statistics(rng, ranked, depth, group_size, (gate.top_groups, num_tokens))
        w[ranked:] += w[ranked - 1]
    of_token = np.ascontiguousarray(w.reshape(depth * gate.top_groups, num_tokens).T)
    of_token.partition(top_k - 1, axis=1)
    last, taken = np.ascontiguousarray(of_token[:, top_k - 1]), np.zeros(w.shape[1:], dtype=np.int32)
    for j in range(depth):
        taken += w[j] <= last
    counts = np.ascontiguousarray(taken.T)
    for token in np.flatnonzero(taken.sum(axis=0) > top_k):  # scores equal in float32: any of them may go
        while counts[token].sum() > top_k:
            counts[token, counts[token].argmax()] -= 1
    return kept, counts


def best_groups(score: NDArray[np.float32], num: int) -> IntArray:
    """The groups with the best scores, ascending [num_tokens, num]; of equals the first, the same on every machine."""
    by_token = np.ascontiguousarray(score.T)
    by_token.partition(len(score) - num, axis=1)
    least = np.ascontiguousarray(by_token[:, len(score) - num])
    kept = score >= least
    for token in np.flatnonzero(kept.sum(axis=0, dtype=np.int32) > num):
        equal = np.flatnonzero(score[:, token] == least[token])
        kept[equal[num - int(kept[:, token].sum()) :], token] = False
    return np.nonzero(kept.T)[1].astype(np.int32).reshape(-1, num)


def ranked_scores(gate: Gate, group_size: int) -> int:
    """Number of a group's best scores that rank the group [count]."""
    return 1 if gate.group_score == "max" or group_size == 1 else 2


def _order_statistics(
    rng: np.random.Generator, first: int, last: int, num: int, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """The ``first`` to ``last`` smallest of ``num`` exponentials, less the one before ``first``."""
    w = rng.standard_exponential((last - first, *shape), dtype=np.float32)
    for j in range(first, last):
        w[j - first] /= np.float32(num - j)
        if j > first:
            w[j - first] += w[j - first - 1]
    return w


_FIRST_BITS = (127 - 44) << 23  # w = 2**-44
_LAST_BITS = (127 + 6) << 23  # w = 64
_STEP = 16  # bits dropped: 128 table entries from one power of two to the next


@functools.cache
def _score_table() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Values and differences of sigmoid(z), Phi(z) = exp(-w), at the w whose bits are a multiple of 2**16."""
    bits = np.arange(_FIRST_BITS, _LAST_BITS + 1, 1 << _STEP, dtype=np.int32)
    w = bits.view(np.float32).astype(np.float64)
    z = np.linspace(8.0, -9.0, 20001)
    half = 1.0 / math.sqrt(2.0)
    w_of_z = [
        -math.log1p(-0.5 * math.erfc(x * half)) if x > 0 else -math.log(0.5 * math.erfc(-x * half)) for x in z
    ]
    values = 1.0 / (1.0 + np.exp(-np.interp(np.log(w), np.log(w_of_z), z)))
    return values.astype(np.float32), np.diff(values, append=values[-1]).astype(np.float32)


def _score_of(w: NDArray[np.float32]) -> NDArray[np.float32]:
    """Score sigmoid(z) of the normal logit z whose quantile is exp(-w).

    Linear between table entries that are found by the bits of w: no logarithm, hence no last digit that
    depends on the machine and could turn a close decision.
    """
    values, differences = _score_table()
    bits = np.clip(w.view(np.int32), _FIRST_BITS, _LAST_BITS) - np.int32(_FIRST_BITS)
    left = bits >> _STEP
    fraction = (bits & ((1 << _STEP) - 1)).astype(np.float32) * np.float32(2.0**-_STEP)
    return np.asarray(values[left] + fraction * differences[left], dtype=np.float32)
