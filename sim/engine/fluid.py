"""The fluid network: rates by weighted max-min fairness, and flows that drain at these rates.

Each flow f asks for a rate x_f = share_f * level. All levels rise together until a resource is full; the flows on it
freeze at that level, the others go on (progressive filling; Bertsekas and Gallager, Data Networks, 6.5.2). Between two
changes (a flow is released or done) the rates stay, so time jumps from change to change.

Within one collective a flow's share is its byte count: a kernel that walks its tokens in order serves destinations in
proportion. Then all flows frozen by one resource end together, and their end frees nothing that held another flow
back: one rate solution tells the whole exchange. `gather_fraction` joins completions that lie closer than this fraction
of the whole exchange's bound: capacity freed within the window is handed out at its end. So no resource is ever above
its capacity, and on one link no flow is early, or late by more than a window for each completion before it; across
links a flow may also gain a little while the rise of a competitor is put off.

The loop is `fluid_loop`, plain Python for problems of fewer than `COMPILED_FROM` entries and compiled for others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from sim.cluster.topology import Floats, Ints
from sim.engine import fluid_loop
from sim.schedule.flows import Flows

COMPILED_FROM = (
    20_000  # entries; below, starting numba (a second; the first time ten) costs more than it saves
)
LONG_COMPILED_FROM = 2_000  # entries of a problem that has already taken LOG_ROWS stretches
LOG_ROWS = 256
FULL = 1.0 - 1e-9  # a resource above this share of its capacity is saturated
_TIE = 1e-12


class Stop(IntEnum):
    """Why `Island.advance` returned."""

    DONE = 0  # nothing left
    HORIZON = 1
    BATCH = 2  # the last flow of some batch is done
    LOG_FULL = 3
    STUCK = 4  # flows left, and none can move


@dataclass(slots=True)
class Island:
    """Flows that share resources, directly or through others, and their state. Arrays are local to the island."""

    time_s: float
    payload: Floats  # [num_flows], bytes
    share: Floats
    latency: Floats
    release: Floats  # absolute [s]; inf until the flow it waits for is done
    start_s: Floats  # absolute [s]; no flow is released sooner
    after: Ints
    start: Ints
    resource: Ints  # local rows
    line: Floats
    capacity: Floats  # [num_local]
    rows: Ints  # [num_local], the resource's row in the cluster
    batch: Ints  # [num_flows], index into `numbers`
    numbers: list[int]  # the transfers whose flows are here
    flow_idx: Ints  # [num_flows], the flow's place in its transfer
    window_s: float
    left: Floats  # bytes still to send
    rate: Floats  # bytes/s
    finish: Floats  # absolute [s], nan while under way; latency not included
    batch_left: Ints  # [num_batches], flows not done
    saturated_s: Floats  # [num_local]
    log_time: Floats  # [2, rows] start and end of each stretch
    log_used: npt.NDArray[np.float32]  # [rows, num_local] capacity in use
    log_count: int = 0
    long: bool = False  # took more than LOG_ROWS stretches: worth the compiled loop, however small

    def advance(self, horizon_s: float) -> Stop:
        """Let time pass until `horizon_s`, the end of a batch, or the end of all; returns why it stopped."""
        loop = _loop(len(self.resource), self.long)
        self.time_s, stop, self.log_count = loop(
            self.time_s, horizon_s, self.window_s, self.share, self.latency, self.release, self.start_s, self.after, self.start,
            self.resource, self.line, self.capacity, self.batch, self.left, self.rate, self.finish, self.batch_left,
            self.saturated_s, self.log_time, self.log_used, self.log_count,
        )  # fmt: skip
        self.long = self.long or stop == Stop.LOG_FULL
        return Stop(stop)


def island(
    flows: Flows,
    capacity: Floats,
    now_s: float,
    *,
    gather_fraction: float,
    number: int = 0,
    log_rows: int = LOG_ROWS,
) -> Island:
    """A new island of one batch of flows, released relative to `now_s`; `number` names the batch."""
    used = np.bincount(flows.resource, minlength=len(capacity)) > 0
    rows = np.flatnonzero(used)
    local = np.cumsum(used) - 1
    num = flows.num_flows
    here = Island(
        time_s=now_s,
        payload=flows.payload_bytes,
        share=flows.share,
        latency=flows.latency_s,
        release=np.where(flows.after < 0, now_s + flows.release_s, np.inf),
        start_s=now_s + flows.release_s,
        after=flows.after,
        start=flows.start,
        resource=local[flows.resource],
        line=flows.line,
        capacity=capacity[rows],
        rows=rows,
        batch=np.zeros(num, dtype=np.int64),
        numbers=[number],
        flow_idx=np.arange(num),
        window_s=gather_fraction,
        left=flows.payload_bytes.copy(),
        rate=np.zeros(num),
        finish=np.full(num, np.nan),
        batch_left=np.array([num], dtype=np.int64),
        saturated_s=np.zeros(len(rows)),
        log_time=np.zeros((2, log_rows)),
        log_used=np.zeros((log_rows, len(rows)), dtype=np.float32),
    )
    if 0 < gather_fraction < np.inf:
        here.window_s = gather_fraction * bound_s(here)
    return here


def lone(flows: Flows, capacity: Floats, *, often: bool) -> Island:
    """An island for `alone`; who solves one `often`, with other bytes each time, is worth the start of the compiled loop."""
    here = island(flows, capacity, 0.0, gather_fraction=np.inf, log_rows=2)
    here.long = often
    return here


def alone(flows: Flows, base: Island) -> Floats:
    """When each flow of a lone collective ends [s, num_flows], latency included; shares are bytes, so one solution tells all.

    `base`: the island of flows with the same entries, whatever their bytes and line weights.
    """
    here = replace(
        base,
        payload=flows.payload_bytes,
        share=flows.share,
        line=flows.line,
        left=flows.payload_bytes.copy(),
        rate=np.zeros(flows.num_flows),
        finish=np.full(flows.num_flows, np.nan),
        batch_left=base.batch_left.copy(),
        saturated_s=np.zeros(len(base.rows)),
    )
    while here.advance(np.inf) is Stop.LOG_FULL:
        here.log_count = 0
    return here.finish + flows.latency_s


def drained(flows: Flows, capacity: Floats, *, gather_fraction: float = 0.0) -> Floats:
    """When the last byte of each flow has been sent, on links that nobody else uses [s, num_flows].

    Parameters
    ----------
    flows : Flows
    capacity : float, [num_resources] [bytes/s]
    gather_fraction : float
        As in the module docstring; 0 is exact.

    Raises
    ------
    ValueError
        Where a flow waits for a link without capacity.
    """
    here = island(flows, capacity, 0.0, gather_fraction=gather_fraction)
    while (stop := here.advance(np.inf)) is not Stop.DONE:
        if stop is Stop.STUCK:
            raise ValueError("a flow waits for a link without capacity")
        here.log_count = 0
    return here.finish


def bound_s(here: Island) -> float:
    """No schedule drains the island sooner [s]: the busiest resource's line bytes over its capacity."""
    entries = here.line * here.left[np.repeat(np.arange(len(here.left)), np.diff(here.start))]
    load = np.bincount(here.resource, entries, len(here.rows))
    with np.errstate(divide="ignore", invalid="ignore"):
        times = np.where(load > 0, load / here.capacity, 0.0)
    return float(times[np.isfinite(times)].max(initial=0.0))


