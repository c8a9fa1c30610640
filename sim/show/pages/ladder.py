"""The report of a ladder: what was asked, the answer, every rung, how much is enough, where machines break even, the rules."""

from __future__ import annotations

from dataclasses import dataclass

from sim.documents import dumps
from sim.show.grid import Grid
from sim.show.pages import page, parts
from sim.show.pages.page import Drawing
from sim.show.pages.parts import Head, Leaning, Pairs, Rerun, filled
from sim.show.plots import enough as plot_enough
from sim.show.plots import ladder as plot_ladder
from sim.show.tables import ladder as tables
from sim.show.views import ladder as ladder_views
from sim.show.views.ladder import machine
from sim.show.views.ladder_changes import Document
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
    ("assumed, derived", "figures without a measurement of their own; each says what it stands on"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Enough:
    """How much of a resource is enough."""

    curves: tuple[Drawing, ...]
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
    """Where machines break even."""

    curves: tuple[Drawing, ...]
    points: tuple[CurvePoints, ...]


@dataclass(frozen=True, slots=True)
class LadderPage:
    """What `ladder.html.j2` shows."""

    head: Head
    warnings: tuple[str, ...]
    rungs: Drawing
    rung_tables: tuple[Grid, ...]
    choices: Drawing
    readings: Grid
    enough: Enough | None
    break_even: BreakEven | None
    machines: tuple[Grid, ...]
    """Prices and verdicts."""
    every_verdict: Grid | None
    leaning: Leaning | None
    rerun: Rerun
    terms: Pairs = _TERMS


def ladder_html(document: Document) -> str:
    """Write the report of a document of `moesim ladder`."""
    provenance = document["provenance"]
    verdicts = tables.of_verdicts(document)
    shown = LadderPage(
        head=Head(
            kicker="Ladder of design choices",
            title=str(document["title"]),
            facts=(
                ("machines", ", ".join(machine(name) for name in document["hardware"])),
                ("reference", machine(document["reference"])),
                ("compared by", ladder_views.called(document["metric"]["name"])),
                ("choices", str(len(document["rungs"]) - 1)),
                ("runs", str(provenance["runs"])),
            ),
            answer=words.answer(document),
            footer=(f"moesim {provenance['version']}", str(document["schema"])),
        ),
        warnings=tuple(f"Warning: {warning}" for warning in document["warnings"]),
        rungs=parts.figure("ladder", plot_ladder.ladder(document)),
        rung_tables=(
            tables.of_rungs(document),
            *filled(
                (
                    tables.of_beside(document),
                    tables.of_choices(document),
                    tables.of_gaps(document),
                    tables.of_reasons(document),
                )
            ),
        ),
        choices=parts.figure("choices", plot_ladder.choices(document)),
        readings=tables.of_readings(document),
        enough=_enough(document),
        break_even=_break_even(document),
        machines=filled((tables.of_prices(document), verdicts)),
        every_verdict=tables.of_every_verdict(document) if verdicts.rows else None,
        leaning=parts.leaning(ladder_views.machines(document)),
        rerun=Rerun("ladder", dumps(provenance["ladder"]), "The ladder as it was read."),
    )
    return page.render("ladder", shown)


def _enough(document: Document) -> Enough | None:
    answers = document["enough"]
    if not answers:
        return None
    return Enough(
        curves=tuple(
            parts.figure(f"enough-{name}", plot_enough.enough(document, name))
            for name, answer in answers.items()
            if "needed" in answer
        ),
        tables=filled((tables.of_enough(document),)),
        refusals=tuple(
            words.enough_sentence(answer) for answer in answers.values() if "needed" not in answer
        ),
    )


def _break_even(document: Document) -> BreakEven | None:
    curves = document["curves"]
    if not curves:
        return None
    drawn = [name for name, curve in curves.items() if len(curve["points"]) > 1]
    return BreakEven(
        curves=tuple(parts.figure(f"curve-{name}", plot_enough.break_even(document, name)) for name in drawn),
        points=tuple(
            CurvePoints(
                title=curve["title"],
                is_drawn=name in drawn,
                tables=filled((tables.of_curve(document, curve), tables.of_curve_beside(document, curve))),
            )
            for name, curve in curves.items()
        ),
    )
