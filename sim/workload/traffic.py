"""Traffic: the tokens of each rank that go to each node, rank and expert, and the bytes of a token.

``route`` turns a gate and a placement into counts. Counts are floats, because under ``sampling="expected"``
they are means. A token's own rank and node count as destinations like any other: what stays at home is for
the collective to subtract.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sim import limits
from sim.errors import InputError, Problem, nearest
from sim.workload import expectation
from sim.workload.capacity import DROPPED, drop_above
from sim.workload.formats import SENT
from sim.workload.gates import Gate, check
from sim.workload.gating import draw, popularity
from sim.workload.placement import Placement

FloatArray = NDArray[np.float64]

_CHUNK_TOKENS = 65536
SAMPLINGS = ("tokens", "expected")


@dataclass(frozen=True, slots=True, eq=False)
class Routing:
    """Destinations of the tokens of one EP group in one layer.

    Parameters
    ----------
    tokens_per_rank : float [count]
        A whole number, but where a rank stands for several that have fewer (`thinned`).
    top_k : int [count]
    node_of_rank : array of int, [num_ranks]
        Node of each rank, counted from the group's first node.
    tokens_to_node : array, [num_ranks, num_nodes]
        Tokens of a source rank with an expert or more on a node.
    tokens_to_rank : array, [num_ranks, num_ranks]
        Tokens of a source rank with an expert or more on a rank.
    selections_to_rank : array, [num_ranks, num_ranks]
        (token, expert) pairs of a source rank on a rank.
    selections_to_physical : array, [num_physical]
        Tokens that each physical expert gets from all sources.
    moves : array of int, [num_moves, 2]
        Ranks that the weights of an expert go from and to before its tokens are computed.
    """

    tokens_per_rank: float
    top_k: int
    node_of_rank: NDArray[np.int64]
    tokens_to_node: FloatArray
    tokens_to_rank: FloatArray
    selections_to_rank: FloatArray
    selections_to_physical: FloatArray
    moves: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int32))

    @property
    def num_ranks(self) -> int:
        """Ranks in the EP group."""
        return int(self.tokens_to_rank.shape[0])

    @property
    def num_nodes(self) -> int:
        """Nodes that the EP group touches."""
        return int(self.tokens_to_node.shape[1])

    @property
    def nodes_per_token(self) -> float:
        """Mean number of distinct nodes of a token's experts; its own node counts where it has one there."""
        return float(self.tokens_to_node.sum() / (self.num_ranks * self.tokens_per_rank))

    @property
    def ranks_per_token(self) -> float:
        """Mean number of distinct ranks of a token's experts."""
        return float(self.tokens_to_rank.sum() / (self.num_ranks * self.tokens_per_rank))

    @property
    def dropped_fraction(self) -> float:
        """(token, expert) pairs above the capacity of their expert, over all."""
        return float(
            1.0 - self.selections_to_rank.sum() / (self.num_ranks * self.tokens_per_rank * self.top_k)
        )

    @property
    def max_over_mean_rank_load(self) -> float:
        """(token, expert) pairs on the busiest rank over the mean rank's."""
        load = self.selections_to_rank.sum(axis=0)
        return float(load.max() / load.mean())

    def thinned(self, share: float) -> Routing:
        """The mean counts where only a `share` of the tokens is there [fraction]."""
        return replace(
            self,
            tokens_per_rank=self.tokens_per_rank * share,
            tokens_to_node=self.tokens_to_node * share,
            tokens_to_rank=self.tokens_to_rank * share,
            selections_to_rank=self.selections_to_rank * share,
            selections_to_physical=self.selections_to_physical * share,
        )


