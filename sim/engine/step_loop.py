"""The event loop of a training step: tracks run their tasks, exchange and send, on one network.

A track is the ranks of one EP group at one pipeline rank; its clocks are vectors over its lanes. Compute runs at each lane's
own pace, an all-to-all starts by a barrier when the slowest lane is there, and ends for each lane when its own bytes have
come. Tracks meet in pipeline sends, lane to lane, and on every link that their transfers share.

Sends follow the published DualPipe code (deepseek-ai/DualPipe @3da1bba): what an operation produced goes out with the
receives that come next, a transfer starts when both sides have posted (rendezvous), and a rank waits for its sends
before it starts the next operation. A receiver has one buffer posted ahead for each kind of message it gets (F or
B of each of its stages), so the next microbatch may arrive while this one is computed. The lanes of a message start
together, at the mean lane's instant, and keep what each of them was later.

Why this way: whatever is under way has a *place* of its own, known before the loop starts: a track waits for one collective
at a time, and of each kind of message to a track one is on its way at a time. So every place has one timer, and the
next event is the winner of a tournament over them. Rates are solved anew for the transfers that hang together by
links that could fill, whenever one of them starts or ends; a transfer alone needs one solution, as the flows of a
collective share by their bytes and their ends free nothing that holds another back, and one of a kind that has been
alone before needs none.

Arguments are the arrays of `step`, which tells what their fields are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.engine.compiled import frugal
from sim.engine.sharing import max_min

DONE, STUCK, DEAD = 0, 1, 2
"""How a run ended: all tasks done; all wait for one another; bytes wait for a resource without capacity."""
_ENTERING, _WAITING, _RUNNING, _EXCHANGING, _ENDED = (
    0,
    1,
    2,
    3,
    4,
)  # phases of a track; it begins with the first
_TIE = 1e-12


@frugal
def run(w: Any, x: Any, t: Any, n: Any, blocking: Any) -> Any:
    """Run all tasks of all tracks; fills in the times of `w.tasks` and `w.node_times`. Returns how it ended."""
    for i in range(len(w.posted)):
        row = w.posted[i]
        _post(w, x, n, row, x.zero, 0.0)
    now, num_tracks = 0.0, len(w.tracks)
    woken = n.woken
    num_woken = num_tracks
    for i in range(num_tracks):
        woken[i] = num_tracks - 1 - i
    while True:
        while num_woken > 0:
            num_woken -= 1
            _go_on(w, x, t, n, woken[num_woken], now, blocking)
        place = n.winner[1]
        now = n.when[place]
        n.solved[-1] += 1
        if not np.isfinite(now):
            break
        if np.isnan(n.begun[place]):
            if _begin(w, x, t, n, place, now) == DEAD:
                return DEAD
            if n.left_flows[place] > 0:
                continue
        else:
            if n.lazy[place]:
                _write_out(t, n, place, now)
            _advance(n, place, now)
            if n.left_flows[place] > 0:
                if _share(t, n, place, now) == DEAD:
                    return DEAD
                continue
            n.active[place] = False
            for k in range(n.near_first[place], n.near_first[place + 1]):
                other = n.near[k]
                stale = n.active[other] and n.solved[other] < n.solved[-1]
                if stale and _share(t, n, other, now) == DEAD:
                    return DEAD
        _set(n, place, np.inf)
        if place < num_tracks:
            _arrive(w, x, t, n, place)
            woken[0], num_woken = place, 1
            continue
        row = n.message[place]
        message = w.messages[row]
        message.there = True
        base, begun = place * n.sizes[0], n.begun[place]
        template = n.template[place]
        for j in range(x.num_lanes):
            x.arrived[row, j] = x.ready[row, j] + (now - begun)
        for f in range(t.first[template], t.first[template + 1]):
            took = n.finish[base + f - t.first[template]] + t.latency[f] - begun
            for k in range(t.party_first[f], t.party_first[f + 1]):
                j = t.party[k]
                x.arrived[row, j] = x.ready[row, j] + took
        for track in (message.target, message.source):
            if w.tracks[track].phase == _WAITING:
                woken[num_woken] = track
                num_woken += 1
    for track in range(num_tracks):
        if w.tracks[track].phase != _ENDED:
            return STUCK
    return DONE


# --- tracks -------------------------------------------------------------------------------------------------


@frugal
def _go_on(w: Any, x: Any, t: Any, n: Any, number: Any, now: Any, blocking: Any) -> None:
    """Let a track do what it can until it has to wait, for messages or for a collective."""
    track, clock = w.tracks[number], x.clock[number]
    while True:
        if track.phase == _ENTERING:
            if track.task > track.first:
                sent = w.tasks[track.task - 1]
                for row in (sent.send_f, sent.send_b):
                    if row >= 0:
                        _post(w, x, n, row, clock, now)
            track.phase = _WAITING if track.task < track.last else _ENDED
        if track.phase == _ENDED:
            break
        task = w.tasks[track.task]
        if track.phase == _WAITING:
            sent = w.tasks[track.task - 1]  # of the first task: another one's, not looked at
            there = True
            for k, row in enumerate((task.receive_f, task.receive_b, sent.send_f, sent.send_b)):
                if row >= 0 and (k < 2 or (blocking and track.task > track.first)):
                    there = there and w.messages[row].there
            if not there:
                break
            for k, row in enumerate((task.receive_f, task.receive_b, sent.send_f, sent.send_b)):
                if row >= 0 and (k < 2 or (blocking and track.task > track.first)):
                    for j in range(x.num_lanes):
                        clock[j] = max(clock[j], x.arrived[row, j])
            for row in (task.receive_f, task.receive_b):
                if row >= 0 and w.messages[row].next >= 0:
                    _post(w, x, n, w.messages[row].next, clock, now)
            task.start_s = _mean(x, track, clock)
            for j in range(x.num_lanes):
                x.compute[number, j] = x.comm[number, j] = clock[j]
                x.exposed[number, j] = x.barrier[number, j] = 0.0
            track.node = w.programs[task.program]
            track.phase = _RUNNING
        begin, end = w.programs[task.program], w.programs[task.program + 1]
        while track.phase == _RUNNING and track.node < end:
            _node(w, x, t, n, number, track, task, begin, now)
        if track.phase == _EXCHANGING:
            break
        for j in range(x.num_lanes):
            clock[j] = max(x.compute[number, j], x.comm[number, j])
            x.exposed[number, j] += clock[j] - x.compute[number, j]
        task.end_s = _mean(x, track, clock)
        task.exposed_s = _mean(x, track, x.exposed[number])
        task.barrier_s = _mean(x, track, x.barrier[number])
        track.task += 1
        track.phase = _ENTERING


@frugal
def _node(w: Any, x: Any, t: Any, n: Any, number: Any, track: Any, task: Any, begin: Any, now: Any) -> None:
    """Compute a node, or call for its collective and wait."""
    node, place = w.nodes[track.node], track.node - begin
    free = x.compute[number] if node.kernel < 0 else x.comm[number]
    ready = x.ends[number, place]
    for j in range(x.num_lanes):
        at = free[j]
        for k in range(node.first_wait, node.last_wait):
            at = max(at, x.ends[number, w.waits[k], j])
        ready[j] = at
    if node.kernel >= 0:
        last = ready[0]
        for j in range(x.num_lanes):
            last = max(last, ready[j])
        for j in range(x.num_lanes):
            x.barrier[number, j] += last - ready[j]
        if task.keep >= 0:
            w.node_times[0, task.keep + place] = last
        n.template[number] = w.templates[number, node.kernel, node.beside]
        n.begun[number] = np.nan
        track.phase = _EXCHANGING
        _set(n, number, max(last, now) + t.fixed_s[n.template[number]])
        return
    if task.keep >= 0:
        w.node_times[0, task.keep + place] = _mean(x, track, ready)
    microbatch = task.forward if node.forward else task.backward
    scaled = node.routed_s > 0.0 and x.loads.size > 0
    row = 0
    if x.jitter.size > 0:
        row = ((number * 73_856_093) ^ (track.task * 19_349_663) ^ (place * 83_492_791)) % len(x.jitter)
    for j in range(x.num_lanes):
        work = node.fixed_s + node.routed_s
        if scaled:
            work = node.fixed_s + node.routed_s * x.loads[track.draws, node.layer, microbatch, j]
        factor = x.speed[number, j]
        if x.jitter.size > 0:
            factor *= x.jitter[row, j]
        x.exposed[number, j] += (ready[j] - free[j]) + node.exposed_s
        ready[j] += work * factor + node.exposed_s
        x.compute[number, j] = ready[j]
    if task.keep >= 0:
        w.node_times[1, task.keep + place] = _mean(x, track, ready)
    track.node += 1


@frugal
def _arrive(w: Any, x: Any, t: Any, n: Any, number: Any) -> None:
    """A track's collective has ended: each lane goes on when its own flows have."""
    track = w.tracks[number]
    task = w.tasks[track.task]
    place = track.node - w.programs[task.program]
    ends, template, base = x.ends[number, place], n.template[number], number * n.sizes[0]
    for j in range(x.num_lanes):
        ends[j] = n.begun[number]
    for f in range(t.first[template], t.first[template + 1]):
        end = n.finish[base + f - t.first[template]] + t.latency[f]
        for k in range(t.party_first[f], t.party_first[f + 1]):
            ends[t.party[k]] = max(ends[t.party[k]], end)
    for j in range(x.num_lanes):
        x.comm[number, j] = ends[j]
    if task.keep >= 0:
        w.node_times[1, task.keep + place] = _mean(x, track, ends)
    track.node += 1
    track.phase = _RUNNING


