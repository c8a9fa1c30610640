"""Compute of a forward pass: the launches of each part of a layer, and what they take on each rank.

Experts are timed at the rows that each draw of the routing gives a rank. Where counts are means and tokens few, a rank's
experts are as many as are expected to get a token at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sim.cluster.kernels import load_kernel
from sim.cluster.topology import Floats
from sim.cost import prefill
from sim.cost import serving_kernels as kernels
from sim.cost.attention_launches import added_up
from sim.cost.compute import Processor, processor
from sim.cost.curves import load_curves
from sim.cost.launches import FP32, RankBatch
from sim.cost.shares import shared
from sim.cost.work import Part, Work, dense_peaks, hbm_bytes, launch_work, least_s, part, total_s
from sim.runs.pass_collectives import PassCollectives, pass_record_bytes
from sim.runs.pass_plan import PassPlan
from sim.schedule import context_parallel, reductions
from sim.schedule import inference as plans
from sim.schedule.collectives import KINDS
from sim.schedule.direct_reads import direct_all_reduce_s
from sim.workload.attention import MLA, Attention, Recurrent
from sim.workload.expectation import rows_of_touched
from sim.workload.layout import split_experts
from sim.workload.traffic import Routing, payload_bytes

CORE = "attention core"
"""Name of the core among the launches of a part."""
REDUCTION = "collectives inside layers"
"""Name of what groups of TP, CP and ETP gather and add up among the launches of a part."""
WITH_CORE = ("attention", "attention_1", "dense")
"""Parts that hold the core of attention, where a layer has one."""
DIRECT_BYTES = 8 * 2**20
"""Most of a buffer that GPUs of a node sum by reading each other's memory: `max_size` of vLLM's and SGLang's CustomAllreduce."""
Needs = dict[tuple[str, int, int], Floats]


@dataclass(frozen=True, slots=True)
class PassNeeds:
    """Launches of a pass, and what they take.

    Parameters
    ----------
    processor : Processor
        SMs and HBM rate that collectives leave to compute.
    parts : mapping of part to its launches
        Of one layer and microbatch, on a mean rank.
    by_part : mapping of (part, layer draw, microbatch draw) to floats, [3, num_ranks]
        Time [s], FLOPs over their peaks [s] and bytes of HBM. The key of a part that is the same on every rank is
        (part, `PassPlan.layer_kind`, 0).
    """

    processor: Processor
    parts: Mapping[str, Part]
    by_part: Mapping[tuple[str, int, int], Floats]


def needs_of(plan: PassPlan, collectives: PassCollectives) -> PassNeeds:
    """Time the compute of a pass, whose routing decides the rows of experts.

    In an overlapped prefill the collectives take their share of the HBM rate first.
    """
    p, mean = processor_of(plan), collectives.routings[0][0]
    common, parts = common_needs(plan, p, mean)
    if not plan.decode and plan.work.spec.overlap and plan.ranks > 1:
        compute_s = sum(total_s(launches) for launches in parts.values())
        compute_s += float(experts_needs(plan, p, mean)[0].mean())
        p = replace(p, hbm_bytes_per_s=p.hbm_bytes_per_s * _hbm_share(plan, mean, compute_s))
        common, parts = common_needs(plan, p, mean)
    experts = {
        ("experts", layer, microbatch): experts_needs(plan, p, routing)
        for layer, row in enumerate(collectives.routings)
        for microbatch, routing in enumerate(row)
    }
    return PassNeeds(p, {**parts, "experts": mean_experts(plan, p, mean)}, common | experts)


def common_needs(plan: PassPlan, p: Processor, routing: Routing) -> tuple[Needs, dict[str, Part]]:
    """Time what takes every rank the same, all parts but the routed experts, as `PassNeeds.by_part`.

    With it the launches of the first layer with experts, and of the first without. The processor has the SMs
    and HBM rate that are left to compute; routing counts the copies of a token, for sends and receives.
    """
    needs: Needs = {}
    shown: dict[str, Part] = {}
    for kind in sorted({*map(plan.layer_kind, range(plan.model.num_layers + plan.num_mtp))}):
        parts = _parts(plan, p, routing, kind)
        shown = {**parts, **shown}
        needs |= {
            (name, kind, 0): np.tile(np.array([_need(plan, launches)]).T, plan.ranks)
            for name, launches in parts.items()
        }
    return needs, shown


