"""The grid of dispatch and combine of one layer and microbatch, for workloads that compute too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sim.show.grid import Cell, Grid, time_cell
from sim.show.views.run import Collective, RunView

_COLUMNS: Mapping[str, Callable[[Collective], Cell]] = {
    "alone": lambda one: time_cell(one.alone_s),
    "beside compute": lambda one: time_cell(one.beside_compute_s),
    "ratio": lambda one: f"{one.beside_compute_s / one.alone_s:.2f}" if one.alone_s else "-",
    "slowest rank": lambda one: time_cell(one.longest_s),
    "nodes/token": lambda one: f"{one.nodes_per_token:.3g}",
    "ranks/token": lambda one: f"{one.ranks_per_token:.3g}",
    "busiest rank / mean": lambda one: f"{one.max_over_mean_rank_load:.2f}",
}


def collectives(runs: Sequence[RunView], columns: Sequence[str]) -> Grid:
    """A row for each collective; of the columns those that are asked for, and what a token touches."""
    shown = [head for head in _COLUMNS if head in columns or head.endswith("/token")]
    both = [(run.name, one) for run in runs for one in run.collectives]
    rows = tuple((one.name, *(_COLUMNS[head](one) for head in shown)) for _, one in both)
    grid = Grid("Exchanges of one layer and microbatch", ("exchange", *shown), rows)
    return grid.named([name for name, _ in both]) if len(runs) > 1 else grid
