"""A training step of a scenario, and what follows from it before any time passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from sim.cluster import topology
from sim.cluster.hardware import Hardware
from sim.cluster.kernels import load_kernel
from sim.cluster.topology import Floats
from sim.cost.measured import MeasuredProfile
from sim.cost.memory import RankMemory, fits, require_fit
from sim.cost.power import Stated
from sim.engine import fluid
from sim.engine.step import StepRun, run_step
from sim.engine.step_plan import Conditions, Host, StepPlan
from sim.errors import InfeasibleError
from sim.runs import step_traffic, training_metrics, whole_run
from sim.runs.energy import energy_metrics, network_bytes
from sim.runs.layer_loads import LayerLoads, layer_loads
from sim.runs.moe_layer import layer_metrics
from sim.runs.step_activity import memory_share, step_activity
from sim.runs.step_conditions import Slowed, conditions_of, named_failure, slowed_layers, slowed_update
from sim.runs.step_parts import (
    ACTIVATION_BYTES,
    inside_layers_s,
    layer_kernels,
    memory_of,
    pipeline_of,
    shared_bytes,
    slowdown_of,
    step_collectives,
)
from sim.runs.step_reductions import layer_reductions, reducing_plan
from sim.runs.step_traffic import Place
from sim.scenario.descriptions import Scenario
from sim.scenario.training import RunPhase, Training
from sim.schedule import pipelines, reductions, step_bound
from sim.schedule.collectives import Collective
from sim.schedule.issuing import issued_tasks
from sim.schedule.operations import Pipeline
from sim.schedule.reductions import Links
from sim.schedule.stage_times import ChunkWork, measured_fraction, stage_times
from sim.schedule.training import StageTimes, Tasks, balanced_s, tasks
from sim.workload import skew
from sim.workload.model import Model
from sim.workload.stages import Stage, held_parameters, stages
from sim.workload.traffic import Routing


@dataclass(frozen=True, eq=False)
class Step:
    """A training scenario, and what follows from it before any time passes."""

    scenario: Scenario
    work: Training
    model: Model
    hardware: Hardware
    stated: Stated | None = None
    """Of the whole run that it is a phase of."""

    @classmethod
    def from_scenario(cls, scenario: Scenario, stated: Stated | None = None) -> Step:
        """The step of a scenario whose workload is training."""
        work, model, hardware = scenario.workload, scenario.model, scenario.hardware
        assert isinstance(work, Training)
        assert model is not None
        assert hardware is not None
        return cls(scenario, work, model, hardware, stated)

    @property
    def apart(self) -> bool:
        """Without all-to-alls nothing joins the ranks of a stage: they are lanes of one group."""
        return self.work.layout.ep == 1

    @cached_property
    def pipeline(self) -> Pipeline:
        """Who does what in which order."""
        return pipeline_of(self.work, self.pairs)

    @cached_property
    def pairs(self) -> bool:
        """Neighbouring operations of different microbatches run as one; see `overlap` of the specification."""
        asked, schedule = self.work.spec.overlap, self.work.spec.schedule
        if asked != "auto":
            return schedule not in ("1f1b", "zb1p", "zb2p") if asked is None else asked
        seconds = {}
        for pairs in (True, False):
            pipeline = pipeline_of(self.work, pairs)
            if not pairs or fits(self._memory(pipeline), self.hardware.gpu.hbm.capacity_bytes):
                seconds[pairs] = balanced_s(pipeline, self._tasks(pipeline, pairs), self._collective_s)
        return min(seconds, key=seconds.__getitem__)

    def _collective_s(self, name: str, overlapped: bool) -> float:
        return self.mean_s(name, overlapped=overlapped) if name in self.collectives else 0.0

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Layers of each stage, with embedding, head and speculation."""
        num_stages = self.work.layout.pp * self.work.spec.chunks_per_rank
        return stages(self.model, num_stages, num_layers=self.work.spec.stage_layers)

    @cached_property
    def routing(self) -> Routing:
        """Mean counts of one EP group."""
        return self.routed.routing

    @cached_property
    def routed(self) -> LayerLoads:
        """Mean counts of one EP group, and the loads of its ranks in each layer."""
        return layer_loads(self.scenario, self.work, self.model)

    @cached_property
    def memory(self) -> tuple[RankMemory, ...]:
        """Memory of one GPU at each pipeline rank."""
        return self._memory(self.pipeline)

    def _memory(self, pipeline: Pipeline) -> tuple[RankMemory, ...]:
        per_node = self.scenario.gpus_per_node
        return memory_of(self.work, self.model, pipeline, self.stages, self.routed, per_node)

    def require_fit(self, what: str = "") -> None:
        """Raise `DoesNotFitError` where a GPU's memory overflows; `what` goes before the GPU's title."""
        require_fit(self.memory, self.hardware.gpu.hbm.capacity_bytes, f"{what}{self.hardware.title}")

    @cached_property
    def collectives(self) -> dict[str, Collective]:
        """Dispatch and combine of one EP group."""
        return step_collectives(self.scenario, self.work, self.model, self.routing)

    @cached_property
    def slowdown(self) -> dict[str, float]:
        """Time of an all-to-all next to compute over its time alone."""
        return slowdown_of(self.work)

    @cached_property
    def chunk_work(self) -> ChunkWork:
        """Model, layout and tokens of one rank in one chunk."""
        work = self.work
        per_token = self.routing.ranks_per_token
        return ChunkWork(
            self.model,
            work.layout,
            work.spec.microbatch_sequences,
            work.spec.sequence_tokens,
            per_token,
            work.formats,
            work.recompute,
        )

    @cached_property
    def links(self) -> Links:
        """Rates and latencies that reductions and sends achieve."""
        links = Links.achieved(self.hardware, load_kernel("nccl"))
        return replace(links, gpus_per_node=self.scenario.gpus_per_node)

    def send_s(self, links: Links) -> float:
        """One activation, or its gradient, on its way to another stage [s]."""
        layout = self.work.layout
        one_node = layout.near(self.scenario.gpus_per_node, "pp") == layout.pp
        return self.send_bytes / (links.scale_up_bytes_per_s if one_node else links.nic_bytes_per_s)

    @property
    def send_bytes(self) -> float:
        """Size of what one rank sends to the next stage for a microbatch [bytes]."""
        work = self.work
        tokens = work.microbatch_tokens / (work.layout.tp * work.layout.cp)
        return tokens * self.model.hidden * ACTIVATION_BYTES

    @cached_property
    def alone_s(self) -> dict[str, Floats]:
        """Time of each rank of an all-to-all on idle, healthy links at mean loads [s]."""
        return {name: _alone_s(collective) for name, collective in self.collectives.items()}

    def mean_s(self, name: str, *, overlapped: bool) -> float:
        """Time of an all-to-all on idle, healthy links, mean of its ranks [s]."""
        return float(self.alone_s[name].mean()) * (self.slowdown[name] if overlapped else 1.0)

    @cached_property
    def cluster(self) -> topology.Cluster:
        """The whole cluster with its faults, cabled."""
        return self.scenario.cluster()

    @cached_property
    def place(self) -> Place:
        """GPUs of its ranks."""
        layout = self.work.layout
        return Place.from_layout(self.scenario.gpus, layout)

    @cached_property
    def times(self) -> tuple[StageTimes, ...]:
        """Compute times of every stage's layers."""
        return self._times(self.hardware, self.work.measured)

    def _times(self, hardware: Hardware, measured: MeasuredProfile | None) -> tuple[StageTimes, ...]:
        work = self.work
        return stage_times(
            self.chunk_work,
            self.stages,
            hardware,
            work.kernel,
            comm_sms=work.lent_sms,
            generation=work.spec.gemm_generation,
            exposed_s=inside_layers_s(work, self.model, self.links),
            measured=measured,
        )

    @cached_property
    def plan(self) -> StepPlan:
        """Everything that the engine needs."""
        work, place = self.work, self.place
        steps = self._tasks(self.pipeline, self.pairs)
        sent = steps.messages[steps.receives[steps.receives >= 0], 3:5]
        traffic = step_traffic.traffic_of(
            self.cluster,
            place,
            {} if self.apart else self.collectives,
            self.slowdown,
            {(source, target) for source, target in sent.tolist()},
            self.send_bytes,
            load_kernel("nccl"),
            loaded=work.skew.routed_load > 0 or self.routed.uneven,
            inside_layers=layer_reductions(
                place, self.cluster, work.layout, shared_bytes(work, self.model), self.links
            ),
        )
        draws = skew.draw(
            work.skew,
            num_ranks=place.num_ranks,
            num_groups=place.num_groups if work.spec.skew.groups == "all" else 1,
            lanes=place.lanes,
            num_layers=self.model.num_layers + self.model.num_mtp_layers + 1,
            num_microbatches=work.num_microbatches,
            seed=self.scenario.seed,
            means=self.routed.loads if self.routed.uneven and not self.apart else None,
        )
        shape = (place.num_ranks, place.num_groups, place.lanes)
        speed = np.broadcast_to(draws.speed, shape) * self.scenario.slowness()[place.ranks]
        return StepPlan(
            steps,
            traffic,
            place.num_groups,
            place.lanes,
            speed,
            loads=draws.loads,
            jitter=draws.jitter,
            conditions=self._conditions(steps, self._slowed),
            host=Host.from_software(self.scenario.software),
        )

    def _tasks(self, pipeline: Pipeline, pairs: bool) -> Tasks:
        own = "overlap" not in pipelines.SCHEDULES[pipeline.kind].options  # pairs that a schedule always has
        made = tasks(
            pipeline,
            self.times,
            partial(self.mean_s, overlapped=True),
            overlap=self.work.spec.overlap is not False and (pairs or not own),
            reductions=layer_kernels(self.work, self.scenario.gpus_per_node),
        )
        return issued_tasks(made, self.scenario.software, self.model, self.work.layout)

    def _conditions(self, steps: Tasks, slowed: Slowed, begin_s: float = 0.0) -> Conditions | None:
        gpus = self.place.gpu_of_rank[self.place.ranks]
        domain = self.hardware.gpu.scale_up.domain
        return conditions_of(self.scenario.faults, self.cluster, steps, gpus, domain, slowed, begin_s)

    def _slowed(self, clock: float, memory: float) -> Callable[[Any], tuple[float, float]]:
        """Times of nodes on a GPU whose clock and memory have a fraction of their rates."""
        modelled = self._times(self.hardware, None)
        gpu = self.hardware.gpu
        hbm = replace(gpu.hbm, bandwidth_bytes_per_s=gpu.hbm.bandwidth_bytes_per_s * memory)
        slow = replace(self.hardware, gpu=replace(gpu, hbm=hbm))
        return slowed_layers(self.times, modelled, self._times(slow, None), clock)

    def run(self) -> dict[str, Any]:
        """Run it, and the whole run, for metrics alone, without a timeline."""
        return (metrics := self.alone()) | whole_run.run_phases(self, metrics)[0]

    def alone(self) -> dict[str, Any]:
        """Run the step alone for its metrics."""
        return self.metrics(*self.ran())

    def ran(self, *, keep_tasks: tuple[int, int] = (0, 0)) -> tuple[StepRun, StepRun]:
        """The step and its reductions as they ran. Raises `InfeasibleError` where a part fails in it for good, which is named."""
        try:
            ran = run_step(self.plan, keep_tasks=keep_tasks[0])
            return ran, run_step(
                self.reducing_from(max(training_metrics.ends_s(ran.records))), keep_tasks=keep_tasks[1]
            )
        except InfeasibleError as error:
            raise named_failure(error, self.scenario.faults) from None

    def reducing_from(self, begin_s: float) -> StepPlan:
        """`reducing` with the faults of an instant, and those that come and go after it."""
        plan = self.reducing
        return replace(plan, conditions=self._conditions(plan.tasks, slowed_update, begin_s))

    @cached_property
    def phases(self) -> list[tuple[RunPhase, Step | None]]:
        """Phases of the whole run, each with its step; None where GPU-hours are given."""
        stated = self.work.spec.run.stated if self.work.spec.run else None
        return [
            (phase, Step.from_scenario(replace(self.scenario, workload=phase.work), stated))
            if phase.work
            else (phase, self if phase.gpu_hours is None else None)
            for phase in self.work.phases
        ]

    def least_metrics(self) -> dict[str, float]:
        """The metrics that follow from the times of steps, of steps that take no longer than their bounds."""
        bound_s = self.lower_bound_s
        rates = training_metrics.rates_of(self.work, bound_s)
        return {"step_time_s": bound_s, **rates, **whole_run.least(self.work, self.phases)}

    @cached_property
    def reducing(self) -> StepPlan:
        """Gradients scattered, the shard updated, weights gathered: ZeRO-1 after the last task of all."""
        return reducing_plan(
            self.place,
            self.cluster,
            self.work.layout,
            self.parameters,
            self.links,
            gpus_per_node=self.scenario.gpus_per_node,
        )

    @cached_property
    def parameters(self) -> list[reductions.HeldParameters]:
        """Parameters that a GPU of each pipeline rank holds."""
        layout = self.work.layout
        return [
            reductions.held(held_parameters(self.model, [self.stages[i] for i in held]), layout)
            for held in self.pipeline.stages
        ]

    @cached_property
    def lower_bound_s(self) -> float:
        """Time that no step at datasheet rates beats [s]; see `schedule.step_bound`."""
        work = self.work
        links = replace(Links.peak(self.hardware), gpus_per_node=self.scenario.gpus_per_node)
        fraction: dict[str, float] = {}
        if work.measured:
            fraction = measured_fraction(
                self.chunk_work,
                self.hardware,
                work.kernel,
                work.measured,
                comm_sms=work.lent_sms,
                generation=work.spec.gemm_generation,
            )
        least = step_bound.least(
            self.chunk_work,
            self.stages,
            self.hardware.gpu,
            {} if self.apart else self.collectives,
            slowdown=self.slowdown,
            inside_s=inside_layers_s(work, self.model, links),
            send_s=self.send_s(links),
            measured_fraction=fraction,
        )
        ranks = step_bound.rank_bounds_s(self.pipeline, least)
        return float(ranks.max()) + max(
            reductions.optimizer_s(links, held, work.layout) for held in self.parameters
        )

    def metrics(self, ran: StepRun, reduced: StepRun) -> dict[str, Any]:
        """All metrics of the step that ran, and of its reductions."""
        optimizer_s = training_metrics.ends_s(reduced.records)
        measured = training_metrics.measure(self.scenario, ran.records, optimizer_s, self.lower_bound_s)
        activity = step_activity(
            ran.records,
            [memory_share([self.times[i] for i in held]) for held in self.pipeline.stages],
            optimizer_s,
            [reductions.update_s(self.links, held.shard(self.work.layout)) for held in self.parameters],
            measured["step_time_s"],
            network_bytes(self.cluster, ran.bytes + reduced.bytes),
        )
        stated = self.work.spec.run.stated if self.work.spec.run else self.stated
        return {
            **measured,
            **energy_metrics(self.scenario, activity, self.work.step_tokens, stated),
            **layer_metrics(
                self.times,
                lambda name, busy: self.mean_s(name, overlapped=busy),
                overlap=self.work.spec.overlap is not False,
            ),
            "memory_peak_bytes": max(row.total_bytes for row in self.memory),
            "memory_capacity_bytes": self.hardware.gpu.hbm.capacity_bytes,
        }


def _alone_s(collective: Collective) -> Floats:
    flows, capacity = collective.flows(), collective.cluster.capacity
    return fluid.rank_times_s(flows, capacity, len(collective.gpus), collective.latency_s(), often=False)
