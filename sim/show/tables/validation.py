"""Tables of a validation: groups, and the rows of each."""

from __future__ import annotations

from typing import Any

from sim.show.grid import Cell, Grid
from sim.show.views.validation import ComparedRow, Group, ValidationView
from sim.units import show


def group_grid(group: Group) -> Grid:
    """Return the rows of one group of a validation, and its sources, or how many rows a shortened group left out."""
    notes = _notes(group)
    if len(group.rows) < group.num_rows:
        shown = f"the worst {len(group.rows)} of {group.num_rows} rows"
        notes.append(f"{shown}; all: moesim validate --group {group.name}")
    return Grid(
        title=f"{group.name}: {group.title}" if group.title else group.name,
        heads=("row", "quantity", "published", "simulated", "error", "tolerance", "use", ""),
        rows=tuple(map(_cells, group.rows)),
        words=frozenset({0, 1, 6, 7}),
        bad=frozenset(i for i, row in enumerate(group.rows) if not row.ok),
        note="\n".join((*notes, *group.sources)),
    )


def _notes(group: Group) -> list[str]:
    """A line for each note, with the rows that it is of."""
    ids: dict[str, list[str]] = {}
    for row in group.rows:
        if row.note:
            ids.setdefault(row.note, []).append(row.id)
    most = 2
    return [
        f"{', '.join(of[:most])}{f' and {len(of) - most} more' if len(of) > most else ''}: {note}"
        for note, of in ids.items()
    ]


def _cells(row: ComparedRow) -> tuple[Cell, ...]:
    verdict = "ok" if row.counts and row.tolerance_fraction is not None else ""
    return (
        row.id,
        row.quantity,
        quantity_cell(row.published, row.unit),
        quantity_cell(row.simulated, row.unit),
        f"{row.error_fraction:+.2%}",
        _bound(row.tolerance_fraction, "±"),
        row.use,
        verdict if row.ok else "missed",
    )


def _bound(fraction: float | None, sign: str = "") -> Cell:
    if fraction is None:
        return "-"
    return f"{sign}{fraction:.1%}" if fraction else "exact"


_DEPENDENT = ("implied", "identity", "own count")


def summary_grid(view: ValidationView) -> Grid:
    """Return the summary of a validation, a row for each bar of each group."""
    bars = [(group, bar) for group in view.groups for bar in group.bars]
    rows: list[tuple[Cell, ...]] = []
    for group, bar in bars:
        purposes = [row.purpose for row in group.rows if row.counts and bar.name in (None, row.bar)]
        rows.append(
            (
                group.name if bar.name in (None, "main") else f"{group.name}, {bar.name}",
                *(str(purposes.count(purpose)) for purpose in ("calibrated on", "predicted", "exact")),
                str(sum(purpose in _DEPENDENT for purpose in purposes)),
                f"{bar.mean_abs_error_fraction:.2%}" if purposes else "-",
                _bound(bar.mean_bar_fraction if purposes else None),
                f"{bar.worst_error_fraction:.2%}" if purposes else "-",
                _bound(bar.worst_bar_fraction if purposes else None),
                ("ok" if purposes else "printed only") if bar.ok else "missed",
            )
        )
    return Grid(
        title="Groups, and how good each must be",
        heads=(
            "group",
            "calibrated on",
            "predicted",
            "exact",
            "not its own",
            "mean error",
            "bar",
            "worst",
            "bar",
            "",
        ),
        rows=tuple(rows),
        words=frozenset({0, 9}),
        bad=frozenset(i for i, (_, bar) in enumerate(bars) if not bar.ok),
    )


def machine_grid(view: ValidationView) -> Grid:
    """Return how far figures are off on each machine, those with most of them first; by group in the last column."""
    ranked = sorted(view.machines, key=lambda machine: (-machine.rows, -machine.printed))
    return Grid(
        title="Machines",
        heads=("machine", "figures", "predicted", "mean error", "of predictions", "worst", "row", "by group"),
        rows=tuple(
            (
                machine.name,
                str(machine.rows),
                str(machine.predicted),
                _error(machine.mean_abs_error_fraction),
                _error(machine.predicted_mean_abs_error_fraction),
                _error(machine.worst_error_fraction),
                machine.worst_row
                or (f"{machine.printed} printed only" if machine.printed else "never compared"),
                ", ".join(f"{group} {error:.1%}" for group, error in machine.groups.items()),
            )
            for machine in ranked
        ),
        words=frozenset({0, 6, 7}),
        note="rows that are independent and no verdicts or counts; a mean over many kernels says little of a step: see by group",
    )


def _error(fraction: float | None) -> Cell:
    return "-" if fraction is None else f"{fraction:.2%}"


def quantity_cell(value: Any, unit: str) -> Cell:
    """Return a value of a validation row with its unit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return "-" if value is None else str(value)
    if unit == "FLOP":
        return f"{show(float(value), 'count')}FLOP"
    if unit in ("s", "bytes", "bytes/s", "flop/s", "count", "fraction"):
        return show(float(value), unit)
    number = show(float(value), "count") if abs(value) >= 1e6 else f"{value:.6g}"
    return number if unit == "number" else f"{number} {unit}".rstrip()
