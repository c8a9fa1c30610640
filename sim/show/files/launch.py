"""The timeline of a launch: there is none."""

from __future__ import annotations

from sim.show.files.trace import Timeline
from sim.show.views.launch import LaunchView


def timeline(run: LaunchView, prefix: str) -> Timeline:
    """Nothing: one launch is one time."""
    return Timeline()
