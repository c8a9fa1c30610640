"""Ladders as tables; the terminal and the report print the same."""

from __future__ import annotations

from collections.abc import Iterable

from sim.show.grid import Cell, Grid
from sim.show.tables import exchange, rules, search
from sim.show.views.ladder import Curve, LadderView, Readings, machine_label
from sim.show.views.ladder_changes import LadderMetric, change_text
from sim.show.views.names import capital, joined
from sim.show.words.ladder import need_text
from sim.units import show

_Rows = list[tuple[Cell, ...]]
_MEMORY_RULE = "R2024"
"""The rule on memory that is traded alone, of which no machine is a case."""


def grids(view: LadderView) -> list[Grid]:
    """Return the tables of a ladder for a terminal."""
    of_rungs = (rung_grid, reading_grid, companion_grid, gap_grid, refusal_grid)
    makers = (*(of_rungs if view.has_rungs else ()), enough_grid, price_grid, verdict_grid)
    asked = [
        *(search.grids(view.search) if view.search else []),
        *(exchange.grids(view.exchange) if view.exchange else []),
    ]
    return [*asked, *(grid for make in makers if (grid := make(view)).rows)]


def rung_grid(view: LadderView) -> Grid:
    """Return a row for each rung: every machine, what the choice moves in its turn, and the gap before and after."""
    metric, on, rival = view.metric, view.reference, view.rival
    rows: _Rows = []
    before: Cell = "-"
    for i, rung in enumerate(view.rungs):
        change = change_text(rung.in_turn[on.name].change) if i else "-"
        gaps = (before, before := change_text(rung.gap)) if rival else ()
        rows.append((rung.title, *_values(view, metric, rung.in_turn), change, *gaps))
    heads = (
        "choice, added in this order",
        *_labels(view),
        "change",
        *(("gap before", "after") if rival else ()),
    )
    note = f"change: of {metric.label} on {on.label} against the row above, {metric.change_note}"
    if rival:
        note += f"; gap: {metric.gap_note(on.label, rival.label)}"
    return Grid(f"{metric.title}, choice by choice", heads, tuple(rows), note=note)


def reading_grid(view: LadderView) -> Grid:
    """Return each choice alone in the naive design, and the full one without it, on the reference; and what goes with it."""
    metric, on = view.metric, view.reference
    rows: _Rows = []
    for i, rung in enumerate(view.rungs):
        cells: list[Cell] = []
        for reading in (rung.alone[on.name], rung.removed[on.name]):
            cells += [metric.cell(reading.value), change_text(reading.change) if i else "-"]
        rows.append((rung.title if i else "None of them, and all", *cells, rung.removal_note if i else ""))
    heads = ("choice", "alone", "change", "removed last", "change", "goes with it")
    note = (
        f"{metric.label}; alone: the naive design with this choice only, against the naive one; removed last: the full design "
        f"without it, against the full one; changes: {metric.change_note}"
    )
    if has_others := any(row[-1] for row in rows):
        note += "; goes with it: other choices that this removal undoes or sets otherwise, so that its change is not the choice's own"
    title = f"Each choice alone, and removed last, on {on.label}"
    grid = Grid(title, heads, tuple(rows), words=frozenset({0, 5}), note=note)
    return grid if has_others else grid.without(5)


def _labels(view: LadderView) -> list[str]:
    return [machine.label for machine in view.machines]


def _values(view: LadderView, metric: LadderMetric, readings: Readings) -> list[Cell]:
    """Return the metric on every machine."""
    return [metric.cell(readings[machine.name].value) for machine in view.machines]


def companion_grid(view: LadderView) -> Grid:
    """Return what is shown next to the metric: every machine on every rung, and the reference without the choice."""
    on = view.reference
    rows: _Rows = []
    for i, rung in enumerate(view.rungs):
        without = rung.removed[on.name].companion_cell if i else "-"
        rows.append((rung.title, *_companions(view, rung.in_turn), without))
    heads = ("choice", *_labels(view), f"{on.label}, removed last")
    return _companion_grid(view, heads, rows, view.metric, "choice by choice")


