"""Rewards of a rollout's samples by a model that judges: it reads each as it ends, in the order of their ends.

Every data-parallel rank of its instances reads one sample after the other, at the pace of a pass that is full.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.cluster.topology import Floats
from sim.engine.rounds import Round
from sim.runs.rollouts import reading
from sim.scenario.inference import Inference
from sim.scenario.rl_step import RlStep


@dataclass(frozen=True, slots=True)
class Judgement:
    """Rewards of an iteration, means of the rounds.

    Parameters
    ----------
    reward_s : float [s]
        From the end of the rollout to the last reward.
    busy_s : float [s]
        That a GPU which judges is busy.
    energy : dict [kWh]
        Of what it does; empty where its power is unknown.
    """

    reward_s: float
    busy_s: float = 0.0
    energy: dict[str, float] | None = None


def judged(work: RlStep, rounds: Sequence[Round]) -> Judgement:
    """Judge the samples of all rounds; without a model each reward is there after the same time."""
    if work.judge is None:
        return Judgement(work.spec.reward.time)
    own = work.judge.workload
    assert isinstance(own, Inference)
    token_s, metrics = reading(work.judge, "reward")
    ranks = work.judges * own.layout.dp
    after_s, busy_s = [], []
    for each in rounds:
        begins = each.ends_s if work.judges_apart else np.full(len(each.ends_s), each.end_s)
        takes = np.asarray((each.lengths + work.spec.prompt_tokens) * token_s, dtype=np.float64)
        after_s.append(last_judged_s(begins, takes, ranks) - each.end_s)
        busy_s.append(float(takes.sum()) / ranks)
    busy = float(np.mean(busy_s))
    often = busy * work.judges / metrics["step_time_s"]
    energy = {key: often * value for key, value in metrics.get("energy", {}).items() if key.endswith("_kwh")}
    return Judgement(float(np.mean(after_s)) + work.spec.reward.time, busy, energy or None)


def last_judged_s(begins: Floats, takes: Floats, ranks: int) -> float:
    """Instant at which the last of some samples is judged, first come, first served, one at a time on each rank [s].

    `begins` is when each may begin, `takes` how long it takes [num_samples].

    Examples
    --------
    >>> import numpy as np
    >>> last_judged_s(np.array([0.0, 1.0, 1.0]), np.array([3.0, 3.0, 3.0]), 2)
    6.0
    """
    free = [0.0] * ranks
    for sample in np.argsort(begins, kind="stable").tolist():
        heapq.heapreplace(free, max(free[0], float(begins[sample])) + float(takes[sample]))
    return max(free)
