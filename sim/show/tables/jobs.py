"""Grids of jobs side by side."""

from __future__ import annotations

from sim.show.grid import Grid, time_cell
from sim.show.views.jobs import JobsView
from sim.show.views.run import RunsView


def grids(runs: RunsView, *, wide: bool) -> list[Grid]:
    """A row for each job of each run."""
    shown = runs.select(JobsView)
    kept = [(run.name, job) for run in shown for job in run.jobs]
    rows = tuple(
        (
            job.name,
            job.kind.replace("_", " "),
            job.pool or "-",
            job.gpus or "all",
            job.model or "-",
            time_cell(job.time_s),
        )
        for _, job in kept
    )
    heads = ("job", "kind", "pool", "runs on", "model", "ends after")
    grid = Grid("Jobs on one network", heads, rows, words=frozenset({0, 1, 2, 4}))
    return [grid.named([name for name, _ in kept]) if len(shown) > 1 else grid]
