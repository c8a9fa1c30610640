"""Operations of a pipeline, and the order of a rank: the words that schedules are written in.

A *stage* is a run of layers; a *chunk* is a stage as one rank holds it, and a rank holds several where a
schedule interleaves them or runs microbatches in both directions. Operations are F (forward), B (full
backward), B_in (its input part), W (its weight part) and FB (the forward of one chunk overlapped with the
backward of another).

Why this way: only the order on each rank is decided, never a time. The same `Pipeline` is replayed with given
durations (`sim.schedule.replay`) or executed against a network, with stages as uneven as they come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["F", "B", "B_in", "W", "FB"]


class Pass(NamedTuple):
    """One microbatch going through one chunk of a rank: where, and which."""

    chunk: int
    stage: int
    microbatch: int


class Event(NamedTuple):
    """What an operation makes: `F` activations, `B` the gradient of a stage's input, `W` of its weights."""

    part: str
    stage: int
    microbatch: int


@dataclass(frozen=True, slots=True)
class Operation:
    """One entry of a rank's order.

    Parameters
    ----------
    forward, backward : Pass or None
        F has a forward, B, B_in and W have a backward, FB has both, of different chunks.
    waits_for : tuple of Event
        What must have happened, on this rank or another.
    completes : tuple of Event
        What has happened when it ends.
    """

    kind: Kind
    forward: Pass | None
    backward: Pass | None
    waits_for: tuple[Event, ...]
    completes: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A schedule laid out for some ranks and microbatches.

    Parameters
    ----------
    num_stages : int [count]
        Runs that the model's layers are cut into; several a rank where a schedule interleaves.
    orders : tuple of tuple of Operation, [num_ranks][...]
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
    orders: tuple[tuple[Operation, ...], ...]
    stages: tuple[tuple[int, ...], ...]
    directions: tuple[int, ...]

    @property
    def num_copies(self) -> int:
        """Ranks that hold each stage: 2 in DualPipe, else 1."""
        return sum(len(held) for held in self.stages) // self.num_stages

    def rank_of(self, stage: int, microbatch: int) -> int:
        """The rank on which a microbatch meets a stage."""
        holders = [rank for rank, held in enumerate(self.stages) if stage in held]
        if len(holders) == 1:
            return holders[0]
        up = microbatch < self.num_microbatches // 2
        return next(rank for rank in holders if (self.stages[rank].index(stage) == 0) == up)


# --- writing the order of a rank ----------------------------------------------------------------------------


class Order:
    """The order of one rank while it is written: counts each chunk's microbatches, queues weight parts."""

    def __init__(
        self, stages: tuple[int, ...], num_stages: int, first_microbatch: tuple[int, ...] | None = None
    ) -> None:
        self.stages, self.last_stage = stages, num_stages - 1
        self.next_forward = list(first_microbatch or (0,) * len(stages))
        self.next_backward = list(self.next_forward)
        self.weights: deque[Pass] = deque()
        self.operations: list[Operation] = []

    def f(self, chunk: int) -> None:
        """The chunk's next microbatch forward."""
        self._add("F", forward=self._take(self.next_forward, chunk))

    def b(self, chunk: int) -> None:
        """The chunk's next microbatch backward."""
        self._add("B", backward=self._take(self.next_backward, chunk))

    def b_in(self, chunk: int) -> None:
        """Its input part; the weight part joins the queue."""
        taken = self._take(self.next_backward, chunk)
        self.weights.append(taken)
        self._add("B_in", backward=taken)

    def w(self) -> None:
        """The weight part that has waited longest."""
        self._add("W", backward=self.weights.popleft())

    def fb(self, forward: int, backward: int) -> None:
        """The next microbatch of one chunk forward, overlapped with the next of another backward."""
        self._add("FB", self._take(self.next_forward, forward), self._take(self.next_backward, backward))

    def _take(self, counter: list[int], chunk: int) -> Pass:
        microbatch = counter[chunk]
        counter[chunk] += 1
        return Pass(chunk, self.stages[chunk], microbatch)

    def _add(self, kind: Kind, forward: Pass | None = None, backward: Pass | None = None) -> None:
        waits: list[Event] = []
        done: list[Event] = []
        if forward:
            _, stage, microbatch = forward
            if stage > 0:
                waits.append(Event("F", stage - 1, microbatch))
            done.append(Event("F", stage, microbatch))
        if backward:
            _, stage, microbatch = backward
            if kind == "W":
                waits.append(Event("B", stage, microbatch))
            elif stage < self.last_stage:
                waits += [Event("F", stage, microbatch), Event("B", stage + 1, microbatch)]
            else:
                waits.append(Event("F", stage, microbatch))
            done += [Event(part, stage, microbatch) for part in _BACKWARD_PARTS[kind]]
        self.operations.append(Operation(kind, forward, backward, tuple(waits), tuple(done)))


_BACKWARD_PARTS: Mapping[Kind, str] = {"B": "BW", "B_in": "B", "W": "W", "FB": "BW"}
