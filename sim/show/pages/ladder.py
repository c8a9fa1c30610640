"""The report of a ladder: what was asked, the answer, every rung, how much is enough, where machines break even, the rules."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sim.documents import dumps
from sim.show.grid import Grid
from sim.show.pages import page, parts
from sim.show.plots import enough as plot_enough
from sim.show.plots import ladder as plot_ladder
from sim.show.tables import ladder as ladder_grids
from sim.show.views import ladder as ladder_views
from sim.show.views.ladder import machine
from sim.show.views.ladder_changes import Document
from sim.show.words import ladder as ladders

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


def ladder_html(document: Document) -> str:
    """The report of `moesim ladder` as one HTML document."""
    inside = [
        _warnings(document),
        "<h2>Rung by rung</h2>",
        parts.figure("ladder", partial(plot_ladder.ladder, document)),
        parts.grid_html(ladder_grids.of_rungs(document)),
        _grids(
            (
                ladder_grids.of_beside(document),
                ladder_grids.of_choices(document),
                ladder_grids.of_gaps(document),
                ladder_grids.of_reasons(document),
            )
        ),
        "<h2>Each choice alone, and removed last</h2>",
        parts.figure("choices", partial(plot_ladder.choices, document)),
        parts.grid_html(ladder_grids.of_readings(document)),
        *_enough(document),
        *_curves(document),
        *_machines(document),
        parts.assumptions(ladder_views.machines(document)),
        parts.again("ladder", dumps(document["provenance"]["ladder"]), "The ladder as it was read."),
        parts.words(_TERMS),
    ]
    facts = [
        ("machines", ", ".join(machine(name) for name in document["hardware"])),
        ("reference", machine(document["reference"])),
        ("compared by", ladder_views.called(document["metric"]["name"])),
        ("choices", str(len(document["rungs"]) - 1)),
        ("runs", str(document["provenance"]["runs"])),
    ]
    foot = (f"moesim {document['provenance']['version']}", document["schema"])
    return parts.report(
        "Ladder of design choices", str(document["title"]), facts, ladders.answer(document), inside, foot
    )


def _warnings(document: Document) -> str:
    return page.paragraphs((f"Warning: {one}" for one in document["warnings"]), "note")


def _grids(found: Sequence[Grid]) -> str:
    return "".join(parts.grid_html(one) for one in found if one.rows)


def _enough(document: Document) -> list[str]:
    if not document["enough"]:
        return []
    drawn = [name for name, one in document["enough"].items() if "needed" in one]
    figures = "".join(
        parts.figure(f"enough-{name}", partial(plot_enough.enough, document, name)) for name in drawn
    )
    refused = [ladders.enough_sentence(one) for one in document["enough"].values() if "needed" not in one]
    table = _grids((ladder_grids.of_enough(document),))
    return [
        "<h2>How much is enough</h2>",
        f'<div class="pair">{figures}</div>',
        table,
        page.paragraphs(refused, "note"),
    ]


def _curves(document: Document) -> list[str]:
    if not document["curves"]:
        return []
    made = ["<h2>Where machines break even</h2>"]
    drawn = [name for name, one in document["curves"].items() if len(one["points"]) > 1]
    figures = "".join(
        parts.figure(f"curve-{name}", partial(plot_enough.break_even, document, name)) for name in drawn
    )
    made.append(f'<div class="pair">{figures}</div>')
    for name, one in document["curves"].items():
        tables = _grids((ladder_grids.of_curve(document, one), ladder_grids.of_curve_beside(document, one)))
        made.append(page.fold(f"Every point along {one['title']}", tables, is_open=name not in drawn))
    return made


def _machines(document: Document) -> list[str]:
    made = [
        "<h2>The machines: price, and what export rules say</h2>",
        _grids((ladder_grids.of_prices(document),)),
    ]
    rules = ladder_grids.of_verdicts(document)
    made.append(_grids((rules,)))
    if rules.rows:
        whole = ladder_grids.of_every_verdict(document)
        made.append(
            page.fold("Every verdict with its numbers and citation", parts.grid_html(whole), extra=whole.note)
        )
    return made
