"""A training step of a scenario as it runs: its plan for the engine, its reductions, and what is measured of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sim.cluster.kernels import load_kernel
from sim.cluster.topology import Floats
from sim.engine.step import StepRun, run_step
from sim.engine.step_plan import Conditions, Host, StepPlan
from sim.errors import InfeasibleError
from sim.runs import step_optimizer, step_traffic, training_metrics, whole_run
from sim.runs.energy import energy_metrics, network_bytes
from sim.runs.moe_layer import layer_metrics
from sim.runs.step_activity import memory_share, step_activity
from sim.runs.step_conditions import Slowed, conditions_of, named_failure, slowed_layers, slowed_update
from sim.runs.step_facts import StepFacts
from sim.runs.step_packing import spread_loads
from sim.runs.step_parts import shared_bytes
from sim.runs.step_reductions import layer_reductions, reducing_plan
from sim.scenario.training import RunPhase
from sim.schedule.training import Tasks
from sim.workload import skew


@dataclass(frozen=True, eq=False)
class Step(StepFacts):
    """A training scenario, and how its step runs."""

    @cached_property
    def plan(self) -> StepPlan:
        """Everything that the engine needs."""
        work, place = self.work, self.place
        steps = self._tasks(self.pipeline, self.pairs)
        source, target = steps.messages[steps.receives[steps.receives >= 0], 3:5].T
        pairs = np.unique(source * place.num_ranks + target)
        traffic = step_traffic.traffic_of(
            self.cluster,
            place,
            {} if self.apart else self.collectives,
            self.slowdown,
            {divmod(pair, place.num_ranks) for pair in pairs.tolist()},
            self.send_bytes,
            load_kernel("nccl"),
            loaded=work.skew.routed_load > 0 or self.routed.uneven,
            inside_layers=layer_reductions(
                place,
                self.cluster,
                work.layout,
                shared_bytes(work, self.model, self.routing.ranks_per_token),
                self.links,
            ),
        )
        draws = self.draws
        conditions = self._conditions(steps, self._slowed)
        steps, loads = self.spread(steps, draws.loads)
        shape = (place.num_ranks, place.num_groups, place.lanes)
        speed = np.broadcast_to(draws.speed, shape) * self.scenario.slowness()[place.ranks]
        return StepPlan(
            steps,
            traffic,
            place.num_groups,
            place.lanes,
            speed,
            loads=loads,
            jitter=draws.jitter,
            conditions=conditions,
            host=Host.from_software(self.scenario.software),
        )

    @cached_property
    def draws(self) -> skew.Draws:
        """Factors of ranks, launches and routed loads."""
        work, place = self.work, self.place
        return skew.draw(
            work.skew,
            num_ranks=place.num_ranks,
            num_groups=place.num_groups if work.spec.skew.groups == "all" else 1,
            lanes=place.lanes,
            num_layers=self._loaded_layers,
            num_microbatches=work.num_microbatches,
            seed=self.scenario.seed,
            means=self.routed.loads if self.routed.uneven and not self.apart else None,
        )

    @property
    def _loaded_layers(self) -> int:
        """Rows of routed loads."""
        return self.model.num_layers + self.model.num_mtp_layers + 1

    def spread(self, steps: Tasks, loads: Floats) -> tuple[Tasks, Floats]:
        """Tasks whose attention is by documents, and loads with theirs; see `step_packing`."""
        return spread_loads(steps, loads, self._loaded_layers, self.place, self.work.layout)

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
        """Gradients scattered, the shard updated, weights gathered: ZeRO after the last task of all."""
        return reducing_plan(
            self.place,
            self.cluster,
            self.work.layout,
            self.parameters,
            self.links,
            self.work.optimizer,
            self.updates_s,
            copies=self.pipeline.num_copies,
        )

    def optimizer_s(self, ran: StepRun, reduced: StepRun) -> list[float]:
        """Time of the optimizer of each pipeline rank after the step's last task [s]."""
        ends_s = training_metrics.ends_s(reduced.records)
        return step_optimizer.exposed_s(self.work, ran.records, ends_s, self.updates_s, self.held)

    def metrics(self, ran: StepRun, reduced: StepRun) -> dict[str, Any]:
        """All metrics of the step that ran, and of its reductions."""
        optimizer_s = self.optimizer_s(ran, reduced)
        measured = training_metrics.measure(self.scenario, ran.records, optimizer_s, self.lower_bound_s)
        activity = step_activity(
            ran.records,
            [memory_share([self.times[i] for i in held]) for held in self.pipeline.stages],
            optimizer_s,
            self.updates_s,
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
