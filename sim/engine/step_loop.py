"""The event loop of a training step: tracks run their tasks, their collectives and their sends, on one network.

A track is the ranks of one EP group at one pipeline rank; its clocks are vectors over its lanes. Compute runs at each lane's
own pace, an all-to-all starts by a barrier when the slowest lane is there, and ends for each lane when its own bytes have
come. One without a barrier is put on the network at the mean lane's instant, and each lane keeps what it was earlier or
later, but ends no sooner than the last lane's bytes can come. Tracks meet in pipeline sends, lane to lane, and on every link that their transfers share.

Sends follow the published DualPipe code (deepseek-ai/DualPipe @3da1bba): what an operation produced goes out with the
receives that come next, a transfer starts when both sides have posted (rendezvous), and a rank waits for its sends
before it starts the next operation. A receiver has one buffer posted ahead for each kind of message it gets (F or
B of each of its stages), so the next microbatch may arrive while this one is computed. The lanes of a message start
together, at the mean lane's instant, and keep what each of them was later.

Why this way: whatever is under way has a *place* of its own, known before the loop starts: a track waits for one collective
at a time, and of each kind of message to a track one is on its way at a time. So every place has one timer, and nothing
is allocated; what happens between two events is in `step_transfers`.

Arguments are the arrays of `step_arrays`, which defines their fields.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.engine.compiled import frugal
from sim.engine.step_host import (
    RUN_AHEAD,
    end_compute,
    issue,
    note_end,
    share_wait,
    start_collective,
    start_compute,
)
from sim.engine.step_transfers import (
    DEAD,
    DONE,
    STUCK,
    advance,
    begin,
    change,
    keep_full,
    set_timer,
    share,
    write_out,
)

# Phases of a track; it begins with the first.
_ENTERING, _WAITING, _RUNNING, _COMMUNICATING, _ENDED = 0, 1, 2, 3, 4


@frugal
def run(w: Any, x: Any, t: Any, n: Any) -> Any:
    """Run all tasks of all tracks, and fill in the times of `w.tasks` and `w.node_times`: `DONE`, `STUCK` or `DEAD`.

    References
    ----------
    deepseek-ai/DualPipe @3da1bba (order of sends and receives).
    """
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
            _go_on(w, x, t, n, woken[num_woken], now)
        place = n.winner[1]
        if n.pending[0] > 0 and x.instants[len(x.instants) - n.pending[0]] <= n.when[place]:
            if change(t, n, x.instants[len(x.instants) - n.pending[0]]) == DEAD:
                return DEAD
            continue
        now = n.when[place]
        n.solved[-1] += 1
        if not np.isfinite(now):
            break
        if np.isnan(n.begun[place]):
            if begin(w, x, t, n, place, now) == DEAD:
                return DEAD
            if n.left_flows[place] > 0:
                continue
        else:
            alone = n.lazy[place]
            if alone:
                write_out(t, n, place, now)
            advance(t, n, place, now)
            if n.left_flows[place] > 0:
                if share(t, n, place, now) == DEAD:
                    return DEAD
                continue
            if n.held.size > 0 and place < num_tracks:
                keep_full(w, t, n, place, alone)
            n.active[place] = False
            for k in range(n.near_first[place], n.near_first[place + 1]):
                other = n.near[k]
                stale = n.active[other] and n.solved[other] < n.solved[-1]
                if stale and share(t, n, other, now) == DEAD:
                    return DEAD
        set_timer(n, place, np.inf)
        if place < num_tracks:
            _arrive(w, x, t, n, place)
            woken[0], num_woken = place, 1
            continue
        row = n.message[place]
        message = w.messages[row]
        message.there = True
        begun, template = n.begun[place], n.template[place]
        for j in range(x.num_lanes):
            x.arrived[row, j] = x.ready[row, j] + (now - begun)
        for f in range(t.first[template], t.first[template + 1]):
            took = n.finish[f] + t.latency[f] - begun
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
def _go_on(w: Any, x: Any, t: Any, n: Any, number: Any, now: Any) -> None:
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
                if row >= 0 and (k < 2 or (track.blocking and track.task > track.first)):
                    there = there and w.messages[row].there
            if not there:
                break
            for k, row in enumerate((task.receive_f, task.receive_b, sent.send_f, sent.send_b)):
                if row >= 0 and (k < 2 or (track.blocking and track.task > track.first)):
                    for j in range(x.num_lanes):
                        clock[j] = max(clock[j], x.arrived[row, j])
            for row in (task.receive_f, task.receive_b):
                if row >= 0 and w.messages[row].next >= 0:
                    _post(w, x, n, w.messages[row].next, clock, now)
            task.start_s = _mean(x, number, clock)
            for j in range(x.num_lanes):
                x.compute[number, j] = x.comm[number, j] = clock[j]
                x.exposed[number, j] = x.barrier[number, j] = 0.0
                if x.host_costs[number, RUN_AHEAD] > 0.0:
                    x.hosted[number, j] = x.late[number, j] = 0.0
            track.node = w.programs[task.program]
            track.phase = _RUNNING
        opening, end = w.programs[task.program], w.programs[task.program + 1]
        while track.phase == _RUNNING and track.node < end:
            _node(w, x, t, n, number, track, task, opening, now)
        if track.phase == _COMMUNICATING:
            break
        for j in range(x.num_lanes):
            clock[j] = max(x.compute[number, j], x.comm[number, j])
            x.exposed[number, j] += clock[j] - x.compute[number, j]
            if x.host_costs[number, RUN_AHEAD] > 0.0:
                x.exposed[number, j] -= share_wait(x, number, j, clock[j] - x.compute[number, j])
        task.end_s = _mean(x, number, clock)
        task.exposed_s = _mean(x, number, x.exposed[number])
        task.barrier_s = _mean(x, number, x.barrier[number])
        if x.host_costs[number, RUN_AHEAD] > 0.0:
            task.host_s = _mean(x, number, x.hosted[number])
        track.task += 1
        track.phase = _ENTERING


@frugal
def _node(w: Any, x: Any, t: Any, n: Any, number: Any, track: Any, task: Any, opening: Any, now: Any) -> None:
    """Compute a node, or call for its collective and wait."""
    node, place = w.nodes[track.node], track.node - opening
    free = x.compute[number] if node.kernel < 0 else x.comm[number]
    ready = x.ends[number, place]
    due = 0.0
    for j in range(x.num_lanes):
        at = 0.0
        for k in range(node.first_wait, node.last_wait):
            at = max(at, x.ends[number, w.waits[k], j])
        ready[j] = max(at, free[j])
        if x.weight[number, j] > 0.0:
            due = max(due, at)
    if node.kernel >= 0:
        last = 0.0
        for j in range(x.num_lanes):
            if x.weight[number, j] > 0.0:
                last = max(last, ready[j])
        for j in range(x.num_lanes):
            x.barrier[number, j] += last - ready[j]
        if x.host_costs[number, RUN_AHEAD] > 0.0:
            issue(x, number, track, node, ready, due)
            last = start_collective(x, number, ready, last, node.barrier)
        if not node.barrier:
            last = _mean(x, number, ready)
        if task.keep >= 0:
            w.node_times[0, task.keep + place] = last
        n.template[number] = w.templates[number, node.kernel, node.beside]
        n.begun[number] = np.nan
        track.phase = _COMMUNICATING
        set_timer(n, number, max(last, now) + t.fixed_s[n.template[number]])
        return
    hosted = x.host_costs[number, RUN_AHEAD] > 0.0
    if hosted:
        for j in range(x.num_lanes):
            x.exposed[number, j] -= share_wait(x, number, j, ready[j] - free[j])
        issue(x, number, track, node, ready, due)
        start_compute(x, number, ready)
    if task.keep >= 0:
        w.node_times[0, task.keep + place] = _mean(x, number, ready)
    microbatch = task.forward if node.forward else task.backward
    scaled = node.routed_s > 0.0 and x.loads.size > 0
    row = 0
    if track.num_jitter > 0:
        drawn = track.task + track.tasks_drawn
        row = ((track.number_drawn * 73_856_093) ^ (drawn * 19_349_663) ^ (place * 83_492_791)) % (
            track.num_jitter
        ) + track.first_jitter
    for j in range(x.num_lanes):
        work = node.fixed_s + node.routed_s
        if scaled:
            work = node.fixed_s + node.routed_s * x.loads[track.draws, node.layer, microbatch, j]
        factor = x.speed[number, j]
        if track.num_jitter > 0:
            factor *= x.jitter[row, j]
        x.exposed[number, j] += (ready[j] - free[j]) + node.exposed_s
        start = ready[j]
        if x.variant.size > 0:
            load = x.loads[track.draws, node.layer, microbatch, j] if scaled else 1.0
            ready[j] = _computed(x, number, track.node, j, ready[j], load, factor) + node.exposed_s
        else:
            ready[j] += work * factor + node.exposed_s
        if hosted:
            plain = ready[j]
            ready[j] = end_compute(x, number, j, start, plain, node.launches)
            if task.keep >= 0:  # it is as long as without a host, and later
                w.node_times[0, task.keep + place] += x.weight[number, j] * (ready[j] - plain)
        x.compute[number, j] = ready[j]
    if hosted:
        note_end(x, number, track, node.launches, ready)
    if task.keep >= 0:
        w.node_times[1, task.keep + place] = _mean(x, number, ready)
    track.node += 1


@frugal
def _computed(x: Any, number: Any, node: Any, lane: Any, start: Any, load: Any, factor: Any) -> Any:
    """When a lane has computed a node, as conditions change under it [s]."""
    k, now, left = 0, start, 1.0
    while k < len(x.instants) and x.instants[k] <= now:
        k += 1
    while left > 0.0:
        variant = x.variant[k, number, lane]
        need = (x.fixed_s[variant, node] + x.routed_s[variant, node] * load) * factor
        if k == len(x.instants) or left * need <= x.instants[k] - now:
            return now + left * need
        left -= (x.instants[k] - now) / need
        now = x.instants[k]
        k += 1
    return now


@frugal
def _arrive(w: Any, x: Any, t: Any, n: Any, number: Any) -> None:
    """A track's collective has ended: each lane goes on when its own flows have."""
    track = w.tracks[number]
    task = w.tasks[track.task]
    place = track.node - w.programs[task.program]
    template = n.template[number]
    node, ready = w.nodes[track.node], x.ends[number, place]
    ends = ready if node.barrier else x.comm[number]
    for j in range(x.num_lanes):
        ends[j] = n.begun[number]
    for f in range(t.first[template], t.first[template + 1]):
        end = n.finish[f] + t.latency[f]
        for k in range(t.party_first[f], t.party_first[f + 1]):
            ends[t.party[k]] = max(ends[t.party[k]], end)
    if not node.barrier:  # each lane from when it was ready, and after the last lane's quickest bytes
        begun = n.begun[number] - t.fixed_s[template]
        last, least = ready[0], np.inf
        for j in range(x.num_lanes):
            ends[j] = max(ends[j] - begun - node.held_s, 0.0)
            if x.weight[number, j] > 0.0:
                last, least = max(last, ready[j]), min(least, ends[j])
        if not np.isfinite(least):  # a track of lanes that are not there
            least = 0.0
        for j in range(x.num_lanes):
            ready[j] = max(ready[j] + ends[j], last + least)
    for j in range(x.num_lanes):
        x.comm[number, j] = x.ends[number, place, j]
    if task.keep >= 0:
        w.node_times[1, task.keep + place] = _mean(x, number, x.comm[number])
    if x.host_costs[number, RUN_AHEAD] > 0.0:
        note_end(x, number, track, node.launches, x.comm[number])
    track.node += 1
    track.phase = _RUNNING


@frugal
def _mean(x: Any, number: Any, lanes: Any) -> Any:
    """Mean over the lanes that the classes of a track stand for."""
    total = 0.0
    for j in range(x.num_lanes):
        total += x.weight[number, j] * lanes[j]
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
    set_timer(n, place, max(_mean(x, message.source, x.ready[row]), now))
