"""One table as plain text cells, before the terminal or a page gives it a look; and how its cells are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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

    def named(self, names: Sequence[str], column: int = 0, head: str = "variant") -> Grid:
        """The grid with a column of words more: a name for each row."""
        rows = tuple((*row[:column], name, *row[column:]) for row, name in zip(self.rows, names, strict=True))
        words = frozenset({column, *(i + (i >= column) for i in self.words)})
        heads = (*self.heads[:column], head, *self.heads[column:])
        return replace(self, heads=heads, rows=rows, words=words)

    def without(self, *columns: int) -> Grid:
        """The grid without some columns."""
        keep = [i for i in range(len(self.heads)) if i not in columns]
        return replace(
            self,
            heads=tuple(self.heads[i] for i in keep),
            rows=tuple(tuple(row[i] for i in keep) for row in self.rows),
            words=frozenset(new for new, old in enumerate(keep) if old in self.words),
        )

    def without_empty(self) -> Grid:
        """The grid without columns that say nothing."""
        columns = list(zip(*self.rows, strict=True))
        return self.without(*(i for i, cells in enumerate(columns) if i and not {*cells} - {"", "-"}))


def shared(
    rows: Mapping[str, Sequence[float | None]],
    wholes: Sequence[float | None],
    cell: Callable[[float | None], Cell],
) -> tuple[tuple[Cell, ...], ...]:
    """Make rows of labelled values, a pair of columns for each run: the value, and its share of that run's whole."""
    return tuple(
        (
            label,
            *(
                text
                for value, whole in zip(values, wholes, strict=True)
                for text in (cell(value), share_cell(None if value is None or not whole else value / whole))
            ),
        )
        for label, values in rows.items()
    )


def time_cell(value: Any) -> Cell:
    """A time [s] with all its digits; `-` for none."""
    return "-" if value is None else padded(show(float(value), "s"))


def bytes_cell(size: float | None) -> Cell:
    """A size of memory in three digits; `-` for none."""
    return "-" if size is None else padded(show(size, "bytes", 3), 3)


def share_cell(fraction: float | None) -> Cell:
    """A share in percent; `-` for none."""
    return "-" if fraction is None else f"{fraction:.1%}"


def ratio_cell(ratio: float | None) -> Cell:
    """A ratio; `-` for none."""
    return "-" if ratio is None else f"{ratio:.3f}"


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
