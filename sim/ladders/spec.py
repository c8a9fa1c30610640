"""Ladders as files: a naive design, the choices that are added to it, and the hardware on which each is tried.

A ladder's designs are scenarios: `base` with `set` laid over it is the naive one, the `set` of every rung makes it better.
Of keys said twice the later word counts, in this order: base < set < rungs, in the order of the file < `without` <
hardware. All problems carry their place in the ladder's file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from sim import documents, metrics, schemas
from sim.documents import Document, Path_
from sim.errors import InputError, Problem, nearest
from sim.scenario import settings as scenario_settings
from sim.scenario.values import AskSpec, Branch
from sim.schemas import Fraction, Share, written
from sim.units import UnitError

FOLDER = "scenarios/ladders"
NAIVE = "naive"
"""Name of the first rung: nothing chosen yet."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
Overrides = dict[str, Any]
"""Dotted key -> value."""


class RungSpec(Branch):
    """One design choice."""

    title: str | None = None
    set: Annotated[Overrides, Field(min_length=1)]
    """Dotted keys that the choice changes."""
    without: Overrides = Field(default_factory=dict)
    """Keys that replace it when it is removed from the full design; as they were before, when left out."""
    works_around: str | None = None
    """The limit of the hardware that it works around."""


class EnoughSpec(Branch):
    """A search for how much of a figure of the profile is enough."""

    key: str
    """A figure of the profile: gpu.scale_up.bandwidth, nic.bandwidth."""
    title: str | None = None
    hardware: str | None = None
    """One of the ladder's; the first when left out."""
    naive: bool = False
    """Search on the naive design; false: on the full one."""
    base: str | Overrides | None = None
    """A scenario of its own instead of the ladder's designs."""
    set: Overrides = Field(default_factory=dict)
    metric: str | None = None
    """The ladder's when left out."""
    within: Annotated[list[Fraction], Field(min_length=1)] = Field(default_factory=lambda: [0.01, 0.05, 0.1])
    """Distances from the metric of an unlimited figure that count as enough."""

    @field_validator("within")
    @classmethod
    def _some_way_off(cls, value: list[float]) -> list[float]:
        if any(not 0 < fraction <= 1 for fraction in value):
            raise UnitError(
                ", ".join(f"{fraction:.3g}" for fraction in value), "fractions above 0, at most 100 %"
            )
        return sorted(value)


class CurveSpec(Branch):
    """The reference against other hardware along an axis."""

    key: str | None = None
    """The key that each value of the axis sets; none where every point says what it sets."""
    points: Annotated[list[Any] | dict[str, Overrides], Field(min_length=1)]
    """Values of the key, or value -> what else it sets: {8: {cluster.nodes: 1}}."""
    title: str | None = None
    """Name of the axis: EP, experts a token."""
    held: str | None = None
    """Words for what stays the same along the axis; told with the curve's result."""
    naive: bool = False
    base: str | Overrides | None = None
    set: Overrides = Field(default_factory=dict)
    metric: str | None = None
    within: Share = written("1 %")
    """Distance of the two metrics below which they break even."""


class PublishedSpec(Branch):
    """A design that somebody published, told by name among those of an exchange."""

    title: str | None = None
    set: Overrides = Field(default_factory=dict)
    """Keys that it lays over the ladder's full design."""


class HeadroomSpec(Branch):
    """A search for the most of something that a machine affords."""

    axis: str
    """A key that takes whole numbers, of which more costs more: model.top_k."""
    slack: Fraction = written("2 %")
    """Time above that of the design as it is, that is allowed."""
    set: Overrides = Field(default_factory=dict)
    """Keys that the search lays over the ladder's full design."""
    title: str | None = None
    """Name of what is counted: experts a token."""


class ComparedMachines(Branch):
    """The machines of a section that compares them over many designs."""

    reference: Name
    """The machine that others are compared with; one of `hardware`, or a shipped profile."""
    machines: Annotated[list[Name], Field(min_length=1)]
    """The machines that are compared; each one of `hardware`, or a shipped profile."""


class ExchangeSpec(ComparedMachines):
    """All-to-alls of many designs on a machine and on its reference, by the NVLink bytes that they ask for a NIC byte."""

    axes: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
    """Dotted key -> its values; every combination is a design."""
    designs: dict[Name, PublishedSpec] = Field(default_factory=dict)
    headroom: HeadroomSpec | None = None
    within: Share = written("1 %")
    """Time above the reference's that still counts as free."""


class SearchSpec(ComparedMachines):
    """The best design of each machine over a space of designs, free and with one choice held."""

    axes: Annotated[dict[str, Any], Field(min_length=1)]
    """Dotted key -> its values, as in a sweep; every combination is a design."""
    objective: (
        str | Annotated[dict[str, Literal["minimise", "maximise"]], Field(min_length=1, max_length=1)] | None
    ) = None
    """The metric that is best where it is least, of a rate most; or {metric: maximise}. The ladder's when left out."""
    constraints: list[str] = Field(default_factory=list)
    """What a design must meet on a machine, as in a sweep: `tpot_s <= 50 ms`."""
    hold: dict[Name, Annotated[Overrides, Field(min_length=1)]] = Field(default_factory=dict)
    """Name -> the keys of a choice that is held while all others are free: {tp8: {layout.tp: 8}}."""


