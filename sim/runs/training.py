"""Run one optimizer step: stages, schedule, all-to-alls and reductions become tasks, run in simulated time, measured.

A sweep asks of thousands of steps whether they fit and what they cannot be faster than, and runs those that are left:
`Step` finds each fact when it is first asked for, and the run takes what the questions have found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim.engine.step import StepRun
from sim.runs import kernel_list, training_metrics, whole_run
from sim.runs.host_effect import step_effect
from sim.runs.kinds import COMPUTE, LINKS, Forecast, Runner, SharedRun, named_parts
from sim.runs.training_step import Step
from sim.scenario.descriptions import Scenario

_TASKS_KEPT = 3  # of each kind, in full, in each rank group's timeline


def run_training(scenario: Scenario, progress: Callable[[str], None]) -> dict[str, Any]:
    """Simulate one optimizer step, as `result.json` has it; DoesNotFitError where a GPU's memory overflows."""
    step = Step.from_scenario(scenario)
    progress(f"{scenario.name}: memory")
    step.require_fit()
    progress(f"{scenario.name}: stages and all-to-alls")
    plan = step.plan
    on = f"{step.work.layout.num_ranks} GPUs"
    progress(f"{scenario.name}: the step, {len(plan.tasks.kind)} operations on {on}")
    ran, reduced = step.ran(keep_tasks=(_TASKS_KEPT, 1))
    return _result(step, ran, reduced, progress)


def _result(step: Step, ran: StepRun, reduced: StepRun, progress: Callable[[str], None]) -> dict[str, Any]:
    metrics = step.metrics(ran, reduced)
    totals, whole = whole_run.run_phases(step, metrics, progress)
    metrics |= totals
    timeline = training_metrics.timeline(ran.records, metrics["step_time_s"])
    return {
        "metrics": metrics,
        "memory": [{"rank": row.rank, **row.parts()} for row in step.memory],
        "stages": [str(stage) for stage in step.stages],
        "timeline": timeline | {"optimizer_s": step.optimizer_s(ran, reduced)},
        "exchanges": {} if step.apart else _collective_facts(step),
        "links": training_metrics.links(step.cluster, (ran, reduced), metrics["step_time_s"]),
        **step_effect(step, ran, metrics["step_time_s"]),
        **kernel_list.training_launches(step.hardware, step.chunk_work, step.work.spec.gemm_generation),
        **whole,
    }


def shared_training(scenario: Scenario) -> SharedRun:
    """One optimizer step next to other jobs: its tasks, then its reductions. Raises `DoesNotFitError`."""
    step = Step.from_scenario(scenario)
    step.require_fit()
    return SharedRun(
        [step.plan, step.reducing_from(0.0)], lambda runs: _result(step, runs[0], runs[1], lambda _: None)
    )


def _collective_facts(step: Step) -> dict[str, Any]:
    return {
        name: {
            "alone_s": step.mean_s(name, overlapped=False),
            "beside_compute_s": step.mean_s(name, overlapped=True),
            "ranks_per_token": collective.routing.ranks_per_token,
            "nodes_per_token": collective.routing.nodes_per_token,
            **_load_facts(step),
        }
        for name, collective in step.collectives.items()
    }


def _load_facts(step: Step) -> dict[str, float]:
    """The busiest rank of any layer over the mean rank, and selections that are dropped; nothing where ranks are alike."""
    routed = step.routed
    if not routed.uneven:
        return {}
    return {
        "max_over_mean_rank_load": float((routed.loads.max(axis=1) / routed.loads.mean(axis=1)).max()),
        "dropped_fraction": routed.dropped_fraction,
    }


def forecast_training(scenario: Scenario) -> Forecast:
    """Memory of the fullest GPU, and the metrics of a step that takes no longer than its bound. Raises `DoesNotFitError`."""
    step = Step.from_scenario(scenario)
    step.require_fit()
    for phase, other in step.phases:
        if phase.work and other is not None:
            other.require_fit(f"phase '{phase.name}': ")
    fullest = max(step.memory, key=lambda row: row.total_bytes)
    return Forecast(step.run, named_parts(fullest.parts()), step.least_metrics())


RUNNER = Runner(run_training, reads=(*LINKS, *COMPUTE), shared=shared_training, forecast=forecast_training)
