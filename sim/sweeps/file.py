"""A sweep file becomes a `Sweep`: the base scenario, the space of points, constraints and objectives, all checked.

Every value of every axis is tried on the base alone before anything runs, so that a typo is told at once and at its place.
What can only be wrong in combination (a layout that does not divide the GPUs) is left to the point.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim import documents, limits, schemas, units
from sim.documents import Document
from sim.errors import InfeasibleError, InputError, Mark, Problem, nearest
from sim.scenario import resolve as scenarios
from sim.scenario import settings as scenario_settings
from sim.scenario import specification
from sim.scenario.kinds import resolver
from sim.sweeps import auto_axes, expressions, names
from sim.sweeps.axes import Axis, Space
from sim.sweeps.expressions import Expression
from sim.sweeps.spec import RangeSpec, SweepSpec

FOLDER = "scenarios/sweeps"
_MAX_VALUES = 10_000
_MANY = 50  # points, from where on it is worth to say what takes long
_MAX_GROUNDS = 500  # clusters and models that an `auto` looks at
_SIZING = ("cluster.nodes", "cluster.hardware", "cluster.fabric", "model", "workload.sequence_tokens")
_OF_COMBINATIONS = ("layout.", "workload.")
"""Keys whose problems may come from the other axes; of any other key a problem is the axis's own."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep, ready to run."""

    name: str
    title: str
    base: Document
    space: Space
    constraints: tuple[Expression, ...]
    given: tuple[str, ...]  # axes, in their order
    objectives: dict[str, str]  # metric -> minimise | maximise
    replicas: int
    prune: bool
    tree: dict[str, Any]  # the file as written

    def document(self, number: int, replica: int = 0) -> Document:
        """Return the scenario of a point; replicas differ in their seed."""
        point = self.base.copy()
        for path, value, mark in self.space.overrides(number):
            scenario_settings.put(point, path, value, mark)
        if replica:
            seed = point.get(("seed",)) or 0
            point.put(("seed",), seed + replica if isinstance(seed, int) else seed, Mark("replicas"))
        return point


def read(spec: str | Path) -> Sweep:
    """Read a sweep file, a path or a shipped name. Raises `InputError` with all problems found."""
    document = documents.load(documents.find(str(spec), FOLDER, "sweep"))
    return sweep_of(document)


def sweep_of(document: Document) -> Sweep:
    """Return the sweep that a document describes; InputError with all problems of its shape, its axes and its constraints."""
    spec = schemas.check(document, SweepSpec)
    base = _base(document, spec)
    problems: list[Problem] = []
    axes = _axes(document, spec, base, problems)
    constraints = []
    for i, text in enumerate(spec.constraints):
        try:
            constraints.append(expressions.parse(text, document.mark(("constraints", i))))
        except InputError as error:
            problems += error.problems
    if not spec.objectives:
        problems.append(document.problem(("objectives",), "none", "a metric, like 'step_time_s: minimise'"))
    if not spec.axes:
        problems.append(document.problem(("axes",), "no axis", "a key of a scenario and its values"))
    given = [spec.given] if isinstance(spec.given, str) else spec.given or []
    for i, name in enumerate(given):
        if name not in spec.axes:
            at = ("given",) if isinstance(spec.given, str) else ("given", i)
            wanted = f"one of the axes: {', '.join(spec.axes)}"
            problems.append(document.problem(at, f"'{name}'", wanted, nearest(name, spec.axes)))
    objectives = {name: document.mark(("objectives", name), key=True) for name in spec.objectives}
    problems += names.problems(base, axes, constraints, objectives)
    if problems:
        raise InputError(problems)
    space = _space(document, spec, axes)
    keys = f"points {len(space):,} x replicas {spec.replicas:,}"
    limits.require(len(space) * spec.replicas, limits.POINTS, keys)
    problems = [problem for axis in axes for problem in _own_problems(base, axis, axes)]
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return Sweep(
        name=spec.name,
        title=spec.title or spec.name,
        base=base,
        space=space,
        constraints=tuple(constraints),
        given=tuple(name for name in spec.axes if name in given),
        objectives=dict(spec.objectives),
        replicas=spec.replicas,
        prune=spec.prune,
        tree=document.tree,
    )


def hints(sweep: Sweep) -> Iterator[str]:
    """Yield what a person may want to know before many points run."""
    if len(sweep.space) * sweep.replicas >= _MANY:
        work = specification.check(sweep.base).workload
        yield from resolver(work.kind).hints(work)


# --- the base ------------------------------------------------------------------------------------------------------


