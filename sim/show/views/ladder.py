"""The view of a ladder: its machines, every rung in its three readings, how much of a link is enough, and its curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.show.grid import Cell
from sim.show.views.exchange import Exchange, exchange_view
from sim.show.views.ladder_changes import LadderMetric, change
from sim.show.views.names import hardware_name, joined
from sim.show.views.provenance import Provenance, provenance_of
from sim.show.views.record import record
from sim.show.views.run import RunView, run_view
from sim.show.views.search import DesignSearch, search_view
from sim.trees import flatten


def machine_label(name: str) -> str:
    """Return a machine's name for a reader: `h800` -> `H800`, `h100-235` -> `H100-235`."""
    return "-".join(hardware_name(part) for part in name.split("-"))


@dataclass(frozen=True, slots=True)
class Ends:
    """A figure of the naive design and of the full one; None where it does not run, or nobody knows it."""

    naive: float | None = None
    full: float | None = None


_OF_RUNS = ("scenario", "provenance")
"""Keys of a run that the entry of a machine has too."""


@dataclass(frozen=True, slots=True, eq=False)
class Machine:
    """A machine of a ladder: its name in the file, and its run (scenario and provenance) where a design ran on it."""

    name: str
    label: str
    run: RunView | None
    usd_per_million_tokens: Ends
    tokens_per_s_per_gpu: Ends
    provenance: Provenance
    """Version, changes of its profile, and verdicts of export rules."""
    price_usd_per_gpu_hour: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """A design on a machine.

    `value` is of the metric that is compared, None where the design does not run, for its `reason`. `change` is that of the
    choice [fraction]: against the rung before, the naive design or the full one. `companions` are the other metrics that are
    shown next to it, by their labels; none of a design that does not run.
    """

    value: float | None
    reason: str
    companions: Mapping[str, Cell]
    change: float | None = None

    @property
    def companion_cell(self) -> Cell:
        """The companions in one cell."""
        return " · ".join(self.companions.values()) or "-"


Readings = Mapping[str, Reading]
"""Machine -> its reading."""


@dataclass(frozen=True, slots=True, eq=False)
class Rung:
    """A design choice, read three ways; the first rung of a ladder is the naive design.

    `in_turn`: with all choices up to it. `alone`: in the naive design. `removed`: the full design without it, and without the
    choices whose titles are in `takes_along`; those in `alters` are set otherwise. `gaps` are what the reference takes over
    each other machine, in turn, less one [fraction].
    """

    title: str
    works_around: str
    keys: tuple[str, ...]
    in_turn: Readings
    alone: Readings
    removed: Readings
    gaps: Mapping[str, float | None]
    takes_along: tuple[str, ...]
    alters: tuple[str, ...]

    @property
    def gap(self) -> float | None:
        """The gap to the first other machine; None where there is none, or one of the two does not run it."""
        return next(iter(self.gaps.values()), None)

    @property
    def removal_note(self) -> str:
        """The other choices that its removal undoes or sets otherwise, for a table; "" for none."""
        altered = joined(self.alters)
        return "; ".join(filter(None, (joined(self.takes_along), altered and f"{altered} (set otherwise)")))

    def removal_text(self, mark: str = "") -> str:
        """Return what is removed, titles in marks: `One copy a rank, and with it Two hops`."""
        undone, altered = (
            joined([f"{mark}{title}{mark}" for title in titles]) for titles in (self.takes_along, self.alters)
        )
        parts = (undone and f"and with it {undone}", altered and f"with another setting of {altered}")
        return ", ".join(filter(None, (f"{mark}{self.title}{mark}", *parts)))

    def refusals(self) -> Iterator[tuple[str, str, str]]:
        """Yield how it was read, the machine and the reason of each reading that does not run."""
        for words, readings in (
            ("in its turn", self.in_turn),
            ("alone", self.alone),
            ("removed last", self.removed),
        ):
            yield from ((words, name, reading.reason) for name, reading in readings.items() if reading.reason)


