"""Ladders as tables; the terminal and the report print the same."""

from __future__ import annotations

from sim.show.grid import Cell, Grid
from sim.show.tables import rules
from sim.show.views.ladder import WAYS, beside, called, machine, machines, other, said, upper
from sim.show.views.ladder_changes import (
    Document,
    Rung,
    change_alone,
    change_in_turn,
    change_removed,
    gap_words,
    goes_with_it,
    is_timely,
    moved,
    sense,
)
from sim.show.views.run import Case, joined
from sim.units import show

_UNFIT = "does not fit"


def grids(document: Document) -> list[Grid]:
    """The tables of a ladder for a terminal."""
    made = [
        of_rungs(document),
        of_readings(document),
        of_beside(document),
        of_gaps(document),
        of_reasons(document),
        of_enough(document),
        of_prices(document),
        of_verdicts(document),
    ]
    return [one for one in made if one.rows]


def of_rungs(document: Document) -> Grid:
    """A row for each rung: every machine, what the choice moves in its turn, and the gap before and after."""
    metric, on, against = document["metric"]["name"], document["reference"], other(document)
    rows = []
    for before, rung in zip([None, *document["rungs"]], document["rungs"], strict=False):
        row = [
            rung["title"],
            *(_cell(document, rung, "cumulative", name) for name in document["hardware"]),
        ]
        row.append(moved(change_in_turn(rung, before, on)) if before else "-")
        if against:
            row += [moved(before["gap_fraction"]) if before else "-", moved(rung["gap_fraction"])]
        rows.append(tuple(row))
    heads = (
        "choice, added in this order",
        *(machine(name) for name in document["hardware"]),
        "change",
        *(("gap before", "after") if against else ()),
    )
    note = f"change: of {called(metric)} on {machine(on)} against the row above, {sense(document)}"
    if against:
        note += f"; gap: {gap_words(document['metric'], machine(on), machine(against))}"
    return Grid(f"{upper(called(metric))}, choice by choice", heads, tuple(rows), note=note)


def of_readings(document: Document) -> Grid:
    """Each choice alone in the naive design, and the full one without it, on the reference; and what goes with it."""
    metric, on = document["metric"]["name"], document["reference"]
    rows = []
    for i, rung in enumerate(document["rungs"]):
        row = [rung["title"] if i else "None of them, and all"]
        for way, by in (("added_first", change_alone), ("removed_last", change_removed)):
            row += [_cell(document, rung, way, on), moved(by(document, rung, on)) if i else "-"]
        rows.append((*row, goes_with_it(document, rung) if i else ""))
    heads = ("choice", "alone", "change", "removed last", "change", "goes with it")
    told = any(row[-1] for row in rows)
    note = (
        f"{called(metric)}; alone: the naive design with this choice only, against the naive one; removed last: the full design "
        f"without it, against the full one; changes: {sense(document)}"
    )
    if told:
        note += "; goes with it: other choices that this removal undoes or sets otherwise, so that its change is not the choice's own"
    width = len(heads) if told else len(heads) - 1
    title = f"Each choice alone, and removed last, on {machine(on)}"
    return Grid(title, heads[:width], tuple(row[:width] for row in rows), words=frozenset({0, 5}), note=note)


def _cell(document: Document, rung: Rung, way: str, on: str) -> Cell:
    value = rung["values"][way][on]
    return _UNFIT if value is None else said(document["metric"]["name"], value, 4)


def of_beside(document: Document) -> Grid:
    """What stands beside the metric that is compared: every machine on every rung, and the reference without the choice."""
    on, metric = document["reference"], document["metric"]["name"]
    rows = []
    for i, rung in enumerate(document["rungs"]):
        runs = [rung["cumulative"][name] for name in document["hardware"]]
        without = rung["removed_last"][on] if i else None
        rows.append((rung["title"], *(_beside(document, run, metric) for run in (*runs, without))))
    heads = ("choice", *map(machine, document["hardware"]), f"{machine(on)}, removed last")
    return _of_beside(document, heads, rows, metric, "choice by choice")


