"""The event loop of `fluid` for numba: the same arithmetic as `fluid.advance_numpy`, flow by flow.

Four things make it fast: the entries of each resource are indexed once per call; a rate solution touches each entry
once; a completion that frees no resource which holds another flow back leaves all rates as they are, so nothing is
solved again (a lone collective, whose flows share by their bytes, needs one solution); and resources that can never fill are left out. A resource cannot fill when each of its entries follows, in its
flow, an entry of another resource (a NIC's PCIe link, the memory behind a link), and the capacities of those, times the
largest ratio of the two line weights, add up to no more than its own.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

DONE, HORIZON, BATCH, LOG_FULL, STUCK = 0, 1, 2, 3, 4
_FULL = 1.0 - 1e-9
_TIE = 1e-12
_MAX_LEADERS = 4

_jit: Any = numba.njit(cache=True)


@_jit
def _can_fill(start: Any, resource: Any, line: Any, capacity: Any) -> Any:
    """Whether each resource could ever be full, [num_resources]."""
    num = len(capacity)
    leader = np.full((num, _MAX_LEADERS), -1, dtype=np.int64)
    ratio = np.zeros((num, _MAX_LEADERS))
    can = np.zeros(num, dtype=np.bool_)
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
    return can


@_jit
def _index(start: Any, resource: Any, can: Any, skip: Any) -> Any:
    """Flows of each resource that could fill: offsets [num_resources + 1] and flow numbers."""
    offset = np.zeros(len(can) + 1, dtype=np.int64)
    for f in range(len(start) - 1):
        if not skip[f]:
            for e in range(start[f], start[f + 1]):
                if can[resource[e]]:
                    offset[resource[e] + 1] += 1
    for r in range(len(can)):
        offset[r + 1] += offset[r]
    flow = np.empty(offset[-1], dtype=np.int32)
    at = offset[:-1].copy()
    for f in range(len(start) - 1):
        if not skip[f]:
            for e in range(start[f], start[f + 1]):
                r = resource[e]
                if can[r]:
                    flow[at[r]] = f
                    at[r] += 1
    return offset, flow


@_jit
def _solve(
    active: Any, num_active: Any, start: Any, resource: Any, line: Any, share: Any, capacity: Any, can: Any,
    offset: Any, flow_of: Any, rate: Any, waiting: Any, free: Any, demand: Any, count: Any, tight: Any, bottleneck: Any, held: Any,
) -> None:  # fmt: skip
    """Progressive filling over the active flows.

    Fills `rate`, the `bottleneck` that froze each flow, and `held`, how many flows each resource froze.
    """
    num = len(capacity)
    for r in range(num):
        free[r] = capacity[r]
        demand[r] = 0.0
        count[r] = 0
        held[r] = 0
    open_ = 0
    for i in range(num_active):
        f = active[i]
        rate[f] = np.inf
        if start[f + 1] > start[f]:
            waiting[f] = True
            open_ += 1
        for e in range(start[f], start[f + 1]):
            r = resource[e]
            if can[r]:
                demand[r] += line[e] * share[f]
                count[r] += 1
    live = np.empty(num, dtype=np.int64)
    num_live = 0
    for r in range(num):
        if count[r] > 0:
            live[num_live] = r
            num_live += 1
    while open_ > 0 and num_live > 0:
        lowest = np.inf
        kept = 0
        for k in range(num_live):
            r = live[k]
            if count[r] > 0 and demand[r] > 0.0:
                live[kept] = r
                kept += 1
                level = max(free[r], 0.0) / demand[r]
                if level < lowest:
                    lowest = level
        num_live = kept
        if kept == 0:
            break
        num_tight = 0
        for k in range(num_live):
            r = live[k]
            if max(free[r], 0.0) / demand[r] <= lowest * (1.0 + _TIE):
                tight[num_tight] = r
                num_tight += 1
        for k in range(num_tight):
            r0 = tight[k]
            for i in range(offset[r0], offset[r0 + 1]):
                f = flow_of[i]
                if not waiting[f]:
                    continue
                waiting[f] = False
                open_ -= 1
                rate[f] = share[f] * lowest
                bottleneck[f] = r0
                held[r0] += 1
                for e in range(start[f], start[f + 1]):
                    r = resource[e]
                    if can[r]:
                        free[r] -= line[e] * rate[f]
                        demand[r] -= line[e] * share[f]
                        count[r] -= 1
    for i in range(num_active):
        f = active[i]
        waiting[f] = False


@_jit
def advance(
    now: Any, horizon: Any, window: Any, share: Any, latency: Any, release: Any, after: Any, start: Any,
    resource: Any, line: Any, capacity: Any, batch: Any, left: Any, rate: Any, finish: Any, batch_left: Any,
    saturated: Any, log_time: Any, log_used: Any, log_count: Any,
) -> Any:  # fmt: skip
    """See `fluid.advance_numpy`."""
    num, num_flows = len(capacity), len(share)
    can = _can_fill(start, resource, line, capacity)
    offset, flow_of = _index(start, resource, can, ~np.isnan(finish))
    active = np.empty(num_flows, dtype=np.int64)
    later = np.empty(num_flows, dtype=np.int64)
    num_active, num_later, any_after = 0, 0, False
    for f in range(num_flows):
        if np.isnan(finish[f]):
            later[num_later] = f
            num_later += 1
            any_after = any_after or after[f] >= 0
    waiting = np.zeros(num_flows, dtype=np.bool_)
    end = np.empty(num_flows)
    free, demand, used = np.empty(num), np.empty(num), np.empty(num)
    count, tight = np.empty(num, dtype=np.int64), np.empty(num, dtype=np.int64)
    bottleneck = np.empty(num_flows, dtype=np.int64)
    held = np.empty(num, dtype=np.int64)
    while True:
        if num_active + num_later == 0:
            return now, DONE, log_count
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
        num_later = kept
        _solve(
            active, num_active, start, resource, line, share, capacity, can, offset, flow_of, rate, waiting, free,
            demand, count, tight, bottleneck, held,
        )  # fmt: skip
        used[:] = 0.0
        for i in range(num_active):
            f = active[i]
            for e in range(start[f], start[f + 1]):
                used[resource[e]] += line[e] * rate[f]
            if left[f] <= 0.0:
                end[f] = now
            elif rate[f] > 0.0:
                end[f] = now + left[f] / rate[f]
            else:
                end[f] = np.inf
        order = active[:num_active][np.argsort(end[active[:num_active]], kind="mergesort")]
        solved_at, popped, stop = now, 0, -1
        while stop < 0:
            first, last = np.inf, now
            if popped < num_active:
                first, last = end[order[popped]], end[order[num_active - 1]]
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
            changed, ended, begin = False, False, popped
            while popped < num_active and end[order[popped]] <= then + _TIE * abs(then):
                f = order[popped]
                finish[f] = end[f]
                left[f] = 0.0
                if start[f + 1] > start[f]:
                    held[bottleneck[f]] -= 1
                batch_left[batch[f]] -= 1
                ended = ended or batch_left[batch[f]] == 0
                popped += 1
            for i in range(begin, popped):
                f = order[i]
                for e in range(start[f], start[f + 1]):
                    used[resource[e]] -= line[e] * rate[f]
                    changed = changed or held[resource[e]] > 0
            if any_after and popped > begin:
                for i in range(num_later):
                    f = later[i]
                    if after[f] >= 0 and np.isinf(release[f]) and not np.isnan(finish[after[f]]):
                        release[f] = finish[after[f]] + 2.0 * latency[after[f]]
                        next_release = min(next_release, release[f])
            now = then
            if ended:
                stop = BATCH
            elif now >= horizon:
                stop = HORIZON
            elif changed or now >= next_release or popped == num_active:
                break
        num_active -= popped
        for i in range(num_active):
            f = order[popped + i]
            active[i] = f
            if rate[f] > 0.0:
                left[f] -= rate[f] * (now - solved_at)
        if stop >= 0:
            return now, stop, log_count
