"""Cubes: every point of a sweep computed beforehand, so that a page can show whichever its sliders stand at.

One axis of a sweep is *compared*: its values (machines, as a rule) stand next to one another at every notch. The other axes are
the sliders. A scenario becomes a sweep of its own keys: see `sliders`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sim import documents, limits, metrics, units
from sim.answers.sliders import by_path, machine_figures
from sim.cluster.hardware import list_hardware, load_hardware
from sim.documents import Document
from sim.errors import InfeasibleError, InputError, Problem
from sim.runs.kinds import Progress
from sim.scenario import resolve as scenarios
from sim.sweeps import answers
from sim.sweeps.axes import Axis
from sim.sweeps.file import Sweep
from sim.sweeps.points import PointRow, evaluate
from sim.sweeps.store import address
from sim.trees import dotted, flatten
from sim.version import __version__

SCHEMA = "moesim.cube/1"
_MACHINES = ("machine", "cluster.hardware", "hardware")
_FIRST_FEW = 5  # points after which the time that is left is told


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


def cube(sweep: Sweep, progress: Progress = lambda _: None) -> dict[str, Any]:
    """Compute every point of a sweep; it is a whole space with one seed. InfeasibleError where there are too many points.

    `axes` are the sliders with their values and what each sets, `compared` likewise. `points` has for each
    slider setting in order, the last slider fastest, a list by what is compared: `values` of the metrics,
    `binding` and `bound`, or a `reason`.
    """
    limits.require(sweep.space.size, limits.CUBE, "axes", "fewer values of an axis")
    if sweep.space.sampled is not None:
        wanted = "a sweep of the whole space: a slider has no gaps"
        raise InputError(Problem(None, "sample", "a sample", wanted))
    beside = compared(sweep)
    sliders = [i for i, axis in enumerate(sweep.space.axes) if axis is not beside]
    rows: dict[str, dict[str, Any]] = {}
    points: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    tenth, begun_s = max(1, sweep.space.size // 10), time.monotonic()
    for number in sweep.space.numbers():
        if number % tenth == 0 or number == _FIRST_FEW:
            left_s = (time.monotonic() - begun_s) * (sweep.space.size / number - 1) if number else 0.0
            left = f", {left_s / 60:.0f} min left" if left_s > 60 else ""
            progress(f"{sweep.name}: point {number + 1:,} of {sweep.space.size:,}{left}")
        places = sweep.space.places(number)
        document = sweep.document(number)
        key = run_address(document)
        if key not in rows:
            rows[key] = entry(sweep, evaluate(document, sweep.constraints))
        points.setdefault(tuple(places[i] for i in sliders), []).append(rows[key])
    return {
        "schema": SCHEMA,
        **described(sweep),
        "points": [points[place] for place in sorted(points)],
    }


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
