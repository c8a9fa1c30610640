"""Export rules of the parts in a result: what each rule says of the hardware as it ran, overrides included."""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.grid import Cell, Grid
from sim.show.views.provenance import Provenance, RuleVerdict
from sim.show.views.run import RunView

_WORDS = {
    ("restricted", True): "restricted",
    ("restricted", False): "not restricted",
    ("flagged", True): "flagged",
    ("flagged", False): "not flagged",
    ("eligible", True): "case by case",
    ("eligible", False): "denial presumed",
}


def parts(runs: Sequence[RunView]) -> dict[str, Provenance]:
    """The provenance of each part in some runs by its name; parts that differ in overrides are apart."""
    named: dict[str, Provenance] = {}
    for run in runs:
        for origin in (run.provenance, *run.provenance.others):
            if origin.part and origin.verdicts:
                named.setdefault(origin.part.label, origin)
    return named


def grid(runs: Sequence[RunView]) -> Grid:
    """A row for each rule, a column for each part."""
    columns = parts(runs)
    rules: dict[str, RuleVerdict] = {}
    for origin in columns.values():
        rules = {verdict.rule: verdict for verdict in origin.verdicts} | rules
    rows: list[tuple[Cell, ...]] = []
    for rule, first in rules.items():
        words = [word(next(v for v in origin.verdicts if v.rule == rule)) for origin in columns.values()]
        rows.append((rule, first.days, *words, first.citation))
    heads = ("rule", "in force", *columns, "citation")
    note = " ".join(dict.fromkeys(origin.rules_note for origin in columns.values()))
    return Grid(
        "What the rules say of each part", heads, tuple(rows), words=frozenset(range(len(heads))), note=note
    )


def word(verdict: RuleVerdict) -> str:
    """The verdict in a word or two."""
    return (
        _WORDS.get((verdict.kind, bool(verdict.holds)), "undecided")
        if verdict.holds is not None
        else "undecided"
    )


def sentences(runs: Sequence[RunView]) -> dict[str, list[str]]:
    """The sentences of every rule by part, oldest first."""
    return {
        name: [f"{verdict.rule}: {verdict.sentence}" for verdict in origin.verdicts]
        for name, origin in parts(runs).items()
    }
