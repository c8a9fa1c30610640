"""The parts of a result document that every run has: the parameters that decided it, and expected next to simulated values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from sim import metrics
from sim.cluster import export_rules
from sim.cluster.hardware import Hardware
from sim.cluster.parameters import OVERRIDE, Parameter
from sim.cost.power import load_power
from sim.documents import Document
from sim.errors import InputError, nearest
from sim.runs.kinds import Result, runner
from sim.runs.validated import outside
from sim.scenario import settings as scenario_settings
from sim.scenario.descriptions import Scenario
from sim.trees import flatten
from sim.version import __version__

RESULT_SCHEMA = "moesim.result/1"


def provenance(scenario: Scenario) -> dict[str, Any]:
    """Record what a run was made with: version, seed, settings, hardware with its export rules, what lies outside validation.

    Every assumed, derived or overridden parameter that the run read is in it, with grade and source.
    """
    read, part, others = runner(scenario.kind).reads, scenario.hardware, _other_pools(scenario)
    leaned = [f for f in part.parameters if f.path.startswith(read)] if part else []
    for name, other in others.items():
        leaned += [replace(f, path=f"{name}.{f.path}") for f in other.parameters if f.path.startswith(read)]
    for file in scenario.workload.files:
        leaned += list(file.parameters)
    if scenario.software is not None:
        leaned += [replace(f, path=f"software.{f.path}") for f in scenario.software.parameters]
    return {
        "version": __version__,
        "seed": scenario.seed,
        "outside_validation": outside(scenario),
        **({"settings": list(scenario.settings)} if scenario.settings else {}),
        **(_hardware(part) if part else {}),
        **({"pools": {name: _hardware(other) for name, other in others.items()}} if others else {}),
        "leaned_on": [
            {"key": f.path, "value": f.shown, "grade": f.grade, "source": f.citation, "detail": f.detail}
            for f in (
                *leaned,
                *(_powers() if "energy.total_kwh" in (metrics.reported([scenario.kind]) or ()) else ()),
            )
            if f.grade in ("assumed", "derived", "override")
        ],
    }


def _powers() -> list[Parameter]:
    """Parameters of power, which every energy leans on, with their ranges."""
    rows = load_power().parameters
    shown = [f"{row.shown} ({row.low} to {row.high})" if row.low else row.shown for row in rows]
    return [replace(row, path=f"power.{row.path}", shown=text) for row, text in zip(rows, shown, strict=True)]


def _other_pools(scenario: Scenario) -> dict[str, Hardware]:
    """The hardware of the pools that have another than the scenario's own."""
    pools = scenario.shared.pools if scenario.shared else {}
    return {name: pool.hardware for name, pool in pools.items() if pool.hardware != scenario.hardware}


def _hardware(part: Hardware) -> dict[str, Any]:
    """Name and overrides of the GPU, and its verdicts under export rules as it ran."""
    return {
        "hardware": {
            "name": part.name,
            "title": part.title,
            "gpus_per_node": part.gpu.scale_up.domain,
            "nics_per_node": part.nics_per_node,
            "overrides": {f.path: f.shown for f in part.parameters if f.grade == OVERRIDE},
        },
        "export_rules": {
            "note": export_rules.NOTE,
            "verdicts": [_verdict(verdict) for verdict in export_rules.verdicts(part)],
        },
    }


def _verdict(verdict: export_rules.Verdict) -> dict[str, Any]:
    numbers = [{"name": name, "value": value, "unit": unit} for name, value, unit in verdict.numbers]
    return {**asdict(verdict), "numbers": numbers}


def expectations(scenario: Scenario, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compare metrics with the values that a scenario expects; `check_expected` reports those that the run does not have."""
    known, rows = flatten(metrics), []
    for expected in scenario.expectations:
        got = known.get(expected.metric)
        if got is None:
            continue
        value = expected.value
        error = (got - value) / value if value else float(got != 0)  # of nothing: met or missed whole
        rows.append(
            {
                "metric": expected.metric,
                "published": value,
                "simulated": got,
                "error_fraction": error,
                "tolerance_fraction": expected.tolerance_fraction,
                "source": expected.source,
                "ok": abs(error) <= expected.tolerance_fraction,
            }
        )
    return rows


def check_expected(document: Document, result: Result) -> None:
    """Check that the runs of a document have every metric that it expects; do so once results are saved.

    InputError with all metrics that a run does not have, at their marks.
    """
    problems = []
    for name, variant in scenario_settings.variants(document).items():
        known = flatten(result.get("variants", {name: result})[name]["metrics"])
        for metric in variant.get(("expect",)) or ():
            if metric not in known:
                wanted, near = "a metric of this run", nearest(metric, known)
                problems.append(variant.problem(("expect", metric), f"'{metric}'", wanted, near, key=True))
    if problems:
        raise InputError(list(dict.fromkeys(problems)))


def missed(result: Result) -> list[str]:
    """Describe the expectations that a result (or any of its variants) misses, one line each."""
    lines = []
    for name, run in {"": result, **result.get("variants", {})}.items():
        for row in run.get("expect", []):
            if not row["ok"]:
                where = f"{name}: " if name else ""
                lines.append(
                    f"{where}{row['metric']}: simulated {row['simulated']:.6g}, published {row['published']:.6g}, "
                    f"error {row['error_fraction']:+.1%}, tolerance {row['tolerance_fraction']:.0%}"
                )
    return lines
