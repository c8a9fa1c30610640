"""Rollouts and iterations of reinforcement learning in simulated time.

A rollout is continuous batching in lockstep: every step gives each request that is being decoded as many tokens as are accepted,
and its time depends on how many there are and on what they have in the cache. So nothing but the next end matters: from one
end of a sample to the next all requests grow alike. A sample whose keys and values find no room waits; where those that run
outgrow the cache, the youngest goes back to the queue with what it has.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sim.cluster.topology import Floats, Ints
from sim.errors import InfeasibleError


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """A rollout of one instance.

    Parameters
    ----------
    end_s : float, [num_samples] [s]
        When each sample had its last token, or was stopped.
    most : int [count]
        Samples that were decoded at once, at most.
    busy_requests_s : float [s]
        Requests that were being decoded, summed over time.
    num_preempted : int [count]
    tokens : int, [num_samples] [tokens]
        That each has at the end: all of them where nothing stopped it.
    start_s : float [s]
        When decoding began.
    """

    end_s: Floats
    most: int
    busy_requests_s: float
    num_preempted: int
    tokens: Ints
    start_s: float = 0.0

    def freed_s(self) -> Floats:
        """When each place of the batch was left for good, [most] [s]."""
        return np.sort(self.end_s)[-self.most :]


def roll_out(
    lengths: Ints,
    prompt_tokens: int,
    step_s: Callable[[float, float], float],
    *,
    most: int,
    capacity_tokens: float = np.inf,
    tokens_per_step: float = 1.0,
    num_ranks: int = 1,
    given: Ints | None = None,
    start_s: float = 0.0,
    until_s: float = np.inf,
) -> RolloutRecord:
    """Decode the samples of one instance, from all at once to the last.

    Parameters
    ----------
    lengths : int, [num_samples] [tokens]
        Of each sample, taken in their order.
    prompt_tokens : int
        In the cache of each when it begins.
    step_s : function [s]
        Of requests of the mean GPU and their mean context [tokens].
    most : int [count]
        Samples that are decoded at once, at most.
    capacity_tokens : float
        That the cache of the instance holds.
    tokens_per_step : float
        That a step gives a request on average.
    num_ranks : int [count]
        GPUs of the instance.
    given : int, [num_samples] [tokens], optional
        That each has already, fewer than its length; none where left out.
    start_s : float [s]
        From the begin of the rollout until decoding begins.
    until_s : float [s]
        Instant at which all that still run are stopped.

    Returns
    -------
    RolloutRecord

    Raises
    ------
    InfeasibleError
        Where the cache does not hold the longest sample alone.

    Examples
    --------
    >>> import numpy as np
    >>> roll_out(np.array([100, 300]), 0, lambda load, context: 0.01, most=2).end_s.tolist()
    [1.0, 3.0]
    """
    longest = prompt_tokens + int(lengths.max(initial=0))
    if longest > capacity_tokens:
        raise InfeasibleError(
            f"a sample of {longest:,} tokens does not fit: the cache of the instance holds {capacity_tokens:,.0f}"
        )
    tokens: Ints = np.zeros(len(lengths), dtype=np.int64) if given is None else given.copy()
    waiting = deque(enumerate(tokens.tolist()))  # with what they have so far
    running: list[tuple[float, int]] = []  # when the common count of tokens ends each, and its number
    joined: dict[int, tuple[int, float]] = {}  # order of joining, and the common count less what it has
    end_s = np.zeros(len(lengths))
    count = busy = held = 0.0
    time_s = start_s
    peak = preempted = order = 0
    while waiting or running:
        while waiting and len(running) < most:
            number, has = waiting[0]
            if running and held + prompt_tokens + has > capacity_tokens - len(running) * tokens_per_step:
                break
            waiting.popleft()
            order += 1
            joined[number] = (order, count - has)
            heapq.heappush(running, (count + float(lengths[number]) - has, number))
            held += prompt_tokens + has
        peak = max(peak, len(running))
        num = len(running)
        grow = max(running[0][0] - count, 0.0)
        room = (capacity_tokens - held) / num
        overflows = num > 1 and room < grow
        grow = max(min(grow, room), 0.0) if overflows else grow
        took = grow / tokens_per_step * step_s(num / num_ranks, held / num + grow / 2)
        if time_s + took > until_s:
            grow, took = _stopped(
                grow, max(0.0, until_s - time_s), num, held, step_s, tokens_per_step, num_ranks
            )
            for _, number in running:
                tokens[number] = min(int(count + grow - joined[number][1]), int(lengths[number]) - 1)
            for number, got in waiting:
                tokens[number] = got
            end_s[[*joined, *(number for number, _ in waiting)]] = until_s
            return RolloutRecord(end_s, peak, busy + num * took, preempted, tokens, start_s)
        time_s, count, held, busy = time_s + took, count + grow, held + num * grow, busy + num * took
        if overflows:
            number = max((number for _, number in running), key=lambda number: joined[number][0])
            running = [entry for entry in running if entry[1] != number]
            heapq.heapify(running)
            has = round(count - joined.pop(number)[1])
            held -= prompt_tokens + has
            waiting.appendleft((number, has))
            preempted += 1
            most = max(1, num - 1)  # no more than have been seen to fit
            continue
        while running and running[0][0] <= count + 1e-9:
            _, number = heapq.heappop(running)
            joined.pop(number)
            end_s[number], tokens[number] = time_s, lengths[number]
            held -= prompt_tokens + int(lengths[number])
    return RolloutRecord(end_s, peak, busy, preempted, tokens, start_s)


def _stopped(
    grow: float,
    left_s: float,
    num: int,
    held: float,
    step_s: Callable[[float, float], float],
    tokens_per_step: float,
    num_ranks: int,
) -> tuple[float, float]:
    """Tokens of each request in the time that is left, fewer than `grow`, and that time [s]."""
    low, high = 0.0, grow
    while high - low > 1e-3:
        middle = (low + high) / 2
        took = middle / tokens_per_step * step_s(num / num_ranks, held / num + middle / 2)
        low, high = (low, middle) if took > left_s else (middle, high)
    return round(low, 2), left_s


def tail_wait_gpu_s(records: Sequence[RolloutRecord], num_ranks: int) -> float:
    """GPU-seconds in which places of the batch of each instance wait for the last sample of all, or for the stop.

    Parameters
    ----------
    records : sequence of RolloutRecord, [instances]
    num_ranks : int [count]
        GPUs of an instance.

    Returns
    -------
    float [GPU-s]
        A place is the part of its instance's GPUs that it has when all places are taken.
    """
    last = max(float(record.end_s.max(initial=0.0)) for record in records)
    return float(sum(num_ranks * (last - record.freed_s()).mean() for record in records))


@dataclass(frozen=True, slots=True)
class Cycle:
    """Iterations that have settled: mean time of one [s], and updates that a rollout's weights lag behind, mean."""

    step_s: float
    staleness_mean: float


