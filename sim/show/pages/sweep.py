"""The report of a sweep: the answer, the points in pictures, the best of them, and what each choice costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim.documents import dumps
from sim.show.grid import Grid
from sim.show.pages import page, parts
from sim.show.pages.page import Figure
from sim.show.pages.parts import Head, Pairs, Rerun
from sim.show.plots import kinds as plots
from sim.show.tables import sweep as tables
from sim.show.views.sweep import Runs, SweepView, sweep_view
from sim.show.words import sweep as words

_RANKED = 40  # points in the page; the CSV has all
_SETTLED = ("ok", "infeasible", "pruned", "failed")
_TERMS = (
    ("best", "of the points that ran and meet every constraint, by the first objective; of each value of a given axis"),
    ("to the best", "the first objective over that of the best point: +10 % of a time is slower, of a rate faster"),
    ("all others at their best", "of the points with this value, the best one; so a value is not blamed for its company"),
    ("Pareto front", "points that no other beats: at least as good on every objective, better on one"),
    ("cannot be", "no such layout, too little memory, too few microbatches, or a constraint that is not met"),
    ("skipped by its bound", "not run: its lower bound is already worse than a point that ran, on every objective"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SweepPage:
    """Record that `sweep.html.j2` shows."""

    head: Head
    overview: tuple[Figure, ...]
    """The map, and the Pareto front where there is anything to weigh."""
    tables: tuple[Grid, ...]
    parallel: tuple[Figure, ...]
    rerun: Rerun
    terms: Pairs = _TERMS


def sweep_html(document: Mapping[str, Any]) -> str:
    """Write the report of a sweep's document."""
    view = sweep_view(document)
    counts = view.counts
    lead, *overview = (*_figures(view, *(("map", "pareto") if _trades(view) else ("map",))), None)
    goals = (f"{'minimise' if goal.minimise else 'maximise'} {goal.label}" for goal in view.objectives)
    shown = SweepPage(
        head=Head(
            kicker=view.title if view.ask else "Sweep",
            title=view.ask or view.title,
            facts=(
                ("points", f"{counts['points']:,}"),
                *((key, f"{counts[key]:,}") for key in _SETTLED if counts[key]),
                ("axes", ", ".join(axis.label for axis in view.varied)),
                ("objectives", ", ".join(goals)),
            ),
            answer=words.finding(view),
            lead=lead,
            footer=(f"moesim {view.version}", view.schema),
        ),
        overview=tuple(filter(None, overview)),
        tables=tuple(tables.grids(view, most=_RANKED)),
        parallel=_figures(view, "parallel"),
        rerun=Rerun("sweep", dumps(dict(view.spec)), runs_text(view.runs)),
    )
    return page.render("sweep", shown)


def runs_text(runs: Runs) -> str:
    """Say how much was computed this time, and what for."""
    text = f"This time {runs.computed:,} runs were computed, {runs.remembered:,} remembered"
    extra = f"; {runs.of_changes:,} of them are points that lack memory, run with what they lack"
    return f"{text}{extra if runs.of_changes else ''}."


def _trades(view: SweepView) -> bool:
    """Tell whether there is anything to weigh: a second objective, or memory."""
    memory = bool(view.ranked) and view.ranked[0].metric("memory_peak_bytes") is not None
    return len(view.objectives) > 1 or memory


def _figures(view: SweepView, *kinds: str) -> tuple[Figure, ...]:
    return tuple(parts.figure(kind, picture) for kind, picture in plots.drawn_from(view, kinds).items())
