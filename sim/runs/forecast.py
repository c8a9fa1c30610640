"""A run before it is run: the memory of its fullest GPU, and metrics that it cannot better.

A sweep asks this first. Whatever does not fit keeps its parts as the reason; a constraint over memory is answered; and where a
point cannot be better than one already run, it need not run at all.
"""

from __future__ import annotations

from typing import Any

from sim.runs.kinds import Forecast, runner
from sim.runs.run import run_scenario
from sim.scenario.descriptions import Scenario


def forecast(scenario: Scenario) -> Forecast:
    """Forecast a run, its memory and bounds, and prepare it; the run alone where to bound it takes as long.

    DoesNotFitError where a GPU's memory overflows.
    """
    known = runner(scenario.kind).forecast
    return known(scenario) if known is not None else Forecast(lambda: _metrics(scenario))


def _metrics(scenario: Scenario) -> dict[str, Any]:
    metrics: dict[str, Any] = run_scenario(scenario)["metrics"]
    return metrics
