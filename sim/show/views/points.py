"""The points of a sweep as a table takes them: all that the document has of each, ran or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sim.show.views.record import record


@dataclass(frozen=True, slots=True)
class TablePoint:
    """A point of a sweep; `layout` is derived from its values, `spread` is that of its replicas, by metric."""

    values: Mapping[str, Any]
    """By axis."""
    status: str
    reason: str
    metrics: Mapping[str, Any]
    layout: Mapping[str, int] = field(default_factory=dict)
    spread: Mapping[str, float] = field(default_factory=dict)


def points_of(document: Mapping[str, Any]) -> list[TablePoint]:
    """Read every point of a sweep's document, in its order."""
    return [record(TablePoint, point) for point in document["points"]]