@frugal
def _mean(x: Any, track: Any, lanes: Any) -> Any:
    """Mean over the lanes that the classes of a track stand for."""
    total = 0.0
    for j in range(x.num_lanes):
        total += x.weight[track.of_group, j] * lanes[j]
    return total


@frugal
def _post(w: Any, x: Any, n: Any, row: Any, clock: Any, now: Any) -> None:
    """One side of a message is ready at `clock`; with the second one the transfer is due."""
    message = w.messages[row]
    if not message.posted:
        message.posted = True
        for j in range(x.num_lanes):
            x.ready[row, j] = clock[j]
        return
    for j in range(x.num_lanes):
        x.ready[row, j] = max(x.ready[row, j], clock[j])
    place = message.place
    n.message[place] = row
    n.template[place] = message.template
    n.begun[place] = np.nan
    _set(n, place, max(_mean(x, w.tracks[message.source], x.ready[row]), now))


# --- the network --------------------------------------------------------------------------------------------


@frugal
def _begin(w: Any, x: Any, t: Any, n: Any, place: Any, now: Any) -> Any:
    """Put the flows of a transfer on the network."""
    template = n.template[place]
    first, last = t.first[template], t.first[template + 1]
    base, entry = place * n.sizes[0], place * n.sizes[1]
    n.begun[place] = n.since[place] = now
    n.left_flows[place] = n.num_flows[place] = last - first
    if last == first:
        return DONE
    scaled = place < len(w.tracks) and x.loads.size > 0
    n.active[place] = True
    if not scaled and n.alone_s[template] >= 0.0 and _is_alone(n, place):
        n.lazy[place] = True
        _set(n, place, now + n.alone_s[template])
        return DONE
    layer = microbatch = draws = 0
    if scaled:
        track = w.tracks[place]
        task, node = w.tasks[track.task], w.nodes[track.node]
        layer, draws = node.layer, track.draws
        microbatch = task.forward if node.forward else task.backward
    for f in range(first, last):
        here = base + f - first
        load = 1.0
        if scaled and t.owner[f] >= 0:
            load = _load(x, t, t.owner[f], draws, layer, microbatch)
        n.left[here] = n.share[here] = t.payload[f] * load
        n.finish[here] = np.nan
        n.rate[here] = 0.0
        n.start[here] = entry
        for e in range(t.entry[f], t.entry[f + 1]):
            n.resource[entry] = t.resource[e]
            n.line[entry] = t.line[e]
            if scaled and t.taker[e] >= 0:
                n.line[entry] *= x.loads[draws, layer, microbatch, t.taker[e]] / load
            entry += 1
        n.stop[here] = entry
    ended = _share(t, n, place, now)
    if ended == DONE and not scaled and n.island[1] < 0:  # nobody shared with it
        n.alone_s[template] = n.when[place] - now
        for f in range(first, last):
            here = base + f - first
            n.alone_rate[f] = n.rate[here]
            n.alone_end[f] = 0.0 if n.left[here] <= 0.0 else n.left[here] / n.rate[here]
    return ended


