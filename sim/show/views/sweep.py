"""The view of a sweep: its points with the distance to the best, its axes, and what becomes of points that lack memory.

Where a sweep declares axes as `given` (a machine, say: a condition and no choice), points are compared only with points of
the same condition.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sim.metrics import label
from sim.show.grid import Cell
from sim.show.views.labels import axis_label, metric_cell, value_label, values_text
from sim.show.views.record import mapping, record
from sim.show.views.sweep_reasons import Reason, count_reasons
from sim.trees import is_number
from sim.units import FACTORS, split

COMPANIONS = (
    "tpot_s", "ttft_s", "step_time_s", "dispatch.time_s", "combine.time_s", "tokens_per_s_per_gpu", "tokens_per_s_per_user",
    "mfu_causal_fraction", "bubble_s", "exposed_comm_s", "memory_peak_bytes", "max_batch_per_gpu", "binding",
    "dispatch.binding", "combine.binding",
)  # fmt: skip
"""Metrics that are shown next to the objectives, where a point has them."""
EQUAL = 1e-9
"""Relative difference up to which two values of a metric are the same, as for the ranking."""
_MOST_COMPANIONS = 4
_IMPLIED = {"mfu_causal_fraction": "tokens_per_s_per_gpu", "tpot_s": "step_time_s", "ttft_s": "step_time_s"}
"""Metric -> another that states the same, and is left out next to it."""

Condition = tuple[str, ...]
"""A value of each given axis, as text; () where no axis is given."""


@dataclass(frozen=True, slots=True)
class AxisView:
    """An axis of a sweep: its dotted key, its values, and whether it is a condition instead of a choice."""

    name: str
    values: tuple[Any, ...]
    is_given: bool

    @property
    def label(self) -> str:
        """Its short name."""
        return axis_label(self.name)

    @property
    def texts(self) -> tuple[str, ...]:
        """Its values as text."""
        return tuple(map(value_label, self.values))

    @property
    def is_words(self) -> bool:
        """True where its values are text, which a table aligns left."""
        return isinstance(self.values[0], str)

    @property
    def sizes(self) -> dict[str, float] | None:
        """Value as text -> its size in SI units; None where some value has no size."""
        sizes = {value_label(value): _size(value) for value in self.values}
        known = {text: size for text, size in sizes.items() if size is not None}
        return known if len(known) == len(sizes) else None


def _size(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    quantity = split(str(value))
    return quantity[0] * FACTORS.get(quantity[1], 1.0) if quantity else None


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric that points are ranked by, and which way it is better."""

    metric: str
    minimise: bool

    @property
    def label(self) -> str:
        """Its short name."""
        return label(self.metric)


@dataclass(frozen=True, slots=True, eq=False)
class PointView:
    """A point of a sweep.

    `texts` are its values as text, by axis. `lag` is the first objective over that of the best point of its condition, less
    one [fraction]: 0 up to the ninth digit, None where there is nothing to compare with. `times_best` says how many times
    worse it is on that objective, whichever way is better.
    """

    values: Mapping[str, Any]
    texts: Mapping[str, str]
    status: str
    reason: str
    condition: Condition
    metrics: Mapping[str, Any]
    lag: float | None
    times_best: float
    layout: Mapping[str, int] = field(default_factory=dict)
    """Sizes that were derived from its values."""
    spread: Mapping[str, float] = field(default_factory=dict)
    """Standard deviation over replicas, by metric."""

    def metric(self, name: str) -> float | None:
        """Return a metric by its dotted name; None where it is no number, or missing."""
        return number(self.metrics, name)

    def cell(self, name: str) -> Cell:
        """Return a metric, number or word, as a cell."""
        return metric_cell(name, _leaf(self.metrics, name))

    def text(self, axes: Iterable[AxisView]) -> str:
        """Return its values along some axes in words."""
        return values_text(self.values, (axis.name for axis in axes))

    @property
    def lag_cell(self) -> Cell:
        """`+1.3%`, `best`, or `-` where there is nothing to compare with."""
        return "-" if self.lag is None else "best" if self.lag == 0 else f"{self.lag:+.1%}"


