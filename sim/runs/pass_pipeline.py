"""Pipeline stages of a deployment: what a pass takes on each, and when a microbatch has its turn again.

Requests are in as many microbatches as there are stages (fewer where requests are few), each on one stage at a time. A
microbatch goes through all stages, is sent on between them, and its tokens come back to the first; it waits where the
slowest stage has not done the others yet:

    cycle = max(sum of stages + (PP - 1) sends + return, microbatches in flight x slowest stage)

Sends and the return are not hidden behind the compute of their own microbatch, but behind that of others. A stage takes as long
as its slowest EP group. Where faults come and go, that depends on the instant at which a microbatch comes to it: the sum
follows one microbatch from stage to stage, and a stage takes those in flight one after the other from when this one comes.
"""

from __future__ import annotations

import math

import numpy as np

from sim.cluster.kernels import load_kernel
from sim.cluster.topology import Cluster, Floats, Ints
from sim.errors import InfeasibleError
from sim.runs import pass_conditions, passes
from sim.runs.pass_needs import links
from sim.runs.passes import ForwardPass, PassRecord
from sim.runs.step_conditions import dead_at
from sim.schedule.sends import send_flows
from sim.workload.stages import stages

_BF16 = 2.0


def step_s(forward: ForwardPass, record: PassRecord) -> float:
    """Time of a pass that ran, from its embedding until the next of the same microbatch may start [s].

    With one stage until the last rank has sampled. The record is of the layers of all stages, one after the
    other.
    """
    plan, pp = forward.plan, forward.plan.layout.pp
    if pp == 1:
        return _through_s(forward, record)
    stages = _Stages(forward, record)
    now_s, busy_s, sent_s, others_s = record.begin_s, 0.0, 0.0, 0.0
    for stage in range(pp):
        own_s = stages.time_s(stage, now_s)
        taken_s = own_s
        for _ in range(plan.in_flight - 1):
            taken_s += stages.time_s(stage, now_s + taken_s)
        busy_s = max(busy_s, taken_s)
        others_s += own_s - stages.last_s[stage]
        now_s += own_s
        if stage < pp - 1:
            send = send_s(forward, stage, now_s)
            sent_s += send
            now_s += send
    whole_s = _through_s(forward, stages.held(record.begin_s)) + others_s
    return max(whole_s + sent_s + links(plan).latency_s, busy_s)


def _through_s(forward: ForwardPass, record: PassRecord) -> float:
    """Time until the last rank has sampled, of a group that runs all layers [s]."""
    ends_s = passes.ends_s(forward, record.begin_s)
    return float(record.end_s.max()) + ends_s + passes.between_s(forward)


class _Stages:
    """Times of the stages of a pass, by the instant at which a microbatch comes to them.

    Parameters
    ----------
    forward : ForwardPass
    record : PassRecord
        As it ran on the layers of all stages.
    """

    def __init__(self, forward: ForwardPass, record: PassRecord) -> None:
        self.forward, self.record = forward, record
        self.instants = passes.changes_s(forward)
        self.last_s = _stage_s(forward, self.held(record.begin_s).finish_s)
        """Time of each stage by the group that ends last, on whatever stage that is, [pp] [s]."""

    def held(self, time_s: float) -> PassRecord:
        """The pass if all stays as it is at an instant."""
        if not self.instants:
            return self.record
        key = float(np.searchsorted(self.instants, time_s, side="right"))
        if key not in self.forward.held:
            self.forward.held[key] = passes.run(self.forward, time_s, held_s=math.inf)
        return self.forward.held[key]

    def time_s(self, stage: int, begin_s: float) -> float:
        """Time of a microbatch on a stage, from an instant on [s]."""
        held = self.held(begin_s)
        own_s, before_s = _of_stage(self.forward, held, stage)
        change_s = min((at for at in self.instants if at > begin_s), default=math.inf)
        if begin_s + own_s <= change_s and not dead_at(self.forward.plan.scenario.faults, begin_s):
            return own_s
        return _of_stage(self.forward, passes.run(self.forward, begin_s, held_s=before_s), stage)[0]


