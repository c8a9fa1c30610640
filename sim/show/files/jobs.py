"""The timeline of jobs, for a trace viewer: a track for each."""

from __future__ import annotations

from sim.show.files.trace import Slice, Timeline, Track
from sim.show.views.jobs import JobsView


def timeline(run: JobsView, prefix: str) -> Timeline:
    """Plans of each job: a step and its reductions, passes, collectives."""
    return Timeline(
        slices=tuple(
            Slice(Track(f"{prefix}jobs", job.name), f"{job.kind} {place + 1}", begin, end, {})
            for job in run.jobs
            for place, (begin, end) in enumerate(job.spans)
        )
    )
