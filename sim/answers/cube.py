"""Cubes: every point of a sweep computed beforehand, so that a page can show whichever its sliders stand at.

One axis of a sweep is *compared*: its values (machines, as a rule) stand next to one another at every notch. The other axes are
the sliders. A scenario becomes a sweep of its own keys: see `sliders`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sim import documents, limits, metrics, units
from sim.answers.preview import num_unlike
from sim.answers.sliders import by_path, machine_figures
from sim.cluster.hardware import list_hardware, load_hardware
from sim.documents import Document
from sim.errors import InfeasibleError, InputError, Problem
from sim.runs.kinds import Progress
from sim.scenario import resolve as scenarios
from sim.sweeps import answers
from sim.sweeps.axes import Axis
from sim.sweeps.driver import Driver, Task
from sim.sweeps.file import Sweep
from sim.sweeps.points import PointRow, evaluate
from sim.sweeps.store import Store, address
from sim.sweeps.workers import Workers, start
from sim.trees import dotted, flatten
from sim.version import __version__

SCHEMA = "moesim.cube/1"
_MACHINES = ("machine", "cluster.hardware", "hardware")
_LONG_S = 20.0  # of all runs together, from which the start of worker processes pays
FEWER = "fewer values of an axis, as `--notches` has them"


@lru_cache(16)
def _shipped(name: str) -> dict[str, Any]:
    """Return the parameters of a shipped machine; none under a name that no machine has."""
    return by_path(load_hardware(name)) if name in list_hardware() else {}


def run_address(document: Document) -> str:
    """Return the address of a scenario's run; a machine overridden by what it has anyway is that machine."""
    at = ("cluster", "override")
    name, override = document.get(("cluster", "hardware")), document.get(at)
    if not override or not isinstance(name, str):
        return address(document)
    own = _shipped(name)
    leaves = dotted(override).items()
    kept = {key: value for key, value in leaves if value is None or not _same(own.get(key), value)}
    laid = document.copy()
    laid.tree["cluster"] = {**laid.tree["cluster"], "override": kept}
    return address(laid)


# --- the cube --------------------------------------------------------------------------------------------------------


def compared(sweep: Sweep) -> Axis | None:
    """Return the axis whose values stand next to one another: the machines, else none."""
    axes = {axis.name: axis for axis in sweep.space.axes}
    named = next((axes[name] for name in _MACHINES if name in axes), None)
    return named if named is not None and len(named.values) > 1 else None


def shown(sweep: Sweep) -> list[str]:
    """Return the metrics whose sum is drawn: times among the objectives, else the first objective."""
    timed = [name for name in sweep.objectives if metrics.dimension_of(name) == "s"]
    return timed or list(sweep.objectives)[:1]


def thinned(sweep: Sweep, most: int) -> Sweep:
    """Return a sweep with `most` notches of each slider or fewer, from its first to its last, the one that it starts at among them."""
    beside = compared(sweep)
    axes = [
        axis if axis is beside else _thinned(axis, _start(sweep, axis), most) for axis in sweep.space.axes
    ]
    return replace(sweep, space=replace(sweep.space, axes=tuple(axes)))


def _thinned(axis: Axis, start: int, most: int) -> Axis:
    last = len(axis.values) - 1
    if last < most:
        return axis
    spread = [round(i * last / max(1, most - 1)) for i in range(most)]
    spread.remove(min(spread, key=lambda place: abs(place - start)))
    places = sorted([*spread, start])
    return replace(
        axis,
        values=tuple(axis.values[place] for place in places),
        sets=tuple(axis.sets[place] for place in places),
    )


def cube(sweep: Sweep, progress: Progress = lambda _: None) -> dict[str, Any]:
    """Compute every point of a sweep; it is a whole space with one seed. InfeasibleError where there are too many points.

    `axes` are the sliders with their values and what each sets, `compared` likewise. `points` has for each
    slider setting in order, the last slider fastest, a list by what is compared: `values` of the metrics,
    `binding` and `bound`, or a `reason`. Settings near the first are run first; where Ctrl-C stops it, the others say so, and
    `partial` how many runs it holds.
    """
    limits.require(sweep.space.size, limits.CUBE, "axes", FEWER)
    if sweep.space.sampled is not None:
        wanted = "a sweep of the whole space: a slider has no gaps"
        raise InputError(Problem(None, "sample", "a sample", wanted))
    beside = compared(sweep)
    sliders = [i for i, axis in enumerate(sweep.space.axes) if axis is not beside]
    start = {i: _start(sweep, sweep.space.axes[i]) for i in sliders}
    places = {number: sweep.space.places(number) for number in sweep.space.numbers()}

    def away(number: int) -> int:
        return sum(abs(places[number][i] - start[i]) for i in sliders)

    addresses = {number: run_address(sweep.document(number)) for number in places}
    asked: dict[str, int] = {}
    for number in sorted(places, key=away):
        asked.setdefault(addresses[number], number)
    unlike = len(asked) * num_unlike(sweep.document(next(iter(asked.values()))))
    limits.require(unlike, limits.UNLIKE, f"{len(asked):,} runs", FEWER)
    rows: dict[str, dict[str, Any]] = {}
    try:
        for key, row in _ran(sweep, asked, progress):
            rows[key] = entry(sweep, row)
    except KeyboardInterrupt:
        if not rows:
            raise
    missing = {"reason": "not simulated: the explorer was stopped before"}
    points: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for number, key in addresses.items():
        points.setdefault(tuple(places[number][i] for i in sliders), []).append(rows.get(key, missing))
    part = {"finished": len(rows), "of": len(asked), "what": "runs"}
    return {
        "schema": SCHEMA,
        **({} if len(rows) == len(asked) else {"partial": part}),
        **described(sweep),
        "points": [points[place] for place in sorted(points)],
    }


