"""A training run in time, with failures: it trains, saves, fails, waits for a node, restarts from its last checkpoint.

All parts fail at random, at exponential times, whatever the run does at the moment; so the parts of a kind are one source
of failures, and kinds are drawn in proportion to their rates. A failed node is replaced by a spare; without one the run waits
until the first failed node is repaired, and while it waits nothing fails.
"""

from __future__ import annotations

import heapq
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

    def __add__(self, other: FailureRecord) -> FailureRecord:
        return FailureRecord(
            self.trained_s + other.trained_s,
            self.saving_s + other.saving_s,
            self.undone_s + other.undone_s,
            self.restarting_s + other.restarting_s,
            self.waiting_s + other.waiting_s,
            {part: count + other.failures[part] for part, count in self.failures.items()},
        )

    @property
    def lost_s(self) -> float:
        """Time that is not training that counts [s]."""
        return self.saving_s + self.undone_s + self.restarting_s + self.waiting_s

    @property
    def wall_s(self) -> float:
        """Time on the clock [s]."""
        return self.trained_s + self.lost_s


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

    Returns
    -------
    FailureRecord
    """
    parts, rates = list(mtbf_s), np.array([1.0 / mtbf for mtbf in mtbf_s.values()])
    mean_s = 1.0 / float(rates.sum())
    now = trained = saving = undone = restarting = waiting = 0.0
    num_failures = 0
    repaired: list[float] = []  # instants at which nodes that are out are back
    segment_s = every_s + write_s
    while True:
        up_s = float(rng.exponential(mean_s))
        left_s = train_s - trained
        segments = max(0, int(np.ceil(left_s / every_s * (1 - 1e-12))) - 1)  # the last one is not saved
        if up_s >= left_s + segments * write_s:
            saving += segments * write_s
            trained = train_s
            break
        saved = min(segments, int(up_s / segment_s))
        trained += saved * every_s
        saving += saved * write_s
        undone += up_s - saved * segment_s
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
        trained_s=trained,
        saving_s=saving,
        undone_s=undone,
        restarting_s=restarting,
        waiting_s=waiting,
        failures=dict(zip(parts, kinds.tolist(), strict=True)),
    )
