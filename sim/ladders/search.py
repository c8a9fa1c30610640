"""The best design of each machine over a space of designs, free and with one choice held: what a restriction costs.

Three figures answer what a slower machine loses, whatever the order in which choices are made. A is the time of the best design on
the reference, B that of the reference's designs kept on the machine, C that of the machine's own best. C over A is the gap, B
over A the cost of keeping the design, and (B - C) / (B - A) what a design of its own buys back. With one choice *held*, each
machine is optimised over all others: how much longer the machine then takes, next to what holding it costs each of the two over
its own best, so that a choice which is bad for both is seen to be.

Points are those of a sweep. Where a workload has bounds before it runs, points are run in the order of their bounds and the
search ends with the first that cannot come near the best; the answer is that of the whole space.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sim import documents, limits
from sim.documents import Document
from sim.errors import InfeasibleError, InputError, Mark
from sim.ladders import binding as bindings
from sim.ladders.designs import Designs, cost_of
from sim.ladders.spec import Ladder, SearchSpec, parts
from sim.metrics import more_is_better
from sim.scenario import resolve as scenarios
from sim.scenario import settings as scenario_settings
from sim.sweeps import answers
from sim.sweeps.file import Sweep, sweep_of
from sim.sweeps.points import PointRow, evaluate
from sim.sweeps.store import address
from sim.trees import flatten, leaves

FREE = ""
"""Name of the search in which nothing is held."""
NEAR = 0.01
"""Designs within it of the reference's best are taken for as good [fraction]."""
WORTH = 0.02
"""Cost of keeping the reference's design from which on it is told what a design of its own buys back [fraction]."""
_EQUAL = 1e-9
_EP = ("layout", "ep")


@dataclass(frozen=True, slots=True)
class Spaces:
    """The space of each machine, by what is held; and what each machine has to replace, by path."""

    spaces: Mapping[tuple[str, str], Sweep]
    lacking: Mapping[str, Mapping[documents.Path_, str]]


@dataclass(frozen=True, slots=True)
class Reached:
    """A design that ran: its values by axis, what it took (less is better), its metric, and what held it.

    That is the class of resource that bound a collective. Of a step or pass it is the one with the largest of its `shares`, the parts of
    the time that go with the rate of each; there is also the part in which communication shows.
    """

    number: int
    values: Mapping[str, Any]
    cost: float
    metric: float
    binding: str | None
    exposed_fraction: float | None
    shares: Mapping[str, float] = field(default_factory=dict)

    def entry(self) -> dict[str, Any]:
        """Return it as a document holds it."""
        words = ", ".join(f"{key}={value}" for key, value in self.values.items())
        binding = self.binding or max(self.shares, key=lambda name: self.shares[name], default=None)
        held = {"binding": binding, "exposed_fraction": self.exposed_fraction, "shares": dict(self.shares)}
        return {"design": words, "values": dict(self.values), "metric": self.metric, **held}


# --- the spaces ------------------------------------------------------------------------------------------------------


def plan(ladder: Ladder, designs: Designs) -> Spaces | None:
    """Make the space of each machine; what is wrong with one joins the problems of `designs`. None of a ladder without `search`.

    InfeasibleError where there are too many designs.
    """
    spec = ladder.spec.search
    if spec is None:
        return None
    spaces: dict[tuple[str, str], Sweep] = {}
    lacking: dict[str, Mapping[documents.Path_, str]] = {}
    for on in machines(spec):
        try:
            lacking[on] = _lacking(ladder, on)
            for held in (FREE, *spec.hold):
                spaces[on, held] = space = sweep_of(_space(ladder, on, held, lacking[on]))
                limits.require(len(space.space), limits.DESIGNS, "search.axes", "fewer values of an axis")
        except InputError as error:
            designs.problems += error.problems
    return Spaces(spaces, lacking)


def machines(spec: SearchSpec) -> list[str]:
    """Return the reference, then the machines that are compared with it."""
    return list(dict.fromkeys([spec.reference, *spec.machines]))


