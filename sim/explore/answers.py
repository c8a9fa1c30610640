"""What a sweep found: points judged against its constraints, ranked, and the front that no other point beats.

A point is better than another on an objective by its metric, lower for `minimise`, higher for `maximise`. It *beats* another
when it is at least as good on every objective and better on one; what nothing beats is the Pareto front. The ranking takes
front after front (what is left once the fronts before are taken away), inside each by the first objective, then by the
others, then by number.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np

from sim.explore.expressions import Expression
from sim.explore.points import Row, unmet
from sim.study import metrics as measure

Objectives = Mapping[str, str]
_MAX_FRONTS = 20  # the rest of a ranking follows by objectives alone


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a sweep, over all its replicas.

    `status` is ok, infeasible, pruned or failed; `metrics` are means over replicas, `spread` their standard deviations.
    """

    number: int
    status: str
    reason: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    layout: dict[str, int] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    overflow: dict[str, Any] | None = None


def judged(
    number: int, rows: Sequence[Row], constraints: Sequence[Expression], objectives: Iterable[str] = ()
) -> Point:
    """The point that some replicas make: as good as they are on average, and infeasible or failed where one is."""
    first = next((row for row in rows if row.status != "ok"), rows[0])
    layout = {
        name.removeprefix("layout."): size
        for name, size in first.scenario.items()
        if name.startswith("layout.")
    }
    kept: dict[str, Any] = {"layout": layout, "memory": first.memory, "overflow": first.overflow}
    if first.status != "ok":
        return Point(number, first.status, first.reason, **kept)
    flat, metrics, spread = [measure.flatten(row.metrics) for row in rows], first.metrics, {}
    if len(rows) > 1:
        metrics = _mean([row.metrics for row in rows])
        shared = [name for name in flat[0] if all(name in one for one in flat)]
        spread = {name: statistics.stdev(one[name] for one in flat) for name in shared}
    mean = Row("ok", metrics=metrics, scenario=first.scenario, memory=first.memory)
    lacking = [name for name in objectives if not all(name in one for one in flat)]
    reason = f"it has no metric {' and no '.join(lacking)}" if lacking else unmet(constraints, mean.known)
    return Point(number, "infeasible" if reason else "ok", reason, metrics, spread, **kept)


def _mean(trees: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers averaged over the replicas that have them; what is no number is the first replica's."""
    found: dict[str, Any] = {}
    for key, value in trees[0].items():
        others = [tree.get(key) for tree in trees]
        if isinstance(value, Mapping):
            found[key] = _mean([other for other in others if isinstance(other, Mapping)])
        elif _is_number(value):
            found[key] = statistics.fmean(other for other in others if _is_number(other))
        else:
            found[key] = value
    return found


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def scores(metrics: Mapping[str, Any], objectives: Objectives) -> tuple[float, ...]:
    """Metric of each objective, lower is better."""
    flat = measure.flatten(metrics)
    return tuple(
        flat.get(name, math.nan) * (1.0 if way == "minimise" else -1.0) for name, way in objectives.items()
    )


def beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether scores are at least as good on every objective and better on one."""
    return all(x <= y for x, y in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def front(scored: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Which rows nothing beats, [num_points] of bool, from scores [num_points, num_objectives]; equals stay together."""
    order = np.lexsort(scored.T[::-1])
    kept = np.zeros(len(scored), dtype=bool)
    best, count = np.empty_like(scored), 0
    for i in order:
        row, there = scored[i], best[:count]
        if not ((there <= row).all(axis=1) & (there < row).any(axis=1)).any():
            kept[i] = True
            best[count] = row
            count += 1
    return kept


def ranked(points: Iterable[Point], objectives: Objectives) -> tuple[list[int], list[int]]:
    """Numbers of the points that ran, the best first; and of the Pareto front among them, in the same order."""
    ran = [point for point in points if point.status == "ok"]
    if not ran:
        return [], []
    scored = np.array([scores(point.metrics, objectives) for point in ran])
    numbers = np.array([point.number for point in ran])
    left, found, pareto = np.arange(len(ran)), [], []
    for fronts in range(_MAX_FRONTS):
        if not len(left):
            break
        mask = front(scored[left]) if len(objectives) > 1 else np.ones(len(left), dtype=bool)
        chosen = _sorted(left[mask], scored, numbers)
        if not fronts:
            pareto = [i for i in chosen if len(objectives) > 1 or scored[i, 0] == scored[chosen[0], 0]]
        found += chosen
        left = left[~mask]
    found += _sorted(left, scored, numbers)
    return [int(numbers[i]) for i in found], [int(numbers[i]) for i in pareto]


def _sorted(
    rows: np.ndarray[Any, Any], scored: np.ndarray[Any, Any], numbers: np.ndarray[Any, Any]
) -> list[int]:
    keys = (numbers[rows], *(scored[rows, i] for i in reversed(range(scored.shape[1]))))
    return [int(i) for i in rows[np.lexsort(keys)]]


def best_possible(row: Row, objectives: Objectives) -> tuple[float, ...] | None:
    """Scores that no run of a forecast point can be better than; None where one of the objectives has no such figure."""
    known = {**row.best, **{f"memory.{name}": size for name, size in row.memory.items()}}
    if row.memory:
        known["memory_peak_bytes"] = row.memory["total_bytes"]
    if any(name not in known for name in objectives):
        return None
    return scores(known, objectives)
