"""Runs plans in simulated time: collectives of many groups at once, and lists of bare flows."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import simpy
from simpy.events import Event

from sim.cluster.topology import Cluster
from sim.engine.network import Network
from sim.engine.records import Trace, TransferRecord
from sim.schedule.collectives import Exchange
from sim.schedule.flows import Flows


def run_together(cluster: Cluster, name: str, exchanges: Sequence[Exchange], start_s: float = 0.0) -> Trace:
    """One collective of every group, all started at `start_s`, contending on the cluster's links."""
    env = simpy.Environment(initial_time=start_s)
    network = Network(env, cluster)
    trace = Trace()

    def kernel(group: int, exchange: Exchange) -> Generator[Event, object, None]:
        start = env.now
        fixed, flows = exchange.latency_s(), exchange.flows()
        yield env.timeout(fixed)
        finish = yield network.transfer(flows)
        assert isinstance(finish, np.ndarray)
        ends = flows.rank_ends(finish, len(exchange.gpus), floor_s=start + fixed)
        trace.transfers.append(TransferRecord(name, group, start, fixed, ends, exchange.gpus, finish, flows))

    processes = [env.process(kernel(group, exchange)) for group, exchange in enumerate(exchanges)]
    env.run(until=env.all_of(processes))
    trace.transfers.sort(key=lambda one: one.group)
    return _close(trace, network)


def run_flows(cluster: Cluster, flows: Flows) -> Trace:
    """Bare flows by their own release times and dependencies, solved exactly."""
    env = simpy.Environment()
    network = Network(env, cluster)
    done = network.transfer(flows, gather_fraction=0.0)
    finish = env.run(until=done)
    assert isinstance(finish, np.ndarray)
    num_ranks = cluster.num_gpus
    ends = flows.rank_ends(finish, num_ranks, floor_s=0.0)
    trace = Trace([TransferRecord("flows", 0, 0.0, 0.0, ends, np.arange(num_ranks), finish, flows)])
    return _close(trace, network)


def _close(trace: Trace, network: Network) -> Trace:
    trace.stretches = network.stretches
    trace.saturated_s = network.saturated_s
    trace.end_s = max((float(one.rank_ends_s.max()) for one in trace.transfers), default=0.0)
    return trace
