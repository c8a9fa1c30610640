"""Run a sweep: every point of a space judged, the best found, and what would have to change for those that cannot be.

With `prune`, all points are forecast first and run in the order of their bounds, in rounds that grow; a point that cannot
beat one of an earlier round (and of the same values of the given axes) on every objective is skipped and says so. Rounds do not
depend on the number of workers, so neither does what is skipped; the best points and the Pareto front are those of the whole
space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from sim import locks
from sim.runs.kinds import Keep
from sim.sweeps import answers, names
from sim.sweeps.answers import Point
from sim.sweeps.changes import Changes, changes
from sim.sweeps.driver import Driver, Task
from sim.sweeps.file import Sweep
from sim.sweeps.points import PointRow
from sim.sweeps.store import Store, version
from sim.sweeps.workers import Workers

SCHEMA = "moesim.sweep/1"
_FIRST_ROUND = 32
_BEATEN = "its lower bound is worse than a point already run, on every objective"


@dataclass(slots=True)
class Progress:
    """The progress of a sweep: points settled of all, and the best so far as (number, metrics)."""

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
    rows: dict[int, dict[int, PointRow]] = field(default_factory=dict)  # by replica, of points not yet whole
    points: dict[int, Point] = field(default_factory=dict)
    ran: dict[int, PointRow] = field(
        default_factory=dict
    )  # a row of each point that ran, until names are checked
    checked: bool = False

    def tasks(self, numbers: Iterable[int]) -> Iterator[Task]:
        """Yield every replica of some points."""
        count = self.sweep.replicas
        for number in numbers:
            for replica in range(count):
                yield Task(number * count + replica, self.sweep.document(number, replica))

    def whole(self, numbers: Iterable[int], *, run: bool = True) -> Iterator[tuple[int, list[PointRow]]]:
        """Yield the rows of some points, in the order of their replicas, as each point becomes whole."""
        for task, row in self.driver.rows(self.tasks(numbers), run=run):
            number, replica = divmod(task, self.sweep.replicas)
            rows = self.rows.setdefault(number, {})
            rows[replica] = row
            if len(rows) == self.sweep.replicas:
                del self.rows[number]
                yield number, [rows[i] for i in sorted(rows)]

    def run(self, numbers: Sequence[int]) -> None:
        """Run some points to their end. Of those that ran the first one is asked for names, whichever ended first."""
        order = iter(numbers)
        head = next(order, None)
        for number, rows in self.whole(numbers):
            self.judge(number, rows)
            while head in self.points and not self.checked:
                self.check(self.ran.pop(head, None))
                head = next(order, None)

    def check(self, row: PointRow | None) -> None:
        """Raise `InputError` for names that a point which ran does not have; nothing where it did not run."""
        if row is not None:
            names.check(self.sweep.constraints, self.sweep.objectives, row.known, row.metrics)
            self.checked = True
            self.ran.clear()

    def judge(self, number: int, rows: Sequence[PointRow]) -> None:
        """Judge a point by all its replicas, or by those that say why it cannot be."""
        ran = next((row for row in rows if row.status == "ok"), None)
        if ran is not None and not self.checked:
            self.ran[number] = ran
        self.settle(answers.judge(number, rows, self.sweep.constraints, self.sweep.objectives))

    def condition(self, number: int) -> tuple[int, ...]:
        """Return the indices of the values of the given axes that a point has; () where no axis is given."""
        places = zip(self.sweep.space.axes, self.sweep.space.places(number), strict=True)
        return tuple(place for axis, place in places if axis.name in self.sweep.given)

    def settle(self, point: Point) -> None:
        """Keep a point that was judged, and report the progress."""
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
        """Report the progress, as time passes."""
        self.watch(self.progress)


def run(
    sweep: Sweep,
    workers: Workers,
    store: Store,
    watch: Watch = lambda _: None,
    keep: Keep = lambda _: None,
) -> dict[str, Any]:
    """Run a sweep to its end; rows that the store has are not computed again, and workers are not ended.

    A constraint says nothing of a point that lacks its names; without an objective a point cannot be. `watch`
    is called with the progress whenever a point is judged and while nothing happens; `keep` is given, once,
    what makes the document of the points that are settled when it is asked. InputError where a constraint or
    objective names what the first point that runs does not have; StoreError where the disk is full.
    """
    progress = Progress(len(sweep.space))
    driver = Driver(workers, store, sweep.constraints)
    state = _Run(sweep, driver, watch, progress)
    driver.tick = state.tick
    keep(partial(_settled, state))
    if sweep.prune:
        _run_pruned(state)
    else:
        state.run(sweep.space.numbers())
    points = [state.points[number] for number in sweep.space.numbers()]
    progress.what = "what almost fits"
    almost = changes(sweep, driver, points, state.condition)
    return _document(state, points, almost)


def run_on(
    sweep: Sweep,
    workers: Workers,
    store: Path,
    watch: Watch = lambda _: None,
    *,
    fresh: bool = False,
    keep: Keep = lambda _: None,
) -> dict[str, Any]:
    """Run a sweep with the store of a file, while no other process has it; workers are ended, at once where anything goes wrong.

    `fresh` forgets what the store has. Else as `run`, and InputError where the file is no store of this
    version.
    """
    try:
        with locks.hold(store.parent), Store(store, fresh=fresh) as kept:
            document = run(sweep, workers, kept, watch, keep)
    except BaseException:
        workers.close(now=True)
        raise
    workers.close()
    return document


# --- pruning -------------------------------------------------------------------------------------------------------


def _run_pruned(state: _Run) -> None:
    sweep = state.sweep
    state.progress.what = "forecasts"
    bounds: list[tuple[tuple[float, ...], int]] = []
    unknown: list[int] = []
    for number, rows in state.whole(sweep.space.numbers(), run=False):
        refused = [row for row in rows if row.status in ("infeasible", "failed")]
        best = [answers.best_possible(row, sweep.objectives) for row in rows]
        if refused:
            state.judge(number, refused)
        elif None in best:
            unknown.append(number)
        else:
            bounds.append((tuple(map(fmean, zip(*filter(None, best), strict=True))), number))
    state.progress.what = ""
    state.run(sorted(unknown))
    bounds.sort()
    size = _FIRST_ROUND
    while bounds:
        now, bounds = bounds[:size], bounds[size:]
        size *= 2
        fronts = _fronts(state)
        left = []
        for best_scores, number in now:
            front = fronts.get(state.condition(number))
            if front is not None and (front < best_scores).all(axis=1).any():
                state.settle(Point(number, "pruned", _BEATEN))
            else:
                left.append(number)
        state.run(left)


def _fronts(state: _Run) -> dict[tuple[int, ...], np.ndarray[Any, Any]]:
    """Return by condition the scores of points that ran which nothing beats, [num_points, num_objectives]."""
    ran: dict[tuple[int, ...], list[tuple[float, ...]]] = {}
    for point in state.points.values():
        if point.status == "ok":
            scored = answers.scores(point.metrics, state.sweep.objectives)
            ran.setdefault(state.condition(point.number), []).append(scored)
    tables = {condition: np.array(rows) for condition, rows in ran.items()}
    return {condition: table[answers.front(table)] for condition, table in tables.items()}


# --- the document --------------------------------------------------------------------------------------------------


def _settled(state: _Run) -> dict[str, Any] | None:
    """Return the document of the points that are settled; None where none is."""
    numbers = [number for number in state.sweep.space.numbers() if number in state.points]
    if not numbers:
        return None
    finished = {"finished": len(numbers), "of": len(state.sweep.space), "what": "points"}
    whole = _document(state, [state.points[number] for number in numbers], Changes([], 0))
    return {"schema": SCHEMA, "partial": finished} | whole


def _document(state: _Run, points: list[Point], almost: Changes) -> dict[str, Any]:
    sweep = state.sweep
    ranking = answers.rank(points, sweep.objectives, state.condition)
    place = {point.number: i for i, point in enumerate(points)}
    counts = {
        status: sum(p.status == status for p in points) for status in ("ok", "infeasible", "pruned", "failed")
    }
    return {
        "schema": SCHEMA,
        "name": sweep.name,
        "title": sweep.title,
        "version": version(),
        "sweep": sweep.tree,
        "objectives": sweep.objectives,
        "given": list(sweep.given),
        "axes": {axis.name: list(axis.values) for axis in sweep.space.axes},
        "num_combinations": sweep.space.size,
        "counts": {"points": len(points), **counts},
        "runs": {
            "computed": state.driver.computed,
            "remembered": state.driver.remembered,
            "of_changes": almost.tried,
        },
        "points": [_point(sweep, point) for point in points],
        "ranked": [place[number] for number in ranking.order],
        "best": [place[number] for number in ranking.best],
        "pareto": [place[number] for number in ranking.pareto],
        "changes": [{**change, "point": place[change["point"]]} for change in almost.entries],
    }


def _point(sweep: Sweep, point: Point) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "values": sweep.space.values(point.number),
        "status": point.status,
        "reason": point.reason,
        "metrics": point.metrics,
    }
    if point.spread:
        entry["spread"] = point.spread
    if point.memory:
        entry["memory"] = point.memory
    return entry | ({"layout": point.layout} if point.layout else {})
