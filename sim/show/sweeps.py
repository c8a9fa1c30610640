"""A sweep's document, read and put in words: the best point, what each axis costs, what cannot be, what would change that.

Where a sweep says that an axis is `given` (a machine, say: a condition and no choice), points are compared only with points
of the same value.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sim.show.cases import LABEL
from sim.show.grid import Cell, padded
from sim.units import dimension_of, show

Sweep = Mapping[str, Any]
Point = Mapping[str, Any]

BESIDE = (
    "tpot_s", "ttft_s", "step_time_s", "dispatch.time_s", "combine.time_s", "tokens_per_s_per_gpu", "tokens_per_s_per_user",
    "mfu_causal_fraction", "bubble_s", "exposed_comm_s", "memory_peak_bytes", "max_batch_per_gpu", "binding",
    "dispatch.binding", "combine.binding",
)  # fmt: skip
"""Metrics that are shown beside the objectives, where a point has them."""
_MOST_BESIDE = 4
_LAYOUT = ("pp", "ep", "tp", "dp", "cp")
_LABEL = {
    "step_time_s": "step", "tpot_s": "TPOT", "ttft_s": "TTFT", "mfu_causal_fraction": "MFU", "bubble_s": "bubble",
    "exposed_comm_s": "exposed", "memory_peak_bytes": "memory", "max_batch_per_gpu": "max batch", "tokens_per_s_per_gpu": "tokens/s/GPU",
    "tokens_per_s_per_user": "tokens/s/user", "tokens_per_s_per_node": "tokens/s/node", "run_cost_usd": "cost [$]", "run_gpu_hours": "GPU-hours",
}  # fmt: skip


def is_sweep(document: Mapping[str, Any]) -> bool:
    """Whether a document is what `moesim sweep --json` prints."""
    return str(document.get("schema", "")).startswith("moesim.sweep/")


# --- reading points ------------------------------------------------------------------------------------------------


def metric(point: Point, name: str) -> float | None:
    """A number among the metrics of a point; None where it has none."""
    value = raw_metric(point, name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def objective(document: Sweep) -> tuple[str, str]:
    """The first objective: its metric, and `minimise` or `maximise`."""
    name, way = next(iter(document["objectives"].items()))
    return str(name), str(way)


def label(name: str) -> str:
    """A metric as a reader calls it: `step_time_s` -> `step`."""
    if name in _LABEL:
        return _LABEL[name]
    words = re.sub(r"_(bytes_per_s|bytes|fraction|s)$", "", name)
    return words.replace("_", " ").replace(".", " ")


def axis_label(name: str) -> str:
    """An axis as a reader calls it: `layout.pp` -> `PP`, `workload.kernel.comm_sms` -> `comm sms`."""
    last = name.rpartition(".")[2]
    if last in _LAYOUT:
        return last.upper()
    if name.endswith("scale_up.bandwidth"):
        return "NVLink"
    return last.replace("_", " ")


def value_label(value: Any) -> str:
    """A value of an axis as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return str(value)


def values_text(point: Point, axes: Iterable[str]) -> str:
    """A point in words: `PP 16, EP 64, TP 1, dualpipe`."""
    told = []
    for name in axes:
        value = point["values"][name]
        bare = isinstance(value, str) and not re.match(r"[\d.]+(\s|$)", value)
        told.append(value if bare else f"{axis_label(name)} {value_label(value)}")
    return ", ".join(told)


