"""The host of a track: a third stream, which issues what the two streams of the device run.

One thread a GPU issues launches in the order of the program, each in `launch`. A launch starts when its stream is free *and* it
has been issued. A synchronisation holds the host until the device has come there and takes `sync`. At most `run_ahead`
launches are issued before the device has run them. What a CUDA graph holds is issued at once, by its first node.

Launches of a node are taken as equally long: launch i of n is issued i `launch` after the first, and n - i + 1 of them follow it, so
that a node that computes for D ends at

    max(ready + D, host + launch + D, host + n launch + D / n).

Run-ahead is counted at the grain of nodes: the host waits for the last node that lies `run_ahead` launches back or more.

Arguments are the arrays of `step_arrays`.

Why this way: what a host costs is no term to be added. It hides behind a device that is behind, shows where the device is quick,
and is paid again after every synchronisation, since nothing is issued ahead any more.
"""

from __future__ import annotations

from typing import Any

from sim.engine.compiled import frugal

LAUNCH, SYNC, RUN_AHEAD = 0, 1, 2
"""Places in `StepLanes.host_costs` [s, s, launches]."""


@frugal
def issue(x: Any, number: Any, track: Any, node: Any, ready: Any, due: Any) -> None:
    """Let the host of each lane issue a node; `x.host_first` and `x.host` become the ends of its first and last launch.

    `ready` is when the streams let it start [num_lanes] [s]; `due`, of a collective of all lanes, when what it
    depends on has ended on the last one, whatever else is on its stream [s].
    """
    launch, sync = x.host_costs[number, LAUNCH], x.host_costs[number, SYNC]
    row = _entry_back(x, number, track, node.launches)
    for j in range(x.num_lanes):
        at = x.host[number, j]
        if row >= 0:
            at = max(at, x.done_end[number, row, j])
        if node.syncs > 0:
            came = due if node.kernel >= 0 and node.barrier else ready[j]
            at = max(at, came) + node.syncs * sync
        x.host_first[number, j] = at + launch if node.launches > 0 else at
        x.host[number, j] = at + node.launches * launch


@frugal
def _entry_back(x: Any, number: Any, track: Any, launches: Any) -> Any:
    """The last node that must have ended before so many more launches may be issued; -1 for none."""
    if launches == 0 or track.written == 0:
        return -1
    size, bound = x.done_count.shape[1], track.issued + launches - x.host_costs[number, RUN_AHEAD]
    row = -1
    while track.oldest < track.written and x.done_count[number, track.oldest % size] <= bound:
        row = track.oldest % size
        track.oldest += 1
    return row


@frugal
def start_compute(x: Any, number: Any, ready: Any) -> None:
    """Move the starts of a compute node to its first launch, [num_lanes] [s]."""
    for j in range(x.num_lanes):
        start = max(ready[j], x.host_first[number, j])
        x.hosted[number, j] += start - ready[j]
        x.exposed[number, j] -= start - ready[j]
        ready[j] = start


@frugal
def start_collective(x: Any, number: Any, ready: Any, last: Any, barrier: Any) -> Any:
    """Move the starts of a collective to the last launch of its node, [num_lanes] [s]; returns that of the slowest lane."""
    start = last
    for j in range(x.num_lanes):
        if x.weight[number, j] > 0.0:
            start = max(start, x.host[number, j])
    for j in range(x.num_lanes):
        if barrier:
            x.late[number, j] += start - last
        else:
            own = max(ready[j], x.host[number, j])
            x.late[number, j] += own - ready[j]
            ready[j] = own
    return start


@frugal
def end_compute(x: Any, number: Any, lane: Any, start: Any, end: Any, launches: Any) -> Any:
    """When a lane has computed a node, after the last of its launches too [s]."""
    if launches == 0:
        return end
    last = max(end, x.host[number, lane] + (end - start) / launches)
    x.hosted[number, lane] += last - end
    return last


@frugal
def note_end(x: Any, number: Any, track: Any, launches: Any, ends: Any) -> None:
    """Note when the launches of a node had run, for the bound of run-ahead."""
    if launches == 0:
        return
    track.issued += launches
    row = track.written % x.done_count.shape[1]
    x.done_count[number, row] = track.issued
    for j in range(x.num_lanes):
        x.done_end[number, row, j] = ends[j]
    track.written += 1


@frugal
def share_wait(x: Any, number: Any, lane: Any, wait: Any) -> Any:
    """Count as the host's the part of a wait for a collective by which the host was late with it, once, and return it [s]."""
    part = min(wait, x.late[number, lane])
    x.late[number, lane] = 0.0
    x.hosted[number, lane] += part
    return part
