"""Sentences on jobs side by side: which ends first, which last, what users of those that serve feel, and what they share most."""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.views.jobs import JobRow, JobsView
from sim.show.views.lanes import Lanes
from sim.show.views.names import joined, label
from sim.show.views.run import RunsView, RunView
from sim.units import show

TERMS = (
    (
        "job",
        "a workload of its own on its own GPUs; all begin at once, and one that has ended leaves its links to the others, or "
        "repeats as long as another serves",
    ),
)


def finding(runs: RunsView) -> list[str]:
    """What each of the next runs costs its jobs against the first, the busiest links, and when those of the first end."""
    first, *others = runs.select(JobsView)
    ends, busiest = (
        _ends(first, bool(others)),
        [*_busiest([first, *others[:2]]), *_unsettled([first, *others])],
    )
    return [*_against(first, others[:2]), *busiest, ends] if others else [ends, *busiest]


def _against(first: JobsView, others: Sequence[JobsView]) -> list[str]:
    """Say how much longer each job, or what its users feel, takes than in the first run."""
    alone = {job.name: job for job in first.jobs}
    sentences = []
    for run in others:
        ratios = [_ratio(job, alone[job.name]) for job in run.jobs if job.name in alone]
        if any(ratios):
            said = "; ".join(filter(None, ratios)) if run.serves else joined([*filter(None, ratios)])
            sentences.append(f"In {run.name}, against {first.name}: {said}.")
    return sentences


def _ratio(job: JobRow, alone: JobRow) -> str:
    """Say how a job compares with itself in another run; "" where there is nothing to compare with."""
    if not job.felt_s:
        return (
            f"{job.name} takes {show(job.time_s, 's', 4)} ({job.time_s / alone.time_s:.2f}x as long)"
            if alone.time_s
            else ""
        )
    parts = [
        f"{name} of {show(time_s, 's', 3)} ({time_s / alone.felt_s[name]:.2f}x)"
        for name, time_s in job.felt_s.items()
        if alone.felt_s.get(name)
    ]
    if job.goodput_requests_per_s is not None and alone.goodput_requests_per_s:
        rate = job.goodput_requests_per_s
        parts.append(f"goodput of {rate:.3g} a second ({rate / alone.goodput_requests_per_s:.2f}x)")
    return f"{job.name} have a {', '.join(parts)}" if parts else ""


def _ends(run: JobsView, several: bool) -> str:
    place = f"In {run.name}, " if several else ""
    if run.serves:
        parts = [
            f"{job.name} takes {show(job.time_s, 's', 4)}"
            if not job.felt_s
            else f"{job.name} have a {_felt(job)}"
            for job in run.jobs
        ]
        return f"{place}{'; '.join(parts)}."
    ends = [
        f"{job.name} after {show(job.time_s, 's', 4)}" for job in sorted(run.jobs, key=lambda job: job.time_s)
    ]
    return f"{place}{len(run.jobs)} jobs share a network and end: {joined(ends)}."


def _felt(job: JobRow) -> str:
    return ", ".join(f"{name} of {show(time_s, 's', 3)}" for name, time_s in job.felt_s.items())


def _unsettled(runs: Sequence[JobsView]) -> list[str]:
    """Say which runs stopped before what jobs leave one another stood still."""
    left = [
        f"{run.unsettled_fraction:.1%} of a link in {run.name}"
        for run in runs
        if run.unsettled_fraction is not None
    ]
    return [f"What jobs leave one another still moved when rounds ended: {joined(left)}."] if left else []


def _busiest(runs: Sequence[JobsView]) -> list[str]:
    busiest = {run.name: max(run.links, key=lambda link: link.busy_s) for run in runs if run.links}
    if not busiest:
        return []
    links = [
        f"{link.name} ({label(link.kind)}){f' in {name}' if len(busiest) > 1 else ''}, {link.load_fraction:.0%}"
        for name, link in busiest.items()
    ]
    return [f"Fullest until the last job ends: {'; '.join(links)} of the time."]


def aside(runs: Sequence[RunView]) -> str:
    """Nothing."""
    return ""


def course(run: JobsView, lanes: Lanes) -> str:
    """Title of the timeline."""
    once = ", those that repeat shown once" if run.serves else ""
    return f"{len(run.jobs)} jobs on one network, the last ends after {show(run.completion_time_s, 's', 3)}{once}"