def route(
    gate: Gate,
    placement: Placement,
    *,
    top_k: int,
    tokens_per_rank: int,
    ranks_per_node: int,
    node_offset: int = 0,
    sampling: str = "tokens",
    rng: np.random.Generator,
    probabilities: FloatArray | None = None,
) -> Routing:
    """Route the tokens of every rank of an EP group.

    Parameters
    ----------
    gate : Gate
        With groups filled in (``gates.complete``).
    placement : Placement
    top_k, tokens_per_rank, ranks_per_node : int [count]
    node_offset : int [count]
        Ranks of the group's first node that come before its first rank: local rank i is on node
        ``(node_offset + i) // ranks_per_node``, counted from the group's first node.
    sampling : str
        "tokens": every rank draws its own tokens. "expected": means, no draw; ``expectation`` explains its accuracy.
    rng : numpy.random.Generator
    probabilities : array, optional, [num_experts]
        Popularity of the experts where several calls share one.

    Returns
    -------
    Routing

    Raises
    ------
    InputError
        For a gate that cannot choose so, counts below 1, or another kind of sampling.
    InfeasibleError
        For more than ``MAX_DRAWN`` tokens drawn one by one.

    Notes
    -----
    A token whose expert has replicas goes to replica ``(token_idx + source_rank) % num_replicas``.

    Examples
    --------
    >>> from sim.workload.placement import contiguous
    >>> routing = route(
    ...     Gate("uniform"), contiguous(256, 64), top_k=8, tokens_per_rank=4096, ranks_per_node=8,
    ...     sampling="expected", rng=np.random.default_rng(0),
    ... )
    >>> round(routing.nodes_per_token, 2)  # 8 (1 - C(224, 8) / C(256, 8))
    5.29
    """
    check(gate, placement.num_experts, top_k)
    problems = [
        Problem(None, key, str(value), "1 or more")
        for key, value in (("tokens_per_rank", tokens_per_rank), ("ranks_per_node", ranks_per_node))
        if value < 1
    ]
    if sampling not in SAMPLINGS:
        near = nearest(sampling, SAMPLINGS)
        problems.append(Problem(None, "gate.sampling", sampling, "one of " + ", ".join(SAMPLINGS), near))
    if problems:
        raise InputError(problems)
    node_of_rank = (node_offset % ranks_per_node + np.arange(placement.num_ranks)) // ranks_per_node
    if probabilities is None:
        probabilities = popularity(gate, placement.num_experts, rng)
    if sampling == "expected":
        return _expected(gate, placement, top_k, tokens_per_rank, node_of_rank, probabilities)
    num_tokens = placement.num_ranks * tokens_per_rank
    keys = f"ranks {placement.num_ranks:,} x tokens of each {tokens_per_rank:,}"
    limits.require(num_tokens, limits.DRAWN, keys, "'sampling: expected' in the gate takes their mean")
    ids = draw(gate, num_tokens, placement.num_experts, top_k, rng, probabilities)
    if gate.capacity_factor is not None:
        ids = drop_above(ids, tokens_per_rank, placement.num_experts, gate.capacity_factor)
    return count(ids, placement, tokens_per_rank, node_of_rank)


