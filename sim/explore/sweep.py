"""Run a sweep: every point of a space judged, the best found, and what would have to change for those that cannot be.

With `prune`, all points are forecast first and run in the order of their bounds, in rounds that grow; a point that cannot
beat one of an earlier round on every objective is skipped and says so. Rounds do not depend on the number of workers, so
neither does what is skipped; the best points and the Pareto front are those of the whole space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sim.errors import Mark
from sim.explore import answers
from sim.explore.answers import Point
from sim.explore.driver import Driver, Task
from sim.explore.points import Row, check_names
from sim.explore.store import Store, version
from sim.explore.sweep_file import Sweep
from sim.explore.workers import Workers
from sim.study import scenario as scenarios

SCHEMA = "moesim.sweep/1"
_FIRST_ROUND = 32
_NEAREST = 20  # points that almost fit, tried with the memory they need
_ROOM = 1.001


@dataclass(slots=True)
class Progress:
    """How far a sweep is: points settled of all, and the best so far as (number, metrics)."""

    total: int
    settled: int = 0
    computed: int = 0
    best: tuple[int, Mapping[str, Any]] | None = None
    what: str = ""


Watch = Callable[[Progress], None]


@dataclass(slots=True)
class _Run:
    """A sweep under way."""

    sweep: Sweep
    driver: Driver
    watch: Watch
    progress: Progress
    rows: dict[int, list[Row]] = field(default_factory=dict)  # of points not yet whole
    points: dict[int, Point] = field(default_factory=dict)
    checked: bool = False

    def tasks(self, numbers: Iterable[int]) -> Iterator[Task]:
        """Every replica of some points."""
        count = self.sweep.replicas
        for number in numbers:
            for replica in range(count):
                yield Task(number * count + replica, self.sweep.document(number, replica))

    def run(self, numbers: Iterable[int]) -> None:
        """Run some points to their end."""
        for task, row in self.driver.rows(self.tasks(numbers)):
            self.take(task // self.sweep.replicas, row)

    def take(self, number: int, row: Row) -> None:
        """One replica more of a point."""
        if row.status == "ok" and not self.checked:
            check_names(self.sweep.constraints, tuple(self.sweep.objectives), row)
            self.checked = True
        rows = self.rows.setdefault(number, [])
        rows.append(row)
        if len(rows) == self.sweep.replicas:
            self.settle(answers.judged(number, self.rows.pop(number), self.sweep.constraints))

    def settle(self, point: Point) -> None:
        """A point is judged."""
        self.points[point.number] = point
        self.progress.settled += 1
        self.progress.computed = self.driver.computed
        if point.status == "ok":
            best, objectives = self.progress.best, self.sweep.objectives
            score = answers.scores(point.metrics, objectives)
            if best is None or score[0] < answers.scores(best[1], objectives)[0]:
                self.progress.best = (point.number, point.metrics)
        self.watch(self.progress)

    def tick(self) -> None:
        """Time passes."""
        self.watch(self.progress)


def run(sweep: Sweep, workers: Workers, store: Store, watch: Watch = lambda _: None) -> dict[str, Any]:
    """Run a sweep to its end; returns its document, `moesim.sweep/1`.

    Raises `InputError` where a constraint or objective names what no point has, `StoreError` where the disk is full.
    """
    progress = Progress(len(sweep.space))
    driver = Driver(workers, store, sweep.constraints)
    one = _Run(sweep, driver, watch, progress)
    driver.tick = one.tick
    if sweep.prune:
        _pruned(one)
    else:
        one.run(sweep.space.numbers())
    points = [one.points[number] for number in sweep.space.numbers()]
    ranked, pareto = answers.ranked(points, sweep.objectives)
    progress.what = "what almost fits"
    changes = _changes(one, points)
    return _document(one, points, ranked, pareto, changes)


def run_on(
    sweep: Sweep, workers: Workers, store: Path, watch: Watch = lambda _: None, *, fresh: bool = False
) -> dict[str, Any]:
    """`run` by way of a store's file; workers are ended, at once where anything goes wrong."""
    try:
        with Store(store, fresh=fresh) as kept:
            document = run(sweep, workers, kept, watch)
    except BaseException:
        workers.close(now=True)
        raise
    workers.close()
    return document


# --- pruning -------------------------------------------------------------------------------------------------------


