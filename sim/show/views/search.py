"""The view of a ladder's search: the best design of each machine, free and with one choice held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim.show.views.labels import axis_label, value_label, values_text
from sim.show.views.ladder_changes import LadderMetric
from sim.show.views.record import record


@dataclass(frozen=True, slots=True)
class Best:
    """A best design: its values in words, its metric, what bound it, and the part of it in which communication shows [fraction].

    The last two are None where that is not known. `shares` are the parts of a step or pass that go with the rate of each resource
    [fraction], {} of a collective.
    """

    words: str
    metric: float
    binding: str | None
    exposed_fraction: float | None
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class HeldChoice:
    """A choice that is held: the gap, and what holding it costs reference and machine over their own best [fraction]."""

    name: str
    gap_fraction: float | None
    costs_reference_fraction: float | None
    costs_machine_fraction: float | None
    best: Best | None
    reference_best: Best | None


@dataclass(frozen=True, slots=True)
class Searched:
    """A machine: its best design, the gap to the reference, and what becomes of the reference's design on it.

    `low` and `high` are the metrics of the reference's designs that are as good as its best, on this machine; None where
    none runs. `replaced` says what they had to replace.
    """

    name: str
    label: str
    best: Best | None
    gap_fraction: float | None
    low: float | None
    high: float | None
    num_near: int
    num_refused: int
    reason: str
    replaced: tuple[str, ...]
    cost_fraction: float | None
    bought_back_fraction: float | None
    held: tuple[HeldChoice, ...]


@dataclass(frozen=True, slots=True)
class DesignSearch:
    """The search of a ladder; `reference` and `best` are the reference's name and its best design."""

    reference_name: str
    reference: str
    metric: LadderMetric
    near_fraction: float
    num_designs: int
    best: Best
    machines: tuple[Searched, ...]
    num_failed: int
    failure: str
    """The first bug of ours of which a design died; "" for none."""


def search_view(entry: Mapping[str, Any], labels: Mapping[str, str]) -> DesignSearch:
    """Read the `search` of a ladder's document; `labels` are its machines as a reader calls them."""
    metric = LadderMetric(entry["objective"]["name"], entry["objective"]["more_is_better"])

    def best(design: Mapping[str, Any] | None) -> Best | None:
        # Documents of earlier versions lack these.
        absent: dict[str, Any] = {"binding": None, "exposed_fraction": None, "shares": {}}
        known = absent | dict(design or {})
        return record(Best, known, words=held_text(design["values"])) if design else None

    def searched(name: str, machine: Mapping[str, Any]) -> Searched:
        of = machine["of_reference_design"]
        return record(
            Searched,
            machine,
            name=name,
            label=labels[name],
            best=best(machine["best"]),
            low=of["metric_low"],
            high=of["metric_high"],
            num_near=of["designs"],
            num_refused=of["refused"],
            reason=of["reason"],
            replaced=tuple(
                f"{axis_label(change['key'])} {change['from']} by {change['to']}" for change in of["replaced"]
            ),
            held=tuple(
                record(
                    HeldChoice,
                    held,
                    name=held_text(entry["hold"][choice]),
                    best=best(held["best"]),
                    reference_best=best(held["reference_best"]),
                )
                for choice, held in machine["held"].items()
            ),
        )

    first = best(entry["best"])
    assert first is not None
    return record(
        DesignSearch,
        entry,
        reference_name=entry["reference"],
        reference=labels[entry["reference"]],
        metric=metric,
        best=first,
        machines=tuple(searched(name, machine) for name, machine in entry["machines"].items()),
        num_failed=entry["failed"]["designs"],
        failure=entry["failed"]["reason"],
    )


def held_text(settings: Mapping[str, Any]) -> str:
    """Return the settings of a choice in words: `TP 8`, `1f1b`, `no overlap`."""
    words = []
    for key, value in settings.items():
        if isinstance(value, bool):
            words.append(f"{'' if value else 'no '}{axis_label(key)}")
        elif isinstance(value, Mapping):
            words.append(", ".join(value_label(part) for part in value.values()))
        else:
            words.append(values_text({key: value}, [key]))
    return ", ".join(words)
