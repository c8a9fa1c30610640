"""A validation in sentences: which bars are met, what the figures are, how far predictions are off, and the worst row.

Every figure is of one kind and has one use, and the numbers add up: figures that were printed by others, measured for this
project, run in a packet-level simulator or follow from a formula; calibrated on, predicted, exact, or printed only.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.views.names import joined
from sim.show.views.validation import ComparedRow, ValidationView

_KINDS = {
    "published": ("published", "published"),
    "measured": ("measured for this project", "measured for this project"),
    "packet_level": ("packet-level run", "packet-level runs"),
    "closed_form": ("closed form", "closed forms"),
}
"""Kind of figure -> the words for one of them and for several."""
_PURPOSES = {
    "calibrated on": "calibrated on",
    "predicted": "predicted",
    "exact": "to be met exactly",
    "implied": "implied by another row",
    "identity": "formulas written down again",
    "own count": "counts of our own",
}


def finding(view: ValidationView) -> list[str]:
    """Return how many bars are met, over figures of which kinds and uses, the mean error of predictions, the worst row."""
    rows = [row for row in view.rows if row.counts]
    if not rows:
        return [f"{len(view.rows)} published figures were printed and none is counted."]
    sentences = [_bars(view, rows), _uses(rows, len(view.rows) - len(rows))]
    predicted = [abs(row.error_fraction) for row in rows if row.purpose == "predicted"]
    worst = max(rows, key=lambda row: abs(row.error_fraction))
    end = f"worst row is {worst.group} {worst.id} at {worst.error_fraction:+.1%}"
    if not predicted:
        return [*sentences, f"The {end}."]
    mean = sum(predicted) / len(predicted)
    return [*sentences, f"The {len(predicted)} predictions are off by {mean:.1%} on average; the {end}."]


def _bars(view: ValidationView, rows: Sequence[ComparedRow]) -> str:
    bars = [
        bar.ok
        for group in view.groups
        for bar in group.bars
        if any(row.counts and bar.name in (None, row.bar) for row in group.rows)
    ]
    all_met = f"All {len(bars)} bars are" if len(bars) > 1 else "The bar is"
    met = all_met if all(bars) else f"{sum(bars)} of {len(bars)} bars are"
    kinds = [row.kind for row in rows]
    counts = {kind: kinds.count(kind) for kind in _KINDS if kind in kinds}
    parts = [f"{count} {_KINDS[kind][count != 1]}" for kind, count in counts.items()]
    failing = [group.name for group in view.groups if not group.ok]
    missed = f"; {', '.join(failing)} {'misses' if len(failing) == 1 else 'miss'}" if failing else ""
    return f"{met} met over {len(rows)} figure{'' if len(rows) == 1 else 's'} ({', '.join(parts)}){missed}."


def _uses(rows: Sequence[ComparedRow], printed: int) -> str:
    purposes = [row.purpose for row in rows]
    parts = [
        f"{purposes.count(purpose)} {words}" for purpose, words in _PURPOSES.items() if purpose in purposes
    ]
    more = f"; {printed} more {'is' if printed == 1 else 'are'} printed and not counted" if printed else ""
    return f"By use: {joined(parts)}{more}."
