"""A training run in time, with failures: it trains, saves, fails, waits for a node, restarts from its last checkpoint.

All parts fail at random, at exponential times, whatever the run does at the moment; so the parts of a kind are one source
of failures, and kinds are drawn in proportion to their rates. A failed node is replaced by a spare; without one the run waits
until the first failed node is repaired, and while it waits nothing fails.

A straggler is a GPU that becomes slow, which all others wait for. It is found some time later; then the run saves its state,
stands while the node is swapped, and goes on from there. Nodes are looked at together: others that became slow meanwhile go
too, and so they do at a restart.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """Course of a run; all that is not training is lost [s].

    `wall_s` is training that counts (`trained_s`), checkpoints (`saving_s`), training and saving that a failure undid
    (`undone_s`), restarts (`restarting_s`) and waits for a node (`waiting_s`). `failures` by part [count].
    """

    trained_s: float
    saving_s: float
    undone_s: float
    restarting_s: float
    waiting_s: float
    failures: Mapping[str, int]
    slowed_s: float = 0.0
    swapping_s: float = 0.0
    stragglers: int = 0

    def __add__(self, other: FailureRecord) -> FailureRecord:
        return FailureRecord(
            self.trained_s + other.trained_s,
            self.saving_s + other.saving_s,
            self.undone_s + other.undone_s,
            self.restarting_s + other.restarting_s,
            self.waiting_s + other.waiting_s,
            {part: count + other.failures[part] for part, count in self.failures.items()},
            self.slowed_s + other.slowed_s,
            self.swapping_s + other.swapping_s,
            self.stragglers + other.stragglers,
        )

    @property
    def lost_s(self) -> float:
        """Time that is not training that counts [s]."""
        failed_s = self.saving_s + self.undone_s + self.restarting_s + self.waiting_s
        return failed_s + self.slowed_s + self.swapping_s

    @property
    def wall_s(self) -> float:
        """Time on the clock [s]."""
        return self.trained_s + self.lost_s


@dataclass(frozen=True, slots=True)
class Stragglers:
    """GPUs that become slow.

    Parameters
    ----------
    mtbf_s : float [s]
        Mean time until any of the run's GPUs becomes slow.
    speed_fraction : float, 0 to 1
        Of the run's pace, next to one or more.
    detect_s, swap_s : float [s]
        Until it is found, and from then until training goes on without it.
    """

    mtbf_s: float
    speed_fraction: float
    detect_s: float
    swap_s: float


class _Course:
    """Training between failures: what is saved, and what a failure would undo [s]."""

    def __init__(self, train_s: float, every_s: float, write_s: float) -> None:
        self.train_s, self.every_s, self.write_s = train_s, every_s, write_s
        self.trained = self.saving = self.undone = self.slowed = 0.0
        self.fresh = self.fresh_slowed = self.writing = 0.0  # since the last save

    def left_s(self, pace: float) -> float:
        """Time until all is trained, if nothing fails; the end is not saved."""
        left_s = self.train_s - self.trained
        return (left_s - self.fresh) / pace + self._segments() * self.write_s - self.writing

    def _segments(self) -> int:
        """Saves that are still to come."""
        return max(0, math.ceil((self.train_s - self.trained) / self.every_s * (1 - 1e-12)) - 1)

    def advance(self, time_s: float, pace: float) -> bool:
        """Train for some time or to the end; True at the end."""
        if time_s >= self.left_s(pace):
            num, left_s = self._segments(), self.train_s - self.trained - self.fresh
            self.slowed += self.fresh_slowed + left_s * (1 / pace - 1)
            self.saving += num * self.write_s
            self.trained, self.fresh, self.fresh_slowed, self.writing = self.train_s, 0.0, 0.0, 0.0
            return True
        rest_s = (self.every_s - self.fresh) / pace + self.write_s - self.writing
        if (self.fresh or self.writing) and time_s >= rest_s and self._segments():
            time_s -= rest_s
            self.fresh_slowed += (self.every_s - self.fresh) * (1 / pace - 1)
            self.fresh, self.writing = self.every_s, self.write_s
            self.save(0.0)
        if not self.fresh and not self.writing:
            segment_s = self.every_s / pace + self.write_s
            saved = min(self._segments(), int(time_s / segment_s))
            self.trained += saved * self.every_s
            self.saving += saved * self.write_s
            self.slowed += saved * self.every_s * (1 / pace - 1)
            time_s -= saved * segment_s
        trains_s = time_s
        if self._segments():
            trains_s = min(time_s, (self.every_s - self.fresh) / pace)
        self.fresh += trains_s * pace
        self.fresh_slowed += trains_s * (1 - pace)
        self.writing += time_s - trains_s
        return False

    def save(self, write_s: float) -> None:
        """Keep what is trained so far."""
        self.trained += self.fresh
        self.slowed += self.fresh_slowed
        self.saving += self.writing + write_s
        self.fresh = self.fresh_slowed = self.writing = 0.0

    def undo(self) -> None:
        """Go back to the last save."""
        self.undone += self.fresh + self.fresh_slowed + self.writing
        self.fresh = self.fresh_slowed = self.writing = 0.0


def run_failures(
    train_s: float,
    mtbf_s: Mapping[str, float],
    *,
    every_s: float,
    write_s: float,
    restart_s: float,
    spares: int | None = None,
    repair_s: float = 0.0,
    rng: np.random.Generator,
    most: int | None = None,
    stragglers: Stragglers | None = None,
) -> FailureRecord:
    """Run a training run until it is through, or until it has failed often enough to know its pace.

    Parameters
    ----------
    train_s : float [s]
        Training without failures, more than 0.
    mtbf_s : mapping
        Kind of part -> mean time between failures of all its parts together [s].
    every_s, write_s, restart_s : float [s]
        Training between checkpoints, time of a checkpoint, and from a failure until training goes on.
    spares : int, optional [count]
        Nodes that replace failed ones; as many as needed where left out.
    repair_s : float [s]
        From a failure of a node until it is a spare.
    rng : numpy.random.Generator
    most : int, optional [count]
        Failures after which the run is cut; its record is then of what it has saved by then.
    stragglers : Stragglers, optional

    Returns
    -------
    FailureRecord
    """
    parts, rates = list(mtbf_s), np.array([1.0 / mtbf for mtbf in mtbf_s.values()])
    mean_s = 1.0 / float(rates.sum())
    course = _Course(train_s, every_s, write_s)
    now = restarting = waiting = swapping = 0.0
    num_failures = num_slow = 0
    repaired: list[float] = []  # instants at which nodes that are out are back
    while True:
        up_s = left_s = float(rng.exponential(mean_s))
        ended = False
        while stragglers is not None:
            healthy_s = min(left_s, float(rng.exponential(stragglers.mtbf_s)))
            ended, left_s = course.advance(healthy_s, 1.0), left_s - healthy_s
            if ended or left_s <= 0:
                break
            slow_s = min(left_s, stragglers.detect_s)
            ended, left_s, num_slow = (
                course.advance(slow_s, stragglers.speed_fraction),
                left_s - slow_s,
                num_slow + 1,
            )
            if ended or left_s <= 0:
                break
            course.save(0.0)
            stands_s = min(left_s, stragglers.swap_s)
            swapping, left_s = swapping + stands_s, left_s - stands_s
            if left_s <= 0:
                break
        else:
            ended = course.advance(up_s, 1.0)
        if ended:
            break
        course.undo()
        now += up_s
        while True:
            num_failures += 1
            if spares is not None:
                while repaired and repaired[0] <= now:
                    heapq.heappop(repaired)
                heapq.heappush(repaired, now + repair_s)
                if len(repaired) > spares:
                    back = heapq.heappop(repaired)
                    waiting += back - now
                    now = back
            again_s = float(rng.exponential(mean_s))
            if again_s >= restart_s:
                restarting += restart_s
                now += restart_s
                break
            restarting += again_s
            now += again_s
            if num_failures == most:
                break
        if num_failures == most:
            break
    kinds = rng.multinomial(num_failures, rates / rates.sum())
    return FailureRecord(
        trained_s=course.trained,
        saving_s=course.saving,
        undone_s=course.undone,
        restarting_s=restarting,
        waiting_s=waiting,
        failures=dict(zip(parts, kinds.tolist(), strict=True)),
        slowed_s=course.slowed,
        swapping_s=swapping,
        stragglers=num_slow,
    )
