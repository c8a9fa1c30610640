"""Replay of a pipeline with given durations: when every operation starts and ends, and who waits how long.

Pure arithmetic without a network: an operation starts when its rank is free and everything it waits for has
happened (the longest path through the order). Sends between stages take no time here; the executor adds them.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sim.errors import InputError, Problem
from sim.schedule.operations import KINDS, Event, Kind, Operation, Pipeline
from sim.schedule.zero_bubble import FREED_BY_INPUT_PART

Durations = Callable[[Operation], float] | Mapping[str, float] | Mapping[tuple[str, int], float]
"""Duration of an operation [s]: a function, a mapping by kind (all stages alike), or by (kind, stage).

An FB is looked up by the stage of its forward. A kind that a mapping leaves out is the sum of its parts: B of
B_in and W, FB of F and B (of the stage that the backward belongs to), FW of F and W."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Times of a replayed pipeline [s], all counted from the start of the first operation.

    Parameters
    ----------
    starts, ends : tuple of tuple of float, [num_ranks][...]
        Of each operation, in the order of `Pipeline.orders`.
    busy_s : tuple of float, [num_ranks]
        Sum of the operations of a rank.
    """

    starts: tuple[tuple[float, ...], ...]
    ends: tuple[tuple[float, ...], ...]
    busy_s: tuple[float, ...]

    @property
    def total_s(self) -> float:
        """From the first start to the last end."""
        return max(ends[-1] for ends in self.ends)

    @property
    def idle_s(self) -> tuple[float, ...]:
        """The total less a rank's own work, [num_ranks]."""
        return tuple(self.total_s - busy for busy in self.busy_s)

    @property
    def bubble_s(self) -> float:
        """Largest idle time of a rank between its own first start and its own last end.

        The measure of the zero-bubble papers: ranks that start later may end later too, and the next step
        follows as staggered as this one. Where one rank starts first and ends last it is `total_s` less that
        rank's work.
        """
        return max(
            ends[-1] - starts[0] - busy
            for starts, ends, busy in zip(self.starts, self.ends, self.busy_s, strict=True)
        )


def replay(pipeline: Pipeline, durations: Durations) -> Replay:
    """Run the orders of all ranks against one another.

    Parameters
    ----------
    pipeline : Pipeline
    durations : function or mapping [s]
        See `Durations`.

    Returns
    -------
    Replay

    Raises
    ------
    InputError
        Where a mapping has no duration of an operation.
    """
    duration = durations if callable(durations) else _lookup(durations)
    happened: dict[Event, float] = {}
    blocked: dict[Event, int] = {}  # at most one rank waits for an event: the one that holds the next stage
    starts: list[list[float]] = [[] for _ in pipeline.orders]
    ends: list[list[float]] = [[] for _ in pipeline.orders]
    busy = [0.0] * pipeline.num_ranks
    runnable = deque(range(pipeline.num_ranks))
    while runnable:
        rank = runnable.popleft()
        order, own_ends = pipeline.orders[rank], ends[rank]
        clock = own_ends[-1] if own_ends else 0.0
        for operation in order[len(own_ends) :]:
            start = clock
            for event in operation.waits_for:
                at = happened.get(event)
                if at is None:
                    blocked[event] = rank
                    break
                if at > start:
                    start = at
            else:
                takes = duration(operation)
                clock = start + takes
                busy[rank] += takes
                starts[rank].append(start)
                own_ends.append(clock)
                for event in operation.completes:
                    happened[event] = clock
                    if event in blocked:
                        runnable.append(blocked.pop(event))
                continue
            break
    assert all(len(done) == len(order) for done, order in zip(ends, pipeline.orders, strict=True)), (
        "orders deadlock"
    )
    return Replay(tuple(map(tuple, starts)), tuple(map(tuple, ends)), tuple(busy))


def peaks(
    pipeline: Pipeline,
    stage_bytes: Sequence[float] | None = None,
    freed_by_input_part: float = FREED_BY_INPUT_PART,
) -> tuple[float, ...]:
    """Most activations that each rank keeps at a time, [num_ranks].

    Parameters
    ----------
    pipeline : Pipeline
    stage_bytes : sequence of float [bytes], [num_stages], optional
        What one microbatch keeps on each stage; 1 where left out, so that the answer counts microbatches of
        one chunk.
    freed_by_input_part : float [fraction]
        What B_in lets go; W lets go the rest. The peaks of `SCHEDULES` hold for any value but ZB's, which are
        counted with the default.

    Returns
    -------
    tuple of float, [num_ranks]
        The peaks [bytes, or microbatches of one chunk].

    Notes
    -----
    Follows from the order alone: what a forward keeps counts from its start, a backward frees at its end.
    """
    kept = np.append(np.ones(pipeline.num_stages) if stage_bytes is None else stage_bytes, 0.0)
    late = 1.0 - freed_by_input_part
    freed = {"F": 0.0, "B": 1.0, "FB": 1.0, "B_in": freed_by_input_part, "W": late, "FW": late}
    table = pipeline.table
    steps = np.stack(  # no stage is the last entry of `kept`: nothing
        [
            kept[table.forward[:, 1]],
            -np.array([freed[kind] for kind in KINDS])[table.kind] * kept[table.backward[:, 1]],
        ],
        axis=1,
    )
    ranks = itertools.pairwise(table.first.tolist())
    return tuple(float(np.cumsum(steps[i:j]).max(initial=0.0)) for i, j in ranks)


def _lookup(durations: Mapping[str, float] | Mapping[tuple[str, int], float]) -> Callable[[Operation], float]:
    """The function that a mapping stands for."""
    table: dict[tuple[str, int], float] = {}

    def entry(kind: str, stage: int) -> float | None:
        either: Mapping[object, float] = durations  # type: ignore[assignment]
        return either.get((kind, stage), either.get(kind))

    def part(kind: str, stage: int) -> float:
        if (kind, stage) not in table:
            value = entry(kind, stage)
            if value is None and kind == "B":
                value = part("B_in", stage) + part("W", stage)
            if value is None or value < 0:
                wanted = f"a duration of at least 0 for {kind} on stage {stage}"
                raise InputError(
                    Problem(None, "durations", "nothing" if value is None else str(value), wanted)
                )
            table[kind, stage] = value
        return table[kind, stage]

    def duration(operation: Operation) -> float:
        forward, backward = operation.forward, operation.backward
        if forward and backward:
            whole = entry(operation.kind, forward.stage)
            other: Kind = "B" if operation.kind == "FB" else "W"
            return part("F", forward.stage) + part(other, backward.stage) if whole is None else whole
        only = forward or backward
        assert only is not None
        return part(operation.kind, only.stage)

    return duration
