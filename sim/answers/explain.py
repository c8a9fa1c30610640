"""Explanations: what a run's time is made of, and which single change of machine or software would give a measured value.

The time of a lone exchange is taken apart by taking things away and running it again: without faults, with even loads, without
its fixed time; what is left above the bound is what the kernel does not reach of the links. Steps and passes carry their parts
in their results. A suspect is judged by simulation alone: the scenario is run with its change, and the nearest fits best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim import metrics, units
from sim.answers.changed import Changes, lay, run_changed
from sim.answers.suspects import HEALTHY, SUSPECTS
from sim.documents import Document
from sim.errors import InputError, Mark, Problem, nearest
from sim.runs.kinds import Progress, Result
from sim.runs.run import run_scenario
from sim.scenario import resolve as scenarios
from sim.scenario.descriptions import Scenario
from sim.trees import flatten

SCHEMA = "moesim.explain/1"
_CLOSE = 0.02  # relative; suspects whose errors differ by less fit equally well
_TRUSTED = 0.10  # relative; a healthy machine that comes so near explains it: single rows of `moesim validate` are off by as much
_LEAST = 1e-6  # of a time; smaller parts are rounding
_WAITS = ("prefill_wait", "kv_transfer", "decode_wait", "step_wait")
_WAYS = ("dispatch", "combine", "exchange")


@dataclass(frozen=True, slots=True)
class Measured:
    """A value that was measured, and the metric that it is of."""

    metric: str
    value: float


def explain(
    document: Document, measured: Sequence[str] = (), progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Explain the time of a scenario without variants, and values that were measured beside it.

    Measured values are `12.5 GB/s`, `dispatch=45 us`, or with the whole name of a metric; InputError where a
    run has no such metric. Returns the `parts` [s] of the time of `metric`, in order, and of measured values
    the `causes`, the one that fits best first, each with what it sets, the values it gives and how far off they
    are.
    """
    scenario = scenarios.resolve(document)
    progress(f"{scenario.name}: as it is")
    result = run_scenario(scenario)
    known = flatten(result["metrics"])
    values = [_measured(text, known) for text in measured]
    metric = _time_of(values[0].metric if values else None, known)
    return {
        "schema": SCHEMA,
        "name": scenario.name,
        "title": scenario.title,
        "metric": metric,
        "value_s": known[metric],
        "parts": _parts(document, scenario, result, metric, progress),
        "measured": {asked.metric: asked.value for asked in values},
        "causes": _causes(document, scenario, result, values, progress) if values else [],
        "provenance": result["provenance"],
    }


# --- what was measured ----------------------------------------------------------------------------------------------

_OF_RATES = (
    "logical_rdma_bytes_per_s",
    "logical_nvlink_bytes_per_s",
    "busbw_bytes_per_s",
    "algbw_bytes_per_s",
)
_OF_TIMES = (
    "time_s", "tpot_s", "ttft_s", "step_time_s", "completion_time_s", "ttft.mean_s", "tpot.mean_s", "makespan_s",
)  # fmt: skip
_WHOLE = ("step_time_s", "response.mean_s", "completion_time_s", "time_s")
"""Times that are taken apart, where there is no lone exchange."""
_DEFAULTS = {"bytes/s": _OF_RATES, "s": _OF_TIMES, "number": ("tokens_per_s_per_gpu", "output_tokens_per_s")}
"""Dimension of a value -> the metrics that it may be of, the first that a run reports."""


def _measured(text: str, known: Mapping[str, float]) -> Measured:
    name, equals, value = text.rpartition("=")
    number = units.split(value.strip())
    mark = Mark(f"--measured {text}")
    if number is None:
        raise InputError(Problem(mark, "", f"'{value}'", "a value with its unit, like '43 GB/s' or '2.5 ms'"))
    dimension = units.dimension_of_unit(number[1]) if number[1] else "number"
    name = name.strip()
    if equals and name in known:
        metric = name
    else:
        kinds = _DEFAULTS.get(dimension, ())
        prefixes = [f"{name}."] if name else ["", *(f"{way}." for way in _WAYS)]
        candidates = [prefix + last for prefix in prefixes[:1] for last in kinds]
        candidates += [prefix + last for last in kinds for prefix in prefixes[1:]]
        metric = next((candidate for candidate in candidates if known.get(candidate)), "")
        if not metric:
            some = ", ".join(list(known)[:3])
            wanted = (
                f"a metric of this run, such as {some}"
                if equals
                else "a value with its unit, like '43 GB/s' or '2.5 ms'"
            )
            raise InputError(Problem(mark, "", f"'{name or value.strip()}'", wanted, nearest(name, known)))
    if metrics.dimension_of(metric) != dimension:
        raise InputError(
            Problem(mark, metric, f"'{value.strip()}'", units.describe(metrics.dimension_of(metric)))
        )
    if number[0] <= 0:
        raise InputError(Problem(mark, metric, f"'{value.strip()}'", "more than 0"))
    return Measured(metric, units.parse(value.strip(), dimension))


def _time_of(metric: str | None, known: Mapping[str, float]) -> str:
    """Return the time that is taken apart: of the direction of a metric, else of the run's first."""
    way = metric.partition(".")[0] if metric else ""
    names = [f"{prefix}.completion_time_s" for prefix in (way, *_WAYS)]
    return next(name for name in (*names, *_WHOLE) if name in known)


# --- parts of a time ------------------------------------------------------------------------------------------------