@dataclass(frozen=True, slots=True)
class Need:
    """The least value with which a run takes at most so much more than with an unlimited one.

    `at_most`: it is the least that was tried, and less may do.
    """

    within_fraction: float
    value: float
    at_most: bool


@dataclass(frozen=True, slots=True)
class Enough:
    """The search for how much of a figure of the profile is enough on a machine, which has `present` of it.

    `excess` is what a run takes more than with an unlimited figure [fraction], by the value of each that ran.
    """

    title: str
    key: str
    machine: str
    metric: LadderMetric
    dimension: str
    present: float
    needed: tuple[Need, ...]
    excess: Mapping[float, float]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A figure of which nobody knows how much is enough, and the reason."""

    title: str
    reason: str


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Every machine at a value of an axis, and the gap of the reference to each other one."""

    value: float
    readings: Readings
    gaps: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Curve:
    """Machines along an axis; `break_even` has the values at which the reference takes no more than each other one."""

    title: str
    held: str
    metric: LadderMetric
    within_fraction: float
    points: tuple[CurvePoint, ...]
    break_even: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class LadderView:
    """A ladder as tables, sentences and plots read it; the first machine is the reference, the first rung naive."""

    title: str
    version: str
    schema: str
    spec: Mapping[str, Any]
    num_runs: int
    warnings: Sequence[str]
    metric: LadderMetric
    companions: tuple[LadderMetric, ...]
    machines: tuple[Machine, ...]
    reference: Machine
    rungs: tuple[Rung, ...]
    enough: Mapping[str, Enough | Unknown]
    curves: Mapping[str, Curve]
    exchange: Exchange | None
    search: DesignSearch | None
    ask: str
    """The question that it answers, in words; "" where its file has none."""

    @property
    def naive(self) -> Rung:
        """The design before the first choice."""
        return self.rungs[0]

    @property
    def full(self) -> Rung:
        """The design with all choices."""
        return self.rungs[-1]

    @property
    def choices(self) -> tuple[Rung, ...]:
        """The rungs after the naive design."""
        return self.rungs[1:]

    @property
    def has_rungs(self) -> bool:
        """True where its file has choices to add; a ladder of an exchange or a search alone has none."""
        return bool(self.spec.get("rungs"))

    @property
    def others(self) -> tuple[Machine, ...]:
        """The machines that the reference is compared with."""
        return tuple(machine for machine in self.machines if machine is not self.reference)

    @property
    def rival(self) -> Machine | None:
        """The machine that the reference is compared with first; None where it is alone."""
        return next(iter(self.others), None)

    @property
    def runs(self) -> list[RunView]:
        """The machines on which a design ran, each as a run without metrics."""
        return [machine.run for machine in self.machines if machine.run is not None]

    @property
    def known_enough(self) -> dict[str, Enough]:
        """The figures of which it is known how much is enough."""
        return {name: entry for name, entry in self.enough.items() if isinstance(entry, Enough)}


def ladder_view(document: Mapping[str, Any]) -> LadderView:
    """Read the document of a ladder."""
    metric = LadderMetric(document["metric"]["name"], document["metric"]["more_is_better"])
    companions = tuple(LadderMetric(entry["name"]) for entry in document["beside"])
    machines = tuple(_machine(name, entry) for name, entry in document["hardware"].items())
    origin = document["provenance"]
    return record(
        LadderView,
        document,
        version=origin["version"],
        spec=origin["ladder"],
        num_runs=origin["runs"],
        metric=metric,
        companions=companions,
        machines=machines,
        reference=next(machine for machine in machines if machine.name == document["reference"]),
        rungs=tuple(_rungs(document["rungs"], companions, metric)),
        enough={name: _enough(entry) for name, entry in document["enough"].items()},
        curves={name: _curve(entry, companions) for name, entry in document["curves"].items()},
        exchange=exchange_view(document["exchange"]) if document.get("exchange") else None,
        search=search_view(document["search"], {machine.name: machine.label for machine in machines})
        if document.get("search")
        else None,
        ask=(document.get("question") or {}).get("ask", ""),
    )


