"""One table as plain text cells, before the terminal or a page gives it a look; and how its cells are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sim.units import show

Cell = str


@dataclass(frozen=True, slots=True)
class Grid:
    """Title, column heads and rows of text; numbers stand right, words left."""

    title: str
    heads: tuple[str, ...]
    """Heads of columns; a new line in one is where a terminal breaks it."""
    rows: tuple[tuple[Cell, ...], ...]
    words: frozenset[int] = frozenset({0})
    """Columns of words."""
    bad: frozenset[int] = frozenset()
    """Rows that miss a tolerance."""
    breaks: frozenset[int] = frozenset()
    """Rows before which a new group begins."""
    note: str = ""

    def without_empty(self) -> Grid:
        """The grid without columns that say nothing."""
        keep = [
            i for i in range(len(self.heads)) if i == 0 or any(row[i] not in ("", "-") for row in self.rows)
        ]
        return Grid(
            self.title,
            tuple(self.heads[i] for i in keep),
            tuple(tuple(row[i] for i in keep) for row in self.rows),
            frozenset(new for new, old in enumerate(keep) if old in self.words),
            self.bad,
            self.breaks,
            self.note,
        )


def time_cell(value: Any) -> Cell:
    """A time [s] with all its digits; `-` for none."""
    return "-" if value is None else padded(show(float(value), "s"))


def value_cell(dimension: str, value: Any) -> Cell:
    """A value of a dimension with all its digits; `-` for none and for nothing."""
    return "-" if value is None or value == 0 else padded(show(float(value), dimension))


def padded(text: str, digits: int = 4) -> str:
    """The number of a quantity with all its digits, so that columns align: `1.36 ms` -> `1.360 ms`."""
    number, space, unit = text.partition(" ")
    missing = digits - sum(c.isdigit() for c in number.lstrip("-0."))
    if "e" in number or missing <= 0:
        return text
    return f"{number if '.' in number else number + '.'}{'0' * missing}{space}{unit}"
