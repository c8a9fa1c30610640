"""Sentences on launches: how fast each is, and what holds it."""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.views.lanes import Lanes
from sim.show.views.launch import LaunchView
from sim.show.views.names import label
from sim.show.views.run import RunsView, RunView
from sim.units import show

TERMS = (
    ("bound", "FLOPs over the dense peak, or bytes over the HBM rate, whichever takes longer"),
    ("latency", "binds a launch whose bound is below the time of the shortest launch"),
)
_SAID = 4  # launches that have a sentence each


def finding(runs: RunsView) -> list[str]:
    """A sentence for each of the first launches."""
    return [_launch(run) for run in runs.select(LaunchView)[:_SAID]]


def _launch(run: LaunchView) -> str:
    name = run.variant or run.name
    rate = (
        show(run.flops / run.time_s, "flop/s", 4) if run.flops else show(run.bytes / run.time_s, "bytes/s", 4)
    )
    over = (
        f"{run.time_s / run.lower_bound_s:.2f}x its lower bound" if run.lower_bound_s else "without a bound"
    )
    return f"{name} takes {show(run.time_s, 's', 4)}, {over}: {rate}, bound by {label(run.binding)}."


def aside(runs: Sequence[RunView]) -> str:
    """Nothing."""
    return ""


def course(run: RunView, lanes: Lanes) -> str:
    """Nothing: a launch has no timeline."""
    return ""
