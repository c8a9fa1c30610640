"""One forward pass of a deployment: its nodes in time on each rank of an EP group.

A scenario's routing is drawn for a few layers, which the model's layers take in turn. Its all-to-alls are solved at flow
level (`pass_collectives`), its experts timed at the rows they get (`pass_needs`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from sim.cluster.topology import Floats
from sim.cost import serving_kernels as kernels
from sim.cost.work import Part, Work
from sim.engine.inference import PassRecord, run_pass
from sim.runs.pass_collectives import PassCollectives, collectives_of
from sim.runs.pass_needs import REDUCTION, PassNeeds, common_needs, links, needs_of
from sim.runs.pass_plan import PassPlan
from sim.schedule import inference as plans
from sim.schedule import reductions
from sim.schedule.collectives import KINDS

_BF16 = 2.0


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """A pass, ready to be run: what was asked for, what it moves, and what it computes."""

    plan: PassPlan
    collectives: PassCollectives
    needs: PassNeeds


def forward_pass(plan: PassPlan) -> ForwardPass:
    """Route, solve and time everything that a pass needs.

    Parameters
    ----------
    plan : PassPlan

    Returns
    -------
    ForwardPass
    """
    collectives = collectives_of(plan)
    return ForwardPass(plan, collectives, needs_of(plan, collectives))


def with_context(forward: ForwardPass, context_tokens: int) -> ForwardPass:
    """Give a decode step another mean context.

    Parameters
    ----------
    forward : ForwardPass
    context_tokens : int [count]
        Mean tokens of a request in the cache.

    Returns
    -------
    ForwardPass
        With the same routing, all-to-alls and experts.
    """
    plan = replace(forward.plan, work=replace(forward.plan.work, context_tokens=context_tokens))
    needs = forward.needs
    common, parts = common_needs(plan, needs.processor, forward.collectives.routings[0][0])
    parts, by_part = {**needs.parts, **parts}, {**needs.by_part, **common}
    return replace(forward, plan=plan, needs=replace(needs, parts=parts, by_part=by_part))


def run(forward: ForwardPass) -> PassRecord:
    """Run the nodes of a pass in time.

    Parameters
    ----------
    forward : ForwardPass

    Returns
    -------
    PassRecord
        Without embedding, head and sampling, see `ends`.
    """
    plan = forward.plan
    barrier = KINDS[plan.work.kernel.kind].barrier
    return run_pass(plan.program(), partial(duration_s, forward), plan.ranks, barrier=barrier)


def duration_s(forward: ForwardPass, node: plans.PassNode) -> Floats:
    """Time of a node on each rank [s].

    Parameters
    ----------
    forward : ForwardPass
    node : PassNode
        Of the program of the same pass.

    Returns
    -------
    floats, [num_ranks]
        Compute with the slowness of each GPU. A collective whose sends and receives are launches of their own takes what
        is left of its time on idle links; one next to compute, its slowdown more.
    """
    plan, needs = forward.plan, forward.needs.by_part
    if node.part not in plans.COLLECTIVES:
        takes: Floats = need(forward, node)[0] * plan.slowness
        return takes
    drawn = forward.collectives.draw_idx(node.layer, node.microbatch)
    alone_s = forward.collectives.solved[node.part, *drawn].alone_s
    if plan.has_phases:
        kind = plan.layer_kind(plan.blocks.layers[node.layer])
        held = needs[f"{node.part} send", kind, 0] + needs[f"{node.part} receive", kind, 0]
        flight: Floats = np.maximum(alone_s - held[0], 0.0)
        return flight
    return alone_s * plan.work.kernel.slowdown(node.part) if plan.in_background else alone_s


def need(forward: ForwardPass, node: plans.PassNode) -> Floats:
    """Add up what a compute node takes on healthy GPUs.

    Parameters
    ----------
    forward : ForwardPass
    node : PassNode
        On the compute stream. A node of attention runs the dense layers before it too.

    Returns
    -------
    floats, [3, num_ranks]
        Time [s], FLOPs over their peaks [s] and bytes of HBM.
    """
    blocks, needs = forward.plan.blocks, forward.needs.by_part
    if node.part == "experts":
        return needs["experts", *forward.collectives.draw_idx(node.layer, node.microbatch)]
    if node.part == "dense":
        return dense_need(forward, blocks.dense_after)
    common = needs.get((node.part, forward.plan.layer_kind(blocks.layers[node.layer]), 0))
    if common is None:  # one rank has nothing to send
        return np.zeros((3, forward.plan.ranks))
    if node.part in ("attention", "attention_0") and blocks.dense_before[node.layer]:
        return common + dense_need(forward, blocks.dense_before[node.layer])
    return common


def dense_need(forward: ForwardPass, layers: tuple[int, ...]) -> Floats:
    """Needs of dense layers in a row, attention included, [3, num_ranks] as in `need`."""
    whole = np.zeros((3, forward.plan.ranks))
    for layer in layers:
        whole = whole + forward.needs.by_part["dense", forward.plan.layer_kind(layer), 0]
    return whole


def ends(forward: ForwardPass) -> dict[str, Part]:
    """Launches of embedding, head and sampling (`ends`), and of each module that speculates; TP splits the vocabulary."""
    plan, p, tp = forward.plan, forward.needs.processor, forward.plan.layout.tp
    requests = plan.requests * tp  # of the TP group
    tokens = requests * plan.work.step_tokens

    def group_ends(embedded: float, sampled: float) -> Part:
        part = kernels.ends(p, plan.model, embedded, sampled, tp)
        return part if tp == 1 else {**part, REDUCTION: _gathered(plan, embedded, sampled)}

    launches = {"ends": group_ends(tokens, tokens if plan.decode else requests)}
    for module in range(plan.num_mtp):
        launches[f"speculation {module + 1}"] = {
            **kernels.mtp_join(p, plan.model, plan.requests * plan.work.step_tokens, plan.precision),
            **group_ends(0, requests),
        }
    return launches


def _gathered(plan: PassPlan, embedded: float, sampled: float) -> Work:
    """Rows of the embedding summed over a TP group, and logits brought to the ranks that sample them."""
    rates, group = links(plan), (plan.layout.tp, plan.layout.near(plan.scenario.gpus_per_node, "tp"))
    time_s = reductions.tensor_parallel_s(rates, embedded * plan.model.hidden * _BF16, *group)
    time_s += reductions.scatter_s(rates, sampled * plan.model.vocab * _BF16, *group)
    return Work(REDUCTION, "", 0.0, 0.0, time_s)


def reductions_s(forward: ForwardPass) -> dict[str, float]:
    """Time that each part of a pass waits for its TP group, within its compute [s]; none without TP."""
    plan, parts, by_part = forward.plan, forward.needs.parts, dict[str, float]()
    if plan.layout.tp == 1:
        return by_part
    dense = sum(map(len, plan.blocks.dense_before)) + len(plan.blocks.dense_after)
    nodes = [node.part for node in plan.program() if node.stream == plans.COMPUTE and node.part != "dense"]
    for name in (*nodes, *["dense"] * dense * plan.num_microbatches):
        reduced = parts[name].get(REDUCTION) if name in parts else None
        by_part[name] = by_part.get(name, 0.0) + (reduced.time_s if reduced else 0.0)
    return {**by_part, "ends": sum(part[REDUCTION].time_s for part in ends(forward).values())}
