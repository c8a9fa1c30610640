"""The report of a ladder: what was asked, the answer, every rung, how much is enough, where machines break even, the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.documents import dumps
from sim.show.grid import Grid
from sim.show.pages import page, parts
from sim.show.plots import enough as plot_enough
from sim.show.plots import ladder as plot_ladder
from sim.show.tables import ladder as ladder_grids
from sim.show.views.ladder import LadderView, ladder_view
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


def ladder_html(document: Mapping[str, Any]) -> str:
    """The report of `moesim ladder` as one HTML document."""
    view = ladder_view(document)
    inside = [
        page.paragraphs((f"Warning: {warning}" for warning in view.warnings), "note"),
        "<h2>Rung by rung</h2>",
        parts.figure("ladder", plot_ladder.ladder(view)),
        parts.grid_html(ladder_grids.rung_grid(view)),
        _grids(
            (
                ladder_grids.companion_grid(view),
                ladder_grids.choice_grid(view),
                ladder_grids.gap_grid(view),
                ladder_grids.refusal_grid(view),
            )
        ),
        "<h2>Each choice alone, and removed last</h2>",
        parts.figure("choices", plot_ladder.choices(view)),
        parts.grid_html(ladder_grids.reading_grid(view)),
        *_enough(view),
        *_curves(view),
        *_machines(view),
        parts.assumptions(view.cases),
        parts.again("ladder", dumps(dict(view.spec)), "The ladder as it was read."),
        parts.words(_TERMS),
    ]
    facts = [
        ("machines", ", ".join(machine.label for machine in view.machines)),
        ("reference", view.reference.label),
        ("compared by", view.metric.label),
        ("choices", str(len(view.choices))),
        ("runs", str(view.num_runs)),
    ]
    foot = (f"moesim {view.version}", view.schema)
    return parts.report("Ladder of design choices", view.title, facts, ladders.answer(view), inside, foot)


def _grids(found: Sequence[Grid]) -> str:
    return "".join(parts.grid_html(one) for one in found if one.rows)


def _enough(view: LadderView) -> list[str]:
    if not view.enough:
        return []
    figures = "".join(
        parts.figure(f"enough-{name}", plot_enough.enough(entry)) for name, entry in view.known_enough.items()
    )
    unknown = [entry for name, entry in view.enough.items() if name not in view.known_enough]
    return [
        "<h2>How much is enough</h2>",
        f'<div class="pair">{figures}</div>',
        _grids((ladder_grids.enough_grid(view),)),
        page.paragraphs(map(ladders.enough_sentence, unknown), "note"),
    ]


def _curves(view: LadderView) -> list[str]:
    if not view.curves:
        return []
    drawn = {name: curve for name, curve in view.curves.items() if len(curve.points) > 1}
    figures = "".join(
        parts.figure(f"curve-{name}", plot_enough.break_even(view, curve)) for name, curve in drawn.items()
    )
    made = ["<h2>Where machines break even</h2>", f'<div class="pair">{figures}</div>']
    for name, curve in view.curves.items():
        tables = _grids(
            (ladder_grids.curve_grid(view, curve), ladder_grids.curve_companion_grid(view, curve))
        )
        made.append(page.fold(f"Every point along {curve.title}", tables, is_open=name not in drawn))
    return made


def _machines(view: LadderView) -> list[str]:
    rules = ladder_grids.verdict_grid(view)
    made = [
        "<h2>The machines: price, and what export rules say</h2>",
        _grids((ladder_grids.price_grid(view), rules)),
    ]
    if rules.rows:
        whole = ladder_grids.every_verdict_grid(view)
        made.append(
            page.fold("Every verdict with its numbers and citation", parts.grid_html(whole), extra=whole.note)
        )
    return made
