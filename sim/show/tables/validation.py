"""Tables of a validation: groups, and the rows of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.show.grid import Cell, Grid
from sim.show.views.run import counts
from sim.show.views.validation import use_of
from sim.units import show


def of_group(name: str, group: Mapping[str, Any], of_rows: int | None = None) -> Grid:
    """The rows of one group of a validation, and where its figures stand; `of_rows` is how many it has, if not all are here."""
    notes = [f"{row['id']}: {row['note']}" for row in group["rows"] if row.get("note")]
    sources = [f"{key}: {_source(one)}" for key, one in group.get("sources", {}).items()]
    title = group.get("title")
    left = (of_rows or 0) - len(group["rows"])
    if left > 0:
        sources.append(
            f"the worst {len(group['rows'])} of {of_rows} rows; all: moesim validate --group {name}"
        )
    return Grid(
        title=f"{name}: {title}" if title else name,
        heads=("row", "quantity", "published", "simulated", "error", "tolerance", "use", ""),
        rows=tuple(
            (
                str(row["id"]),
                str(row["quantity"]),
                measured(row["published"], row["unit"]),
                measured(row["simulated"], row["unit"]),
                f"{row['error_fraction']:+.2%}",
                _tolerance(row["tolerance_fraction"]),
                "predicted" if use_of(row) == "missed" else use_of(row),
                "missed"
                if not row["ok"]
                else "ok"
                if counts(row) and row["tolerance_fraction"] is not None
                else "",
            )
            for row in group["rows"]
        ),
        words=frozenset({0, 1, 6, 7}),
        bad=frozenset(i for i, row in enumerate(group["rows"]) if not row["ok"]),
        note="\n".join(notes + sources),
    )


def _source(one: Mapping[str, Any]) -> str:
    return ", ".join(str(one[key]) for key in ("title", "where") if one.get(key))


def _tolerance(fraction: float | None) -> str:
    if fraction is None:
        return "-"
    return f"±{fraction:.1%}" if fraction else "exact"


def of_groups(groups: Mapping[str, Mapping[str, Any]]) -> Grid:
    """The summary of a validation, a row for each bar of each group."""
    rows: list[tuple[Cell, ...]] = []
    bad = []
    for name, group in groups.items():
        for bar in group.get("bars") or [{**group, "name": None}]:
            mine = [
                row
                for row in group["rows"]
                if counts(row) and (bar["name"] is None or row.get("bar") == bar["name"])
            ]
            fitted = sum(row.get("use") == "calibration" for row in mine)
            exact = sum(row["tolerance_fraction"] == 0 for row in mine if row.get("use") != "calibration")
            if not bar["ok"]:
                bad.append(len(rows))
            rows.append(
                (
                    name if bar["name"] in (None, "main") else f"{name}, {bar['name']}",
                    str(fitted),
                    str(len(mine) - fitted - exact),
                    str(exact),
                    f"{bar['mean_abs_error_fraction']:.2%}",
                    _bar(bar.get("mean_bar_fraction")),
                    f"{bar['worst_error_fraction']:.2%}",
                    _bar(bar.get("worst_bar_fraction")),
                    "ok" if bar["ok"] else "missed",
                )
            )
    return Grid(
        title="Groups, and how good each must be",
        heads=("group", "calibrated on", "predicted", "exact", "mean error", "bar", "worst", "bar", ""),
        rows=tuple(rows),
        words=frozenset({0, 8}),
        bad=frozenset(bad),
    )


def _bar(fraction: float | None) -> str:
    if fraction is None:
        return "-"
    return f"{fraction:.1%}" if fraction else "exact"


def measured(value: Any, unit: str) -> str:
    """A value of a validation row with its unit."""
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
