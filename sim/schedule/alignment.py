"""Alignment: which blocks of a forward and of a backward chunk run next to each other in an overlapped pair.

Chunks have unequal lists of layers: dense ones, embedding and heads have no collective, and a rank's two stages need not be
as long as each other. The walk through both lists whose collectives are hidden best is found by dynamic programming.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from sim.schedule.programs import (
    COMBINE,
    DISPATCH,
    LayerTimes,
    Node,
    Program,
    forward,
    pair,
    paired,
    weight_gradients,
)

_KEPT = 8  # ways followed at each point of the search


def aligned(
    fs: tuple[LayerTimes, ...], bs: tuple[LayerTimes, ...], collective_s: Callable[[str], float]
) -> Program:
    """Pair the blocks of two chunks so that they take the shortest time.

    Parameters
    ----------
    fs, bs : tuple of LayerTimes
        Blocks of the forward and of the backward chunk, both in forward order.
    collective_s : function
        Name of a kernel (`DISPATCH`, `COMBINE`) -> its time [s].

    Returns
    -------
    tuple of Node
        The program of the pair, every rank alike.
    """
    return _aligned(fs, bs, collective_s(DISPATCH), collective_s(COMBINE))


@lru_cache(maxsize=256)
def _aligned(
    fs: tuple[LayerTimes, ...], bs: tuple[LayerTimes, ...], dispatch_s: float, combine_s: float
) -> Program:
    alike = [tuple(replace(x, layer=0) for x in chunk) for chunk in (fs, bs)]
    return paired(fs, bs, _best_steps(*alike, dispatch_s, combine_s))


def filled(
    fs: tuple[LayerTimes, ...], ws: tuple[LayerTimes, ...], collective_s: Callable[[str], float]
) -> Program:
    """Put the weight parts of one chunk where the forward of another waits for its collectives (`collective_s`).

    Blocks of both are in forward order. Weight parts that find no room run last.

    Notes
    -----
    A weight part joins a collective where half of it at least fits into what is left of the collective's time.
    """
    alone, parts = forward(fs), deque(weight_gradients(ws))
    out: list[Node] = []
    place: list[int] = []
    for node in alone:
        place.append(len(out))
        out.append(node._replace(waits=tuple(place[i] for i in node.waits)))
        left = collective_s(node.collective) if node.collective else 0.0
        while parts and 2 * left > parts[0].mean_s:
            left -= parts[0].mean_s
            out.append(parts.popleft()._replace(waits=()))
    return (*out, *(node._replace(waits=()) for node in parts))


Steps = tuple[tuple[bool, bool], ...]
_State = tuple[float, float, float, float]
"""Clocks of the compute stream, the communication stream and the two halves' chains of dependencies [s]."""


@dataclass(frozen=True, slots=True)
class _Block:
    """One or two blocks as `pair` writes them, ready to be run from any state.

    `nodes`: whether it communicates, its time [s], and what it waits for: 0 and 1 are what came before in its half, F or B;
    nodes are counted from 2. `last_f`, `last_b`: what the half waits for afterwards.
    """

    nodes: tuple[tuple[bool, float, int], ...]
    last_f: int
    last_b: int

    @classmethod
    def from_layers(
        cls, f: LayerTimes | None, b: LayerTimes | None, collective_s: Mapping[str, float]
    ) -> _Block:
        """With collectives that take `collective_s` of their kernel [s]."""
        out = pair(f, b)
        nodes = []
        for node in out.nodes:
            before = 2 + node.waits[0] if node.waits else int(node.half == "B")
            seconds = node.mean_s if node.collective is None else collective_s[node.collective]
            nodes.append((node.collective is not None, seconds, before))
        return cls(tuple(nodes), 2 + out.last.get("F", -2), 2 + out.last.get("B", -1))

    def after(self, state: _State) -> _State:
        """The state when it has run."""
        compute, comm, *ends = state
        for communicates, seconds, before in self.nodes:
            ready = ends[before]
            if communicates:
                comm = (ready if ready > comm else comm) + seconds
                ends.append(comm)
            else:
                compute = (ready if ready > compute else compute) + seconds
                ends.append(compute)
        return compute, comm, ends[self.last_f], ends[self.last_b]


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to some point of the walk through both lists: where it leaves everything, and its steps, the last one first."""

    state: _State
    num_steps: int
    step: tuple[bool, bool] | None = None
    before: _Way | None = None

    @property
    def rank(self) -> tuple[float, float, int]:
        """By which ways are sorted: when both streams have ended, the sum of all clocks [s], the steps."""
        compute, comm, _, _ = self.state
        return (compute if compute > comm else comm), sum(self.state), self.num_steps

    def steps(self) -> Steps:
        """From the first to the last."""
        return () if self.step is None or self.before is None else (*self.before.steps(), self.step)


@lru_cache(maxsize=256)
def _best_steps(
    fs: tuple[LayerTimes, ...], bs: tuple[LayerTimes, ...], dispatch_s: float, combine_s: float
) -> Steps:
    """The walk through both lists with the shortest span; of equal ones, one with the most pairs.

    Notes
    -----
    Dynamic programming over how many blocks of each list are done. A later state never lets anything end sooner, so a
    way to (i, j) that is later than another in every respect is dropped, and what is left is the best of all walks. Of
    ways that are neither, the `_KEPT` shortest are followed: enough for lists of a few blocks to be exact.
    """
    times = {DISPATCH: dispatch_s, COMBINE: combine_s}
    kinds = list(dict.fromkeys((*fs, *bs)))  # a chunk has many layers and few that differ
    f_kinds, b_kinds = [kinds.index(x) for x in fs], [kinds.index(x) for x in reversed(bs)]

    @cache
    def block(f: int | None, b: int | None) -> _Block:
        return _Block.from_layers(None if f is None else kinds[f], None if b is None else kinds[b], times)

    ways: dict[tuple[int, int], list[_Way]] = {(0, 0): [_Way((0.0, 0.0, 0.0, 0.0), 0)]}
    for i, j in itertools.product(range(len(fs) + 1), range(len(bs) + 1)):
        candidates = []
        for f, b in ((1, 1), (1, 0), (0, 1)):
            if f <= i and b <= j:
                step_block = block(f_kinds[i - 1] if f else None, b_kinds[j - 1] if b else None)
                step = (bool(f), bool(b))
                candidates += [
                    _Way(step_block.after(way.state), way.num_steps + 1, step, way)
                    for way in ways[i - f, j - b]
                ]
        if candidates:
            ways[i, j] = _earliest(candidates)
    return ways[len(fs), len(bs)][0].steps()


def _earliest(ways: list[_Way]) -> list[_Way]:
    """Those that no other way beats in every respect, the shortest first."""
    kept: list[_Way] = []
    for way in sorted(ways, key=lambda way: way.rank):
        compute, comm, f, b = way.state
        for better in kept:
            x = better.state
            if x[0] <= compute and x[1] <= comm and x[2] <= f and x[3] <= b:
                break
        else:
            kept.append(way)
            if len(kept) == _KEPT:
                break
    return kept