def _base(document: Document, spec: SweepSpec) -> Document:
    """Return the base scenario with `set` laid over it, without what points do not share (its name, what it expects)."""
    mark = document.mark(("base",))
    if isinstance(spec.base, str):
        base = documents.load(
            documents.find(spec.base, "scenarios", "scenario", near=document.folder, mark=mark)
        )
    else:
        base = document.branch(("base",))
    base.put(("name",), spec.name, document.mark(("name",)))
    declared = base.get(("variants",))
    if declared:
        specification.check(base)
        if spec.variant not in declared:
            name = spec.base if isinstance(spec.base, str) else "a scenario"
            got = f"'{spec.variant}'" if spec.variant else f"{name} with variants"
            key = "variant" if spec.variant else "base"
            near = nearest(spec.variant, declared) if spec.variant else None
            raise InputError(document.problem((key,), got, f"variant: one of {', '.join(declared)}", near))
        base = scenario_settings.variants(base)[str(spec.variant)]
        base.put(("name",), spec.name, document.mark(("name",)))
    elif spec.variant:
        raise InputError(
            document.problem(("variant",), f"'{spec.variant}'", "none: the base has no variants")
        )
    for key in ("expect", "variants", "title", "question"):
        base.tree.pop(key, None)
    for dotted, value in spec.set.items():
        scenario_settings.put(base, documents.split(dotted), value, document.mark(("set", dotted), key=True))
    specification.check(base)
    return base


# --- axes ----------------------------------------------------------------------------------------------------------


def _axes(document: Document, spec: SweepSpec, base: Document, problems: list[Problem]) -> tuple[Axis, ...]:
    """Return the axes in their order; what is wrong with one joins `problems`. Those that say `auto` look at what the others set."""
    axes: dict[str, Axis] = {}
    for name in sorted(spec.axes, key=lambda key: spec.axes[key] == "auto"):
        try:
            axis = _axis(document, name, spec.axes[name], base, tuple(axes.values()))
        except InputError as error:
            problems += error.problems
            continue
        if not axis.values:
            problems.append(document.problem(("axes", name), "no value", "one value or more", key=True))
        if len(axis.values) > _MAX_VALUES:
            wanted = f"at most {_MAX_VALUES}"
            problems.append(document.problem(("axes", name), f"{len(axis.values)} values", wanted, key=True))
            continue
        counts = Counter(map(_key, axis.values))
        repeated = [value for value in axis.values if counts[_key(value)] > 1]
        if repeated:
            problems.append(
                document.problem(("axes", name), f"{repeated[0]!r} twice", "each value once", key=True)
            )
        axes[name] = axis
    return tuple(axes[name] for name in spec.axes if name in axes)


