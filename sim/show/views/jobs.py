"""The view of jobs side by side: how long each took, what users of those that serve felt, and on what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sim.show import style
from sim.show.views.lanes import Lanes
from sim.show.views.record import mapping
from sim.show.views.run import RunView

SIZES = ()
"""Parallel dimensions that mean something: jobs have layouts of their own."""


FELT = {
    "median TTFT": ("ttft", "p50_s"),
    "median TPOT": ("tpot", "p50_s"),
    "p99 TPOT": ("tpot", "p99_s"),
}
"""Times that users of a job feel -> where they are in its metrics."""


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
    felt_s: Mapping[str, float] = field(default_factory=dict)
    """Times of `FELT` where it serves [s]."""
    goodput_requests_per_s: float | None = None

    @property
    def measures_s(self) -> Mapping[str, float]:
        """Times by which it is compared: those that its users feel, or its own [s]."""
        return self.felt_s or {"time": self.time_s}

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
    unsettled_fraction: float | None = None
    """Part of a link by which what jobs leave one another still moved at last, where it did not stand still."""

    @property
    def serves(self) -> bool:
        """True where a job among them serves."""
        return any(job.felt_s for job in self.jobs)


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
            **_felt(mapping(mapping(mapping(result.get("metrics")).get("jobs")).get(job.get("name")))),
        )
        for job in common["scenario"].get("jobs") or ()
    ]
    sharing = mapping(result.get("sharing"))
    moved = float(sharing.get("moved_fraction", 0.0))
    return JobsView(
        **common,
        completion_time_s=float(mapping(result.get("metrics"))["completion_time_s"]),
        jobs=rows,
        unsettled_fraction=moved if moved > float(sharing.get("tolerance_fraction", moved)) else None,
    )


def _felt(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a job that serves; none of another."""
    felt = {name: mapping(metrics.get(time)).get(part) for name, (time, part) in FELT.items()}
    known = {name: float(value) for name, value in felt.items() if value is not None}
    return {"felt_s": known, "goodput_requests_per_s": metrics.get("goodput_requests_per_s")} if known else {}


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
