"""The end of a training step: ZeRO-1's reductions and updates as a program of their own on the whole cluster."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.cluster.kernels import load_kernel
from sim.cluster.topology import Cluster
from sim.engine.step_plan import GroupCollective, StepPlan, Traffic
from sim.runs.step_traffic import Place, require_alive, ring
from sim.schedule.programs import Node
from sim.schedule.reductions import HeldParameters, Links, Phase, phases, update_s
from sim.schedule.training import PipelineTask, tasks_from_rows
from sim.workload.layout import Layout

_BYTES = 2.0  # BF16, gradients and weights alike


def reducing_plan(
    place: Place,
    cluster: Cluster,
    layout: Layout,
    parameters: Sequence[HeldParameters],
    links: Links,
    *,
    gpus_per_node: int,
) -> StepPlan:
    """Gradients scattered, each shard updated, weights gathered, on all pipeline ranks at once.

    Parameters
    ----------
    place : Place
    cluster : Cluster
    layout : Layout
    parameters : sequence, [pipeline ranks]
        What a GPU of each holds.
    links : Links
        Latency of a phase, and the rate of an update.
    gpus_per_node : int [count]
    """
    asked = phases(layout, gpus_per_node)
    collectives = [
        [
            _collectives(place, cluster, rank, group, asked, held, links.latency_s)
            for group in range(place.num_groups)
        ]
        for rank, held in enumerate(parameters)
    ]
    rows = []
    for rank, held in enumerate(parameters):
        there = [*collectives[rank][0]]
        names = [*there, None, *there]
        update = update_s(links, held.shard(layout))
        program = tuple(
            Node(name or "update", "B", -1, name, 0.0 if name else update, waits=(i - 1,) if i else ())
            for i, name in enumerate(names)
        )
        rows.append([PipelineTask("W", program, -1, 0, False, (), ())])
    traffic = Traffic(cluster.capacity, cluster.class_idx, collectives, {})
    require_alive(cluster, traffic)
    speed = np.ones((place.num_ranks, place.num_groups, place.lanes))
    return StepPlan(tasks_from_rows(rows), traffic, place.num_groups, place.lanes, speed)


def _collectives(
    place: Place,
    cluster: Cluster,
    rank: int,
    group: int,
    asked: Sequence[Phase],
    held: HeldParameters,
    fixed_s: float,
) -> dict[str, GroupCollective]:
    """The phases in which a group has bytes to send, in order."""
    kernel = load_kernel("nccl")
    sizes = {"dense": _BYTES * held.dense, "experts": _BYTES * held.experts}
    ranks = place.ranks[rank, group]
    return {
        phase.name: ring(
            place.gpu_of_rank[ranks],
            cluster,
            kernel,
            place.gpu_of_rank[phase.following[ranks]],
            sizes[phase.what] * phase.fraction,
            fixed_s,
        )
        for phase in asked
        if sizes[phase.what]
    }
