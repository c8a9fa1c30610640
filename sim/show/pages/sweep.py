"""The report of a sweep: the answer, the points in pictures, the best of them, and what each choice costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim.documents import dumps
from sim.show.grid import Grid
from sim.show.pages import page, parts
from sim.show.pages.page import Drawing
from sim.show.pages.parts import Head, Pairs, Rerun
from sim.show.plots import kinds as plots
from sim.show.tables import sweep as tables
from sim.show.views import sweep as sweeps
from sim.show.words import sweep as words

_RANKED = 40  # points in the page; the CSV has all
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
    """What `sweep.html.j2` shows."""

    head: Head
    overview: tuple[Drawing, ...]
    """The map, and the Pareto front where there is anything to weigh."""
    tables: tuple[Grid, ...]
    parallel: tuple[Drawing, ...]
    rerun: Rerun
    terms: Pairs = _TERMS


def sweep_html(document: Mapping[str, Any]) -> str:
    """Write the report of a sweep's document."""
    counts = document["counts"]
    facts = (
        ("points", f"{counts['points']:,}"),
        *((key, f"{counts[key]:,}") for key in ("ok", "infeasible", "pruned", "failed") if counts[key]),
        ("axes", ", ".join(sweeps.axis_label(axis) for axis in sweeps.varied(document))),
        ("objectives", ", ".join(f"{way} {sweeps.label(name)}" for name, way in document["objectives"].items())),
    )  # fmt: skip
    shown = SweepPage(
        head=Head(
            kicker="Sweep",
            title=str(document.get("title") or document["name"]),
            facts=facts,
            answer=words.finding(document),
            footer=(f"moesim {document['version']}", str(document["schema"])),
        ),
        overview=_figures(document, *(("map", "pareto") if _trades(document) else ("map",))),
        tables=tuple(tables.grids(document, most=_RANKED)),
        parallel=_figures(document, "parallel"),
        rerun=Rerun("sweep", dumps(dict(document["sweep"])), runs_text(document["runs"])),
    )
    return page.render("sweep", shown)


def runs_text(runs: Mapping[str, Any]) -> str:
    """Say how much was computed this time, and what for."""
    text = f"This time {runs['computed']:,} runs were computed, {runs['remembered']:,} remembered"
    extra = f"; {runs['of_changes']:,} of them are points that lack memory, run with what they lack"
    return f"{text}{extra if runs['of_changes'] else ''}."


def _trades(document: Mapping[str, Any]) -> bool:
    """Whether there is anything to weigh: a second objective, or memory."""
    first = next(iter(sweeps.ranked(document)), None)
    memory = first is not None and sweeps.metric(first, "memory_peak_bytes") is not None
    return len(document["objectives"]) > 1 or memory


def _figures(document: Mapping[str, Any], *kinds: str) -> tuple[Drawing, ...]:
    drawn = plots.drawable(document, kinds)
    return tuple(parts.figure(kind, picture) for kind, picture in drawn.items())
