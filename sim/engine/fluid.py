"""The fluid network: rates by weighted max-min fairness, and flows that drain at these rates.

Each flow f asks for a rate x_f = share_f * level. All levels rise together until a resource is full; the flows on it
freeze at that level, the others go on (progressive filling; Bertsekas and Gallager, Data Networks, 6.5.2). Between two
changes (a flow is released or done) the rates stay, so time jumps from change to change.

Within one collective a flow's share is its byte count: a kernel that walks its tokens in order serves destinations in
proportion. Then all flows frozen by one resource end together, and their end frees nothing that held another flow
back: one rate solution decides the whole collective. `gather_fraction` joins completions that lie closer than this fraction
of the whole collective's bound: capacity freed within the window is handed out at its end. So no resource is ever above
its capacity, and on one link no flow is early, or late by more than a window for each completion before it; across
links a flow may also gain a little while the rise of a competitor is put off.

The law is `sharing`, the loop `fluid_loop`, plain Python for problems of fewer than `COMPILED_FROM` entries, unless machine code of it is kept already, and
compiled for others.
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
KEPT_FROM = 3_000  # entries; below, loading machine code that is kept costs more than it saves
CALLED_FROM = 300  # entries; below, the call alone does
LONG_COMPILED_FROM = 2_000  # entries of a problem that has already taken LOG_ROWS stretches
LOG_ROWS = 256
FULL = 1.0 - 1e-9  # a resource above this share of its capacity is saturated
_TIE = 1e-12


class Stop(IntEnum):
    """Reason why `Island.advance` returned."""

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

    def __post_init__(self) -> None:
        """Bring what comes from flows into the one layout that the loop is compiled for."""
        for name in ("share", "latency", "start", "resource", "line"):
            setattr(self, name, np.require(getattr(self, name), requirements=["C", "W"]))

    def advance(self, horizon_s: float) -> Stop:
        """Let time pass until `horizon_s` [s], the end of a batch, or the end of all; return why it stopped."""
        return self._advance(_loop(len(self.resource), self.long), horizon_s)

    def _advance(self, loop: Callable[..., int], horizon_s: float) -> Stop:
        clock, count = np.array([self.time_s], dtype=np.float64), np.array([self.log_count], dtype=np.int64)
        args = (
            clock, count, float(horizon_s), float(self.window_s), self.share, self.latency, self.release, self.start_s, self.after,
            self.start, self.resource, self.line, self.capacity, self.batch, self.left, self.rate, self.finish, self.batch_left, self.saturated_s, self.log_time,
            self.log_used, fluid_loop.room(len(self.share), len(self.resource), len(self.rows)),
        )  # fmt: skip
        stop = loop(*args)
        self.time_s, self.log_count = float(clock[0]), int(count[0])
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
    """Make an island of one batch of flows.

    Parameters
    ----------
    flows : Flows
    capacity : float, [num_resources] [bytes/s]
    now_s : float
        Instant that their release times count from [s].
    gather_fraction : float [0 to 1]
        As in the module docstring; 0 is exact.
    number : int
        Name of the batch.
    log_rows : int
        Stretches of constant rates that it can note before `advance` returns [count].

    Returns
    -------
    Island
    """
    used = np.bincount(flows.resource, minlength=len(capacity)) > 0
    rows = np.flatnonzero(used)
    local = np.cumsum(used) - 1
    num = flows.num_flows
    state = Island(
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
        state.window_s = gather_fraction * bound_s(state)
    return state


def lone(flows: Flows, capacity: Floats, *, often: bool) -> Island:
    """Make an island for `alone`.

    Parameters
    ----------
    flows : Flows
    capacity : float, [num_resources] [bytes/s]
    often : bool
        True where it is solved often, with other bytes each time, which is worth the start of the compiled loop.

    Returns
    -------
    Island
    """
    state = island(flows, capacity, 0.0, gather_fraction=np.inf, log_rows=2)
    state.long = often
    return state


def alone(flows: Flows, base: Island) -> Floats:
    """End each flow of a collective that has its links to itself; shares are bytes, so one solution is enough.

    Parameters
    ----------
    flows : Flows
    base : Island
        From `lone`, of flows with the same entries, whatever their bytes and line weights.

    Returns
    -------
    float, [num_flows]
        Instants after its start, latency included [s].
    """
    state = replace(
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
    while state.advance(np.inf) is Stop.LOG_FULL:
        state.log_count = 0
    return state.finish + flows.latency_s


def rank_times_s(flows: Flows, capacity: Floats, num_ranks: int, fixed_s: float, *, often: bool) -> Floats:
    """Time of each rank of a collective that has its links to itself.

    Parameters
    ----------
    flows : Flows
    capacity : float, [num_resources] [bytes/s]
    num_ranks : int [count]
    fixed_s : float
        Time before the flows start; all that a rank without flows takes [s].
    often : bool
        As of `lone`.

    Returns
    -------
    float, [num_ranks]
        Times, `fixed_s` included [s].
    """
    if flows.num_flows == 0:
        return np.full(num_ranks, fixed_s)
    ends = alone(flows, lone(flows, capacity, often=often))
    return flows.rank_ends(fixed_s + ends, num_ranks, floor_s=fixed_s)


def drained(flows: Flows, capacity: Floats, *, gather_fraction: float = 0.0) -> Floats:
    """Send each flow's last byte on links that nobody else uses.

    Parameters
    ----------
    flows : Flows
    capacity : float, [num_resources] [bytes/s]
    gather_fraction : float [0 to 1]
        As in the module docstring; 0 is exact.

    Returns
    -------
    float, [num_flows]
        Instants at which the last bytes have been sent, latency not included [s].

    Raises
    ------
    ValueError
        Where a flow waits for a link without capacity.

    References
    ----------
    Bertsekas and Gallager, Data Networks, section 6.5.2 (max-min fairness by progressive filling).
    """
    state = island(flows, capacity, 0.0, gather_fraction=gather_fraction)
    while (stop := state.advance(np.inf)) is not Stop.DONE:
        if stop is Stop.STUCK:
            raise ValueError("a flow waits for a link without capacity")
        state.log_count = 0
    return state.finish


def bound_s(state: Island) -> float:
    """Divide the busiest resource's line bytes by its capacity.

    Parameters
    ----------
    state : Island

    Returns
    -------
    float
        Time that no schedule beats [s].
    """
    entries = state.line * state.left[np.repeat(np.arange(len(state.left)), np.diff(state.start))]
    load = np.bincount(state.resource, entries, len(state.rows))
    with np.errstate(divide="ignore", invalid="ignore"):
        times = np.where(load > 0, load / state.capacity, 0.0)
    return float(times[np.isfinite(times)].max(initial=0.0))


def merge(islands: list[Island]) -> Island:
    """Merge islands that are at the same time and now share a resource; finished flows are left behind.

    Parameters
    ----------
    islands : list of Island

    Returns
    -------
    Island
    """
    rows = np.unique(np.concatenate([part.rows for part in islands]))
    open_ = [np.isnan(part.finish) for part in islands]
    offsets = np.cumsum([0] + [int(keep.sum()) for keep in open_])
    numbers: list[int] = []
    after, batch, start, resource, line = [], [], [np.zeros(1, dtype=np.int64)], [], []
    for part, keep, offset in zip(islands, open_, offsets, strict=False):
        batch.append(part.batch[keep] + len(numbers))
        numbers += part.numbers
        new_idx = np.cumsum(keep) - 1 + offset
        waits = part.after[keep]
        after.append(np.where(waits >= 0, new_idx[waits], -1))
        counts = np.diff(part.start)
        entries = np.repeat(keep, counts)
        start.append(start[-1][-1] + np.cumsum(counts[keep]))
        resource.append(np.searchsorted(rows, part.rows)[part.resource[entries]])
        line.append(part.line[entries])
    capacity, saturated = np.zeros(len(rows)), np.zeros(len(rows))
    for part in islands:
        at = np.searchsorted(rows, part.rows)
        capacity[at] = part.capacity
        saturated[at] += part.saturated_s

    def joined(name: str) -> npt.NDArray[np.float64]:
        return np.concatenate([getattr(part, name)[keep] for part, keep in zip(islands, open_, strict=True)])

    return Island(
        time_s=max(part.time_s for part in islands),
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
        window_s=min(part.window_s for part in islands),
        left=joined("left"),
        rate=joined("rate"),
        finish=joined("finish"),
        batch_left=np.concatenate([part.batch_left for part in islands]),
        saturated_s=saturated,
        log_time=np.zeros((2, LOG_ROWS)),
        log_used=np.zeros((LOG_ROWS, len(rows)), dtype=np.float32),
    )


def prepare() -> None:
    """Have machine code of the loop for small problems too, which pays where many are solved; made, in seconds, where none is kept."""
    unit, zero, number = np.ones(1), np.zeros(1), np.zeros(1, dtype=np.int64)
    entries = number.astype(np.int32)
    flow = Flows(unit, unit, zero, zero, number - 1, np.arange(2), entries, unit, unit, number, number)
    island(flow, unit, 0.0, gather_fraction=0.0)._advance(fluid_loop.advance.machine_code, np.inf)


def _loop(num_entries: int, long: bool) -> Callable[..., int]:
    """The machine code for large or long problems and where there is a file of it, plain Python for small ones."""
    loop = fluid_loop.advance
    large = num_entries >= COMPILED_FROM or (long and num_entries > LONG_COMPILED_FROM)
    worth = num_entries >= (CALLED_FROM if "llvmlite" in sys.modules else KEPT_FROM)
    chosen: Callable[..., int] = loop.machine_code if large else loop.kept if worth else loop.plain
    return chosen
