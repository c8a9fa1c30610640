"""A whole training run: its phases one after another, what they take, cost and burn, and what failures add."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sim.cost.goodput import best_every_s, ettr_fraction, straggler_fraction
from sim.engine.failures import FailureRecord, Stragglers, run_failures
from sim.errors import InfeasibleError
from sim.runs.kinds import Progress
from sim.scenario.descriptions import Scenario
from sim.scenario.training import RunPhase, Training
from sim.scenario.training_run import HOUR_S, FailureModel

DAY_S = 24 * HOUR_S
_FAILURES = 20_000  # that runs are repeated for, so that their mean is known to a percent
_MOST_RUNS = 20_000


@dataclass(frozen=True, slots=True)
class PhaseRun:
    """A phase as it ran: its step, and all of it [s, kWh]; None where it has no step, or no known power."""

    phase: RunPhase
    work: Training
    step_s: float | None
    elapsed_s: float
    energy_kwh: float | None = None
    low_kwh: float | None = None
    high_kwh: float | None = None


class PhaseStep(Protocol):
    """The step of a phase, as `runs.training.Step` is one."""

    @property
    def work(self) -> Training:
        """The step, resolved."""

    @property
    def lower_bound_s(self) -> float:
        """Time that it cannot beat [s]."""

    def require_fit(self, what: str = "") -> None:
        """Raise where it does not fit."""

    def alone(self) -> dict[str, Any]:
        """Run it for its metrics."""


Phases = Sequence[tuple[RunPhase, PhaseStep | None]]
"""Phases of a run, each with its step; None where GPU-hours are given."""


class FirstStep(PhaseStep, Protocol):
    """The step of a scenario, which knows the phases of its whole run."""

    @property
    def scenario(self) -> Scenario:
        """The scenario."""

    @property
    def phases(self) -> Phases:
        """Phases of the whole run."""


def run_phases(
    first: FirstStep, metrics: Mapping[str, Any], progress: Progress = lambda _: None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the steps of all phases but the one that has run, and the failures of the whole.

    The metrics of the whole run, and `run`: its phases, and where its lost time goes. Both empty without
    phases.
    """
    scenario, work, phases = first.scenario, first.work, first.phases
    if not phases:
        return {}, {}
    runs: dict[str, PhaseRun] = {}
    for phase, step in phases:
        own = metrics
        if step is not None and step is not first:
            progress(f"{scenario.name}: phase {phase.name}")
            step.require_fit(f"phase '{phase.name}': ")
            own = step.alone()
        if step is not None:
            runs[phase.name] = phase_run(phase, step.work, own["step_time_s"], own.get("energy", {}))
    model_run = next(iter(runs.values()))
    ran = [runs.get(phase.name) or given_run(phase, model_run) for phase, _ in phases]
    seconds, model = sum(run.elapsed_s for run in ran), work.failures
    failed = failing(model, seconds, scenario.seed) if model else None
    parts: dict[str, Any] = {"phases": rows(work, ran)}
    if model and failed:
        parts["failures"] = failure_facts(model, failed, seconds)
    return totals(work, ran, failed), {"run": parts}


def least(work: Training, phases: Phases) -> dict[str, Any]:
    """Metrics of a whole run whose steps take no longer than their bounds, and of which nothing fails."""
    return totals(
        work, [phase_run(phase, step.work, step.lower_bound_s, {}) for phase, step in phases if step]
    )


def phase_run(phase: RunPhase, work: Training, step_s: float, energy: Mapping[str, float]) -> PhaseRun:
    """A phase of so many steps; `energy` is that of one step, as in its metrics, empty where it is unknown."""
    names = ("total_kwh", "low_kwh", "high_kwh")
    kwh = [energy[name] * phase.steps if name in energy else None for name in names]
    return PhaseRun(phase, work, step_s, phase.steps * step_s, *kwh)


def given_run(phase: RunPhase, first: PhaseRun) -> PhaseRun:
    """A phase of GPU-hours that are given: on the GPUs of the first phase that has a step, at that phase's power."""
    assert phase.gpu_hours is not None
    elapsed_s = phase.gpu_hours / first.work.layout.num_ranks * HOUR_S
    part = elapsed_s / first.elapsed_s
    kwh = [
        None if known is None else known * part for known in (first.energy_kwh, first.low_kwh, first.high_kwh)
    ]
    return PhaseRun(phase, first.work, None, elapsed_s, *kwh)


