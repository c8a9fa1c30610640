"""The report of a ladder: what was asked, the answer, every rung, how much is enough, where machines break even, the rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sim.documents import dumps
from sim.show.grid import Grid
from sim.show.pages import page, parts
from sim.show.pages.page import Figure
from sim.show.pages.parts import Head, Leaning, Pairs, Rerun, filled
from sim.show.plots import enough as plot_enough
from sim.show.plots import exchange as plot_exchange
from sim.show.plots import ladder as plot_ladder
from sim.show.plots import search as plot_search
from sim.show.tables import exchange as exchange_tables
from sim.show.tables import ladder as tables
from sim.show.tables import search as search_tables
from sim.show.views.exchange import Exchange
from sim.show.views.ladder import LadderView, ladder_view
from sim.show.views.search import DesignSearch
from sim.show.words import ladder as words

_TERMS = (
    ("naive", "the design before the first choice: the base scenario with what 'set' changes"),
    ("in its turn", "with all choices up to this one"),
    ("alone", "the naive design with this choice only; what it needs from others is missing"),
    ("removed last", "the full design without it; what others do in its stead is there"),
    ("goes with it", "choices that stand on the one that is removed: what takes its place undoes them too, or sets them otherwise"),
    ("change", "of the metric that is compared, in per cent, from a doubling on as a factor; a rate that rises has a plus, and so has a time that grows"),
    ("gap", "what the reference takes over what the other machine takes for the same work, less one: 5 % is 5 % longer; of a rate, what is taken is its reciprocal"),
    ("enough", "the smallest value of a figure with which a run takes at most so much more than with an unlimited one, all else as it is"),
    ("break even", "the reference takes at most 1 % more than what the other takes"),
    ("held", "set for each machine alike, while every other choice is the best for that machine"),
    ("bought back", "of what the reference's design costs on a machine, the part that a design of its own saves"),
    ("assumed, derived", "figures without a measurement of their own; each says what it stands on"),
)  # fmt: skip

_SEARCH_TERMS = ("held", "bought back", "assumed, derived")


@dataclass(frozen=True, slots=True)
class EnoughSection:
    """Amounts of each resource that are enough."""

    curves: tuple[Figure, ...]
    tables: tuple[Grid, ...]
    refusals: tuple[str, ...]
    """Why a question has no answer."""


@dataclass(frozen=True, slots=True)
class CurvePoints:
    """Every point along a curve."""

    title: str
    is_drawn: bool
    tables: tuple[Grid, ...]


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Curves along which machines break even."""

    curves: tuple[Figure, ...]
    points: tuple[CurvePoints, ...]


@dataclass(frozen=True, slots=True)
class Rungs:
    """Every choice in its turn, alone, and removed last."""

    in_turn: Figure | None
    """None where it stands in the head."""
    tables: tuple[Grid, ...]
    choices: Figure
    readings: Grid


@dataclass(frozen=True, slots=True)
class DrawnSection:
    """A figure, and the tables behind it."""

    figure: Figure | None
    """None where it stands in the head."""
    tables: tuple[Grid, ...]


@dataclass(frozen=True, slots=True)
class LadderPage:
    """Record that `ladder.html.j2` shows."""

    head: Head
    warnings: tuple[str, ...]
    search: DrawnSection | None
    """The best design of each machine, free and with one choice held."""
    exchange: DrawnSection | None
    """Designs on one curve."""
    rungs: Rungs | None
    enough: EnoughSection | None
    break_even: BreakEven | None
    machines: tuple[Grid, ...]
    """Prices and verdicts."""
    every_verdict: Grid | None
    leaning: Leaning | None
    rerun: Rerun
    terms: Pairs = _TERMS