def _ran(sweep: Sweep, asked: Mapping[str, int], progress: Progress) -> Iterator[tuple[str, PointRow]]:
    """Run scenarios by their addresses: the first to see how long they take, long ones then by all cores."""
    begun_s = time.monotonic()
    first, *others = asked
    row = evaluate(sweep.document(asked[first]), sweep.constraints)
    yield first, row
    left_s = row.seconds * len(others)
    workers = start() if left_s > _LONG_S else None
    left_s /= workers.slots if workers else 1
    progress(f"{sweep.name}: {len(asked):,} runs, some {_minutes(left_s)}; {FEWER}")
    addresses = {asked[key]: key for key in others}
    rows = (
        _shared_out(sweep, addresses, workers)
        if workers
        else ((number, evaluate(sweep.document(number), sweep.constraints)) for number in addresses)
    )
    tenth = max(1, len(others) // 10)
    for i, (number, row) in enumerate(rows, 1):
        yield addresses[number], row
        if i % tenth == 0:
            left_s = (time.monotonic() - begun_s) * (len(others) / i - 1)
            progress(f"{sweep.name}: run {i + 1:,} of {len(asked):,}, {_minutes(left_s)} left")


def _shared_out(sweep: Sweep, numbers: Iterable[int], workers: Workers) -> Iterator[tuple[int, PointRow]]:
    """Yield rows as workers end them, which are then ended too."""
    try:
        with TemporaryDirectory() as folder, Store(Path(folder) / "explorer.sqlite") as store:
            tasks = (Task(number, sweep.document(number)) for number in numbers)
            yield from Driver(workers, store, sweep.constraints).rows(tasks)
    finally:
        workers.close(now=True)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:,.0f} min" if seconds > 90 else f"{seconds:.0f} s"


def described(sweep: Sweep) -> dict[str, Any]:
    """Return what a page has to know of a sweep before any point of it: sliders, what is compared, metrics, the base."""
    beside = compared(sweep)
    return {
        "name": sweep.name,
        "title": sweep.title,
        "version": __version__,
        "axes": [_axis(axis) for axis in sweep.space.axes if axis is not beside],
        "compared": _axis(beside) if beside else {"name": "", "values": [""], "sets": [{}]},
        "metrics": shown(sweep),
        "start": [_start(sweep, axis) for axis in sweep.space.axes if axis is not beside],
        "base": {key: value for key, value in sweep.base.tree.items() if key != "expect"},
    }


def _axis(axis: Axis) -> dict[str, Any]:
    sets = [{documents.dotted(path): value for path, value in chosen.items()} for chosen in axis.sets]
    return {"name": axis.name, "values": [str(value) for value in axis.values], "sets": sets}


def _start(sweep: Sweep, axis: Axis) -> int:
    """Return where a slider stands at first: at what the base itself says, else in the middle."""
    try:
        scenario = scenarios.resolve(sweep.base)
    except (InputError, InfeasibleError):
        return len(axis.values) // 2
    resolved, figures = Document(scenario.document, "resolved"), machine_figures(scenario)

    def own(path: documents.Path_) -> Any:
        if path[:2] == ("cluster", "override") and scenario.hardware is not None:
            return figures.get(documents.dotted(path[2:]))
        value = resolved.get(path)
        return (
            scenario.model.top_groups
            if value is None and path[-1:] == ("top_groups",) and scenario.model
            else value
        )

    for place, sets in enumerate(axis.sets):
        if all(_same(own(path), value) for path, value in sets.items()):
            return place
    return len(axis.values) // 2


def _same(present: Any, value: Any) -> bool:
    number = units.split(str(value)) if isinstance(value, str) else None
    if number is not None and isinstance(present, int | float):
        return math.isclose(number[0] * units.FACTORS.get(number[1], 1.0), present)
    return bool(present == value)


def entry(sweep: Sweep, row: PointRow) -> dict[str, Any]:
    """Return a point as a page takes it: its metrics with what binds and bounds each, or why it cannot be."""
    point = answers.judge(0, [row], sweep.constraints, sweep.objectives)
    return _entry(sweep, point.status, point.reason, point.metrics)


def cube_of(sweep: Sweep, points: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the cube of a sweep that has run, of the `points` of its document; None of a sample, or of too many for a page."""
    space, beside = sweep.space, compared(sweep)
    if space.sampled is not None or len(points) != space.size or space.size > limits.CUBE.most:
        return None
    sliders = [i for i, axis in enumerate(space.axes) if axis is not beside]
    rows: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for number, point in zip(space.numbers(), points, strict=True):
        places = space.places(number)
        made = _entry(sweep, point["status"], point["reason"], point["metrics"])
        rows.setdefault(tuple(places[i] for i in sliders), []).append(made)
    return {"schema": SCHEMA, **described(sweep), "points": [rows[place] for place in sorted(rows)]}


def _entry(sweep: Sweep, status: str, reason: str, metrics_: Mapping[str, Any]) -> dict[str, Any]:
    if status != "ok":
        return {"reason": reason or status}
    flat, names = flatten(metrics_), shown(sweep)

    def beside(name: str, what: str) -> Any:
        path = [*documents.split(name)[:-1], what]
        node: Any = metrics_
        for part in path:
            node = node.get(part) if isinstance(node, Mapping) else None
        return node

    return {
        "values": [flat[name] for name in names],
        "binding": [beside(name, "binding") or "" for name in names],
        "bound": [beside(name, "lower_bound_s") for name in names],
    }
