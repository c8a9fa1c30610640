"""Grids of jobs side by side."""

from __future__ import annotations

from sim.show.grid import Grid, time_cell
from sim.show.views.jobs import FELT, JobsView
from sim.show.views.run import RunsView


def grids(runs: RunsView, *, wide: bool) -> list[Grid]:
    """A row for each job of each run."""
    shown = runs.select(JobsView)
    kept = [(run.name, job) for run in shown for job in run.jobs]
    felt = [*FELT] if any(run.serves for run in shown) else []
    rows = tuple(
        (
            job.name,
            job.kind.replace("_", " "),
            job.pool or "-",
            job.gpus or "all",
            job.model or "-",
            time_cell(job.time_s),
            *(time_cell(job.felt_s[name]) if name in job.felt_s else "-" for name in felt),
            *((_rate(job.goodput_requests_per_s),) if felt else ()),
        )
        for _, job in kept
    )
    heads = (
        "job", "kind", "pool", "runs on", "model", "ends after", *felt, *(("goodput [1/s]",) if felt else ()),
    )  # fmt: skip
    grid = Grid("Jobs on one network", heads, rows, words=frozenset({0, 1, 2, 4}))
    return [grid.named([name for name, _ in kept]) if len(shown) > 1 else grid]


def _rate(per_s: float | None) -> str:
    return "-" if per_s is None else f"{per_s:.3g}"