def _parts(
    document: Document, scenario: Scenario, result: Result, metric: str, progress: Progress
) -> list[dict[str, Any]]:
    """Return the parts that add up to a time, in order."""
    whole = flatten(result["metrics"])[metric]
    way, _, last = metric.rpartition(".")
    if last == "completion_time_s" and way:
        parts = _of_exchange(document, scenario, result, way, progress)
    else:
        parts = _of_result(result, whole)
    return [
        {"name": name, "title": title, "value_s": value, "share_fraction": value / whole if whole else 0.0}
        for name, title, value in parts
    ]


_Parts = list[tuple[str, str, float]]


def _of_exchange(
    document: Document, scenario: Scenario, result: Result, way: str, progress: Progress
) -> _Parts:
    """Take an exchange apart: what faults and uneven loads cost, its fixed time, what the kernel reaches, and the bound."""
    whole = result["metrics"][way]["completion_time_s"]
    steps: list[tuple[str, str, Changes]] = []
    if (scenario.document.get("cluster") or {}).get("faults"):
        steps.append(("faults", "faults of links", {"cluster.faults": []}))
    gate = (scenario.document.get("workload") or {}).get("gate") or {}
    if gate:
        even = {"kind": gate["kind"]} if gate["kind"] in ("uniform", "group_limited") else {"kind": "uniform"}
        if "top_groups" in gate:
            even["top_groups"] = gate["top_groups"]
        steps.append(
            ("uneven", "loads that are not even", {"workload.gate": {**even, "sampling": "expected"}})
        )
    parts: _Parts = []
    laid, now, last = document, whole, result
    for name, title, changes in steps:
        progress(f"{scenario.name}: without {title}")
        laid = lay(laid, changes)
        last = run_scenario(scenarios.resolve(laid))
        took = last["metrics"][way]["completion_time_s"]
        parts.append((name, title, now - took))
        now = took
    kernel = scenario.workload.kernels[0]
    crosses = scenario.ep > scenario.gpus_per_node
    direction = "combine" if way == "combine" else "dispatch"
    peers = scenario.ep - scenario.gpus_per_node if crosses else 0
    num_nodes = max(1.0, scenario.ep / scenario.gpus_per_node)
    fixed = kernel.fixed_s(direction, uses_nic=crosses, num_nodes=num_nodes, num_remote_peers=peers)
    bound = min(last["metrics"][way]["lower_bound_s"], now - fixed)
    reached = ("kernel", "what the kernel does not reach of the links", now - fixed - bound)
    bytes_ = ("bound", "bytes at data-sheet rates on the busiest link", bound)
    return [bytes_, reached, ("fixed", "fixed time of the kernel", fixed), *reversed(parts)]


def _of_result(result: Result, whole: float) -> _Parts:
    """Return the parts that a result carries: `where` of a pass, `phases` of a step, the waits of a request."""
    reported = result["metrics"]
    waits = {name: reported[name]["mean_s"] for name in _WAITS if name in reported}
    named = flatten(result.get("where") or reported.get("phases") or waits)
    parts = [
        (name, name.removesuffix("_s").replace("_", " "), value)
        for name, value in named.items()
        if abs(value) > _LEAST * whole
    ]
    rest = whole - sum(value for _, _, value in parts)
    return [*parts, *([("rest", "the rest", rest)] if abs(rest) > _LEAST * whole else [])]


# --- causes of what was measured --------------------------------------------------------------------------------------


def _causes(
    document: Document, scenario: Scenario, healthy: Result, values: Sequence[Measured], progress: Progress
) -> list[dict[str, Any]]:
    """Run every suspect; return those that could run, the nearest to what was measured first."""
    causes: list[dict[str, Any]] = []
    for name, suspect in SUSPECTS.items():
        changes = suspect.changes(scenario)
        if changes is None:
            continue
        progress(f"{scenario.name}: {suspect.title}")
        result = healthy if name == HEALTHY else run_changed(document, changes)
        if result is None:
            continue
        simulated = flatten(result["metrics"])
        if any(not simulated.get(asked.metric) for asked in values):
            continue
        errors = {asked.metric: simulated[asked.metric] / asked.value - 1 for asked in values}
        causes.append(
            {
                "name": name,
                "title": suspect.title,
                "set": dict(changes),
                "values": {asked.metric: simulated[asked.metric] for asked in values},
                "errors": errors,
                "distance_fraction": _distance(errors.values()),
                "binding": next((simulated[key] for key in _bindings(values, simulated)), None),
            }
        )
    order = {name: place for place, name in enumerate(SUSPECTS)}
    least = math.log1p(_CLOSE)
    causes.sort(
        key=lambda cause: (
            not (cause["name"] == HEALTHY and cause["distance_fraction"] <= _TRUSTED),
            round(math.log1p(cause["distance_fraction"]) / least),
            order[cause["name"]],
        )
    )
    return causes


def _distance(errors: Any) -> float:
    """Return how far several values are off, together: the root mean square of the logarithms, as a fraction."""
    logs = [math.log1p(error) ** 2 for error in errors]
    return math.expm1(math.sqrt(sum(logs) / len(logs)))


def _bindings(values: Sequence[Measured], simulated: Mapping[str, Any]) -> list[str]:
    ways = (asked.metric.rpartition(".")[0] for asked in values)
    return [key for way in ways if (key := f"{way}.binding" if way else "binding") in simulated]