def ladder_html(document: Mapping[str, Any]) -> str:
    """Write the report of a document of `moesim ladder`."""
    view = ladder_view(document)
    verdicts = tables.verdict_grid(view)
    sections = (
        _search(view, view.search) if view.search else None,
        _exchange(view.exchange) if view.exchange else None,
        _rungs(view) if view.has_rungs else None,
    )
    lead, (search, exchange, rungs) = _lead(*sections)
    shown = LadderPage(
        head=Head(
            kicker=view.title if view.ask else "Ladder of design choices",
            title=view.ask or view.title,
            facts=(
                ("machines", ", ".join(machine.label for machine in view.machines)),
                ("reference", view.reference.label),
                ("compared by", view.metric.label),
                *((("choices", str(len(view.choices))),) if view.has_rungs else ()),
                ("runs", str(view.num_runs)),
            ),
            answer=words.answer(view),
            lead=parts.unlike(words.answer(view), lead),
            footer=(f"moesim {view.version}", view.schema),
        ),
        warnings=tuple(f"Warning: {warning}" for warning in view.warnings),
        search=search,
        exchange=exchange,
        rungs=rungs,
        enough=_enough(view) if view.enough else None,
        break_even=_break_even(view) if view.curves else None,
        machines=filled(tables.price_grid(view), verdicts),
        every_verdict=tables.every_verdict_grid(view) if verdicts.rows else None,
        leaning=parts.leaning(view.runs),
        terms=tuple(
            term
            for term in _TERMS
            if view.has_rungs or term[0] in (_SEARCH_TERMS if view.search else _SEARCH_TERMS[-1:])
        ),
        rerun=Rerun("ladder", dumps(dict(view.spec)), "The ladder as it was read."),
    )
    return page.render("ladder", shown)


def _lead(
    search: DrawnSection | None, exchange: DrawnSection | None, rungs: Rungs | None
) -> tuple[Figure | None, tuple[DrawnSection | None, DrawnSection | None, Rungs | None]]:
    """Take the first figure out of its section: it stands in the head."""
    if search is not None:
        return search.figure, (replace(search, figure=None), exchange, rungs)
    if exchange is not None:
        return exchange.figure, (None, replace(exchange, figure=None), rungs)
    if rungs is not None:
        return rungs.in_turn, (None, None, replace(rungs, in_turn=None))
    return None, (None, None, None)


def _search(view: LadderView, search: DesignSearch) -> DrawnSection:
    drawn = parts.figure("search", partial(plot_search.held, search, plot_ladder.colours(view)))
    return DrawnSection(drawn, tuple(search_tables.grids(search)))


def _exchange(exchange: Exchange) -> DrawnSection:
    drawn = parts.figure("exchange", partial(plot_exchange.curve, exchange))
    return DrawnSection(drawn, tuple(exchange_tables.grids(exchange)))


def _rungs(view: LadderView) -> Rungs:
    return Rungs(
        in_turn=parts.figure("ladder", partial(plot_ladder.ladder, view)),
        tables=filled(
            tables.rung_grid(view),
            tables.companion_grid(view),
            tables.choice_grid(view),
            tables.gap_grid(view),
            tables.refusal_grid(view),
        ),
        choices=parts.figure("choices", partial(plot_ladder.choices, view)),
        readings=tables.reading_grid(view),
    )


def _enough(view: LadderView) -> EnoughSection:
    known = view.known_enough
    return EnoughSection(
        curves=tuple(
            parts.figure(f"enough-{name}", partial(plot_enough.enough, entry))
            for name, entry in known.items()
        ),
        tables=filled(tables.enough_grid(view)),
        refusals=tuple(
            words.enough_sentence(entry) for name, entry in view.enough.items() if name not in known
        ),
    )


def _break_even(view: LadderView) -> BreakEven:
    drawn = {name: curve for name, curve in view.curves.items() if len(curve.points) > 1}
    return BreakEven(
        curves=tuple(
            parts.figure(f"curve-{name}", partial(plot_enough.break_even, view, curve))
            for name, curve in drawn.items()
        ),
        points=tuple(
            CurvePoints(
                title=curve.title,
                is_drawn=name in drawn,
                tables=filled(tables.curve_grid(view, curve), tables.curve_companion_grid(view, curve)),
            )
            for name, curve in view.curves.items()
        ),
    )
