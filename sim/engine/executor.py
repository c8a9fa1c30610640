"""Plans in simulated time: collectives of many groups at once, and lists of bare flows."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import simpy
from simpy.events import Event

from sim.cluster.topology import Cluster
from sim.engine.network import Network
from sim.engine.records import Trace, TransferRecord
from sim.schedule.collectives import Collective
from sim.schedule.flows import Flows
from sim.schedule.group_operations import GroupOperation

Timed = Collective | GroupOperation


def run_together(
    cluster: Cluster,
    name: str,
    collectives: Sequence[Timed],
    start_s: float = 0.0,
    gather_fraction: float = 0.0,
) -> Trace:
    """Run one collective of every group, all started together, contending on the cluster's links.

    Parameters
    ----------
    cluster : Cluster
    name : str
        Name of the collective in the records.
    collectives : sequence, [num_groups]
        A `Collective` or a `GroupOperation` each.
    start_s : float
        Instant of the common start [s].
    gather_fraction : float [0 to 1]
        See `fluid`; 0 is exact.

    Returns
    -------
    Trace
        One record a group, in their order.

    Raises
    ------
    InfeasibleError
        Where bytes wait for a link without capacity.
    """
    env = simpy.Environment(initial_time=start_s)
    network = Network(env, cluster)
    trace = Trace()

    def kernel(group: int, collective: Timed) -> Generator[Event, object, None]:
        start = env.now
        fixed, flows = collective.latency_s(), collective.flows()
        yield env.timeout(fixed)
        finish = yield network.transfer(flows, gather_fraction=gather_fraction)
        assert isinstance(finish, np.ndarray)
        ends = flows.rank_ends(finish, len(collective.gpus), floor_s=start + fixed)
        trace.transfers.append(
            TransferRecord(name, group, start, fixed, ends, collective.gpus, finish, flows)
        )

    processes = [env.process(kernel(group, collective)) for group, collective in enumerate(collectives)]
    env.run(until=env.all_of(processes))
    trace.transfers.sort(key=lambda record: record.group)
    return _close(trace, network)


def run_flows(cluster: Cluster, flows: Flows, gather_fraction: float = 0.0) -> Trace:
    """Run bare flows by their own release times and dependencies.

    Parameters
    ----------
    cluster : Cluster
    flows : Flows
        Their party ranks are GPUs, or hosts.
    gather_fraction : float [0 to 1]
        See `fluid`; 0 is exact.

    Returns
    -------
    Trace
        One record of all flows.

    Raises
    ------
    InfeasibleError
        Where bytes wait for a link without capacity, or a flow for one that never ends.
    """
    env = simpy.Environment()
    network = Network(env, cluster)
    done = network.transfer(flows, gather_fraction=gather_fraction)
    finish = env.run(until=done)
    assert isinstance(finish, np.ndarray)
    num_ranks = cluster.num_gpus
    ends = flows.rank_ends(finish, num_ranks, floor_s=0.0)
    trace = Trace([TransferRecord("flows", 0, 0.0, 0.0, ends, np.arange(num_ranks), finish, flows)])
    return _close(trace, network)


def _close(trace: Trace, network: Network) -> Trace:
    trace.stretches = network.stretches
    trace.saturated_s = network.saturated_s
    trace.end_s = max((float(record.rank_ends_s.max()) for record in trace.transfers), default=0.0)
    return trace
