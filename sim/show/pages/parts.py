"""The parts that reports of every kind are made of, as records: each is what a macro of `templates/parts.html.j2` shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from sim.show.canvas import Picture
from sim.show.failures import Failure, attempt
from sim.show.grid import Grid
from sim.show.pages import page
from sim.show.pages.page import Figure
from sim.show.plots import kinds as plots
from sim.show.tables import rules
from sim.show.tables import run as grids
from sim.show.views.run import RunView

Pairs = Sequence[tuple[str, str]]
"""Terms and what they mean, or keys and their values."""


_ABOVE = 380  # characters of an answer above its picture, on the first screen of a telephone


@dataclass(frozen=True, slots=True)
class Head:
    """Frame of a report."""

    kicker: str
    """Kind of the report."""
    title: str
    facts: Pairs
    """The question: what ran on what."""
    answer: Sequence[str]
    footer: Sequence[str]
    lead: Figure | None = None
    """Picture of the answer; it stands on the first screen with the first sentences."""

    @property
    def num_above(self) -> int:
        """Sentences above the picture: the first, and those that leave room for it."""
        ends = accumulate(map(len, self.answer))
        return max(1, sum(end <= _ABOVE for end in ends))


@dataclass(frozen=True, slots=True)
class Leaning:
    """Parameters that a report leans on and that have no measurement of their own."""

    grid: Grid
    counts: str
    """Number of each grade."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Verdicts of export rules on each part in the report, as it ran."""

    grid: Grid
    numbers: Sequence[tuple[str, Sequence[str]]]
    """Part, and the numbers behind each of its verdicts."""


@dataclass(frozen=True, slots=True)
class Rerun:
    """The file that `moesim COMMAND` takes to do it again."""

    command: str
    yaml: str
    note: str = ""

    @property
    def noun(self) -> str:
        """Kind of the file."""
        return "scenario" if self.command == "run" else self.command


def figure(ident: str, drawn: Picture | Failure | Callable[[], Picture], title: str | None = None) -> Figure:
    """Prepare a figure of a report, drawn or by what draws it; a note in its place where that fails."""
    if isinstance(drawn, Failure):
        return drawn
    return attempt(
        ident,
        lambda: page.drawing(f"fig-{ident}", drawn if isinstance(drawn, Picture) else drawn(), title),
    )


def unlike(answer: Sequence[str], lead: Figure | None) -> Figure | None:
    """Return the figure of an answer; under the words of its kind, where its own repeat the sentence above it."""
    if lead is None or isinstance(lead, Failure) or not answer or not lead.title.startswith(answer[0]):
        return lead
    kind = lead.ident.removeprefix("fig-")
    return replace(lead, title=plots.KINDS[kind][0].partition(":")[0].removesuffix("."))


def leaning(runs: Sequence[RunView]) -> Leaning | None:
    """Collect the parameters without a measurement of their own; None where there are none."""
    grid = grids.leaned_on(runs)
    if not grid.rows:
        return None
    counts = {
        grade: sum(row[0] == grade for row in grid.rows) for grade in ("override", "assumed", "derived")
    }
    return Leaning(grid, ", ".join(f"{count} {grade}" for grade, count in counts.items() if count))


def export_rules(runs: Sequence[RunView]) -> Rules | None:
    """Collect the verdicts of export rules; None where there are none."""
    grid = rules.grid(runs)
    return Rules(grid, tuple(rules.sentences(runs).items())) if grid.rows else None


def filled(*grids: Grid) -> tuple[Grid, ...]:
    """The grids that have rows."""
    return tuple(grid for grid in grids if grid.rows)
