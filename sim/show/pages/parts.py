"""The parts that reports of every kind are made of: header and answer, tables, what a run leans on, export rules, how to run
it again and how to read it.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from sim.show.failures import Failure, attempt
from sim.show.grid import Grid
from sim.show.pages import page
from sim.show.tables import rules
from sim.show.tables import run as grids
from sim.show.views.run import Case

_LONG = (
    "why and source",
    "source",
    "quantity",
    "metric",
    "one of them",
    "most of it",
    "works around",
    "reason",
    "verdict",
    "citation",
    "sets",
    "goes with it",
)  # heads of columns that may wrap


Pairs = Sequence[tuple[str, str]]


def report(
    kicker: str, title: str, facts: Pairs, said: Iterable[str], inside: Iterable[str], foot: Iterable[Any]
) -> str:
    """A whole report as one HTML document.

    `facts` are what was asked, `said` the answer, `foot` what stands at the very end, left out where it is empty.
    """
    items = "".join(
        f"<div><dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd></div>" for key, value in facts
    )
    asked = f'<dl class="facts" aria-label="What was asked">{items}</dl>' if items else ""
    head = f'<header><p class="kicker">{html.escape(kicker)} · moesim</p><h1>{html.escape(title)}</h1>{asked}</header>'
    answer = f'<section class="answer" aria-label="Answer">{page.paragraphs(said)}</section>'
    end = f"<footer>{html.escape(' · '.join(str(one) for one in foot if one))}</footer>"
    body = f'<a class="skip" href="#main">Skip to the report</a><main id="main">{head}{answer}{"".join(inside)}{end}</main>'
    return page.shell(title, body)


def figure(ident: str, drawn: Any, title: str | None = None) -> str:
    """A figure of a report, or what draws it; a note where that fails."""

    def make() -> Any:
        figure = drawn() if callable(drawn) else drawn
        if isinstance(figure, Failure):
            return figure
        return page.figure_html(page.drawing(f"fig-{ident}", figure, title))

    made = attempt(ident, make)
    return made.note if isinstance(made, Failure) else str(made)


def again(command: str, text: str, note: str = "") -> str:
    """How to run it again: the file that `moesim COMMAND` takes, to be copied."""
    noun = "scenario" if command == "run" else command
    said = f"Save it as <code>{noun}.yaml</code>, then <code>moesim {command} {noun}.yaml</code>; files it names are looked for beside it."
    return (
        f'<h2>Run it again</h2><p class="note">{html.escape(note)} {said}</p>'
        f'<button type="button" data-copy="{noun}" hidden>Copy</button>'
        f'<pre id="{noun}" tabindex="0" aria-label="{noun.capitalize()} as YAML">{html.escape(text)}</pre>'
    )


def words(terms: Pairs) -> str:
    """How to read it: terms and what they mean here."""
    items = "".join(f"<dt>{term}</dt><dd>{html.escape(text)}</dd>" for term, text in terms)
    return f'<h2>How to read it</h2><dl class="terms">{items}</dl>'


def assumptions(found: Sequence[Case]) -> str:
    """Figures of hardware and kernels that have no measurement of their own; "" where there are none."""
    grid = grids.leaned_on(found)
    if not grid.rows:
        return ""
    counts = {
        grade: sum(row[0] == grade for row in grid.rows) for grade in ("override", "assumed", "derived")
    }
    extra = ", ".join(f"{count} {grade}" for grade, count in counts.items() if count)
    return "<h2>What it leans on</h2>" + page.fold(
        "Figures without a measurement of their own", grid_html(grid), extra=extra
    )


def export_rules(found: Sequence[Case]) -> str:
    """What export rules say of each part in the report, as it ran."""
    grid, told = rules.grid(found), rules.sentences(found)
    if not grid.rows:
        return ""
    lists = "".join(f"<h3>{html.escape(part)}</h3>{page.paragraphs(said)}" for part, said in told.items())
    return f"<h2>Export rules</h2>{grid_html(grid)}" + page.fold("Numbers behind each verdict", lists)


def grid_html(grid: Grid) -> str:
    """A grid as an HTML table that scrolls in its own box."""
    heads = "".join(
        f'<th scope="col"{_word(grid, i)}>{html.escape(head)}</th>' for i, head in enumerate(grid.heads)
    )
    rows = []
    for r, row in enumerate(grid.rows):
        marks = " ".join(mark for mark, where in (("bad", grid.bad), ("break", grid.breaks)) if r in where)
        cells = []
        for i, cell in enumerate(row):
            tag = "th" if i == 0 else "td"
            scope = ' scope="row"' if i == 0 else ""
            cells.append(f"<{tag}{scope}{_word(grid, i)}>{html.escape(cell)}</{tag}>")
        rows.append(f"<tr{f' class={chr(34)}{marks}{chr(34)}' if marks else ''}>{''.join(cells)}</tr>")
    label = html.escape(grid.title, quote=True)
    note = f'<p class="note">{html.escape(grid.note)}</p>' if grid.note else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table><caption><span>{html.escape(grid.title)}</span></caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{note}"
    )


def _word(grid: Grid, column: int) -> str:
    kinds = [
        kind
        for kind, is_so in (("word", column in grid.words), ("long", grid.heads[column] in _LONG))
        if is_so
    ]
    return f' class="{" ".join(kinds)}"' if kinds else ""
