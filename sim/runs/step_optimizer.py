"""Optimizer of a training step: its update on each pipeline rank, reductions around layers, and what compute hides of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from sim.cluster.hardware import Hardware
from sim.cost.compute import processor
from sim.cost.optimizer import WEIGHT_BYTES, newton_schulz_s, offload_s
from sim.engine.step_records import GroupRecord
from sim.scenario.training import Training
from sim.schedule import reductions
from sim.schedule.operations import CODES
from sim.schedule.stage_times import Sharded
from sim.workload.model import Model, layer_parameters
from sim.workload.shape import Layer
from sim.workload.stages import Stage


def sharded_of(work: Training, model: Model, links: reductions.Links) -> Sharded | None:
    """Reductions of ZeRO-2 and 3 that come with each layer of each microbatch; None under ZeRO-1."""
    optimizer, layout, nodes = work.optimizer, work.layout, links.gpus_per_node
    if not optimizer.shards_gradients:
        return None

    def moved_s(layer: Layer, size: float) -> float:
        count = layer_parameters(model, layer)
        dense, experts = count.others / layout.tp, count.routed / (layout.ep * layout.etp)
        return reductions.scatter_s(
            links, size * dense, layout.dp * layout.cp, layout.near(nodes, "dp", "cp")
        ) + reductions.scatter_s(links, size * experts, layout.expert_dp, layout.near(nodes, "expert_dp"))

    return Sharded(
        gather_s=partial(moved_s, size=WEIGHT_BYTES if optimizer.shards_weights else 0.0),
        scatter_s=partial(moved_s, size=optimizer.gradient_bytes),
        beside=optimizer.overlap,
    )


def updates_s(
    work: Training,
    model: Model,
    hardware: Hardware,
    links: reductions.Links,
    held: Sequence[Sequence[Stage]],
    parameters: Sequence[reductions.HeldParameters],
) -> list[float]:
    """Time of the update of each pipeline rank [s]: at the rate of HBM or on the host, and Muon's products before it."""
    optimizer, layout = work.optimizer, work.layout
    p = processor(hardware, sustained=True, generation=work.spec.gemm_generation)
    times_s = []
    for stages, count in zip(held, parameters, strict=True):
        parts = count.parts(layout)
        if optimizer.offload == "cpu":
            time_s = offload_s(hardware, optimizer, *parts)
        else:
            time_s = reductions.update_s(links, *parts, optimizer)
        products_s = newton_schulz_s(p, model, stages, layout) if optimizer.kind == "muon" else 0.0
        times_s.append(time_s + products_s)
    return times_s


def exposed_s(
    work: Training,
    records: Sequence[GroupRecord],
    ends_s: Sequence[float],
    updates_s: Sequence[float],
    held: Sequence[Sequence[Stage]],
) -> list[float]:
    """Time of the optimizer of each pipeline rank that no compute hides [s].

    `ends_s` are its reductions and update by themselves.
    Notes
    -----
    With `overlap` gradients of a layer are scattered while those of the layers below are computed, in a rank's last backwards, and
    its weights are gathered before the layer is due, in its first forwards. One layer's part of both stays: gradients of the first
    layer come last, and it is due first. Compute is not slowed down by them.
    """
    if not work.optimizer.overlap:
        return list(ends_s)
    free = {record.pipeline_rank: _windows_s(record, len(held[record.pipeline_rank])) for record in records}
    share = work.optimizer.gradient_bytes / (work.optimizer.gradient_bytes + WEIGHT_BYTES)
    exposed = []
    for rank, (end, update) in enumerate(zip(ends_s, updates_s, strict=True)):
        layers = max(1, sum(len(stage.layers) + stage.num_mtp for stage in held[rank]))
        moved = [(end - update) * part for part in (share, 1.0 - share)]
        left = [max(time / layers, time - window) for time, window in zip(moved, free[rank], strict=True)]
        exposed.append(update + sum(left))
    return exposed


def _windows_s(record: GroupRecord, chunks: int) -> tuple[float, float]:
    """Time of the last backward and of the first forward of each of a rank's chunks [s]."""
    tasks = record.tasks
    took = tasks.end_s - tasks.start_s
    backward = np.isin(tasks.kind, [CODES[kind] for kind in ("B", "FB", "B_in")])
    forward = np.isin(tasks.kind, [CODES[kind] for kind in ("F", "FB", "FW")])
    return float(took[backward][-chunks:].sum()), float(took[forward][:chunks].sum())
