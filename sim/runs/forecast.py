"""What is known of a run before it: the memory of its fullest GPU, and figures that no run of it can be better than.

A sweep asks this first. Whatever does not fit keeps its parts as the reason; a constraint over memory is answered; and where a
point cannot be better than one already run, it need not run at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sim.runs.run import run_scenario
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.scenario.training import Training

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Forecast:
    """Memory of the fullest GPU by part, with `total_bytes`; metric -> the best that it could be; and `run` for its metrics."""

    run: Callable[[], dict[str, Any]]
    memory: Figures = field(default_factory=dict)
    best: Figures = field(default_factory=dict)


def forecast(scenario: Scenario) -> Forecast:
    """What is known of a run before it. Raises `DoesNotFitError` where memory overflows.

    Only training steps have figures that they cannot beat: in other runs finding them takes as long as the run.
    """
    work = scenario.workload
    if isinstance(work, Training):
        return _of_training(scenario, work)
    memory: Figures = {}
    if isinstance(work, Inference):
        from sim.runs.inference import batch_of

        kept, requests = batch_of(scenario, work)
        memory = _named(kept.parts(requests))
    return Forecast(lambda: _metrics(scenario), memory)


def _metrics(scenario: Scenario) -> dict[str, Any]:
    found: dict[str, Any] = run_scenario(scenario)["metrics"]
    return found


def _of_training(scenario: Scenario, work: Training) -> Forecast:
    from sim.runs.training import Step

    step = Step.of(scenario)
    step.require_fit()
    fullest = max(step.memory, key=lambda row: row.total_bytes)
    return Forecast(step.run, _named(fullest.parts()), _best_of_step(work, step.lower_bound_s))


def _best_of_step(work: Training, bound_s: float) -> Figures:
    """Metrics of a step that takes no longer than its bound."""
    layout, tokens = work.layout, work.step_tokens
    best = {
        "step_time_s": bound_s,
        "tokens_per_s_per_gpu": tokens / bound_s / layout.num_ranks,
        "tokens_per_day": tokens / bound_s * 86_400,
    }
    if work.spec.run is not None:
        seconds = work.spec.run.tokens / tokens * bound_s
        best |= {"run_days": seconds / 86_400, "run_gpu_hours": seconds / 3600 * layout.num_ranks}
        if work.price_usd is not None:
            best["run_cost_usd"] = best["run_gpu_hours"] * work.price_usd
    return best


def _named(parts: Mapping[str, float]) -> Figures:
    """Parts by the names that constraints use: `fp8 copies` -> `fp8_copies_bytes`."""
    return {f"{name.replace(' ', '_')}_bytes": size for name, size in parts.items()} | {
        "total_bytes": sum(parts.values())
    }
