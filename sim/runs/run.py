"""Run a scenario: routing, flows, simulated time, metrics, and the result document."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sim.documents import Document
from sim.runs.all_to_all import _run_all_to_all
from sim.runs.flows import _run_flows
from sim.runs.result import RESULT_SCHEMA, Progress, Result, expectations, provenance
from sim.scenario import resolve as scenarios
from sim.scenario import settings as scenario_settings
from sim.scenario.all_to_all import AllToAll
from sim.scenario.descriptions import Scenario
from sim.scenario.flows import FlowList
from sim.scenario.inference import Inference
from sim.scenario.serving import Serving
from sim.scenario.training import Training
from sim.trees import flatten


def run_document(document: Document, progress: Progress = lambda _: None) -> Result:
    """Run a scenario document, with its variants if it has any. Returns the result document."""
    documents = scenario_settings.variants(document)
    if not document.get(("variants",)):
        return run_scenario(scenarios.resolve(document), progress)
    resolved = {name: scenarios.resolve(one) for name, one in documents.items()}
    results: dict[str, Result] = {}
    for name, one in resolved.items():
        results[name] = run_scenario(one, progress)
    first, *others = results
    reference = flatten(results[first]["metrics"])
    comparison = {
        name: {
            key: value / reference[key]
            for key, value in flatten(results[name]["metrics"]).items()
            if reference.get(key)
        }
        for name in others
    }
    return {
        "schema": RESULT_SCHEMA,
        "name": str(document.get(("name",))),
        "title": str(document.get(("title",)) or document.get(("name",))),
        "variants": results,
        "comparison": {"reference": first, **comparison},
    }


def run_scenario(scenario: Scenario, progress: Progress = lambda _: None) -> Result:
    """Run one resolved scenario."""
    result: Result = {
        "schema": RESULT_SCHEMA,
        "name": scenario.name,
        "title": scenario.title,
        "scenario": scenario.document,
        "provenance": provenance(scenario),
    }
    result |= _RUNNERS[type(scenario.workload)](scenario, progress)
    result["expect"] = expectations(scenario, result["metrics"])
    return result


def _run_training(scenario: Scenario, progress: Progress) -> Result:
    from sim.runs.training import run_training

    return run_training(scenario, progress)


def _run_inference(scenario: Scenario, progress: Progress) -> Result:
    from sim.runs.inference import run_inference

    return run_inference(scenario, progress)


def _run_serving(scenario: Scenario, progress: Progress) -> Result:
    from sim.runs.serving import run_serving

    return run_serving(scenario, progress)


_RUNNERS: dict[type, Callable[[Scenario, Progress], Result]] = {
    AllToAll: _run_all_to_all,
    FlowList: _run_flows,
    Training: _run_training,
    Inference: _run_inference,
    Serving: _run_serving,
}


def run_file(spec: str | Path, settings: tuple[str, ...] = (), progress: Progress = lambda _: None) -> Result:
    """Read and run a scenario file or shipped scenario."""
    return run_document(scenario_settings.read(spec, settings), progress)
