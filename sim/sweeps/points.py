"""Points: one combination of a sweep's axes, from scenario to row; the work of a worker, in any process, on any machine.

A row says what is true of its scenario whichever sweep asks: whether it can be, and its figures. The constraints of a sweep
only save a worker the run of a point that they exclude; what they exclude is never kept.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sim import units
from sim.documents import Document
from sim.errors import DoesNotFitError, InfeasibleError, InputError, Problem
from sim.metrics import dimension_of
from sim.runs.forecast import forecast
from sim.scenario import resolve as scenarios
from sim.sweeps.expressions import Expression
from sim.trees import flatten

Status = Literal["ok", "infeasible", "failed", "forecast"]
Known = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PointRow:
    """The row of one scenario: its status with the reason, and its figures.

    `scenario` is what it resolved to, flat and in SI units; `memory` are the parts of the fullest GPU [bytes]; `best` is what
    no run of it can beat; `overflow` is set where memory does not suffice. `excluded`: a constraint of the sweep kept it from
    running. `seconds` is what it took.
    """

    status: Status
    reason: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    scenario: Known = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    overflow: dict[str, Any] | None = None
    excluded: bool = False
    seconds: float = 0.0

    @property
    def known(self) -> Known:
        """Values by every name that a constraint can use."""
        memory = {f"memory.{name}": size for name, size in self.memory.items()}
        return {**self.scenario, **memory, **dict(_flat(self.metrics))}


@dataclass(frozen=True, slots=True)
class Batch:
    """Scenarios for one worker, by the number of their task; with or without running them."""

    tasks: tuple[tuple[int, Document], ...]
    constraints: tuple[Expression, ...]
    run: bool = True


def work(batch: Batch) -> list[tuple[int, PointRow]]:
    """Return the number and the row of each scenario of a batch."""
    return [
        (number, evaluate(document, batch.constraints, run=batch.run)) for number, document in batch.tasks
    ]


def evaluate(document: Document, constraints: Sequence[Expression] = (), *, run: bool = True) -> PointRow:
    """Evaluate one scenario: its run, or without `run` what is known before (`forecast`), or why it cannot be.

    A scenario that a constraint excludes by what is known before a run is not run. InputError where a
    constraint is at fault, not the scenario.
    """
    begun = time.perf_counter()
    row = _evaluated(document, constraints, run)
    return replace(row, seconds=time.perf_counter() - begun)


def _evaluated(document: Document, constraints: Sequence[Expression], run: bool) -> PointRow:
    row = PointRow("forecast")
    try:
        scenario = scenarios.resolve(document)
        row = replace(row, scenario=dict(_flat(scenario.document)))
        known = forecast(scenario)
        row = replace(row, memory=dict(known.memory), best=dict(known.best))
        reason = unmet_reason(constraints, row.known)
        if reason:
            return replace(row, status="infeasible", reason=reason, excluded=True)
        if not run:
            return row
        metrics = known.run()
        odd = [name for name, value in flatten(metrics).items() if not math.isfinite(value)]
        if odd:
            return replace(row, status="failed", reason=f"no finite number came out for {', '.join(odd)}")
        return replace(row, status="ok", metrics=metrics)
    except DoesNotFitError as error:
        overflow = {
            "needed_bytes": error.needed_bytes, "capacity_bytes": error.capacity_bytes, "parts": error.parts
        }  # fmt: skip
        return replace(row, status="infeasible", reason=str(error), overflow=overflow)
    except InfeasibleError as error:
        return replace(row, status="infeasible", reason=str(error))
    except InputError as error:
        if error.problems and all(_is_constraint(problem, constraints) for problem in error.problems):
            raise
        problems = (
            f"{problem.key}: got {problem.got}; wanted {problem.wanted}" for problem in error.problems
        )
        return replace(row, status="infeasible", reason="; ".join(dict.fromkeys(problems)))
    except Exception as error:
        return replace(row, status="failed", reason=_bug(error))


def _is_constraint(problem: Problem, constraints: Sequence[Expression]) -> bool:
    return problem.key == "constraints" and any(
        problem.where == constraint.mark for constraint in constraints
    )


def _bug(error: Exception) -> str:
    """Return a bug of ours in one line: what, and where in the package."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (in {Path(last.filename).name}, line {last.lineno})"


# --- constraints ---------------------------------------------------------------------------------------------------


def unmet_reason(constraints: Sequence[Expression], known: Mapping[str, Any]) -> str:
    """Return the first constraint that is not met, as a reason; "" where all that can be judged yet are."""
    for constraint in constraints:
        if all(name in known for name in constraint.names) and not constraint.holds(known):
            values = ", ".join(f"{name} = {_shown(name, known[name])}" for name in constraint.names)
            return f"the constraint '{constraint.text}' is not met: {values}"
    return ""


def _shown(name: str, value: Any) -> str:
    return units.show(value, dimension_of(name)) if isinstance(value, float) else str(value)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value of a resolved scenario or of metrics; quantities in SI units, lists left out."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            yield prefix + key, _si(value)
        elif isinstance(value, int | float | bool):
            yield prefix + key, value


def _si(text: str) -> str | float:
    """Return a quantity in SI units; other text, and a number without a unit, as it is."""
    quantity = units.split(text)
    return quantity[0] * units.FACTORS[quantity[1]] if quantity and quantity[1] else text
