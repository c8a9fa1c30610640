"""How much a choice moves, and how far machines are apart: the figures, and the words for them.

One convention for tables, figures and sentences. A *change* is of the metric that is shown: a rate that rises has a plus, and
so has a time that grows; `sense` says which of the two is better. A *gap* is what the reference takes over what another
machine takes for the same work, so plus is slower, whatever the metric. Both are percentages below a doubling and factors
from there on: `x5.24`, as +424 % is hard to read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sim.show.grid import Cell
from sim.show.views.run import joined
from sim.units import dimension_of

Document = Mapping[str, Any]
Rung = Mapping[str, Any]

NONE = 0.0005
"""Fractions below it round to 0.0 %."""


# --- figures --------------------------------------------------------------------------------------------------------


def percent(fraction: float | None, digits: int = 1) -> Cell:
    """A signed percentage; `-` for none, `0` for what rounds to it."""
    if fraction is None:
        return "-"
    text = f"{100 * fraction:+,.{digits}f} %"
    return f"{0:.{digits}f} %" if float(text[1:].replace(",", "").split()[0]) == 0 else text


def moved(fraction: float | None, digits: int = 1) -> Cell:
    """A change or a gap: a signed percentage, from a doubling on a factor."""
    if fraction is None or not _doubles(fraction):
        return percent(fraction, digits)
    return f"x{_factor(1 + fraction)}"


def _doubles(fraction: float) -> bool:
    return fraction >= 1 - NONE


def _factor(value: float) -> str:
    """A factor with three digits."""
    return f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


# --- changes --------------------------------------------------------------------------------------------------------


def change(new: float | None, old: float | None) -> float | None:
    """How far a metric moved [fraction]; None where one of the two designs did not run, or where it came from nothing."""
    if new is None or old is None or (new and not old):
        return None
    return new / old - 1 if old else 0.0


def change_in_turn(rung: Rung, before: Rung, on: str) -> float | None:
    """What a choice moves when it joins those before it [fraction]."""
    return change(rung["values"]["cumulative"][on], before["values"]["cumulative"][on])


def change_alone(document: Document, rung: Rung, on: str) -> float | None:
    """What this choice alone moves in the naive design [fraction]."""
    naive = document["rungs"][0]["values"]["cumulative"][on]
    return change(rung["values"]["added_first"][on], naive)


def change_removed(document: Document, rung: Rung, on: str) -> float | None:
    """What the full design moves by without this choice, and without what goes with it [fraction]."""
    full = document["rungs"][-1]["values"]["cumulative"][on]
    return change(rung["values"]["removed_last"][on], full)


def takes(value: float, more_is_better: bool) -> float:
    """What a design takes: its value, or the reciprocal where more is better."""
    if not more_is_better:
        return value
    return 1 / value if value else math.inf


def cost(document: Document, change: float) -> float:
    """How much more a design takes when its metric changes by so much [fraction]: less is better."""
    return takes(1 + change, document["metric"]["more_is_better"]) - 1


def goes_alone(rung: Rung) -> bool:
    """Whether the removal of a choice undoes no other one."""
    return not rung["takes_along"]


def goes_with_it(document: Document, rung: Rung) -> str:
    """The other choices that a removal undoes or sets otherwise, for a table; "" for none."""
    gone, altered = _others(document, rung)
    return "; ".join(filter(None, (gone, altered and f"{altered} (set otherwise)")))


def removal(document: Document, rung: Rung, mark: str = "") -> str:
    """A choice that is removed, with what goes along, titles in marks: `One copy a rank, and with it Two hops`."""
    gone, altered = _others(document, rung, mark)
    told = (
        f"{mark}{rung['title']}{mark}",
        gone and f"and with it {gone}",
        altered and f"with another setting of {altered}",
    )
    return ", ".join(filter(None, told))


def _others(document: Document, rung: Rung, mark: str = "") -> tuple[str, str]:
    """Titles of the choices that a removal undoes, and of those that it sets otherwise."""
    titles = {one["name"]: f"{mark}{one['title']}{mark}" for one in document["rungs"]}
    return joined([titles[name] for name in rung["takes_along"]]), joined(
        [titles[name] for name in rung["alters"]]
    )


# --- words ----------------------------------------------------------------------------------------------------------


def is_timely(metric: Document) -> bool:
    """Whether a metric is a time, or a rate that leaves a time for each piece of work; else it is an amount.

    `metric` says its name, under `name` or `metric`, and whether `more_is_better`.
    """
    name = str(metric.get("name") or metric["metric"])
    return bool(metric["more_is_better"]) or dimension_of(name.partition("+")[0].strip()) == "s"


def sense(document: Document) -> str:
    """Which sign of a change is the better one."""
    if document["metric"]["more_is_better"]:
        return "plus is faster"
    return "minus is faster" if is_timely(document["metric"]) else "minus is less"


def gap_words(metric: Document, reference: str, other: str) -> str:
    """What a gap means, for a note; `metric` as `is_timely` wants it."""
    more, less, much = ("longer", "less time", "long") if is_timely(metric) else ("more", "less", "much")
    return f"how much {more} {reference} takes than {other} for the same work (minus: {less}; x2: twice as {much})"


def against(gap: float, timely: bool) -> str:
    """A gap inside a sentence: `reference takes ... other`."""
    much = "long" if timely else "much"
    if abs(gap) < NONE:
        return f"as {much} as"
    if _doubles(gap):
        return f"{_factor(1 + gap)} times as {much} as"
    if gap > 0:
        return f"{100 * gap:.1f} % {'longer' if timely else 'more'} than"
    return f"{-100 * gap:.1f} % less {'time ' if timely else ''}than"


def speed(document: Document, new: float, old: float) -> str:
    """What became of a design: `3.41 times as fast`; of an amount, by how much it moved."""
    if not is_timely(document["metric"]):
        return moved(change(new, old))
    more = document["metric"]["more_is_better"]
    return f"{_factor(takes(old, more) / takes(new, more))} times as fast"