def _companions(view: LadderView, readings: Readings) -> list[Cell]:
    return [readings[machine.name].companion_cell for machine in view.machines]


def _companion_grid(
    view: LadderView, heads: tuple[str, ...], rows: _Rows, but: LadderMetric, by: str
) -> Grid:
    names = [metric.label for metric in view.companions if metric.name != but.name]
    note = f"each cell: {' · '.join(names)}" if len(names) > 1 else ""
    return Grid(f"{capital(joined(names))}, {by}", heads, tuple(rows) if names else (), note=note)


def choice_grid(view: LadderView) -> Grid:
    """Return what each choice works around, and the keys that it sets."""
    rows = tuple((rung.title, rung.works_around or "-", ", ".join(rung.keys)) for rung in view.rungs)
    heads = ("choice", "works around", "sets")
    return Grid("What each choice works around", heads, rows, words=frozenset({0, 1, 2}))


def gap_grid(view: LadderView) -> Grid:
    """Return the gap of the reference to each of several other machines; no rows where there is one."""
    ours = view.reference.label
    rows = ((rung.title, *map(change_text, rung.gaps.values())) for rung in view.rungs)
    heads = ("choice", *(machine.label for machine in view.others))
    note = f"gap: {view.metric.gap_note(ours, 'each machine')}"
    return Grid(
        f"Gap of {ours} to each machine", heads, tuple(rows) if len(view.others) > 1 else (), note=note
    )


def refusal_grid(view: LadderView) -> Grid:
    """Return designs that no machine can run, each with its reason; machines with the same reason in one row."""
    where: dict[tuple[str, str, str], list[str]] = {}
    for rung in view.rungs:
        for words, name, reason in rung.refusals():
            where.setdefault((rung.title, words, reason), []).append(machine_label(name))
    rows = tuple((title, words, ", ".join(names), reason) for (title, words, reason), names in where.items())
    heads = ("choice", "read", "on", "reason")
    return Grid("Designs that do not fit", heads, rows, words=frozenset({0, 1, 2, 3}))


def enough_grid(view: LadderView) -> Grid:
    """Return how much of each figure is enough."""
    known = view.known_enough.values()
    fractions = list(dict.fromkeys(need.within_fraction for enough in known for need in enough.needed))
    rows: _Rows = []
    for enough in known:
        needs = {need.within_fraction: need_text(enough, need, "<= ") for need in enough.needed}
        present = show(enough.present, enough.dimension, 3)
        cells = (needs.get(fraction, "-") for fraction in fractions)
        rows.append((enough.title, enough.key, enough.machine, present, *cells))
    heads = ("what", "figure", "of", "has", *(f"within {100 * fraction:g} %" for fraction in fractions))
    longer = "longer" if all(enough.metric.is_timely for enough in known) else "more"
    note = f"within 1 %: the least of it with which a run takes at most 1 % {longer} than with a thousand times what there is"
    return Grid("How much is enough", heads, tuple(rows), words=frozenset({0, 1, 2}), note=note)


def curve_grid(view: LadderView, curve: Curve) -> Grid:
    """Return a curve: every machine at every point, and the gaps."""
    metric, others = curve.metric, view.others
    rows = tuple(
        (
            f"{point.value:g}",
            *_values(view, metric, point.readings),
            *(change_text(point.gaps[machine.name]) for machine in others),
        )
        for point in curve.points
    )
    heads = (curve.title, *_labels(view), *(f"gap to {machine.label}" for machine in others))
    held = f"held: {curve.held}" if curve.held else ""
    gap = f"gap: {metric.gap_note(view.reference.label, 'the other')}" if others else ""
    note = "; ".join(filter(None, (held, gap)))
    return Grid(f"{metric.title} along {curve.title}", heads, rows, note=note)