def _of_beside(
    document: Document, heads: tuple[str, ...], rows: list[tuple[Cell, ...]], metric: str, by: str
) -> Grid:
    names = [called(name) for name in beside(document, None, metric)]
    title = f"{upper(joined(names))}, {by}"
    return Grid(
        title,
        heads,
        tuple(rows) if names else (),
        note=f"each cell: {' · '.join(names)}" if len(names) > 1 else "",
    )


def _beside(document: Document, metrics: Document | None, metric: str) -> Cell:
    return " · ".join(beside(document, metrics, metric).values()) if metrics else "-"


def of_choices(document: Document) -> Grid:
    """What each choice works around, and the keys that it sets."""
    rows = tuple(
        (rung["title"], rung["works_around"] or "-", ", ".join(rung["set"])) for rung in document["rungs"]
    )
    return Grid(
        "What each choice works around", ("choice", "works around", "sets"), rows, words=frozenset({0, 1, 2})
    )


def of_gaps(document: Document) -> Grid:
    """The gap of the reference to each of several other machines."""
    ours = machine(document["reference"])
    theirs = [name for name in document["hardware"] if name != document["reference"]]
    rows = tuple(
        (rung["title"], *(moved(rung["gaps"][name]["cumulative"]) for name in theirs))
        for rung in document["rungs"]
    )
    note = gap_words(document["metric"], ours, "each machine")
    return Grid(
        f"Gap of {ours} to each machine", ("choice", *map(machine, theirs)), rows if len(theirs) > 1 else (), note=f"gap: {note}"
    )  # fmt: skip


