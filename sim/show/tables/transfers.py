"""Grids of collectives or flows: times next to bounds, bytes and bandwidths; of what is neither, all metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from sim.metrics import dimension_of
from sim.show.grid import Grid, ratio_cell, time_cell, value_cell
from sim.show.views.names import hardware_name, label, value
from sim.show.views.run import RunsView
from sim.show.views.transfers import Transfer, TransfersView

_COUNTS = {
    "wire_nic_bytes": "NIC wire",
    "wire_nvlink_bytes": "NVLink wire",
    "logical_rdma_bytes_per_s": "logical RDMA",
    "logical_nvlink_bytes_per_s": "logical NVLink",
    "logical_selection_bytes_per_s": "logical",
    "algbw_bytes_per_s": "algbw",
    "busbw_bytes_per_s": "busbw",
    "nodes_per_token": "nodes/token",
    "ranks_per_token": "ranks/token",
}
"""Metric of a transfer -> head of its column."""


class _Row(NamedTuple):
    run: TransfersView
    transfer: Transfer


def grids(runs: RunsView, *, wide: bool) -> list[Grid]:
    """All grids of the transfers among the runs."""
    return [times(runs, wide=wide), bandwidths(runs), metrics(runs)]


def times(runs: RunsView, *, wide: bool = True) -> Grid:
    """Time, completion, bound and what binds, a row for each run and direction."""
    views = runs.select(TransfersView)
    many = len(views) > 1
    references, head = _references(runs, views)
    rows = _rows(views)
    cells = []
    for run, transfer in rows:
        reference = references.get(run)
        before = reference.transfers.get(transfer.name) if reference else None
        itself = "1" if run in references.values() else "-"
        cells.append(
            (
                transfer.name,
                time_cell(transfer.mean_time_s),
                time_cell(transfer.completion_time_s),
                time_cell(transfer.lower_bound_s),
                ratio_cell(transfer.over_bound),
                label(transfer.binding),
                str(transfer.binding_resource or "-") if wide or not many else "-",
                ratio_cell(transfer.time_s / before.time_s) if before and before.time_s else itself,
            )
        )
    grid = Grid(
        title="Times beside their lower bounds",
        heads=("direction", "time", "last rank", "bound", "/ bound", "binds", "fullest on its path", head),
        rows=tuple(cells),
        words=frozenset({0, 5, 6}),
        note="time: mean over ranks; / bound: the last rank's completion over its lower bound",
    )
    return _grouped(grid, runs, rows)


def bandwidths(runs: RunsView) -> Grid:
    """Bytes that cross cables, bandwidths as benchmarks print them, and what a token touches."""
    rows = _rows(runs.select(TransfersView), but="flows")
    grid = Grid(
        title="Bytes a rank sends, and bandwidths as benchmarks count them",
        heads=("direction", *_COUNTS.values()),
        rows=tuple(
            (
                transfer.name,
                *(
                    "-" if name in run.uncounted else value_cell(dimension_of(name), getattr(transfer, name))
                    for name in _COUNTS
                ),
            )
            for run, transfer in rows
        ),
        note="wire: what crosses a cable; logical: DeepEP's count, local copies included",
    )
    return _grouped(grid, runs, rows)


def metrics(runs: RunsView) -> Grid:
    """Every number of the metrics of runs that have no grid of their own: a column each."""
    plain = [run for run in runs.select(TransfersView) if not run.transfers]
    names = dict.fromkeys(name for run in plain for name in run.metrics)
    return Grid(
        title="Metrics",
        heads=("metric", *(run.name for run in plain)),
        rows=tuple(
            (name, *(value(name, run.metrics[name]) if name in run.metrics else "-" for run in plain))
            for name in names
        ),
    )


def _rows(runs: Iterable[TransfersView], but: str = "") -> list[_Row]:
    return [
        _Row(run, transfer) for run in runs for transfer in run.transfers.values() if transfer.name != but
    ]


def _references(
    runs: RunsView, views: Sequence[TransfersView]
) -> tuple[dict[TransfersView, TransfersView], str]:
    """The run that each is compared with, its twin or else the first, and the head of that column."""
    twins = {other: reference for reference, other in runs.twins_of(TransfersView)}
    if twins:
        names = {reference.hardware for reference in twins.values()}
        return twins, f"/ {hardware_name(names.pop())}" if len(names) == 1 else "/ twin"
    return dict.fromkeys(views[1:], views[0]), f"/ {views[0].name}" if len(views) > 1 else ""


def _grouped(grid: Grid, runs: RunsView, rows: Sequence[_Row]) -> Grid:
    """The grid with names of variants and, where a variant has several rows or a twin, lines between the groups."""
    if len(runs.runs) == 1:
        return grid
    others = {twin.other for twin in runs.twins}
    firsts = [
        i for i, (run, _) in enumerate(rows) if run not in others and (i == 0 or rows[i - 1].run is not run)
    ]
    breaks = frozenset(firsts[1:]) if len(rows) > len(firsts) else frozenset()
    return replace(grid.named([run.name for run, _ in rows]), breaks=breaks)
