"""Transfers of a training step under way: they begin, share what they have in common, drain and end.

Rates are solved anew for the transfers that hang together by links that could fill, whenever one of them starts or ends. A
transfer alone needs one solution, as the flows of a collective share by their bytes and their ends free nothing that
holds another back, and one of a kind that has been alone before needs none: its flows are not even written out until
another comes. Every transfer has a *place* with a timer, and the next event is the winner of a tournament over them.

Arguments are the arrays of `step_arrays`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.engine.compiled import frugal
from sim.engine.sharing import max_min

WAYS = 4  # resources that are noted to have been full on a flow's way
_UNKNOWN = -2
_SPARE = 1e-9  # of a resource's capacity: it counts as full
_LAST = 1e-9  # of a transfer's time, before the end of which a flow ends last
DONE, STUCK, DEAD = 0, 1, 2
"""Ends of a run: all tasks done; all wait for one another; bytes wait for a resource without capacity."""
_TIE = 1e-12


@frugal
def begin(w: Any, x: Any, t: Any, n: Any, place: Any, now: Any) -> Any:
    """Put the flows of the transfer at a place on the network, now [s]; `DONE` or `DEAD`."""
    template = n.template[place]
    first, last = t.first[template], t.first[template + 1]
    base = place * n.sizes[0]
    n.begun[place] = n.since[place] = now
    n.noted[place, 0] = _UNKNOWN
    n.left_flows[place] = n.num_flows[place] = last - first
    if last == first:
        return DONE
    scaled = place < len(w.tracks) and x.loads.size > 0 and t.owner[first] >= 0
    n.active[place] = True
    if not scaled and n.alone_s[template] >= 0.0 and _is_alone(n, place):
        n.lazy[place] = True
        set_timer(n, place, now + n.alone_s[template])
        return DONE
    layer = microbatch = draws = 0
    if scaled:
        track = w.tracks[place]
        task, node = w.tasks[track.task], w.nodes[track.node]
        layer, draws = node.layer, track.draws
        microbatch = task.forward if node.forward else task.backward
    _write(t, n, place)
    for f in range(first, last):
        i = base + f - first
        n.rate[i] = 0.0
        if scaled:
            load = _load(x, t, t.owner[f], draws, layer, microbatch) if t.owner[f] >= 0 else 1.0
            n.left[i] = n.share[i] = t.payload[f] * load
            for e in range(t.entry[f], t.entry[f + 1]):
                if t.taker[e] >= 0:
                    n.line[n.start[i] + e - t.entry[f]] *= (
                        x.loads[draws, layer, microbatch, t.taker[e]] / load
                    )
    ended = share(t, n, place, now)
    if (
        ended == DONE and not scaled and n.island[1] < 0 and np.isfinite(n.when[place])
    ):  # nobody shared with it
        n.alone_s[template] = n.when[place] - now
        for f in range(first, last):
            i = base + f - first
            n.alone_rate[f] = n.rate[i]
            n.alone_end[f] = end_of(n, i, 0.0)
    return ended


@frugal
def _is_alone(n: Any, place: Any) -> Any:
    """True where nothing is under way that a transfer shares a resource with."""
    alone = True
    for k in range(n.near_first[place], n.near_first[place + 1]):
        alone = alone and not n.active[n.near[k]]
    return alone


@frugal
def write_out(t: Any, n: Any, place: Any, now: Any) -> None:
    """Write out the flows of a transfer that was alone so far and of which only the end was known."""
    template, begun = n.template[place], n.begun[place]
    first, base = t.first[template], place * n.sizes[0]
    _write(t, n, place)
    for f in range(first, t.first[template + 1]):
        i = base + f - first
        n.rate[i] = n.alone_rate[f]
        if begun + n.alone_end[f] <= now:
            n.finish[i] = begun + n.alone_end[f]
            n.left_flows[place] -= 1
        elif now > begun:
            n.left[i] -= n.alone_rate[f] * (now - begun)
    n.since[place] = now
    n.lazy[place] = False


@frugal
def _write(t: Any, n: Any, place: Any) -> None:
    """Write the flows of a transfer, at mean loads and before any byte has moved."""
    template = n.template[place]
    first, base, entry = t.first[template], place * n.sizes[0], place * n.sizes[1]
    for f in range(first, t.first[template + 1]):
        i = base + f - first
        n.left[i] = n.share[i] = t.payload[f]
        n.finish[i] = np.nan
        n.start[i] = entry
        for e in range(t.entry[f], t.entry[f + 1]):
            n.resource[entry] = t.resource[e]
            n.line[entry] = t.line[e]
            entry += 1
        n.stop[i] = entry


@frugal
def _load(x: Any, t: Any, owner: Any, draws: Any, layer: Any, microbatch: Any) -> Any:
    """Mean routed load of the lanes that a flow's bytes are for."""
    total = 0.0
    for k in range(t.owner_first[owner], t.owner_first[owner + 1]):
        total += x.loads[draws, layer, microbatch, t.owner_lane[k]]
    return total / (t.owner_first[owner + 1] - t.owner_first[owner])


@frugal
def end_of(n: Any, flow: Any, now: Any) -> Any:
    """Instant at which a flow ends at the rate that it has; inf where it has none [s]."""
    if n.left[flow] <= 0.0:
        return now
    return now + n.left[flow] / n.rate[flow] if n.rate[flow] > 0.0 else np.inf


