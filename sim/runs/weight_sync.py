"""New weights on their way from training to a deployment: over the NICs, and into the engines.

Broadcast: bucket by bucket, all weights go to every GPU of the deployment by NCCL, whose ring has a step for each of them, and
each GPU takes the bucket in before the next one comes. So the time grows with the number of GPUs by the steps of the ring
alone. Point to point: each GPU gets its own weights from those that trained them, all at once, and takes them in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sim.cluster.collective_library import load_library
from sim.cluster.kernels import load_kernel
from sim.cluster.topology import Ints
from sim.engine import executor
from sim.runs.pass_memory import stage_memory
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.scenario.rl_step import SyncSpec
from sim.schedule.group_operations import GroupOperation, algorithms, protocols, tuned


@dataclass(frozen=True, slots=True)
class WeightSync:
    """Time of a synchronisation [s], and bytes that each receiving GPU gets over the network [bytes]."""

    time_s: float
    bytes_per_gpu: float


def weight_sync(asked: SyncSpec, rollout: Scenario, rolling: Ints, update: Scenario) -> WeightSync:
    """Bring the weights of a training step to all instances of a rollout, on the GPUs `rolling`."""
    assert rollout.hardware is not None
    assert update.hardware is not None
    work = rollout.workload
    assert isinstance(work, Inference)
    held = [stage.weights_bytes for stage in stage_memory(rollout, work)]
    if asked.mode == "broadcast":
        return _broadcast(asked, rollout, rolling, _whole_bytes(rollout, work))
    nccl, most, num = load_kernel("nccl"), max(held), len(rolling)
    into = _nic_bytes_per_s(rollout, nccl.nic_efficiency_fraction)
    out = _nic_bytes_per_s(update, nccl.nic_efficiency_fraction)
    everything = num * sum(held) / len(held)
    return WeightSync(max(most / into, everything / (update.num_ranks * out)) + most / asked.apply, most)


def _nic_bytes_per_s(scenario: Scenario, fraction: float) -> float:
    """Rate of a GPU's part of the NICs [bytes/s]."""
    hardware = scenario.hardware
    assert hardware is not None
    if hardware.nic is None:
        return hardware.gpu.scale_up.bandwidth_bytes_per_s
    return hardware.nics_of_gpu * hardware.nic.bandwidth_bytes_per_s * fraction


def _whole_bytes(rollout: Scenario, work: Inference) -> float:
    """All weights in the formats of the deployment, no expert twice [bytes]."""
    model = rollout.model
    assert model is not None
    stages = stage_memory(rollout, work)
    physical = model.num_experts + work.spec.placement.redundant_experts
    own = sum(stage.routed_experts_bytes for stage in stages) * work.layout.ep
    experts = own * work.layout.etp * model.num_experts / physical if physical else 0.0
    rest = sum(stage.weights_bytes - stage.routed_experts_bytes for stage in stages)
    return experts + rest * work.layout.tp


def _broadcast(asked: SyncSpec, rollout: Scenario, gpus: Ints, whole_bytes: float) -> WeightSync:
    hardware, cluster = rollout.hardware, rollout.cluster()
    assert hardware is not None
    apply_s = whole_bytes / asked.apply
    if len(gpus) < 2:
        return WeightSync(apply_s, whole_bytes)
    library, kernel = load_library(), load_kernel("nccl")
    able = [
        name
        for name in algorithms("broadcast", gpus, hardware, cluster.gpus_per_node)
        if name != "hierarchical"
    ]
    bucket = min(asked.bucket, whole_bytes)
    operation = tuned(
        [
            GroupOperation(cluster, hardware, library, kernel, "broadcast", bucket, gpus, name, protocol)
            for name in able
            for protocol in protocols(name)
        ]
    )
    each_s = executor.run_together(cluster, "broadcast", [operation]).end_s
    return WeightSync(math.ceil(whole_bytes / bucket) * each_s + apply_s, whole_bytes)