def totals(work: Training, phases: Sequence[PhaseRun], failed: FailureRecord | None = None) -> dict[str, Any]:
    """Metrics of a whole run, `run_days` and the like; `{}` without phases.

    Where parts of it fail, lost time is paid like any other, spare nodes too; it takes the power of the phases.
    """
    if not phases:
        return {}
    seconds = sum(run.elapsed_s for run in phases)
    longer = failed.wall_s / failed.trained_s if failed else 1.0
    model = work.failures
    spares = (model.spares or 0) * model.gpus_per_node if model else 0
    hours = seconds * longer / HOUR_S * (work.layout.num_ranks + spares)
    metrics: dict[str, Any] = {"run_days": seconds * longer / DAY_S, "run_gpu_hours": hours}
    if work.price_usd is not None:
        metrics["run_cost_usd"] = hours * work.price_usd
    for name, own in (("run_energy", "energy"), ("run_energy_low", "low"), ("run_energy_high", "high")):
        parts = [getattr(run, f"{own}_kwh") for run in phases]
        if None not in parts:
            metrics[f"{name}_kwh"] = sum(parts) * longer
    if failed:
        metrics["ettr_fraction"] = failed.trained_s / failed.wall_s
        metrics["failures"] = sum(failed.failures.values()) * seconds / failed.trained_s
        metrics["lost_s"] = failed.lost_s * seconds / failed.trained_s
    if model:
        metrics["mtbf_s"] = mtbf_s(model)
        metrics["checkpoint_every_s"] = every_s(model)
    return metrics


def rows(work: Training, phases: Sequence[PhaseRun]) -> list[dict[str, Any]]:
    """What each phase was and took, as in `result.json`."""
    out = []
    for run in phases:
        own = run.work
        hours = run.elapsed_s / HOUR_S * own.layout.num_ranks
        row: dict[str, Any] = {"name": run.phase.name, "days": run.elapsed_s / DAY_S, "gpu_hours": hours}
        if run.step_s is not None:
            row |= {
                "steps": run.phase.steps,
                "step_time_s": run.step_s,
                "sequence_tokens": own.spec.sequence_tokens,
                "sequences": own.step_sequences,
                "layout": str(own.layout),
                "schedule": own.spec.schedule,
                "recompute": own.recompute if isinstance(own.recompute, str) else ", ".join(own.recompute),
            }
        if work.price_usd is not None:
            row["cost_usd"] = hours * work.price_usd
        if run.energy_kwh is not None:
            row |= {"energy_kwh": run.energy_kwh, "low_kwh": run.low_kwh, "high_kwh": run.high_kwh}
        out.append(row)
    return out


def mtbf_s(model: FailureModel) -> float:
    """Mean time between failures of the whole cluster [s]."""
    return 1.0 / sum(1.0 / own for own in model.mtbf_s.values())


def every_s(model: FailureModel) -> float:
    """Training between checkpoints, as given or as Daly's formula finds best [s]."""
    return model.every_s if model.every_s is not None else best_every_s(mtbf_s(model), model.write_s)


def failing(model: FailureModel, seconds: float, seed: int) -> FailureRecord:
    """Course of a run of so much training, the sum over as many repetitions as it takes to know the mean.

    InfeasibleError where failures come so often that nothing is ever saved.
    """
    rng = np.random.default_rng([seed, 1])
    records: list[FailureRecord] = []
    slow = Stragglers(*_straggling(model)) if model.stragglers else None
    total = 0
    while total < _FAILURES and len(records) < _MOST_RUNS:
        records.append(
            run_failures(
                seconds,
                model.mtbf_s,
                every_s=min(every_s(model), seconds),
                write_s=model.write_s,
                restart_s=model.restart_s,
                spares=model.spares,
                repair_s=model.repair_s,
                rng=rng,
                most=_FAILURES,
                stragglers=slow,
            )
        )
        total += sum(records[-1].failures.values()) + records[-1].stragglers
    whole = sum(records[1:], records[0])
    if whole.trained_s <= 0:
        fails = f"it fails every {mtbf_s(model):,.0f} s, restarts in {model.restart_s:,.0f} s"
        raise InfeasibleError(
            f"the run never ends: {fails} and saves every {every_s(model):,.0f} s of training"
        )
    return whole


def failure_facts(model: FailureModel, failed: FailureRecord, seconds: float) -> dict[str, Any]:
    """Where the lost time of a run goes [s], its failures by part, and its ETTR in closed form, as in `result.json`."""
    scale = seconds / failed.trained_s
    lost = ["saving", "undone", "restarting", "waiting"]
    ettr = ettr_fraction(mtbf_s(model), min(every_s(model), seconds), model.write_s, model.restart_s)
    if model.stragglers:
        lost += ["slowed", "swapping"]
        mtbf, speed, detect, swap = _straggling(model)
        found = math.exp(-detect / mtbf_s(model))  # else a restart is first
        ettr *= straggler_fraction(mtbf, speed, mtbf_s(model) * (1 - found), swap * found)
    return {
        "closed_form_ettr_fraction": ettr,
        "lost_s": {name: getattr(failed, f"{name}_s") * scale for name in lost},
        "by_part": {part: count * scale for part, count in failed.failures.items()},
        "mtbf_s": dict(model.mtbf_s),
        **({"stragglers": failed.stragglers * scale} if model.stragglers else {}),
    }


def _straggling(model: FailureModel) -> tuple[float, float, float, float]:
    assert model.stragglers is not None
    slow = model.stragglers
    return slow.mtbf, slow.speed, slow.detect, slow.swap