def curve_companion_grid(view: LadderView, curve: Curve) -> Grid:
    """Return what is shown next to the metric of a curve: every machine at every point."""
    rows: _Rows = [(f"{point.value:g}", *_companions(view, point.readings)) for point in curve.points]
    heads = (curve.title, *_labels(view))
    return _companion_grid(view, heads, rows, curve.metric, f"along {curve.title}")


def price_grid(view: LadderView) -> Grid:
    """Return what a million tokens cost, and the price at which another machine would cost as much as the reference."""
    reference = view.reference
    ours, paid = reference.tokens_per_s_per_gpu.full, reference.price_usd_per_gpu_hour
    rows: _Rows = []
    for machine in view.machines:
        if not (tokens := machine.tokens_per_s_per_gpu.full):
            continue
        even = paid * tokens / ours if ours and paid is not None and machine is not reference else None
        costs = machine.usd_per_million_tokens
        dollars = map(_usd, (machine.price_usd_per_gpu_hour, costs.naive, costs.full, even))
        rows.append((machine.label, f"{tokens:,.0f}", *dollars))
    unpriced = [row[0] for row in rows if row[2] == "-"]
    heads = ("machine", "tokens/s/GPU", "$ a GPU-hour", "$ a M tokens, naive", "full", "breaks even at $")
    notes = []
    if paid is not None:
        price = "the price of its GPU-hour at which a token costs as much as on"
        notes.append(f"breaks even: {price} {reference.label}, full design")
    if unpriced:
        notes.append(f"{joined(unpriced)}: no price in the profile, so no cost of a token")
    shown = tuple(rows) if len(unpriced) < len(rows) else ()
    grid = Grid("Price of a million tokens", heads, shown, note="; ".join(notes))
    return grid if paid is not None else grid.without(5)


def _usd(value: float | None) -> Cell:
    return "-" if value is None else f"{value:.3f}" if value < 100 else f"{value:,.0f}"


def verdict_grid(view: LadderView) -> Grid:
    """Return export rules in short: a row for each machine, a column for each rule that may hold for it."""
    ruled = [machine for machine in view.machines if machine.provenance.verdicts]
    verdicts = [
        verdict for verdict in (ruled[0].provenance.verdicts if ruled else ()) if verdict.rule != _MEMORY_RULE
    ]
    shown = [verdict.rule for verdict in verdicts]
    rows = tuple(
        (
            machine.label,
            *(rules.word(verdict) for verdict in machine.provenance.verdicts if verdict.rule in shown),
        )
        for machine in ruled
    )
    cited = "; ".join(f"{verdict.rule}: {verdict.citation}" for verdict in verdicts)
    words = frozenset(range(len(shown) + 1))
    return Grid("Export rules", ("machine", *shown), rows, words=words, note=f"{cited}. {_rules_note(view)}")


def every_verdict_grid(view: LadderView) -> Grid:
    """Return export rules in full: a row for each machine and rule, with its numbers and citation."""
    rows: _Rows = []
    breaks = []
    for machine in (machine for machine in view.machines if machine.provenance.verdicts):
        breaks.append(len(rows))
        part = machine.provenance.part
        changed = (part.changes if part else "") or "as it is"
        for verdict in machine.provenance.verdicts:
            cells = (verdict.rule, verdict.days, verdict.sentence, verdict.citation)
            rows.append((machine.label, changed, *cells))
    heads = ("machine", "changed", "rule", "in force", "verdict", "citation")
    return Grid(
        "Export rules, in full", heads, tuple(rows), words=frozenset(range(6)), breaks=frozenset(breaks[1:]), note=_rules_note(view),
    )  # fmt: skip


def _rules_note(view: LadderView) -> str:
    notes: Iterable[str] = (machine.provenance.rules_note for machine in view.machines)
    return " ".join(dict.fromkeys(filter(None, notes)))
