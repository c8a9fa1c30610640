"""Run one optimizer step: stages, schedule, exchanges and reductions become tasks, run in simulated time, measured.

Phases are those of the published step table (ISCA'25 DeepSeek-V3 paper, Table 4, arXiv 2505.09343), read as one pipeline
rank's timeline: 1F, 1B, 1W the forwards, backwards and weight parts that run alone, 1F1B the overlapped pairs, opt the
optimizer, and the bubble what is left of the step. `phases` is rank 0, `phases_mean` the mean over pipeline ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from sim.cluster import topology
from sim.cluster.kernels import load_kernel
from sim.cost.memory import RankMemory, Recipe, memory, require_fit
from sim.engine.step_costs import StepCosts
from sim.engine.training import GroupRecord, StepPlan, run_step
from sim.schedule import pipelines, reductions
from sim.schedule.collectives import Exchange
from sim.schedule.operations import Pipeline
from sim.schedule.replay import peaks
from sim.schedule.stage_times import ChunkWork, stage_times
from sim.schedule.training import tasks
from sim.study import kernel_list
from sim.study.descriptions import Scenario, Training
from sim.workload.model import GQA, MLA, Model, training_flops_per_token
from sim.workload.placement import contiguous
from sim.workload.stages import Stage, held_parameters, stages
from sim.workload.traffic import Routing, record_bytes, route

_PHASES = {"F": "1F_s", "B": "1B_s", "B_in": "1B_s", "W": "1W_s", "FB": "1F1B_s"}
_MOST_LANES = 256
_BYTES = 2.0  # of an activation between stages
_TASKS_KEPT = 3  # of each kind, in full, in each rank group's timeline


def run_training(scenario: Scenario, progress: Callable[[str], None]) -> dict[str, Any]:
    """Metrics, memory and timeline of a training scenario. Raises `InfeasibleError` where memory overflows."""
    work, model, hardware = scenario.workload, scenario.model, scenario.hardware
    assert isinstance(work, Training)
    assert model is not None
    assert hardware is not None
    layout = work.layout
    pipeline = pipelines.plan(work.schedule, layout.pp, work.num_microbatches, **work.schedule_options)
    cut = stages(model, pipeline.num_stages, num_layers=work.stage_layers)
    progress(f"{scenario.name}: memory")
    routing = routing_of(scenario, work, model)
    held = memory_of(work, model, pipeline, cut, routing.ranks_per_token, scenario.gpus_per_node)
    require_fit(held, hardware.gpu.hbm.capacity_bytes, hardware.title)
    progress(f"{scenario.name}: stages and exchanges")
    exchanges = exchanges_of(scenario, work, model, routing)
    nccl = replace(reductions.Links.of(hardware, load_kernel("nccl")), gpus_per_node=scenario.gpus_per_node)
    one_node = layout.num_ranks <= scenario.gpus_per_node
    tokens = work.sequences * work.sequence_tokens / (layout.tp * layout.cp)
    slowdown = work.kernel.beside_compute_slowdown
    apart = (
        layout.ep == 1
    )  # without exchanges nothing joins the ranks of a stage: they are lanes of one group
    num_groups = 1 if apart or work.skew.balanced else layout.expert_dp
    costs = StepCosts(
        exchanges,
        {"dispatch": slowdown.dispatch, "combine": slowdown.combine},
        work.skew,
        num_groups=num_groups,
        num_layers=model.num_layers + model.num_mtp_layers,
        num_microbatches=work.num_microbatches,
        seed=scenario.seed,
        lanes=min(layout.expert_dp, _MOST_LANES) if apart else None,
    )
    times = stage_times(
        ChunkWork(
            model, layout, work.sequences, work.sequence_tokens, routing.ranks_per_token, work.precision
        ),
        cut,
        hardware,
        work.kernel,
        comm_sms=work.comm_sms if work.overlap else 0,
        generation=work.generation,
        exposed_s=_inside_layers_s(work, model, nccl),
        recompute=work.recompute,
        measured=work.measured,
    )
    send_bytes = tokens * model.hidden * _BYTES
    plan = StepPlan(
        tasks=tasks(pipeline, times, partial(costs.mean_s, overlapped=True), overlap=work.overlap),
        num_groups=num_groups,
        lanes=costs.lanes,
        costs=costs,
        speed=costs.speeds(layout.pp, num_groups),
        send_s=send_bytes / (nccl.scale_up_bytes_per_s if one_node else nccl.nic_bytes_per_s),
        send_bytes=send_bytes,
    )
    progress(f"{scenario.name}: the step, {sum(map(len, plan.tasks))} operations on {layout.num_ranks} GPUs")
    records = run_step(plan, keep_tasks=_TASKS_KEPT)
    optimizer = [_optimizer_s(work, model, cut, pipeline.stages[rank], nccl) for rank in range(layout.pp)]
    metrics = _metrics(scenario, work, model, records, optimizer)
    metrics["memory_peak_bytes"] = max(row.total_bytes for row in held)
    metrics["memory_capacity_bytes"] = hardware.gpu.hbm.capacity_bytes
    return {
        "metrics": metrics,
        "memory": [{"rank": row.rank, **row.parts()} for row in held],
        "stages": [str(stage) for stage in cut],
        "timeline": _timeline(records, metrics["step_time_s"]) | {"optimizer_s": optimizer},
        "exchanges": {} if apart else _exchange_facts(costs, exchanges),
        "links": {},
        **kernel_list.of_training(hardware, model, work, routing.ranks_per_token),
    }


def memory_of(
    work: Training,
    model: Model,
    pipeline: Pipeline,
    cut: Sequence[Stage],
    ranks_per_token: float,
    gpus_per_node: int,
) -> tuple[RankMemory, ...]:
    """Memory of one GPU at each pipeline rank."""
    return memory(
        model,
        work.layout,
        cut,
        pipeline.stages,
        partial(peaks, pipeline),
        tokens_per_microbatch=work.sequences * work.sequence_tokens,
        ranks_per_token=ranks_per_token,
        recipe=Recipe(compute="fp8" if work.precision == "fp8" else "bf16", recompute=work.recompute),
        gpus_per_node=gpus_per_node,
    )


def routing_of(scenario: Scenario, work: Training, model: Model) -> Routing:
    """Mean counts of one EP group; the spread of routed loads around them is the step's skew."""
    tokens = work.sequences * work.sequence_tokens // (work.layout.tp * work.layout.cp)
    return route(
        work.gate,
        contiguous(model.num_experts, work.layout.ep),
        top_k=model.top_k,
        tokens_per_rank=max(1, tokens),
        ranks_per_node=scenario.gpus_per_node,
        sampling="expected",
        rng=np.random.default_rng([scenario.seed, 0]),
    )


