"""Export rules of the parts in a result: what each rule says of the hardware as it ran, overrides included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.show.grid import Cell, Grid
from sim.show.views.names import hardware_name
from sim.show.views.run import Case

_WORDS = {
    ("restricted", True): "restricted",
    ("restricted", False): "not restricted",
    ("flagged", True): "flagged",
    ("flagged", False): "not flagged",
    ("eligible", True): "case by case",
    ("eligible", False): "denial presumed",
}


def parts(found: Sequence[Case]) -> dict[str, Mapping[str, Any]]:
    """The provenance of each part in some cases by its name; parts that differ in overrides are apart."""
    named: dict[str, Mapping[str, Any]] = {}
    for case in found:
        origin = case.result.get("provenance") or {}
        if "export_rules" in origin and "hardware" in origin:
            named.setdefault(_name(origin["hardware"]), origin)
    return named


def _name(hardware: Mapping[str, Any]) -> str:
    """`H800`, or `H800 with gpu.scale_up.bandwidth 450 GB/s`."""
    changed = [f"{key} {value}" for key, value in (hardware.get("overrides") or {}).items()]
    beside = f" with {', '.join(changed)}" if changed else ""
    return f"{hardware_name(str(hardware['name']))}{beside}"


def grid(found: Sequence[Case]) -> Grid:
    """A row for each rule, a column for each part."""
    columns = parts(found)
    rules: dict[str, Mapping[str, Any]] = {}
    for origin in columns.values():
        for verdict in origin["export_rules"]["verdicts"]:
            rules.setdefault(verdict["rule"], verdict)
    rows: list[tuple[Cell, ...]] = []
    for rule, first in rules.items():
        said = [
            word(next(v for v in origin["export_rules"]["verdicts"] if v["rule"] == rule))
            for origin in columns.values()
        ]
        rows.append((rule, days(first), *said, str(first["citation"])))
    note = " ".join(dict.fromkeys(origin["export_rules"]["note"] for origin in columns.values()))
    heads = ("rule", "in force", *columns, "citation")
    return Grid(
        "What the rules say of each part", heads, tuple(rows), words=frozenset(range(len(heads))), note=note
    )


def days(verdict: Mapping[str, Any]) -> str:
    """When the rule is or was in force."""
    since, until = verdict["effective"], verdict["until"]
    return f"{since} to {until}" if until else f"from {since}"


def word(verdict: Mapping[str, Any]) -> str:
    """The verdict in a word or two."""
    return _WORDS.get((verdict["kind"], verdict["holds"]), "undecided")


def sentences(found: Sequence[Case]) -> dict[str, list[str]]:
    """The sentences of every rule by part, oldest first."""
    return {
        name: [f"{v['rule']}: {v['sentence']}" for v in origin["export_rules"]["verdicts"]]
        for name, origin in parts(found).items()
    }