def of_reasons(document: Document) -> Grid:
    """Designs that no machine can run, each with its reason; machines with the same reason in one row."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for rung in document["rungs"]:
        for way, reasons in rung["reasons"].items():
            for name, reason in reasons.items():
                found.setdefault((rung["title"], WAYS[way], reason), []).append(machine(name))
    rows = tuple((title, way, ", ".join(names), reason) for (title, way, reason), names in found.items())
    return Grid(
        "Designs that do not fit", ("choice", "read", "on", "reason"), rows, words=frozenset({0, 1, 2, 3})
    )


def of_enough(document: Document) -> Grid:
    """How much of each figure is enough."""
    found = [one for one in document["enough"].values() if "needed" in one]
    fractions = list(dict.fromkeys(need["within_fraction"] for one in found for need in one["needed"]))
    rows = []
    for one in found:
        needs = {need["within_fraction"]: need for need in one["needed"]}
        cells = []
        for fraction in fractions:
            need = needs.get(fraction)
            text = show(need["value"], one["dimension"], 3) if need else "-"
            cells.append(f"<= {text}" if need and need["at_most"] else text)
        present = show(one["present"]["value"], one["dimension"], 3)
        rows.append((one["title"], one["key"], machine(one["hardware"]), present, *cells))
    heads = ("what", "figure", "of", "has", *(f"within {100 * fraction:g} %" for fraction in fractions))
    longer = "longer" if all(is_timely(one) for one in found) else "more"
    note = f"within 1 %: the least of it with which a run takes at most 1 % {longer} than with a thousand times what there is"
    return Grid("How much is enough", heads, tuple(rows), words=frozenset({0, 1, 2}), note=note)


def of_curve(document: Document, one: Document) -> Grid:
    """A curve: every machine at every point, and the gaps."""
    names, ours = list(document["hardware"]), machine(document["reference"])
    theirs = [name for name in names if name != document["reference"]]
    rows = []
    for point in one["points"]:
        values = [
            _UNFIT if name in point["reasons"] else said(one["metric"], point["values"].get(name), 4)
            for name in names
        ]
        rows.append((f"{point['value']:g}", *values, *(moved(point["gaps"].get(name)) for name in theirs)))
    heads = (one["title"], *map(machine, names), *(f"gap to {machine(name)}" for name in theirs))
    note = "; ".join(
        [
            *([f"held: {one['held']}"] if one["held"] else []),
            *([f"gap: {gap_words(one, ours, 'the other')}"] if theirs else []),
        ]
    )
    return Grid(f"{upper(called(one['metric']))} along {one['title']}", heads, tuple(rows), note=note)


def of_curve_beside(document: Document, one: Document) -> Grid:
    """What stands beside the metric of a curve: every machine at every point."""
    names, metric = list(document["hardware"]), one["metric"]
    rows = [
        (f"{point['value']:g}", *(_beside(document, point["metrics"].get(name), metric) for name in names))
        for point in one["points"]
    ]
    return _of_beside(document, (one["title"], *map(machine, names)), rows, metric, f"along {one['title']}")


def of_prices(document: Document) -> Grid:
    """What a million tokens cost, and the price at which another machine would cost as much as the reference."""
    machines = document["hardware"]
    reference = machines[document["reference"]]
    ours = (reference.get("tokens_per_s_per_gpu") or {}).get("full")
    priced = reference.get("price_usd_per_gpu_hour") is not None
    rows: list[tuple[Cell, ...]] = []
    for name, one in machines.items():
        tokens = one.get("tokens_per_s_per_gpu") or {}
        if not tokens.get("full"):
            continue
        price, cost = one.get("price_usd_per_gpu_hour"), one.get("usd_per_million_tokens") or {}
        even = None
        if ours and priced and name != document["reference"]:
            even = reference["price_usd_per_gpu_hour"] * tokens["full"] / ours
        dollars = (_usd(cost.get(end)) for end in ("naive", "full"))
        rows.append((machine(name), f"{tokens['full']:,.0f}", _usd(price), *dollars, _usd(even)))
    unpriced = [row[0] for row in rows if row[2] == "-"]
    heads = ("machine", "tokens/s/GPU", "$ a GPU-hour", "$ a M tokens, naive", "full", "breaks even at $")
    told = []
    if priced:
        told.append(
            "breaks even: the price of its GPU-hour at which a token costs as much as on "
            f"{machine(document['reference'])}, full design"
        )
    if unpriced:
        told.append(f"{joined(unpriced)}: no price in the profile, so no cost of a token")
    width = len(heads) if priced else len(heads) - 1
    shown = tuple(row[:width] for row in rows) if len(unpriced) < len(rows) else ()
    return Grid("Price of a million tokens", heads[:width], shown, note="; ".join(told))


def _usd(value: float | None) -> Cell:
    return "-" if value is None else f"{value:.3f}" if value < 100 else f"{value:,.0f}"


def of_verdicts(document: Document) -> Grid:
    """Export rules in short: a row for each machine, a column for each rule that may hold for it."""
    found = {case.variant: _ruled(case) for case in machines(document) if _ruled(case)}
    told = [one for one in next(iter(found.values()), []) if one["rule"] != "R2024"]  # of memory traded alone
    shown = [one["rule"] for one in told]
    rows = tuple(
        (machine(name), *(rules.word(one) for one in verdicts if one["rule"] in shown)) for name, verdicts in found.items()
    )  # fmt: skip
    cited = "; ".join(f"{one['rule']}: {one['citation']}" for one in told)
    words = frozenset(range(len(shown) + 1))
    return Grid("Export rules", ("machine", *shown), rows, words=words, note=f"{cited}. {_note(document)}")


def of_every_verdict(document: Document) -> Grid:
    """Export rules in full: a row for each machine and rule, with its numbers and citation."""
    rows: list[tuple[Cell, ...]] = []
    breaks = []
    for case in machines(document):
        breaks.append(len(rows))
        changed = case.result["provenance"].get("hardware", {}).get("overrides") or {}
        told = ", ".join(f"{key} {value}" for key, value in changed.items()) or "as it is"
        for verdict in _ruled(case):
            rows.append(
                (machine(case.variant), told, verdict["rule"], rules.days(verdict), verdict["sentence"], verdict["citation"])
            )  # fmt: skip
    heads = ("machine", "changed", "rule", "in force", "verdict", "citation")
    return Grid(
        "Export rules, in full", heads, tuple(rows), words=frozenset(range(6)), breaks=frozenset(breaks[1:]), note=_note(document),
    )  # fmt: skip


def _ruled(case: Case) -> list[Document]:
    """What export rules say of a machine."""
    return list(case.result["provenance"].get("export_rules", {}).get("verdicts") or [])


def _note(document: Document) -> str:
    said = (case.result["provenance"].get("export_rules", {}).get("note", "") for case in machines(document))
    return " ".join(dict.fromkeys(filter(None, said)))
