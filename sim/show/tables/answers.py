"""Explanations, differences and sizes as tables."""

from __future__ import annotations

from sim.metrics import label
from sim.show.grid import Cell, Grid
from sim.show.views.answers import Difference, Explanation, Fitted, Moved, Setting, Sizes, Span
from sim.show.views.labels import metric_cell, value_label
from sim.show.views.ladder_changes import percent
from sim.units import show

_MOST = 8  # causes that a terminal shows
_FIRST = ("step_time_s", "dispatch.time_s", "combine.time_s", "time_s", "tpot_s", "ttft_s", "makespan_s")
"""Metrics by which a setting of a difference is told."""


def explanation_grids(view: Explanation) -> list[Grid]:
    """Return the parts of the time, and the causes that fit what was measured best."""
    parts = tuple(
        (part.title, metric_cell(view.metric, part.value_s), f"{100 * part.share_fraction:.1f} %")
        for part in view.parts
    )
    grids = [Grid(f"Where the time goes: {label(view.metric)}", ("part", "time", "share"), parts)]
    if view.causes:
        own = ("measured", *(metric_cell(name, value) for name, value in view.measured.items()), "-")
        rows = tuple(
            (
                cause.title,
                *(metric_cell(name, cause.values[name]) for name in view.measured),
                percent(cause.distance_fraction),
            )
            for cause in view.causes[:_MOST]
        )
        heads = ("what would give it", *map(label, view.measured), "off by")
        note = "each simulated; off by: root mean square of the logarithms"
        grids.append(Grid("What was measured, and what would give it", heads, (own, *rows), note=note))
    return grids


def difference_grids(view: Difference) -> list[Grid]:
    """Return the settings that differ with what each moves alone, and the metrics that differ."""
    moved = {metric.name: metric for metric in view.metrics}
    first = next((moved[name] for name in (*_FIRST, *moved) if name in moved), None)
    settings = tuple(
        (setting.key, _text(setting.first), _text(setting.second), _alone(first, setting))
        for setting in view.settings
    )
    metrics = tuple(
        (name, metric_cell(name, one.first), metric_cell(name, one.second), percent(one.change_fraction))
        for name, one in moved.items()
    )
    heads = ("setting", *view.names, f"alone: {label(first.name)}" if first else "alone")
    grids = [
        Grid("Settings", heads, settings, words=frozenset({0, 1, 2})),
        Grid("Metrics", ("metric", *view.names, "change"), metrics),
    ]
    return [grid for grid in grids if grid.rows]


def _text(value: object) -> Cell:
    return "-" if value is None else value_label(value)


def _alone(metric: Moved | None, setting: Setting) -> Cell:
    """Return what a setting alone makes of a metric, and the change."""
    if metric is None or setting.gives is None or metric.name not in setting.gives:
        return "-"
    value = setting.gives[metric.name]
    change = f" ({percent(value / metric.first - 1)})" if metric.first else ""
    return f"{metric_cell(metric.name, value).strip()}{change}"


def size_grid(view: Sizes) -> Grid:
    """Return a row for each machine: the fewest GPUs, how they stand, and what they reach."""
    heads = (
        "machine",
        "GPUs",
        "layout",
        "a token",
        "tokens/s/GPU",
        "memory",
        "users at most",
        "$ an hour",
        "$ a M tokens",
    )
    note = (
        "decode alone, with all users' requests in the cache; prompts are computed elsewhere. Memory: of the fullest GPU, "
        "reserve included; users at most: whom it leaves room for"
    )
    return Grid(
        "Fewest GPUs", heads, tuple(map(_size_row, view.machines)), words=frozenset({0, 2}), note=note
    )


def _size_row(fitted: Fitted) -> tuple[Cell, ...]:
    if fitted.gpus is None:
        return (fitted.title, "none", *["-"] * 7)
    layout = (
        ", ".join(f"{name.upper()} {size}" for name, size in fitted.layout.items() if size > 1) or "one GPU"
    )
    if fitted.overlap:
        layout += ", two microbatches"
    dollars = [
        "-" if fitted.usd_per_hour is None else f"{fitted.usd_per_hour:,.2f}",
        "-" if fitted.usd_per_million_tokens is None else f"{fitted.usd_per_million_tokens:,.3f}",
    ]
    return (
        fitted.title, f"{fitted.gpus:,}", layout, show(fitted.tpot_s or 0.0, "s", 3), f"{fitted.tokens_per_s_per_gpu:,.0f}",
        f"{100 * (fitted.memory_fraction or 0.0):.0f} %", f"{fitted.max_users:,}", *dollars,
    )  # fmt: skip


def span_grid(view: Span) -> Grid:
    """Return a row for each parameter with a stated range: its ends, and what the headline becomes at each."""

    def cell(value: float | None) -> Cell:
        if value is None:
            return "cannot be"
        change = f" ({percent(value / view.value - 1)})" if view.value else ""
        return f"{metric_cell(view.metric, value).strip()}{change}"

    rows = tuple(
        (row.key, row.low, row.high, cell(row.gives_low), cell(row.gives_high)) for row in view.parameters
    )
    title = (
        f"{view.name}: assumptions at their stated ends" if view.name else "Assumptions at their stated ends"
    )
    heads = ("parameter", "low", "high", f"{label(view.metric)} at low", "at high")
    return Grid(title, heads, rows)