def count(
    ids: NDArray[np.int32], placement: Placement, tokens_per_rank: int, node_of_rank: NDArray[np.int64]
) -> Routing:
    """Count the destinations of given tokens.

    Parameters
    ----------
    ids : array of int32, [num_sources * tokens_per_rank, top_k]
        Logical experts, the tokens of source rank 0 first; `DROPPED` where a selection goes nowhere.
    placement : Placement
    tokens_per_rank : int [count]
    node_of_rank : array of int, [num_ranks]

    Returns
    -------
    Routing
    """
    # What is dropped goes to one rank and one node after the last.
    num_ranks, num_nodes = placement.num_ranks + 1, int(node_of_rank[-1]) + 2
    node_of_rank = np.append(node_of_rank, num_nodes - 1)
    num_sources = ids.shape[0] // tokens_per_rank
    to_node = np.zeros(num_sources * num_nodes, dtype=np.int64)
    to_rank = np.zeros(num_sources * num_ranks, dtype=np.int64)
    selections = np.zeros(num_sources * num_ranks, dtype=np.int64)
    load = np.zeros(placement.num_physical + 1, dtype=np.int64)
    for first in range(0, ids.shape[0], _CHUNK_TOKENS):
        logical = ids[first : first + _CHUNK_TOKENS]
        token = np.arange(first, first + logical.shape[0])
        source, token_idx = token // tokens_per_rank, token % tokens_per_rank
        if placement.has_replicas:
            copy = (token_idx + source)[:, None] % placement.num_replicas[logical]
            physical = placement.replicas[logical, copy]
        else:
            physical = placement.replicas[logical, 0]
        physical = np.where(logical == DROPPED, placement.num_physical, physical)
        load += np.bincount(physical.ravel(), minlength=load.size)
        rank = np.sort(physical // placement.experts_per_rank, axis=1)
        local = (source - source[0])[:, None]
        pair = local * num_ranks + rank
        _add(selections, source[0] * num_ranks, pair)
        _add(to_rank, source[0] * num_ranks, pair[_first_of_each(rank)])
        node = node_of_rank[rank]
        _add(to_node, source[0] * num_nodes, (local * num_nodes + node)[_first_of_each(node)])
    return Routing(
        tokens_per_rank,
        ids.shape[1],
        node_of_rank[:-1],
        to_node.reshape(num_sources, num_nodes)[:, :-1].astype(np.float64),
        to_rank.reshape(num_sources, num_ranks)[:, :-1].astype(np.float64),
        selections.reshape(num_sources, num_ranks)[:, :-1].astype(np.float64),
        load[:-1].astype(np.float64),
    )


def _first_of_each(ordered: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Mark the first occurrence of each value in rows of ascending values."""
    first = np.ones(ordered.shape, dtype=bool)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=first[:, 1:])
    return first


def _add(totals: NDArray[np.int64], start: int, keys: NDArray[np.integer]) -> None:
    """Count keys into a run of totals."""
    counted = np.bincount(keys.ravel())
    totals[start : start + counted.size] += counted


def _expected(
    gate: Gate,
    placement: Placement,
    top_k: int,
    tokens_per_rank: int,
    node_of_rank: NDArray[np.int64],
    probabilities: FloatArray | None,
) -> Routing:
    """Mean counts, the same for every source rank."""
    num_ranks = placement.num_ranks
    every_rank = np.arange(num_ranks)
    node_chance = expectation.reach(gate, placement, node_of_rank, top_k, probabilities)
    rank_chance = expectation.reach(gate, placement, every_rank, top_k, probabilities)
    chosen = expectation.inclusion(gate, placement.num_experts, top_k, probabilities)
    per_physical = None
    if chosen is not None:
        per_physical = (chosen / placement.num_replicas)[placement.physical_to_logical]
    if gate.capacity_factor is not None:
        ids = expectation.sample(gate, placement.num_experts, top_k, probabilities)
        size = min(tokens_per_rank, ids.shape[0])
        ids = ids[: ids.shape[0] // size * size]
        ids = drop_above(ids, size, placement.num_experts, gate.capacity_factor)
        sampled = count(ids, placement, size, node_of_rank)
        node_chance = sampled.tokens_to_node.mean(axis=0) / size
        rank_chance = sampled.tokens_to_rank.mean(axis=0) / size
        per_physical = sampled.selections_to_physical / ids.shape[0]
    elif node_chance is None or rank_chance is None or per_physical is None:
        ids = expectation.sample(gate, placement.num_experts, top_k, probabilities)
        sampled = count(ids, placement, ids.shape[0], node_of_rank)
        per_token = 1.0 / ids.shape[0]
        node_chance = sampled.tokens_to_node[0] * per_token
        rank_chance = sampled.tokens_to_rank[0] * per_token
        if per_physical is None:
            per_physical = sampled.selections_to_physical * per_token
        else:  # the loads are known: all the sample has to tell is how often a token repeats a rank
            drawn = sampled.selections_to_rank[0] * per_token
            known = per_physical.reshape(num_ranks, -1).sum(axis=1)
            rank_chance = np.where(drawn > 0, rank_chance * known / np.where(drawn > 0, drawn, 1.0), known)
            rank_chance = np.minimum(rank_chance, 1.0)
    tokens = np.full((num_ranks, 1), float(tokens_per_rank))
    return Routing(
        tokens_per_rank,
        top_k,
        node_of_rank,
        tokens * node_chance,
        tokens * rank_chance,
        tokens * per_physical.reshape(num_ranks, -1).sum(axis=1),
        per_physical * float(tokens_per_rank * num_ranks),
    )


# --- bytes of a token -------------------------------------------------------------------------------------

DTYPES = tuple(SENT)
DIRECTIONS = ("dispatch", "combine")


def payload_bytes(dtype: str, hidden: int) -> int:
    """Bytes of one token's activations.

    Parameters
    ----------
    dtype : str
        A name of `formats.SENT`.
    hidden : int [elements]

    Returns
    -------
    int [bytes]

    Raises
    ------
    InputError
        For another format.

    Notes
    -----
    Elements and scales of one row. logfmt10: ten bits an element and (assumed) two bf16 bounds per block of 128, every block taken
    to be compressible.

    Examples
    --------
    >>> payload_bytes("fp8", 7168), payload_bytes("bf16", 7168), payload_bytes("nvfp4", 7168)
    (7392, 14336, 4032)
    """
    if dtype not in SENT:
        raise InputError(Problem(None, "dtype", dtype, "one of " + ", ".join(DTYPES), nearest(dtype, DTYPES)))
    return SENT[dtype].row_bytes(hidden)
