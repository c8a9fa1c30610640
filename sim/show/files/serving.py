"""The timeline of a service, for a trace viewer.

Requests overlap: each stage of their lives is a track of transfers, and queues are counters.
"""

from __future__ import annotations

from sim.show.files.trace import AsyncSlice, Counter, Timeline, Track
from sim.show.views.lanes import LIVES
from sim.show.views.serving import ServiceView


def timeline(run: ServiceView, prefix: str) -> Timeline:
    """The stages of each request's life, a track for each name; requests in each stage at even instants."""
    spans = run.lanes.spans if run.lanes else {}
    tracks = {stage: Track(f"{prefix}requests", LIVES[stage][0]) for stage in spans}
    stages = run.stages
    return Timeline(
        transfers=tuple(
            AsyncSlice(tracks[stage], tracks[stage].thread, start_s, end_s, {"request": row})
            for stage, lives in spans.items()
            for start_s, end_s, row, _ in lives
        ),
        counters=tuple(
            Counter(f"{prefix}queues", stage.replace("_", " "), stages.sample_s, {"requests": counts})
            for stage, counts in stages.counts.items()
        )
        if stages
        else (),
    )
