"""The timeline of a result, for a trace viewer: what the module of each kind of workload has of it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from sim.show.files.trace import Timeline
from sim.show.kinds import module
from sim.show.views.run import views_of


def timeline(document: Mapping[str, Any]) -> Timeline:
    """Collect the course in time of a result document; each variant has rows of its own."""
    view = views_of(document)
    parts: list[Timeline] = [
        module("files", run.family).timeline(run, f"{run.variant}: " if run.variant else "")
        for run in view.runs
    ]
    return Timeline(
        title=view.title or "moesim",
        tracks=tuple(chain.from_iterable(part.tracks for part in parts)),
        slices=tuple(chain.from_iterable(part.slices for part in parts)),
        transfers=tuple(chain.from_iterable(part.transfers for part in parts)),
        counters=tuple(chain.from_iterable(part.counters for part in parts)),
        arrows=tuple(chain.from_iterable(part.arrows for part in parts)),
    )