def iterate(
    rollout_s: Sequence[float],
    update_s: Sequence[float],
    sync_s: float,
    staleness: int,
    reward_s: float = 0.0,
) -> Cycle:
    """Run rollouts and updates of two pools until they have settled.

    Parameters
    ----------
    rollout_s, update_s : sequence of float, [num_iterations] [s]
        Taken in turn, again and again.
    sync_s : float [s]
        That new weights take to come to the rollout's pool, between two rollouts.
    staleness : int [count]
        Updates that the weights of a rollout may lag behind; 0: each waits for the last.
    reward_s : float [s]
        From the end of a rollout until its last reward is there.

    Returns
    -------
    Cycle

    Notes
    -----
    Rollout i begins when the one before has ended and update i - 1 - staleness has; update i when update i - 1 and rollout i
    have, and its rewards are there. Weights are new before every rollout but the first.

    Examples
    --------
    >>> [iterate([3.0], [3.0], 0.0, staleness).step_s for staleness in (0, 1)]
    [6.0, 3.0]
    """
    num = len(rollout_s)
    settled, counted = num * (staleness + 4), num * (staleness + 4)
    rolled: list[float] = []
    updated: list[float] = []
    lags: list[int] = []
    for i in range(settled + counted + 1):
        begin = rolled[-1] if rolled else 0.0
        if i - 1 - staleness >= 0:
            begin = max(begin, updated[i - 1 - staleness])
        lags.append(i - int(np.searchsorted(updated, begin * (1 + 1e-12), side="right")))
        rolled.append(begin + (sync_s if i else 0.0) + rollout_s[i % num])
        ready = max(rolled[-1] + reward_s, updated[-1] if updated else 0.0)
        updated.append(ready + update_s[i % num])
    return Cycle((updated[-1] - updated[settled]) / counted, float(np.mean(lags[settled + 1 :])))
