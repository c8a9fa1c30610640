"""The metric of a ladder: its values, how far a choice moves it, and how far machines are apart, in figures and words.

One convention for tables, plots and sentences. A *change* is of the metric that is shown: a rate that rises has a plus, and
so has a time that grows; `LadderMetric.change_note` says which of the two is better. A *gap* is what the reference takes over what
another machine takes for the same work, so plus is slower, whatever the metric. Both are percentages below a doubling and
factors from there on: `x5.24`, as +424 % is hard to read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sim.metrics import dimension_of, phrase
from sim.show.grid import Cell
from sim.show.views.names import capital
from sim.units import show

NONE = 0.0005
"""Fractions below it round to 0.0 %."""
_SUMS = {"dispatch.time_s + combine.time_s": "dispatch and combine"}
"""Sums with a name of their own."""


# --- changes --------------------------------------------------------------------------------------------------------


def change(new: float | None, old: float | None) -> float | None:
    """Return how far a metric moved [fraction]; None where one of two designs did not run, or from nothing."""
    if new is None or old is None or (new and not old):
        return None
    return new / old - 1 if old else 0.0


def percent(fraction: float | None, digits: int = 1) -> Cell:
    """Return a signed percentage; `-` for none, `0` for what rounds to it."""
    if fraction is None:
        return "-"
    text = f"{100 * fraction:+,.{digits}f} %"
    return f"{0:.{digits}f} %" if float(text[1:].replace(",", "").split()[0]) == 0 else text


def change_text(fraction: float | None, digits: int = 1) -> Cell:
    """Return a change or a gap: a signed percentage, from a doubling on a factor."""
    if fraction is None or not _doubles(fraction):
        return percent(fraction, digits)
    return f"x{_factor(1 + fraction)}"


def _doubles(fraction: float) -> bool:
    return fraction >= 1 - NONE


def _factor(value: float) -> str:
    """Return a factor with three digits."""
    return f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


# --- the metric -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LadderMetric:
    """A metric by its dotted name, or several joined by `+`, and whether more of it is better."""

    name: str
    more_is_better: bool = False

    @property
    def dimension(self) -> str:
        """Its dimension, that of its first part."""
        return dimension_of(self.name.partition("+")[0].strip())

    @property
    def label(self) -> str:
        """Its name in words: `time per output token`."""
        return _SUMS.get(self.name) or " + ".join(phrase(part.strip()) for part in self.name.split("+"))

    @property
    def title(self) -> str:
        """The label with a capital."""
        return capital(self.label)

    @property
    def is_timely(self) -> bool:
        """True of a time, and of a rate, which leaves a time for each piece of work; false of an amount."""
        return self.more_is_better or self.dimension == "s"

    def text(self, value: float | None, digits: int = 3) -> Cell:
        """Return a value with its unit; `-` for none."""
        if value is None:
            return "-"
        if self.dimension == "number" and abs(value) >= 1000:
            return f"{value:,.0f}"
        return show(value, self.dimension, digits)

    def cell(self, value: float | None) -> Cell:
        """Return a value for a table, with four digits; `does not fit` for none."""
        return "does not fit" if value is None else self.text(value, 4)

    def takes(self, value: float) -> float:
        """Return what a design takes: its value, or the reciprocal where more is better."""
        if not self.more_is_better:
            return value
        return 1 / value if value else math.inf

    def cost(self, change: float) -> float:
        """Return how much more a design takes when its metric changes by so much [fraction]; less is better."""
        return self.takes(1 + change) - 1

    # --- words -------------------------------------------------------------------------------------------------

    @property
    def longer(self) -> str:
        """The comparative of what is taken: `longer`, or `more` of an amount."""
        return "longer" if self.is_timely else "more"

    @property
    def change_note(self) -> str:
        """A note on the sign of a change that is the better one."""
        if self.more_is_better:
            return "plus is faster"
        return "minus is faster" if self.is_timely else "minus is less"

    def gap_note(self, reference: str, other: str) -> str:
        """Return what a gap means, for a note."""
        less, much = ("less time", "long") if self.is_timely else ("less", "much")
        return f"how much {self.longer} {reference} takes than {other} for the same work (minus: {less}; x2: twice as {much})"

    def gap_phrase(self, gap: float) -> str:
        """Return a gap inside a sentence, `reference takes ... other`: `as long as`, `12.3 % longer than`."""
        much = "long" if self.is_timely else "much"
        if abs(gap) < NONE:
            return f"as {much} as"
        if _doubles(gap):
            return f"{_factor(1 + gap)} times as {much} as"
        if gap > 0:
            return f"{100 * gap:.1f} % {self.longer} than"
        return f"{-100 * gap:.1f} % less {'time ' if self.is_timely else ''}than"

    def speed_phrase(self, new: float, old: float) -> str:
        """Return what became of a design, `3.41 times as fast`; of an amount, by how much it moved."""
        if not self.is_timely:
            return change_text(change(new, old))
        return f"{_factor(self.takes(old) / self.takes(new))} times as fast"