def merge(islands: list[Island]) -> Island:
    """One island of several that are at the same time and now share a resource; finished flows are left behind."""
    rows = np.unique(np.concatenate([one.rows for one in islands]))
    open_ = [np.isnan(one.finish) for one in islands]
    offsets = np.cumsum([0] + [int(keep.sum()) for keep in open_])
    numbers: list[int] = []
    after, batch, start, resource, line = [], [], [np.zeros(1, dtype=np.int64)], [], []
    for one, keep, offset in zip(islands, open_, offsets, strict=False):
        batch.append(one.batch[keep] + len(numbers))
        numbers += one.numbers
        new_idx = np.cumsum(keep) - 1 + offset
        waits = one.after[keep]
        after.append(np.where(waits >= 0, new_idx[waits], -1))
        counts = np.diff(one.start)
        entries = np.repeat(keep, counts)
        start.append(start[-1][-1] + np.cumsum(counts[keep]))
        resource.append(np.searchsorted(rows, one.rows)[one.resource[entries]])
        line.append(one.line[entries])
    capacity, saturated = np.zeros(len(rows)), np.zeros(len(rows))
    for one in islands:
        at = np.searchsorted(rows, one.rows)
        capacity[at] = one.capacity
        saturated[at] += one.saturated_s

    def joined(name: str) -> npt.NDArray[np.float64]:
        return np.concatenate([getattr(one, name)[keep] for one, keep in zip(islands, open_, strict=True)])

    return Island(
        time_s=max(one.time_s for one in islands),
        payload=joined("payload"),
        share=joined("share"),
        latency=joined("latency"),
        release=joined("release"),
        start_s=joined("start_s"),
        after=np.concatenate(after),
        start=np.concatenate(start),
        resource=np.concatenate(resource),
        line=np.concatenate(line),
        capacity=capacity,
        rows=rows,
        batch=np.concatenate(batch),
        numbers=numbers,
        flow_idx=joined("flow_idx").astype(np.int64),
        window_s=min(one.window_s for one in islands),
        left=joined("left"),
        rate=joined("rate"),
        finish=joined("finish"),
        batch_left=np.concatenate([one.batch_left for one in islands]),
        saturated_s=saturated,
        log_time=np.zeros((2, LOG_ROWS)),
        log_used=np.zeros((LOG_ROWS, len(rows)), dtype=np.float32),
    )


def _loop(num_entries: int, long: bool) -> Callable[..., tuple[float, int, int]]:
    """The compiled loop for large or long problems and where numba runs already, plain Python for small ones."""
    large = num_entries >= COMPILED_FROM or (long and num_entries > LONG_COMPILED_FROM)
    return fluid_loop.advance.compiled if large or "numba" in sys.modules else fluid_loop.advance.plain