class LadderSpec(Branch):
    """A ladder file."""

    name: Name
    title: str | None = None
    base: str | Overrides
    """A scenario: a shipped name, a path, or the scenario itself."""
    set: Overrides = Field(default_factory=dict)
    """Keys that make the base naive."""
    hardware: Annotated[dict[Name, Overrides], Field(min_length=1)]
    """The machines to try it on: {h800: {}, h100: {cluster.hardware: h100}}; the first is the reference."""
    metric: str
    """The metric that is compared: a dotted one of the run, or several joined by +."""
    beside: list[str] = Field(default_factory=list)
    """Metrics that are shown beside it, for what they explain: [requests_per_gpu, tpot_s]."""
    rungs: dict[Name, RungSpec] = Field(default_factory=dict)
    """Design choices, in the order in which they are added; a ladder without any has an `exchange` or a `search`."""
    enough: dict[Name, EnoughSpec] = Field(default_factory=dict)
    curves: dict[Name, CurveSpec] = Field(default_factory=dict)
    exchange: ExchangeSpec | None = None
    search: SearchSpec | None = None
    question: AskSpec | None = None


@dataclass(frozen=True, slots=True)
class Ladder:
    """A ladder that was read; its designs are made on demand."""

    spec: LadderSpec
    document: Document
    base: Document

    @property
    def reference(self) -> str:
        """The hardware that the others are compared with."""
        return next(iter(self.spec.hardware))

    def design(self, choices: Iterable[str] | None = None, hardware: str | None = None) -> Document:
        """Return the naive design with some choices (all where None), on one of the ladder's machines."""
        chosen = self.spec.rungs if choices is None else choices
        return self._laid(self.base, [("set",), *(("rungs", rung, "set") for rung in chosen)], hardware)

    def design_without(self, rung: str, hardware: str | None = None) -> Document:
        """Return the full design without one choice."""
        others = [("rungs", other, "set") for other in self.spec.rungs if other != rung]
        return self._laid(self.base, [("set",), *others, ("rungs", rung, "without")], hardware)

    def section_design(self, at: Path_, overrides: Iterable[Path_], hardware: str) -> Document:
        """Return the scenario of an entry of `enough` or `curves`, at its path, with more laid over it."""
        section: EnoughSpec | CurveSpec = getattr(self.spec, str(at[0]))[at[1]]
        if section.base is not None:
            base = _base(self.document, (*at, "base"), self.spec.name)
        else:
            base = self.design(() if section.naive else None)
        return self._laid(base, [(*at, "set"), *overrides], hardware)

    def exchange_design(self, at: Path_, hardware: str) -> Document:
        """Return the full design with the overrides at a path of `exchange` laid over it."""
        return self._laid(self.design(), [at], hardware)

    def _laid(self, base: Document, layers: Iterable[Path_], hardware: str | None) -> Document:
        laid = base.copy()
        for layer in (*layers, *([("hardware", hardware)] if hardware else [])):
            for dotted, value in (self.document.get(layer) or {}).items():
                mark = self.document.mark((*layer, dotted), key=True)
                scenario_settings.put(laid, documents.split(dotted), value, mark)
        return laid


def read(spec: str | Path) -> Ladder:
    """Read a ladder, a path or the name of a shipped file; InputError with every problem of its shape."""
    return ladder_of(documents.load(documents.find(str(spec), FOLDER, "ladder")))


def ladder_of(document: Document) -> Ladder:
    """Return the ladder that a document describes. Raises `InputError` with every problem of its shape."""
    _complete(document)
    checked = schemas.check(document, LadderSpec)
    base = _base(document, ("base",), checked.name)
    problems = [*_problems(document, checked), *_metric_problems(document, checked, base)]
    if problems:
        raise InputError(problems)
    return Ladder(checked, document, base)


def _complete(document: Document) -> None:
    """Give machines that `hardware` does not describe the shipped profile of their name, and a search's ladder its metric."""
    for section in ("exchange", "search"):
        asked = document.get((section,))
        known = document.tree.setdefault("hardware", {}) if isinstance(asked, dict) else None
        if not isinstance(asked, dict) or not isinstance(known, dict):
            continue
        machines = asked.get("machines")
        for name in [asked.get("reference"), *(machines if isinstance(machines, list) else [])]:
            if isinstance(name, str):
                known.setdefault(name, {"cluster.hardware": name})
        metric = asked.get("objective")
        if metric and "metric" not in document.tree:
            document.put(
                ("metric",), next(iter(metric), "") if isinstance(metric, dict) else metric,
                document.mark((section, "objective")),
            )  # fmt: skip