def number(metrics: Mapping[str, Any], name: str) -> float | None:
    """Return a number of a tree of metrics by its dotted name; None where there is none."""
    value = _leaf(metrics, name)
    return float(value) if is_number(value) else None


def _leaf(tree: Mapping[str, Any], name: str) -> Any:
    value: Any = tree
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


@dataclass(frozen=True, slots=True)
class Change:
    """A point that lacks memory alone, with the metrics that it would have, and the memory of a GPU that it takes [bytes]."""

    point: PointView
    needed_bytes: float
    capacity_bytes: float
    parts: Mapping[str, float]

    @property
    def ratio(self) -> float:
        """Memory that it needs over what a GPU has."""
        return float(self.needed_bytes / self.capacity_bytes)

    @property
    def times_best(self) -> float:
        """Times the best point of its condition; 0 where none of these ran."""
        return 0.0 if self.point.lag is None else self.point.times_best


@dataclass(frozen=True, slots=True)
class Marginal:
    """A value of an axis, the best of some points that have it (None where none ran), and how many ran."""

    text: str
    best: PointView | None
    count: int


@dataclass(frozen=True, slots=True)
class Runs:
    """Counts of runs: computed, remembered, and of points that lack memory."""

    computed: int
    remembered: int
    of_changes: int


@dataclass(frozen=True, slots=True)
class SweepView:
    """A sweep as tables, sentences and plots read it.

    `ranked` are the points that ran, the best first, and `conditions` the same by condition; `leaders` is the best point of
    each condition, `pareto` what nothing beats. `changes` come nearest to the best first. `counts` is by status, and of all
    `points`.
    """

    ask: str
    """The question that it answers, in words; "" where its file has none."""
    title: str
    version: str
    schema: str
    spec: Mapping[str, Any]
    axes: tuple[AxisView, ...]
    objectives: tuple[Objective, ...]
    has_constraints: bool
    counts: Mapping[str, int]
    runs: Runs
    points: tuple[PointView, ...]
    ranked: tuple[PointView, ...]
    conditions: Mapping[Condition, tuple[PointView, ...]]
    leaders: Mapping[Condition, PointView]
    pareto: tuple[PointView, ...]
    changes: tuple[Change, ...]
    reasons: tuple[Reason, ...]

    # --- axes and metrics --------------------------------------------------------------------------------------

    @property
    def objective(self) -> Objective:
        """The first objective."""
        return self.objectives[0]

    @property
    def varied(self) -> tuple[AxisView, ...]:
        """Axes with more than one value; all of them where none has."""
        return tuple(axis for axis in self.axes if len(axis.values) > 1) or self.axes

    @property
    def given(self) -> tuple[AxisView, ...]:
        """Axes that are conditions."""
        return tuple(axis for axis in self.axes if axis.is_given)

    @property
    def choices(self) -> tuple[AxisView, ...]:
        """Axes with more than one value but for the given ones."""
        return tuple(axis for axis in self.varied if not axis.is_given)

    @property
    def metrics(self) -> list[str]:
        """Objectives, then the metrics that are worth a column next to them."""
        asked = [objective.metric for objective in self.objectives]
        first = next((point for point in self.points if point.status == "ok"), None)
        if first is None:
            return asked
        known = [name for name in COMPANIONS if name not in asked and _leaf(first.metrics, name) is not None]
        implied = {other for name, other in _IMPLIED.items() if name in known}
        return asked + [name for name in known if name not in implied][:_MOST_COMPANIONS]

    # --- points compared ---------------------------------------------------------------------------------------

    def marginals(self, axis: AxisView, points: Iterable[PointView]) -> list[Marginal]:
        """Return for each value of an axis the best of some points that has it."""
        ran: dict[str, list[PointView]] = {text: [] for text in axis.texts}
        for point in points:
            ran[point.texts[axis.name]].append(point)
        name, pick = self.objective.metric, min if self.objective.minimise else max
        return [
            Marginal(text, pick(some, key=lambda p: p.metric(name) or 0.0) if some else None, len(some))
            for text, some in ran.items()
        ]

    def least_within(self, axis: AxisView, points: Iterable[PointView], times: float) -> PointView | None:
        """Return the best of some points with the least value of an axis that comes within `times` the best.

        None where the axis has no order, or nothing comes so close.
        """
        if (sizes := axis.sizes) is None:
            return None
        best = (marginal.best for marginal in self.marginals(axis, points))
        close = [point for point in best if point is not None and point.times_best <= times]
        return min(close, key=lambda point: sizes[point.texts[axis.name]], default=None)

    # --- words -------------------------------------------------------------------------------------------------

    @property
    def given_text(self) -> str:
        """The given axes: `EP and top groups`."""
        return " and ".join(axis.label for axis in self.given)

    def condition_text(self, condition: Condition) -> str:
        """Return a condition in words: `EP 8, top groups 4`, `h800`; "" where no axis is given."""
        named = zip(self.given, condition, strict=True)
        return ", ".join(f"{axis.label} {text}" if text[:1].isdigit() else text for axis, text in named)

    def peers_text(self, whose: str) -> str:
        """Return which points some are compared with: ` of their machine`; "" where no axis is given."""
        return f" of {whose} {self.given_text}" if self.given else ""


