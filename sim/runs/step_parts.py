"""Parts of a training step that are known before any time passes: memory, mean routing, collectives, reductions in layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from sim.cluster import topology
from sim.cluster.topology import Floats
from sim.cost.activations import layer_activation_bytes_per_token
from sim.cost.memory import RankMemory, buffer_bytes, memory
from sim.cost.recipe import Recipe
from sim.engine import fluid
from sim.runs.layer_loads import LayerLoads
from sim.scenario.descriptions import Scenario
from sim.scenario.training import Training
from sim.schedule import context_parallel, pipelines, reductions
from sim.schedule.collectives import Collective, record_bytes
from sim.schedule.operations import Pipeline
from sim.schedule.replay import peaks
from sim.workload.attention import GQA, MLA
from sim.workload.model import Model, kv_bytes_per_token
from sim.workload.stages import Stage
from sim.workload.traffic import DIRECTIONS, Routing, payload_bytes

ACTIVATION_BYTES = 2.0
"""Size of an element of an activation sent between stages or between TP ranks [bytes]."""


_ENDS_REDUCE = {"embedding": 0.5, "head": 0.5, "mtp_projection": 1.5}
"""Reductions of the two ends and of a joining projection over those of a block, which gathers one width and scatters one.

The embedding scatters its rows' sums, a head gathers its input; a joining projection gathers two widths, and its output one
(Megatron-LM, `VocabParallelEmbedding`, `multi_token_prediction.py`)."""


def pipeline_of(work: Training, pairs: bool) -> Pipeline:
    """Lay out the schedule, with neighbours of different microbatches joined to `pairs` or alone."""
    schedule = work.spec.schedule
    asked = {"overlap": pairs} if "overlap" in pipelines.SCHEDULES[schedule].options else {}
    return pipelines.plan(schedule, work.layout.pp, work.num_microbatches, **work.schedule_options, **asked)


def memory_of(
    work: Training,
    model: Model,
    pipeline: Pipeline,
    cut: Sequence[Stage],
    routed: LayerLoads,
    gpus_per_node: int,
) -> tuple[RankMemory, ...]:
    """Memory of one GPU at each pipeline rank: of its group's, the one whose experts' loads keep most."""
    recipe = Recipe(compute=work.formats.dense, recompute=work.recompute, optimizer=work.optimizer)
    copies = routed.routing.ranks_per_token
    tokens = work.microbatch_tokens / (work.layout.tp * work.layout.cp)
    received, routes_none = copies * work.layout.etp, replace(model, top_k=0)
    # What a microbatch keeps more or less on each stage because of its routed load, [num_stages, lanes].
    more = np.zeros((len(cut), routed.loads.shape[1]))
    for number, stage in enumerate(cut if routed.uneven else ()):
        for layer in [*stage.layers, *(model.num_layers + i for i in range(stage.num_mtp))]:
            shape = model.layer(min(layer, model.num_layers))
            per_token = layer_activation_bytes_per_token(model, shape, received, recipe)
            per_token -= layer_activation_bytes_per_token(routes_none, shape, 0.0, recipe)
            more[number] += tokens * per_token * (routed.loads[layer] - 1.0)
    fullest = {int(more[list(own)].sum(axis=0).argmax()) for own in pipeline.stages}

    def peak(stage_bytes: Sequence[float]) -> Sequence[float]:
        kept = [peaks(pipeline, (stage_bytes + more[:, lane]).tolist()) for lane in sorted(fullest)]
        return [max(of_rank) for of_rank in zip(*kept, strict=True)]

    rows = memory(
        model,
        work.layout,
        cut,
        pipeline.stages,
        peak if routed.uneven else partial(peaks, pipeline),
        tokens_per_microbatch=work.microbatch_tokens,
        ranks_per_token=copies,
        recipe=recipe,
        gpus_per_node=gpus_per_node,
    )
    if not routed.uneven:
        return rows
    most = copies * float(routed.loads.max())
    buffers = buffer_bytes(model, work.layout, tokens, most, recipe, gpus_per_node)
    return tuple(replace(row, buffers_bytes=buffers) for row in rows)


def slowdown_of(work: Training) -> dict[str, float]:
    """Time of a collective next to compute over its time alone [ratio]."""
    return {direction: work.kernel.slowdown(direction) for direction in DIRECTIONS}


def step_collectives(
    scenario: Scenario, work: Training, model: Model, routing: Routing
) -> dict[str, Collective]:
    """Build the dispatch and combine of one EP group from its mean counts, on the nodes that it spans, without faults."""
    assert scenario.hardware is not None
    assert isinstance(scenario.fabric, topology.Fabric)
    gpus = scenario.gpus[work.layout.groups("ep")[0]]
    nodes = int(gpus.max()) // scenario.part.domain + 1
    cluster = topology.build(scenario.hardware, nodes, scenario.fabric)
    formats = {"dispatch": work.spec.dispatch_dtype, "combine": work.spec.combine_dtype}
    return {
        direction: Collective(
            cluster=cluster,
            kernel=work.kernel,
            direction=direction,
            gpus=gpus,
            routing=routing,
            record_bytes=float(
                record_bytes(work.kernel.kind, direction, dtype, model.routed_width, model.top_k)
            ),
            comm_sms=work.comm_sms,
            **work.options,
        )
        for direction, dtype in formats.items()
    }


def inside_layers_s(
    work: Training, model: Model, links: reductions.Links, ranks_per_token: float
) -> dict[str, float]:
    """Phase of a layer -> its exposed reductions under TP, CP and ETP [s]; "experts(F)" is that of a block with experts.

    TP gathers the input of each block and scatters its output, and their gradients; so for embedding, heads
    and joining projections, each of which has one end in split tokens. CP gathers keys and values for attention,
    again in its backward, and scatters their gradients; "ring(F)" is instead a step of a ring that passes them on, as cores read
    them, and "ring(B)" one that has their gradients too. ETP gathers the tokens that came to the experts of its
    ranks, and scatters results; a token is sent to `ranks_per_token` of the EP group.
    """
    layout, size = work.layout, shared_bytes(work, model, ranks_per_token)
    near = {name: layout.near(links.gpus_per_node, name) for name in ("tp", "cp", "etp")}
    reduced = reductions.tensor_parallel_s(links, size["tp"], layout.tp, near["tp"])
    ring: dict[str, float] = {}
    gathered = 0.0
    if not work.passes_keys_on:
        gathered = context_parallel.context_parallel_s(links, size["cp"], layout.cp, near["cp"])
    else:
        passed = work.microbatch_tokens * read_bytes_per_token(model, layout.tp)
        for half, times in (("F", 1), ("B", 2)):
            ring[f"ring({half})"] = context_parallel.ring_step_s(links, times * passed, layout.cp, near["cp"])
    experts = reduced if layout.reduces_experts(model) else 0.0
    if layout.gathers_experts:
        experts += reductions.tensor_parallel_s(links, size["etp"], layout.etp, near["etp"])
    return {
        "attn(F)": reduced + gathered,
        "mlp(F)": reduced,
        "experts(F)": experts,
        "attn(B)": reduced + 2 * gathered,
        "mlp(B)": reduced,
        "experts(B)": experts,
        **ring,
    } | {f"{end}({half})": part * reduced for end, part in _ENDS_REDUCE.items() for half in "FB"}


def read_bytes_per_token(model: Model, tp: int) -> float:
    """Size of the keys and values of a token that the core of a layer reads on each of `tp` ranks [bytes]."""
    a = model.layer(0).attention
    assert isinstance(a, MLA | GQA)
    heads = a.num_heads if isinstance(a, MLA) else a.num_kv_heads
    return max(1.0, heads / tp) * sum(a.core_dims) * ACTIVATION_BYTES


def links_left(
    links: reductions.Links, collectives: Mapping[str, Collective], pair_s: float
) -> reductions.Links:
    """Rates that the all-to-alls of a layer pair leave to reductions inside it, on average over the compute of the pair.

    Notes
    -----
    A reduction shares a link evenly at worst, so that it never gets less than half of it.
    """
    busy_s = {"scale_up": 0.0, "nic": 0.0}
    for each in collectives.values():
        cluster = each.cluster
        line_s = each.flows().line_by_resource(len(cluster.names)) / cluster.capacity
        busy_s["scale_up"] += 2.0 * float(line_s[cluster.egress[each.gpus]].mean())
        if each.uses_nic:
            busy_s["nic"] += 2.0 * float(line_s[cluster.nic_tx[each.gpus]].mean())
    left = {name: max(0.5, 1.0 - s / pair_s) for name, s in busy_s.items()}
    return replace(
        links,
        scale_up_bytes_per_s=links.scale_up_bytes_per_s * left["scale_up"],
        nic_bytes_per_s=links.nic_bytes_per_s * left["nic"],
    )


def layer_kernels(work: Training, model: Model, gpus_per_node: int) -> dict[str, list[str]]:
    """Phase of a layer -> the kernels of TP, CP and ETP whose times `inside_layers_s` adds up."""
    named = reductions.layer_phases(work.layout, gpus_per_node)
    tp, cp, etp = ([phase.name for phase in named if phase.what == what] for what in ("tp", "cp", "etp"))
    cp = [] if work.passes_keys_on else cp  # next to cores, on links of their own
    experts = (tp if work.layout.reduces_experts(model) else []) + etp
    blocks = {
        f"{name}({half})": calls for half in "FB" for name, calls in (("mlp", tp), ("experts", experts))
    }
    return {"attn(F)": tp + cp, "attn(B)": tp + cp + cp, **blocks}


def shared_bytes(work: Training, model: Model, ranks_per_token: float) -> dict[str, float]:
    """Size of a block's output that TP reduces, of the keys and values that CP gathers, and of the tokens of ETP [bytes].

    Tokens come to experts as they were sent to their ranks, or in BF16 from the ranks of ETP alone; results are BF16. The mean of
    both ways.
    """
    layout = work.layout
    output = work.microbatch_tokens / layout.cp * model.hidden * ACTIVATION_BYTES
    kv = kv_bytes_per_token(model, ACTIVATION_BYTES, layout.tp) / model.num_layers
    tokens = work.microbatch_tokens / (layout.tp * layout.cp) * ranks_per_token * layout.etp
    sent = payload_bytes(work.spec.dispatch_dtype if layout.ep > 1 else "bf16", model.routed_width)
    each = (sent + payload_bytes("bf16", model.routed_width)) / 2
    return {"tp": output, "cp": work.microbatch_tokens * kv, "etp": tokens * each}


def idle_times_s(collective: Collective) -> Floats:
    """Time of each rank of an all-to-all on idle links [s]."""
    flows, capacity = collective.flows(), collective.cluster.capacity
    return fluid.rank_times_s(flows, capacity, len(collective.gpus), collective.latency_s(), often=False)
