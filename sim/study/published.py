"""Published figures: measurements, other simulators' runs and tables, as data that `validate` compares with.

One file of `scenarios/published/` is one group. A figure has a value with its unit, a source that anyone can look up, how
it was read, and what we used it for: `calibration` set a parameter (it proves nothing), `validation` is a prediction.

A group holds *runs* (a scenario, what each run changes in it, and the metrics it should have), *facts* (numbers that
follow from a shipped file without running anything) or *placements* (what the expert balancer should answer).
"""

from __future__ import annotations

import csv
import gzip
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sim import documents
from sim.documents import Document
from sim.errors import Fault, InputError
from sim.schemas import quantity
from sim.study.specification import Branch, Count

FOLDER = "scenarios/published"

Use = Literal["calibration", "validation"]
Confidence = Literal["exact_text", "exact_trace", "digitized", "derived", "secondary"]


class Source(Branch):
    """Where figures come from."""

    title: str
    where: str
    date: str | int
    confidence: Confidence
    note: str | None = None


class Bar(Branch):
    """How large errors may be: their mean over rows, and each row's."""

    mean: quantity("fraction")  # type: ignore[valid-type]
    worst: quantity("fraction") | None = None  # type: ignore[valid-type]


class Figure(Branch):
    """The published value of one metric of a run."""

    metric: str
    value: str | int | float
    use: Use
    tolerance: quantity("fraction") | None = None  # type: ignore[valid-type]
    """The bar's worst error where left out."""
    counted: bool = True
    """Whether the bar applies; else it is only printed."""


class Run(Branch):
    """One run of the group's scenario and the figures it is compared with."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    about: str | None = None
    source: str
    set: dict[str, Any] = Field(default_factory=dict)
    flows: str | None = None
    """A gzipped CSV of flows with the time of each; the flows become the scenario's."""
    flows_counted: bool = True
    rows: list[Figure]


class Facts(Branch):
    """One quantity of several shipped files, by their names."""

    quantity: str
    source: str
    unit: str
    tolerance: quantity("fraction") | None = None  # type: ignore[valid-type]
    values: dict[str, str | bool]


class PlacementExample(Branch):
    """A published answer of the expert balancer."""

    name: str
    source: str
    loads: list[float]
    num_groups: Count
    num_nodes: Count
    num_ranks: Count
    physical_to_logical: list[int]


class Published(Branch):
    """A file of `scenarios/published/`."""

    group: str
    title: str
    bar: Bar
    flow_bar: Bar | None = None
    """For the mean error over single flows, where runs name `flows`."""
    sources: dict[str, Source]
    scenario: dict[str, Any] = Field(default_factory=dict)
    runs: list[Run] = Field(default_factory=list)
    facts: list[Facts] = Field(default_factory=list)
    placements: list[PlacementExample] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TimedFlows:
    """Flows of a packet-level run: a CSV that a scenario can read, and the time each flow took there."""

    csv_text: str
    flow_id: npt.NDArray[np.int64]  # [num_flows]
    time_s: npt.NDArray[np.float64]  # [num_flows], release to last byte


def groups() -> dict[str, Path]:
    """Name -> file of every group."""
    return documents.shipped(FOLDER)


def load(group: str) -> tuple[Published, Document]:
    """Read one group, and its document for messages and scenarios."""
    document = documents.load(groups()[group])
    published = document.check(Published)
    faults: list[Fault] = []
    for branch in ("runs", "facts", "placements"):
        for i, entry in enumerate(getattr(published, branch)):
            if entry.source not in published.sources:
                wanted = f"one of: {', '.join(published.sources)}"
                faults.append(document.fault((branch, i, "source"), f"'{entry.source}'", wanted))
    if faults:
        raise InputError(faults)
    return published, document


def read_flows(file: Path) -> TimedFlows:
    """Split a gzipped CSV into the columns of a flow list and the time of each flow.

    Beside those of a flow list it has `rx_done_us`, the last byte at the receiver, and `released_us` where flows wait for
    others (elsewhere `start_us` says it).
    """
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(file.read_bytes()).decode())))
    released = "released_us" if "released_us" in rows[0] else "start_us"
    time_us = [float(row["rx_done_us"]) - float(row[released]) for row in rows]
    kept = [name for name in rows[0] if name not in ("rx_done_us", "released_us")]
    text = io.StringIO()
    writer = csv.DictWriter(text, kept, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return TimedFlows(
        text.getvalue(), np.array([int(row["flow_id"]) for row in rows]), np.array(time_us) * 1e-6
    )