def processor_of(plan: PassPlan, *, lends: bool | None = None) -> Processor:
    """SMs left to compute: those of its collectives are lent where the batch overlaps, or as `lends` says.

    Prefill runs at the clock of long load; in decode tensor cores mostly wait.
    """
    work, sms = plan.work, plan.hardware.gpu.sms
    if lends is None:
        lends = bool(work.spec.overlap) and plan.ranks > 1
    free = sms - work.comm_sms if lends else sms
    return processor(plan.hardware, sms=free, sustained=not plan.decode, generation=work.spec.gemm_generation)


def _need(plan: PassPlan, launches: Part) -> tuple[float, float, float]:
    return total_s(launches), least_s(launches, dense_peaks(plan.hardware.gpu)), hbm_bytes(launches)


def _hbm_share(plan: PassPlan, routing: Routing, compute_s: float) -> float:
    """HBM rate that the collectives of one layer leave while a microbatch computes, over all of it [fraction]."""
    received = routing.ranks_per_token * plan.sent(routing).tokens_per_rank
    touched = sum(
        plan.work.kernel.hbm_touches[name] * pass_record_bytes(plan, name) for name in plans.COLLECTIVES
    )
    rate = plan.hardware.gpu.hbm.bandwidth_bytes_per_s
    return max(0.1, 1.0 - received * touched / (compute_s * rate))


def _parts(plan: PassPlan, p: Processor, routing: Routing, layer: int) -> dict[str, Part]:
    """Launches of each part of a layer with experts; of one without all in `dense`."""
    parts = _decode_parts(plan, p, layer) if plan.decode else _prefill_parts(plan, p, layer)
    attention = plan.model.layer(layer).attention
    for name, times in _reductions(plan, attention is not None).items():
        gathers = plan.layout.cp > 1 and attention is not None and name in WITH_CORE
        if name in parts and ((times and plan.layout.tp > 1) or gathers):
            time_s = times * tensor_parallel_s(plan)
            if gathers and plan.passes_keys_on:
                assert attention is not None
                core_s = sum(
                    parts[name][core].time_s for core in (CORE, prefill.KV_UP) if core in parts[name]
                )
                time_s += _ring_s(plan, attention, core_s)
                parts[name] = part(*parts[name].values(), *_added_up(plan, p, attention))
            elif gathers:
                time_s += context_parallel_s(plan, attention)
            reduced = Work(REDUCTION, "", 0.0, 0.0, time_s, times * (plan.layout.tp > 1) + gathers)
            parts[name] = {**parts[name], REDUCTION: reduced}
    if plan.has_phases and "dense" not in parts:
        # Of the busiest rank, which has all of its tokens.
        copies = float(plan.sent(routing).selections_to_rank.sum() / plan.ranks) / plan.share
        for name in plans.COLLECTIVES:
            record = pass_record_bytes(plan, name)
            send, receive = kernels.phases(p, copies, plan.tokens, plan.model.routed_width, record, name)
            parts[f"{name} send"], parts[f"{name} receive"] = {"send": send}, {"receive": receive}
    return parts


def _decode_parts(plan: PassPlan, p: Processor, layer: int) -> dict[str, Part]:
    model, batch = plan.model, plan.decode_batch("attention")
    first = kernels.decode_attention_0(p, model, batch, layer)
    if model.is_dense(layer):
        second = kernels.decode_attention_1(p, model, batch, layer, gated=False)
        has_block = model.layer(layer).mlp == "dense"
        block = kernels.decode_dense(p, model, plan.decode_batch("dense")) if has_block else {}
        return {"dense": part(*first.values(), *second.values(), *block.values())}
    return {
        "attention_0": first,
        "attention_1": kernels.decode_attention_1(p, model, batch, layer),
        "shared": kernels.decode_shared(p, model, plan.decode_batch("shared")),
    }


def _prefill_parts(plan: PassPlan, p: Processor, layer: int) -> dict[str, Part]:
    model, batch, core_s = plan.model, plan.prefill_batch("attention"), plan.layer_core_s(p, layer)
    if model.is_dense(layer):
        own = prefill.prefill_attention(p, model, batch, layer, gated=False, core_s=core_s)
        has_block = model.layer(layer).mlp == "dense"
        block = prefill.prefill_dense(p, model, plan.prefill_batch("dense")) if has_block else {}
        return {"dense": part(*own.values(), *block.values())}
    return {
        "attention": prefill.prefill_attention(p, model, batch, layer, core_s=core_s),
        "shared": prefill.prefill_shared(p, model, plan.prefill_batch("shared")),
    }


