"""The timeline of a training step, for a trace viewer.

Each pipeline rank has a group of tracks: its operations, its compute, and its collectives, which may overlap. Compute and
collectives are there for the operations whose inside the result kept.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.show.files.trace import AsyncSlice, Slice, Timeline, Track
from sim.show.views.training import Nodes, Operations, StepView


def timeline(run: StepView, prefix: str) -> Timeline:
    """Operations of each pipeline rank, and what they hold of compute and collectives."""
    streams = ("operations", "compute", "communication")
    last_s = max((max(rank.end_s) for rank in run.pipeline), default=0.0)
    optimizer = [
        Slice(_track(rank, "operations", prefix), "optimizer", last_s, last_s + time_s)
        for rank, time_s in zip(run.pipeline, run.optimizer_s, strict=False)
    ]
    return Timeline(
        tracks=tuple(_track(rank, stream, prefix) for rank in run.pipeline for stream in streams),
        slices=(
            *(bar for rank in run.pipeline for bar in _operations(rank, prefix)),
            *optimizer,
            *(Slice(*node) for rank in run.nodes for node in nodes_on(rank, "compute", prefix)),
        ),
        transfers=tuple(
            AsyncSlice(*node) for rank in run.nodes for node in nodes_on(rank, "communication", prefix)
        ),
    )


def _track(rank: Operations | Nodes, stream: str, prefix: str, what: str = "pipeline rank") -> Track:
    return Track(f"{prefix}{what} {rank.rank}", stream)


def _operations(rank: Operations, prefix: str) -> Iterator[Slice]:
    track = _track(rank, "operations", prefix)
    for name, start_s, end_s in zip(rank.names, rank.start_s, rank.end_s, strict=True):
        yield Slice(track, name, start_s, end_s)


def nodes_on(
    rank: Nodes, stream: str, prefix: str, what: str = "pipeline rank"
) -> Iterator[tuple[Track, str, float, float]]:
    """Track, name, start and end of what ran on a stream; what took no time is left out."""
    track = _track(rank, stream, prefix, what)
    for name, its, start_s, end_s in zip(rank.names, rank.streams, rank.start_s, rank.end_s, strict=True):
        if its == stream and end_s > start_s:
            yield track, name, start_s, end_s