def _space(ladder: Ladder, on: str, held: str, lacking: Mapping[documents.Path_, str]) -> Document:
    """Return the sweep over the designs of a machine, with one choice held, at the marks of the ladder's file."""
    spec, file = ladder.spec.search, ladder.document
    assert spec is not None
    laid = ladder.design(None, on)
    document = Document({"name": ladder.spec.name, "base": laid.tree}, file.name, folder=laid.folder)
    for marks, theirs in ((document.keys, laid.keys), (document.values, laid.values)):
        marks.update({("base", *path): mark for path, mark in theirs.items()})
    places = {"axes": ("search", "axes"), "constraints": ("search", "constraints")}
    for key, at in places.items():
        document.tree[key] = file.branch(("search",)).tree.get(key, [] if key == "constraints" else {})
        for marks, theirs in ((document.keys, file.keys), (document.values, file.values)):
            marks.update({(key, *path[2:]): mark for path, mark in theirs.items() if path[:2] == at})
    axes = document.tree["axes"]
    for path, other in lacking.items():
        name = documents.dotted(path)
        if isinstance(axes.get(name), list):
            axes[name] = list(dict.fromkeys(other if _is_fp8(value) else value for value in axes[name]))
    document.tree["set"] = {documents.dotted(path): value for path, value in lacking.items()}
    for key, value in spec.hold.get(held, {}).items():
        mark = file.mark(("search", "hold", held, key), key=True)
        labels = axes.get(key)
        if isinstance(labels, dict) and value in labels:
            axes[key] = {value: labels[value]}
        elif key in axes:
            axes[key] = [value]
        else:
            document.tree["set"][key] = value
        document.keys["axes" if key in axes else "set", key] = mark
    way = "maximise" if _more(ladder) else "minimise"
    document.tree["objectives"] = dict.fromkeys(parts(objective(ladder)), way)
    document.keys[("objectives",)] = file.mark(("search", "objective"))
    return document


def objective(ladder: Ladder) -> str:
    """Return the metric that is compared, or several joined by +: the search's own, else the ladder's."""
    asked = ladder.spec.search.objective if ladder.spec.search else None
    return next(iter(asked)) if isinstance(asked, dict) else asked or ladder.spec.metric


def _more(ladder: Ladder) -> bool:
    asked = ladder.spec.search.objective if ladder.spec.search else None
    if isinstance(asked, dict):
        return next(iter(asked.values())) == "maximise"
    return bool(more_is_better(parts(objective(ladder))[0]))


