"""Run one optimizer step: stages, schedule, exchanges and reductions become tasks, run in simulated time, measured.

A sweep asks of thousands of steps whether they fit and what they cannot be faster than, and runs those that are left:
`Step` finds each fact when it is first asked for, and the run takes what the questions have found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from sim.cluster import topology
from sim.cluster.hardware import Hardware
from sim.cluster.kernels import load_kernel
from sim.cost.memory import RankMemory, Recipe, memory, require_fit
from sim.engine.step_costs import StepCosts
from sim.engine.step_plan import StepPlan
from sim.engine.step_records import GroupRecord
from sim.engine.training import run_step
from sim.runs import kernel_list, training_metrics
from sim.runs.moe_layer import layer_metrics
from sim.scenario.descriptions import Scenario, Training
from sim.schedule import pipelines, reductions, step_bound
from sim.schedule.collectives import Exchange, record_bytes
from sim.schedule.operations import Pipeline
from sim.schedule.reductions import Links
from sim.schedule.replay import peaks
from sim.schedule.stage_times import ChunkWork, measured_fraction, stage_times
from sim.schedule.training import StageTimes, tasks
from sim.workload.model import GQA, MLA, Model
from sim.workload.placement import contiguous
from sim.workload.stages import Stage, held_parameters, stages
from sim.workload.traffic import DIRECTIONS, Routing, route

_MOST_LANES = 256
_BYTES = 2.0  # of an activation between stages
_TASKS_KEPT = 3  # of each kind, in full, in each rank group's timeline


def run_training(scenario: Scenario, progress: Callable[[str], None]) -> dict[str, Any]:
    """Metrics, memory and timeline of a training scenario. Raises `InfeasibleError` where memory overflows."""
    step = Step.of(scenario)
    progress(f"{scenario.name}: memory")
    step.require_fit()
    progress(f"{scenario.name}: stages and exchanges")
    plan = step.plan
    on = f"{step.work.layout.num_ranks} GPUs"
    progress(f"{scenario.name}: the step, {len(plan.tasks.kind)} operations on {on}")
    records = run_step(plan, keep_tasks=_TASKS_KEPT)
    metrics = step.metrics(records)
    timeline = training_metrics.timeline(records, metrics["step_time_s"])
    return {
        "metrics": metrics,
        "memory": [{"rank": row.rank, **row.parts()} for row in step.memory],
        "stages": [str(stage) for stage in step.stages],
        "timeline": timeline | {"optimizer_s": step.optimizer_s(step.links)},
        "exchanges": {} if step.apart else _exchange_facts(step),
        "links": {},
        **kernel_list.of_training(step.hardware, step.model, step.work, step.routing.ranks_per_token),
    }


@dataclass(frozen=True, eq=False)
class Step:
    """A training scenario, and what follows from it before any time passes."""

    scenario: Scenario
    work: Training
    model: Model
    hardware: Hardware

    @classmethod
    def of(cls, scenario: Scenario) -> Step:
        """The step of a scenario whose workload is training."""
        work, model, hardware = scenario.workload, scenario.model, scenario.hardware
        assert isinstance(work, Training)
        assert model is not None
        assert hardware is not None
        return cls(scenario, work, model, hardware)

    @property
    def apart(self) -> bool:
        """Without exchanges nothing joins the ranks of a stage: they are lanes of one group."""
        return self.work.layout.ep == 1

    @cached_property
    def pipeline(self) -> Pipeline:
        """Who does what in which order."""
        work = self.work
        return pipelines.plan(work.schedule, work.layout.pp, work.num_microbatches, **work.schedule_options)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """What stands on each stage."""
        return stages(self.model, self.pipeline.num_stages, num_layers=self.work.stage_layers)

    @cached_property
    def routing(self) -> Routing:
        """Mean counts of one EP group."""
        return routing_of(self.scenario, self.work, self.model)

    @cached_property
    def memory(self) -> tuple[RankMemory, ...]:
        """Memory of one GPU at each pipeline rank."""
        per_token, per_node = self.routing.ranks_per_token, self.scenario.gpus_per_node
        return memory_of(self.work, self.model, self.pipeline, self.stages, per_token, per_node)

    def require_fit(self) -> None:
        """Raise `DoesNotFitError` where a GPU's memory overflows."""
        require_fit(self.memory, self.hardware.gpu.hbm.capacity_bytes, self.hardware.title)

    @cached_property
    def exchanges(self) -> dict[str, Exchange]:
        """Dispatch and combine of one EP group."""
        return exchanges_of(self.scenario, self.work, self.model, self.routing)

    @cached_property
    def slowdown(self) -> dict[str, float]:
        """Time of an exchange beside compute over its time alone."""
        return slowdown_of(self.work)

    @cached_property
    def chunk_work(self) -> ChunkWork:
        """What one rank computes on in one chunk."""
        work = self.work
        per_token = self.routing.ranks_per_token
        return ChunkWork(
            self.model, work.layout, work.sequences, work.sequence_tokens, per_token, work.precision
        )

    @cached_property
    def links(self) -> Links:
        """What reductions and sends achieve."""
        links = Links.of(self.hardware, load_kernel("nccl"))
        return replace(links, gpus_per_node=self.scenario.gpus_per_node)

    def send_s(self, links: Links) -> float:
        """One activation, or its gradient, on its way to another stage [s]."""
        one_node = self.work.layout.num_ranks <= self.scenario.gpus_per_node
        return self.send_bytes / (links.scale_up_bytes_per_s if one_node else links.nic_bytes_per_s)

    @property
    def send_bytes(self) -> float:
        """Of one rank and microbatch [bytes]."""
        work = self.work
        tokens = work.sequences * work.sequence_tokens / (work.layout.tp * work.layout.cp)
        return tokens * self.model.hidden * _BYTES

    @cached_property
    def costs(self) -> StepCosts:
        """Exchanges and skew."""
        work, layout = self.work, self.work.layout
        return StepCosts(
            self.exchanges,
            self.slowdown,
            work.skew,
            num_groups=1 if self.apart or work.skew.balanced else layout.expert_dp,
            num_layers=self.model.num_layers + self.model.num_mtp_layers,
            num_microbatches=work.num_microbatches,
            seed=self.scenario.seed,
            lanes=min(layout.expert_dp, _MOST_LANES) if self.apart else None,
        )

    @cached_property
    def times(self) -> tuple[StageTimes, ...]:
        """Compute times of every stage's layers."""
        work = self.work
        return stage_times(
            self.chunk_work,
            self.stages,
            self.hardware,
            work.kernel,
            comm_sms=work.comm_sms if work.overlap else 0,
            generation=work.generation,
            exposed_s=_inside_layers_s(work, self.model, self.links),
            recompute=work.recompute,
            measured=work.measured,
        )

    @cached_property
    def plan(self) -> StepPlan:
        """Everything that the engine needs."""
        work, costs = self.work, self.costs
        return StepPlan(
            tasks=tasks(
                self.pipeline, self.times, partial(costs.mean_s, overlapped=True), overlap=work.overlap
            ),
            num_groups=costs.num_groups,
            lanes=costs.lanes,
            costs=costs,
            speed=costs.speeds(work.layout.pp, costs.num_groups),
            send_s=self.send_s(self.links),
            send_bytes=self.send_bytes,
        )

    def run(self) -> dict[str, Any]:
        """Run it for its metrics alone, without a timeline."""
        return self.metrics(run_step(self.plan))

    def optimizer_s(self, links: Links) -> list[float]:
        """The optimizer of each pipeline rank [s]."""
        return [
            _optimizer_s(self.work, self.model, self.stages, held, links) for held in self.pipeline.stages
        ]

    @cached_property
    def lower_bound_s(self) -> float:
        """What no step of these datasheets is faster than [s]; see `schedule.step_bound`."""
        work = self.work
        links = replace(Links.peak(self.hardware), gpus_per_node=self.scenario.gpus_per_node)
        fraction: dict[str, float] = {}
        if work.measured:
            fraction = measured_fraction(
                self.chunk_work,
                self.hardware,
                work.kernel,
                work.measured,
                comm_sms=work.comm_sms if work.overlap else 0,
                generation=work.generation,
            )
        least = step_bound.least(
            self.chunk_work,
            self.stages,
            self.hardware.gpu,
            {} if self.apart else self.exchanges,
            slowdown=self.slowdown,
            inside_s=_inside_layers_s(work, self.model, links),
            send_s=self.send_s(links),
            measured_fraction=fraction,
        )
        ranks = step_bound.rank_bounds_s(self.pipeline, least)
        return float(ranks.max()) + max(self.optimizer_s(links))

    def metrics(self, records: Sequence[GroupRecord]) -> dict[str, Any]:
        """All metrics of the step that left these records."""
        optimizer_s = self.optimizer_s(self.links)
        return {
            **training_metrics.measure(self.scenario, records, optimizer_s, self.lower_bound_s),
            **layer_metrics(
                self.times,
                lambda name, busy: self.costs.mean_s(name, overlapped=busy),
                overlap=self.work.overlap,
            ),
            "memory_peak_bytes": max(row.total_bytes for row in self.memory),
            "memory_capacity_bytes": self.hardware.gpu.hbm.capacity_bytes,
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


def slowdown_of(work: Training) -> dict[str, float]:
    """Time of a collective next to compute over its time alone [ratio]."""
    return {direction: work.kernel.slowdown(direction) for direction in DIRECTIONS}


def exchanges_of(scenario: Scenario, work: Training, model: Model, routing: Routing) -> dict[str, Exchange]:
    """Dispatch and combine of one EP group, on the nodes that it spans."""
    assert scenario.hardware is not None
    assert isinstance(scenario.fabric, topology.Fabric)
    nodes = -(-work.layout.ep // scenario.hardware.gpu.scale_up.domain)
    cluster = topology.build(scenario.hardware, nodes, scenario.fabric)
    formats = {"dispatch": work.dispatch_dtype, "combine": work.combine_dtype}
    return {
        direction: Exchange(
            cluster=cluster,
            kernel=work.kernel,
            direction=direction,
            gpus=np.arange(work.layout.ep),
            routing=routing,
            record_bytes=float(record_bytes(work.kernel.kind, direction, dtype, model.hidden, model.top_k)),
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


def _exchange_facts(step: Step) -> dict[str, Any]:
    return {
        name: {
            "alone_s": step.costs.mean_s(name, overlapped=False),
            "beside_compute_s": step.costs.mean_s(name, overlapped=True),
            "ranks_per_token": exchange.routing.ranks_per_token,
            "nodes_per_token": exchange.routing.nodes_per_token,
        }
        for name, exchange in step.exchanges.items()
    }
