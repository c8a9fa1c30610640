"""The driver of a sweep: hands out batches, keeps rows as they come, and outlives its workers.

A batch is as many scenarios as take about a third of a second. When a worker dies, whatever was under way is suspected and
runs again alone; a scenario that kills its worker three times alone becomes a row with that reason. What is in the
store is not computed again, so an interrupted sweep goes on where it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, field
from itertools import islice

from sim.documents import Document
from sim.sweeps.expressions import Expression
from sim.sweeps.points import Batch, PointRow
from sim.sweeps.store import Store, address
from sim.sweeps.workers import Rows, Workers

MAX_DEATHS = 3
_BATCH_S = 0.3
_MAX_BATCH = 64
_WAIT_S = 0.25  # between two looks at the clock
_AHEAD = 2  # batches for each slot
_LOOKED_UP = 500  # scenarios at once


@dataclass(frozen=True, slots=True)
class Task:
    """A scenario to be computed, by a number of the caller's."""

    number: int
    document: Document


Addressed = tuple[str, Task]
Waiting = deque[Addressed]
Flying = dict[Future[Rows], list[Addressed]]
Numbered = tuple[int, PointRow]


@dataclass(slots=True)
class Driver:
    """Turns tasks into rows; see `rows`. `computed` and `remembered` count those of scenarios that were to run."""

    workers: Workers
    store: Store
    constraints: tuple[Expression, ...] = ()
    tick: Callable[[], None] = lambda: None
    computed: int = 0
    remembered: int = 0
    mean_s: float = _BATCH_S / 4
    _broken: bool = False
    _same: dict[str, list[int]] = field(default_factory=dict)  # address -> numbers that wait for its row

    def rows(self, tasks: Iterable[Task], *, run: bool = True) -> Iterator[Numbered]:
        """Yield the number and the row of every task in the order in which they come, without `run` of forecasts alone.

        Tasks are read as workers become free. InputError for a constraint at fault, or whatever else a worker
        raised; rows that came before are kept. StoreError where the disk is full.
        """
        waiting, suspects, source = Waiting(), Waiting(), iter(tasks)
        flying: Flying = {}
        deaths: dict[int, int] = {}
        more = True
        while True:
            while more and len(waiting) < self.workers.slots * _MAX_BATCH:
                part = list(islice(source, _LOOKED_UP))
                more = bool(part)
                yield from self._known(part, waiting, run)
            if self._broken and not flying:
                self.workers.rebuild()
                self._broken = False
            alone = bool(suspects) and not flying
            if alone:
                self._start([suspects.popleft()], flying, run)
            while not alone and not suspects and waiting and len(flying) < self.workers.slots * _AHEAD:
                size = max(1, min(_MAX_BATCH, round(_BATCH_S / self.mean_s)))
                self._start([waiting.popleft() for _ in range(min(size, len(waiting)))], flying, run)
            if not flying:
                return
            yield from self._land(flying, suspects, deaths if alone else None, run)

    def _land(
        self, flying: Flying, suspects: Waiting, deaths: dict[int, int] | None, run: bool
    ) -> Iterator[Numbered]:
        """Wait for batches to end; those whose worker died become suspects. `deaths` counts what died alone."""
        done: set[Future[Rows]] = set()
        while not done:
            self.tick()
            self.workers.look()
            done = wait(flying, timeout=_WAIT_S, return_when=FIRST_COMPLETED).done
        for future in done:
            batch = flying.pop(future)
            error = CancelledError() if future.cancelled() else future.exception()
            if error is None:
                yield from self._keep(batch, future.result(), run)
                continue
            if not self.workers.is_death(error):
                raise error
            if deaths is not None:
                number = batch[0][1].number
                deaths[number] = deaths.get(number, 0) + 1
                if deaths[number] == MAX_DEATHS:
                    yield from self._keep(batch, [(number, _deadly())], run)
                    batch = []
            self._broken = True
            suspects.extend(batch)

    def _known(self, tasks: list[Task], waiting: Waiting, run: bool) -> Iterator[Numbered]:
        """Yield the rows that the store has; the other tasks join those that wait, each scenario once."""
        addressed = [(address(task.document), task) for task in tasks]
        known = self.store.get({key for key, _ in addressed})
        for key, task in addressed:
            row = known.get(key)
            if row is not None and (row.status != "forecast" or not run):
                self.remembered += run
                yield task.number, row
            elif key in self._same:
                self._same[key].append(task.number)
            else:
                self._same[key] = []
                waiting.append((key, task))

    def _start(self, batch: list[Addressed], flying: Flying, run: bool) -> None:
        tasks = tuple((task.number, task.document) for _, task in batch)
        flying[self.workers.submit(Batch(tasks, self.constraints, run))] = batch

    def _keep(self, batch: list[Addressed], rows: Rows, run: bool) -> Iterator[Numbered]:
        """Store the rows of a batch and hand them on, to all that asked for the same scenario."""
        addresses = {task.number: key for key, task in batch}
        self.store.put({addresses[number]: row for number, row in rows if not row.excluded})
        for number, row in rows:
            self.mean_s += 0.2 * (max(row.seconds, 1e-4) - self.mean_s)
            self.computed += run and not row.excluded
            for same in (number, *self._same.pop(addresses[number], ())):
                yield same, row


def _deadly() -> PointRow:
    reason = f"its worker died {MAX_DEATHS} times while it ran alone: out of memory, or killed from outside"
    return PointRow("failed", reason)
