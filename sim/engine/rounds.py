"""Rollouts that do not wait for their last samples: partial rollouts, and long samples gathered into a round of their own.

A rollout begins more prompts than an update takes and ends as soon as it has as many as that, a prompt being done when its last
sample is. *Partial rollouts* go on with the rest in the next rollout, each at the instance that it began at, and begin only
as many new prompts as were taken. *Tail batching* throws away what the rest has and puts the prompts off; as soon as
these are enough for an update, a long round takes them from their beginning and waits for all of them.

Assumed: a prompt that was put off has answers as long as before, since long answers belong to prompts.

References
----------
APRIL: Active partial rollouts in reinforcement learning (arXiv 2509.18521); RollPacker: Mitigating long-tail rollouts (NSDI 2026).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np

from sim.cluster.topology import Floats, Ints
from sim.engine.rollout import RolloutRecord

_WARM = 64  # rounds after which those of the first that are left are no longer waited for

Rollouts = Callable[[Sequence[Ints], Sequence[Ints], float], list[RolloutRecord]]
"""Rolls out lengths and what each sample has already, [instances][samples], until an instant at most [s]."""


@dataclass(frozen=True, slots=True)
class Round:
    """A rollout, and what it leaves.

    Parameters
    ----------
    records : list of RolloutRecord, [instances]
        Of instances that had something to do.
    end_s : float [s]
    ends_s, lengths : [samples] [s, tokens]
        Of the samples that the update takes: when each ended in this round, 0 for one before, and its tokens.
    stale_tokens : int [tokens]
        Of them those that weights of rounds before made.
    made_tokens, discarded_tokens : int [tokens]
        That this round generated, and of them those that it threw away.
    carried : int [samples]
        Begun and not ended, which go on in the next round, or are put off.
    """

    records: list[RolloutRecord]
    end_s: float
    ends_s: Floats
    lengths: Ints
    stale_tokens: int
    made_tokens: int
    discarded_tokens: int
    carried: int

    @property
    def taken_tokens(self) -> int:
        """Tokens of the samples that the update takes."""
        return int(self.lengths.sum())


@dataclass(frozen=True, slots=True)
class _Flight:
    """Prompts in flight: of each its samples' lengths, what these have, its instance, and the round that began it."""

    lengths: Ints  # [prompts, samples]
    has: Ints
    instance: Ints  # [prompts]
    begun: Ints

    def part(self, rows: Ints) -> _Flight:
        return _Flight(self.lengths[rows], self.has[rows], self.instance[rows], self.begun[rows])


def all_rounds(lengths: Ints, instances: int, roll: Rollouts) -> list[Round]:
    """Roll out each iteration to its last sample; parameters as of `partial_rounds`."""
    none = _nothing(lengths)
    return [_run(_deal(none, own, instances, 0), len(own), instances, roll)[0] for own in lengths]


def partial_rounds(lengths: Ints, begun: int, instances: int, roll: Rollouts) -> list[Round]:
    """Roll out so many prompts at once and take those that are done first, once the rest of the first round is gone.

    `lengths` [iterations, prompts, samples] [tokens] are taken in turn, again and again; an update takes as
    many prompts as an iteration has. New prompts are dealt to the instance with fewest.
    """
    num, take = lengths.shape[:2]
    stream, left = _Stream(lengths), _nothing(lengths)
    rounds: list[Round] = []
    settled = 0 if begun == take else -1
    for i in count():
        gone = i >= _WARM or (i > 0 and bool((left.begun > 0).all()))
        if settled < 0 and gone and i % num == 0:
            settled = i
        if settled >= 0 and i == settled + num:
            break
        flight = _deal(left, stream.next(begun - len(left.begun)), instances, i)
        own, left = _run(flight, take, instances, roll)
        rounds.append(own)
    return rounds[settled:]


