"""A validation in sentences: which bars are met, what the figures are, how far predictions are off, and the worst row.

Every figure is of one kind and has one use, and the numbers add up: figures that were printed by others, measured for this
project, run in a packet-level simulator or follow from a formula; calibrated on, predicted, exact, or printed only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sim.show.views.run import Result, counts, joined

KINDS = {
    "published": ("published", "published"),
    "measured": ("measured for this project", "measured for this project"),
    "packet_level": ("packet-level run", "packet-level runs"),
    "closed_form": ("closed form", "closed forms"),
}
"""What figures are -> one and several of them as a reader calls them."""
_Rows = Sequence[tuple[str, Mapping[str, Any]]]


def finding(report: Result) -> list[str]:
    """How many bars are met, over figures of which kinds and uses, the mean error of the predictions, and the worst row."""
    groups = report["groups"]
    every = [(name, row) for name, group in groups.items() for row in group["rows"]]
    rows = [(name, row) for name, row in every if counts(row)]
    if not rows:
        return ["No published figure was compared."]
    said = [_bars(groups, rows), _uses(rows, len(every) - len(rows))]
    predicted = [abs(row["error_fraction"]) for _, row in rows if _use(row) == "predicted"]
    group, worst = max(rows, key=lambda one: abs(one[1]["error_fraction"]))
    end = f"worst row is {group} {worst['id']} at {worst['error_fraction']:+.1%}"
    if not predicted:
        return [*said, f"The {end}."]
    mean = sum(predicted) / len(predicted)
    return [*said, f"The {len(predicted)} predictions are off by {mean:.1%} on average; the {end}."]


def worst_first(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows in the order in which a reader looks for trouble: missed ones, then those that count, by the size of their error."""
    return sorted(rows, key=lambda row: (bool(row["ok"]), not counts(row), -abs(row["error_fraction"])))


def _bars(groups: Mapping[str, Any], rows: _Rows) -> str:
    bars = [bool(bar["ok"]) for one in groups.values() for bar in one.get("bars") or [one]]
    met = f"All {len(bars)} bars are" if all(bars) else f"{sum(bars)} of {len(bars)} bars are"
    kinds = [_kind(groups[name], row) for name, row in rows]
    told = [
        f"{kinds.count(kind)} {names[kinds.count(kind) != 1]}"
        for kind, names in KINDS.items()
        if kind in kinds
    ]
    failing = [name for name, one in groups.items() if not one["ok"]]
    missed = f"; {', '.join(failing)} {'misses' if len(failing) == 1 else 'miss'}" if failing else ""
    return f"{met} met over {len(rows)} figure{'' if len(rows) == 1 else 's'} ({', '.join(told)}){missed}."


def _uses(rows: _Rows, printed: int) -> str:
    uses = [_use(row) for _, row in rows]
    names = {"calibrated": "calibrated on", "predicted": "predicted", "exact": "to be met exactly"}
    told = [f"{uses.count(use)} {name}" for use, name in names.items() if use in uses]
    beside = f"; {printed} more {'is' if printed == 1 else 'are'} printed and not counted" if printed else ""
    return f"By use: {joined(told)}{beside}."


def _use(row: Mapping[str, Any]) -> str:
    """`calibrated`, `exact` or `predicted`, whether it is met or missed."""
    if row.get("use") == "calibration":
        return "calibrated"
    return "exact" if row["tolerance_fraction"] == 0 or row.get("use") == "exact" else "predicted"


def _kind(group: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What a row's figure is, as its source says."""
    source = (group.get("sources") or {}).get(row.get("source")) or {}
    mine = "measured" if source.get("confidence") == "measured" else "published"
    return str(source.get("kind", mine))
