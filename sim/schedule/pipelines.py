"""Pipeline schedules as data: which rank computes what, in which order.

`plan` turns a schedule's name into a `Pipeline`; each schedule is one function and one entry of `SCHEDULES`.

References
----------
GPipe: arXiv 1811.06965. 1F1B and interleaved: arXiv 2104.04473 (Megatron-LM). Zero bubble: arXiv 2401.10241.
DualPipe and DualPipeV: deepseek-ai/DualPipe @3da1bba; arXiv 2412.19437, section 3.2.1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.errors import InputError, Problem, nearest
from sim.schedule.operations import CODES, KIND_BITS, Ints, Order, Pipeline, table, word, words
from sim.schedule.zero_bubble import zero_bubble_order

Options = Mapping[str, Any]


def plan(kind: str, num_ranks: int, num_microbatches: int, **options: Any) -> Pipeline:
    """Lay out a schedule.

    Parameters
    ----------
    kind : str
        A key of `SCHEDULES`.
    num_ranks, num_microbatches : int [count]
        Pipeline ranks; microbatches of one pipeline and optimizer step (both directions together).
    options
        `chunks`: chunks a rank, for `interleaved` (default 2). `durations`: (F, B_in, W) in any one unit, for
        which `zb1p` and `zb2p` choose their order (default 1, 1, 1). `overlap`: True to join neighbours of different
        microbatches to pairs, for all but `gpipe`, which has none, and `dualpipe` and `dualpipev`, which have them anyway.

    Returns
    -------
    Pipeline

    Raises
    ------
    InputError
        For an unknown schedule or option, and for counts that the schedule has no order for.

    Examples
    --------
    >>> [operation.kind for operation in plan("1f1b", 2, 3).orders[0]]
    ['F', 'F', 'B', 'F', 'B', 'B']
    """
    if kind not in SCHEDULES:
        raise InputError(
            Problem(
                None, "schedule", f"'{kind}'", f"one of: {', '.join(SCHEDULES)}", nearest(kind, SCHEDULES)
            )
        )
    schedule = SCHEDULES[kind]
    given = {**schedule.options, **options}
    problems = [
        Problem(
            None, key, f"the option '{key}'", f"one that {kind} has: {', '.join(schedule.options) or 'none'}"
        )
        for key in options
        if key not in schedule.options
    ]
    counts = {"pipeline ranks": num_ranks, "microbatches": num_microbatches, "chunks": given.get("chunks", 1)}
    problems += [
        Problem(None, "schedule", f"{value!r} {name}", "a whole number of at least 1")
        for name, value in counts.items()
        if isinstance(value, bool) or not isinstance(value, int) or value < 1
    ]
    if not problems:
        problems += [
            Problem(None, "schedule", got, f"{wanted}, for {kind}")
            for got, wanted in schedule.problems(num_ranks, num_microbatches, given)
        ]
    if problems:
        raise InputError(problems)
    if "durations" in given:
        given["durations"] = tuple(float(value) for value in given["durations"])
    return _laid_out(kind, num_ranks, num_microbatches, tuple(sorted(given.items())))


@functools.lru_cache(maxsize=32)
def _laid_out(
    kind: str, num_ranks: int, num_microbatches: int, options: tuple[tuple[str, Any], ...]
) -> Pipeline:
    return SCHEDULES[kind].make(num_ranks, num_microbatches, dict(options))


# --- one way ------------------------------------------------------------------------------------------------


def _one_way(kind: str, num_microbatches: int, orders: list[Order]) -> Pipeline:
    """The pipeline of orders whose chunks all run from rank 0 upwards."""
    stages = tuple(order.stages for order in orders)
    num_stages, directions = sum(map(len, stages)), (1,) * len(stages[0])
    return Pipeline(kind, len(orders), num_stages, num_microbatches, table(orders), stages, directions)


def _gpipe(num_ranks: int, num_microbatches: int, options: Options) -> Pipeline:
    orders = [Order((rank,)) for rank in range(num_ranks)]
    for order in orders:
        order.f(0, num_microbatches)
        order.b(0, num_microbatches)
    return _one_way("gpipe", num_microbatches, orders)


def _1f1b(num_ranks: int, num_microbatches: int, options: Options) -> Pipeline:
    """In pairs a rank must be two microbatches ahead of the next one: the later of them is still in a pair, see `_alternate`."""
    orders = [Order((rank,)) for rank in range(num_ranks)]
    chunks = np.zeros(num_microbatches, dtype=np.int32)
    pairs, ahead = options["overlap"], 2 if options["overlap"] else 1
    for rank, order in enumerate(orders):
        _alternate(order, chunks, chunks, ahead * (num_ranks - rank - 1), pairs)
    return _one_way("1f1b", num_microbatches, orders)


def _interleaved(num_ranks: int, num_microbatches: int, options: Options) -> Pipeline:
    chunks = options["chunks"]
    # Microbatches go in groups of num_ranks: a group runs through one chunk, then through the next.
    forwards = np.arange(num_microbatches * chunks, dtype=np.int32) // num_ranks % chunks
    backwards = chunks - 1 - forwards
    orders = []
    for rank in range(num_ranks):
        order = Order(tuple(chunk * num_ranks + rank for chunk in range(chunks)))
        warm_up = 2 * (num_ranks - rank - 1) + (chunks - 1) * num_ranks
        _alternate(order, forwards, backwards, warm_up, options["overlap"])
        orders.append(order)
    return _one_way("interleaved", num_microbatches, orders)


def _alternate(order: Order, forwards: Ints, backwards: Ints, warm_up: int, pairs: bool) -> None:
    """Forwards alone, then a forward and a backward in turns, then the backwards left (chunk of each).

    In `pairs` a forward runs with the backward that follows it; with one more forward before the first pair they are of
    different microbatches on every rank (Megatron-LM, `--overlap-moe-expert-parallel-comm`).
    """
    warm_up = min(warm_up + pairs, len(forwards))
    f, b = words("F", forwards), words("B", backwards)
    both = f[warm_up:], b[: len(b) - warm_up]
    if pairs:
        turns = both[0] & ~KIND_BITS | both[1] & ~KIND_BITS | CODES["FB"]
    else:
        turns = np.stack(both, axis=1).ravel()
    order.write(np.concatenate([f[:warm_up], turns, b[len(b) - warm_up :]]))


def _zero_bubble(kind: str, live_per_rank: int) -> Callable[[int, int, Options], Pipeline]:
    def make(num_ranks: int, num_microbatches: int, options: Options) -> Pipeline:
        letters = zero_bubble_order(
            num_ranks, num_microbatches, live_per_rank * num_ranks, options["durations"]
        )
        orders = [Order((rank,)) for rank in range(num_ranks)]
        for order, text in zip(orders, letters, strict=True):
            if options[
                "overlap"
            ]:  # a forward ends no later for the weight part before it, which fills its gaps
                text = text.replace("WF", "P")
            order.write(_LETTERS[np.frombuffer(text.encode(), dtype=np.uint8)])
        return _one_way(kind, num_microbatches, orders)

    return make


_LETTERS = np.zeros(128, dtype=np.int32)  # letter of a zero-bubble order -> word
_LETTERS[[ord(letter) for letter in "FBWP"]] = (
    word("F", 0),
    word("B_in", -1, 0),
    word("W", -1, 0),
    word("FW", 0, 0),
)


# --- both directions at once --------------------------------------------------------------------------------


def _dualpipe(num_ranks: int, num_microbatches: int, options: Options) -> Pipeline:
    """Chunk 0 of rank r is stage r and takes the first half of the microbatches; chunk 1 is its mirror."""
    half, each = num_ranks // 2, num_microbatches // 2
    stages = tuple((rank, num_ranks - 1 - rank) for rank in range(num_ranks))
    orders = []
    for rank, held in enumerate(stages):
        order = Order(held, (0, each))
        # Seen from its nearer end every rank does the same: past the middle, the two chunks swap roles.
        near = 0 if rank < half else 1
        _both_ways(order, near, min(held), half, each)
        orders.append(order)
    return Pipeline("dualpipe", num_ranks, num_ranks, num_microbatches, table(orders), stages, (1, -1))


def _dualpipev(num_ranks: int, num_microbatches: int, options: Options) -> Pipeline:
    """Half of a DualPipe folded on itself: every microbatch goes up the ranks and comes down again."""
    num_stages = 2 * num_ranks
    stages = tuple((rank, num_stages - 1 - rank) for rank in range(num_ranks))
    orders = []
    for rank, held in enumerate(stages):
        order = Order(held)
        _both_ways(order, 0, rank, num_ranks, num_microbatches)
        orders.append(order)
    return Pipeline("dualpipev", num_ranks, num_stages, num_microbatches, table(orders), stages, (1, -1))


def _both_ways(order: Order, near: int, distance: int, half: int, each: int) -> None:
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
    order.f(near, 2 * to_middle)
    for _ in range(distance + 1):
        order.f(near)
        order.f(far)
    for _ in range(to_middle):
        order.b_in(far)
        order.w()
        order.f(far)
    for i in range(each - 2 * half + distance + 1):
        if i == 0 and to_middle == 0:
            order.f(
                near
            )  # apart: the far gradient leaves the middle sooner than an overlapped pair would let it
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


# --- the schedules ------------------------------------------------------------------------------------------

Reasons = Iterator[tuple[str, str]]
"""(got, wanted) of each thing that a schedule has no order for."""


def _any(num_ranks: int, num_microbatches: int, options: Options) -> Reasons:
    yield from ()


def _interleaved_problems(num_ranks: int, num_microbatches: int, options: Options) -> Reasons:
    if options["chunks"] < 2:
        yield f"{options['chunks']} chunk a rank", "at least 2 chunks (with 1 it is 1f1b)"
    if num_microbatches % num_ranks:
        yield f"{num_microbatches} microbatches", f"a multiple of the {num_ranks} pipeline ranks"


def _zero_bubble_problems(num_ranks: int, num_microbatches: int, options: Options) -> Reasons:
    durations = options["durations"]
    if len(durations) != 3 or not all(value > 0 for value in durations):
        yield f"durations {durations}", "three positive numbers, of F, B_in and W"


def _dualpipe_problems(num_ranks: int, num_microbatches: int, options: Options) -> Reasons:
    if num_ranks % 2:
        yield f"{num_ranks} pipeline ranks", "an even number of ranks"
    if num_microbatches % 2 or num_microbatches < 2 * num_ranks:
        yield (
            f"{num_microbatches} microbatches",
            f"an even number of at least {2 * num_ranks}, twice the ranks",
        )


def _dualpipev_problems(num_ranks: int, num_microbatches: int, options: Options) -> Reasons:
    if num_microbatches < 2 * num_ranks:
        yield f"{num_microbatches} microbatches", f"at least {2 * num_ranks}, twice the ranks"


@dataclass(frozen=True, slots=True)
class Schedule:
    """One kind of pipeline.

    Parameters
    ----------
    title : str
    make : function
        Lays it out for ranks, microbatches and options.
    problems : function
        Yields what the schedule has no order for.
    options : mapping
        Its options with their defaults.
    """

    title: str
    make: Callable[[int, int, Options], Pipeline]
    problems: Callable[[int, int, Options], Reasons]
    options: Options


_ALONE: Options = {"overlap": False}
_UNIT_DURATIONS: Options = {"durations": (1.0, 1.0, 1.0), **_ALONE}

SCHEDULES: Mapping[str, Schedule] = {
    "gpipe": Schedule("all forwards, then all backwards", _gpipe, _any, {}),
    "1f1b": Schedule("one forward, one backward in turns", _1f1b, _any, _ALONE),
    "interleaved": Schedule(
        "1F1B with several chunks a rank", _interleaved, _interleaved_problems, {"chunks": 2, **_ALONE}
    ),
    "zb1p": Schedule(
        "zero bubble within 1F1B's memory", _zero_bubble("zb1p", 1), _zero_bubble_problems, _UNIT_DURATIONS
    ),
    "zb2p": Schedule(
        "zero bubble within twice 1F1B's memory",
        _zero_bubble("zb2p", 2),
        _zero_bubble_problems,
        _UNIT_DURATIONS,
    ),
    "dualpipe": Schedule(
        "both directions, forward and backward overlapped", _dualpipe, _dualpipe_problems, {}
    ),
    "dualpipev": Schedule("DualPipe folded onto half the ranks", _dualpipev, _dualpipev_problems, {}),
}