def tail_rounds(lengths: Ints, begun: int, instances: int, roll: Rollouts) -> list[Round]:
    """Roll out short rounds of `begun` prompts, and a long one as soon as enough prompts are put off; else as `partial_rounds`.

    From after a long round to another, as many as an iteration draws or more.
    """
    num, take = lengths.shape[:2]
    if begun == take:
        return all_rounds(lengths, instances, roll)
    stream, none = _Stream(lengths), _nothing(lengths)
    late = none.lengths
    rounds: list[Round] = []
    settled: int | None = None
    while True:
        long = len(late) >= take
        if long:
            again, late = late[:take], late[take:]
            own, _ = _run(_deal(none, again, instances, 0), take, instances, roll)
        else:
            own, left = _run(_deal(none, stream.next(begun), instances, 0), take, instances, roll)
            own = replace(own, discarded_tokens=int(left.has.sum()))
            late = np.concatenate([late, left.lengths])
        rounds.append(own)
        if long and settled is not None and len(rounds) - settled >= num:
            return rounds[settled:]
        if long and settled is None:
            settled = len(rounds)


class _Stream:
    """Prompts as they are drawn, from the first again after the last."""

    def __init__(self, lengths: Ints) -> None:
        self.lengths, self.place = lengths.reshape(-1, lengths.shape[-1]), 0

    def next(self, num: int) -> Ints:
        rows = (self.place + np.arange(num)) % len(self.lengths)
        self.place += num
        return self.lengths[rows]


def _nothing(lengths: Ints) -> _Flight:
    rows = np.zeros((0, lengths.shape[-1]), dtype=np.int64)
    return _Flight(rows, rows, rows[:, 0], rows[:, 0])


def _deal(left: _Flight, new: Ints, instances: int, now: int) -> _Flight:
    """Prompts that are left, at their instances, and new ones, each at the instance with fewest."""
    held = np.bincount(left.instance, minlength=instances)
    places = np.zeros(len(new), dtype=np.int64)
    for i in range(len(new)):
        places[i] = held.argmin()
        held[places[i]] += 1
    return _Flight(
        np.concatenate([left.lengths, new]),
        np.concatenate([left.has, np.zeros_like(new)]),
        np.concatenate([left.instance, places]),
        np.concatenate([left.begun, np.full(len(new), now)]),
    )


def _run(flight: _Flight, take: int, instances: int, roll: Rollouts) -> tuple[Round, _Flight]:
    """Roll out until enough prompts are done; the round, and the prompts that are left with what they have."""
    left = flight.has < flight.lengths
    busy = [
        rows for rows in (np.flatnonzero(flight.instance == i) for i in range(instances)) if left[rows].any()
    ]
    asked = [flight.lengths[rows][left[rows]] for rows in busy]
    had = [flight.has[rows][left[rows]] for rows in busy]
    records = roll(asked, had, np.inf)
    ends = np.zeros(flight.lengths.shape)
    for rows, record in zip(busy, records, strict=True):
        _put(ends, rows, left, record.end_s)
    done = ends.max(axis=1)
    order = np.lexsort((np.arange(len(done)), done))
    end_s = float(done[order[take - 1]])
    has = flight.lengths.copy()
    if take < len(done):
        records = roll(asked, had, end_s)
        for rows, record in zip(busy, records, strict=True):
            _put(has, rows, left, record.tokens)
    taken, rest = np.sort(order[:take]), np.sort(order[take:])
    after = replace(flight, has=has).part(rest)
    whole = Round(
        records=records,
        end_s=end_s,
        ends_s=ends[taken].ravel(),
        lengths=flight.lengths[taken].ravel(),
        stale_tokens=int(flight.has[taken].sum()),
        made_tokens=int(has.sum() - flight.has.sum()),
        discarded_tokens=0,
        carried=int(((after.has > 0) & (after.has < after.lengths)).sum()),
    )
    return whole, after


def _put(into: Any, rows: Ints, left: Any, values: Any) -> None:
    """Write values of the samples that are left in some rows."""
    own = into[rows]
    own[left[rows]] = values
    into[rows] = own