@frugal
def change(t: Any, n: Any, at: Any) -> Any:
    """Go on from an instant at which capacities change [s]: all that is under way shares anew. `DONE` or `DEAD`."""
    num_places = len(n.begun)
    for place in range(num_places):
        if n.active[place]:
            if n.lazy[place]:
                write_out(t, n, place, at)
            advance(n, place, at)
    condition = len(n.capacities) - n.pending[0]
    n.pending[0] -= 1
    n.solved[-1] += 1
    for r in range(len(n.capacity)):
        n.capacity[r] = n.capacities[condition, r]
    for template in range(len(n.alone_s)):
        n.alone_s[template] = -1.0
    for place in range(num_places):
        if n.active[place] and n.solved[place] < n.solved[-1] and share(t, n, place, at) == DEAD:
            return DEAD
    return DONE


@frugal
def advance(n: Any, place: Any, now: Any) -> None:
    """Let the flows of a transfer drain until now at the rates they have."""
    base, since = place * n.sizes[0], n.since[place]
    for f in range(base, base + n.num_flows[place]):
        if np.isnan(n.finish[f]):
            end = end_of(n, f, since)
            if end <= now + _TIE * abs(now):
                n.finish[f] = end
                n.left_flows[place] -= 1
            else:
                n.left[f] -= n.rate[f] * (now - since)
    n.since[place] = now


@frugal
def share(t: Any, n: Any, seed: Any, now: Any) -> Any:
    """Solve new rates for a transfer and all that hangs together with it, and set their timers; `DONE` or `DEAD`."""
    island, num = n.island, 1
    island[0] = seed
    n.seen[seed] = True
    i = 0
    while i < num:
        for k in range(n.near_first[island[i]], n.near_first[island[i] + 1]):
            other = n.near[k]
            if n.active[other] and not n.seen[other]:
                n.seen[other] = True
                island[num] = other
                num += 1
        i += 1
    if num < len(island):
        island[num] = -1
    open_ = 0
    for i in range(num):
        place = island[i]
        n.seen[place] = False
        alone = n.lazy[place]
        if alone:
            write_out(t, n, place, now)
        n.solved[place] = n.solved[-1]
        if n.since[place] < now:
            advance(n, place, now)
        if n.held.size > 0 and n.left_flows[place] == 0 and n.noted[place, 0] == _UNKNOWN:
            note_full(t, n, place, alone)
        base = place * n.sizes[0]
        for f in range(base, base + n.num_flows[place]):
            if np.isnan(n.finish[f]):
                n.flows[open_] = f
                open_ += 1
    num_live = max_min(
        n.flows, open_, n.start, n.stop, n.resource, n.line, n.share, n.capacity, n.rate, n.bottleneck, n.numbers,
        n.counts, n.member,
    )  # fmt: skip
    if n.held.size > 0:
        for k in range(num_live):
            r = n.counts[2, k]
            n.full[r] = n.numbers[0, r] <= _SPARE * n.capacity[r]
        for i in range(num):
            n.single[island[i]] = num == 1
    for i in range(num):
        place = island[i]
        base = place * n.sizes[0]
        first, last = np.inf, now
        for f in range(base, base + n.num_flows[place]):
            if np.isnan(n.finish[f]):
                end = end_of(n, f, now)
                first, last = min(first, end), max(last, end)
        if not np.isfinite(last) and n.pending[0] == 0:
            return DEAD
        # Alone, no end frees what holds another back. Without open flows `first` is inf, and the transfer ends now.
        set_timer(n, place, last if num == 1 else min(first, last))
    return DONE


@frugal
def note_full(t: Any, n: Any, place: Any, alone: Any) -> None:
    """Note which resources were full on the way of the flow of a collective that ended last.

    All flows of the collective at a place have ended; `alone` where it was under way without a solution of its own. Of one that
    shared with nobody, those that end last are all that fills anything as they end.
    """
    template, base = n.template[place], place * n.sizes[0]
    last, latest = -1, -1.0
    for f in range(t.first[template], t.first[template + 1]):
        i = base + f - t.first[template]
        if n.finish[i] + t.latency[f] > latest:
            last, latest = i, n.finish[i] + t.latency[f]
    if last >= 0 and (alone or n.single[place]):
        end = n.finish[last] - _LAST * (n.finish[last] - n.begun[place])
        for i in range(base, base + n.num_flows[place]):
            for e in range(n.start[i], n.stop[i]):
                n.numbers[1, n.resource[e]] = 0.0
                n.full[n.resource[e]] = False
        for i in range(base, base + n.num_flows[place]):
            for e in range(n.start[i], n.stop[i]):
                r = n.resource[e]
                if n.finish[i] >= end:
                    n.numbers[1, r] += n.line[e] * n.rate[i]
                    n.full[r] = n.numbers[1, r] >= (1.0 - _SPARE) * n.capacity[r]
    ways = 0
    for k in range(WAYS):
        n.noted[place, k] = -1
    if last >= 0:
        for e in range(n.start[last], n.stop[last]):
            if n.full[n.resource[e]] and ways < WAYS:
                n.noted[place, ways] = n.resource[e]
                ways += 1


@frugal
def keep_full(w: Any, t: Any, n: Any, place: Any, alone: Any) -> None:
    """Keep what `note_full` notes of a track's collective, whose node is at hand."""
    if n.noted[place, 0] == _UNKNOWN:
        note_full(t, n, place, alone)
    track = w.tracks[place]
    node = track.node - w.programs[w.tasks[track.task].program]
    for k in range(WAYS):
        n.held[place, node, k] = n.noted[place, k]


# --- timers -------------------------------------------------------------------------------------------------


@frugal
def set_timer(n: Any, place: Any, time_s: Any) -> None:
    """Set the timer of a place; inf stops it."""
    when, winner = n.when, n.winner
    when[place] = time_s
    i = (len(when) + place) >> 1
    while i >= 1:
        left, right = winner[2 * i], winner[2 * i + 1]
        first = left if when[left] <= when[right] else right
        i = 0 if winner[i] == first and first != place else i  # nothing changes further up
        if i >= 1:
            winner[i] = first
            i >>= 1
