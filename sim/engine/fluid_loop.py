"""The event loop of `fluid`: flows drain at the rates of the sharing law until a flow is released or done.

Four things make it fast: a completion that frees no resource which holds another flow back leaves all rates as they are, so
nothing is solved again (a lone collective, whose flows share by their bytes, needs one solution); who crosses which resource
is noted once and kept until flows are released or half of them have ended; resources that can never fill are left out; and
what is compiled is this same code. A resource cannot fill when each of its entries follows, in its flow, an entry of another
resource (a NIC's PCIe link, the memory behind a link), and the capacities of those, times the largest ratio of the two line
weights, add up to no more than its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sim.engine import sharing
from sim.engine.compiled import frugal
from sim.engine.sharing import OUT, cross, max_min, sift

DONE, HORIZON, BATCH, LOG_FULL, STUCK = 0, 1, 2, 3, 4
_FULL = 1.0 - 1e-9
_TIE = 1e-12
_MAX_LEADERS = 4


class Room(NamedTuple):
    """Arrays to work in, whatever they hold."""

    can: Any  # [num_resources]
    leader: Any  # [num_resources, leaders]
    ratio: Any
    start: Any  # [num_flows + 1], where each flow begins in what follows
    resource: Any  # [num_entries]
    line: Any
    active: Any  # [num_flows]
    later: Any
    order: Any
    ended: Any
    end: Any
    bottleneck: Any
    used: Any  # [num_resources]
    held: Any
    bundles: Any
    crossings: sharing.Crossings
    scratch: sharing.Scratch


def room(num_flows: int, num_entries: int, num_resources: int) -> Room:
    """Make room for `advance`."""

    def numbers(*shape: int) -> Any:
        return np.empty(shape, dtype=np.int32)

    return Room(
        can=np.empty(num_resources, dtype=np.bool_),
        leader=numbers(num_resources, _MAX_LEADERS),
        ratio=np.empty((num_resources, _MAX_LEADERS)),
        start=numbers(num_flows + 1),
        resource=numbers(num_entries),
        line=np.empty(num_entries),
        active=numbers(num_flows),
        later=numbers(num_flows),
        order=numbers(num_flows),
        ended=numbers(num_flows),
        end=np.empty(num_flows),
        bottleneck=numbers(num_flows),
        used=np.empty(num_resources),
        held=numbers(num_resources),
        bundles=np.arange(num_resources, dtype=np.int32),
        crossings=sharing.crossings(num_entries, num_resources),
        scratch=sharing.scratch(num_resources, num_resources),
    )


@frugal
def _note_can_fill(
    start: Any, resource: Any, line: Any, capacity: Any, can: Any, leader: Any, ratio: Any
) -> None:
    """Note in `can` which resources could ever be full, [num_resources]."""
    num = len(capacity)
    for r in range(num):
        can[r] = False
        for k in range(_MAX_LEADERS):
            leader[r, k] = -1
            ratio[r, k] = 0.0
    for f in range(len(start) - 1):
        for e in range(start[f], start[f + 1]):
            r = resource[e]
            if can[r]:
                continue
            if e == start[f] or line[e - 1] <= 0.0:
                can[r] = True
                continue
            before = resource[e - 1]
            placed = False
            for k in range(_MAX_LEADERS):
                if leader[r, k] == before or leader[r, k] < 0:
                    leader[r, k] = before
                    ratio[r, k] = max(ratio[r, k], line[e] / line[e - 1])
                    placed = True
                    break
            if not placed:
                can[r] = True
    for r in range(num):
        if not can[r]:
            bound = 0.0
            for k in range(_MAX_LEADERS):
                if leader[r, k] >= 0:
                    bound += ratio[r, k] * capacity[leader[r, k]]
            can[r] = bound > capacity[r] * (1.0 - 1e-6)


@frugal
def advance(
    clock: Any, count: Any, horizon: Any, window: Any, share: Any, latency: Any, release: Any, start_s: Any, after: Any, start: Any,
    resource: Any, line: Any, capacity: Any, batch: Any, left: Any, rate: Any, finish: Any, batch_left: Any,
    saturated: Any, log_time: Any, log_used: Any, x: Any,
) -> Any:  # fmt: skip
    """One call of the event loop: until `horizon`, the end of a batch, or the end of all.

    Parameters
    ----------
    clock, count : [1]
        The time [s], and the stretches noted so far; both are brought up to date.
    horizon, window : float
        Instant at which to stop, and `Island.window_s` [s].
    share, ..., log_used
        Columns of `fluid.Island` of the same names, whose state is changed in place.
    x : Room

    Returns
    -------
    int
        The number of its `fluid.Stop`.
    """
    num, num_flows = len(capacity), len(share)
    now, log_count = clock[0], count[0]
    can, active, later, order, end = x.can, x.active, x.later, x.order, x.end
    used, held, bottleneck = x.used, x.held, x.bottleneck
    _note_can_fill(start, resource, line, capacity, can, x.leader, x.ratio)
    # Entries that some rate may depend on.
    num_kept, num_active, num_later, any_after = 0, 0, 0, False
    for f in range(num_flows):
        x.start[f] = num_kept
        bottleneck[f] = OUT
        if np.isnan(finish[f]):
            later[num_later] = f
            num_later += 1
            any_after = any_after or after[f] >= 0
            for e in range(start[f], start[f + 1]):
                if can[resource[e]]:
                    x.resource[num_kept], x.line[num_kept] = resource[e], line[e]
                    num_kept += 1
    x.start[num_flows] = num_kept
    num_crossing = num_bundles = 0
    stop = -1
    while stop < 0:
        if num_active + num_later == 0:
            stop = DONE
            break
        next_release = np.inf
        kept = 0
        for i in range(num_later):
            f = later[i]
            if release[f] <= now + _TIE * abs(now):
                active[num_active] = f
                num_active += 1
            else:
                later[kept] = f
                kept += 1
                next_release = min(next_release, release[f])
        if kept < num_later or 2 * num_active < num_crossing:  # some are new, or half of them have ended
            num_crossing = num_active
            num_bundles = cross(
                active, num_active, x.start, x.resource, x.line, share, x.crossings, x.scratch
            )
        num_later = kept
        max_min(
            active, num_active, x.start, x.resource, x.line, share, capacity, x.bundles, num_bundles, rate, bottleneck,
            x.crossings, x.scratch,
        )  # fmt: skip
        for r in range(num):
            held[r] = 0
            used[r] = 0.0
        last = now
        for i in range(num_active):
            f = active[i]
            if bottleneck[f] >= 0:
                held[bottleneck[f]] += 1
            for e in range(start[f], start[f + 1]):
                used[resource[e]] += line[e] * rate[f]
            if left[f] <= 0.0:
                end[f] = now
            elif rate[f] > 0.0:
                end[f] = now + left[f] / rate[f]
            else:
                end[f] = np.inf
            order[i] = f
            last = max(last, end[f])
        for i in range(num_active // 2 - 1, -1, -1):
            sift(order, end, i, num_active)
        solved_at, num_left = now, num_active
        while stop < 0:
            first = end[order[0]] if num_left > 0 else np.inf
            stop_at = min(next_release, horizon)
            if not np.isfinite(min(first, stop_at)):
                stop = STUCK
                break
            if log_count == log_time.shape[1]:
                stop = LOG_FULL
                break
            then = min(max(first, min(first + window, last)), stop_at)
            if then > now:
                log_time[0, log_count], log_time[1, log_count] = now, then
                for r in range(num):
                    log_used[log_count, r] = used[r]
                    if used[r] >= _FULL * capacity[r]:
                        saturated[r] += then - now
                log_count += 1
            num_ended, batch_ended, changed = 0, False, False
            while num_left > 0 and end[order[0]] <= then + _TIE * abs(then):
                f = order[0]
                finish[f] = end[f]
                left[f] = 0.0
                if bottleneck[f] >= 0:
                    held[bottleneck[f]] -= 1
                bottleneck[f] = OUT
                batch_left[batch[f]] -= 1
                batch_ended = batch_ended or batch_left[batch[f]] == 0
                x.ended[num_ended] = f
                num_ended += 1
                num_left -= 1
                order[0] = order[num_left]
                sift(order, end, 0, num_left)
            for i in range(num_ended):
                f = x.ended[i]
                for e in range(start[f], start[f + 1]):
                    used[resource[e]] -= line[e] * rate[f]
                    changed = changed or held[resource[e]] > 0
            if any_after and num_ended > 0:
                for i in range(num_later):
                    f = later[i]
                    if after[f] >= 0 and np.isinf(release[f]) and not np.isnan(finish[after[f]]):
                        release[f] = max(start_s[f], finish[after[f]] + 2.0 * latency[after[f]])
                        next_release = min(next_release, release[f])
            now = then
            if batch_ended:
                stop = BATCH
            elif now >= horizon:
                stop = HORIZON
            elif changed or now >= next_release or num_left == 0:
                break
        kept = 0
        for i in range(num_active):
            f = active[i]
            if np.isnan(finish[f]):
                active[kept] = f
                kept += 1
                if rate[f] > 0.0:
                    left[f] -= rate[f] * (now - solved_at)
        num_active = kept
    clock[0], count[0] = now, log_count
    return stop