@frugal
def _is_alone(n: Any, place: Any) -> Any:
    """True where nothing is under way that a transfer shares a resource with."""
    alone = True
    for k in range(n.near_first[place], n.near_first[place + 1]):
        alone = alone and not n.active[n.near[k]]
    return alone


@frugal
def _write_out(t: Any, n: Any, place: Any, now: Any) -> None:
    """Write out the flows of a transfer that was alone so far and of which only the end was known."""
    template, begun = n.template[place], n.begun[place]
    first, base, entry = t.first[template], place * n.sizes[0], place * n.sizes[1]
    for f in range(first, t.first[template + 1]):
        here = base + f - first
        n.share[here] = t.payload[f]
        n.rate[here] = n.alone_rate[f]
        n.left[here] = t.payload[f]
        n.finish[here] = np.nan
        if begun + n.alone_end[f] <= now:
            n.finish[here] = begun + n.alone_end[f]
            n.left_flows[place] -= 1
        elif now > begun:
            n.left[here] -= n.alone_rate[f] * (now - begun)
        n.start[here] = entry
        for e in range(t.entry[f], t.entry[f + 1]):
            n.resource[entry] = t.resource[e]
            n.line[entry] = t.line[e]
            entry += 1
        n.stop[here] = entry
    n.since[place] = now
    n.lazy[place] = False


