"""Names of constraints and objectives: those that no run of a sweep can have, and those that a point which ran lacks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sim import documents, metrics
from sim.documents import Document
from sim.errors import InputError, Mark, Problem, nearest
from sim.scenario import settings as scenario_settings
from sim.scenario.draft import LayoutSpec
from sim.scenario.specification import ScenarioSpec
from sim.sweeps.axes import Axis
from sim.sweeps.expressions import Expression
from sim.trees import flatten, leaves

_KEYS = ("memory", *ScenarioSpec.model_fields)
"""First parts of names that stand for a key of a scenario, or a part of its memory: which there are is known when it has run."""


def problems(
    base: Document, axes: Sequence[Axis], constraints: Iterable[Expression], objectives: Mapping[str, Mark]
) -> Iterator[Problem]:
    """Names that no run of a base and its axes can have, whatever it finds."""
    overrides = [layer for axis in axes for layer in axis.sets]
    kinds = scenario_settings.kinds(base, overrides)
    numbers, values = metrics.reported(kinds), metrics.reported(kinds, words=True)
    if numbers is None or values is None:
        return
    trees: list[Mapping[Any, Any]] = [base.tree, *overrides]
    keys = {documents.dotted(path) for tree in trees for path in _paths(tree)}
    keys |= {f"layout.{name}" for name in LayoutSpec.model_fields}
    known = [*sorted(keys), *values]
    for constraint in constraints:
        for name in constraint.names:
            lacking = name not in known and metrics.lacks(kinds, name, words=True)
            if lacking and name.partition(".")[0] not in _KEYS:
                yield _constraint_problem(constraint, name, known)
    for name, mark in objectives.items():
        if metrics.lacks(kinds, name):
            wanted = f"a metric of {' or '.join(sorted(kinds))}"
            yield Problem(mark, "objectives", f"'{name}'", wanted, nearest(name, numbers))


def _paths(tree: Mapping[Any, Any]) -> Iterator[documents.Path_]:
    """Paths of a document, or of what an axis sets by path."""
    for key, value in tree.items():
        path = key if isinstance(key, tuple) else (key,)
        yield path
        if isinstance(value, Mapping):
            yield from ((*path, *inside) for inside, _ in leaves(value))


def check(
    constraints: Iterable[Expression],
    objectives: Iterable[str],
    known: Mapping[str, Any],
    reported: Mapping[str, Any],
) -> None:
    """Raise `InputError` for names that a point which ran does not have: `known` of it, and the metrics that it `reported`."""
    numbers = flatten(reported)
    problems = [
        _constraint_problem(constraint, name, known)
        for constraint in constraints
        for name in constraint.names
        if name not in known
    ]
    for name in objectives:
        if name not in numbers:
            wanted = f"a metric of this run: {', '.join(numbers)}"
            problems.append(Problem(None, "objectives", f"'{name}'", wanted, nearest(name, numbers)))
    if problems:
        raise InputError(problems)


def _constraint_problem(constraint: Expression, name: str, known: Collection[str]) -> Problem:
    near = nearest(name, known) or (f"'{name}', a word in quotes" if name.isidentifier() else None)
    return Problem(
        constraint.mark, "constraints", f"'{name}'", "a key of the scenario, memory.* or a metric", near
    )
