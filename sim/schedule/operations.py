"""Operations of a pipeline, and the order of a rank: the words that schedules are written in.

A *stage* is a run of layers; a *chunk* is a stage as one rank holds it, and a rank holds several where a
schedule interleaves them or runs microbatches in both directions. Operations are F (forward), B (full
backward), B_in (its input part), W (its weight part), FB (the forward of one chunk overlapped with the
backward of another) and FW (a weight part overlapped with the forward that follows it).

Why this way: only the order on each rank is decided, never a time. The same `Pipeline` is replayed with given
durations (`sim.schedule.replay`) or executed against a network, with stages as uneven as they come. A step of a large
model has a hundred thousand operations, so they are kept as columns (`Table`); `Pipeline.orders` makes an object of each
for whoever wants to read them.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

Kind = Literal["F", "B", "B_in", "W", "FB", "FW"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CODES: Mapping[Kind, int] = {kind: place for place, kind in enumerate(KINDS)}
"""Kind -> the number that a table writes for it: its place in `KINDS`."""
PAIRS: tuple[Kind, ...] = ("FB", "FW")
"""Two operations at once, each beside the all-to-alls of the other."""
WEIGHT_PARTS: tuple[Kind, ...] = ("W", "FW")
"""Kinds whose backward is a weight part that was left over."""

Ints = npt.NDArray[np.int32]


class ChunkPass(NamedTuple):
    """One microbatch going through one chunk of a rank: where, and which."""

    chunk: int
    stage: int
    microbatch: int


class Event(NamedTuple):
    """Product of an operation: `F` activations, `B` the gradient of a stage's input, `W` of its weights."""

    part: str
    stage: int
    microbatch: int


