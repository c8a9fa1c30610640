"""The search of a ladder as tables: the gap with nothing and with each choice held, and what holding it costs each machine."""

from __future__ import annotations

from sim.show.grid import Grid
from sim.show.views.ladder_changes import change_text
from sim.show.views.search import DesignSearch, Searched


def grids(search: DesignSearch) -> list[Grid]:
    """Return a table for each machine."""
    return [_held_grid(search, machine) for machine in search.machines]


def _held_grid(search: DesignSearch, machine: Searched) -> Grid:
    metric, ours, theirs = search.metric, machine.label, search.reference
    best = machine.best
    free = ("nothing", change_text(machine.gap_fraction), "-", "-")
    rows = [(*free, metric.cell(best.metric if best else None), best.words if best else "-")]
    for held in machine.held:
        costs = (change_text(held.costs_reference_fraction), change_text(held.costs_machine_fraction))
        own = held.best
        figures = (metric.cell(own.metric if own else None), own.words if own else "-")
        rows.append((held.name, change_text(held.gap_fraction), *costs, *figures))
    heads = ("held", "gap", f"costs {theirs}", f"costs {ours}", f"{ours} then", f"best design of {ours}")
    note = (
        f"gap: {metric.gap_note(ours, theirs)}, each with the best of {search.num_designs} designs; costs: what "
        f"holding it takes more than the machine's own best; {metric.label} of {theirs} at its best: "
        f"{metric.text(search.best.metric, 4)} with {search.best.words}"
    )
    title = f"What is lost when one choice is held and all others are free, {ours} against {theirs}"
    return Grid(title, heads, tuple(rows), words=frozenset({0, 5}), note=note)
