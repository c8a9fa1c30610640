"""Published metrics next to those of runs: each figure is met the way a user would meet it, by running a scenario.

A group has one scenario, inline or a shipped one by name, and runs that each change something in it. A run has figures
(metrics with their published values), and may bring flows with the time that each took elsewhere. A *ratio* compares a
metric of two runs, a *difference* takes one from the other.
"""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sim import units
from sim.documents import Document, data_folder
from sim.errors import Mark
from sim.metrics import dimension_of
from sim.runs.kinds import Progress, Result
from sim.runs.run import run_scenario
from sim.scenario import resolve as scenario
from sim.scenario import settings as scenario_settings
from sim.scenario.values import Branch
from sim.schemas import Fraction
from sim.trees import flatten
from sim.validation.published import FOLDER, Bar, Published, Row, Use, Weighed, row


class PublishedMetric(Weighed):
    """The published value of one metric of a run."""

    metric: str
    name: str | None = None
    """In the row's id; what stands before the metric's dot where left out."""
    value: str | int | float
    use: Use
    tolerance: Fraction | None = None
    """The bar's worst error where left out."""
    unit: str | None = None
    """Unit of the value, if the metric's name does not state it."""
    source: str | None = None
    """The run's where left out."""


class Run(Branch):
    """One run of the group's scenario and the figures it is compared with."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    about: str | None = None
    source: str
    set: dict[str, Any] = Field(default_factory=dict)
    flows: str | None = None
    """A gzipped CSV of flows with the time of each; the flows become the scenario's."""
    flows_counted: bool = True
    rows: list[PublishedMetric] = Field(default_factory=list)


class OfTwoRuns(Branch):
    """What was published of one metric of two runs."""

    name: str
    source: str
    metric: str
    of: str
    value: str | int | float
    use: Use
    note: str | None = None


class Ratio(OfTwoRuns):
    """The published ratio of one metric of two runs."""

    over: str
    tolerance: Fraction | None = None


class PublishedDifference(OfTwoRuns):
    """The published difference of one metric of two runs."""

    less: str


class RunFigures(Published):
    """A file whose figures are metrics of runs."""

    flow_bar: Bar | None = None
    """For the mean error over single flows, where runs name `flows`."""
    scenario: dict[str, Any] | str
    """A scenario without a name, or the name of a shipped one."""
    runs: list[Run]
    ratios: list[Ratio] = Field(default_factory=list)
    differences: list[PublishedDifference] = Field(default_factory=list)

    @property
    def bars(self) -> dict[str, Bar]:
        """`main`, and `flows` where single flows are compared."""
        return {"main": self.bar} | ({"flows": self.flow_bar} if self.flow_bar else {})


@dataclass(frozen=True, slots=True)
class TimedFlows:
    """Flows of a packet-level run: a CSV that a scenario can read, and the time each flow took there."""

    csv_text: str
    flow_id: npt.NDArray[np.int64]  # [num_flows]
    time_s: npt.NDArray[np.float64]  # [num_flows], release to last byte


