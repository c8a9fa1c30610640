"""The timeline of an iteration of reinforcement learning, for a trace viewer: a track for each pool."""

from __future__ import annotations

from sim.show.files.trace import Slice, Timeline, Track
from sim.show.views.rl_step import RlView


def timeline(run: RlView, prefix: str) -> Timeline:
    """The stages of one iteration on the pools that they hold."""
    lanes = run.lanes
    if lanes is None:
        return Timeline()
    return Timeline(
        slices=tuple(
            Slice(Track(f"{prefix}pools", lanes.rows[row]), name, start_s, end_s)
            for spans in lanes.spans.values()
            for start_s, end_s, row, name in spans
        )
    )