@dataclass(frozen=True, slots=True)
class Operation:
    """One entry of a rank's order.

    Parameters
    ----------
    forward, backward : ChunkPass or None
        F has a forward, B, B_in and W have a backward, FB and FW have both, of different microbatches.
    waits_for : tuple of Event
        What must have happened, on this rank or another.
    completes : tuple of Event
        What has happened when it ends.
    """

    kind: Kind
    forward: ChunkPass | None
    backward: ChunkPass | None
    waits_for: tuple[Event, ...]
    completes: tuple[Event, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Operations of all ranks as columns, one rank after another; arrays that cannot be written to.

    Parameters
    ----------
    first : int, [num_ranks + 1]
        Where each rank's operations begin, and where the last one's end.
    kind : int, [num_operations]
        Place in `KINDS`.
    forward, backward : int, [num_operations, 3]
        Chunk, stage and microbatch, as in `ChunkPass`; -1 where an operation has none.
    """

    first: Ints
    kind: npt.NDArray[np.int8]
    forward: Ints
    backward: Ints

    @property
    def rank(self) -> Ints:
        """The rank of each operation, [num_operations]."""
        return np.repeat(np.arange(len(self.first) - 1, dtype=np.int32), np.diff(self.first))


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A schedule laid out for some ranks and microbatches.

    Parameters
    ----------
    num_stages : int [count]
        Runs that the model's layers are cut into; several a rank where a schedule interleaves.
    table : Table
        What each rank does, one after another.
    stages : tuple of tuple of int, [num_ranks][num_chunks]
        Stage that each chunk of a rank is. A stage stands on two ranks in DualPipe.
    directions : tuple of int, [num_chunks]
        +1 where microbatches of that chunk go from rank 0 upwards, -1 where they come down.
    """

    kind: str
    num_ranks: int
    num_stages: int
    num_microbatches: int
    table: Table
    stages: tuple[tuple[int, ...], ...]
    directions: tuple[int, ...]

    @cached_property
    def orders(self) -> tuple[tuple[Operation, ...], ...]:
        """The table as objects, [num_ranks][...]: made when first asked for, and some hundred bytes each."""
        t, last_stage = self.table, self.num_stages - 1
        rows = zip(t.kind.tolist(), t.forward.tolist(), t.backward.tolist(), strict=True)
        made = [
            operation(KINDS[kind], _pass(forward), _pass(backward), last_stage)
            for kind, forward, backward in rows
        ]
        return tuple(tuple(made[i:j]) for i, j in itertools.pairwise(t.first.tolist()))

    @property
    def num_copies(self) -> int:
        """Ranks that hold each stage: 2 in DualPipe, else 1."""
        return sum(len(held) for held in self.stages) // self.num_stages

    @cached_property
    def holders(self) -> Ints:
        """Rank that meets a stage with the microbatches of the first and of the second half, [num_stages, 2]."""
        holder = np.empty((self.num_stages, 2), dtype=np.int32)
        for rank, held in enumerate(self.stages):
            for chunk, stage in enumerate(held):
                holder[stage, slice(None) if self.num_copies == 1 else chunk] = rank
        return holder

    def rank_of(self, stage: int, microbatch: int) -> int:
        """The rank on which a microbatch meets a stage."""
        return int(self.holders[stage, int(microbatch >= self.num_microbatches // 2)])


def operation(
    kind: Kind, forward: ChunkPass | None, backward: ChunkPass | None, last_stage: int
) -> Operation:
    """Make an operation, with what it waits for and what it completes, in a pipeline with such a last stage."""
    waits: list[Event] = []
    done: list[Event] = []
    if forward:
        _, stage, microbatch = forward
        if stage > 0:
            waits.append(Event("F", stage - 1, microbatch))
        done.append(Event("F", stage, microbatch))
    if backward:
        _, stage, microbatch = backward
        if kind in WEIGHT_PARTS:
            waits.append(Event("B", stage, microbatch))
        elif stage < last_stage:
            waits += [Event("F", stage, microbatch), Event("B", stage + 1, microbatch)]
        else:
            waits.append(Event("F", stage, microbatch))
        done += [Event(part, stage, microbatch) for part in _BACKWARD_PARTS[kind]]
    return Operation(kind, forward, backward, tuple(waits), tuple(done))


_BACKWARD_PARTS: Mapping[Kind, str] = {"B": "BW", "B_in": "B", "W": "W", "FB": "BW", "FW": "W"}


def _pass(row: list[int]) -> ChunkPass | None:
    return ChunkPass(*row) if row[0] >= 0 else None


# --- writing the order of a rank ----------------------------------------------------------------------------

_FORWARD, _BACKWARD, _MASK = 3, 17, (1 << 14) - 1  # bits of a word: kind, then chunks counted from 1
KIND_BITS = (1 << _FORWARD) - 1
"""Bits of a word that hold its kind."""


def word(kind: Kind, forward: int = -1, backward: int = -1) -> int:
    """Write an operation as a number, by the chunks of its passes (-1 for none).

    Microbatches follow from those written before.
    """
    return CODES[kind] | (forward + 1) << _FORWARD | (backward + 1) << _BACKWARD


def words(kind: Kind, chunks: Ints) -> Ints:
    """Write operations of one kind, with one pass, as numbers [num_operations]."""
    return CODES[kind] | (chunks + 1) << (_FORWARD if kind == "F" else _BACKWARD)


class Order:
    """The order of one rank while it is written, as words; which microbatch is whose is counted by `table`."""

    def __init__(self, stages: tuple[int, ...], first_microbatch: tuple[int, ...] | None = None) -> None:
        self.stages = stages
        self.first_microbatch = first_microbatch or (0,) * len(stages)
        self.words: array[int] = array("i")
        self.weights = 0  # parts that B_in has left over

    def write(self, words: Ints) -> None:
        """Any operations, one after another."""
        self.words.frombytes(words.astype(np.int32, copy=False).tobytes())

    def f(self, chunk: int, times: int = 1) -> None:
        """The chunk's next microbatches forward."""
        self.words.extend([word("F", chunk)] * times)

    def b(self, chunk: int, times: int = 1) -> None:
        """The chunk's next microbatches backward."""
        self.words.extend([word("B", backward=chunk)] * times)

    def b_in(self, chunk: int) -> None:
        """Its input part; the weight part joins the queue."""
        self.words.append(word("B_in", backward=chunk))
        self.weights += 1

    def w(self) -> None:
        """The weight part that has waited longest."""
        self.words.append(word("W", backward=0))  # its chunk follows from the queue
        self.weights -= 1

    def fb(self, forward: int, backward: int) -> None:
        """The next microbatch of one chunk forward, overlapped with the next of another backward."""
        self.words.append(word("FB", forward, backward))


def table(orders: Sequence[Order]) -> Table:
    """Read the orders of all ranks, every operation with its stage and microbatch."""
    first = np.concatenate([[0], np.cumsum([len(order.words) for order in orders])]).astype(np.int32)
    words = np.concatenate([np.frombuffer(order.words, dtype=np.int32) for order in orders])
    kind = (words & KIND_BITS).astype(np.int8)
    forward, backward = np.full((2, len(words), 3), -1, dtype=np.int32)
    forward[:, 0] = (words >> _FORWARD & _MASK) - 1
    backward[:, 0] = (words >> _BACKWARD & _MASK) - 1
    for order, (i, j) in zip(orders, itertools.pairwise(first.tolist()), strict=True):
        is_weight = np.isin(kind[i:j], [CODES[each] for each in WEIGHT_PARTS])
        _count(order, forward[i:j])
        _count(order, backward[i:j], left_out=is_weight)
        queue = backward[i:j][kind[i:j] == CODES["B_in"]]
        backward[i:j][is_weight] = queue[: is_weight.sum()]
    for column in (first, kind, forward, backward):
        column.flags.writeable = False
    return Table(first, kind, forward, backward)


def _count(order: Order, passes: Ints, left_out: npt.NDArray[np.bool_] | None = None) -> None:
    """Fill in stages and microbatches of one rank's passes: those of a chunk are counted in their order."""
    chunk_of = passes[:, 0] if left_out is None else np.where(left_out, -1, passes[:, 0])
    for chunk, stage in enumerate(order.stages):
        own = np.flatnonzero(chunk_of == chunk)
        passes[own, 1] = stage
        passes[own, 2] = order.first_microbatch[chunk] + np.arange(len(own))
