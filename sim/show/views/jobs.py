"""The view of jobs side by side: how long each took, and on what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sim.show import style
from sim.show.views.lanes import Lanes
from sim.show.views.record import mapping
from sim.show.views.run import RunView

SIZES = ()
"""Parallel dimensions that mean something: jobs have layouts of their own."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job: what it is, where, and how long it took."""

    name: str
    kind: str
    pool: str
    gpus: str
    model: str
    spans: Sequence[tuple[float, float]]
    """Of its plans, from and to [s]."""

    @property
    def time_s(self) -> float:
        """From the common start to its end."""
        return self.spans[-1][1]


@dataclass(frozen=True, kw_only=True, eq=False)
class JobsView(RunView):
    """Jobs side by side."""

    family: ClassVar[str] = "jobs"

    completion_time_s: float
    jobs: Sequence[JobRow]


def facts(work: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Nothing that the list of jobs does not say."""
    return []


def is_complete(metrics: Mapping[str, Any]) -> bool:
    """Check that the metrics are those of jobs."""
    return "jobs" in metrics


def view(result: Mapping[str, Any], common: Mapping[str, Any]) -> JobsView:
    """Read what a result has of its jobs; `common` are the fields of any run."""
    spans = mapping(mapping(result.get("timeline")).get("jobs"))
    rows = [
        JobRow(
            name=str(job.get("name")),
            kind=str(mapping(job.get("workload")).get("kind")),
            pool=str(job.get("pool") or ""),
            gpus=f"{job['gpus']} GPUs"
            if job.get("gpus")
            else f"{len(job['use_nodes'])} nodes"
            if job.get("use_nodes")
            else "",
            model=str(job["model"]) if isinstance(job.get("model"), str) else "",
            spans=[(float(begin), float(end)) for begin, end in spans.get(job.get("name"), [])]
            or [(0.0, 0.0)],
        )
        for job in common["scenario"].get("jobs") or ()
    ]
    return JobsView(
        **common, completion_time_s=float(mapping(result.get("metrics"))["completion_time_s"]), jobs=rows
    )


def lanes_of(result: Mapping[str, Any]) -> Lanes | None:
    """A row for each job, a span for each step, pass or collective of it; None of a result without jobs."""
    timeline = mapping(result.get("timeline"))
    if "jobs" not in timeline:
        return None
    jobs = mapping(timeline["jobs"])
    spans = {
        name: [(float(begin), float(end), row, name) for begin, end in own]
        for row, (name, own) in enumerate(jobs.items())
    }
    colours = [*style.SERIES, *[style.NEUTRAL] * len(jobs)]
    kinds = {name: (name, colours[row]) for row, name in enumerate(jobs)}
    return Lanes("job", tuple(jobs), float(timeline["end_s"]), kinds, spans)
