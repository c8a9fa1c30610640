"""The grids of a run: those of its kind of workload, metrics without a grid of their own, and published values.

Why this way: the terminal and the report must never state different numbers, so both print the same grids.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.grid import Cell, Grid, share_cell
from sim.show.kinds import module
from sim.show.views.names import J_IN_KWH, energy_unit, value
from sim.show.views.run import RunsView, RunView

ENERGY = {
    "tensor": "tensor cores",
    "memory": "memory",
    "communication": "communication",
    "idle": "idle",
    "network": "network",
    "host": "hosts",
}
"""Parts of an energy as a reader calls them; the first four are those of GPUs."""
_WEAKEST_FIRST = ("override", "assumed", "derived")


def grids(runs: RunsView, *, wide: bool = True) -> list[Grid]:
    """The grids of a run: times next to bounds, what its kind of workload has, published values.

    Names of resources are left out of a comparison that is not `wide`.
    """
    made = [grid for family in runs.families for grid in module("tables", family).grids(runs, wide=wide)]
    return [grid.without_empty() for grid in (*made, expectations(runs.runs)) if grid.rows]


def energy(runs: Sequence[RunView]) -> Grid:
    """Energy of what was simulated, by where it goes, with its range."""
    rows = []
    for run in runs:
        used = {key.partition(".")[2]: kwh for key, kwh in run.metrics.items() if key.startswith("energy.")}
        if used.get("total_kwh"):
            whole = used["total_kwh"]
            parts = [share_cell(used.get(f"{part}_kwh", 0.0) / whole or None) for part in ENERGY]
            scale, unit = energy_unit(whole * J_IN_KWH)
            total, low, high = (used[f"{which}_kwh"] * J_IN_KWH / scale for which in ("total", "low", "high"))
            token = used.get("per_token_j")
            watts = f"{used['gpu_w']:,.0f} W" if used.get("gpu_w") else "-"
            rows.append(
                (
                    run.name,
                    f"{total:.4g} {unit}",
                    f"{low:.3g} - {high:.3g}",
                    "-" if token is None else _joules(token),
                    watts,
                    *parts,
                )
            )
    heads = ("run", "energy", "range", "a token", "a GPU", *ENERGY.values())
    note = "shares of the energy, the building's part aside; range: all that is assumed of powers at its low and at its high ends"
    grid = Grid("Energy of what was simulated", heads, tuple(rows), note=note)
    return grid if len(runs) > 1 else grid.without(0)


def _joules(energy_j: float) -> str:
    scale, unit = energy_unit(energy_j)
    return f"{energy_j / scale:.3g} {unit}"


def expectations(runs: Sequence[RunView]) -> Grid:
    """Published values next to ours."""
    expected = [(run.name, row) for run in runs for row in run.expected]
    rows = tuple(
        (
            row.metric,
            value(row.metric, row.published),
            value(row.metric, row.simulated),
            f"{row.error_fraction:+.1%}",
            f"±{row.tolerance_fraction:.1%}",
            "ok" if row.ok else "missed",
            row.source or "-",
        )
        for _, row in expected
    )
    grid = Grid(
        title="Published values beside ours",
        heads=("metric", "published", "simulated", "error", "tolerance", "", "source"),
        rows=rows,
        words=frozenset({0, 5, 6}),
        bad=frozenset(i for i, (_, row) in enumerate(expected) if not row.ok),
    )
    return grid.named([name for name, _ in expected]) if len(runs) > 1 else grid


def leaned_on(runs: Sequence[RunView]) -> Grid:
    """Assumed, derived and overridden parameters, each once, the weakest grade first."""
    seen: dict[tuple[str, str, str, str], set[str]] = {}
    for run in runs:
        for parameter in run.provenance.leaned_on:
            why = " · ".join(filter(None, (parameter.detail, parameter.source)))
            seen.setdefault((parameter.grade, parameter.key, parameter.value, why), set()).add(run.hardware)
    hardware = {run.hardware for run in runs}
    everywhere = "both" if len(hardware) == 2 else "all"
    rows: list[tuple[Cell, ...]] = [
        (grade, key, value, everywhere if names == hardware else ", ".join(sorted(names)), why)
        for (grade, key, value, why), names in seen.items()
    ]
    order = {grade: i for i, grade in enumerate(_WEAKEST_FIRST)}
    rows.sort(key=lambda row: (order.get(row[0], len(order)), row[1]))
    heads, words = ("grade", "figure", "value", "hardware", "why and source"), frozenset({0, 1, 3, 4})
    grid = Grid("Assumptions leaned on", heads, tuple(rows), words=words)
    return grid if len(hardware) > 1 else grid.without(3)
