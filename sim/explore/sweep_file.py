"""A sweep file becomes a `Sweep`: the base scenario, the space of points, constraints and objectives, all checked.

Every value of every axis is tried on the base alone before anything runs, so that a typo is told at once and at its place.
What can only be wrong in combination (a layout that does not divide the GPUs) is left to the point.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim import documents, units
from sim.documents import Document
from sim.errors import Fault, InfeasibleError, InputError, Mark, nearest
from sim.explore import auto_axes, expressions
from sim.explore.axes import MAX_POINTS, Axis, Space
from sim.explore.expressions import Expression
from sim.explore.sweep_spec import RangeSpec, SweepSpec
from sim.study import scenario as scenarios
from sim.study.specification import ScenarioSpec

FOLDER = "scenarios/sweeps"
_MAX_VALUES = 10_000
_OF_COMBINATIONS = ("layout.", "workload.")
"""Keys whose faults may come from the other axes; of any other key a fault is the axis's own."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep, ready to run."""

    name: str
    title: str
    base: Document
    space: Space
    constraints: tuple[Expression, ...]
    given: str | None  # an axis
    objectives: dict[str, str]  # metric -> minimise | maximise
    replicas: int
    prune: bool
    said: dict[str, Any]  # the file as written

    def document(self, number: int, replica: int = 0) -> Document:
        """The scenario of a point; replicas differ in their seed."""
        one = self.base.copy()
        for path, value, mark in self.space.overrides(number):
            scenarios.put(one, path, value, mark)
        if replica:
            seed = one.get(("seed",)) or 0
            one.put(("seed",), seed + replica if isinstance(seed, int) else seed, Mark("replicas"))
        return one


def read(spec: str | Path) -> Sweep:
    """Read a sweep file, a path or a shipped name. Raises `InputError` with all faults found."""
    document = documents.load(documents.find(str(spec), FOLDER, "sweep"))
    return sweep_of(document)


def sweep_of(document: Document) -> Sweep:
    """The sweep that a document describes."""
    said = document.check(SweepSpec)
    base = _base(document, said)
    faults: list[Fault] = []
    axes = tuple(_axes(document, said, base, faults))
    constraints = []
    for i, text in enumerate(said.constraints):
        try:
            constraints.append(expressions.parse(text, document.mark(("constraints", i))))
        except InputError as error:
            faults += error.faults
    if not said.objectives:
        faults.append(document.fault(("objectives",), "none", "a metric, like 'step_time_s: minimise'"))
    if not said.axes:
        faults.append(document.fault(("axes",), "no axis", "a key of a scenario and its values"))
    if said.given is not None and said.given not in said.axes:
        near = nearest(said.given, said.axes)
        faults.append(
            document.fault(("given",), f"'{said.given}'", f"one of the axes: {', '.join(said.axes)}", near)
        )
    if faults:
        raise InputError(faults)
    space = _space(document, said, axes)
    faults = [fault for axis in axes for fault in _own_faults(base, axis, axes)]
    if faults:
        raise InputError(list(dict.fromkeys(faults)))
    return Sweep(
        name=said.name,
        title=said.title or said.name,
        base=base,
        space=space,
        constraints=tuple(constraints),
        given=said.given,
        objectives=dict(said.objectives),
        replicas=said.replicas,
        prune=said.prune,
        said=document.tree,
    )


# --- the base ------------------------------------------------------------------------------------------------------


def _base(document: Document, said: SweepSpec) -> Document:
    """The base scenario with `set` laid over it; without what points do not share (its name, what it expects)."""
    mark = document.mark(("base",))
    if isinstance(said.base, str):
        base = documents.load(
            documents.find(said.base, "scenarios", "scenario", near=document.folder, mark=mark)
        )
    else:
        base = document.branch(("base",))
    declared = base.get(("variants",))
    if declared:
        if said.variant not in declared:
            got = f"'{said.variant}'" if said.variant else f"{said.base}, a scenario with variants"
            key = "variant" if said.variant else "base"
            raise InputError(document.fault((key,), got, f"variant: one of {', '.join(declared)}"))
        base = scenarios.variants(base)[str(said.variant)]
    elif said.variant:
        raise InputError(document.fault(("variant",), f"'{said.variant}'", "none: the base has no variants"))
    for key in ("expect", "variants", "title"):
        base.tree.pop(key, None)
    base.put(("name",), said.name, document.mark(("name",)))
    for dotted, value in said.set.items():
        scenarios.put(base, documents.split(dotted), value, document.mark(("set", dotted), key=True))
    base.check(ScenarioSpec)
    return base


# --- axes ----------------------------------------------------------------------------------------------------------


def _axes(document: Document, said: SweepSpec, base: Document, faults: list[Fault]) -> Iterator[Axis]:
    for name, asked in said.axes.items():
        mark = document.mark(("axes", name), key=True)
        try:
            if isinstance(asked, dict):
                axis = Axis.of_labels(name, asked, mark)
            else:
                values = asked if isinstance(asked, list) else _values(document, name, asked, base)
                axis = Axis.of_key(name, values, mark)
        except InputError as error:
            faults += error.faults
            continue
        if not axis.values:
            faults.append(document.fault(("axes", name), "no value", "one value or more", key=True))
        repeated = [value for i, value in enumerate(axis.values) if value in axis.values[:i]]
        if repeated:
            faults.append(
                document.fault(("axes", name), f"{repeated[0]!r} twice", "each value once", key=True)
            )
        yield axis


