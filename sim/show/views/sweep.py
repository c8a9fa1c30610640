"""A sweep's document, read and put in words: the best point, what each axis costs, what cannot be, what would change that.

Where a sweep says that axes are `given` (a machine, say: a condition and no choice), points are compared only with points of
the same condition.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sim.show.grid import Cell, padded
from sim.show.views.run import LABEL
from sim.units import FACTORS, dimension_of, show, split

Sweep = Mapping[str, Any]
Point = Mapping[str, Any]

BESIDE = (
    "tpot_s", "ttft_s", "step_time_s", "dispatch.time_s", "combine.time_s", "tokens_per_s_per_gpu", "tokens_per_s_per_user",
    "mfu_causal_fraction", "bubble_s", "exposed_comm_s", "memory_peak_bytes", "max_batch_per_gpu", "binding",
    "dispatch.binding", "combine.binding",
)  # fmt: skip
"""Metrics that are shown beside the objectives, where a point has them."""
EQUAL = 1e-9
"""Relative difference up to which two values of a metric are the same, as for the ranking."""
_MOST_BESIDE = 4
_SHORT = {"sms": "SMs", "gpu": "GPU", "hbm": "HBM", "nic": "NIC", "nvlink": "NVLink", "pcie": "PCIe"}
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
    """An axis as a reader calls it: `layout.pp` -> `PP`, `workload.kernel.comm_sms` -> `comm SMs`."""
    last = name.rpartition(".")[2]
    if last in _LAYOUT:
        return last.upper()
    if name.endswith("scale_up.bandwidth"):
        return "NVLink"
    return " ".join(_SHORT.get(word, word) for word in last.split("_"))


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

Condition = tuple[str, ...]
"""A value of each given axis, as text; () where no axis is given."""


def condition_of(document: Sweep, point: Point) -> Condition:
    """The values of the given axes at a point."""
    return tuple(value_label(point["values"][name]) for name in document["given"])


def conditions(document: Sweep) -> list[Condition]:
    """Conditions that points of the sweep have, in the order of the axes; () alone where no axis is given."""
    given = document["given"]
    there = {condition_of(document, point) for point in document["points"]} if given else {()}
    told = [[value_label(value) for value in document["axes"][name]] for name in given]
    return [one for one in itertools.product(*told) if one in there]


def condition_text(document: Sweep, condition: Condition) -> str:
    """`EP 8, top groups 4`, `h800`; "" where no axis is given."""
    named = zip(document["given"], condition, strict=True)
    return ", ".join(f"{axis_label(axis)} {one}" if one[:1].isdigit() else one for axis, one in named)


def given_text(document: Sweep) -> str:
    """The given axes as a reader calls them: `EP and top groups`."""
    return " and ".join(map(axis_label, document["given"]))


def of_given(document: Sweep, whose: str) -> str:
    """Among which points some are compared: ` of their machine`; "" where no axis is given."""
    return f" of {whose} {given_text(document)}" if document["given"] else ""


def ranked(document: Sweep) -> list[Point]:
    """Points that ran, the best first."""
    return [document["points"][index] for index in document["ranked"]]


def by_condition(document: Sweep) -> dict[Condition, list[Point]]:
    """Points that ran, the best first, of each of the `conditions`."""
    found: dict[Condition, list[Point]] = {condition: [] for condition in conditions(document)}
    for point in ranked(document):
        found[condition_of(document, point)].append(point)
    return found


def leaders(document: Sweep) -> dict[Condition, Point]:
    """The best point of each condition of which one ran."""
    return {condition_of(document, one): one for one in map(document["points"].__getitem__, document["best"])}


def choices(document: Sweep) -> list[str]:
    """Axes with more than one value but for the given ones."""
    return [name for name in varied(document) if name not in document["given"]]


def marginals(document: Sweep, axis: str, points: Iterable[Point]) -> list[tuple[str, Point | None, int]]:
    """Each value of an axis: the best of some points that has it (None where none ran), and how many ran."""
    name, way = objective(document)
    found: dict[str, list[Point]] = {value_label(value): [] for value in document["axes"][axis]}
    for point in points:
        found[value_label(point["values"][axis])].append(point)
    pick = min if way == "minimise" else max
    return [
        (value, pick(ran, key=lambda p: metric(p, name) or 0.0) if ran else None, len(ran))
        for value, ran in found.items()
    ]


def enough(document: Sweep, axis: str, points: Iterable[Point], times: float) -> Point | None:
    """Of some points the best with the least value of an axis that comes within `times` the best; None where it has no order."""
    values = {value_label(value): size(value) for value in document["axes"][axis]}
    if None in values.values():
        return None
    close = [
        (values[value] or 0.0, point)
        for value, point, _ in marginals(document, axis, points)
        if point is not None and times_best(document, point) <= times
    ]
    return min(close, key=lambda one: one[0])[1] if close else None


def size(value: Any) -> float | None:
    """How large a value of an axis is, in SI units; None for what has no size."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    found = split(str(value))
    return found[0] * FACTORS.get(found[1], 1.0) if found else None


def lag(document: Sweep, point: Mapping[str, Any]) -> float | None:
    """The first objective of a point over that of the best of its condition, less one [fraction]; 0 up to the ninth digit."""
    leader, name = leaders(document).get(condition_of(document, point)), objective(document)[0]
    top, value = metric(leader, name) if leader else None, metric(point, name)
    if not top or value is None:
        return None
    return 0.0 if math.isclose(value, top, rel_tol=EQUAL) else value / top - 1


def lag_cell(document: Sweep, point: Mapping[str, Any]) -> str:
    """`+1.3%`, `best`, or `-` where there is nothing to compare with."""
    behind = lag(document, point)
    return "-" if behind is None else "best" if behind == 0 else f"{behind:+.1%}"


def times_best(document: Sweep, point: Point) -> float:
    """How many times worse than the best of its condition a point is on the first objective; 1 for the best."""
    behind = lag(document, point) or 0.0
    return 1 + behind if objective(document)[1] == "minimise" else 1 / max(1 + behind, 1e-12)


def times_text(document: Sweep, times: float) -> str:
    """`1.48x the best`; of a metric that should be large, `1/1.48 of the best`."""
    return f"{times:.3g}x the best" if objective(document)[1] == "minimise" else f"1/{times:.3g} of the best"


# --- words ---------------------------------------------------------------------------------------------------------


def changes(document: Sweep) -> list[Mapping[str, Any]]:
    """Points with the memory they lack, those first that come nearest to the best of their condition, or pass it most."""
    return sorted(document["changes"], key=lambda one: _times_with_it(document, one))


def changed(document: Sweep, change: Mapping[str, Any]) -> Point:
    """The point that a change is of, with the metrics it would have."""
    return {**document["points"][change["point"]], "metrics": change["metrics"]}


def _times_with_it(document: Sweep, change: Mapping[str, Any]) -> float:
    """Times the best of its condition, lower is better; 0 where nothing of the condition ran."""
    behind = lag(document, changed(document, change))
    return 0.0 if behind is None else times_best(document, changed(document, change))


def memory_ratio(change: Mapping[str, Any]) -> float:
    """Memory that a change needs over what a GPU has."""
    return float(change["needed_bytes"] / change["capacity_bytes"])