def _reductions(plan: PassPlan, has_attention: bool) -> dict[str, int]:
    """Part -> reductions over a TP group: of attention's output, and of a feed-forward block's where the group splits it."""
    split = plan.layout.reduces_experts(plan.model, shared_whole=plan.work.shared_tp == 1)
    own = int(has_attention)
    return {"attention": own, "attention_1": own, "dense": 1 + own, "shared": int(split)}


def tensor_parallel_s(plan: PassPlan, tokens: float | None = None) -> float:
    """All-reduce of a block's output over a TP group, of its tokens or of so many [s].

    All-gather and reduce-scatter, within nodes and between them; in a node GPUs may read each other's memory instead.
    """
    tp, rates = plan.layout.tp, links(plan)
    size = (plan.group_tokens if tokens is None else tokens) * plan.model.hidden * 2.0
    near = plan.layout.near(plan.scenario.gpus_per_node, "tp")
    ring_s = reductions.tensor_parallel_s(rates, size, tp, near)
    if size > DIRECT_BYTES or near < tp or tp == 1:
        return ring_s
    return min(ring_s, direct_all_reduce_s(rates, size, tp, load_curves().streaming.launch_s))


def context_parallel_s(plan: PassPlan, a: Attention | None) -> float:
    """Time of what a CP group gathers around the core of a layer [s]; nothing hides it.

    Notes
    -----
    Prefill: every rank gathers the keys and values, or latents, of the prompts of all, cached ones too; of a window the last of them
    before each part, and of a recurrence its states. Decode: every rank gathers the queries of all and attends to its part of their
    caches; results, each with the sum of its softmax, are scattered and added up.

    References
    ----------
    Context parallelism with all-gathered keys and values: Llama 3, arXiv 2407.21783, section 3.3.2. Decode: vLLM's decode context
    parallel, and Helix parallelism, arXiv 2507.07120.
    """
    layout, requests = plan.layout, plan.microbatch_requests * plan.layout.tp * plan.layout.cp
    if a is None:
        return 0.0
    near, rates = layout.near(plan.scenario.gpus_per_node, "cp"), links(plan)
    if not plan.decode:
        context = plan.work.step_tokens + plan.cached_tokens
        states = a.state_bytes / min(layout.tp, a.num_cached_heads)
        size = requests * (_gathered_bytes(plan, a, context) + states)
        return reductions.scatter_s(rates, size, layout.cp, near)
    if isinstance(a, Recurrent):
        return 0.0
    rows = plan.group_tokens * layout.cp * a.num_heads / layout.tp
    query, value = (a.latent_dim, a.kv_lora_rank) if isinstance(a, MLA) else a.core_dims
    asked, answered = rows * query * 2.0, rows * (value * 2.0 + FP32)
    return reductions.scatter_s(rates, asked, layout.cp, near) + reductions.scatter_s(
        rates, answered, layout.cp, near
    )


def _ring_s(plan: PassPlan, a: Attention, core_s: float) -> float:
    """Time by which the ring of a CP group is longer than the core of a layer, keys in the cache going round too [s]."""
    context = plan.work.step_tokens + plan.cached_tokens
    requests = plan.microbatch_requests * plan.layout.tp * plan.layout.cp
    return _ring_exposed_s(plan, links(plan), requests * _gathered_bytes(plan, a, context), core_s)


def _ring_exposed_s(plan: PassPlan, rates: reductions.Links, size: float, core_s: float) -> float:
    """Time by which a ring that passes so many bytes of keys and values on is longer than a core next to it [s]."""
    cp, near = plan.layout.cp, plan.layout.near(plan.scenario.gpus_per_node, "cp")
    return context_parallel.ring_exposed_s(context_parallel.ring_step_s(rates, size, cp, near), core_s, cp)


def _added_up(plan: PassPlan, p: Processor, a: Attention) -> list[Work]:
    """Launches that add up the results of the blocks of keys that came round a ring."""
    batch = RankBatch(1, plan.group_tokens, blocks=plan.layout.cp)
    return [launch_work(p, op) for op in shared(added_up(a, batch, "F"), plan.layout.tp, 1)]


