"""The view of a question: what was asked of several runs, and the metric of each by what is compared, over what varies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim.documents import split
from sim.show.views.labels import axis_label, value_label
from sim.show.views.names import hardware_name
from sim.show.views.record import mapping
from sim.trees import flatten

_HARDWARE = "cluster.hardware"
_MACHINE = "cluster"  # machines that differ in more than their name


@dataclass(frozen=True, slots=True)
class Answered:
    """A run: its metric, the class of resource that bound it ("" where nothing is said of that), and its variant."""

    value: float
    binding: str
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Compared:
    """Runs at one value of what varies, such as `at EP 8` ("" where nothing does), by the name of what is compared."""

    over: str
    runs: Mapping[str, Answered]


@dataclass(frozen=True, slots=True)
class Question:
    """A question: the metric, what is compared by name (the reference first), and a row for each value over.

    `are_machines` tells that machines are compared, `on` which a metric is, and no settings, `with` which it is.
    """

    metric: str
    compared: tuple[str, ...]
    rows: tuple[Compared, ...]
    are_machines: bool = True


def question_of(document: Mapping[str, Any]) -> Question | None:
    """Read the question of a result document, with the runs that answer it; None where it has none, or no run answers it."""
    asked = mapping(document.get("question"))
    variants = mapping(document.get("variants"))
    if not asked.get("compare") or not variants:
        return None
    compare, over, metric = asked["compare"], asked.get("over"), asked["metric"]
    named: dict[str, str] = {}
    values = [_at(mapping(run.get("scenario")), compare) for run in variants.values()]
    by_variant = compare != _HARDWARE and not all(isinstance(value, str | int | float) for value in values)
    rows: dict[str, dict[str, Answered]] = {}
    order: dict[str, float] = {}
    names: dict[str, None] = {}
    for variant, run in variants.items():
        tree, metrics = mapping(run.get("scenario")), mapping(run.get("metrics"))
        value = flatten(metrics).get(metric)
        if value is None:
            continue
        compared = _at(tree, compare)
        own = (
            _machine(variant) if compare == _MACHINE else variant if by_variant else _name(compare, compared)
        )
        name = named.setdefault(json.dumps(compared, default=str), own)
        place = _place(over, _at(tree, over)) if over else ""
        names[name] = None
        order.setdefault(place, _number(_at(tree, over)) if over else 0.0)
        binding = _at(metrics, f"{metric.rpartition('.')[0]}.binding".lstrip("."))
        rows.setdefault(place, {}).setdefault(name, Answered(value, str(binding or ""), str(variant)))
    if len(names) < 2:
        return None
    places = sorted(rows, key=order.__getitem__)
    compared_rows = tuple(Compared(place, rows[place]) for place in places)
    return Question(metric, tuple(names), compared_rows, split(compare)[0] == "cluster")


def _place(key: str, value: Any) -> str:
    """Return a value over which runs vary, in words: `at EP 8`, `without overlap`, `on H20`."""
    if key == _HARDWARE:
        return f"on {hardware_name(str(value))}"
    if value is None or value == "auto":
        return f"with {'automatic' if value else 'the default'} {axis_label(key)}"
    if isinstance(value, bool):
        return f"{'with' if value else 'without'} {axis_label(key)}"
    return f"at {axis_label(key)} {value_label(value)}"


def _number(value: Any) -> float:
    """Return a value by which places are in order; what is no number stays in the order of the file."""
    return float(value) if isinstance(value, int | float) else 0.0


def _at(tree: Mapping[str, Any], key: str) -> Any:
    value: Any = tree
    for part in split(key):
        value = mapping(value).get(str(part))
    return value


def _name(key: str, value: Any) -> str:
    if key == _HARDWARE:
        return _machine(str(value))
    return f"{axis_label(key)} {value_label(value)}"


def _machine(name: str) -> str:
    return "-".join(hardware_name(part) for part in name.split("-"))
