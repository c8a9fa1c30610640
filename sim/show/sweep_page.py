"""The report of a sweep: one self-contained page with the answer, the best points, what each choice costs, and pictures."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from sim.documents import dumps
from sim.errors import InputError
from sim.show import page, plot_sweep, sweep_grids, sweeps
from sim.show.report import grid_html

_RANKED = 40  # points in the page; the CSV has all
_TERMS = (
    ("best", "of the points that ran and meet every constraint, by the first objective"),
    ("to the best", "the first objective over that of the best point"),
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
    title = str(document.get("title") or document["name"])
    counts, runs = document["counts"], document["runs"]
    facts = [
        ("points", f"{counts['points']:,}"),
        *((key, f"{counts[key]:,}") for key in ("ok", "infeasible", "pruned", "failed") if counts[key]),
        ("axes", ", ".join(sweeps.axis_label(axis) for axis in sweeps.varied(document))),
        (
            "objectives",
            ", ".join(f"{way} {sweeps.label(name)}" for name, way in document["objectives"].items()),
        ),
    ]
    items = "".join(f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in facts)
    parts = [
        f'<header><p class="kicker">Sweep · moesim</p><h1>{html.escape(title)}</h1><dl class="facts" aria-label="What was asked">{items}</dl></header>',
        f'<section class="answer" aria-label="Answer">{page.paragraphs(sweeps.finding(document))}</section>',
        "<h2>The points</h2>",
        *_figures(document, ("map", "pareto") if _trades(document) else ("map",)),
        *(grid_html(grid) for grid in sweep_grids.grids(document, most=_RANKED)),
        *_figures(document, ("parallel",)),
        "<h2>Run it again</h2>",
        f'<p class="note">Save it as <code>sweep.yaml</code>, then <code>moesim sweep sweep.yaml</code>. This time {runs["computed"]:,} runs were computed, {runs["remembered"]:,} remembered.</p>',
        '<button type="button" data-copy="sweep" hidden>Copy</button>',
        f'<pre id="sweep" tabindex="0" aria-label="Sweep as YAML">{html.escape(dumps(dict(document["sweep"])))}</pre>',
        "<h2>How to read it</h2>",
        '<dl class="terms">'
        + "".join(f"<dt>{term}</dt><dd>{html.escape(text)}</dd>" for term, text in _TERMS)
        + "</dl>",
        f"<footer>{html.escape(' · '.join(('moesim ' + str(document['version']), str(document['schema']))))}</footer>",
    ]
    body = f'<a class="skip" href="#main">Skip to the report</a><main id="main">{"".join(parts)}</main>'
    return page.shell(title, body, drawn=True)


def _trades(document: Mapping[str, Any]) -> bool:
    """Whether there is anything to weigh: a second objective, or memory."""
    leader = sweeps.best(document)
    memory = leader is not None and sweeps.metric(leader, "memory_peak_bytes") is not None
    return len(document["objectives"]) > 1 or memory


def _figures(document: Mapping[str, Any], kinds: tuple[str, ...]) -> list[str]:
    made = []
    for kind in kinds:
        try:
            figure = plot_sweep.KINDS[kind][1](document)
        except InputError:  # no data for it
            continue
        made.append(page.figure_html(page.drawing(f"fig-{kind}", figure)))
    return made
