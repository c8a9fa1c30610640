"""Changes that a sweep asks for: points that lack memory alone, run with the memory they need.

Of each condition those that are nearest to fitting and those whose bound promises most are tried. Reported are those that no other
beats: whatever else reaches as much needs more memory. What needs more than `_MOST` times a GPU's memory is no question of a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.documents import Document
from sim.errors import Mark
from sim.scenario import settings as scenario_settings
from sim.sweeps import answers
from sim.sweeps.answers import Point
from sim.sweeps.driver import Driver, Task
from sim.sweeps.file import Sweep

_MOST = 2.5  # times the memory of a GPU; parts of one power have between 80 and 192 GB
_TRIED, _LEAST = 20, 3  # of each kind, shared by the conditions, and for each of them
_FORECAST = 400  # looked at for what they promise
_ROOM = 1.001
_CAPACITY = ("cluster", "override", "gpu.hbm.capacity")


@dataclass(frozen=True, slots=True)
class Changes:
    """Points with what they need and would do with it, the best first; and the number of those that were tried."""

    entries: list[dict[str, Any]]
    tried: int


def changes(
    sweep: Sweep, driver: Driver, points: Sequence[Point], condition: Callable[[int], Any]
) -> Changes:
    """Try points that lack memory with the memory they need, each compared with points of its `condition`."""
    lacking: dict[Any, list[Point]] = {}
    for point in sorted(points, key=lambda member: (_ratio(member), member.number)):
        if 0.0 < _ratio(point) <= _MOST:
            lacking.setdefault(condition(point.number), []).append(point)
    each = max(_LEAST, _TRIED // max(1, len(lacking)))
    looked_at = _FORECAST // max(1, len(lacking))
    chosen = [
        point
        for members in lacking.values()
        for point in (*members[:each], *_promising(sweep, driver, members[each : each + looked_at], each))
    ]
    tried: dict[Any, list[tuple[tuple[float, ...], Point, dict[str, Any]]]] = {}
    by_number = {point.number: point for point in chosen}
    for number, row in driver.rows(_tasks(sweep, chosen)):
        if answers.judge(number, [row], sweep.constraints, sweep.objectives).status == "ok":
            scored = answers.scores(row.metrics, sweep.objectives)
            tried.setdefault(condition(number), []).append((scored, by_number[number], row.metrics))
    best = [member for members in tried.values() for member in _unbeaten(members)]
    best.sort(key=lambda member: (member[0], member[1].number))
    entries = [{"point": point.number, **(point.overflow or {}), "metrics": got} for _, point, got in best]
    return Changes(entries, len(chosen))


def _ratio(point: Point) -> float:
    """Return the memory that a point needs over what it has; 0 where it lacks none."""
    return point.overflow["needed_bytes"] / point.overflow["capacity_bytes"] if point.overflow else 0.0


def _tasks(sweep: Sweep, points: Sequence[Point]) -> Iterator[Task]:
    for point in points:
        yield Task(point.number, _with_memory(sweep.document(point.number), point))


def _with_memory(document: Document, point: Point) -> Document:
    assert point.overflow is not None
    scenario_settings.put(
        document, _CAPACITY, f"{point.overflow['needed_bytes'] * _ROOM:.0f} B", Mark("--set")
    )
    return document


def _promising(sweep: Sweep, driver: Driver, points: Sequence[Point], most: int) -> list[Point]:
    """Return the points whose bounds are best; none where a workload has no bound before it runs."""
    by_number = {point.number: point for point in points}
    bounds = []
    for number, row in driver.rows(_tasks(sweep, points), run=False):
        best = answers.best_possible(row, sweep.objectives)
        if best is not None:
            bounds.append((best, number))
    return [by_number[number] for _, number in sorted(bounds)[:most]]


def _unbeaten(
    members: Sequence[tuple[tuple[float, ...], Point, dict[str, Any]]],
) -> Iterator[tuple[tuple[float, ...], Point, dict[str, Any]]]:
    """Yield those that none beats on memory and objectives together."""
    scored = np.array([(_ratio(point), *scores) for scores, point, _ in members])
    for member, kept in zip(members, answers.front(scored), strict=True):
        if kept:
            yield member