def send_s(forward: ForwardPass, stage: int = 0, begin_s: float = 0.0) -> float:
    """Time to send the activations of a microbatch from a stage to the next, each rank its part of them [s].

    At the rates of the instant at which it begins, or at which dead links are back.
    """
    plan, rates = forward.plan, links(forward.plan)
    near = plan.layout.near(plan.scenario.gpus_per_node, "pp") == plan.layout.pp
    sent = plan.group_tokens / plan.layout.tp * plan.model.hidden * _BF16
    own_s = sent / (rates.scale_up_bytes_per_s if near else rates.nic_bytes_per_s)
    cluster = forward.collectives.cluster
    if not plan.scenario.faults and not cluster.windows:
        return rates.latency_s + own_s
    ends = plan.scenario.gpus[plan.layout.groups("pp")][:, stage : stage + 2]
    whole = pass_conditions.healthy(plan.scenario).cluster()
    healthy_s = _busiest_s(whole, ends, 0.0)
    for time_s in (begin_s, *(at for at in passes.changes_s(forward) if at > begin_s)):
        slow_s = _busiest_s(cluster, ends, time_s)
        if slow_s < math.inf:
            return rates.latency_s + time_s - begin_s + own_s * slow_s / healthy_s
    raise InfeasibleError(f"activations of stage {stage} never come to the next: a link on their way is dead")


def _busiest_s(cluster: Cluster, ends: Ints, time_s: float) -> float:
    """Time of the busiest link while a byte goes from each GPU to its next one, [num_lanes, 2] [s]."""
    flows = send_flows(cluster, load_kernel("nccl"), ends[:, 0], ends[:, 1], 1.0)
    load = np.bincount(flows.resource, flows.line, len(cluster.capacity))
    used, capacity = load > 0, cluster.capacity_at(time_s)
    return math.inf if not capacity[used].all() else float((load[used] / capacity[used]).max())


def _of_stage(forward: ForwardPass, record: PassRecord, stage: int) -> tuple[float, float]:
    """Time of a stage by the slowest of its groups, and of the layers before it in the same [s]."""
    plan = forward.plan
    stage_of = np.empty(plan.layout.num_ranks, dtype=np.int64)
    stage_of[plan.layout.groups("pp")] = np.arange(plan.layout.pp)
    ends = {
        id(r.nodes): r.nodes.end_s for r in record.ran.records if stage_of[plan.members[r.group, 0]] == stage
    }
    spans = [_stage_s(forward, np.array(own)) for own in ends.values()]
    slowest = max(spans, key=lambda own: float(own[stage]))
    embedded_s = passes.ends(forward)["ends"]["embedding"].time_s if stage else 0.0
    return float(slowest[stage]), max(0.0, float(slowest[:stage].sum()) - embedded_s)


def _stage_s(forward: ForwardPass, finish_s: Floats) -> Floats:
    """Compute and all-to-alls of a microbatch on each stage, [pp] [s]: its layers, and the ends that it has.

    `finish_s` are the ends of the nodes of a group that runs all layers.
    """
    plan = forward.plan
    layer_s = _layer_s(forward, finish_s)
    cut = stages(plan.model, plan.layout.pp)
    spans = np.array([sum(layer_s[layer] for layer in stage.layers) for stage in cut])
    spans[-1] += layer_s[plan.model.num_layers :].sum()
    for part in passes.ends(forward).values():
        for name, launch in part.items():
            spans[0 if name == "embedding" else -1] += launch.time_s
    return spans


def _layer_s(forward: ForwardPass, finish_s: Floats) -> Floats:
    """Time from the end of the layer before to the end of each, those of modules that speculate last, [num_layers] [s]."""
    plan, blocks = forward.plan, forward.plan.blocks
    layer_s = np.zeros(plan.model.num_layers + plan.num_mtp)
    ends = np.zeros(len(blocks.layers))
    for node, finish in zip(plan.program(), finish_s, strict=True):
        if node.layer >= 0:
            ends[node.layer] = max(ends[node.layer], finish)
    for dense in (*blocks.dense_before, blocks.dense_after):
        for layer in dense:
            layer_s[layer] = passes.dense_need(forward, (layer,))[0].mean()
    for layer, dense, span in zip(
        blocks.layers, blocks.dense_before, np.diff(ends, prepend=0.0), strict=True
    ):
        layer_s[layer] = span - sum(layer_s[other] for other in dense)
    return layer_s
