"""The sharing law: rates of flows by weighted max-min fairness.

Each flow f asks for a rate `share_f * level`. All levels rise together until a resource is full; the flows on it freeze at
that level, the others go on (progressive filling; Bertsekas and Gallager, Data Networks, 6.5.2). The level at which a
resource would fill only rises as flows freeze elsewhere, so the next one to fill is the least of a heap whose keys are
brought up to date when they come to the top.

Why this way: most resources never fill, and what crosses them need not be followed. A resource starts with a level that it
cannot fill below; only when this comes to the top of the heap is it looked at, and from then on kept up to date. One whose
flows all cross another that fills before it, its *leader*, is left out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sim.engine import folding
from sim.engine.compiled import frugal

WAITING, OUT = -2, -3
"""Bottleneck of a flow whose rate is not known yet, and of one that is not under way; -1 of one that no resource holds."""


class Crossings(NamedTuple):
    """Flows by the resources that they cross, in *bundles* of one resource each; a resource may have several."""

    resource: Any  # int, [num_bundles]
    first: Any  # int, [num_bundles + 1], of its places in what follows
    flow: Any  # int, [num_entries]
    entry: Any  # int, [num_entries], place in the flows' own order
    asked: Any  # float, [num_bundles], sum of line * share, or more
    leader: Any  # int, [num_bundles], a resource that its flows cross and fill before this one; -1 where there is none


class Scratch(NamedTuple):
    """Arrays for `cross` and `max_min` to work in, over resources where nothing else is said."""

    last: Any  # last bundle, -1 where there is none
    before: Any  # [num_bundles], the bundle before on the same resource
    live: Any
    heap: Any
    level: Any
    leader: Any  # of all its bundles, -1 where they have none or several
    watched: Any  # 1 where what follows is up to date
    free: Any  # left by the flows that are frozen [bytes/s]
    demand: Any  # of those that are not, at level 1
    waiting: Any  # entries of these


def crossings(num_entries: int, num_bundles: int) -> Crossings:
    """Make room for `cross`; both numbers may be more than are needed.

    Parameters
    ----------
    num_entries, num_bundles : int [count]

    Returns
    -------
    Crossings
    """
    sizes = {"resource": num_bundles, "first": num_bundles + 1, "flow": num_entries, "entry": num_entries}
    numbers = {name: np.zeros(size, dtype=np.int32) for name, size in sizes.items()}
    return Crossings(**numbers, asked=np.zeros(num_bundles), leader=np.full(num_bundles, -1, dtype=np.int32))


def scratch(num_resources: int, num_bundles: int) -> Scratch:
    """Make room for `cross` and `max_min` to work in, to be passed on untouched.

    Parameters
    ----------
    num_resources, num_bundles : int [count]

    Returns
    -------
    Scratch
    """
    sums = {name: np.zeros(num_resources) for name in ("level", "free", "demand")}
    names = [name for name in Scratch._fields if name not in (*sums, "last", "before")]
    numbers = {name: np.zeros(num_resources, dtype=np.int32) for name in names}
    last, before = np.full(num_resources, -1, dtype=np.int32), np.zeros(num_bundles, dtype=np.int32)
    return Scratch(last=last, before=before, **numbers, **sums)


def lead(c: Crossings, slowness: Any, fixed: Any) -> None:
    """Find the leaders among bundles of the same flows, and write them in `c`.

    Parameters
    ----------
    c : Crossings
        Of no more bundles than there are.
    slowness : float, [conditions, num_entries] [s/byte]
        Line weight over capacity of each entry, in the flows' own order, under all capacities that there may be.
    fixed : bool, [num_entries]
        False where the line weight may yet change.
    """
    if not len(c.entry):
        return
    first, slow = c.first[:-1], slowness[:, c.entry]
    least, most = np.minimum.reduceat(slow, first, axis=1), np.maximum.reduceat(slow, first, axis=1)
    stays = np.logical_and.reduceat(fixed[c.entry], first)
    whose = np.add.reduceat(
        folding.mixed(1, c.flow), first
    )  # of flow alone, the first would count as nothing
    order = np.lexsort((-least[0], ~stays, whose))
    new = np.diff(whose[order], prepend=~whose[order[0]]) != 0
    leader = np.empty_like(order)
    leader[order] = order[new][np.cumsum(new) - 1]
    led = stays & stays[leader] & (leader != np.arange(len(leader))) & (most <= least[:, leader]).all(axis=0)
    c.leader[led] = c.resource[leader[led]]


@frugal
def cross(
    flows: Any, num_flows: Any, start: Any, resource: Any, line: Any, share: Any, c: Any, s: Any
) -> Any:
    """Write in `c` which of some flows cross each resource; returns the number of bundles, one a resource in use.

    Parameters as of `max_min`.
    """
    num = 0
    for i in range(num_flows):
        f = flows[i]
        for e in range(start[f], start[f + 1]):
            r = resource[e]
            if s.last[r] < 0:
                s.last[r] = num
                c.resource[num], c.asked[num], c.leader[num], c.first[num + 1] = r, 0.0, -1, 0
                num += 1
            c.first[s.last[r] + 1] += 1
            c.asked[s.last[r]] += line[e] * share[f]
    c.first[0] = 0
    for b in range(num):
        s.before[b] = c.first[b]
        c.first[b + 1] += c.first[b]
    for i in range(num_flows):
        f = flows[i]
        for e in range(start[f], start[f + 1]):
            b = s.last[resource[e]]
            c.flow[s.before[b]], c.entry[s.before[b]] = f, e
            s.before[b] += 1
    for b in range(num):
        s.last[c.resource[b]] = -1
    return num


@frugal
def max_min(
    flows: Any, num_flows: Any, start: Any, resource: Any, line: Any, share: Any, capacity: Any, bundles: Any,
    num_bundles: Any, rate: Any, bottleneck: Any, c: Any, s: Any,
) -> Any:  # fmt: skip
    """Rates of some flows that share resources with nobody else.

    Parameters
    ----------
    flows : int, [>= num_flows]
        Which flows; all other arrays over flows are indexed by these numbers.
    start : int, [all flows + 1]
        Where each flow's entries of `resource` and `line` begin.
    resource : int, [all entries]
    line : float, [all entries]
        Capacity used per payload byte.
    share : float, [all flows]
        Weight of each flow.
    capacity : float, [num_resources] [bytes/s]
    bundles : int, [>= num_bundles]
        Which of `c`: all that these flows are in. Others in them have the bottleneck `OUT`.
    rate, bottleneck : [all flows]
        Written: rate [bytes/s] (inf for a flow that uses nothing) and the resource that holds it.
    c : Crossings
    s : Scratch

    References
    ----------
    Bertsekas and Gallager, Data Networks, section 6.5.2.
    """
    left = 0
    for i in range(num_flows):
        f = flows[i]
        if start[f] < start[f + 1]:
            bottleneck[f] = WAITING
            left += 1
        else:
            bottleneck[f] = -1
            rate[f] = np.inf
    size = num_live = 0
    for i in range(num_bundles):
        b = bundles[i]
        r = c.resource[b]
        if s.last[r] < 0:
            s.live[num_live] = r
            num_live += 1
            s.leader[r] = c.leader[b]
            s.watched[r] = 0
            s.demand[r] = 0.0
        elif s.leader[r] != c.leader[b]:
            s.leader[r] = -1
        s.before[b] = s.last[r]
        s.last[r] = b
        s.demand[r] += c.asked[b]
    for k in range(num_live):
        r = s.live[k]
        if s.leader[r] < 0:
            s.level[r] = capacity[r] / s.demand[r] if s.demand[r] > 0.0 else np.inf
            s.heap[size] = r
            size += 1
    for k in range(size // 2 - 1, -1, -1):
        sift(s.heap, s.level, k, size)
    while left > 0:
        r = s.heap[0]
        if s.watched[r] == 0:
            _watch(r, c, line, share, capacity, rate, bottleneck, s)
        if s.waiting[r] > 0:
            now = max(s.free[r], 0.0) / s.demand[r] if s.demand[r] > 0.0 else np.inf
            if now > s.level[r]:
                s.level[r] = now
                sift(s.heap, s.level, 0, size)
                if s.heap[0] != r:
                    continue
            left -= _freeze(r, c, start, resource, line, share, rate, bottleneck, s)
        size -= 1
        s.heap[0] = s.heap[size]
        sift(s.heap, s.level, 0, size)
    for k in range(num_live):
        s.last[s.live[k]] = -1
    return 0


@frugal
def _watch(r: Any, c: Any, line: Any, share: Any, capacity: Any, rate: Any, bottleneck: Any, s: Any) -> None:
    """Bring what is left of a resource up to date."""
    free, demand, waiting = capacity[r], 0.0, 0
    b = s.last[r]
    while b >= 0:
        for k in range(c.first[b], c.first[b + 1]):
            f, e = c.flow[k], c.entry[k]
            if bottleneck[f] == WAITING:
                demand += line[e] * share[f]
                waiting += 1
            elif bottleneck[f] != OUT:
                free -= line[e] * rate[f]
        b = s.before[b]
    s.free[r], s.demand[r], s.waiting[r] = free, demand, waiting
    s.watched[r] = 1


@frugal
def _freeze(
    r: Any, c: Any, start: Any, resource: Any, line: Any, share: Any, rate: Any, bottleneck: Any, s: Any
) -> Any:
    """Freeze the flows that wait on a resource at its level; returns how many."""
    frozen = 0
    b = s.last[r]
    while b >= 0:
        for k in range(c.first[b], c.first[b + 1]):
            f = c.flow[k]
            if bottleneck[f] != WAITING:
                continue
            bottleneck[f] = r
            rate[f] = share[f] * s.level[r] if share[f] > 0.0 else 0.0
            frozen += 1
            for e in range(start[f], start[f + 1]):
                other = resource[e]
                if s.watched[other] == 1:
                    s.free[other] -= line[e] * rate[f]
                    s.demand[other] -= line[e] * share[f]
                    s.waiting[other] -= 1
        b = s.before[b]
    return frozen


@frugal
def sift(heap: Any, level: Any, place: Any, size: Any) -> None:
    """Let the entry at a place of a heap, whose least level is first, sink to where it belongs."""
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
