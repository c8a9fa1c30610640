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
from sim.engine.sharing import OUT, max_min

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
    n.begun[place] = n.since[place] = now
    n.noted[place, 0] = _UNKNOWN
    n.left_flows[place] = last - first
    if last == first:
        return DONE
    scaled = place < len(w.tracks) and x.loads.size > 0 and t.owner[first] >= 0
    n.active[place] = True
    if not scaled and n.alone_s[template] >= 0.0 and _is_alone(n, place):
        n.lazy[place] = True
        set_timer(n, place, now + n.alone_s[template])
        return DONE
    for f in range(first, last):
        n.left[f], n.rate[f], n.finish[f] = t.payload[f], 0.0, np.nan
    if scaled:
        _scale(w, x, t, n, place)
    ended = share(t, n, place, now)
    if (
        ended == DONE and not scaled and n.island[1] < 0 and np.isfinite(n.when[place])
    ):  # nobody shared with it
        n.alone_s[template] = n.when[place] - now
        for f in range(first, last):
            n.alone_rate[f] = n.rate[f]
            n.alone_end[f] = end_of(n, f, 0.0)
    return ended


@frugal
def _scale(w: Any, x: Any, t: Any, n: Any, place: Any) -> None:
    """Scale the flows of a collective by the routed loads of its microbatch."""
    template, track = n.template[place], w.tracks[place]
    task, node = w.tasks[track.task], w.nodes[track.node]
    loads = x.loads[track.draws, node.layer, task.forward if node.forward else task.backward]
    c = n.crossings
    for b in range(n.first_bundle[template], n.first_bundle[template + 1]):
        c.asked[b] = 0.0
    for f in range(t.first[template], t.first[template + 1]):
        load = _load(loads, t, t.owner[f]) if t.owner[f] >= 0 else 1.0
        n.left[f], n.share[f] = t.payload[f] * load, t.share[f] * load
        for e in range(t.entry[f], t.entry[f + 1]):
            if t.taker[e] >= 0:
                n.line[e] = t.line[e] * (loads[t.taker[e]] / load)
            c.asked[n.bundle[e]] += n.line[e] * n.share[f]


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
    for f in range(t.first[template], t.first[template + 1]):
        n.left[f], n.rate[f], n.finish[f] = t.payload[f], n.alone_rate[f], np.nan
        if begun + n.alone_end[f] <= now:
            _end(n, place, f, begun + n.alone_end[f])
        elif now > begun:
            n.left[f] -= n.alone_rate[f] * (now - begun)
    n.since[place] = now
    n.lazy[place] = False


@frugal
def _end(n: Any, place: Any, flow: Any, end: Any) -> None:
    """End a flow of the transfer at a place."""
    n.finish[flow] = end
    n.bottleneck[flow] = OUT
    n.left_flows[place] -= 1


@frugal
def _load(loads: Any, t: Any, owner: Any) -> Any:
    """Mean routed load of the lanes that a flow's bytes are for."""
    total = 0.0
    for k in range(t.owner_first[owner], t.owner_first[owner + 1]):
        total += loads[t.owner_lane[k]]
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
            advance(t, n, place, at)
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
def advance(t: Any, n: Any, place: Any, now: Any) -> None:
    """Let the flows of a transfer drain until now at the rates they have."""
    template, since = n.template[place], n.since[place]
    for f in range(t.first[template], t.first[template + 1]):
        if np.isnan(n.finish[f]):
            end = end_of(n, f, since)
            if end <= now + _TIE * abs(now):
                _end(n, place, f, end)
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
    num_open = num_bundles = 0
    for i in range(num):
        place = island[i]
        n.seen[place] = False
        alone = n.lazy[place]
        if alone:
            write_out(t, n, place, now)
        n.solved[place] = n.solved[-1]
        if n.since[place] < now:
            advance(t, n, place, now)
        if n.held.size > 0 and n.left_flows[place] == 0 and n.noted[place, 0] == _UNKNOWN:
            note_full(t, n, place, alone)
        template = n.template[place]
        for f in range(t.first[template], t.first[template + 1]):
            if np.isnan(n.finish[f]):
                n.flows[num_open] = f
                num_open += 1
        for b in range(n.first_bundle[template], n.first_bundle[template + 1]):
            n.bundles[num_bundles] = b
            num_bundles += 1
    max_min(
        n.flows, num_open, t.entry, t.resource, n.line, n.share, n.capacity, n.bundles, num_bundles, n.rate, n.bottleneck,
        n.crossings, n.scratch,
    )  # fmt: skip
    if n.held.size > 0:
        _note_use(t, n, num_open, num_bundles)
        for i in range(num):
            n.single[island[i]] = num == 1
    for i in range(num):
        place = island[i]
        template = n.template[place]
        first, last = np.inf, now
        for f in range(t.first[template], t.first[template + 1]):
            if np.isnan(n.finish[f]):
                end = end_of(n, f, now)
                first, last = min(first, end), max(last, end)
        if not np.isfinite(last) and n.pending[0] == 0:
            return DEAD
        # Alone, no end frees what holds another back. Without open flows `first` is inf, and the transfer ends now.
        set_timer(n, place, last if num == 1 else min(first, last))
    return DONE


@frugal
def _note_use(t: Any, n: Any, num_open: Any, num_bundles: Any) -> None:
    """Note which resources the flows of a solution fill."""
    for i in range(num_bundles):
        r = n.crossings.resource[n.bundles[i]]
        n.used[r] = 0.0
        n.full[r] = n.capacity[r] <= 0.0
    for i in range(num_open):
        _add_use(t, n, n.flows[i])


@frugal
def _add_use(t: Any, n: Any, flow: Any) -> None:
    """Add what a flow takes of resources, and note those that are full."""
    for e in range(t.entry[flow], t.entry[flow + 1]):
        r = t.resource[e]
        n.used[r] += n.line[e] * n.rate[flow]
        n.full[r] = n.used[r] >= (1.0 - _SPARE) * n.capacity[r]


@frugal
def note_full(t: Any, n: Any, place: Any, alone: Any) -> None:
    """Note which resources were full on the way of the flow of a collective that ended last.

    All flows of the collective at a place have ended; `alone` where it was under way without a solution of its own. Of one that
    shared with nobody, those that end last are all that fills anything as they end.
    """
    template = n.template[place]
    flows = range(t.first[template], t.first[template + 1])
    last, latest = -1, -1.0
    for f in flows:
        if n.finish[f] + t.latency[f] > latest:
            last, latest = f, n.finish[f] + t.latency[f]
    if last >= 0 and (alone or n.single[place]):
        end = n.finish[last] - _LAST * (n.finish[last] - n.begun[place])
        for b in range(n.first_bundle[template], n.first_bundle[template + 1]):
            n.used[n.crossings.resource[b]] = 0.0
            n.full[n.crossings.resource[b]] = False
        for f in flows:
            if n.finish[f] >= end:
                _add_use(t, n, f)
    ways = 0
    for k in range(WAYS):
        n.noted[place, k] = -1
    if last >= 0:
        for e in range(t.entry[last], t.entry[last + 1]):
            if n.full[t.resource[e]] and ways < WAYS:
                n.noted[place, ways] = t.resource[e]
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
