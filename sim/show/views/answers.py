"""The views of an explanation, of a difference of two results, and of sizes of a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim.show.views import inference
from sim.show.views.names import hardware_name
from sim.show.views.record import record

_REST = "rest"
"""Name of the part of a time that no other has."""


@dataclass(frozen=True, slots=True)
class TimePart:
    """A part of a time: its title, its length [s] and its share of the whole [fraction]."""

    title: str
    value_s: float
    share_fraction: float


@dataclass(frozen=True, slots=True)
class Cause:
    """A change that may explain a measured value, what it gives by metric, how far off that is, and what then binds."""

    title: str
    values: Mapping[str, float]
    distance_fraction: float
    binding: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A time taken apart, and what would give what was measured, the nearest first."""

    title: str
    metric: str
    value_s: float
    parts: tuple[TimePart, ...]
    measured: Mapping[str, float]
    causes: tuple[Cause, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that differs: both values, and the metrics of the first run with it alone; None where it cannot stand alone."""

    key: str
    first: Any
    second: Any
    gives: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class Moved:
    """A metric that differs: both values, and the change [fraction]; None where one has it not."""

    name: str
    first: float | None
    second: float | None
    change_fraction: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Two results by their names, with the settings and metrics in which they differ."""

    names: tuple[str, str]
    settings: tuple[Setting, ...]
    metrics: tuple[Moved, ...]


@dataclass(frozen=True, slots=True)
class Fitted:
    """The fewest GPUs of a machine that serve, and how; `gpus` is None where no number does, for the `reason`.

    `smaller` is why the number of GPUs below does not do; "" where there is none.
    """

    title: str
    gpus: int | None
    layout: Mapping[str, int]
    overlap: bool
    tpot_s: float | None
    tokens_per_s_per_gpu: float | None
    max_users: int | None
    memory_fraction: float | None
    usd_per_hour: float | None
    usd_per_million_tokens: float | None
    reason: str
    smaller: str
    smaller_gpus: int | None


@dataclass(frozen=True, slots=True)
class Sizes:
    """A model, what it is to serve, and the fewest GPUs of each machine that do."""

    title: str
    context_tokens: int
    users: int
    tpot_limit_s: float | None
    machines: tuple[Fitted, ...]


def sizes_view(document: Mapping[str, Any]) -> Sizes:
    """Read the document of `moesim size`."""
    return record(Sizes, document, machines=tuple(_fitted(*item) for item in document["machines"].items()))


def _fitted(name: str, entry: Mapping[str, Any]) -> Fitted:
    smaller = entry["smaller"] or {"reason": "", "gpus": None}
    known = dict.fromkeys(
        ("tpot_s", "tokens_per_s_per_gpu", "max_users", "usd_per_hour", "usd_per_million_tokens")
    )
    whole = {"layout": {}, "overlap": False, "reason": "", **known, **entry}
    held = entry["memory_bytes"] / entry["memory_capacity_bytes"] if entry["gpus"] else None
    return record(
        Fitted,
        whole,
        title=hardware_name(name),
        memory_fraction=held,
        smaller=smaller["reason"],
        smaller_gpus=smaller["gpus"],
    )


@dataclass(frozen=True, slots=True)
class AtEnds:
    """A parameter with its stated ends as written, and what the headline becomes at each; None where it cannot be so."""

    key: str
    low: str
    high: str
    gives_low: float | None
    gives_high: float | None


@dataclass(frozen=True, slots=True)
class Span:
    """The headline of a run, and its ends with every parameter at its own; `name` is the variant's, "" without any."""

    name: str
    metric: str
    value: float
    low: float | None
    high: float | None
    parameters: tuple[AtEnds, ...]
    unstated: tuple[str, ...]


def spans_view(document: Mapping[str, Any]) -> list[Span]:
    """Read the spans of a result's runs."""
    runs = document.get("variants") or {"": document}
    return [_span(name, run["range"]) for name, run in runs.items() if run.get("range")]


def _span(name: str, entry: Mapping[str, Any]) -> Span:
    stated = tuple(record(AtEnds, row, key=key) for key, row in entry["parameters"].items())
    return record(Span, entry, name=name, parameters=stated, unstated=tuple(entry["unstated"]))


def explanation_view(document: Mapping[str, Any]) -> Explanation:
    """Read the document of `moesim explain`."""
    return record(
        Explanation,
        document,
        parts=_time_parts(document),
        causes=tuple(record(Cause, entry) for entry in document["causes"]),
    )


def _time_parts(document: Mapping[str, Any]) -> tuple[TimePart, ...]:
    """Parts of a time; those of a pass are summed to the ones that its report has."""
    entries = document["parts"]
    if not any(entry["name"] == "ends" for entry in entries):
        return tuple(record(TimePart, entry) for entry in entries)
    own = [record(TimePart, entry) for entry in entries if entry["name"] == _REST]
    spent = inference.parts_of(
        {entry["name"]: entry["value_s"] for entry in entries if entry["name"] != _REST}
    )
    whole_s = document["value_s"]
    parts = [TimePart(inference.PARTS[name], time_s, time_s / whole_s) for name, time_s in spent.items()]
    return (*parts, *own)


def difference_view(document: Mapping[str, Any]) -> Difference:
    """Read the document of `moesim diff`."""
    first, second = document["names"]
    return Difference(
        names=(first, second),
        settings=tuple(record(Setting, entry, key=key) for key, entry in document["settings"].items()),
        metrics=tuple(record(Moved, entry, name=name) for name, entry in document["metrics"].items()),
    )
