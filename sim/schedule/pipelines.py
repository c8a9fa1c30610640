"""Pipeline schedules as data: which rank computes what, in which order, and what each operation waits for.

`plan` turns a schedule's name into a `Pipeline`. A *stage* is a run of layers; a *chunk* is a stage as one rank holds it,
and a rank holds several where a schedule interleaves them or runs microbatches in both directions. Operations are F
(forward), B (full backward), B_in (its input part), W (its weight part) and FB (the forward of one chunk overlapped with
the backward of another).

Why this way: only the order on each rank is decided here, never a time. The same `Pipeline` is replayed with given
durations (`sim.schedule.replay`) or executed against a network, with stages as uneven as they come.

References
----------
GPipe: arXiv 1811.06965. 1F1B and interleaved: arXiv 2104.04473 (Megatron-LM). Zero bubble: arXiv 2401.10241.
DualPipe and DualPipeV: deepseek-ai/DualPipe @3da1bba; arXiv 2412.19437, section 3.2.1.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sim.errors import Fault, InputError, nearest
from sim.schedule.zero_bubble import zero_bubble_order

Kind = Literal["F", "B", "B_in", "W", "FB"]
Direction = Literal[1, -1]


class Pass(NamedTuple):
    """One microbatch going through one chunk of a rank: where, and which."""

    chunk: int
    stage: int
    microbatch: int


class Event(NamedTuple):
    """What an operation makes for others: `F` activations, `B` the gradient of a stage's input, `W` of its weights."""

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
    directions: tuple[Direction, ...]

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


def plan(kind: str, num_ranks: int, num_microbatches: int, **options: Any) -> Pipeline:
    """Lay out a schedule.

    Parameters
    ----------
    kind : str
        A key of `SCHEDULES`.
    num_ranks, num_microbatches : int [count]
        Pipeline ranks; microbatches of one pipeline and optimizer step (both directions together).
    options
        `chunks`: chunks a rank, for `interleaved` (default 2). `durations`: (F, B_in, W) in any one unit, for which
        `zb1p` and `zb2p` choose their order (default 1, 1, 1).

    Raises
    ------
    InputError
        For an unknown schedule or option, and for counts that the schedule has no order for.
    """
    if kind not in SCHEDULES:
        raise InputError(Fault(None, "schedule", f"'{kind}'", f"one of: {', '.join(SCHEDULES)}", nearest(kind, SCHEDULES)))
    schedule = SCHEDULES[kind]
    given = {**schedule.options, **options}
    faults = [
        Fault(None, key, f"the option '{key}'", f"one that {kind} has: {', '.join(schedule.options) or 'none'}")
        for key in options
        if key not in schedule.options
    ]
    counts = {"pipeline ranks": num_ranks, "microbatches": num_microbatches, "chunks": given.get("chunks", 1)}
    faults += [
        Fault(None, "schedule", f"{value!r} {name}", "a whole number of at least 1")
        for name, value in counts.items()
        if isinstance(value, bool) or not isinstance(value, int) or value < 1
    ]
    if not faults:
        faults += [
            Fault(None, "schedule", got, f"{wanted}, for {kind}")
            for got, wanted in schedule.faults(num_ranks, num_microbatches, given)
        ]
    if faults:
        raise InputError(faults)
    if "durations" in given:
        given["durations"] = tuple(float(value) for value in given["durations"])
    return _laid_out(kind, num_ranks, num_microbatches, tuple(sorted(given.items())))


@functools.lru_cache(maxsize=64)
def _laid_out(kind: str, num_ranks: int, num_microbatches: int, options: tuple[tuple[str, Any], ...]) -> Pipeline:
    return SCHEDULES[kind].make(num_ranks, num_microbatches, dict(options))


# --- writing the order of a rank -----------------------------------------------------------------------------------


class _Order:
    """The order of one rank while it is written: counts the microbatches of each chunk and queues weight parts."""

    def __init__(self, stages: tuple[int, ...], num_stages: int, first_microbatch: tuple[int, ...] | None = None) -> None:
        self.stages, self.last_stage = stages, num_stages - 1
        self.next_forward = list(first_microbatch or (0,) * len(stages))
        self.next_backward = list(self.next_forward)
        self.weights: deque[Pass] = deque()
        self.operations: list[Operation] = []

    def f(self, chunk: int) -> None:
        self._add("F", forward=self._take(self.next_forward, chunk))

    def b(self, chunk: int) -> None:
        self._add("B", backward=self._take(self.next_backward, chunk))

    def b_in(self, chunk: int) -> None:
        taken = self._take(self.next_backward, chunk)
        self.weights.append(taken)
        self._add("B_in", backward=taken)

    def w(self) -> None:
        self._add("W", backward=self.weights.popleft())

    def fb(self, forward: int, backward: int) -> None:
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