def _key(value: Any) -> str:
    """Return the text that tells values apart; of two values with the same text a table could not say which is which."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _axis(document: Document, name: str, asked: Any, base: Document, others: tuple[Axis, ...]) -> Axis:
    mark = document.mark(("axes", name), key=True)
    if isinstance(asked, dict):
        return Axis.from_labels(name, asked, mark)
    if isinstance(asked, RangeSpec):
        asked = list(_range(document, name, asked))
    return Axis.from_key(name, _auto(document, name, base, others) if asked == "auto" else asked, mark)


def _auto(document: Document, name: str, base: Document, others: tuple[Axis, ...]) -> list[Any]:
    """Return every value that could be, on each cluster and with each model that the other axes make of the base."""
    if name not in auto_axes.KEYS:
        wanted = f"a list of values, or a range; 'auto' is for {', '.join(auto_axes.KEYS)}"
        raise InputError(document.problem(("axes", name), "'auto'", wanted))
    space = Space(tuple(axis for axis in others if _sizes(axis)))
    if space.size > _MAX_GROUNDS:
        got = f"'auto' next to {space.size:,} clusters and models"
        raise InputError(
            document.problem(("axes", name), got, f"a list of values, or at most {_MAX_GROUNDS}")
        )
    possible: dict[int | str, None] = {}
    refused: list[InputError | InfeasibleError] = []
    for number in space.numbers():
        ground = base.copy()
        try:
            for path, value, mark in space.overrides(number):
                scenario_settings.put(ground, path, value, mark)
            scenario = _resolvable(ground, name)
        except (InputError, InfeasibleError) as error:  # a value that is wrong is reported with its axis
            refused.append(error)
            continue
        if scenario.model is None:
            raise InputError(
                document.problem(("axes", name), "'auto' for a base without a model", "a list of values")
            )
        values = auto_axes.values(
            name,
            scenario.model,
            num_gpus=scenario.num_ranks,
            gpus_per_node=scenario.gpus_per_node,
            sequence_tokens=scenario.document["workload"].get("sequence_tokens", 4096),
            across=scenario.kind in ("prefill", "decode"),
        )
        possible |= dict.fromkeys(values)
    if not possible:
        raise refused[0]
    return list(possible) if name == "workload.schedule" else sorted(possible)


def _sizes(axis: Axis) -> bool:
    """Return whether an axis sets what the sizes of a layout follow from."""
    return any(documents.dotted(path).startswith(_SIZING) for overrides in axis.sets for path in overrides)


def _resolvable(base: Document, name: str) -> Any:
    """Resolve the base; where its own layout is in the way of that, without it."""
    try:
        return scenarios.resolve(base)
    except (InputError, InfeasibleError):
        bare = base.copy()
        bare.tree["layout"] = {}
        if name == "workload.schedule":
            bare.tree["workload"] = {**bare.tree["workload"], "schedule": "1f1b"}
        return scenarios.resolve(bare)


def _range(document: Document, name: str, asked: RangeSpec) -> Iterator[Any]:
    """Yield the values of a range, in the unit of its start."""
    first, unit = _number(document, name, "from", asked.from_)
    last, last_unit = _number(document, name, "to", asked.to)
    step, step_unit = (0.0, unit) if asked.step is None else _number(document, name, "step", asked.step)
    if unit != last_unit or unit != step_unit:
        wanted = f"the unit of 'from', '{unit}'" if unit else "plain numbers throughout"
        raise InputError(document.problem(("axes", name), f"'{last_unit or step_unit}'", wanted, key=True))
    if last < first or (asked.step is not None and step <= 0) or (asked.times is not None and first <= 0):
        wanted = "'to' at or above 'from', and a step that leads there"
        raise InputError(document.problem(("axes", name), f"{asked.from_} to {asked.to}", wanted, key=True))
    ratio = last / first if asked.times else 1.0
    count = math.log(ratio, asked.times) if asked.times else (last - first) / step
    if count > _MAX_VALUES:
        raise InputError(
            document.problem(("axes", name), f"{count:.0f} values", f"at most {_MAX_VALUES}", key=True)
        )
    for i in range(math.floor(count * (1 + 1e-9) + 1e-9) + 1):
        value = first * asked.times**i if asked.times else first + i * step
        is_whole = abs(value - round(value)) <= 1e-9 * max(abs(value), step)
        whole = round(value) if is_whole else float(f"{value:.12g}")
        yield f"{whole} {unit}" if unit else whole


def _number(document: Document, name: str, key: str, value: str | int | float) -> tuple[float, str]:
    """Return a number of a range with its unit, "" for none."""
    quantity = units.split(str(value))
    if quantity is None:
        wanted = "a number, with its unit where it has one"
        raise InputError(document.problem(("axes", name, key), f"'{value}'", wanted))
    return quantity


def _space(document: Document, spec: SweepSpec, axes: tuple[Axis, ...]) -> Space:
    """Return the space, or a sample of it; what is run has its limit, and so has what Python counts."""
    space = Space(axes)
    asked = min(space.size, spec.sample.points) if spec.sample else space.size
    if asked > limits.POINTS.most or space.size > sys.maxsize:
        got = f"{space.size:,} points ({' x '.join(str(len(axis.values)) for axis in axes)})"
        wanted = f"at most {limits.POINTS.most:,}; a shorter axis, a sample, or several sweeps"
        raise InputError(document.problem(("axes",), got, wanted, key=True))
    return space.sample(spec.sample.points, spec.sample.seed) if spec.sample else space


def _own_problems(base: Document, axis: Axis, axes: tuple[Axis, ...]) -> Iterator[Problem]:
    """Yield what is wrong with single values of an axis, whatever the others are."""
    for i in range(len(axis.values)):
        problems: list[Problem] = []
        for other in (None, 0, -1):  # alone, then next to the first and the last value of each other axis
            trial = base.copy()
            for another in axes if other is not None else ():
                if another is not axis:
                    _lay(trial, another, other or 0)
            try:
                _lay(trial, axis, i)
                specification.check(trial)
                if _can_be_a_name(axis, i):
                    problems = [problem for problem in _problems_of(trial) if _is_own(problem, axis)]
            except InputError as error:
                problems = list(error.problems)
            if not problems:
                break
        yield from problems


def _lay(document: Document, axis: Axis, place: int) -> None:
    for path, value in axis.sets[place].items():
        scenario_settings.put(document, path, value, axis.mark)


def _problems_of(document: Document) -> tuple[Problem, ...]:
    try:
        scenarios.resolve(document)
    except InputError as error:
        return error.problems
    except InfeasibleError:
        return ()
    return ()


def _can_be_a_name(axis: Axis, place: int) -> bool:
    """Return whether what a value sets may name something that does not exist, beyond its shape."""
    return any(
        isinstance(value, str) or not documents.dotted(path).startswith(_OF_COMBINATIONS)
        for path, value in axis.sets[place].items()
    )


def _is_own(problem: Problem, axis: Axis) -> bool:
    if problem.where != axis.mark:
        return False
    return not problem.key.startswith(_OF_COMBINATIONS) or problem.wanted.startswith("one of:")
