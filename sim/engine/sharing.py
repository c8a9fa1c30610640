"""The sharing law: rates of flows by weighted max-min fairness.

Each flow f asks for a rate `share_f * level`. All levels rise together until a resource is full; the flows on it freeze at
that level, the others go on (progressive filling; Bertsekas and Gallager, Data Networks, 6.5.2). The level at which a
resource would fill only rises as flows freeze elsewhere, so the next one to fill is the least of a heap whose keys are
brought up to date when they come to the top.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.engine.compiled import frugal

WAITING = -2
"""Bottleneck of a flow whose rate is not known yet; -1 of one that no resource holds."""


def scratch(num_resources: int, num_entries: int) -> tuple[Any, Any, Any]:
    """Make room for `max_min` to work in.

    Parameters
    ----------
    num_resources : int [count]
    num_entries : int [count]
        The most (flow, resource) pairs of one solution.

    Returns
    -------
    arrays
        Numbers [3, num_resources], counts [5, num_resources] and members [num_entries], to be passed on untouched.
    """
    return (
        np.zeros((3, num_resources)),
        np.zeros((5, num_resources), dtype=np.int64),
        np.zeros(max(num_entries, 1), dtype=np.int64),
    )


@frugal
def max_min(
    flows: Any, num_flows: Any, start: Any, stop: Any, resource: Any, line: Any, share: Any, capacity: Any, rate: Any,
    bottleneck: Any, numbers: Any, counts: Any, member: Any,
) -> Any:  # fmt: skip
    """Rates of some flows that share resources with nobody else.

    Parameters
    ----------
    flows : int, [>= num_flows]
        Which flows; all other arrays over flows are indexed by these numbers.
    start, stop : int, [all flows]
        Where a flow's entries of `resource` and `line` begin and end.
    resource : int, [all entries]
    line : float, [all entries]
        Capacity used per payload byte.
    share : float, [all flows]
        Weight of each flow.
    capacity : float, [num_resources] [bytes/s]
    rate, bottleneck : [all flows]
        Written: rate [bytes/s] (inf for a flow that uses nothing) and the resource that holds it.
    numbers, counts, member
        From `scratch`.

    Returns
    -------
    int
        Resources in use [count]; `counts[2, :that]` are their numbers, `numbers[0]` what is left of each [bytes/s].

    References
    ----------
    Bertsekas and Gallager, Data Networks, section 6.5.2.
    """
    free, demand, level = numbers[0], numbers[1], numbers[2]
    open_, first, live, heap, fill = counts[0], counts[1], counts[2], counts[3], counts[4]
    num_live = 0
    for i in range(num_flows):
        f = flows[i]
        rate[f] = np.inf
        bottleneck[f] = -1
        for e in range(start[f], stop[f]):
            r = resource[e]
            if open_[r] == 0:
                live[num_live] = r
                num_live += 1
                free[r] = capacity[r]
                demand[r] = 0.0
            open_[r] += 1
            demand[r] += line[e] * share[f]
            bottleneck[f] = WAITING
    used = 0
    for k in range(num_live):
        r = live[k]
        first[r] = fill[r] = used
        used += open_[r]
        level[r] = free[r] / demand[r] if demand[r] > 0.0 else np.inf
        heap[k] = r
    for i in range(num_flows):
        f = flows[i]
        for e in range(start[f], stop[f]):
            r = resource[e]
            member[fill[r]] = f
            fill[r] += 1
    size = num_live
    for k in range(size // 2 - 1, -1, -1):
        _sift(heap, level, k, size)
    while size > 0:
        r = heap[0]
        if open_[r] > 0:
            now = max(free[r], 0.0) / demand[r] if demand[r] > 0.0 else np.inf
            if now > level[r]:
                level[r] = now
                _sift(heap, level, 0, size)
                if heap[0] != r:
                    continue
            for k in range(first[r], fill[r]):
                f = member[k]
                if bottleneck[f] != WAITING:
                    continue
                bottleneck[f] = r
                rate[f] = share[f] * level[r] if share[f] > 0.0 else 0.0
                for e in range(start[f], stop[f]):
                    other = resource[e]
                    free[other] -= line[e] * rate[f]
                    demand[other] -= line[e] * share[f]
                    open_[other] -= 1
        size -= 1
        heap[0] = heap[size]
        _sift(heap, level, 0, size)
    return num_live


@frugal
def _sift(heap: Any, level: Any, place: Any, size: Any) -> None:
    """Let the entry at a place of the heap sink to where it belongs."""
    sunk = heap[place]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and level[heap[child + 1]] < level[heap[child]]:
            child += 1
        if level[heap[child]] >= level[sunk]:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = sunk
