"""Run a scenario: routing, flows, simulated time, metrics, and the result document."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from sim.documents import Document
from sim.runs import gathering
from sim.runs.kinds import Keep, Progress, Result, runner
from sim.runs.result import RESULT_SCHEMA, expectations, provenance
from sim.scenario import resolve as scenarios
from sim.scenario import settings as scenario_settings
from sim.scenario.descriptions import Scenario
from sim.trees import flatten


def run_document(
    document: Document, progress: Progress = lambda _: None, keep: Keep = lambda _: None
) -> Result:
    """Run a scenario's document, with its variants if it has any, each compared with the first.

    `keep` is given, after each variant but the last, what makes the document of those that have ended.
    InputError with all problems of the document; InfeasibleError where no machine could run it.
    """
    documents = scenario_settings.variants(document)
    if not document.get(("variants",)):
        return run_scenario(scenarios.resolve(document), progress)
    resolved = {name: scenarios.resolve(variant) for name, variant in documents.items()}
    results: dict[str, Result] = {}
    for name, scenario in resolved.items():
        results[name] = run_scenario(scenario, progress)
        if len(results) < len(resolved):
            keep(partial(_partial, document, results, len(resolved)))
    return _together(document, results)


def _partial(document: Document, results: dict[str, Result], total: int) -> Result:
    finished = {"finished": len(results), "of": total, "what": "variants"}
    return {"schema": RESULT_SCHEMA, "partial": finished} | _together(document, results)


def _together(document: Document, results: dict[str, Result]) -> Result:
    """The document of several variants, each compared with the first."""
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
        **_asked(document),
        "variants": results,
        "comparison": {"reference": first, **comparison},
    }


def _asked(document: Document) -> dict[str, Any]:
    """The question of a scenario, as its results carry it; nothing where it asks none."""
    question = document.get(("question",))
    return {"question": question} if question else {}


def run_scenario(scenario: Scenario, progress: Progress = lambda _: None) -> Result:
    """Run one resolved scenario; InfeasibleError where no machine could."""
    result: Result = {
        "schema": RESULT_SCHEMA,
        "name": scenario.name,
        "title": scenario.title,
        "scenario": scenario.document,
        "provenance": provenance(scenario),
    }
    result |= runner(scenario.kind).run(scenario, progress)
    if scenario.gather_fraction:
        result["gathering"] = gathering.error_of(scenario, result, progress)
    result["expect"] = expectations(scenario, result["metrics"])
    return result


def run_file(spec: str | Path, settings: tuple[str, ...] = (), progress: Progress = lambda _: None) -> Result:
    """Read and run a scenario file or shipped scenario, with settings `key.path=value` laid over it.

    Errors as of `run_document`.
    """
    return run_document(scenario_settings.read(spec, settings), progress)
