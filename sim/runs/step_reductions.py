"""Reductions of a training step, cabled: ZeRO-1's at its end as a program of their own, those of TP and CP inside layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.cluster.kernels import load_kernel
from sim.cluster.topology import Cluster
from sim.engine.step_plan import GroupCollective, StepPlan, Traffic
from sim.runs.step_traffic import Place, require_alive, ring
from sim.schedule.programs import Node
from sim.schedule.reductions import HeldParameters, Links, Phase, layer_phases, phases, update_s
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
    sizes = {"dense": _BYTES * held.dense, "experts": _BYTES * held.experts}
    return {
        phase.name: phase_ring(place, cluster, rank, group, phase, sizes[phase.what], fixed_s)
        for phase in asked
        if sizes[phase.what]
    }


def layer_reductions(
    place: Place, cluster: Cluster, layout: Layout, sizes: tuple[float, float], links: Links
) -> list[list[dict[str, GroupCollective]]]:
    """The kernels of TP and CP inside layers, of each pipeline rank and group.

    Parameters
    ----------
    place : Place
    cluster : Cluster
    layout : Layout
    sizes : (float, float) [bytes]
        A block's output, which TP scatters and gathers, and keys and values, which CP gathers.
    links : Links
        Latency of a phase, and GPUs of a node.
    """
    passes = {"tp": 2, "cp": 1}
    size = dict(zip(passes, sizes, strict=True))
    asked = layer_phases(layout, links.gpus_per_node)
    return [
        [
            {
                phase.name: phase_ring(
                    place, cluster, rank, group, phase,
                    passes[phase.what] * size[phase.what], passes[phase.what] * links.latency_s,
                )
                for phase in asked
            }
            for group in range(place.num_groups)
        ]
        for rank in range(place.num_ranks)
    ]  # fmt: skip


def phase_ring(
    place: Place, cluster: Cluster, rank: int, group: int, phase: Phase, size: float, fixed_s: float
) -> GroupCollective:
    """The part that a group has in one phase of a reduction of `size` bytes."""
    ranks = place.ranks[rank, group]
    gpus, following = place.gpu_of_rank[ranks], place.gpu_of_rank[phase.following[ranks]]
    return ring(gpus, cluster, load_kernel("nccl"), following, size * phase.fraction, fixed_s)