def cell(name: str, value: Any) -> Cell:
    """A metric's value; `-` where there is none."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return LABEL.get(value, value.replace("_", " "))
    if value == 0:
        return "0"
    dimension = dimension_of(name)
    if dimension == "number":
        return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else padded(f"{value:.4g}")
    return padded(show(float(value), dimension))


def columns(document: Sweep) -> list[str]:
    """Objectives, then what is worth seeing beside them."""
    first = next((p for p in document["points"] if p["status"] == "ok"), None)
    asked = list(document["objectives"])
    if first is None:
        return asked
    there = [name for name in BESIDE if name not in asked and raw_metric(first, name) is not None]
    said = {"mfu_causal_fraction": "tokens_per_s_per_gpu", "tpot_s": "step_time_s", "ttft_s": "step_time_s"}
    there = [name for name in there if not any(one in there and other == name for one, other in said.items())]
    return asked + there[:_MOST_BESIDE]


def raw_metric(point: Point, name: str) -> Any:
    """A metric of a point by its dotted name, number or word; None where it has none."""
    value: Any = point.get("metrics") or {}
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def names_of(axes: Iterable[Any]) -> list[str]:
    """Names of the axes of a space that have more than one value."""
    return [axis.name for axis in axes if len(axis.values) > 1]


def varied(document: Sweep) -> list[str]:
    """Axes with more than one value."""
    return [name for name, values in document["axes"].items() if len(values) > 1] or list(document["axes"])


# --- conditions and their best -------------------------------------------------------------------------------------


def conditions(document: Sweep) -> list[str | None]:
    """Values of the given axis, as text; None alone where no axis is given."""
    given = document.get("given")
    return [None] if given is None else [value_label(value) for value in document["axes"][given]]


def condition_of(document: Sweep, point: Point) -> str | None:
    """The value of the given axis at a point."""
    given = document.get("given")
    return None if given is None else value_label(point["values"][given])


def condition_text(document: Sweep, condition: str | None) -> str:
    """`EP 8`, `h800`; "" where no axis is given."""
    if condition is None:
        return ""
    return condition if not condition[:1].isdigit() else f"{axis_label(str(document['given']))} {condition}"


def ranked(document: Sweep, condition: str | None = None) -> list[Point]:
    """Points that ran, the best first; of one condition only, where one is named."""
    points = [document["points"][index] for index in document["ranked"]]
    return points if condition is None else [p for p in points if condition_of(document, p) == condition]


def best(document: Sweep, condition: str | None = None) -> Point | None:
    """The point with the best first objective."""
    name, way = objective(document)
    found = [point for point in ranked(document, condition) if metric(point, name) is not None]
    if not found:
        return None
    return (min if way == "minimise" else max)(found, key=lambda point: metric(point, name) or 0.0)


def choices(document: Sweep) -> list[str]:
    """Axes with more than one value but for the given one."""
    return [name for name in varied(document) if name != document.get("given")]


def marginals(
    document: Sweep, axis: str, condition: str | None = None
) -> list[tuple[str, Point | None, int]]:
    """Each value of an axis: the best point that has it (None where none ran), and how many ran."""
    name, way = objective(document)
    found: dict[str, list[Point]] = {value_label(value): [] for value in document["axes"][axis]}
    for point in ranked(document, condition):
        if metric(point, name) is not None:
            found[value_label(point["values"][axis])].append(point)
    pick = min if way == "minimise" else max
    return [
        (value, pick(points, key=lambda p: metric(p, name) or 0.0) if points else None, len(points))
        for value, points in found.items()
    ]


def lag(document: Sweep, point: Point) -> float | None:
    """The first objective of a point over that of the best of its condition, less one [fraction]."""
    leader, name = best(document, condition_of(document, point)), objective(document)[0]
    top, value = metric(leader, name) if leader else None, metric(point, name)
    return value / top - 1 if top and value is not None else None


def lag_cell(document: Sweep, point: Point) -> str:
    """`+1.3%`, `best`, or `-` where there is nothing to compare with."""
    behind = lag(document, point)
    return "-" if behind is None else "best" if behind == 0 else f"{behind:+.1%}"


# --- words ---------------------------------------------------------------------------------------------------------


def finding(document: Sweep) -> list[str]:
    """What the sweep found, the most important first."""
    counts = document["counts"]
    if not document["ranked"]:
        return [f"None of {counts['points']:,} points can be run. {_most_reasons(document)}".strip()]
    said = [_leader(document, condition) for condition in conditions(document)]
    if len(document["objectives"]) > 1:
        names = " and ".join(label(one) for one in document["objectives"])
        front = len(document["pareto"])
        said.append(f"{front} point{'s' * (front != 1)} no other beats on {names}.")
    said += filter(None, [_costliest(document)])
    told = (("infeasible", "cannot be"), ("pruned", "were skipped by their bound"), ("failed", "failed"))
    rest = [f"{counts[status]:,} {word}" for status, word in told if counts[status]]
    if rest:
        said.append(f"{counts['ok']:,} ran; {', '.join(rest)}. {_most_reasons(document)}".strip())
    if document["changes"]:
        said.append(_change(document, document["changes"][0]))
    return said


def _leader(document: Sweep, condition: str | None) -> str:
    """The best point and the next one of the same condition."""
    name, leader = objective(document)[0], best(document, condition)
    lead = f"{condition_text(document, condition)}: best" if condition else "Best"
    if leader is None:
        return f"{condition_text(document, condition)}: nothing can be run."
    axes, here = choices(document) or varied(document), ranked(document, condition)
    first = f"{lead} of {len(here):,} that ran is {values_text(leader, axes)}: {label(name)} {cell(name, metric(leader, name))}."
    others = [point for point in here if point is not leader]
    if len(document["objectives"]) > 1 or not others:
        return first
    behind = lag_cell(document, others[0])
    return f"{first} Next: {values_text(others[0], axes)}, {'as good' if behind == 'best' else behind}."


def _costliest(document: Sweep) -> str:
    """The value of an axis that costs most, over all others at their best."""
    name, way = objective(document)
    worst: tuple[float, str] | None = None
    for condition in conditions(document):
        for axis in choices(document):
            for value, point, _ in marginals(document, axis, condition):
                behind = lag(document, point) if point else None
                if point is None or behind is None:
                    continue
                loss = 1 + behind if way == "minimise" else 1 / max(1 + behind, 1e-12)
                where = f" ({condition_text(document, condition)})" if condition else ""
                told = f"Of all choices {axis_label(axis)} {value} costs most{where}: at best {cell(name, metric(point, name))}, {loss:.2f}x the best."
                worst = max(worst, (loss, told)) if worst else (loss, told)
    return worst[1] if worst and worst[0] >= 1.01 else ""


def _change(document: Sweep, change: Mapping[str, Any]) -> str:
    """What the best of the points that lack memory would need and give."""
    point, (name, way) = document["points"][change["point"]], objective(document)
    leader, would = best(document, condition_of(document, point)), metric(change, name)
    top = metric(leader, name) if leader else None
    needs = f"{show(change['needed_bytes'], 'bytes', 3)} a GPU instead of {show(change['capacity_bytes'], 'bytes', 3)}"
    better = top and would and (would < top if way == "minimise" else would > top)
    gain = f", {would / top - 1:+.1%}" if top and would else ""
    lead = "With more memory" if better else "More memory would not help: with what it needs"
    return f"{lead}, {values_text(point, varied(document))} ({needs}) would reach {cell(name, would)}{gain}."


def _most_reasons(document: Sweep) -> str:
    found = reasons(document)
    return f"Most often: {found[0][0]} ({found[0][1]:,})." if found else ""


# --- why not -------------------------------------------------------------------------------------------------------

_KINDS = (
    (r"needs? [\d.]+ .?B of the", "memory overflows"),
    (r"^the constraint", "a constraint is not met"),
    (r"microbatches", "too few or uneven microbatches for the schedule"),
    (r"global_batch", "the batch does not divide over the data-parallel ranks"),
    (r"stages are more than", "more pipeline stages than layers"),
    (r"does not divide|divisor|multiple|takes \d+ GPUs|neither divides", "sizes that do not divide"),
    (r"even number of ranks|pipeline ranks", "the schedule has no order for so many ranks"),
    (r"worker died", "the worker died"),
)


def reason_kind(reason: str) -> str:
    """The kind of a reason: what a reader can count."""
    return next(
        (kind for pattern, kind in _KINDS if re.search(pattern, reason)), reason.partition(":")[0][:60]
    )


def reasons(document: Sweep) -> list[tuple[str, int, str]]:
    """Kind of reason, how often, and one whole: of points that cannot be or failed, the most frequent first."""
    counted: Counter[str] = Counter()
    example: dict[str, str] = {}
    for point in document["points"]:
        if point["status"] in ("infeasible", "failed"):
            kind = reason_kind(point["reason"])
            counted[kind] += 1
            example.setdefault(kind, point["reason"])
    return [(kind, count, example[kind]) for kind, count in counted.most_common()]
