"""The view of a question: what was asked of several runs, and the metric of each by what is compared, over what varies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim.documents import split
from sim.show.views.labels import axis_label, value_label
from sim.show.views.names import hardware_name
from sim.show.views.record import mapping
from sim.trees import flatten

_HARDWARE = "cluster.hardware"


@dataclass(frozen=True, slots=True)
class Answered:
    """A run: its metric, and the class of resource that bound it; "" where nothing is said of that."""

    value: float
    binding: str


@dataclass(frozen=True, slots=True)
class Compared:
    """Runs at one value of what varies, such as `at EP 8` ("" where nothing does), by the name of what is compared."""

    over: str
    runs: Mapping[str, Answered]


@dataclass(frozen=True, slots=True)
class Question:
    """A question: its words, the metric, what is compared by name (the reference first), and a row for each value over."""

    ask: str
    metric: str
    compared: tuple[str, ...]
    rows: tuple[Compared, ...]


def question_of(document: Mapping[str, Any]) -> Question | None:
    """Read the question of a result document, with the runs that answer it; None where it has none, or no run answers it."""
    asked = mapping(document.get("question"))
    variants = mapping(document.get("variants"))
    if not asked or not variants:
        return None
    compare, over, metric = asked["compare"], asked.get("over"), asked["metric"]
    rows: dict[str, dict[str, Answered]] = {}
    order: dict[str, float] = {}
    names: dict[str, None] = {}
    for run in variants.values():
        tree, metrics = mapping(run.get("scenario")), mapping(run.get("metrics"))
        value = flatten(metrics).get(metric)
        if value is None:
            continue
        name = _name(compare, _at(tree, compare))
        place = _place(over, _at(tree, over)) if over else ""
        names[name] = None
        order.setdefault(place, _number(_at(tree, over)) if over else 0.0)
        binding = _at(metrics, f"{metric.rpartition('.')[0]}.binding".lstrip("."))
        rows.setdefault(place, {}).setdefault(name, Answered(value, str(binding or "")))
    if len(names) < 2:
        return None
    places = sorted(rows, key=order.__getitem__)
    return Question(
        str(asked["ask"]), metric, tuple(names), tuple(Compared(place, rows[place]) for place in places)
    )


def _place(key: str, value: Any) -> str:
    """Return a value over which runs vary, in words: `at EP 8`, `without overlap`."""
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
        return "-".join(hardware_name(part) for part in str(value).split("-"))
    return f"{axis_label(key)} {value_label(value)}"
