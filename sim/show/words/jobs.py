"""Sentences on jobs side by side: which ends first, which last, and what they share most."""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.views.jobs import JobsView
from sim.show.views.lanes import Lanes
from sim.show.views.names import label
from sim.show.views.run import RunsView, RunView
from sim.units import show

TERMS = (
    (
        "job",
        "a workload of its own on its own GPUs; all begin at once, and one that has ended leaves its links to the others",
    ),
)


def finding(runs: RunsView) -> list[str]:
    """A sentence for each of the first runs, and one on the busiest link of the first."""
    shown = runs.select(JobsView)
    return [*(_ends(run, len(shown) > 1) for run in shown[:3]), *_busiest(shown[0])]


def _ends(run: JobsView, several: bool) -> str:
    times = ", ".join(
        f"{job.name} after {show(job.time_s, 's', 4)}" for job in sorted(run.jobs, key=lambda job: job.time_s)
    )
    return f"{f'In {run.name}, ' if several else ''}{len(run.jobs)} jobs share a network and end: {times}."


def _busiest(run: JobsView) -> list[str]:
    if not run.links:
        return []
    link = max(run.links, key=lambda link: link.busy_s)
    share = f"{link.load_fraction:.0%} of the time until the last job ends"
    return [f"The busiest link, {link.name} ({label(link.kind)}), is full for {share}."]


def aside(runs: Sequence[RunView]) -> str:
    """Nothing."""
    return ""


def course(run: JobsView, lanes: Lanes) -> str:
    """Title of the timeline."""
    return f"{len(run.jobs)} jobs on one network, the last ends after {show(run.completion_time_s, 's', 3)}"
