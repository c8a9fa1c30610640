"""The event loop of `training.run_events` for numba, for steps whose ranks are all alike.

The same semantics in the same arithmetic: tasks in order, two streams, rendezvous sends with one buffer posted ahead for
each kind of message, NIC ports shared as `ports` shares them. Alike means one lane and one group, so an exchange ends for
all ranks of a group at once and no clock is a vector.

Why this way: whatever is under way has a *place* of its own, known before the loop starts. A pipeline rank waits for one
exchange at a time; of each kind of message to a rank one is on its way at a time, as one buffer is posted. So every place
has one timer, and the next event is the winner of a tournament over them: nothing is allocated, and a new pace moves a
timer where a heap would collect stale ones. State stands in arrays of records, and functions are inlined where they are
called in every event, because numba counts references of every array of every call.

Arguments are the arrays of `even_step`, which says what their fields are.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

DONE, STUCK = 0, 1
_ENTERING, _WAITING, _RUNNING, _EXCHANGING, _ENDED = (
    0,
    1,
    2,
    3,
    4,
)  # phases of a rank; it begins with the first
_EPS = 1e-15  # as in `ports`

_jit: Any = numba.njit(cache=True, error_model="numpy")
_inlined: Any = numba.njit(cache=True, error_model="numpy", inline="always")


@_jit
def run(
    ranks: Any, tasks: Any, programs: Any, nodes: Any, waits: Any, exchanges: Any, ends: Any, node_times: Any,
    messages: Any, posted: Any, blocking: Any, places: Any, ports: Any, users: Any, group: Any, when: Any, winner: Any,
) -> Any:  # fmt: skip
    """Run all tasks of all ranks; fills the times of `tasks` and `node_times`.

    Returns `DONE`, or `STUCK` where all wait for one another.
    """
    for i in range(len(posted)):
        _post(messages, places, when, winner, posted[i], 0.0, 0.0)
    now, num_ranks = 0.0, len(ranks)
    woken = np.arange(num_ranks)[::-1].copy()
    num_woken = num_ranks
    while True:
        while num_woken > 0:
            num_woken -= 1
            _go_on(
                woken[num_woken], now, ranks, tasks, programs, nodes, waits, exchanges, ends, node_times, messages,
                blocking, places, when, winner,
            )  # fmt: skip
        place = winner[1]
        now = when[place]
        if not np.isfinite(now):
            break
        if np.isnan(places[place].begun):
            _begin(places, ports, users, group, when, winner, place, now)
            continue
        _end(places, ports, users, group, when, winner, place, now)
        if place < num_ranks:  # whose timer it sets itself
            woken[0], num_woken = place, 1
            continue
        _set(when, winner, place, np.inf)
        message = messages[places[place].message]
        message.arrived = message.ready + (now - places[place].begun)
        for rank in (message.target, message.source):
            if ranks[rank].phase == _WAITING:
                woken[num_woken] = rank
                num_woken += 1
    for rank in range(num_ranks):
        if ranks[rank].phase != _ENDED:
            return STUCK
    return DONE


# --- ranks --------------------------------------------------------------------------------------------------


@_inlined
def _go_on(
    number: Any, now: Any, ranks: Any, tasks: Any, programs: Any, nodes: Any, waits: Any, exchanges: Any, ends: Any,
    node_times: Any, messages: Any, blocking: Any, places: Any, when: Any, winner: Any,
) -> None:  # fmt: skip
    """Let a rank do what it can until it has to wait, for messages or for an exchange."""
    rank = ranks[number]
    while True:
        if rank.phase == _ENTERING:
            if rank.task > rank.first:
                sent = tasks[rank.task - 1]
                for row in (sent.send_f, sent.send_b):
                    if row >= 0:
                        _post(messages, places, when, winner, row, rank.clock, now)
            rank.phase = _WAITING if rank.task < rank.last else _ENDED
        if rank.phase == _ENDED:
            break
        task = tasks[rank.task]
        if rank.phase == _WAITING:
            sent = tasks[rank.task - 1]  # of the first task: another one's, not looked at
            clock, there = rank.clock, True
            for k, row in enumerate((task.receive_f, task.receive_b, sent.send_f, sent.send_b)):
                if row >= 0 and (k < 2 or (blocking and rank.task > rank.first)):
                    there = there and not np.isnan(messages[row].arrived)
                    clock = max(clock, messages[row].arrived)
            if not there:
                break
            for row in (task.receive_f, task.receive_b):
                if row >= 0 and messages[row].next >= 0:
                    _post(messages, places, when, winner, messages[row].next, clock, now)
            task.start_s = rank.compute = rank.comm = clock
            rank.exposed = 0.0
            rank.node = programs[task.program]
            rank.phase = _RUNNING
        begin, end = programs[task.program], programs[task.program + 1]
        if rank.phase == _EXCHANGING:  # and it has ended
            kind = nodes[rank.node].exchange
            begun, alone_s = places[number].begun, exchanges[kind].alone_s
            stretch = (now - begun) / alone_s if alone_s else 1.0
            rank.comm = ends[number, rank.node - begin] = begun + alone_s * stretch
            if task.keep >= 0:
                node_times[1, task.keep + rank.node - begin] = rank.comm
            rank.node += 1
            rank.phase = _RUNNING
        while rank.phase == _RUNNING and rank.node < end:
            node = nodes[rank.node]
            free = rank.compute if node.exchange < 0 else rank.comm
            ready = free
            for k in range(node.first_wait, node.last_wait):
                ready = max(ready, ends[number, waits[k]])
            if task.keep >= 0:
                node_times[0, task.keep + rank.node - begin] = ready
            if node.exchange >= 0:
                place, exchange = places[number], exchanges[node.exchange]
                place.alone_s, place.fill, place.weight = exchange.alone_s, exchange.fill, exchange.nic_bytes
                place.begun = np.nan
                rank.phase = _EXCHANGING
                _set(when, winner, number, max(ready, now))
            else:
                done = ready + node.work_s * rank.speed + node.exposed_s
                rank.exposed += (ready - free) + node.exposed_s
                rank.compute = ends[number, rank.node - begin] = done
                if task.keep >= 0:
                    node_times[1, task.keep + rank.node - begin] = done
                rank.node += 1
        if rank.phase == _EXCHANGING:
            break
        task.end_s = rank.clock = max(rank.compute, rank.comm)
        task.exposed_s = rank.exposed + (rank.clock - rank.compute)
        rank.task += 1
        rank.phase = _ENTERING
    if rank.phase != _EXCHANGING:
        _set(when, winner, number, np.inf)


@_inlined
def _post(
    messages: Any, places: Any, when: Any, winner: Any, row: Any, clock: Any, now: Any
) -> None:  # fmt: skip
    """One side of a message is ready at `clock`; with the second one the transfer is due."""
    message = messages[row]
    if np.isnan(message.ready):
        message.ready = clock
    else:
        message.ready = max(message.ready, clock)
        places[message.place].message = row
        places[message.place].begun = np.nan
        _set(when, winner, message.place, max(message.ready, now))


@_inlined
def _set(when: Any, winner: Any, place: Any, time_s: Any) -> None:
    """Set the timer of a place; inf stops it."""
    when[place] = time_s
    i = (len(when) + place) >> 1
    while i >= 1:
        left, right = winner[2 * i], winner[2 * i + 1]
        first = left if when[left] <= when[right] else right
        i = 0 if winner[i] == first and first != place else i  # nothing changes further up
        if i >= 1:
            winner[i] = first
            i >>= 1


# --- ports --------------------------------------------------------------------------------------------------


@_inlined
def _begin(
    places: Any, ports: Any, users: Any, group: Any, when: Any, winner: Any, place: Any, now: Any
) -> None:  # fmt: skip
    """See `ports.Ports.use`."""
    use = places[place]
    use.begun = use.since = now
    use.left = use.alone_s
    crowded = False
    for port in (use.sends, use.receives):
        crowded = crowded or ports[port].num_users > 0
        users[port, ports[port].num_users] = place
        ports[port].num_users += 1
    use.pace = 0.0 if crowded else 1.0
    if crowded:
        group[0, 0] = place
        use.seen = True
        _share(places, ports, users, group, when, winner, now, 1)
    else:
        _set(when, winner, place, now + use.left)


@_inlined
def _end(
    places: Any, ports: Any, users: Any, group: Any, when: Any, winner: Any, place: Any, now: Any
) -> None:  # fmt: skip
    """See `ports.Ports._end`."""
    num = 0
    for port in (places[place].sends, places[place].receives):
        kept = 0
        for k in range(ports[port].num_users):
            other = users[port, k]
            if other != place:
                users[port, kept] = other
                kept += 1
                if not places[other].seen:
                    places[other].seen = True
                    group[0, num] = other
                    num += 1
        ports[port].num_users = kept
    if num > 0:
        _share(places, ports, users, group, when, winner, now, num)


@_jit
def _share(
    places: Any, ports: Any, users: Any, group: Any, when: Any, winner: Any, now: Any, num: Any
) -> None:  # fmt: skip
    """New paces for all that is joined by ports with the first `num` of the group; see `ports.Ports._share`."""
    i = 0
    while i < num:
        use = places[group[0, i]]
        for port in (use.sends, use.receives):
            for k in range(ports[port].num_users):
                other = users[port, k]
                if not places[other].seen:
                    places[other].seen = True
                    group[0, num] = other
                    num += 1
        i += 1
    for i in range(num):
        use = places[group[0, i]]
        use.seen = False
        use.left = max(use.left - use.pace * (now - use.since), 0.0)
        use.since = now
    _fill(places, ports, group, num)
    for i in range(num):
        place = group[0, i]
        use = places[place]
        pace = min(max(use.rising, _EPS), 1.0)
        if pace != use.pace or use.left <= _EPS:
            use.pace = pace
            _set(when, winner, place, now + use.left / pace)


@_jit
def _fill(places: Any, ports: Any, group: Any, num: Any) -> None:
    """Progressive filling of a group, each pace at most 1, into `rising`; see `ports.Ports._fill`."""
    num_open = 0
    for i in range(num):
        use = places[group[0, i]]
        ports[use.sends].free = ports[use.receives].free = 1.0
        use.rising = 1.0
        if use.fill > 0.0:
            use.rising = 0.0
            use.rise = max(use.weight, _EPS) / max(use.fill, _EPS)  # pace per unit of level
            group[1, num_open] = group[0, i]
            num_open += 1
    while num_open > 0:
        step = np.inf
        for i in range(num_open):
            use = places[group[1, i]]
            step = min(step, (1.0 - use.rising) / use.rise)
            ports[use.sends].slope = ports[use.receives].slope = 0.0
        for i in range(num_open):
            use = places[group[1, i]]
            ports[use.sends].slope += use.rise * use.fill
            ports[use.receives].slope += use.rise * use.fill
        for i in range(num_open):
            use = places[group[1, i]]
            for port in (use.sends, use.receives):
                step = min(step, ports[port].free / ports[port].slope)
        step = max(step, 0.0)
        for i in range(num_open):
            use = places[group[1, i]]
            use.rising += use.rise * step
            ports[use.sends].free -= use.rise * use.fill * step
            ports[use.receives].free -= use.rise * use.fill * step
        kept = 0
        for i in range(num_open):
            use = places[group[1, i]]
            room = min(ports[use.sends].free, ports[use.receives].free)
            if use.rising < 1.0 - 1e-12 and room > 1e-12:
                group[1, kept] = group[1, i]
                kept += 1
        num_open = kept