@frugal
def _load(x: Any, t: Any, owner: Any, draws: Any, layer: Any, microbatch: Any) -> Any:
    """Mean routed load of the lanes that a flow's bytes are for."""
    total = 0.0
    for k in range(t.owner_first[owner], t.owner_first[owner + 1]):
        total += x.loads[draws, layer, microbatch, t.owner_lane[k]]
    return total / (t.owner_first[owner + 1] - t.owner_first[owner])


@frugal
def _advance(n: Any, place: Any, now: Any) -> None:
    """Let the flows of a transfer drain until now at the rates they have."""
    base, since = place * n.sizes[0], n.since[place]
    for f in range(base, base + n.num_flows[place]):
        if np.isnan(n.finish[f]):
            end = since if n.left[f] <= 0.0 else since + n.left[f] / n.rate[f]
            if end <= now + _TIE * abs(now):
                n.finish[f] = end
                n.left_flows[place] -= 1
            else:
                n.left[f] -= n.rate[f] * (now - since)
    n.since[place] = now


@frugal
def _share(t: Any, n: Any, seed: Any, now: Any) -> Any:
    """New rates for a transfer and all that hangs together with it, and when each of these is next looked at."""
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
        if n.lazy[place]:
            _write_out(t, n, place, now)
        n.solved[place] = n.solved[-1]
        if n.since[place] < now:
            _advance(n, place, now)
        base = place * n.sizes[0]
        for f in range(base, base + n.num_flows[place]):
            if np.isnan(n.finish[f]):
                n.flows[open_] = f
                open_ += 1
    max_min(
        n.flows, open_, n.start, n.stop, n.resource, n.line, n.share, n.capacity, n.rate, n.bottleneck, n.numbers,
        n.counts, n.member,
    )  # fmt: skip
    for i in range(num):
        place = island[i]
        base = place * n.sizes[0]
        first, last = np.inf, now
        for f in range(base, base + n.num_flows[place]):
            if np.isnan(n.finish[f]):
                end = now if n.left[f] <= 0.0 else now + n.left[f] / n.rate[f]
                first, last = min(first, end), max(last, end)
        if not np.isfinite(last):
            return DEAD
        # Alone, no end frees what holds another back. Without open flows `first` is inf, and the transfer ends now.
        _set(n, place, last if num == 1 else min(first, last))
    return DONE


# --- timers -------------------------------------------------------------------------------------------------


@frugal
def _set(n: Any, place: Any, time_s: Any) -> None:
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