def _is_fp8(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("fp8")


def _lacking(ladder: Ladder, on: str) -> dict[documents.Path_, str]:
    """Return what a machine without FP8 takes in its place: BF16, by path of the workload."""
    laid = ladder.design(None, on)
    asked = [path for path, value in leaves(laid.get(("workload",)) or {}) if _is_fp8(value)]
    bare = laid.copy()
    for path in asked:
        bare.put(("workload", *path), "bf16", Mark("search"))
    try:
        scenario = scenarios.resolve(bare)
    except InfeasibleError:
        return {}
    if scenario.hardware is None or scenario.hardware.gpu.dense_flops.fp8 is not None:
        return {}
    own = [path for path, value in leaves(scenario.document["workload"]) if _is_fp8(value)]
    return {("workload", *path): "bf16" for path in dict.fromkeys([*asked, *own])}


# --- the search ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Rows:
    """Scenarios run at most once, whichever search asks for them."""

    ladder: Ladder
    designs: Designs
    rows: dict[str, PointRow] = field(default_factory=dict)

    @property
    def failed(self) -> dict[str, Any]:
        """The number of designs that died of a bug of ours, and the first one's."""
        reasons = [row.reason for row in self.rows.values() if row.status == "failed"]
        return {"designs": len(reasons), "reason": reasons[0] if reasons else ""}

    @property
    def spec(self) -> SearchSpec:
        assert self.ladder.spec.search is not None
        return self.ladder.spec.search

    def row(self, space: Sweep, document: Document, words: str, *, run: bool = True) -> PointRow:
        key = address(document)
        row = self.rows.get(key)
        if row is None or (run and row.status == "forecast"):
            if run:
                self.designs.count(words)
            row = self.rows[key] = evaluate(document, space.constraints, run=run)
        return row

    def reached(self, space: Sweep, number: int, row: PointRow) -> Reached | str:
        """Return what a row reached; the reason where it did not run, or misses a constraint."""
        point = answers.judge(number, [row], space.constraints, space.objectives)
        if point.status != "ok":
            return point.reason
        known, more = flatten(point.metrics), _more(self.ladder)
        metric = sum(known[name] for name in space.objectives)
        kernel = point.metrics.get(next(iter(space.objectives)).partition(".")[0])
        binding = kernel.get("binding") if isinstance(kernel, Mapping) else None
        exposed_s = known.get("exposed_comm_mean_s", known.get("exposed_comm_s"))
        shows = (
            exposed_s / known["step_time_s"] if exposed_s is not None and known.get("step_time_s") else None
        )
        return Reached(number, space.space.values(number), cost_of(metric, more), metric, binding, shows)

    def bound(self, space: Sweep, on: str, design: Reached | None) -> Reached | None:
        """Return a design with the shares of resources in its time, where it is a step or a pass."""
        if design is None or design.binding is not None or design.exposed_fraction is None:
            return design
        document, words = space.document(design.number), design.entry()["design"]
        shares = {}
        for name, changed in bindings.faster(document):
            quicker = self.reached(
                space, design.number, self.row(space, changed, f"{on}, {words}, faster {name}")
            )
            if isinstance(quicker, Reached):
                shares[name] = bindings.share(design.cost, quicker.cost)
        return replace(design, shares=shares)


def _ran(rows: _Rows, space: Sweep, on: str) -> Iterator[Reached]:
    """Yield every design of a space that ran and comes within `NEAR` of the best; others may be among them."""
    bounds: dict[int, float] = {}
    for number in space.space.numbers():
        row = rows.row(space, space.document(number), on, run=False)
        if row.status in ("forecast", "ok"):
            possible = answers.best_possible(row, space.objectives)
            bounds[number] = cost_of(abs(sum(possible)), _more(rows.ladder)) if possible else -math.inf
    best = math.inf
    for number in sorted(bounds, key=lambda number: (bounds[number], number)):
        if bounds[number] > best * (1 + NEAR):
            return
        words = ", ".join(f"{key}={value}" for key, value in space.space.values(number).items())
        reached = rows.reached(space, number, rows.row(space, space.document(number), f"{on}, {words}"))
        if isinstance(reached, Reached):
            best = min(best, reached.cost)
            yield reached


def _best(reached: list[Reached]) -> Reached | None:
    """Return the best; of those that agree to nine digits the first of the space."""
    least = min((design.cost for design in reached), default=math.inf)
    return next((design for design in reached if design.cost <= least * (1 + _EQUAL)), None)


def run(ladder: Ladder, planned: Spaces, designs: Designs) -> dict[str, Any]:
    """Search the best design of each machine, free and with each choice held (docs/ladders.md).

    InfeasibleError where no design runs on the reference.
    """
    spec = ladder.spec.search
    assert spec is not None
    rows = _Rows(ladder, designs)
    ran = {
        key: sorted(_ran(rows, space, key[0]), key=lambda design: design.number)
        for key, space in planned.spaces.items()
    }
    best = {key: _best(reached) for key, reached in ran.items()}
    first = best[spec.reference, FREE]
    if first is None:
        space = planned.spaces[spec.reference, FREE]
        number = space.space.numbers()[0]
        reason = rows.reached(space, number, rows.row(space, space.document(number), spec.reference))
        raise InfeasibleError(f"no design of the search runs on {spec.reference}; the first one: {reason}")
    best = {key: rows.bound(planned.spaces[key], key[0], design) for key, design in best.items()}
    near = [design for design in ran[spec.reference, FREE] if design.cost <= first.cost * (1 + NEAR)]
    return {
        "reference": spec.reference,
        "objective": {"name": objective(ladder), "more_is_better": _more(ladder)},
        "axes": {axis.name: list(axis.values) for axis in planned.spaces[spec.reference, FREE].space.axes},
        "constraints": spec.constraints,
        "hold": {name: dict(setting) for name, setting in spec.hold.items()},
        "num_designs": len(planned.spaces[spec.reference, FREE].space),
        "near_fraction": NEAR,
        "best": _entry(best[spec.reference, FREE]),
        "machines": {
            on: _machine(rows, planned, on, best, first, near) for on in machines(spec) if on != spec.reference
        },
        "failed": rows.failed,
    }  # fmt: skip


def _machine(
    rows: _Rows,
    planned: Spaces,
    on: str,
    best: Mapping[tuple[str, str], Reached | None],
    first: Reached,
    near: list[Reached],
) -> dict[str, Any]:
    spec = rows.spec
    own = best[on, FREE]
    kept = [_kept(rows, planned, on, design) for design in near]
    costs = [design.cost for design, _ in kept if isinstance(design, Reached)]
    metrics = [design.metric for design, _ in kept if isinstance(design, Reached)]
    whole = kept[near.index(first)][0]
    ours = whole if isinstance(whole, Reached) else None
    bought = None
    dear = ours is not None and ours.cost > first.cost * (1 + WORTH)
    if dear and ours and own and min(costs) > own.cost * (1 + _EQUAL):
        bought = (ours.cost - own.cost) / (ours.cost - first.cost)
    replaced = {entry["key"]: entry for _, entries in kept for entry in entries}
    refused = [reason for reason, _ in kept if isinstance(reason, str)]
    return {
        "best": own.entry() if own else None,
        "gap_fraction": _over(own, first),
        "of_reference_design": {
            "metric_low": min(metrics, default=None),
            "metric_high": max(metrics, default=None),
            "designs": len(near),
            "refused": len(refused),
            "reason": refused[0] if refused else "",
            "replaced": list(replaced.values()),
        },
        "cost_fraction": _over(ours, first),
        "bought_back_fraction": bought,
        "held": {
            held: {
                "gap_fraction": _over(best[on, held], best[spec.reference, held]),
                "costs_reference_fraction": _over(best[spec.reference, held], first),
                "costs_machine_fraction": _over(best[on, held], own),
                "best": _entry(best[on, held]),
                "reference_best": _entry(best[spec.reference, held]),
            }
            for held in spec.hold
        },
    }


def _entry(reached: Reached | None) -> dict[str, Any] | None:
    return reached.entry() if reached else None


def _over(design: Reached | None, other: Reached | None) -> float | None:
    """Return how much more one takes than the other [fraction]; None where one did not run."""
    if design is None or other is None:
        return None
    more = design.cost / other.cost - 1
    return 0.0 if abs(more) < _EQUAL else more


def _kept(
    rows: _Rows, planned: Spaces, on: str, design: Reached
) -> tuple[Reached | str, list[dict[str, Any]]]:
    """Run a design of the reference on a machine, with only what the machine lacks replaced; and what that was."""
    reference = rows.spec.reference
    theirs, space = planned.spaces[reference, FREE], planned.spaces[on, FREE]
    replaced: list[dict[str, Any]] = []
    document = space.base.copy()
    for path, value, mark in theirs.space.overrides(design.number):
        lacks = path in planned.lacking[on] and _is_fp8(value)
        scenario_settings.put(document, path, "bf16" if lacks else value, mark)
    before = theirs.document(design.number)
    for path, other in planned.lacking[on].items():
        asked = before.get(path) or "fp8"
        if _is_fp8(asked) and path not in planned.lacking[reference]:
            replaced.append({"key": documents.dotted(path), "from": asked, "to": other})
    reached = rows.reached(space, 0, rows.row(space, document, f"{on}, {design.entry()['design']}"))
    present = document.get(_EP)
    if isinstance(reached, str) and isinstance(present, int):
        axis = next((axis for axis in space.space.axes if axis.name == documents.dotted(_EP)), None)
        others = [value for value in (axis.values if axis else ()) if isinstance(value, int)]
        for value in sorted(others, key=lambda value: abs(math.log(value / present))):
            scenario_settings.put(document, _EP, value, Mark("search"))
            again = rows.reached(space, 0, rows.row(space, document.copy(), f"{on}, EP {value}"))
            if isinstance(again, Reached):
                return again, [*replaced, {"key": documents.dotted(_EP), "from": present, "to": value}]
    return reached, replaced
