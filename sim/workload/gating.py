"""Gating: the experts that each token chooses.

A ``Gate`` is a description (``gates``); ``draw`` turns it into expert ids, by one function per kind, in
``DRAWS``.

Why this way
------------
A gate with independent, identically distributed scores is decided by the few largest scores of each expert
group, and which expert holds the j-th largest is a uniformly random choice. So those largest scores are
drawn directly, as order statistics (``scores``), and the ids afterwards: DeepSeek-V3 needs about 50 random
numbers a token instead of 256. The law is the same up to a table of one smooth
function (2e-6 of a score); the plain rule stands in the tests as the oracle. Gates with unequal
popularity draw from it with replacement and keep the first distinct experts, which is the same law as
Gumbel-top-k on log p.

Work goes through in chunks of tokens, so memory stays flat whatever the size of the EP group; the chunk
size is part of the random stream, hence a constant.

References: DeepSeek-V3 technical report (arXiv 2412.19437) section 2.1.2 and its inference/model.py; DeepEP
tests/legacy/test_internode.py; Kool et al., "Stochastic Beams and Where to Find Them" (arXiv 1903.06059)
for Gumbel-top-k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from sim.workload.gates import Gate, check, complete
from sim.workload.scores import kept_groups, ranked_scores

__all__ = ["Gate", "check", "complete", "draw", "group_counts", "popularity"]

IntArray = NDArray[np.int32]
FloatArray = NDArray[np.float64]

CHUNK_TOKENS = 16384
_CHUNK_SCORES = 1 << 22  # expert scores alive at once where a gate needs every score of a token


def popularity(
    gate: Gate, num_experts: int, rng: np.random.Generator, *, planned: bool = False
) -> FloatArray | None:
    """Draw the popularity of the experts.

    Parameters
    ----------
    gate : Gate
    num_experts : int [count]
    rng : numpy.random.Generator
        The same state gives the popularity that is planned with and the one that is used.
    planned : bool
        As it was when experts were placed, before it drifted.

    Returns
    -------
    array or None, [num_experts]
        Probability of each expert; None where the gate has no popularity.

    Notes
    -----
    One EP group of one layer shares one popularity: draw it once, and hand it to every ``draw`` of that group.

    A lognormal popularity drifts as one step of an autoregression of its logarithm, which keeps its variance s^2: from
    s x to s (sqrt(1 - d) x + sqrt(d) z), with x and z standard normal.
    """
    if gate.kind == "lognormal":
        normal, anew = rng.standard_normal((2, num_experts))
        if not planned:
            normal = math.sqrt(1.0 - gate.drift) * normal + math.sqrt(gate.drift) * anew
        weights = np.exp(gate.spread * (normal - normal.max()))
        return np.asarray(weights / weights.sum(), dtype=np.float64)
    if gate.kind == "zipf":
        weights = np.arange(1, num_experts + 1, dtype=np.float64) ** -gate.exponent
        return rng.permutation(weights / weights.sum())
    if gate.kind == "dirichlet":
        return rng.dirichlet(np.full(num_experts, gate.alpha))
    if gate.kind == "loads":
        loads = np.asarray(gate.loads, dtype=np.float64)
        return np.asarray(loads / loads.sum(), dtype=np.float64)
    return None


def draw(
    gate: Gate,
    num_tokens: int,
    num_experts: int,
    top_k: int,
    rng: np.random.Generator,
    probabilities: FloatArray | None = None,
) -> IntArray:
    """Draw the experts of some tokens.

    Parameters
    ----------
    gate : Gate
    num_tokens, num_experts, top_k : int [count]
    rng : numpy.random.Generator
        The only source of chance; the same state gives the same integers.
    probabilities : array, optional, [num_experts]
        Result of ``popularity``; drawn by this call where a gate needs it and none is given.

    Returns
    -------
    array of int32, [num_tokens, top_k]
        Logical expert ids, distinct within a token; their order within a token carries no meaning.

    Raises
    ------
    InputError
        For a gate that cannot choose so; see ``gates.check``.

    References
    ----------
    DeepSeek-V3, arXiv 2412.19437, section 2.1.2, for group-limited gates; DeepEP tests/legacy/test_internode.py for its
    benchmark; arXiv 1903.06059 for Gumbel-top-k.

    Examples
    --------
    >>> ids = draw(Gate("balanced"), 1000, 256, 8, np.random.default_rng(0))
    >>> ids.shape, int(np.ptp(np.bincount(ids.ravel(), minlength=256)))
    ((1000, 8), 1)
    """
    check(gate, num_experts, top_k)
    if probabilities is None:
        probabilities = popularity(gate, num_experts, rng)
    return DRAWS[gate.kind](gate, num_tokens, num_experts, top_k, rng, probabilities)


# --- one function per kind --------------------------------------------------------------------------------


def _chunks(num_tokens: int, chunk_tokens: int = CHUNK_TOKENS) -> Iterator[tuple[int, int]]:
    for first in range(0, num_tokens, chunk_tokens):
        yield first, min(first + chunk_tokens, num_tokens)


def _uniform(
    gate: Gate, num_tokens: int, num_experts: int, top_k: int, rng: np.random.Generator, p: FloatArray | None
) -> IntArray:
    out = np.empty((num_tokens, top_k), dtype=np.int32)
    for first, last in _chunks(num_tokens):
        one_group = np.zeros((last - first, 1), dtype=np.int32)
        out[first:last] = _members(one_group, one_group + np.int32(top_k), num_experts, top_k, rng)
    return out


def _group_limited(
    gate: Gate, num_tokens: int, num_experts: int, top_k: int, rng: np.random.Generator, p: FloatArray | None
) -> IntArray:
    if not gate.limits_groups:
        return _uniform(gate, num_tokens, num_experts, top_k, rng, p)
    assert gate.num_groups is not None
    group_size = num_experts // gate.num_groups
    out = np.empty((num_tokens, top_k), dtype=np.int32)
    for first, last in _chunks(num_tokens):
        kept, counts = kept_groups(gate, last - first, group_size, top_k, rng)
        out[first:last] = _members(kept, counts, group_size, top_k, rng)
    return out


def group_counts(
    gate: Gate, num_tokens: int, num_experts: int, top_k: int, rng: np.random.Generator
) -> IntArray:
    """Draw the number of experts that each token takes from each group it keeps; the first half of ``draw``.

    The limit of the gate, ``group_limited`` or ``deepep_benchmark``, binds. [num_tokens, top_groups], in no
    order.
    """
    check(gate, num_experts, top_k)
    assert gate.limits_groups
    assert gate.num_groups is not None
    assert gate.top_groups is not None
    group_size = num_experts // gate.num_groups
    out = np.empty((num_tokens, gate.top_groups), dtype=np.int32)
    for first, last in _chunks(num_tokens):
        out[first:last] = kept_groups(gate, last - first, group_size, top_k, rng)[1]
    return out


def _members(
    groups: IntArray, counts: IntArray, group_size: int, top_k: int, rng: np.random.Generator
) -> IntArray:
    """Uniformly random distinct members: ``counts`` of each of ``groups``, [num_tokens, top_k].

    Floyd's algorithm takes the j-th of c members of a set of n by drawing from the first n-c+j+1; what was
    drawn before is replaced by the last of these.
    """
    num_tokens = groups.shape[0]
    taken_after = np.cumsum(counts, axis=1, dtype=np.int32)
    base = np.repeat(groups.ravel() * np.int32(group_size), counts.ravel()).reshape(num_tokens, top_k).T
    newest = np.repeat((group_size - taken_after).ravel(), counts.ravel()).reshape(num_tokens, top_k).T
    newest = newest + np.arange(top_k, dtype=np.int32)[:, None]  # n - c + j, with j counted inside the group
    ids = (rng.random((top_k, num_tokens)) * (newest + 1)).astype(np.int32) + base
    newest += base
    for slot in range(1, top_k):
        taken = ids[0] == ids[slot]
        for earlier in range(1, slot):
            taken |= ids[earlier] == ids[slot]
        np.copyto(ids[slot], newest[slot], where=taken)
    return ids.T


def _balanced(
    gate: Gate, num_tokens: int, num_experts: int, top_k: int, rng: np.random.Generator, p: FloatArray | None
) -> IntArray:
    """Each expert equally often; each token by itself uniformly random (within uniformly random groups).

    A window of ``top_groups`` groups (all groups without a limit) has its experts shuffled and dealt out
    ``top_k`` at a time, going round until the last hand is full, so a token's experts are distinct. The
    windows of one block cover every group equally often; a block cut short by the end leaves counts that
    differ by at most ``top_groups``.
    """
    if gate.limits_groups:
        assert gate.num_groups is not None
        assert gate.top_groups is not None
        num_groups, width = gate.num_groups, gate.top_groups
    else:
        num_groups, width = 1, 1
    group_size = num_experts // num_groups
    in_window = width * group_size
    starts = np.arange(0, num_groups, width if num_groups % width == 0 else 1)
    window = (starts[:, None] + np.arange(width)) % num_groups  # [windows of a block, width]
    rounds = math.lcm(in_window, top_k) // in_window
    hands = rounds * in_window // top_k
    block_tokens = hands * len(starts)
    chunk_blocks = max(1, CHUNK_TOKENS // block_tokens)
    out = np.empty((num_tokens, top_k), dtype=np.int32)
    for first, last in _chunks(num_tokens, chunk_blocks * block_tokens):
        num_blocks = -(-(last - first) // block_tokens)
        order = rng.permuted(np.tile(np.arange(num_groups), (num_blocks, 1)), axis=1)
        groups = order[:, window].reshape(-1, width)
        deck = groups[:, :, None] * group_size + np.arange(group_size)
        deck = deck.reshape(-1, in_window).astype(np.int32)
        deck = np.tile(rng.permuted(deck, axis=1), (1, rounds))
        dealt = deck.reshape(num_blocks, len(starts), hands, top_k).transpose(0, 2, 1, 3)
        out[first:last] = dealt.reshape(-1, top_k)[: last - first]
    return out


def _draw_by_popularity(
    gate: Gate, num_tokens: int, num_experts: int, top_k: int, rng: np.random.Generator, p: FloatArray | None
) -> IntArray:
    assert p is not None
    if gate.limits_groups:
        return _race_in_groups(gate, num_tokens, num_experts, top_k, rng, p)
    tries = min(4 * top_k, 2 * top_k + 4)
    expert_at = _inverse(p)
    out = np.empty((num_tokens, top_k), dtype=np.int32)
    for first, last in _chunks(num_tokens):
        picks = expert_at(rng.random((tries, last - first)))
        fresh = np.ones(picks.shape, dtype=bool)
        for column in range(1, tries):
            for earlier in range(column):
                fresh[column] &= picks[earlier] != picks[column]
        place = np.cumsum(fresh, axis=0)
        fresh &= place <= top_k
        draw_idx, token = np.nonzero(fresh)
        chosen = np.full((last - first, top_k), -1, dtype=np.int32)
        chosen[token, place[draw_idx, token] - 1] = picks[draw_idx, token]
        unfinished = np.flatnonzero(chosen[:, -1] < 0)
        for low, high in _chunks(unfinished.size, max(1, _CHUNK_SCORES // num_experts)):
            rows = unfinished[low:high]
            chosen[rows] = _race_on(chosen[rows], p, top_k, rng)
        out[first:last] = chosen
    return out


def _inverse(p: FloatArray) -> Callable[[FloatArray], IntArray]:
    """The inverse of the cumulative popularity: uniforms in [0, 1) -> expert ids.

    A table of 65,536 equal slices names the expert of every slice that lies in one expert; the rest is
    searched.
    """
    edges = np.cumsum(p)
    edges /= edges[-1]
    bounds = np.searchsorted(edges, np.arange(65537) / 65536, side="right").astype(np.int32)
    settled = np.where(bounds[:-1] == bounds[1:], bounds[:-1], -1)

    def expert_at(uniforms: FloatArray) -> IntArray:
        ids = settled[(uniforms * 65536).astype(np.int32)]
        open_ = ids < 0
        ids[open_] = np.searchsorted(edges, uniforms[open_], side="right")
        return ids

    return expert_at


def _race_on(chosen: IntArray, p: FloatArray, top_k: int, rng: np.random.Generator) -> IntArray:
    """Complete tokens that hold fewer than ``top_k`` experts: the rest by an exponential race among what is
    left.

    Exact, because the order in which distinct experts turn up has no memory of how many repeats lay between.
    """
    rates = np.maximum(p, 1e-290)  # an expert that nobody wants comes last, but it comes
    arrival = rng.standard_exponential((chosen.shape[0], p.size)) / rates
    rows, columns = np.nonzero(chosen >= 0)
    arrival[rows, chosen[rows, columns]] = -1.0
    if top_k == p.size:
        return np.tile(np.arange(top_k, dtype=np.int32), (chosen.shape[0], 1))
    return np.argsort(arrival, axis=1, kind="stable")[:, :top_k].astype(np.int32)


def _race_in_groups(
    gate: Gate, num_tokens: int, num_experts: int, top_k: int, rng: np.random.Generator, p: FloatArray
) -> IntArray:
    """Popularity with a group limit: logit = log(E p) + Gumbel noise, score = sigmoid(logit).

    With arrival = exponential / (E p) = exp(-logit) the score is 1 / (1 + arrival), and no logarithm is
    needed.
    """
    assert gate.num_groups is not None
    assert gate.top_groups is not None
    group_size = num_experts // gate.num_groups
    ranked = ranked_scores(gate, group_size)
    rates = np.maximum(p * num_experts, 1e-30).astype(np.float32)
    excluded = gate.num_groups - gate.top_groups
    out = np.empty((num_tokens, top_k), dtype=np.int32)
    for first, last in _chunks(num_tokens, max(1, _CHUNK_SCORES // num_experts)):
        arrival = rng.standard_exponential((last - first, num_experts), dtype=np.float32)
        arrival /= rates
        by_group = arrival.reshape(last - first, gate.num_groups, group_size)
        best = np.partition(by_group, ranked - 1, axis=2)[:, :, :ranked]
        score = -best[:, :, 0] if ranked == 1 else (1.0 / (1.0 + best)).sum(axis=2)
        dropped = np.argsort(score, axis=1, kind="stable")[:, :excluded]
        by_group[np.arange(last - first)[:, None], dropped] = np.inf
        threshold = np.partition(arrival, top_k - 1, axis=1)[:, top_k - 1 : top_k]
        chosen = np.flatnonzero(arrival <= threshold)
        if chosen.size == out[first:last].size:
            out[first:last] = (chosen % num_experts).reshape(-1, top_k)
        else:  # arrivals equal in float32
            out[first:last] = np.argsort(arrival, axis=1, kind="stable")[:, :top_k]
    return out


def _trace(
    gate: Gate, num_tokens: int, num_experts: int, top_k: int, rng: np.random.Generator, p: FloatArray | None
) -> IntArray:
    """Recorded tokens in their order, going round where more are asked for than were recorded."""
    assert gate.trace is not None
    tokens: IntArray = gate.trace[np.arange(num_tokens) % gate.trace.shape[0]]
    return tokens


Draw = Callable[[Gate, int, int, int, np.random.Generator, "FloatArray | None"], IntArray]

DRAWS: dict[str, Draw] = {
    "uniform": _uniform,
    "group_limited": _group_limited,
    "balanced": _balanced,
    "deepep_benchmark": _group_limited,
    "zipf": _draw_by_popularity,
    "dirichlet": _draw_by_popularity,
    "lognormal": _draw_by_popularity,
    "loads": _draw_by_popularity,
    "trace": _trace,
}
