"""Sentences on jobs side by side: which ends first, which last, and what they share most."""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.views.jobs import JobsView
from sim.show.views.lanes import Lanes
from sim.show.views.names import joined, label
from sim.show.views.run import RunsView, RunView
from sim.units import show

TERMS = (
    (
        "job",
        "a workload of its own on its own GPUs; all begin at once, and one that has ended leaves its links to the others",
    ),
)


def finding(runs: RunsView) -> list[str]:
    """What each of the next runs costs its jobs against the first, the busiest links, and when those of the first end."""
    first, *others = runs.select(JobsView)
    ends, busiest = _ends(first, bool(others)), _busiest([first, *others[:2]])
    return [*_against(first, others[:2]), *busiest, ends] if others else [ends, *busiest]


def _against(first: JobsView, others: Sequence[JobsView]) -> list[str]:
    """Say how much longer each job takes than in the first run."""
    alone_s = {job.name: job.time_s for job in first.jobs}
    sentences = []
    for run in others:
        ratios = [
            f"{job.name} takes {show(job.time_s, 's', 4)} ({job.time_s / alone_s[job.name]:.2f}x as long)"
            for job in run.jobs
            if alone_s.get(job.name)
        ]
        if ratios:
            sentences.append(f"In {run.name}, against {first.name}: {joined(ratios)}.")
    return sentences


def _ends(run: JobsView, several: bool) -> str:
    ends = [
        f"{job.name} after {show(job.time_s, 's', 4)}" for job in sorted(run.jobs, key=lambda job: job.time_s)
    ]
    return f"{f'In {run.name}, ' if several else ''}{len(run.jobs)} jobs share a network and end: {joined(ends)}."


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
    return f"{len(run.jobs)} jobs on one network, the last ends after {show(run.completion_time_s, 's', 3)}"