def _values(document: Document, name: str, asked: str | RangeSpec, base: Document) -> list[Any]:
    if isinstance(asked, RangeSpec):
        return list(_range(document, name, asked))
    if name not in auto_axes.KEYS:
        wanted = f"a list of values, or a range; 'auto' is for {', '.join(auto_axes.KEYS)}"
        raise InputError(document.fault(("axes", name), "'auto'", wanted))
    scenario = _resolvable(base, name)
    assert scenario.model is not None
    return list(
        auto_axes.values(
            name,
            scenario.model,
            num_gpus=scenario.num_ranks,
            gpus_per_node=scenario.gpus_per_node,
            sequence_tokens=getattr(scenario.workload, "sequence_tokens", 4096),
        )
    )


def _resolvable(base: Document, name: str) -> Any:
    """The base as a scenario; where its own layout is in the way of that, without it."""
    try:
        return scenarios.resolve(base)
    except (InputError, InfeasibleError):
        one = base.copy()
        one.tree["layout"] = {}
        if name == "workload.schedule":
            one.tree["workload"] = {**one.tree["workload"], "schedule": "1f1b"}
        return scenarios.resolve(one)


def _range(document: Document, name: str, asked: RangeSpec) -> Iterator[Any]:
    """The values of a range, in the unit of its start."""
    first, unit = _number(document, name, "from", asked.from_)
    last, last_unit = _number(document, name, "to", asked.to)
    step, step_unit = (0.0, unit) if asked.step is None else _number(document, name, "step", asked.step)
    if unit != last_unit or unit != step_unit:
        wanted = f"the unit of 'from', '{unit}'" if unit else "plain numbers throughout"
        raise InputError(document.fault(("axes", name), f"'{last_unit or step_unit}'", wanted, key=True))
    if last < first or (asked.step is not None and step <= 0) or (asked.times is not None and first <= 0):
        wanted = "'to' at or above 'from', and a step that leads there"
        raise InputError(document.fault(("axes", name), f"{asked.from_} to {asked.to}", wanted, key=True))
    ratio = last / first if asked.times else 1.0
    count = math.log(ratio, asked.times) if asked.times else (last - first) / step
    if count > _MAX_VALUES:
        raise InputError(
            document.fault(("axes", name), f"{count:.0f} values", f"at most {_MAX_VALUES}", key=True)
        )
    for i in range(math.floor(count * (1 + 1e-9) + 1e-9) + 1):
        value = first * asked.times**i if asked.times else first + i * step
        whole = (
            round(value)
            if abs(value - round(value)) < 1e-9 * max(1.0, abs(value))
            else float(f"{value:.12g}")
        )
        yield f"{whole} {unit}" if unit else whole


def _number(document: Document, name: str, key: str, value: str | int | float) -> tuple[float, str]:
    text = str(value).strip()
    for unit in sorted(units.FACTORS, key=len, reverse=True):
        head = text.removesuffix(unit).strip()
        if text.endswith(unit) and _is_number(head):
            return float(head), unit
    if not _is_number(text):
        raise InputError(
            document.fault(("axes", name, key), f"'{text}'", "a number, with its unit where it has one")
        )
    return float(text), ""


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _space(document: Document, said: SweepSpec, axes: tuple[Axis, ...]) -> Space:
    space = Space(axes)
    if space.size > MAX_POINTS:
        got = f"{space.size:,} points ({' x '.join(str(len(axis.values)) for axis in axes)})"
        wanted = f"at most {MAX_POINTS:,}; a shorter axis, or several sweeps"
        raise InputError(document.fault(("axes",), got, wanted, key=True))
    return space.sample(said.sample.points, said.sample.seed) if said.sample else space


def _own_faults(base: Document, axis: Axis, axes: tuple[Axis, ...]) -> Iterator[Fault]:
    """What is wrong with single values of an axis, whatever the others are."""
    for i in range(len(axis.values)):
        found: list[Fault] = []
        for other in (None, 0, -1):  # alone, then beside the first and the last value of each other axis
            one = base.copy()
            for another in axes if other is not None else ():
                if another is not axis:
                    _lay(one, another, other or 0)
            try:
                _lay(one, axis, i)
                one.check(ScenarioSpec)
                if _can_be_a_name(axis, i):
                    found = [fault for fault in _faults_of(one) if _is_own(fault, axis)]
            except InputError as error:
                found = list(error.faults)
            if not found:
                break
        yield from found


def _lay(document: Document, axis: Axis, place: int) -> None:
    for path, value in axis.sets[place].items():
        scenarios.put(document, path, value, axis.mark)


def _faults_of(document: Document) -> tuple[Fault, ...]:
    try:
        scenarios.resolve(document)
    except InputError as error:
        return error.faults
    except InfeasibleError:
        return ()
    return ()


def _can_be_a_name(axis: Axis, place: int) -> bool:
    """Whether what a value sets may name something that is not there, beyond its shape."""
    return any(
        isinstance(value, str) or not documents.dotted(path).startswith(_OF_COMBINATIONS)
        for path, value in axis.sets[place].items()
    )


def _is_own(fault: Fault, axis: Axis) -> bool:
    if fault.where != axis.mark:
        return False
    return not fault.key.startswith(_OF_COMBINATIONS) or fault.wanted.startswith("one of:")