Options = Mapping[str, Any]


def _one_way(kind: str, num_microbatches: int, orders: list[_Order]) -> Pipeline:
    """The pipeline of orders whose chunks all run from rank 0 upwards."""
    return Pipeline(
        kind,
        len(orders),
        orders[0].last_stage + 1,
        num_microbatches,
        tuple(tuple(order.operations) for order in orders),
        tuple(order.stages for order in orders),
        (1,) * len(orders[0].stages),
    )


def _gpipe(num_ranks: int, num_microbatches: int, options: Options) -> Pipeline:
    orders = [_Order((rank,), num_ranks) for rank in range(num_ranks)]
    for order in orders:
        for write in (order.f, order.b):
            for _ in range(num_microbatches):
                write(0)
    return _one_way("gpipe", num_microbatches, orders)


def _1f1b(num_ranks: int, num_microbatches: int, options: Options) -> Pipeline:
    orders = [_Order((rank,), num_ranks) for rank in range(num_ranks)]
    for rank, order in enumerate(orders):
        _warm_up_then_pairs(order, [0] * num_microbatches, [0] * num_microbatches, num_ranks - rank - 1)
    return _one_way("1f1b", num_microbatches, orders)


def _interleaved(num_ranks: int, num_microbatches: int, options: Options) -> Pipeline:
    chunks = options["chunks"]
    # Microbatches go in groups of num_ranks: a group runs through one chunk, then through the next.
    forwards = [k // num_ranks % chunks for k in range(num_microbatches * chunks)]
    backwards = [chunks - 1 - chunk for chunk in forwards]
    orders = []
    for rank in range(num_ranks):
        order = _Order(tuple(chunk * num_ranks + rank for chunk in range(chunks)), num_ranks * chunks)
        _warm_up_then_pairs(order, forwards, backwards, 2 * (num_ranks - rank - 1) + (chunks - 1) * num_ranks)
        orders.append(order)
    return _one_way("interleaved", num_microbatches, orders)


def _warm_up_then_pairs(order: _Order, forwards: list[int], backwards: list[int], warm_up: int) -> None:
    """Some forwards alone, then a forward and a backward in turns, then the backwards that are left (chunk of each)."""
    warm_up = min(warm_up, len(forwards))
    for chunk in forwards[:warm_up]:
        order.f(chunk)
    for k, chunk in enumerate(forwards[warm_up:]):
        order.f(chunk)
        order.b(backwards[k])
    for chunk in backwards[len(forwards) - warm_up :]:
        order.b(chunk)


def _zero_bubble(kind: str, live_per_rank: int) -> Callable[[int, int, Options], Pipeline]:
    def make(num_ranks: int, num_microbatches: int, options: Options) -> Pipeline:
        words = zero_bubble_order(num_ranks, num_microbatches, live_per_rank * num_ranks, options["durations"])
        orders = [_Order((rank,), num_ranks) for rank in range(num_ranks)]
        for order, letters in zip(orders, words, strict=True):
            write = {"F": lambda o=order: o.f(0), "B": lambda o=order: o.b_in(0), "W": order.w}
            for letter in letters:
                write[letter]()
        return _one_way(kind, num_microbatches, orders)

    return make


# --- both directions at once -----------------------------------------------------------------------------------------


def _dualpipe(num_ranks: int, num_microbatches: int, options: Options) -> Pipeline:
    """Chunk 0 of rank r is stage r, for the first half of the microbatches; chunk 1 is stage num_ranks - 1 - r."""
    half, each = num_ranks // 2, num_microbatches // 2
    stages = tuple((rank, num_ranks - 1 - rank) for rank in range(num_ranks))
    orders = []
    for rank, held in enumerate(stages):
        order = _Order(held, num_ranks, (0, each))
        # Seen from its nearer end every rank does the same: past the middle, the two chunks swap roles.
        near = 0 if rank < half else 1
        _both_ways(order, near, min(held), half, each)
        orders.append(tuple(order.operations))
    return Pipeline("dualpipe", num_ranks, num_ranks, num_microbatches, tuple(orders), stages, (1, -1))


def _dualpipev(num_ranks: int, num_microbatches: int, options: Options) -> Pipeline:
    """Half of a DualPipe folded on itself: every microbatch comes down the ranks and goes up again, in 2 num_ranks stages."""
    num_stages = 2 * num_ranks
    stages = tuple((rank, num_stages - 1 - rank) for rank in range(num_ranks))
    orders = []
    for rank, held in enumerate(stages):
        order = _Order(held, num_stages)
        _both_ways(order, 0, rank, num_ranks, num_microbatches)
        orders.append(tuple(order.operations))
    return Pipeline("dualpipev", num_ranks, num_stages, num_microbatches, tuple(orders), stages, (1, -1))


def _both_ways(order: _Order, near: int, distance: int, half: int, each: int) -> None:
    """Write DualPipe's eight steps for one rank.

    Parameters
    ----------
    near : int
        The chunk whose microbatches enter at this rank's end of the pipeline; the other one is far.
    distance : int [ranks]
        From that end.
    half : int [ranks]
        From either end to the middle; there the two directions meet.
    each : int [count]
        Microbatches of each chunk.
    """
    far = 1 - near
    to_middle = half - distance - 1
    for _ in range(2 * to_middle):
        order.f(near)
    for _ in range(distance + 1):
        order.f(near)
        order.f(far)
    for _ in range(to_middle):
        order.b_in(far)
        order.w()
        order.f(far)
    for i in range(each - 2 * half + distance + 1):
        if i == 0 and to_middle == 0:
            order.f(near)  # apart: the far gradient leaves the middle sooner than an overlapped pair would let it
            order.b(far)
        else:
            order.fb(near, far)
        order.fb(far, near)
    for _ in range(to_middle):
        order.b(far)
        order.fb(far, near)
    backwards = [far, near] * (distance + 1)
    for chunk in backwards[: distance + 1]:
        order.b(chunk)
    for chunk in backwards[distance + 1 :]:
        order.b_in(chunk)
    for _ in range(to_middle):
        order.w()
        order.b_in(near)
    while order.weights:
        order.w()


# --- the schedules ---------------------------------------------------------------------------------------------------

Reasons = Iterator[tuple[str, str]]
"""(got, wanted) of each thing that a schedule has no order for."""


def _any(num_ranks: int, num_microbatches: int, options: Options) -> Reasons:
    yield from ()


def _for_interleaved(num_ranks: int, num_microbatches: int, options: Options) -> Reasons:
    if options["chunks"] < 2:
        yield f"{options['chunks']} chunk a rank", "at least 2 chunks (with 1 it is 1f1b)"
    if num_microbatches % num_ranks:
        yield f"{num_microbatches} microbatches", f"a multiple of the {num_ranks} pipeline ranks"


def _for_zero_bubble(num_ranks: int, num_microbatches: int, options: Options) -> Reasons:
    durations = options["durations"]
    if len(durations) != 3 or not all(value > 0 for value in durations):
        yield f"durations {durations}", "three positive numbers, of F, B_in and W"


def _for_dualpipe(num_ranks: int, num_microbatches: int, options: Options) -> Reasons:
    if num_ranks % 2:
        yield f"{num_ranks} pipeline ranks", "an even number of ranks"
    if num_microbatches % 2 or num_microbatches < 2 * num_ranks:
        yield f"{num_microbatches} microbatches", f"an even number of at least {2 * num_ranks}, twice the ranks"


def _for_dualpipev(num_ranks: int, num_microbatches: int, options: Options) -> Reasons:
    if num_microbatches < 2 * num_ranks:
        yield f"{num_microbatches} microbatches", f"at least {2 * num_ranks}, twice the ranks"


@dataclass(frozen=True, slots=True)
class Schedule:
    """How one kind of pipeline is made, what it refuses, and its options with their defaults."""

    title: str
    make: Callable[[int, int, Options], Pipeline]
    faults: Callable[[int, int, Options], Reasons]
    options: Options


_UNIT_DURATIONS: Options = {"durations": (1.0, 1.0, 1.0)}

SCHEDULES: Mapping[str, Schedule] = {
    "gpipe": Schedule("all forwards, then all backwards", _gpipe, _any, {}),
    "1f1b": Schedule("one forward, one backward in turns", _1f1b, _any, {}),
    "interleaved": Schedule("1F1B with several chunks a rank", _interleaved, _for_interleaved, {"chunks": 2}),
    "zb1p": Schedule(
        "zero bubble within 1F1B's memory", _zero_bubble("zb1p", 1), _for_zero_bubble, _UNIT_DURATIONS
    ),
    "zb2p": Schedule(
        "zero bubble within twice 1F1B's memory", _zero_bubble("zb2p", 2), _for_zero_bubble, _UNIT_DURATIONS
    ),
    "dualpipe": Schedule("both directions, forward and backward overlapped", _dualpipe, _for_dualpipe, {}),
    "dualpipev": Schedule("DualPipe folded onto half the ranks", _dualpipev, _for_dualpipev, {}),
}