def cache_gather_s(plan: PassPlan, a: Attention, cached_tokens: int, core_s: float) -> float:
    """Time by which a gather of CP is longer for what a prompt has in the cache, in a layer of which the core takes `core_s` [s].

    A ring is longer by what the core leaves of its steps.
    """
    rates, size = replace(links(plan), latency_s=0.0), _gathered_bytes(plan, a, cached_tokens)
    if plan.passes_keys_on:
        return _ring_exposed_s(plan, rates, size, core_s)
    near = plan.layout.near(plan.scenario.gpus_per_node, "cp")
    return reductions.scatter_s(rates, size, plan.layout.cp, near)


def _gathered_bytes(plan: PassPlan, a: Attention, context_tokens: int) -> float:
    """Keys and values of a prompt that a rank of CP gathers, its own part included: of its heads, and of a window the last."""
    kept = min(context_tokens, plan.layout.cp * a.kept_tokens(context_tokens))
    return kept * a.cache_bytes(plan.formats.cache.element_bytes) / min(plan.layout.tp, a.num_cached_heads)


def links(plan: PassPlan) -> reductions.Links:
    """Rates and latencies that reductions and sends of a pass achieve."""
    achieved = reductions.Links.achieved(plan.hardware, load_kernel("nccl"))
    return replace(achieved, gpus_per_node=plan.scenario.gpus_per_node)


def experts_needs(plan: PassPlan, p: Processor, routing: Routing) -> Floats:
    """Needs of the routed experts of every rank, [3, num_ranks] as in `PassNeeds.by_part`; ranks with the same rows share one answer."""
    rows, received = _expert_rows(plan, routing), routing.tokens_to_rank.sum(axis=0)
    expected = float(routing.selections_to_physical.mean())
    known: dict[tuple[int, ...], tuple[float, float, float]] = {}
    needs = np.empty((3, plan.ranks))
    for rank in range(plan.ranks):
        key = (*sorted(round(r) for r in rows[rank]), round(received[rank]))
        if key not in known:
            known[key] = _need(plan, _experts(plan, p, key[:-1], float(key[-1]), expected))
        needs[:, rank] = known[key]
    return needs


def experts_s(plan: PassPlan, p: Processor, routing: Routing) -> float:
    """Time of the routed experts of the rank that has most to do, in one layer and microbatch [s]."""
    return float(experts_needs(plan, p, routing)[0].max())


def mean_experts(plan: PassPlan, p: Processor, routing: Routing) -> Part:
    """Launches of the routed experts of a rank with the mean number of experts that have rows, each with the mean number of these."""
    rows = np.concatenate(_expert_rows(plan, routing))
    rows = rows[rows > 0]
    each = (round(rows.mean()),) * round(len(rows) / plan.ranks)
    received = float(routing.tokens_to_rank.sum(axis=0).mean())
    return _experts(plan, p, each, received, float(routing.selections_to_physical.mean()))


def _expert_rows(plan: PassPlan, routing: Routing) -> list[Floats]:
    """Rows of the experts of each rank that have any, [num_ranks][num_experts_per_rank]."""
    rows = list(routing.selections_to_physical.reshape(plan.ranks, -1))
    if plan.sampling != "expected":
        return rows
    tokens = routing.tokens_per_rank * plan.ranks
    return rows_of_touched(np.array(rows), tokens, evenly=plan.work.gate.kind == "balanced")


def _experts(plan: PassPlan, p: Processor, rows: tuple[int, ...], received: float, expected: float) -> Part:
    model = split_experts(plan.model, plan.layout.etp)
    if plan.decode:
        own = kernels.decode_experts(p, model, plan.formats.experts, rows, expected)
    else:
        own = prefill.prefill_experts(p, model, plan.prefill_batch("experts"), rows, received)
    if not plan.gathers_experts:
        return own
    copies = sum(rows) if KINDS[plan.work.kernel.kind].counts_selections and plan.ranks > 1 else received
    return {**own, REDUCTION: Work(REDUCTION, "", 0.0, 0.0, expert_tensor_parallel_s(plan, copies), 2)}


def expert_tensor_parallel_s(plan: PassPlan, copies: float) -> float:
    """Time in which an ETP group gathers the tokens that came to its ranks, and scatters the sums of their results [s].

    `copies` of tokens, on all ranks of the group together, are as they were sent, or BF16 from the ranks alone.
    """
    near, spec = plan.layout.near(plan.scenario.gpus_per_node, "etp"), plan.work.spec
    formats = (spec.dispatch_dtype if plan.ranks > 1 else "bf16", "bf16")
    return sum(
        reductions.scatter_s(
            links(plan), copies * payload_bytes(dtype, plan.model.routed_width), plan.layout.etp, near
        )
        for dtype in formats
    )