def _pruned(one: _Run) -> None:
    sweep, count = one.sweep, one.sweep.replicas
    one.progress.what = "forecasts"
    bounds: list[tuple[tuple[float, ...], int]] = []
    unknown: list[int] = []
    first = (Task(number, sweep.document(number)) for number in sweep.space.numbers())
    for number, row in one.driver.rows(first, run=False):
        if row.status in ("infeasible", "failed"):
            for _ in range(count):
                one.take(number, row)
            continue
        best = answers.best_possible(row, sweep.objectives)
        if best is None:
            unknown.append(number)
        else:
            bounds.append((best, number))
    one.progress.what = ""
    one.run(sorted(unknown))
    bounds.sort()
    size = _FIRST_ROUND
    while bounds:
        now, bounds = bounds[:size], bounds[size:]
        size *= 2
        ran = [answers.scores(p.metrics, sweep.objectives) for p in one.points.values() if p.status == "ok"]
        skipped = {number: beaten for best, number in now if (beaten := _beaten(best, ran)) is not None}
        for number, reason in skipped.items():
            one.settle(Point(number, "pruned", reason))
        one.run(number for _, number in now if number not in skipped)


def _beaten(best: tuple[float, ...], ran: list[tuple[float, ...]]) -> str | None:
    """Why a point need not run: one that ran is better than it could be, on every objective."""
    if any(all(x < y for x, y in zip(score, best, strict=True)) for score in ran):
        return "its lower bound is worse than a point already run, on every objective"
    return None


# --- what would have to change -------------------------------------------------------------------------------------


def _changes(one: _Run, points: list[Point]) -> list[dict[str, Any]]:
    """Points that lack memory alone, the nearest to fitting, with what they would do if they had it, the best first."""
    sweep = one.sweep
    lacking = [point for point in points if point.overflow]
    lacking.sort(
        key=lambda p: (
            (p.overflow["needed_bytes"] / p.overflow["capacity_bytes"], p.number) if p.overflow else (0.0, 0)
        )
    )
    nearest = {point.number: point for point in lacking[:_NEAREST]}
    tasks = []
    for number, point in nearest.items():
        assert point.overflow is not None
        document = sweep.document(number)
        path = ("cluster", "override", "gpu.hbm.capacity")
        scenarios.put(document, path, f"{point.overflow['needed_bytes'] * _ROOM:.0f} B", Mark("--set"))
        tasks.append(Task(number, document))
    found = []
    for number, row in one.driver.rows(tasks):
        if row.status == "ok":
            found.append((answers.scores(row.metrics, sweep.objectives), number, row))
    return [
        {"point": number, **(nearest[number].overflow or {}), "metrics": row.metrics}
        for _, number, row in sorted(found, key=lambda item: item[:2])
    ]


# --- the document --------------------------------------------------------------------------------------------------


def _document(
    one: _Run, points: list[Point], ranked: list[int], pareto: list[int], changes: list[dict[str, Any]]
) -> dict[str, Any]:
    sweep = one.sweep
    place = {point.number: i for i, point in enumerate(points)}
    counts = {
        status: sum(p.status == status for p in points) for status in ("ok", "infeasible", "pruned", "failed")
    }
    return {
        "schema": SCHEMA,
        "name": sweep.name,
        "title": sweep.title,
        "version": version(),
        "sweep": sweep.said,
        "objectives": sweep.objectives,
        "given": sweep.given,
        "axes": {axis.name: list(axis.values) for axis in sweep.space.axes},
        "num_combinations": sweep.space.size,
        "counts": {"points": len(points), **counts},
        "runs": {"computed": one.driver.computed, "remembered": one.driver.remembered},
        "points": [_point(sweep, point) for point in points],
        "ranked": [place[number] for number in ranked],
        "pareto": [place[number] for number in pareto],
        "changes": [{**change, "point": place[change["point"]]} for change in changes],
    }


def _point(sweep: Sweep, point: Point) -> dict[str, Any]:
    found: dict[str, Any] = {
        "values": sweep.space.values(point.number),
        "status": point.status,
        "reason": point.reason,
        "metrics": point.metrics,
    }
    if point.spread:
        found["spread"] = point.spread
    if point.memory:
        found["memory"] = point.memory
    return found | ({"layout": point.layout} if point.layout else {})
