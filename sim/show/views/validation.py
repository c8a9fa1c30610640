"""The view of a validation: its groups with their bars, and the rows of each with what they prove."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from sim.show.views.record import record

Purpose = Literal["calibrated on", "predicted", "exact", "implied", "identity", "own count"]


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """A published figure next to the simulated one, in SI units.

    `kind` is what the figure is: `published`, `measured`, `packet_level` or `closed_form`; `purpose`, what the row proves
    where it is met. A row that does not count is printed only.
    """

    group: str
    id: str
    quantity: str
    unit: str
    published: Any
    simulated: Any
    error_fraction: float
    tolerance_fraction: float | None
    ok: bool
    kind: str
    purpose: Purpose
    bar: str | None = "main"
    note: str = ""

    @property
    def counts(self) -> bool:
        """True where it counts towards a bar."""
        return self.bar is not None

    @property
    def use(self) -> str:
        """Its purpose, or that it is printed only."""
        return self.purpose if self.counts else "printed only"


@dataclass(frozen=True, slots=True)
class GroupBar:
    """The bar of some rows of a group, and what they reach; `name` is None of a group without bars of its own."""

    name: str | None
    ok: bool
    mean_abs_error_fraction: float
    worst_error_fraction: float
    mean_bar_fraction: float | None = None
    worst_bar_fraction: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A group of rows; `sources` are cited in words, `num_rows` counts those that a shortened group left out too."""

    name: str
    title: str
    ok: bool
    mean_abs_error_fraction: float
    worst_error_fraction: float
    bars: tuple[GroupBar, ...]
    sources: tuple[str, ...]
    rows: tuple[ComparedRow, ...]
    num_rows: int

    def shortened(self, most: int) -> Group:
        """Return the group with those rows alone that miss, and the worst of the others; without sources."""
        ranked = sorted(self.rows, key=lambda row: (row.ok, not row.counts, -abs(row.error_fraction)))
        num_missed = sum(not row.ok for row in ranked)
        return replace(self, rows=tuple(ranked[: max(most, num_missed)]), sources=())


@dataclass(frozen=True, slots=True)
class MachineErrors:
    """The counted rows of one hardware profile [count], and how far they are off [fraction]; None where there are none."""

    name: str
    rows: int
    predicted: int
    printed: int
    mean_abs_error_fraction: float | None
    predicted_mean_abs_error_fraction: float | None
    worst_error_fraction: float | None
    worst_row: str | None
    groups: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ValidationView:
    """A validation as tables, sentences and plots read it."""

    groups: tuple[Group, ...]
    machines: tuple[MachineErrors, ...]
    version: str
    schema: str

    @property
    def rows(self) -> list[ComparedRow]:
        """The rows of all groups."""
        return [row for group in self.groups for row in group.rows]


def validation_view(document: Mapping[str, Any]) -> ValidationView:
    """Read the document of a validation."""
    groups = tuple(_group(name, entry) for name, entry in document["groups"].items())
    machines = tuple(
        record(MachineErrors, entry, name=name) for name, entry in document.get("machines", {}).items()
    )
    return ValidationView(groups, machines, str(document.get("version", "")), str(document.get("schema", "")))


def _group(name: str, entry: Mapping[str, Any]) -> Group:
    sources = entry.get("sources") or {}
    cited = {
        key: ", ".join(str(source[part]) for part in ("title", "where") if source.get(part))
        for key, source in sources.items()
    }
    rows = tuple(_row(name, row, sources.get(row.get("source")) or {}) for row in entry["rows"])
    return record(
        Group,
        {"title": "", **entry},
        name=name,
        bars=tuple(record(GroupBar, bar) for bar in entry.get("bars") or [{**entry, "name": None}]),
        sources=tuple(f"{key}: {text}" for key, text in cited.items()),
        rows=rows,
        num_rows=len(rows),
    )


def _row(group: str, entry: Mapping[str, Any], source: Mapping[str, Any]) -> ComparedRow:
    use = entry.get("use")
    is_exact = entry["tolerance_fraction"] == 0 or use == "exact"
    kind = "measured" if source.get("confidence") == "measured" else "published"
    purpose = "calibrated on" if use == "calibration" else "exact" if is_exact else "predicted"
    if (evidence := entry.get("evidence", "independent")) != "independent":
        purpose = evidence.replace("_", " ")
    return record(ComparedRow, entry, group=group, kind=source.get("kind", kind), purpose=purpose)