def _machine(name: str, entry: Mapping[str, Any]) -> Machine:
    return record(
        Machine,
        entry,
        name=name,
        label=machine_label(name),
        run=run_view({key: entry[key] for key in _OF_RUNS}, name) if "scenario" in entry else None,
        usd_per_million_tokens=Ends(**entry.get("usd_per_million_tokens", {})),
        tokens_per_s_per_gpu=Ends(**entry.get("tokens_per_s_per_gpu", {})),
        provenance=provenance_of(entry.get("provenance", {})),
    )


def _rungs(
    entries: list[Mapping[str, Any]], companions: tuple[LadderMetric, ...], metric: LadderMetric
) -> Iterator[Rung]:
    titles = {entry["name"]: entry["title"] for entry in entries}  # a stopped ladder lacks some
    naive, full = (entries[i]["values"]["cumulative"] for i in (0, -1))

    def readings(entry: Mapping[str, Any], way: str, against: Mapping[str, float | None]) -> Readings:
        reasons, values = entry["reasons"].get(way, {}), entry["values"][way]
        return {
            name: Reading(
                values[name], reasons.get(name, ""), _companions(metrics, companions, metric), change(values[name], against[name])
            )
            for name, metrics in entry[way].items()
        }  # fmt: skip

    before = naive
    for entry in entries:
        yield record(
            Rung,
            entry,
            keys=tuple(entry["set"]),
            in_turn=readings(entry, "cumulative", before),
            alone=readings(entry, "added_first", naive),
            removed=readings(entry, "removed_last", full),
            gaps={name: ways["cumulative"] for name, ways in entry["gaps"].items()},
            takes_along=tuple(titles.get(name, name) for name in entry["takes_along"]),
            alters=tuple(titles.get(name, name) for name in entry["alters"]),
        )
        before = entry["values"]["cumulative"]


def _companions(
    metrics: Mapping[str, Any] | None, companions: Sequence[LadderMetric], but: LadderMetric
) -> dict[str, Cell]:
    """Return the metrics that are shown next to the one that is compared; those of several parts are their sum."""
    known = flatten(metrics or {})
    texts = {}
    for metric in (metric for metric in companions if metric.name != but.name):
        parts = [known.get(part.strip()) for part in metric.name.split("+")]
        whole = [part for part in parts if part is not None]
        texts[metric.label] = metric.text(sum(whole) if len(whole) == len(parts) else None)
    return texts if metrics else {}


def _enough(entry: Mapping[str, Any]) -> Enough | Unknown:
    if "needed" not in entry:
        return Unknown(entry["title"], entry["reason"])
    metric, unlimited = LadderMetric(entry["metric"], entry["more_is_better"]), entry["unlimited"]
    ran = {point["value"]: point["metric"] for point in entry["points"] if point["metric"] is not None}
    least = metric.takes(unlimited["metric"])
    return record(
        Enough,
        entry,
        machine=machine_label(entry["hardware"]),
        metric=metric,
        present=entry["present"]["value"],
        needed=tuple(record(Need, need) for need in entry["needed"]),
        excess={
            value: 0.0 if reached == unlimited["metric"] else metric.takes(reached) / least - 1
            for value, reached in ran.items()
            if value < unlimited["value"]
        },
    )


def _curve(entry: Mapping[str, Any], companions: Sequence[LadderMetric]) -> Curve:
    metric = LadderMetric(entry["metric"], entry["more_is_better"])

    def readings(point: Mapping[str, Any]) -> Readings:
        reasons, values = point["reasons"], point["values"]
        return {
            name: Reading(values[name], reasons.get(name, ""), _companions(metrics, companions, metric))
            for name, metrics in point["metrics"].items()
        }

    points = (CurvePoint(point["value"], readings(point), point["gaps"]) for point in entry["points"])
    even = {name: tuple(where["at"]) for name, where in entry["break_even"].items()}
    return record(Curve, entry, metric=metric, points=tuple(points), break_even=even)
