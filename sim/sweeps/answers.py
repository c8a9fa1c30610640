"""The answers of a sweep: points judged against its constraints, ranked, and the front that no other point beats.

A point is better than another on an objective by its metric, lower for `minimise`, higher for `maximise`. It *beats* another
when it is at least as good on every objective and better on one; what nothing beats is the Pareto front. The ranking takes
front after front (what is left once the fronts before are taken away), inside each by the first objective, then by the
others, then by number. Points of different conditions (values of the given axes) do not beat one another. Scores that agree to
nine digits are equal: the last bits hang on the order of a sum, and no ranking should.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim.sweeps.expressions import Expression
from sim.sweeps.points import PointRow, unmet_reason
from sim.trees import flatten, is_number

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


def judge(
    number: int, rows: Sequence[PointRow], constraints: Sequence[Expression], objectives: Iterable[str] = ()
) -> Point:
    """Judge the point that some replicas make: as good as they are on average, infeasible or failed where one is.

    Constraints are of the mean of the replicas; a point without one of the objectives cannot be ranked, and is
    infeasible.
    """
    first = next((row for row in rows if row.status != "ok"), rows[0])
    layout = {
        name.removeprefix("layout."): size
        for name, size in first.scenario.items()
        if name.startswith("layout.")
    }
    kept: dict[str, Any] = {"layout": layout, "memory": first.memory, "overflow": first.overflow}
    if first.status != "ok":
        return Point(number, first.status, first.reason, **kept)
    flat, metrics, spread = [flatten(row.metrics) for row in rows], first.metrics, {}
    if len(rows) > 1:
        metrics = _mean([row.metrics for row in rows])
        shared = [name for name in flat[0] if all(name in numbers for numbers in flat)]
        spread = {name: statistics.stdev(numbers[name] for numbers in flat) for name in shared}
    mean = PointRow("ok", metrics=metrics, scenario=first.scenario, memory=first.memory)
    lacking = [name for name in objectives if not all(name in numbers for numbers in flat)]
    reason = (
        f"it has no metric {' and no '.join(lacking)}" if lacking else unmet_reason(constraints, mean.known)
    )
    return Point(number, "infeasible" if reason else "ok", reason, metrics, spread, **kept)


def _mean(trees: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers averaged over the replicas that have them; what is no number is the first replica's."""
    means: dict[str, Any] = {}
    for key, value in trees[0].items():
        others = [tree.get(key) for tree in trees]
        if isinstance(value, Mapping):
            means[key] = _mean([other for other in others if isinstance(other, Mapping)])
        elif is_number(value):
            means[key] = statistics.fmean(other for other in others if is_number(other))
        else:
            means[key] = value
    return means


def scores(metrics: Mapping[str, Any], objectives: Objectives) -> tuple[float, ...]:
    """Return the metric of each objective, lower is better; NaN where there is none."""
    flat = flatten(metrics)
    return tuple(
        flat.get(name, math.nan) * (1.0 if way == "minimise" else -1.0) for name, way in objectives.items()
    )


def beats(scored: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether scores are at least as good on every objective and better on one."""
    return all(x <= y for x, y in zip(scored, other, strict=True)) and tuple(scored) != tuple(other)


def front(scored: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Find the rows of scores that nothing beats (lower is better); equals stay together [num_points]."""
    order = np.lexsort(scored.T[::-1])
    kept = np.zeros(len(scored), dtype=bool)
    if scored.shape[1] <= 2:
        kept[order] = _stairs(scored[order, 0], scored[order, -1])
        return kept
    best, count = np.empty_like(scored), 0
    for i in order:
        row, there = scored[i], best[:count]
        if not ((there <= row).all(axis=1) & (there < row).any(axis=1)).any():
            kept[i] = True
            best[count] = row
            count += 1
    return kept


def _stairs(xs: np.ndarray[Any, Any], ys: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Find those of some points, in the order of x, then y, that nothing beats: the lowest of its x, below all before."""
    if not len(xs):
        return np.zeros(0, dtype=bool)
    starts = np.flatnonzero(np.r_[True, xs[1:] != xs[:-1]])
    run = np.cumsum(np.r_[True, xs[1:] != xs[:-1]]) - 1  # which run of equal x a point is in
    lowest = ys[starts]
    before = np.r_[np.inf, np.minimum.accumulate(lowest)[:-1]]
    unbeaten: np.ndarray[Any, Any] = (ys == lowest[run]) & (ys < before[run])
    return unbeaten


@dataclass(frozen=True, slots=True)
class Ranking:
    """Numbers of the points that ran.

    `order`: the best first. `best`: of each condition the point with the best first objective. `pareto`: what nothing beats of
    its condition, in the same order; with one objective the best and what is as good.
    """

    order: list[int]
    best: list[int]
    pareto: list[int]


def rank(
    points: Iterable[Point], objectives: Objectives, condition: Callable[[int], Any] = lambda _: ()
) -> Ranking:
    """Rank the points that ran by metrics to minimise or maximise, the most important first.

    Only points of the same `condition` of their numbers can beat one another.
    """
    ran = [point for point in points if point.status == "ok"]
    if not ran:
        return Ranking([], [], [])
    scored = _to_nine_digits(np.array([scores(point.metrics, objectives) for point in ran]))
    numbers = np.array([point.number for point in ran])
    members: dict[Any, list[int]] = {}
    for i, point in enumerate(ran):
        members.setdefault(condition(point.number), []).append(i)
    left = [np.array(rows) for _, rows in sorted(members.items())]
    best = [_sorted(rows, scored, numbers)[0] for rows in left]
    order: list[int] = []
    pareto: list[int] = []
    for _ in range(_MAX_FRONTS):
        masks = [front(scored[rows]) for rows in left]
        chosen = [rows[mask] for rows, mask in zip(left, masks, strict=True)]
        now = _sorted(np.concatenate(chosen), scored, numbers)
        pareto = pareto or now
        if len(objectives) == 1:
            break
        order += now
        left = [rows[~mask] for rows, mask in zip(left, masks, strict=True)]
    order += _sorted(np.concatenate(left), scored, numbers)
    return Ranking(*([int(numbers[i]) for i in rows] for rows in (order, best, pareto)))


def _to_nine_digits(scored: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    sized = np.where(np.isfinite(scored) & (scored != 0.0), np.abs(scored), 1.0)
    last = 10.0 ** (np.floor(np.log10(sized)) - 8)
    rounded: np.ndarray[Any, Any] = np.round(scored / last) * last
    return rounded


def _sorted(
    rows: np.ndarray[Any, Any], scored: np.ndarray[Any, Any], numbers: np.ndarray[Any, Any]
) -> list[int]:
    keys = (numbers[rows], *(scored[rows, i] for i in reversed(range(scored.shape[1]))))
    return [int(i) for i in rows[np.lexsort(keys)]]


def best_possible(row: PointRow, objectives: Objectives) -> tuple[float, ...] | None:
    """Return scores that no run of a forecast point can beat; None where one of the objectives has no such bound."""
    known = {**row.best, **{f"memory.{name}": size for name, size in row.memory.items()}}
    if row.memory:
        known["memory_peak_bytes"] = row.memory["total_bytes"]
    if any(name not in known for name in objectives):
        return None
    return scores(known, objectives)
