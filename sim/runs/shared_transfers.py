"""All-to-alls, collectives and flows next to other jobs on one network: their plans, and what is measured of them.

A group's combine follows its own dispatch, whatever other groups do. A flow is a pipeline rank of one lane; flows that wait
for one another in a row are on one rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sim.cluster.fabrics import NONE
from sim.cluster.topology import CLASSES, Cluster, Floats, Ints
from sim.engine.executor import Timed
from sim.engine.step import StepRun
from sim.engine.step_plan import GroupCollective, StepPlan, Traffic
from sim.runs import metrics as measure
from sim.schedule.flows import Flows
from sim.schedule.programs import Node
from sim.schedule.training import PipelineTask, tasks_from_rows


def collectives_plan(cluster: Cluster, groups: Sequence[Mapping[str, Timed]]) -> StepPlan:
    """The collectives that each group runs, one after the other, as the plan of one pipeline rank."""
    cabled = [
        {name: GroupCollective(each.flows(), each.latency_s()) for name, each in group.items()}
        for group in groups
    ]
    lanes = len(next(iter(groups[0].values())).gpus)
    program = tuple(
        Node(name, "F", 0, name, waits=(i - 1,) if i else (), barrier=True)
        for i, name in enumerate(groups[0])
    )
    traffic = Traffic(cluster.capacity, cluster.class_idx, [cabled], {})
    tasks = tasks_from_rows([[PipelineTask("F", program, 0, -1, False, (), ())]])
    return StepPlan(tasks, traffic, len(groups), lanes, np.ones((1, len(groups), lanes)))


def collective_times(groups: Sequence[Mapping[str, Timed]], ran: StepRun) -> dict[str, Floats]:
    """Time of each rank of all groups from its group's start of each collective, [ranks] [s]."""
    times: dict[str, list[Floats]] = {name: [] for name in groups[0]}
    for group in range(len(groups)):
        ends, start = ran.lane_ends(group), 0.0
        for place, name in enumerate(times):
            times[name].append(ends[place] - start)
            start = float(ends[place].max())
    return {name: np.concatenate(parts) for name, parts in times.items()}


def timed(
    collectives: Sequence[Timed], times_s: Floats, cluster: Cluster, ran: StepRun, place: int
) -> dict[str, Any]:
    """Metrics of one collective of all groups, each of which has it at a place of its program."""
    flows = [each.flows() for each in collectives]
    metrics = measure.estimated(float(times_s.mean()), "", flows, cluster, len(times_s))
    last = int(times_s.reshape(len(collectives), -1).max(axis=1).argmax())
    fixed_s, longest_s = collectives[last].latency_s(), float(times_s.max())
    rows = ran.full_rows(flows[last], place, last)
    return (
        metrics | _binding(cluster, flows[last], rows, longest_s, fixed_s) | {"completion_time_s": longest_s}
    )


def _binding(cluster: Cluster, flows: Flows, rows: Ints, took_s: float, fixed_s: float) -> dict[str, Any]:
    """What bound a transfer: the first resource that was full on the way of its last byte, unless latencies took longer.

    A run alone counts for how long a resource was full; that of a lone collective is full until its last byte comes.
    """
    latency_s = float(flows.latency_s.max(initial=0.0))
    if not len(rows) or took_s - fixed_s - latency_s <= fixed_s + latency_s:
        return {"binding": "latency", "binding_resource": None}
    return {
        "binding": CLASSES[int(cluster.class_idx[rows[0]])],
        "binding_resource": cluster.names[int(rows[0])],
    }


# --- flows ------------------------------------------------------------------------------------------------------------


def flows_plan(cluster: Cluster, flows: Flows, chains: Sequence[Sequence[int]]) -> StepPlan:
    """Bare flows as a plan: a pipeline rank of one lane for each chain of flows that wait for one another.

    Every flow once.
    """
    rows, collectives = [], []
    for chain in chains:
        nodes: list[Node] = []
        cabled: dict[str, GroupCollective] = {}
        released = 0.0
        for place, flow in enumerate(chain):
            later = max(float(flows.release_s[flow]) - released, 0.0)
            released += later
            nodes.append(Node("release", "F", 0, None, later))
            nodes.append(Node(str(place), "F", 0, str(place), waits=(len(nodes) - 1,), barrier=True))
            # Word of it is back after another latency, when the next may go.
            latencies = 2.0 if place + 1 < len(chain) else 1.0
            cabled[str(place)] = GroupCollective(_single(flows, flow, latencies), 0.0)
        rows.append([PipelineTask("F", tuple(nodes), 0, -1, False, (), ())])
        collectives.append([cabled])
    traffic = Traffic(cluster.capacity, cluster.class_idx, collectives, {})
    return StepPlan(tasks_from_rows(rows), traffic, 1, 1, np.ones((len(rows), 1, 1)))


def _single(flows: Flows, flow: int, latencies: float) -> Flows:
    own, only = slice(flows.start[flow], flows.start[flow + 1]), slice(flow, flow + 1)
    return Flows(
        payload_bytes=flows.payload_bytes[only],
        share=flows.share[only],
        release_s=np.zeros(1),
        latency_s=latencies * flows.latency_s[only],
        after=np.full(1, NONE),
        start=np.array([0, own.stop - own.start]),
        resource=flows.resource[own],
        wire=flows.wire[own],
        line=flows.line[own],
        party_flow=np.zeros(1, dtype=np.int64),
        party_rank=np.zeros(1, dtype=np.int64),
    )


def finishes_s(flows: Flows, chains: Sequence[Sequence[int]], ran: StepRun) -> Floats:
    """Instant at which the last byte of each flow has come, [num_flows] [s]."""
    finish = np.zeros(flows.num_flows)
    for rank, chain in enumerate(chains):
        finish[list(chain)] = ran.lane_ends(0, rank)[1 : 2 * len(chain) : 2, 0]
        waited_for = list(chain[:-1])
        finish[waited_for] -= flows.latency_s[waited_for]
    return finish


def flows_binding(
    cluster: Cluster, flows: Flows, chains: Sequence[Sequence[int]], ran: StepRun, finish_s: Floats
) -> dict[str, Any]:
    """What bound the flow that ended last."""
    rank = next(i for i, chain in enumerate(chains) if int(finish_s.argmax()) in chain)
    place = 2 * len(chains[rank]) - 1  # in its chain it is the last
    ends = ran.lane_ends(0, rank)[:, 0]
    own = _single(flows, int(finish_s.argmax()), 1.0)
    rows = ran.full_rows(own, place, 0, rank)
    return _binding(cluster, own, rows, float(ends[place] - ends[place - 1]), 0.0)
