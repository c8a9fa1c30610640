"""New weights on their way from training to a deployment: over the network between both, and into the engines.

Broadcast: bucket by bucket, all weights go to every GPU of the deployment by NCCL, whose ring has a step for each of them, and
each GPU takes the bucket in before the next one comes. So the time grows with the number of GPUs by the steps of the ring
alone. Point to point: each GPU gets its own weights from ranks of the update that hold them, all flows at once, and takes them
in. The rest of a layer comes from any rank of the stage that trains it, an expert from any that trains it; receivers take
them in turn. Assumed: bytes leave in the formats of the deployment, and replicas of hot experts come like all others.

Pools apart meet on the fabric that joins them: the ring of a broadcast begins at a node of the update, where nodes of both have as
many GPUs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sim.cluster.collective_library import load_library
from sim.cluster.kernels import load_kernel
from sim.cluster.topology import Cluster, Fabric, Floats, Ints
from sim.engine import executor
from sim.runs.pass_memory import stage_memory
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.scenario.rl_spec import SyncSpec
from sim.scenario.training import Training
from sim.schedule.group_operations import GroupOperation, algorithms, protocols, tuned
from sim.schedule.sends import send_flows
from sim.workload.layout import Layout


@dataclass(frozen=True, slots=True)
class WeightSync:
    """Time of a synchronisation [s], and bytes that each receiving GPU gets over the network [bytes]."""

    time_s: float
    bytes_per_gpu: float


def weight_sync(asked: SyncSpec, rollout: Scenario, rolling: Ints, update: Scenario) -> WeightSync:
    """Bring the weights of a training step to all instances of a rollout, on the GPUs `rolling`."""
    work = rollout.workload
    assert isinstance(work, Inference)
    if asked.mode == "broadcast":
        return _broadcast(asked, rollout, rolling, update)
    most = max(stage.weights_bytes for stage in stage_memory(rollout, work))
    return WeightSync(_sent_s(rollout, rolling, update) + most / asked.apply, most)


# --- point to point ----------------------------------------------------------------------------------------------------


def _sent_s(rollout: Scenario, rolling: Ints, update: Scenario) -> float:
    """Time until every GPU of the deployment has its own weights [s]."""
    cluster, sending, receiving = _both(rollout, rolling, update)
    src, dst, num_bytes = pairs(rollout, len(rolling), update)
    src, dst = sending[src], receiving[dst]
    away = src != dst
    flows = send_flows(cluster, load_kernel("nccl"), src[away], dst[away], 1.0)
    parties = np.concatenate([src[away], dst[away]])
    flows = replace(flows, payload_bytes=num_bytes[away], share=num_bytes[away], party_rank=parties)
    return executor.run_flows(cluster, flows).end_s if len(flows.payload_bytes) else 0.0


def _both(rollout: Scenario, rolling: Ints, update: Scenario) -> tuple[Cluster, Ints, Ints]:
    """One cluster with the GPUs of both, and where in it those of the update and those of the deployment are."""
    shared, fabric = rollout.shared, rollout.fabric
    if shared is None or update.shared is None or shared.own == update.shared.own:
        return rollout.cluster(), update.gpus, rolling
    assert isinstance(fabric, Fabric)
    names = update.shared.own, shared.own
    sending, receiving = (
        shared.ranks(name, gpus, names) for name, gpus in zip(names, (update.gpus, rolling), strict=True)
    )
    return shared.joined(fabric, names), sending, receiving


def pairs(rollout: Scenario, num: int, update: Scenario) -> tuple[Ints, Ints, Floats]:
    """Sending rank of the update, receiving GPU, and bytes, [num_pairs] each; layers are spread evenly over stages."""
    work, training = rollout.workload, update.workload
    assert isinstance(work, Inference)
    assert isinstance(training, Training)
    own, theirs = work.layout, training.layout
    held = stage_memory(rollout, work)
    stage, expert = _place(own)
    sending = theirs.stages()
    holders = [[np.flatnonzero(row) for row in rows] for rows in _holders(theirs)]
    layers, experts = _overlap(own.pp, theirs.pp), _overlap(own.ep, theirs.ep)
    asked = np.zeros((theirs.pp, theirs.ep), dtype=np.int64)  # so far, of each part
    pairs: list[tuple[int, int, float]] = []
    for gpu in range(num):
        at, part = int(stage[gpu % own.num_ranks]), int(expert[gpu % own.num_ranks])
        routed = held[at].routed_experts_bytes
        for p in np.flatnonzero(layers[at]).tolist():
            rest = (held[at].weights_bytes - routed) * layers[at, p]
            pairs.append((int(sending[p, gpu % theirs.stage_ranks]), gpu, rest))
            for k in np.flatnonzero(experts[part]).tolist() if routed else ():
                copies = holders[p][k]
                source = int(copies[asked[p, k] % len(copies)])
                asked[p, k] += 1
                pairs.append((source, gpu, routed * layers[at, p] * experts[part, k]))
    src, dst, num_bytes = zip(*pairs, strict=True)
    return np.array(src), np.array(dst), np.array(num_bytes)


def _place(layout: Layout) -> tuple[Ints, Ints]:
    """Stage of each rank, and its place in its EP group, [num_ranks] each."""
    stage, expert = np.zeros((2, layout.num_ranks), dtype=np.int64)
    for index, ranks in enumerate(layout.stages()):
        stage[ranks] = index
    groups = layout.groups("ep")
    expert[groups] = np.arange(groups.shape[1])
    return stage, expert


def _holders(layout: Layout) -> npt.NDArray[np.bool_]:
    """True where a rank holds an EP place of a stage, [pp, ep, num_ranks]."""
    stage, expert = _place(layout)
    return np.asarray(
        (stage == np.arange(layout.pp)[:, None, None]) & (expert == np.arange(layout.ep)[:, None])
    )


def _overlap(num: int, other: int) -> Floats:
    """Part of each of `num` equal intervals that lies in each of `other` ones, [num, other]."""
    ends, theirs = np.arange(num + 1) * other, np.arange(other + 1) * num
    upto = np.minimum(ends[1:, None], theirs[None, 1:])
    since = np.maximum(ends[:-1, None], theirs[None, :-1])
    return np.asarray(np.maximum(upto - since, 0) / other)


# --- broadcast ---------------------------------------------------------------------------------------------------------


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


def _broadcast(asked: SyncSpec, rollout: Scenario, rolling: Ints, update: Scenario) -> WeightSync:
    hardware, work = rollout.hardware, rollout.workload
    assert hardware is not None
    assert isinstance(work, Inference)
    whole_bytes = _whole_bytes(rollout, work)
    apply_s = whole_bytes / asked.apply
    cluster, sending, gpus = _both(rollout, rolling, update)
    own = rollout.cluster()
    if own.gpus_per_node != update.cluster().gpus_per_node:
        cluster, gpus = own, rolling
    elif cluster.num_gpus > own.num_gpus:
        gpus = np.concatenate([sending[: cluster.gpus_per_node], gpus])
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
