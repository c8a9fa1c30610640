"""The report of a run, with or without variants.

Figures of single variants stand in folds; twins (runs that differ in hardware alone) stand beside each other there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sim.show.canvas import Picture
from sim.show.failures import Failure
from sim.show.grid import Grid
from sim.show.pages import page, parts
from sim.show.pages.page import Figure
from sim.show.pages.parts import Head, Leaning, Pairs, Rerun, Rules
from sim.show.plots import kinds as plots
from sim.show.plots import timeline as plot_timeline
from sim.show.tables import run as tables
from sim.show.views.inference import PassView
from sim.show.views.rerun import scenario_yaml
from sim.show.views.run import RunsView, RunView, views_of
from sim.show.views.transfers import TransfersView
from sim.show.words import run as words
from sim.show.words import transfers as transfer_words

_LINES = (("utilisation",), ("links",), ("fabric_map",), ("timeline",), ("rank_times", "traffic_matrix"))
"""Kinds of figures in depth, those that share a line together."""
_COURSES = (
    ("timeline",), ("queues",), ("layer_pair",), ("roofline",), ("memory",), ("utilisation",), ("links",), ("fabric_map",),
    ("traffic_matrix",),
)  # fmt: skip
"""The same where a timeline is what a reader wants first."""
_SEEN = 0.01  # load of a link below which a picture of it is empty
_BATCHES = 2  # requests a GPU that differ more often are a curve
_MAX_BARS = 10_000  # of all timelines in one page; the others are rasters


@dataclass(frozen=True, slots=True)
class Course:
    """Course in time, load by link, by rank and between ranks, of one run or of twins."""

    names: str
    aside: str
    """The binding resources, or the times of runs without links."""
    lines: tuple[tuple[Figure, ...], ...]
    """Figures that share a line."""


@dataclass(frozen=True, slots=True)
class RunPage:
    """Record that `run.html.j2` shows."""

    head: Head
    results: tuple[Figure, ...]
    """Figures of all runs together, but for the one that the head has."""
    tables: tuple[Grid, ...]
    has_course: bool
    is_single: bool
    rank_loads: tuple[Figure, ...]
    courses: tuple[Course, ...]
    leaning: Leaning | None
    rules: Rules | None
    rerun: Rerun
    terms: Pairs


def run_html(document: Mapping[str, Any]) -> str:
    """Write the report of a document of `moesim run`."""
    runs = views_of(document)
    first, several = runs.runs[0], len(runs.runs) > 1
    drawn = _results(runs)
    head = _head(runs)
    courses = _courses(runs)
    if not drawn and courses:  # what runs side by side has its course alone
        course, ((lead, *line), *lines) = courses[0], courses[0].lines
        drawn = (lead,)
        courses = (replace(course, lines=tuple(filter(None, (tuple(line), *lines)))), *courses[1:])
    shown = RunPage(
        head=replace(head, lead=parts.unlike(head.answer, drawn[0] if drawn else None)),
        results=drawn[1:],
        tables=(*tables.grids(runs), *parts.filled(tables.energy(runs.runs).without_empty())),
        has_course=any(run.links or run.lanes for run in runs.runs),
        is_single=not several,
        rank_loads=_figures(("rank_loads",), runs) if several or first.rank_loads else (),
        courses=courses,
        leaning=parts.leaning(runs.runs),
        rules=parts.export_rules(runs.runs),
        rerun=Rerun("run", scenario_yaml(runs), "The resolved scenario, every default written out."),
        terms=words.terms(runs),
    )
    return page.render("run", shown)


def _results(runs: RunsView) -> tuple[Figure, ...]:
    """Draw the figures of all runs together, the one that answers first."""
    several, first = len(runs.runs) > 1, runs.runs[0]
    batches = {run.requests_per_gpu for run in runs.select(PassView)}
    trades = ("interactivity",) if several and len(batches) > _BATCHES else ()
    kinds = dict.fromkeys(
        (
            *trades,
            "whole_run",
            "phases",
            "tail",
            "latencies",
            *(() if plots.is_alone("memory", first) else ("memory",)),
            *(("interactivity",) if several else ()),
            "energy",
        )
    )
    times = transfer_words.bounds(runs) if runs.select(TransfersView) else None
    return (*_figures(("bars",), runs, times), *_figures(tuple(kinds), runs))


def _head(runs: RunsView) -> Head:
    version = next((run.provenance.version for run in runs.runs), None)
    seed = runs.runs[0].provenance.seed
    footer = (
        f"moesim {version}" if version else "moesim",
        "" if seed is None else f"seed {seed}",
        runs.schema,
    )
    return Head(
        kicker=(runs.ask and runs.title) or f"Simulated {(runs.runs[0].kind or 'run').replace('_', '-')}",
        title=runs.ask or runs.title or "Result",
        facts=_shared_facts(runs),
        answer=tuple(filter(None, (*words.finding(runs), words.expectations(runs), words.validated(runs)))),
        footer=tuple(filter(None, footer)),
    )


def _shared_facts(runs: RunsView) -> Pairs:
    """Collect each fact with its values over all variants."""
    values: dict[str, list[str]] = {}
    for run in runs.runs:
        for key, value in run.facts:
            values.setdefault(key, []).append(value)
    return tuple((key, ", ".join(dict.fromkeys(texts))) for key, texts in values.items())


def _figures(kinds: Sequence[str], runs: RunsView, title: str | None = None) -> tuple[Figure, ...]:
    return tuple(
        parts.figure(name, picture, title) for name, picture in plots.drawn_from(runs, kinds).items()
    )


# --- figures in depth ------------------------------------------------------------------------------------------------


def _courses(runs: RunsView) -> tuple[Course, ...]:
    """One for each set of twins; all bars of timelines together stay below what a page bears."""
    references = {twin.other: twin.reference for twin in runs.twins}
    sets: dict[RunView, list[RunView]] = {}
    for run in runs.runs:
        sets.setdefault(references.get(run, run), []).append(run)
    made = []
    left = _MAX_BARS
    for members in sets.values():
        left -= sum(plot_timeline.num_bars(run) for run in members)
        kinds = _LINES if members[0].family == RunView.family else _COURSES
        lines = tuple(line for shared in kinds for line in _lines(runs, members, shared, bars=left >= 0))
        if lines:
            made.append(Course(" and ".join(run.name for run in members), words.aside(members), lines))
    return tuple(made)


def _lines(
    runs: RunsView, members: Sequence[RunView], kinds: Sequence[str], *, bars: bool
) -> list[tuple[Figure, ...]]:
    """Figures of some kinds that share a line; of twins, kind after kind."""
    drawn = [
        tuple(
            parts.figure("-".join(filter(None, (kind, _ident(run.variant)))), picture)
            for kind in line
            for run in members
            for picture in _pictures(runs.alone(run), kind, bars=bars)
        )
        for line in ([(kind,) for kind in kinds] if len(members) > 1 else [kinds])
    ]
    return [line for line in drawn if line]


def _pictures(alone: RunsView, kind: str, *, bars: bool) -> list[Picture | Failure | Callable[[], Picture]]:
    """Draw a kind, if the run has its data and no figure above has shown it; without `bars`, a timeline as a raster."""
    run = alone.runs[0]
    if not plots.is_alone(kind, run) or (kind in ("links", "fabric_map") and _is_idle(run)):
        return []
    if kind == "timeline" and not bars:
        return [partial(plot_timeline.timeline, alone, max_bars=0)] if plot_timeline.num_bars(run) else []
    return list(plots.drawn_from(alone, (kind,)).values())


def _is_idle(run: RunView) -> bool:
    """Check that no link carries enough to be seen."""
    return all(link.load_fraction < _SEEN for link in run.links)


def _ident(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)
