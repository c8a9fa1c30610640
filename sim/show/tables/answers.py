"""Explanations and differences as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.metrics import dimension_of, label
from sim.show.grid import Cell, Grid
from sim.show.views.labels import metric_cell, value_label
from sim.show.views.ladder_changes import percent

Document = Mapping[str, Any]
_MOST = 8  # causes, and metrics of a difference, that a terminal shows
_FIRST = ("step_time_s", "dispatch.time_s", "combine.time_s", "time_s", "tpot_s", "ttft_s", "makespan_s")
"""Metrics by which a setting of a difference is told."""


def explanation_grids(document: Document) -> list[Grid]:
    """Return the parts of the time, and the causes that fit what was measured best."""
    parts = tuple(
        (
            part["title"],
            metric_cell(document["metric"], part["value_s"]),
            f"{100 * part['share_fraction']:.1f} %",
        )
        for part in document["parts"]
    )
    grids = [Grid(f"Where the time goes: {label(document['metric'])}", ("part", "time", "share"), parts)]
    if document["causes"]:
        names = list(document["measured"])
        rows = tuple(
            (cause["title"], *(metric_cell(name, cause["values"][name]) for name in names), percent(cause["distance_fraction"]))
            for cause in document["causes"][:_MOST]
        )  # fmt: skip
        own = ("measured", *(metric_cell(name, document["measured"][name]) for name in names), "-")
        heads = ("what would give it", *(label(name) for name in names), "off by")
        note = "each simulated; off by: root mean square of the logarithms"
        grids.append(Grid("What was measured, and what would give it", heads, (own, *rows), note=note))
    return grids


def difference_grids(document: Document) -> list[Grid]:
    """Return the settings that differ with what each moves alone, and the metrics that differ."""
    first = next((name for name in _FIRST if name in document["metrics"]), None)
    first = first or next(iter(document["metrics"]), None)
    settings = tuple(
        (key, _text(entry["first"]), _text(entry["second"]), _alone(document, first, entry["gives"]))
        for key, entry in document["settings"].items()
    )
    moved = tuple(
        (
            name,
            metric_cell(name, entry["first"]),
            metric_cell(name, entry["second"]),
            percent(entry["change_fraction"]),
        )
        for name, entry in document["metrics"].items()
    )
    heads = ("setting", *document["names"], f"alone: {label(first)}" if first else "alone")
    grids = [
        Grid("Settings", heads, settings, words=frozenset({0, 1, 2})),
        Grid("Metrics", ("metric", *document["names"], "change"), moved),
    ]
    return [grid for grid in grids if grid.rows]


def _text(value: Any) -> Cell:
    return "-" if value is None else value_label(value)


def _alone(document: Document, name: str | None, gives: Mapping[str, float] | None) -> Cell:
    if name is None or gives is None or name not in gives:
        return "-"
    old = document["metrics"][name]["first"]
    change = f" ({percent(gives[name] / old - 1)})" if old else ""
    return f"{metric_cell(name, gives[name]).strip()}{change}" if dimension_of(name) else "-"
