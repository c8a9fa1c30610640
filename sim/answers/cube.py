"""Cubes: every point of a sweep computed beforehand, so that a page can show whichever its sliders stand at.

One axis of a sweep is *compared*: its values (machines, as a rule) stand next to one another at every notch. The other axes are
the sliders. A scenario becomes a sweep of its own keys: its links, and what its kind of workload is varied by.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sim import documents, limits, metrics, units
from sim.cluster.hardware import Hardware, list_hardware, load_hardware
from sim.documents import Document
from sim.errors import InfeasibleError, InputError, Problem
from sim.runs.kinds import Progress
from sim.scenario import resolve as scenarios
from sim.scenario import settings as scenario_settings
from sim.scenario.descriptions import Scenario
from sim.sweeps import answers, file
from sim.sweeps.axes import Axis
from sim.sweeps.file import Sweep
from sim.sweeps.points import PointRow, evaluate
from sim.sweeps.store import address
from sim.trees import dotted, flatten
from sim.version import __version__

SCHEMA = "moesim.cube/1"
DEFAULT = "explore-exchange"
"""The shipped sweep that is explored where nothing is named."""
_MACHINES = ("machine", "cluster.hardware", "hardware")
_FACTORS = (0.5, 0.75, 1.0, 1.5, 2.25)
_LINKS = ("gpu.scale_up.bandwidth", "nic.bandwidth")
_COUNTS: Mapping[str, tuple[str, ...]] = {
    "all_to_all": ("workload.gate.top_groups", "workload.tokens_per_rank"),
    "training": ("workload.kernel.comm_sms",),
    "prefill": ("workload.prompts_per_gpu",),
    "decode": ("workload.requests_per_gpu", "workload.context_tokens"),
}
"""Kind of workload -> whole numbers that its sliders vary next to the links."""
_SHOWN: Mapping[str, tuple[str, ...]] = {
    "all_to_all": ("dispatch.time_s", "combine.time_s"),
    "training": ("step_time_s",),
    "prefill": ("ttft_s",),
    "decode": ("tpot_s",),
}
"""Kind of workload -> the times whose sum is drawn."""
_RIVALS = ("h800", "h100")
_NICS: Mapping[str, Mapping[str, Any]] = {
    "healthy": {},
    "one at half rate": {"cluster.faults": [{"node": 0, "nic": 0, "bandwidth": "50 %"}]},
    "one dead": {"cluster.faults": [{"node": 0, "nic": 0, "bandwidth": "0 %"}]},
}
"""Notch -> what it sets, of a slider that harms a NIC."""
_OVERLAP: Mapping[str, Mapping[str, Any]] = {
    "as it is": {},
    "yes": {"workload.overlap": True},
    "no": {"workload.overlap": False},
}
"""The same of one that lets communication run next to compute."""
_FIRST_FEW = 5  # points after which the time that is left is told


def sweep_of(spec: str | None, *, live: bool = False) -> Sweep:
    """Return the sweep to explore: one that is named, that of a scenario's own keys, or the shipped one.

    A scenario that is explored `live` has sliders more, whose points would be too many to compute beforehand. InputError for what is neither a scenario nor a sweep, or a scenario whose kind has no sliders.
    """
    if spec is None:
        return file.read(DEFAULT)
    known = documents.shipped(file.FOLDER)
    path = known[spec] if spec in known else documents.find(spec, "scenarios", "scenario or sweep")
    document = documents.load(path)
    if "axes" in document.tree:
        return file.sweep_of(document)
    return file.sweep_of(_as_sweep(document, spec, live=live))


def _as_sweep(document: Document, spec: str, *, live: bool) -> Document:
    """Return the sweep of a scenario's own keys, machine by machine; of one with variants, the first."""
    variant = next(iter(document.get(("variants",)) or {}), None)
    base = scenario_settings.variants(document)[variant] if variant else document
    scenario = scenarios.resolve(base)
    kind = scenario.kind
    if kind not in _SHOWN or scenario.hardware is None:
        wanted = f"a scenario of kind {', '.join(_SHOWN)}, or a sweep"
        raise InputError(Problem(None, "explore", f"'{spec}', of kind {kind}", wanted))
    axes: dict[str, Any] = dict(_own_axes(base, scenario))
    if live:
        axes |= dict(_live_axes(scenario))
    axes["machine"] = {"yours": {}} | {
        name.upper(): {"cluster.hardware": name, "cluster.override": {}} for name in _RIVALS
    }
    tree = {
        "name": f"explore-{document.tree.get('name', 'scenario')}"[:80],
        "title": scenario.title,
        "base": document.tree,
        **({"variant": variant} if variant else {}),
        "axes": axes,
        "given": "machine",
        "objectives": dict.fromkeys(_SHOWN[kind], "minimise"),
    }
    return Document(tree, document.name, folder=document.folder)


def _own_axes(base: Document, scenario: Scenario) -> Iterator[tuple[str, list[Any]]]:
    """Yield sliders: the links of its machine, then whole numbers of its workload, by factors around what they are."""
    figures = _figures(scenario)
    for key in filter(figures.__contains__, _LINKS):
        rates = [float(figures[key]) * factor for factor in _FACTORS]
        yield f"cluster.override.{key}", [units.show(rate, "bytes/s", 6) for rate in rates]
    for key in _COUNTS[scenario.kind]:
        value = Document(scenario.document, "resolved").get(documents.split(key))
        if isinstance(value, int) and not isinstance(value, bool):
            even = 2 if value % 2 == 0 else 1
            around = {max(even, even * round(value * factor / even)) for factor in _FACTORS}
            most = (
                (scenario.model.num_groups if scenario.model else 1) if key.endswith("groups") else math.inf
            )
            yield key, sorted(number for number in around if number <= max(most, value))


def _live_axes(scenario: Scenario) -> Iterator[tuple[str, Any]]:
    """Yield what else a kind of workload is varied by: experts a token, SMs, formats, overlap, and a NIC that fails."""
    if scenario.kind == "all_to_all":
        if scenario.model and "gate" in scenario.document["workload"]:
            own, most = scenario.model.top_k, scenario.model.num_experts
            yield "model.top_k", sorted({min(most, max(1, round(own * factor))) for factor in _FACTORS})
        if "dispatch_dtype" in scenario.document["workload"]:
            yield "workload.dispatch_dtype", ["fp8", "bf16"]
    if scenario.kind in ("training", "prefill"):
        yield "overlap", _OVERLAP
    if not scenario.faults and not scenario.shared and scenario.num_nodes > 1:
        yield "NICs", _NICS


def _figures(scenario: Scenario) -> dict[str, Any]:
    """Return the parameters of a scenario's machine by their paths, in SI units."""
    return _by_path(scenario.hardware) if scenario.hardware else {}


def _by_path(hardware: Hardware) -> dict[str, Any]:
    return {parameter.path: parameter.value for parameter in hardware.parameters}


@lru_cache(16)
def _shipped(name: str) -> dict[str, Any]:
    """Return the parameters of a shipped machine; none under a name that no machine has."""
    return _by_path(load_hardware(name)) if name in list_hardware() else {}


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
    resolved, figures = Document(scenario.document, "resolved"), _figures(scenario)

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