def exchanges_of(scenario: Scenario, work: Training, model: Model, routing: Routing) -> dict[str, Exchange]:
    """Dispatch and combine of one EP group, on the nodes that it spans."""
    assert scenario.hardware is not None
    assert isinstance(scenario.fabric, topology.Fabric)
    nodes = -(-work.layout.ep // scenario.hardware.gpu.scale_up.domain)
    cluster = topology.build(scenario.hardware, nodes, scenario.fabric, comm_sms=work.comm_sms)
    formats = {"dispatch": work.dispatch_dtype, "combine": work.combine_dtype}
    return {
        direction: Exchange(
            cluster=cluster,
            kernel=work.kernel,
            direction=direction,
            gpus=np.arange(work.layout.ep),
            routing=routing,
            record_bytes=float(record_bytes(work.kernel.name, direction, dtype, model.hidden, model.top_k)),
            comm_sms=work.comm_sms,
            **work.options,
        )
        for direction, dtype in formats.items()
    }


def _inside_layers_s(work: Training, model: Model, links: reductions.Links) -> dict[str, float]:
    """Phase of a layer -> its exposed reductions under TP and CP [s].

    TP reduces the output of each block, and its gradient. CP gathers keys and values for attention, again in its
    backward, and scatters their gradients.
    """
    layout = work.layout
    tokens = work.sequences * work.sequence_tokens / layout.cp
    reduced = reductions.tensor_parallel_s(links, tokens * model.hidden * _BYTES, layout.tp)
    a = model.attention
    shared_heads = (
        2 * a.num_kv_heads * a.head_dim / min(layout.tp, a.num_kv_heads) if isinstance(a, GQA) else 0.0
    )
    width = a.kv_lora_rank + a.qk_rope_head_dim if isinstance(a, MLA) else shared_heads
    kv = work.sequences * work.sequence_tokens * width * _BYTES
    gathered = reductions.context_parallel_s(links, kv, layout.cp, layout.tp)
    return {
        "attn(F)": reduced + gathered,
        "mlp(F)": reduced,
        "attn(B)": reduced + 2 * gathered,
        "mlp(B)": reduced,
    }


def _optimizer_s(
    work: Training, model: Model, cut: Sequence[Stage], held: Sequence[int], links: reductions.Links
) -> float:
    layout, count = work.layout, held_parameters(model, [cut[i] for i in held])
    return reductions.optimizer_s(
        links,
        dense_parameters=(count.layers + count.embedding + count.head) / layout.tp,
        expert_parameters=count.experts / layout.ep,
        dp=layout.dp * layout.cp,
        expert_dp=layout.expert_dp,
        ep=layout.ep,
        dense_stride=layout.tp,
    )


def _metrics(
    scenario: Scenario,
    work: Training,
    model: Model,
    records: Sequence[GroupRecord],
    optimizer: Sequence[float],
) -> dict[str, Any]:
    """See the module docstring; every time in seconds."""
    assert scenario.hardware is not None
    layout, gpu = work.layout, scenario.hardware.gpu
    end = max(float(np.max(record.end_s)) for record in records)
    step = end + max(optimizer)
    rows = [_phases(record, step, optimizer[record.pipeline_rank]) for record in records]
    first = [row for row, record in zip(rows, records, strict=True) if record.pipeline_rank == 0]
    tokens = layout.dp * work.num_microbatches * work.sequences * work.sequence_tokens
    causal = training_flops_per_token(model, work.sequence_tokens, causal=True)
    full = training_flops_per_token(model, work.sequence_tokens, causal=False)
    peak = gpu.dense_flops.of("bf16")
    fastest = (gpu.dense_flops.fp8 if work.precision == "fp8" else None) or peak
    per_gpu = tokens / step / layout.num_ranks
    metrics: dict[str, Any] = {
        "step_time_s": step,
        "lower_bound_s": causal * tokens / (layout.num_ranks * fastest),
        "bubble_s": _mean(first, "bubble_s"),
        "exposed_comm_s": float(
            np.mean([sum(t.exposed_s for t in r.tasks) for r in records if r.pipeline_rank == 0])
        ),
        "barrier_wait_s": float(
            np.mean([sum(t.barrier_s for t in r.tasks) for r in records if r.pipeline_rank == 0])
        ),
        "optimizer_s": _mean(first, "opt_s"),
        "phases": {name: _mean(first, name) for name in rows[0]},
        "phases_mean": {name: _mean(rows, name) for name in rows[0]},
        "tokens_per_step": tokens,
        "tokens_per_s_per_gpu": per_gpu,
        "tokens_per_day": tokens / step * 86_400,
        "mfu_causal_fraction": causal * per_gpu / peak,
        "mfu_noncausal_fraction": full * per_gpu / peak,
    }
    if work.run is not None:
        seconds = work.run.tokens / tokens * step
        hours = seconds / 3600 * layout.num_ranks
        metrics |= {"run_days": seconds / 86_400, "run_gpu_hours": hours}
        if work.run.price_usd is not None:
            metrics["run_cost_usd"] = hours * work.run.price_usd
        if work.run.power_w is not None:
            metrics["run_energy_kwh"] = hours * work.run.power_w / 1000
    return metrics


def _phases(record: GroupRecord, step_s: float, optimizer_s: float) -> dict[str, float]:
    found = dict.fromkeys(("1F_s", "bubble_s", "1B_s", "1W_s", "1F1B_s", "opt_s"), 0.0)
    for task in record.tasks:
        found[_PHASES[task.kind]] += task.end_s - task.start_s
    found["opt_s"] = optimizer_s
    found["bubble_s"] = step_s - sum(found.values())
    return found


def _mean(rows: Sequence[dict[str, float]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _timeline(records: Sequence[GroupRecord], step_s: float) -> dict[str, Any]:
    """Tasks of each pipeline rank (of the first EP group), and the nodes of the first of each kind in full."""
    shown = [record for record in records if record.group == 0]
    return {
        "end_s": step_s,
        "pipeline": [
            {
                "rank": record.pipeline_rank,
                "kinds": [task.kind for task in record.tasks],
                "microbatches": [[task.microbatch_f, task.microbatch_b] for task in record.tasks],
                "start_s": [task.start_s for task in record.tasks],
                "end_s": [task.end_s for task in record.tasks],
            }
            for record in shown
        ],
        "nodes": [
            {
                "rank": record.pipeline_rank,
                "names": [node.name for node in record.nodes],
                "streams": [node.stream for node in record.nodes],
                "tasks": [node.task for node in record.nodes],
                "start_s": [node.start_s for node in record.nodes],
                "end_s": [node.end_s for node in record.nodes],
            }
            for record in shown
        ],
    }


def _exchange_facts(costs: StepCosts, exchanges: dict[str, Exchange]) -> dict[str, Any]:
    return {
        name: {
            "alone_s": costs.mean_s(name, overlapped=False),
            "beside_compute_s": costs.mean_s(name, overlapped=True),
            "ranks_per_token": exchange.routing.ranks_per_token,
            "nodes_per_token": exchange.routing.nodes_per_token,
        }
        for name, exchange in exchanges.items()
    }
