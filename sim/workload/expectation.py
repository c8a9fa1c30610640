"""Expected traffic: the probability that a token reaches a set of experts, without drawing tokens.

``reach`` answers for every rank or node at once. Three ways, by gate:

- Exchangeable gates. Groups are interchangeable and so are the experts inside a group, so a token is
  described by how many experts it takes from each group it keeps (a *split*, e.g. 4+2+1+1), and the chance
  to miss a set of experts follows from the split by counting. The splits of ``uniform`` and ``balanced``
  gates are hypergeometric; those of gates that rank groups by score have no closed form and come from one
  fixed-seed sample of 131,072 tokens, a numerical quadrature with a standard error of 0.03 % of nodes per
  token or less. Equal ranks get equal traffic, to the last digit.
- Popularity gates without a group limit, one copy of each expert: an integral over the arrival time of an
  exponential race (the law of Gumbel-top-k), exact to about 1e-8.
- Everything else: a fixed-seed sample of 131,072 tokens (all rows of a trace); the relative standard error
  of a destination that a fraction p of the tokens reaches is sqrt((1 - p) / (131072 p)).

References: the first way for one group is ``get_expected_topk`` of DeepEP's deep_ep/buffers/elastic.py.
"""

from __future__ import annotations

import functools
import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from sim.workload.gates import Gate
from sim.workload.gating import draw, group_counts
from sim.workload.placement import Placement

FloatArray = NDArray[np.float64]
Splits = tuple[tuple[tuple[int, ...], float], ...]

SAMPLE_TOKENS = 131072
_SAMPLE_SEED = 20250509
_MAX_PHASES = 1024  # replica choices that are averaged; one period where the numbers of copies allow it
_MAX_TERMS = 200_000
_CERTAIN = 1 - 1e-6  # an expert this likely to get a token counts as one that does


def sample(gate: Gate, num_experts: int, top_k: int, probabilities: FloatArray | None) -> NDArray[np.int32]:
    """Draw the fixed-seed tokens that stand for a gate [num_sampled, top_k]; a trace stands for itself."""
    if gate.trace is not None and gate.kind == "trace":
        return gate.trace
    return draw(gate, SAMPLE_TOKENS, num_experts, top_k, np.random.default_rng(_SAMPLE_SEED), probabilities)


def reach(
    gate: Gate,
    placement: Placement,
    part_of_rank: NDArray[np.integer],
    top_k: int,
    probabilities: FloatArray | None,
) -> FloatArray | None:
    """Compute the probability that a token has an expert on each part of an EP group.

    Parameters
    ----------
    gate : Gate
    placement : Placement
    part_of_rank : array of int, [num_ranks]
        The part (node, or the rank itself) that each rank belongs to.
    top_k : int [count]
    probabilities : array or None, [num_experts]
        Popularity of the experts, for gates that have one.

    Returns
    -------
    array or None, [num_parts]
        None where only a sample can tell.

    Notes
    -----
    For exchangeable gates 1 minus the probability that every part of a token's split misses the set, by counting; for popularity
    gates see ``reach_by_race``.

    References
    ----------
    With one group this is ``get_expected_topk`` of DeepEP's deep_ep/buffers/elastic.py.
    """
    part_of_physical = np.repeat(part_of_rank, placement.experts_per_rank)
    num_parts = int(part_of_rank.max()) + 1
    if gate.is_exchangeable:
        return _reach_by_splits(gate, placement, part_of_physical, num_parts, top_k)
    if probabilities is not None and not gate.limits_groups and not placement.has_replicas:
        part_of_expert = part_of_physical[placement.replicas[:, 0]]
        return reach_by_race(probabilities, part_of_expert, num_parts, top_k)
    return None


def inclusion(
    gate: Gate, num_experts: int, top_k: int, probabilities: FloatArray | None
) -> FloatArray | None:
    """Compute the probability that a token chooses each expert.

    Parameters
    ----------
    gate : Gate
    num_experts, top_k : int [count]
    probabilities : array or None, [num_experts]
        Popularity of the experts, for gates that have one.

    Returns
    -------
    array or None, [num_experts]
        Sums to ``top_k``; None where only a sample can tell.
    """
    if gate.is_exchangeable:
        return np.full(num_experts, top_k / num_experts)
    if probabilities is not None and not gate.limits_groups:
        return reach_by_race(probabilities, np.arange(num_experts), num_experts, top_k)
    return None


