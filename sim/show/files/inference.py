"""The timeline of passes, for a trace viewer: both of their streams."""

from __future__ import annotations

from sim.show.files.trace import AsyncSlice, Slice, Timeline
from sim.show.files.training import nodes_on
from sim.show.views.inference import PassView


def timeline(run: PassView, prefix: str) -> Timeline:
    """Nodes of each pass on its two streams."""
    compute, moves = (
        [node for kept in run.passes for node in nodes_on(kept, stream, prefix, "pass of rank")]
        for stream in ("compute", "communication")
    )
    return Timeline(
        slices=tuple(Slice(*node) for node in compute), transfers=tuple(AsyncSlice(*node) for node in moves)
    )
