"""The network in simulated time: one owner of all flows under way.

Any number of collectives, pipeline sends and reductions contend here at once. `transfer` only notes a batch and arms one
event at the end of the present instant, so that all that starts together is solved together. Batches that share a
resource form an island; islands are solved apart.

Why this way: an island runs ahead to the end of its next batch in one compiled call, as if nothing would disturb it,
and wakes the network there. A newcomer that shares a resource takes it back to its last checkpoint, lets it run up to
the present, and joins it. Undisturbed collectives, the common case, then cost one call; disturbed ones at most two. Where
capacities change, as faults come and go, every island stops and goes on at the new rates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import simpy
from simpy.events import Event, EventPriority

from sim.cluster.topology import Cluster, Floats
from sim.engine.fluid import Island, Stop, island, merge
from sim.engine.records import Stretch
from sim.errors import InfeasibleError
from sim.schedule.flows import Flows

_AFTER_ALL_ELSE = EventPriority(2)  # simpy priority: after every normal event of the instant
_STATE = ("left", "finish", "release", "batch_left", "saturated_s")


@dataclass(slots=True)
class _Batch:
    """A transfer under way."""

    flows: Flows
    done: Event
    finish_s: Floats  # absolute, latency included


@dataclass(slots=True, eq=False)
class _Runner:
    """An island, its last checkpoint, and the stretches since then that are not yet certain."""

    island: Island
    checkpoint_s: float = 0.0
    checkpoint: dict[str, np.ndarray] = field(default_factory=dict)
    pending: list[Stretch] = field(default_factory=list)
    version: int = 0

    def run_ahead(self, horizon_s: float) -> Stop:
        state = self.island
        self.version += 1
        self.checkpoint_s = state.time_s
        self.checkpoint = {name: getattr(state, name).copy() for name in _STATE}
        while (stop := state.advance(horizon_s)) is Stop.LOG_FULL:
            self.stash()
        self.stash()
        return stop

    def rewind(self, to_s: float) -> None:
        """Back to the checkpoint, then forward to `to_s`."""
        state = self.island
        self.pending.clear()
        state.time_s, state.log_count = self.checkpoint_s, 0
        for name, value in self.checkpoint.items():
            getattr(state, name)[:] = value
        self.run_ahead(to_s)

    def stash(self) -> None:
        state, n = self.island, self.island.log_count
        if n:
            start, end = state.log_time[:, :n].copy()
            self.pending.append(Stretch(start, end, state.rows, state.log_used[:n].copy()))
        state.log_count = 0


class Network:
    """Owner of the flows under way on a cluster; rates are those of `fluid`.

    Parameters
    ----------
    env : simpy.Environment
    cluster : Cluster
    """

    def __init__(self, env: simpy.Environment, cluster: Cluster) -> None:
        self.env, self.cluster = env, cluster
        self.stretches: list[Stretch] = []
        self.saturated_s = np.zeros(len(cluster.names))
        self._batches: list[_Batch] = []
        self._arrivals: list[Island] = []
        self._runners: list[_Runner] = []
        self._held = np.zeros(len(cluster.names), dtype=bool)  # resources that a runner's island uses

    def transfer(self, flows: Flows, *, gather_fraction: float = 0.0) -> Event:
        """Start a batch of flows now; the event's value is when the flows' last bytes have come [s], [num_flows].

        `gather_fraction` as of `fluid`; 0 is exact.
        """
        batch = _Batch(flows, self.env.event(), np.full(flows.num_flows, np.nan))
        self._batches.append(batch)
        if flows.num_flows == 0:
            return batch.done.succeed(batch.finish_s)
        number = len(self._batches) - 1
        new = island(
            flows,
            self.cluster.capacity_at(self.env.now),
            self.env.now,
            gather_fraction=gather_fraction,
            number=number,
        )
        if not self._arrivals:
            admit = self.env.event()
            admit._ok, admit._value = True, None
            admit.callbacks.append(self._admit)
            self.env.schedule(admit, priority=_AFTER_ALL_ELSE)
        self._arrivals.append(new)
        return batch.done

    def _admit(self, _: Event) -> None:
        arrivals, self._arrivals = self._arrivals, []
        fresh: list[_Runner] = []
        for new in arrivals:
            touched = [
                runner
                for runner in (self._runners if self._held[new.rows].any() else ())
                if np.isin(new.rows, runner.island.rows, assume_unique=True).any()
            ]
            if not touched:
                runner = _Runner(new)
            else:
                for old in touched:
                    if old not in fresh:
                        old.rewind(self.env.now)
                        self._commit(old)
                self._runners = [other for other in self._runners if other not in touched]
                fresh = [other for other in fresh if other not in touched]
                runner = _Runner(merge([*(old.island for old in touched), new]))
            self._runners.append(runner)
            self._held[runner.island.rows] = True
            fresh.append(runner)
        for runner in fresh:
            self._run(runner)

    def _run(self, runner: _Runner) -> None:
        state, cluster = runner.island, self.cluster
        if cluster.windows:
            state.capacity = cluster.capacity_at(state.time_s)[state.rows]
        later = cluster.instants[cluster.instants > state.time_s]
        if runner.run_ahead(float(later[0]) if len(later) else np.inf) is Stop.STUCK:
            raise InfeasibleError(self._why_stuck(runner.island))
        wake = self.env.timeout(max(runner.island.time_s - self.env.now, 0.0))
        assert wake.callbacks is not None
        wake.callbacks.append(partial(self._wake, runner, runner.version))

    def _wake(self, runner: _Runner, version: int, _: Event) -> None:
        if runner.version != version or runner not in self._runners:
            return  # it was rewound or merged since
        self._commit(runner)
        if np.isnan(runner.island.finish).any():
            self._run(runner)
        else:
            self._runners.remove(runner)
            self._held[runner.island.rows] = False
            self.saturated_s[runner.island.rows] += runner.island.saturated_s

    def _commit(self, runner: _Runner) -> None:
        """Keep all that the island did up to now: its stretches are certain, finished flows are handed out, whole batches end."""
        state = runner.island
        self.stretches += runner.pending
        runner.pending = []
        ended = ~np.isnan(state.finish)
        for local, number in enumerate(state.numbers):
            batch = self._batches[number]
            own = ended & (state.batch == local)
            batch.finish_s[state.flow_idx[own]] = state.finish[own] + state.latency[own]
            if state.batch_left[local] == 0 and not batch.done.triggered:
                state.batch_left[local] = -1
                self._deliver(batch)

    def _deliver(self, batch: _Batch) -> None:
        later = self.env.timeout(max(float(batch.finish_s.max()) - self.env.now, 0.0))
        assert later.callbacks is not None

        def succeed(_: Event) -> None:
            batch.done.succeed(batch.finish_s)

        later.callbacks.append(succeed)

    def _why_stuck(self, state: Island) -> str:
        waits = np.repeat(np.isnan(state.finish), np.diff(state.start))
        dead = np.unique(state.rows[state.resource[waits & (state.capacity[state.resource] <= 0)]])
        if not len(dead):
            return "bytes wait forever: a flow waits for one that never ends"
        return f"bytes wait forever: no capacity in {', '.join(self.cluster.names[row] for row in dead)}"
