"""The grid of launches: times next to bounds, and rates."""

from __future__ import annotations

from sim.show.grid import Grid, ratio_cell, time_cell, value_cell
from sim.show.views.launch import LaunchView
from sim.show.views.names import hardware_name, label
from sim.show.views.run import RunsView


def grids(runs: RunsView, *, wide: bool) -> list[Grid]:
    """A row for each launch."""
    rows = tuple(
        (
            run.variant or run.name,
            hardware_name(run.hardware),
            time_cell(run.time_s),
            time_cell(run.lower_bound_s),
            ratio_cell(run.time_s / run.lower_bound_s if run.lower_bound_s else None),
            label(run.binding),
            value_cell("flop/s", run.flops / run.time_s),
            value_cell("bytes/s", run.bytes / run.time_s),
        )
        for run in runs.select(LaunchView)
    )
    heads = ("launch", "hardware", "time", "bound", "time /\nbound", "binds", "computes", "moves")
    return [Grid("Launches", heads, rows, words=frozenset({0, 1, 5}))]
