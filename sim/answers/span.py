"""The span of a headline: what a run's first figure becomes when every assumed parameter lies at one of its stated ends.

Each parameter that the run read, that is assumed or derived, and whose file states a range is moved to either end, all else as it is;
then all of them together, each to the end that made the figure smaller, and to the one that made it larger. What has no stated
range cannot be moved, and is counted. Power is left out: energies carry their own ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sim.cluster.parameters import Parameter
from sim.cluster.software import load_software
from sim.documents import Document
from sim.errors import InfeasibleError, InputError, Mark
from sim.metrics import label
from sim.runs.kinds import Progress, Result, runner
from sim.runs.run import run_scenario
from sim.scenario import resolve as scenarios
from sim.scenario import settings as scenario_settings
from sim.scenario.descriptions import Scenario
from sim.trees import flatten

_HEADLINES = (
    "dispatch.time_s", "exchange.time_s", "tpot_s", "ttft_s", "step_time_s", "ttft.mean_s", "completion_time_s", "time_s",
)  # fmt: skip
"""Figures by which a run is told, the first that it has."""
_GRADES = ("assumed", "derived")


@dataclass(frozen=True, slots=True)
class Movable:
    """A parameter with a stated range: its key, the place of its value in a scenario, and both ends as written."""

    key: str
    path: tuple[str, ...]
    parameter: Parameter


def headline(metrics: Mapping[str, Any]) -> str:
    """Return the name of the figure that a run is told by."""
    known = flatten(metrics)
    return next((name for name in _HEADLINES if name in known), next(iter(known)))


def add(document: Document, result: Result, progress: Progress = lambda _: None) -> None:
    """Add its `range` to a result, or to each of its variants."""
    for name, variant in scenario_settings.variants(document).items():
        run = result["variants"][name] if "variants" in result else result
        run["range"] = span(variant, run, progress)


def span(document: Document, result: Result, progress: Progress = lambda _: None) -> dict[str, Any]:
    """Move each assumed parameter of a run without variants to its stated ends.

    `low` and `high` are the `value` of `metric` with all parameters at their ends; `parameters` have by key
    both ends and what each gives, the one that moves most first; those `unstated` have no range.
    """
    metric = headline(result["metrics"])
    value = float(flatten(result["metrics"])[metric])
    scenario = scenarios.resolve(document)
    stated: list[Movable] = []
    unstated: list[Movable] = []
    for moved in _parameters(scenario):
        (stated if moved.parameter.low else unstated).append(moved)
    ends: dict[str, tuple[str, str]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for moved in stated:
        progress(f"{scenario.name}: {moved.key} at its ends")
        low, high = str(moved.parameter.low), str(moved.parameter.high)
        gives = {end: _value(document, metric, {moved: end}) for end in (low, high)}
        rows[moved.key] = {
            "low": low,
            "high": high,
            "gives_low": gives[low],
            "gives_high": gives[high],
            "title": moved.parameter.detail,
        }
        by_value = sorted(gives, key=lambda end: value if gives[end] is None else gives[end] or 0.0)
        ends[moved.key] = (by_value[0], by_value[-1])
    both = [
        _value(document, metric, {moved: ends[moved.key][side] for moved in stated}) if stated else value
        for side in (0, 1)
    ]
    return {
        "metric": metric,
        "label": label(metric),
        "value": value,
        "low": both[0],
        "high": both[1],
        "parameters": dict(sorted(rows.items(), key=lambda row: -_width(row[1], value))),
        "unstated": [moved.key for moved in unstated],
    }


def _width(row: Mapping[str, Any], value: float) -> float:
    gives = [value if row[key] is None else row[key] for key in ("gives_low", "gives_high")]
    return float(max(gives) - min(gives))


def _parameters(scenario: Scenario) -> Iterator[Movable]:
    """Yield the assumed and derived parameters that a run reads, but for what was overridden, and for power."""
    read = runner(scenario.kind).reads
    for parameter in scenario.hardware.parameters if scenario.hardware else ():
        if parameter.grade in _GRADES and parameter.path.startswith(read):
            yield Movable(parameter.path, ("cluster", "override", *parameter.path.split(".")), parameter)
    for file in scenario.workload.kernels:
        for parameter in file.parameters:
            if parameter.grade in _GRADES:
                yield Movable(
                    f"kernel.{parameter.path}",
                    ("workload", "kernel", "override", *parameter.path.split(".")),
                    parameter,
                )
    for parameter in scenario.software.parameters if scenario.software else ():
        if parameter.grade in _GRADES:
            yield Movable(f"software.{parameter.path}", ("software", parameter.path), parameter)


def _value(document: Document, metric: str, moved: Mapping[Movable, str]) -> float | None:
    """Run the scenario with parameters at an end; None where it cannot be so."""
    laid, software = document.copy(), {}
    for movable, end in moved.items():
        if movable.path[0] == "software":
            software[movable.path[1]] = end
        else:
            scenario_settings.put(laid, movable.path, _override(end), Mark("--range"))
    try:
        scenario = scenarios.resolve(laid)
        named = document.get(("software",))
        if software and isinstance(named, str):
            scenario = replace(scenario, software=load_software(named, software, near=document.folder))
        return float(flatten(run_scenario(scenario)["metrics"])[metric])
    except (InputError, InfeasibleError):
        return None


def _override(end: str) -> Any:
    """Return an end as a scenario writes it: a number where it has no unit."""
    try:
        return float(end)
    except ValueError:
        return end