def touched(rows: FloatArray, num_tokens: float, *, evenly: bool = False) -> FloatArray:
    """Compute the probability that experts get a token at all.

    Parameters
    ----------
    rows : array [tokens]
        Mean rows of each expert.
    num_tokens : float [tokens]
        Tokens that choose.
    evenly : bool
        The gate gives every expert the same.

    Returns
    -------
    array
        Of the shape of ``rows``.

    Notes
    -----
    Tokens choose independently, each an expert with probability p = rows / tokens: 1 - (1 - p)^tokens. A gate that gives every
    expert the same leaves none without before all have one: min(1, rows).
    """
    if evenly:
        return np.minimum(rows, 1.0)
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(num_tokens * np.log1p(-np.minimum(rows / num_tokens, 1.0))))


def rows_of_touched(rows: FloatArray, num_tokens: float, *, evenly: bool = False) -> list[FloatArray]:
    """List the experts of each rank that work, as rows; all of them, but where tokens are few.

    Parameters
    ----------
    rows : array, [num_ranks, experts_per_rank]
        Mean rows of each expert from ``num_tokens`` tokens.
    num_tokens : float [tokens]
    evenly : bool
        The gate gives every expert the same.

    Returns
    -------
    list of array
        For each rank as many experts as are expected to get a token, rounded up, the likeliest first, each with the rows that it
        has when it gets any. At least one: whoever waits for a rank waits for one that has something to do.
    """
    chance = touched(rows, num_tokens, evenly=evenly)
    if (chance > _CERTAIN).all():
        return list(rows)
    working = []
    for own, likely in zip(rows, chance, strict=True):
        most = np.argsort(-likely, kind="stable")[: max(1, math.ceil(likely.sum() - 1e-9))]
        most = most[likely[most] > 0]
        working.append(np.where(likely[most] > _CERTAIN, own[most], own[most] / likely[most]))
    return working


# --- exchangeable gates -----------------------------------------------------------------------------------


def _reach_by_splits(
    gate: Gate, placement: Placement, part_of_physical: NDArray[np.integer], num_parts: int, top_k: int
) -> FloatArray | None:
    num_experts = placement.num_experts
    limited = gate.limits_groups and gate.kind != "uniform"
    num_groups = (gate.num_groups or 1) if limited else 1
    splits = _splits(gate.kind, num_groups, gate.top_groups or 1, gate.group_score, num_experts, top_k)
    if len(splits) << max(len(split) for split, _ in splits) > _MAX_TERMS:
        return None
    group = np.arange(num_experts) // (num_experts // num_groups)
    phases = min(math.lcm(*{int(count) for count in placement.num_replicas}), _MAX_PHASES)
    held = np.zeros((phases, num_parts * num_groups), dtype=np.int64)
    for phase in range(phases):
        copy = placement.replicas[np.arange(num_experts), phase % placement.num_replicas]
        place = part_of_physical[copy] * num_groups + group
        held[phase] = np.bincount(place, minlength=num_parts * num_groups)
    overlaps = np.sort(held.reshape(phases * num_parts, num_groups), axis=1)
    kinds, which = np.unique(overlaps, axis=0, return_inverse=True)
    group_size = num_experts // num_groups
    missed = [_miss(tuple(int(n) for n in kind if n), num_groups, group_size, splits) for kind in kinds]
    chance = 1.0 - np.array(missed)
    return np.asarray(chance[which.ravel()].reshape(phases, num_parts).mean(axis=0))


@functools.lru_cache(maxsize=256)
def _splits(
    kind: str, num_groups: int, top_groups: int, group_score: str, num_experts: int, top_k: int
) -> Splits:
    """List the splits of a token's experts among the groups it keeps, largest part first, with their probabilities."""
    if num_groups == 1:
        return (((top_k,), 1.0),)
    group_size = num_experts // num_groups
    if kind == "balanced":
        ways: dict[tuple[int, ...], int] = {(): 1}
        for _ in range(top_groups):
            longer: Counter[tuple[int, ...]] = Counter()
            for split, number in ways.items():
                for taken in range(min(group_size, top_k - sum(split)) + 1):
                    longer[tuple(sorted((*split, taken), reverse=True))] += number * math.comb(
                        group_size, taken
                    )
            ways = longer
        whole = math.comb(top_groups * group_size, top_k)
        law = {split: number / whole for split, number in ways.items() if sum(split) == top_k}
    else:
        gate = Gate(kind, num_groups, top_groups, group_score)
        rng = np.random.default_rng(_SAMPLE_SEED)
        counts = np.sort(group_counts(gate, SAMPLE_TOKENS, num_experts, top_k, rng), axis=1)[:, ::-1]
        digits = (top_k + 1) ** np.arange(top_groups)
        _, first, seen = np.unique(counts @ digits, return_index=True, return_counts=True)
        law = {
            tuple(split): number / SAMPLE_TOKENS
            for split, number in zip(counts[first].tolist(), seen.tolist(), strict=True)
        }
    return tuple(sorted((tuple(n for n in split if n), chance) for split, chance in law.items()))


