"""The report: one self-contained page that says what was asked, what came out, why, and how to run it again.

It reads the same from a phone, in the dark and on paper, and needs no network. Figures of single variants stand in folds;
twins (cases that differ in hardware alone) stand beside each other there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sim.show.pages import ladder as ladder_page
from sim.show.pages import page, parts
from sim.show.pages import sweep as sweep_page
from sim.show.plots import kinds as plots
from sim.show.plots import timeline as plot_timeline
from sim.show.tables import run as grids
from sim.show.tables import validation as validation_tables
from sim.show.views import inference as inference_views
from sim.show.views import ladder as ladder_views
from sim.show.views import names as names_views
from sim.show.views import serving as serving_views
from sim.show.views import sweep as sweeps
from sim.show.views import training as training_views
from sim.show.views.rerun import scenario_yaml
from sim.show.views.run import Case, Result, cases, twins
from sim.show.views.validation import is_validation
from sim.show.words import inference as inference_words
from sim.show.words import run as findings
from sim.show.words import serving as serving_words
from sim.show.words import training as training_words
from sim.show.words import validation
from sim.units import show

_LINES = (("utilisation",), ("links",), ("fabric_map",), ("timeline",), ("rank_times", "traffic_matrix"))
"""Kinds of figures in depth, those that share a line together."""
_COURSES = (
    ("timeline",), ("queues",), ("layer_pair",), ("roofline",), ("memory",), ("utilisation",), ("links",), ("fabric_map",),
    ("traffic_matrix",),
)  # fmt: skip
"""The same where a timeline is what a reader wants first."""
_MAX_BARS = 10_000  # of all timelines in one page; the others are rasters
_Terms = tuple[tuple[str, str], ...]
_TOLD: tuple[tuple[Callable[[Case], bool], _Terms], ...] = (
    (training_views.is_training, training_words.TERMS),
    (inference_views.is_inference, inference_words.TERMS),
    (serving_views.is_serving, serving_words.TERMS),
)  # workloads with words of their own
_TERMS = (
    (
        "time",
        "mean over ranks of a rank's end less the common start; a rank ends when its own sends are out and its receives are in",
    ),
    ("last rank", "completion: when the last rank ends"),
    (
        "bound",
        "bytes over datasheet rate on the busiest resource, without latency or efficiency; no run can beat it",
    ),
    ("binds", "the class of resource that was full longest on the path of the last rank"),
    (
        "wire",
        "bytes that cross a cable; logical bandwidths count as the benchmark does that is compared with",
    ),
    (
        "load",
        "of a link: the time that its bytes take at the rate that kernels reach, below the data sheet's, over the time of the run",
    ),
    ("assumed, derived", "figures without a measurement of their own; each says what it stands on"),
)


def report_html(document: Result) -> str:
    """The report of a run (with or without variants), sweep, ladder or validation, as one HTML document."""
    if is_validation(document):
        return _validation(document)
    if sweeps.is_sweep(document):
        return sweep_page.sweep_html(document)
    if ladder_views.is_ladder(document):
        return ladder_page.ladder_html(document)
    return _run(document)


def _run(result: Result) -> str:
    found = cases(result)
    title = str(result.get("title") or result.get("name") or "Result")
    said = findings.finding(result)
    expected = findings.of_expectations(result)
    version = next((c.result.get("provenance", {}).get("version") for c in found), None)
    inside = [
        "<h2>Results</h2>",
        *_figures("bars", result, findings.of_bounds(result)),
        *_figures("phases", result),
        *_figures("latencies", result),
        *(_figures("memory", result) if inference_views.is_inference(found[0]) else ()),
        *_figures("interactivity", result if len(found) > 1 else {"variants": {}}),
        *map(parts.grid_html, grids.of_result(result)),
        "<h2>Where the time goes</h2>"
        if any(case.links or case.result.get("timeline") for case in found)
        else "",
        *(_figures("rank_loads", result) if len(found) > 1 or found[0].result.get("rank_loads") else ()),
        *_depth(found),
        parts.assumptions(found),
        parts.export_rules(found),
        parts.again("run", scenario_yaml(result), "The resolved scenario, every default written out."),
        parts.words(_terms(found)),
    ]
    kind = str(found[0].workload.get("kind", "run")).replace("_", "-")
    seed = found[0].result.get("provenance", {}).get("seed")
    foot = (
        f"moesim {version}" if version else "moesim",
        "" if seed is None else f"seed {seed}",
        result.get("schema"),
    )
    return parts.report(
        f"Simulated {kind}",
        title,
        _shared_facts(found),
        [*said, *([expected] if expected else [])],
        inside,
        foot,
    )


def _terms(found: Sequence[Case]) -> _Terms:
    return next((terms for is_one, terms in _TOLD if all(map(is_one, found))), _TERMS)


def _validation(report: Result) -> str:
    groups = report["groups"]
    marks = "Each mark is a figure that we compare with; grey is its tolerance, and hollow marks were calibrated on"
    inside = [
        *_figures("validation", report, marks),
        parts.grid_html(validation_tables.of_groups(groups)),
        '<p class="note">A row that was calibrated on proves nothing; the errors of predicted rows do.</p>',
        "<h2>Every row</h2>",
        *(
            page.fold(name, parts.grid_html(validation_tables.of_group(name, group)), is_open=not group["ok"],
                      extra=f"{len(group['rows'])} rows, {'met' if group['ok'] else 'missed'}")
            for name, group in groups.items()
        ),
    ]  # fmt: skip
    foot = (f"moesim {report.get('version', '')}".strip(), report.get("schema"))
    title, said = "Published figures beside simulated ones", validation.finding(report)
    return parts.report("Validation", title, [], said, inside, foot)


def _shared_facts(found: Sequence[Case]) -> list[tuple[str, str]]:
    """What was asked: each fact with its values over all variants."""
    values: dict[str, list[str]] = {}
    for case in found:
        for key, value in case.facts:
            values.setdefault(key, []).append(value)
    return [(key, ", ".join(dict.fromkeys(said))) for key, said in values.items()]


def _figures(kind: str, result: Result, title: str | None = None) -> list[str]:
    drawn = plots.drawable(result, (kind,))
    return [parts.figure(name, figure, title) for name, figure in drawn.items()]


def _depth(found: Sequence[Case]) -> list[str]:
    """Course in time, load by link, by rank and between ranks: open for one case, folded by twins for several."""
    others = {id(pair.other): pair.reference for pair in twins(found)}
    sets: dict[int, list[Case]] = {}
    for case in found:
        sets.setdefault(id(others.get(id(case), case)), []).append(case)
    made = []
    left = _MAX_BARS
    for i, members in enumerate(sets.values()):
        left -= sum(plot_timeline.num_bars(case) for case in members)
        lines = _LINES if members[0].transfers else _COURSES
        inside = "".join(_line(members, kinds, bars=left >= 0) for kinds in lines)
        if len(found) == 1:
            return [inside]
        if inside:
            names = " and ".join(case.name for case in members)
            made.append(page.fold(names, inside, is_open=i == 0, extra=_binding_words(members)))
    return made


def _line(members: Sequence[Case], kinds: Sequence[str], *, bars: bool) -> str:
    """Figures of some kinds: kind after kind for twins, side by side where the screen is wide enough."""
    lines = [(kind,) for kind in kinds] if len(members) > 1 else [kinds]
    made = []
    for line in lines:
        drawn = [
            parts.figure("-".join(filter(None, (kind, _ident(case.variant)))), figure)
            for kind in line
            for case in members
            for figure in _drawn(case, kind, bars=bars)
        ]
        if drawn:
            made.append(f'<div class="pair">{"".join(drawn)}</div>' if len(drawn) > 1 else drawn[0])
    return "".join(made)


def _drawn(case: Case, kind: str, *, bars: bool) -> list[Any]:
    """The figure of a kind, if the case has its data and no figure above has shown it; `bars`: not as a raster."""
    if kind == "memory" and inference_views.is_inference(case):
        return []
    if kind == "timeline" and not bars:
        raster = partial(plot_timeline.timeline, _alone(case), max_bars=0)
        return [raster] if plot_timeline.num_bars(case) else []
    return list(plots.drawable(_alone(case), (kind,)).values())


def _binding_words(members: Sequence[Case]) -> str:
    """What binds in the cases of a fold: of all alike, or by name; times of those that have no links."""
    bound = {case.name: _bindings(case) for case in members if case.transfers}
    alike = len(set(bound.values())) == 1
    told = [words if alike else f"{name}: {words}" for name, words in bound.items()]
    return "; ".join(dict.fromkeys(told)) or training_words.aside(members) or _latency_words(members)


def _bindings(case: Case) -> str:
    by_transfer = {name: names_views.binds(m) for name, m in case.transfers.items()}
    said = set(by_transfer.values())
    return (
        said.pop() if len(said) == 1 else ", ".join(f"{name} {words}" for name, words in by_transfer.items())
    )


def _latency_words(members: Sequence[Case]) -> str:
    passes = [inference_views.latency_of(case) for case in members if inference_views.is_inference(case)]
    return ", ".join(f"{name} {show(time_s, 's', 3)}" for name, time_s in passes)


def _alone(case: Case) -> Result:
    return {"variants": {case.variant: case.result}} if case.variant else case.result


def _ident(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)