def _problems(document: Document, spec: LadderSpec) -> Iterator[Problem]:
    """Yield what the file's shape alone cannot tell."""
    if not spec.rungs and spec.exchange is None and spec.search is None:
        yield document.problem(
            ("rungs",), "no rung", "one design choice or more, an 'exchange', or a 'search'"
        )
    if spec.search is not None and spec.search.reference in spec.search.machines:
        wanted = "machines other than the reference"
        yield document.problem(("search", "machines"), f"'{spec.search.reference}'", wanted)
    if NAIVE in spec.rungs:
        wanted = f"another name: '{NAIVE}' is the design before the first rung"
        yield document.problem(("rungs", NAIVE), f"a rung '{NAIVE}'", wanted, key=True)
    for name, entry in spec.enough.items():
        if entry.hardware is not None and entry.hardware not in spec.hardware:
            wanted = f"one of: {', '.join(spec.hardware)}"
            at: Path_ = ("enough", name, "hardware")
            yield document.problem(at, f"'{entry.hardware}'", wanted, nearest(entry.hardware, spec.hardware))
    for name, curve in spec.curves.items():
        at = ("curves", name, "points")
        if isinstance(curve.points, list) and curve.key is None:
            yield document.problem(
                at, "a list of values", "the key that they set, or a mapping of value to overrides"
            )
        for value in curve.points:
            if isinstance(value, bool) or not _is_number(value):
                yield document.problem(at, repr(value), "numbers: they stand on an axis")


def _metric_problems(document: Document, spec: LadderSpec, base: Document) -> Iterator[Problem]:
    """Metrics that no run reports, of which neither more nor less is better, or that cannot be added."""
    reported = metrics.reported(_kinds(document, spec, base))
    if reported is None:
        return
    sections: tuple[tuple[str, Mapping[str, EnoughSpec | CurveSpec]], ...]
    sections = (("enough", spec.enough), ("curves", spec.curves))
    named: list[tuple[Path_, str]] = [(("metric",), spec.metric)]
    for section, entries in sections:
        named += [
            ((section, name, "metric"), entry.metric) for name, entry in entries.items() if entry.metric
        ]
    for path, metric in named:
        ways = {name: metrics.more_is_better(name) for name in parts(metric)}
        for name, way in ways.items():
            if way is None or metrics.lacks(_kinds(document, spec, base), name):
                wanted = "a time, a size, a cost or a rate that its runs report"
                yield document.problem(path, f"'{name}'", wanted, nearest(name, reported))
        if len(set(ways.values()) - {None}) > 1:
            wanted = "metrics of one kind: less of each, or more of each, is better"
            yield document.problem(path, f"'{metric}'", wanted)
    for i, metric in enumerate(spec.beside):
        for name in parts(metric):
            if name not in reported:
                wanted = "a metric that its runs report"
                yield document.problem(("beside", i), f"'{name}'", wanted, nearest(name, reported))


def _kinds(document: Document, spec: LadderSpec, base: Document) -> set[str]:
    """The kinds of workload that designs of the ladder may have."""
    more: list[EnoughSpec | CurveSpec] = [*spec.enough.values(), *spec.curves.values()]
    layers = [spec.set, *spec.hardware.values(), *(part.set for part in (*spec.rungs.values(), *more))]
    layers += [rung.without for rung in spec.rungs.values()]
    layers += [
        layer
        for curve in spec.curves.values()
        if isinstance(curve.points, dict)
        for layer in curve.points.values()
    ]
    if spec.exchange is not None:
        layers += [design.set for design in spec.exchange.designs.values()]
        layers += [{key: value} for key, values in spec.exchange.axes.items() for value in values]
        layers += [spec.exchange.headroom.set] if spec.exchange.headroom else []
    overrides = [{documents.split(key): value for key, value in layer.items()} for layer in layers]
    bases = [base]
    for section in ("enough", "curves"):
        for name, entry in getattr(spec, section).items():
            if entry.base is not None:
                bases.append(_base(document, (section, name, "base"), spec.name))
    return {kind for scenario in bases for kind in scenario_settings.kinds(scenario, overrides)}


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _base(document: Document, at: Path_, name: str) -> Document:
    """Return the scenario that a path of the file holds or names; it states no expectation and has no variants."""
    named = document.get(at)
    if isinstance(named, dict):
        base = document.branch(at)
    else:
        mark = document.mark(at)
        base = documents.load(
            documents.find(str(named), "scenarios", "scenario", near=document.folder, mark=mark)
        )
    if base.get(("variants",)):
        raise InputError(
            document.problem(at, "a scenario with variants", "a scenario without: the ladder makes its own")
        )
    for key in ("expect", "question"):
        base.tree.pop(key, None)
    base.tree["name"] = name
    return base


def parts(metric: str) -> list[str]:
    """Return the metrics that a ladder's metric adds: `dispatch.time_s + combine.time_s`."""
    return [name.strip() for name in metric.split("+")]
