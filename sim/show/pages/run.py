"""The report of a run, with or without variants.

Figures of single variants stand in folds; twins (cases that differ in hardware alone) stand beside each other there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sim.show.canvas import Picture
from sim.show.grid import Grid
from sim.show.pages import page, parts
from sim.show.pages.page import Drawing
from sim.show.pages.parts import Head, Leaning, Pairs, Rerun, Rules
from sim.show.plots import kinds as plots
from sim.show.plots import timeline as plot_timeline
from sim.show.tables import run as tables
from sim.show.views import inference as inference_views
from sim.show.views import names as names_views
from sim.show.views import serving as serving_views
from sim.show.views import training as training_views
from sim.show.views.rerun import scenario_yaml
from sim.show.views.run import Case, Result, cases, twins
from sim.show.words import inference as inference_words
from sim.show.words import run as words
from sim.show.words import serving as serving_words
from sim.show.words import training as training_words
from sim.units import show

_LINES = (("utilisation",), ("links",), ("fabric_map",), ("timeline",), ("rank_times", "traffic_matrix"))
"""Kinds of figures in depth, those that share a line together."""
_COURSES = (
    ("timeline",), ("queues",), ("layer_pair",), ("roofline",), ("memory",), ("utilisation",), ("links",), ("fabric_map",),
    ("traffic_matrix",),
)  # fmt: skip
"""The same where a timeline is what a reader wants first."""
_MAX_BARS = 10_000  # of all timelines in one page; the others are rasters
_TERMS = (
    ("time", "mean over ranks of a rank's end less the common start; a rank ends when its own sends are out and its receives are in"),
    ("last rank", "completion: when the last rank ends"),
    ("bound", "bytes over datasheet rate on the busiest resource, without latency or efficiency; no run can beat it"),
    ("binds", "the class of resource that was full longest on the path of the last rank"),
    ("wire", "bytes that cross a cable; logical bandwidths count as the benchmark does that is compared with"),
    ("load", "of a link: the time that its bytes take at the rate that kernels reach, below the data sheet's, over the time of the run"),
    ("assumed, derived", "figures without a measurement of their own; each says what it stands on"),
)  # fmt: skip
_OWN_TERMS: tuple[tuple[Callable[[Case], bool], Pairs], ...] = (
    (training_views.is_training, training_words.TERMS),
    (inference_views.is_inference, inference_words.TERMS),
    (serving_views.is_serving, serving_words.TERMS),
)
"""Workloads with terms of their own."""


@dataclass(frozen=True, slots=True)
class Course:
    """Course in time, load by link, by rank and between ranks, of one case or of twins."""

    names: str
    aside: str
    """What binds, or the times of cases without links."""
    lines: tuple[tuple[Drawing, ...], ...]
    """Figures that share a line."""


@dataclass(frozen=True, slots=True)
class RunPage:
    """What `run.html.j2` shows."""

    head: Head
    results: tuple[Drawing, ...]
    tables: tuple[Grid, ...]
    has_course: bool
    is_single: bool
    rank_loads: tuple[Drawing, ...]
    courses: tuple[Course, ...]
    leaning: Leaning | None
    rules: Rules | None
    rerun: Rerun
    terms: Pairs


def run_html(result: Result) -> str:
    """Write the report of a document of `moesim run`."""
    found = cases(result)
    several = len(found) > 1
    shown = RunPage(
        head=_head(result, found),
        results=(
            *_figures("bars", result, words.of_bounds(result)),
            *_figures("phases", result),
            *_figures("latencies", result),
            *(_figures("memory", result) if inference_views.is_inference(found[0]) else ()),
            *(_figures("interactivity", result) if several else ()),
        ),
        tables=tuple(tables.of_result(result)),
        has_course=any(case.links or case.result.get("timeline") for case in found),
        is_single=not several,
        rank_loads=_figures("rank_loads", result) if several or found[0].result.get("rank_loads") else (),
        courses=_courses(found),
        leaning=parts.leaning(found),
        rules=parts.export_rules(found),
        rerun=Rerun("run", scenario_yaml(result), "The resolved scenario, every default written out."),
        terms=next((terms for is_kind, terms in _OWN_TERMS if all(map(is_kind, found))), _TERMS),
    )
    return page.render("run", shown)


def _head(result: Result, found: Sequence[Case]) -> Head:
    kind = str(found[0].workload.get("kind", "run")).replace("_", "-")
    version = next((c.result.get("provenance", {}).get("version") for c in found), None)
    seed = found[0].result.get("provenance", {}).get("seed")
    footer = (
        f"moesim {version}" if version else "moesim",
        "" if seed is None else f"seed {seed}",
        result.get("schema"),
    )
    return Head(
        kicker=f"Simulated {kind}",
        title=str(result.get("title") or result.get("name") or "Result"),
        facts=_shared_facts(found),
        answer=tuple(filter(None, (*words.finding(result), words.of_expectations(result)))),
        footer=tuple(str(text) for text in footer if text),
    )


def _shared_facts(found: Sequence[Case]) -> Pairs:
    """What was asked: each fact with its values over all variants."""
    values: dict[str, list[str]] = {}
    for case in found:
        for key, value in case.facts:
            values.setdefault(key, []).append(value)
    return tuple((key, ", ".join(dict.fromkeys(texts))) for key, texts in values.items())


def _figures(kind: str, result: Result, title: str | None = None) -> tuple[Drawing, ...]:
    drawn = plots.drawable(result, (kind,))
    return tuple(parts.figure(name, picture, title) for name, picture in drawn.items())


# --- figures in depth ------------------------------------------------------------------------------------------------


def _courses(found: Sequence[Case]) -> tuple[Course, ...]:
    """One for each set of twins; all bars of timelines together stay below what a page bears."""
    references = {id(pair.other): pair.reference for pair in twins(found)}
    sets: dict[int, list[Case]] = {}
    for case in found:
        sets.setdefault(id(references.get(id(case), case)), []).append(case)
    made = []
    left = _MAX_BARS
    for members in sets.values():
        left -= sum(plot_timeline.num_bars(case) for case in members)
        kinds = _LINES if members[0].transfers else _COURSES
        lines = tuple(line for shared in kinds for line in _lines(members, shared, bars=left >= 0))
        if lines:
            names = " and ".join(case.name for case in members)
            made.append(Course(names, _aside(members), lines))
    return tuple(made)


def _lines(members: Sequence[Case], kinds: Sequence[str], *, bars: bool) -> list[tuple[Drawing, ...]]:
    """Figures of some kinds that share a line; of twins, kind after kind."""
    drawn = [
        tuple(
            parts.figure("-".join(filter(None, (kind, _ident(case.variant)))), picture)
            for kind in line
            for case in members
            for picture in _pictures(case, kind, bars=bars)
        )
        for line in ([(kind,) for kind in kinds] if len(members) > 1 else [kinds])
    ]
    return [line for line in drawn if line]


def _pictures(case: Case, kind: str, *, bars: bool) -> list[Picture]:
    """Draw a kind, if the case has its data and no figure above has shown it; without `bars`, a timeline as a raster."""
    if kind == "memory" and inference_views.is_inference(case):
        return []
    if kind == "timeline" and not bars:
        return [plot_timeline.timeline(_alone(case), max_bars=0)] if plot_timeline.num_bars(case) else []
    return list(plots.drawable(_alone(case), (kind,)).values())


def _aside(members: Sequence[Case]) -> str:
    """What binds in the cases of a fold: of all alike, or by name; times of those that have no links."""
    bound = {case.name: _bindings(case) for case in members if case.transfers}
    alike = len(set(bound.values())) == 1
    texts = [text if alike else f"{name}: {text}" for name, text in bound.items()]
    return "; ".join(dict.fromkeys(texts)) or training_words.aside(members) or _latency_words(members)


def _bindings(case: Case) -> str:
    by_transfer = {name: names_views.binds(m) for name, m in case.transfers.items()}
    kinds = set(by_transfer.values())
    return (
        kinds.pop() if len(kinds) == 1 else ", ".join(f"{name} {text}" for name, text in by_transfer.items())
    )


def _latency_words(members: Sequence[Case]) -> str:
    passes = [inference_views.latency_of(case) for case in members if inference_views.is_inference(case)]
    return ", ".join(f"{name} {show(time_s, 's', 3)}" for name, time_s in passes)


def _alone(case: Case) -> Result:
    return {"variants": {case.variant: case.result}} if case.variant else case.result


def _ident(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)