def sweep_view(document: Mapping[str, Any]) -> SweepView:
    """Read the document of a sweep."""
    objectives = tuple(Objective(name, way == "minimise") for name, way in document["objectives"].items())
    given, raw = document["given"], document["points"]
    best = {_condition(given, raw[i]["values"]): raw[i]["metrics"] for i in document["best"]}
    tops = {condition: number(metrics, objectives[0].metric) for condition, metrics in best.items()}
    axes = {name: AxisView(name, tuple(values), name in given) for name, values in document["axes"].items()}

    def point(raw: Mapping[str, Any], metrics: Mapping[str, Any]) -> PointView:
        condition = _condition(given, raw["values"])
        lag = _lag(number(metrics, objectives[0].metric), tops.get(condition))
        behind = 1 + (lag or 0.0)
        times = behind if objectives[0].minimise else 1 / max(behind, 1e-12)
        texts = {axis: value_label(value) for axis, value in raw["values"].items()}
        known = {"metrics": metrics, "texts": texts, "condition": condition, "lag": lag, "times_best": times}
        return record(PointView, raw, **known)

    points = tuple(point(entry, entry["metrics"] or {}) for entry in raw)
    ranked = tuple(points[i] for i in document["ranked"])
    ran: dict[Condition, list[PointView]] = {member.condition: [] for member in points} if given else {(): []}
    for member in ranked:
        ran[member.condition].append(member)
    changes = (
        record(Change, entry, point=point(raw[entry["point"]], entry["metrics"]))
        for entry in document["changes"]
    )
    return record(
        SweepView,
        document,
        ask=str(mapping(document["sweep"].get("question")).get("ask") or ""),
        spec=document["sweep"],
        axes=tuple(axes.values()),
        objectives=objectives,
        has_constraints=bool(document["sweep"].get("constraints")),
        runs=record(Runs, document["runs"]),
        points=points,
        ranked=ranked,
        conditions={
            condition: tuple(ran[condition])
            for condition in itertools.product(*(axes[name].texts for name in given))
            if condition in ran
        },
        leaders={points[i].condition: points[i] for i in document["best"]},
        pareto=tuple(points[i] for i in document["pareto"]),
        changes=tuple(sorted(changes, key=lambda change: change.times_best)),
        reasons=count_reasons(p.reason for p in points if p.status in ("infeasible", "failed")),
    )


def _condition(given: Iterable[str], values: Mapping[str, Any]) -> Condition:
    return tuple(value_label(values[name]) for name in given)


def _lag(value: float | None, top: float | None) -> float | None:
    if not top or value is None:
        return None
    return 0.0 if math.isclose(value, top, rel_tol=EQUAL) else value / top - 1
