"""Who does what in which order, as data: flows, collectives, pipelines, reductions, programs of layers.

A researcher makes a `Collective` on a cluster and asks for its `flows`, its `lower_bound_s` or its `closed_form_s`, writes
flows of its own with `Columns`, lays out a schedule with `plan_pipeline` and times it with `replay_pipeline`, and takes
the reductions of a training step from `Links`, `scatter_s` and `optimizer_s`.
"""

from typing import TYPE_CHECKING

from sim.exports import exported

if TYPE_CHECKING:
    from sim.schedule.alignment import aligned
    from sim.schedule.bounds import busiest, closed_form_s, lower_bound_s
    from sim.schedule.collectives import KINDS as KERNEL_KINDS
    from sim.schedule.collectives import Collective, record_bytes
    from sim.schedule.collectives import Kind as KernelKind
    from sim.schedule.context_parallel import context_parallel_s
    from sim.schedule.flow_list import FlowTable
    from sim.schedule.flow_list import plan as plan_flows
    from sim.schedule.flow_list import read as read_flows
    from sim.schedule.flows import Columns, Flows
    from sim.schedule.group_operations import GroupOperation
    from sim.schedule.group_operations import algorithms as collective_algorithms
    from sim.schedule.group_operations import tuned as tuned_collective
    from sim.schedule.operations import Operation, Pipeline
    from sim.schedule.pipelines import SCHEDULES
    from sim.schedule.pipelines import plan as plan_pipeline
    from sim.schedule.programs import LayerTimes, Node, PhaseTime, compute_s, span_s
    from sim.schedule.reductions import (
        HeldParameters,
        Links,
        Phase,
        optimizer_s,
        scatter_s,
        tensor_parallel_s,
        update_s,
    )
    from sim.schedule.reductions import held as gpu_parameters
    from sim.schedule.reductions import phases as reduction_phases
    from sim.schedule.replay import Replay
    from sim.schedule.replay import peaks as peak_activations
    from sim.schedule.replay import replay as replay_pipeline
    from sim.schedule.sends import send_flows
    from sim.schedule.serving import Pool, Service
    from sim.schedule.stage_times import ChunkWork
    from sim.schedule.stage_times import stage_times as compute_stage_times
    from sim.schedule.step_bound import Least, rank_bounds_s
    from sim.schedule.step_bound import least as least_times
    from sim.schedule.training import StageTimes, Tasks, tasks
    from sim.schedule.zero_bubble import zero_bubble_order

__all__ = [
    "KERNEL_KINDS", "SCHEDULES", "ChunkWork", "Collective", "Columns", "FlowTable", "Flows", "GroupOperation", "HeldParameters",
    "KernelKind", "LayerTimes", "Least", "Links", "Node", "Operation", "Phase", "PhaseTime",
    "Pipeline", "Pool", "Replay", "Service", "StageTimes", "Tasks", "aligned", "busiest", "closed_form_s", "collective_algorithms",
    "compute_s", "compute_stage_times", "context_parallel_s", "gpu_parameters", "least_times",
    "lower_bound_s", "optimizer_s", "peak_activations", "plan_flows", "plan_pipeline", "rank_bounds_s",
    "read_flows", "record_bytes", "reduction_phases", "replay_pipeline", "scatter_s", "send_flows", "span_s",
    "tasks", "tensor_parallel_s", "tuned_collective", "update_s", "zero_bubble_order",
]  # fmt: skip

__getattr__ = exported(__name__, __file__, __all__)
__dir__ = __all__.copy