def rows(figures: RunFigures, progress: Progress) -> Iterator[Row]:
    """Run everything once, and yield every figure next to ours."""
    metrics: dict[str, Mapping[str, float]] = {}
    machines: dict[str, str | None] = {}
    with tempfile.TemporaryDirectory(prefix="moesim-") as folder:
        for run in figures.runs:
            document = _document(figures, run)
            timed = None
            if run.flows:
                timed = read_flows(data_folder("scenarios") / "published" / run.flows)
                file = Path(folder) / f"{run.name}.csv"
                file.write_text(timed.csv_text, encoding="utf-8")
                document.put(("workload", "file"), str(file), Mark(run.flows))
            progress(f"{figures.group}: {run.name}")
            resolved = scenario.resolve(document)
            machines[run.name] = resolved.machine
            result = run_scenario(resolved, progress)
            metrics[run.name] = flatten(result["metrics"])
            yield from _figures(figures, run, metrics[run.name], resolved.machine)
            if timed is not None:
                yield _flow_row(run, result, timed, resolved.machine)
    for ratio in figures.ratios:
        yield row(
            ratio.name,
            f"{ratio.metric}, {ratio.of} over {ratio.over}",
            "number",
            units.parse(ratio.value, "number"),
            metrics[ratio.of][ratio.metric] / metrics[ratio.over][ratio.metric],
            use=ratio.use,
            source=ratio.source,
            machine=machines[ratio.of],
            tolerance=ratio.tolerance if ratio.tolerance is not None else figures.bar.worst,
            weighed=Weighed(note=ratio.note),
        )
    for each in figures.differences:
        unit = dimension_of(each.metric)
        yield row(
            each.name,
            f"{each.metric}, {each.of} less {each.less}",
            unit,
            units.parse(each.value, unit),
            metrics[each.of][each.metric] - metrics[each.less][each.metric],
            use=each.use,
            source=each.source,
            machine=machines[each.of],
            tolerance=figures.bar.worst,
            weighed=Weighed(note=each.note),
        )


def _document(figures: RunFigures, run: Run) -> Document:
    """Return the scenario of one run."""
    mark = Mark(f"{FOLDER}/{figures.group}.yaml")
    if isinstance(figures.scenario, str):
        base = scenario_settings.read(figures.scenario)
    else:
        base = Document({**figures.scenario}, str(mark))
    base.put(("name",), figures.group, mark)
    base.put(("variants",), {run.name: run.set}, mark)
    return scenario_settings.variants(base)[run.name]


def _figures(figures: RunFigures, run: Run, ours: Mapping[str, float], machine: str | None) -> Iterator[Row]:
    """Yield the published metrics of one run."""
    for figure in run.rows:
        unit = figure.unit or dimension_of(figure.metric)
        part, _, what = figure.metric.partition(".")
        name = figure.name or (part if what else "")
        yield row(
            f"{run.name}.{name}" if name else run.name,
            figure.metric,
            unit,
            units.parse(figure.value, unit if unit in units.DIMENSIONS else "number"),
            ours[figure.metric],
            use=figure.use,
            source=figure.source or run.source,
            machine=machine,
            tolerance=figure.tolerance if figure.tolerance is not None else figures.bar.worst,
            weighed=figure,
        )


def _flow_row(run: Run, result: Result, timed: TimedFlows, machine: str | None) -> Row:
    """Return the row of the mean over flows of |ours - theirs| / theirs; equal times would make it 0."""
    flow_id, released_us, done_us = np.array(result["flow_completion"]).T
    assert np.array_equal(flow_id, timed.flow_id)
    error = float(np.mean(np.abs((done_us - released_us) * 1e-6 - timed.time_s) / timed.time_s))
    return row(
        f"{run.name}.flows",
        "mean over flows of the error of a flow's time",
        "fraction",
        0.0,
        error,
        use="validation",
        source=run.source,
        machine=machine,
        tolerance=None,
        bar="flows",
        points=True,
        weighed=Weighed(counted=run.flows_counted),
    )


def read_flows(file: Path) -> TimedFlows:
    """Split a gzipped CSV into the columns of a flow list and the time of each flow.

    Besides the columns of a flow list it has `rx_done_us`, the last byte at the receiver, and `released_us` where flows wait for
    others (elsewhere `start_us` says it).
    """
    lines = list(csv.DictReader(io.StringIO(gzip.decompress(file.read_bytes()).decode())))
    released = "released_us" if "released_us" in lines[0] else "start_us"
    time_us = [float(line["rx_done_us"]) - float(line[released]) for line in lines]
    kept = [name for name in lines[0] if name not in ("rx_done_us", "released_us")]
    text = io.StringIO()
    writer = csv.DictWriter(text, kept, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    flow_id = np.array([int(line["flow_id"]) for line in lines])
    return TimedFlows(text.getvalue(), flow_id, np.array(time_us) * 1e-6)
