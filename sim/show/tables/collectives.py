"""The grid of dispatch and combine of one layer and microbatch, for workloads that compute too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sim.show.grid import Cell, Grid, time_cell
from sim.show.views.run import CollectiveTimes, RunView

_COLUMNS: Mapping[str, Callable[[CollectiveTimes], Cell]] = {
    "alone": lambda collective: time_cell(collective.alone_s),
    "beside compute": lambda collective: time_cell(collective.beside_compute_s),
    "ratio": lambda collective: (
        f"{collective.beside_compute_s / collective.alone_s:.2f}" if collective.alone_s else "-"
    ),
    "slowest rank": lambda collective: time_cell(collective.longest_s),
    "nodes/token": lambda collective: f"{collective.nodes_per_token:.3g}",
    "ranks/token": lambda collective: f"{collective.ranks_per_token:.3g}",
    "busiest rank / mean": lambda collective: f"{collective.max_over_mean_rank_load:.2f}",
}


def collectives(runs: Sequence[RunView], columns: Sequence[str]) -> Grid:
    """A row for each collective; of the columns those that are asked for, and what a token touches."""
    shown = [head for head in _COLUMNS if head in columns or head.endswith("/token")]
    both = [(run.name, collective) for run in runs for collective in run.collectives]
    rows = tuple((collective.name, *(_COLUMNS[head](collective) for head in shown)) for _, collective in both)
    grid = Grid("Exchanges of one layer and microbatch", ("exchange", *shown), rows)
    return grid.named([name for name, _ in both]) if len(runs) > 1 else grid
