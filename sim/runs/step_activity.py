"""Activity of the mean GPU in a training step: what its records leave of the step to tensor cores, memory, communication."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sim.cost.power import Activity
from sim.engine.step_records import GroupRecord
from sim.schedule.training import StageTimes

_PHASES = ("attn_f", "mlp_f", "attn_b", "mlp_b", "attn_w", "mlp_w")


def memory_share(stages: Sequence[StageTimes]) -> float:
    """Part of the compute of some stages, forward and backward, that is launches which only move bytes [fraction]."""
    phases = [getattr(layer, name) for stage in stages for layer in stage.alone for name in _PHASES]
    compute_s = sum(phase.fixed_s + phase.routed_s for phase in phases)
    return sum(phase.memory_s for phase in phases) / compute_s if compute_s else 0.0


def step_activity(
    records: Sequence[GroupRecord],
    memory_fraction: Sequence[float],
    optimizer_s: Sequence[float],
    update_s: Sequence[float],
    step_s: float,
    network: Mapping[str, float],
) -> Activity:
    """Add up what the ranks of a step did.

    Exposed communication and the optimizer's reductions are communication, bubbles idle.
    `memory_fraction` of a rank's compute only moves bytes. `optimizer_s` are reductions and update, `update_s`
    the update alone, which only moves bytes too [pp].
    """
    tensor, memory, communication = [], [], []
    for record in records:
        rank, tasks = record.pipeline_rank, record.tasks
        exposed = float(tasks.exposed_s.sum())
        compute = float((tasks.end_s - tasks.start_s).sum()) - exposed
        tensor.append(compute * (1 - memory_fraction[rank]))
        memory.append(compute * memory_fraction[rank] + update_s[rank])
        communication.append(exposed + max(0.0, optimizer_s[rank] - update_s[rank]))
    return Activity(
        elapsed_s=step_s,
        tensor_s=float(np.mean(tensor)),
        memory_s=float(np.mean(memory)),
        communication_s=float(np.mean(communication)),
        **network,
    )
