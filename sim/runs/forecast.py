"""What is known of a run before it: the memory of its fullest GPU, and figures that no run of it can be better than.

A sweep asks this first. Whatever does not fit keeps its parts as the reason; a constraint over memory is answered; and where a
point cannot be better than one already run, it need not run at all.
"""

from __future__ import annotations

from typing import Any

from sim.runs.kinds import Forecast, runner
from sim.runs.run import run_scenario
from sim.scenario.descriptions import Scenario


def forecast(scenario: Scenario) -> Forecast:
    """Memory and bounds of a run before it, and the run itself. Raises `DoesNotFitError` where memory overflows."""
    known = runner(scenario.kind).forecast
    return known(scenario) if known is not None else Forecast(lambda: _metrics(scenario))


def _metrics(scenario: Scenario) -> dict[str, Any]:
    found: dict[str, Any] = run_scenario(scenario)["metrics"]
    return found
