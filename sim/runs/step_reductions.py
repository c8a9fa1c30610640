"""Reductions of a training step, cabled: ZeRO's at its end as a program of their own, those of TP and CP inside layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.cluster.alike import Alike
from sim.cluster.kernels import Kernel, load_kernel
from sim.cluster.topology import Cluster
from sim.cost.optimizer import WEIGHT_BYTES, Optimizer
from sim.engine.step_plan import GroupCollective, StepPlan, Traffic
from sim.runs.step_traffic import Place, require_alive, ring, spread
from sim.schedule.programs import Node
from sim.schedule.reductions import HeldParameters, Links, Phase, copy_phases, layer_phases, phases
from sim.schedule.training import PipelineTask, tasks_from_rows
from sim.workload.layout import Layout


@dataclass(frozen=True, slots=True)
class _Moved:
    """One phase of gradients or of weights: bytes of a parameter, and whether those of layers move in every microbatch instead."""

    phase: Phase
    size: float
    sharded: bool
    weights: bool = False

    @property
    def name(self) -> str:
        """Its name on a timeline."""
        return f"{self.phase.name}{', weights' if self.weights else ''}"


def reducing_plan(
    place: Place,
    cluster: Cluster,
    layout: Layout,
    parameters: Sequence[HeldParameters],
    links: Links,
    optimizer: Optimizer,
    updates_s: Sequence[float],
    *,
    copies: int,
) -> StepPlan:
    """Gradients scattered, shards of copies of a stage added up, each updated, weights gathered, on all pipeline ranks at once.

    `parameters` and `updates_s` are by pipeline rank; each stage is held by `copies` of them.
    """
    whole = phases(layout, links.gpus_per_node)
    both = copy_phases(layout, links.gpus_per_node) if copies > 1 else []
    gradients = [
        *(_Moved(phase, optimizer.gradient_bytes, optimizer.shards_gradients) for phase in whole),
        *(_Moved(phase, optimizer.gradient_bytes, sharded=False) for phase in both),
    ]
    weights = [_Moved(phase, WEIGHT_BYTES, optimizer.shards_weights, weights=True) for phase in whole]
    nccl = load_kernel("nccl")
    rings = {phase.name: _Ring(place, cluster, nccl, phase) for phase in (*whole, *both)}
    collectives = [
        _collectives(place, rings, rank, [*gradients, *weights], held, links.latency_s)
        for rank, held in enumerate(parameters)
    ]
    rows = []
    for rank, update in enumerate(updates_s):
        present = collectives[rank][0]
        before, after = (
            [moved.name for moved in part if moved.name in present] for part in (gradients, weights)
        )
        names = [*before, None, *after]
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
    rings: Mapping[str, _Ring],
    rank: int,
    asked: Sequence[_Moved],
    held: HeldParameters,
    fixed_s: float,
) -> list[dict[str, GroupCollective]]:
    """The phases in which each group of a pipeline rank has bytes to send, in order; gradients and weights of a phase take the same cables."""
    sent: dict[str, list[GroupCollective]] = {}
    for moved in asked:
        count = getattr(held.once_a_step(moved.sharded), moved.phase.what)
        if count:
            sent[moved.name] = rings[moved.phase.name].sent(rank, 1.0, fixed_s, times=moved.size * count)
    return [{name: of_rank[group] for name, of_rank in sent.items()} for group in range(place.num_groups)]


class _Ring:
    """Who sends to whom in one phase of a reduction, in all groups of all pipeline ranks."""

    def __init__(self, place: Place, cluster: Cluster, kernel: Kernel, phase: Phase) -> None:
        self.place, self.cluster, self.kernel, self.phase = place, cluster, kernel, phase
        ranks = place.ranks.reshape(-1, place.lanes)
        self.gpus, self.following = place.gpu_of_rank[ranks], place.gpu_of_rank[phase.following[ranks]]
        self.alike = Alike(cluster, np.hstack([self.gpus, self.following]))
        self.cabled: dict[tuple[int, float, float], GroupCollective] = {}

    def sent(self, rank: int, size: float, fixed_s: float, times: float = 1.0) -> list[GroupCollective]:
        """The part that each group of a pipeline rank has in a reduction of `times` as many as `size` bytes."""
        num = self.place.num_groups
        return spread(
            self.alike,
            range(rank * num, (rank + 1) * num),
            lambda i: _times(self._ring(i, size * self.phase.fraction, fixed_s), times),
        )

    def _ring(self, i: int, size: float, fixed_s: float) -> GroupCollective:
        asked = (i, size, fixed_s)  # by several pipeline ranks, where those are alike
        if asked not in self.cabled:
            self.cabled[asked] = ring(
                self.gpus[i], self.cluster, self.kernel, self.following[i], size, fixed_s
            )
        return self.cabled[asked]


def _times(collective: GroupCollective, factor: float) -> GroupCollective:
    """The same flows with so many times the bytes."""
    flows = collective.flows
    more = replace(flows, payload_bytes=flows.payload_bytes * factor, share=flows.share * factor)
    return replace(collective, flows=more)


def layer_reductions(
    place: Place, cluster: Cluster, layout: Layout, sizes: Mapping[str, float], links: Links
) -> list[list[dict[str, GroupCollective]]]:
    """The kernels of TP, CP and ETP inside layers, of each pipeline rank and group.

    `sizes` [bytes] are of a block's output, which TP scatters and gathers; of keys and values, which CP
    gathers; and of tokens of experts, which ETP gathers and scatters.
    """
    passes = {"tp": 2, "cp": 1, "etp": 2}
    nccl = load_kernel("nccl")
    rings = [_Ring(place, cluster, nccl, phase) for phase in layer_phases(layout, links.gpus_per_node)]
    by_rank = [
        {
            ring.phase.name: ring.sent(
                rank, passes[what := ring.phase.what] * sizes[what], passes[what] * links.latency_s
            )
            for ring in rings
        }
        for rank in range(place.num_ranks)
    ]
    return [
        [{name: of_rank[group] for name, of_rank in sent.items()} for group in range(place.num_groups)]
        for sent in by_rank
    ]
