"""The view of a ladder's exchange: designs by the NVLink bytes that they ask for each NIC byte, and what each machine affords."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim.show.views.labels import axis_label, values_text
from sim.show.views.ladder_changes import LadderMetric
from sim.show.views.names import hardware_name


@dataclass(frozen=True, slots=True)
class Design:
    """A design: its title, what it asks for, and its times on the machine and on the reference.

    `x` [NVLink bytes/NIC byte] is None where it has no NIC bytes, `ratio` where it did not run on both.
    """

    title: str
    values: Mapping[str, Any]
    x: float | None
    ratio: float | None
    ours_s: float | None
    theirs_s: float | None
    binding: str
    """The class of resource that dispatch waits for on the machine; "" where it did not run."""
    reason: str


@dataclass(frozen=True, slots=True)
class Headroom:
    """The most of something that machine and reference afford within a slack of the time of a design as it is."""

    title: str
    present: int
    slack_fraction: float
    ours: int
    theirs: int
    design: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """The exchange of a ladder; `limit` and `their_limit` [NVLink bytes/NIC byte] are what machine and reference achieve."""

    machine: str
    reference: str
    metric: LadderMetric
    axes: Mapping[str, tuple[Any, ...]]
    present: Mapping[str, Any]
    within_fraction: float
    limit: float | None
    their_limit: float | None
    points: tuple[Design, ...]
    published: tuple[Design, ...]
    headroom: Headroom | None

    @property
    def measured(self) -> tuple[Design, ...]:
        """Designs of the axes that have NIC bytes and ran on both machines, by what they ask for."""
        both = (point for point in self.points if point.x is not None and point.ratio is not None)
        return tuple(sorted(both, key=lambda point: point.x or 0.0))

    def is_free(self, design: Design) -> bool:
        """Return whether a design takes no longer than on the reference."""
        return design.ratio is not None and design.ratio <= 1 + self.within_fraction


def exchange_view(entry: Mapping[str, Any]) -> Exchange:
    """Read the `exchange` of a ladder's document; the machine is the first of its machines."""
    machine, reference = entry["machines"][0], entry["reference"]
    limits = entry["limits"]

    def design(title: str, point: Mapping[str, Any]) -> Design:
        times = point["time_s"]
        return Design(
            title=title,
            values=point["values"],
            x=point["x"],
            ratio=point["ratio"],
            ours_s=times[machine],
            theirs_s=times[reference],
            binding=point["binding"].get(machine, ""),
            reason=next(iter(point["reasons"].values()), ""),
        )

    return Exchange(
        machine=hardware_name(machine),
        reference=hardware_name(reference),
        metric=LadderMetric(entry["metric"]),
        axes={name: tuple(values) for name, values in entry["axes"].items()},
        present=entry["present"],
        within_fraction=entry["within_fraction"],
        limit=limits[machine],
        their_limit=limits[reference],
        points=tuple(design(values_text(point["values"], entry["axes"]), point) for point in entry["points"]),
        published=tuple(design(point["title"], point) for point in entry["designs"].values()),
        headroom=_headroom(entry, machine, reference) if "headroom" in entry else None,
    )


def _headroom(entry: Mapping[str, Any], machine: str, reference: str) -> Headroom:
    of, most = entry["headroom_of"], entry["headroom"]
    return Headroom(
        title=of["title"] or axis_label(of["axis"]),
        present=of["present"],
        slack_fraction=of["slack_fraction"],
        ours=most[machine],
        theirs=most[reference],
        design=values_text(of["values"], of["values"]),
    )
