"""The report of a sweep: one self-contained page with the answer, the best points, what each choice costs, and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.documents import dumps
from sim.show.pages import parts
from sim.show.plots import kinds as plots
from sim.show.tables import sweep as sweep_grids
from sim.show.views.sweep import Runs, SweepView, sweep_view
from sim.show.words import sweep as sweep_words

_RANKED = 40  # points in the page; the CSV has all
_TERMS = (
    (
        "best",
        "of the points that ran and meet every constraint, by the first objective; of each value of a given axis",
    ),
    (
        "to the best",
        "the first objective over that of the best point: +10 % of a time is slower, of a rate faster",
    ),
    (
        "all others at their best",
        "of the points with this value, the best one; so a value is not blamed for its company",
    ),
    ("Pareto front", "points that no other beats: at least as good on every objective, better on one"),
    ("cannot be", "no such layout, too little memory, too few microbatches, or a constraint that is not met"),
    (
        "skipped by its bound",
        "not run: its lower bound is already worse than a point that ran, on every objective",
    ),
)


def sweep_html(document: Mapping[str, Any]) -> str:
    """The report of a sweep's document as one HTML page."""
    view = sweep_view(document)
    counts = view.counts
    facts = [
        ("points", f"{counts['points']:,}"),
        *((key, f"{counts[key]:,}") for key in ("ok", "infeasible", "pruned", "failed") if counts[key]),
        ("axes", ", ".join(axis.label for axis in view.varied)),
        (
            "objectives",
            ", ".join(f"{'minimise' if one.minimise else 'maximise'} {one.label}" for one in view.objectives),
        ),
    ]
    inside = [
        "<h2>The points</h2>",
        *_figures(document, ("map", "pareto") if _trades(view) else ("map",)),
        *map(parts.grid_html, sweep_grids.grids(view, most=_RANKED)),
        *_figures(document, ("parallel",)),
        parts.again(
            "sweep",
            dumps(dict(view.spec)),
            runs_text(view.runs),
        ),
        parts.words(_TERMS),
    ]
    foot = (f"moesim {view.version}", view.schema)
    return parts.report("Sweep", view.title, facts, sweep_words.finding(view), inside, foot)


def runs_text(runs: Runs) -> str:
    """How much was computed this time, and what for."""
    said = f"This time {runs.computed:,} runs were computed, {runs.remembered:,} remembered"
    extra = f"; {runs.of_changes:,} of them are points that lack memory, run with what they lack"
    return f"{said}{extra if runs.of_changes else ''}."


def _trades(view: SweepView) -> bool:
    """Whether there is anything to weigh: a second objective, or memory."""
    memory = bool(view.ranked) and view.ranked[0].metric("memory_peak_bytes") is not None
    return len(view.objectives) > 1 or memory


def _figures(document: Mapping[str, Any], kinds: tuple[str, ...]) -> list[str]:
    return [parts.figure(kind, figure) for kind, figure in plots.drawable(document, kinds).items()]