@functools.lru_cache(maxsize=4096)
def _miss(overlaps: tuple[int, ...], num_groups: int, group_size: int, splits: Splits) -> float:
    """Chance that a token has none of a set of experts that holds ``overlaps[i]`` members of its i-th group.

    The parts of a split fall on distinct groups, every assignment equally likely; a part of c experts on a
    group of n with o members in the set misses it with chance C(n-o, c) / C(n, c). ``paths[mask]`` sums
    over the ways to put the parts in ``mask`` on the groups seen so far.
    """
    total = 0.0
    untouched = num_groups - len(overlaps)
    for split, chance in splits:
        paths = {0: 1.0}
        for overlap in overlaps:
            missed = [math.comb(group_size - overlap, c) / math.comb(group_size, c) for c in split]
            further = dict(paths)
            for mask, weight in paths.items():
                for part, factor in enumerate(missed):
                    if factor and not mask >> part & 1:
                        further[mask | 1 << part] = further.get(mask | 1 << part, 0.0) + weight * factor
            paths = further
        parts = len(split)
        favourable = sum(w * math.perm(untouched, parts - mask.bit_count()) for mask, w in paths.items())
        total += chance * favourable / math.perm(num_groups, parts)
    return total


# --- popularity gates -------------------------------------------------------------------------------------


def reach_by_race(
    p: FloatArray, part_of_expert: NDArray[np.integer], num_parts: int, top_k: int
) -> FloatArray:
    """Compute the probability that the first ``top_k`` arrivals of an exponential race include one of each part.

    Parameters
    ----------
    p : array, [num_experts]
        Popularity, the rates of the race; sums to 1.
    part_of_expert : array of int, [num_experts]
    num_parts, top_k : int [count]

    Returns
    -------
    array, [num_parts]

    Notes
    -----
    A part of total rate L is missed when ``top_k`` experts outside it arrive before its first, whose time is exponential: integral
    of L exp(-L t) P(N(t) >= top_k) dt, N(t) the arrivals outside the part, a Poisson binomial. The trapezoidal rule in log t
    converges exponentially; polynomials in x count arrivals up to ``top_k - 1``.

    References
    ----------
    The race is the law of Gumbel-top-k: arXiv 1903.06059.
    """
    rates = np.maximum(p, 1e-15)
    part_rate = np.bincount(part_of_expert, weights=rates, minlength=num_parts)
    held = part_rate > 0
    log_t = np.arange(math.log(1e-3), math.log(60.0 / part_rate[held].min()), 0.125)
    t = np.exp(log_t)
    product = np.zeros((num_parts, top_k, t.size))
    product[:, 0] = 1.0
    for expert in range(rates.size):
        absent = np.exp(-rates[expert] * t)
        own = product[part_of_expert[expert]]
        own[1:] = own[1:] * absent + own[:-1] * (1.0 - absent)
        own[0] *= absent
    others = _product_of_others(product)
    late: FloatArray = 1.0 - others.sum(axis=1)  # P(N(t) >= top_k), [num_parts, times]
    lt = part_rate[:, None] * t
    missed = (lt * np.exp(-lt) * late).sum(axis=1) * 0.125
    return np.where(held, 1.0 - np.clip(missed, 0.0, 1.0), 0.0)


def _product_of_others(factors: FloatArray) -> FloatArray:
    """For each polynomial the product of all others, truncated: [num, degree, times] -> the same shape."""
    ahead, behind = np.empty_like(factors), np.empty_like(factors)
    unity = np.zeros_like(factors[0])
    unity[0] = 1.0
    running = unity
    for i in range(len(factors)):
        ahead[i] = running
        running = _times(running, factors[i])
    running = unity
    for i in reversed(range(len(factors))):
        behind[i] = running
        running = _times(running, factors[i])
    return np.stack([_times(a, b) for a, b in zip(ahead, behind, strict=True)])


def _times(a: FloatArray, b: FloatArray) -> FloatArray:
    out: FloatArray = a[0] * b
    for power in range(1, len(a)):
        out[power:] += a[power] * b[:-power]
    return out
