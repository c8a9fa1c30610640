"""Pipeline stages of a deployment: what a pass takes on each, and when a microbatch has its turn again.

Requests are in as many microbatches as there are stages (fewer where requests are few), each on one stage at a time. A
microbatch goes through all stages, is sent on between them, and its tokens come back to the first; it waits where the
slowest stage has not done the others yet:

    cycle = max(sum of stages + (PP - 1) sends + return, microbatches in flight x slowest stage)

Sends and the return are not hidden behind the compute of their own microbatch, but behind that of others.
"""

from __future__ import annotations

import numpy as np

from sim.cluster.topology import Floats
from sim.cost.work import total_s
from sim.runs import passes
from sim.runs.pass_needs import links
from sim.runs.passes import ForwardPass, PassRecord
from sim.workload.stages import stages

_BF16 = 2.0


def step_s(forward: ForwardPass, record: PassRecord) -> float:
    """Time of a pass that ran, from its embedding until the next of the same microbatch may start [s].

    With one stage until the last rank has sampled. The record is of the layers of all stages, one after the
    other.
    """
    plan = forward.plan
    whole_s = float(record.end_s.max()) + sum(total_s(part) for part in passes.ends(forward).values())
    whole_s += passes.between_s(forward)
    if plan.layout.pp == 1:
        return whole_s
    through_s = whole_s + (plan.layout.pp - 1) * send_s(forward) + links(plan).latency_s
    return max(through_s, plan.in_flight * float(stage_s(forward, record).max()))


def send_s(forward: ForwardPass) -> float:
    """Time to send the activations of a microbatch to the next stage, each rank its part of them [s]."""
    plan, rates = forward.plan, links(forward.plan)
    near = plan.layout.near(plan.scenario.gpus_per_node, "pp") == plan.layout.pp
    sent = plan.group_tokens / plan.layout.tp * plan.model.hidden * _BF16
    return rates.latency_s + sent / (rates.scale_up_bytes_per_s if near else rates.nic_bytes_per_s)


def stage_s(forward: ForwardPass, record: PassRecord) -> Floats:
    """Compute and all-to-alls of a microbatch on each stage, [pp] [s]: its layers, and the ends that it has."""
    plan = forward.plan
    layer_s = _layer_s(forward, record)
    cut = stages(plan.model, plan.layout.pp)
    spans = np.array([sum(layer_s[layer] for layer in stage.layers) for stage in cut])
    spans[-1] += layer_s[plan.model.num_layers :].sum()
    for part in passes.ends(forward).values():
        for name, launch in part.items():
            spans[0 if name == "embedding" else -1] += launch.time_s
    return spans


def _layer_s(forward: ForwardPass, record: PassRecord) -> Floats:
    """Time from the end of the layer before to the end of each, those of modules that speculate last, [num_layers] [s]."""
    plan, blocks = forward.plan, forward.plan.blocks
    layer_s = np.zeros(plan.model.num_layers + plan.num_mtp)
    ends = np.zeros(len(blocks.layers))
    for node, finish in zip(plan.program(), record.finish_s, strict=True):
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
