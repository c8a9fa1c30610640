"""The parts of a result document that every run has: what it leaned on, and what was expected beside what came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sim.cluster import export_rules
from sim.cluster.parameters import OVERRIDE
from sim.documents import Document
from sim.errors import InputError, nearest
from sim.runs.kinds import Result, runner
from sim.scenario import settings as scenario_settings
from sim.scenario.descriptions import Scenario
from sim.trees import flatten
from sim.version import __version__

RESULT_SCHEMA = "moesim.result/1"


def provenance(scenario: Scenario) -> dict[str, Any]:
    """Version, seed, hardware with its export rules, and the assumed, derived and overridden figures that the run leaned on."""
    read = runner(scenario.kind).reads
    leaned = [f for f in scenario.hardware.parameters if f.path.startswith(read)] if scenario.hardware else []
    for kernel in scenario.workload.kernels:
        leaned += list(kernel.parameters)
    return {
        "version": __version__,
        "seed": scenario.seed,
        **({"settings": list(scenario.settings)} if scenario.settings else {}),
        **_hardware(scenario),
        "leaned_on": [
            {"key": f.path, "value": f.shown, "grade": f.grade, "source": f.citation, "detail": f.detail}
            for f in leaned
            if f.grade in ("assumed", "derived", "override")
        ],
    }


def _hardware(scenario: Scenario) -> dict[str, Any]:
    """Which part it is, what was overridden, and what export rules say of it as it ran; nothing of a bare fabric."""
    part = scenario.hardware
    if part is None:
        return {}
    return {
        "hardware": {
            "name": part.name,
            "title": part.title,
            "overrides": {f.path: f.shown for f in part.parameters if f.grade == OVERRIDE},
        },
        "export_rules": {
            "note": export_rules.NOTE,
            "verdicts": [_verdict(one) for one in export_rules.verdicts(part)],
        },
    }


def _verdict(one: export_rules.Verdict) -> dict[str, Any]:
    numbers = [{"name": name, "value": value, "unit": unit} for name, value, unit in one.numbers]
    return {**asdict(one), "numbers": numbers}


def expectations(scenario: Scenario, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each expected value beside ours; what the run has no metric for, `check_expected` tells."""
    known, rows = flatten(metrics), []
    for one in scenario.expectations:
        got = known.get(one.metric)
        if got is None:
            continue
        error = (
            (got - one.value) / one.value if one.value else float(got != 0)
        )  # of nothing: met or missed whole
        rows.append(
            {
                "metric": one.metric,
                "published": one.value,
                "simulated": got,
                "error_fraction": error,
                "tolerance_fraction": one.tolerance_fraction,
                "source": one.source,
                "ok": abs(error) <= one.tolerance_fraction,
            }
        )
    return rows


def check_expected(document: Document, result: Result) -> None:
    """Raise `InputError` for expected metrics that the runs of a document do not have; asked once results are safe."""
    problems = []
    for name, one in scenario_settings.variants(document).items():
        known = flatten(result.get("variants", {name: result})[name]["metrics"])
        for metric in one.get(("expect",)) or ():
            if metric not in known:
                wanted, near = "a metric of this run", nearest(metric, known)
                problems.append(one.problem(("expect", metric), f"'{metric}'", wanted, near, key=True))
    if problems:
        raise InputError(list(dict.fromkeys(problems)))


def missed(result: Result) -> list[str]:
    """The expectations that a result (or any of its variants) misses, one line each."""
    lines = []
    for name, one in {"": result, **result.get("variants", {})}.items():
        for row in one.get("expect", []):
            if not row["ok"]:
                where = f"{name}: " if name else ""
                lines.append(
                    f"{where}{row['metric']}: simulated {row['simulated']:.6g}, published {row['published']:.6g}, "
                    f"error {row['error_fraction']:+.1%}, tolerance {row['tolerance_fraction']:.0%}"
                )
    return lines
