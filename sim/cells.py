"""CSV files as cells that remember their place: rows with their lines, and problems at the line and column of a cell.

A column is counted in cells, as a spreadsheet shows it, not in characters.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sim import files, limits
from sim.errors import InputError, Mark, Problem, nearest

Row = tuple[int, list[str]]
"""A line, counted from 1, and its cells, stripped."""

_MAX_PROBLEMS = 20
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")  # str.splitlines() knows ends of lines that no CSV has


@dataclass(slots=True)
class Sheet:
    """The rows of a CSV below its header, the place of each column, and its problems so far."""

    file: Path
    rows: list[Row]
    at: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    more: int = 0
    """Faults after the first that are not kept."""

    def problem(self, line: int, column: str | int, got: str, wanted: str) -> None:
        """Note a problem in a cell, by the name of its column or by its place, from 0; of those past the first, the number."""
        if len(self.problems) >= _MAX_PROBLEMS:
            self.more += 1
            return
        place = self.at.get(column, 0) if isinstance(column, str) else column
        key = column if isinstance(column, str) else ""
        self.problems.append(Problem(Mark(str(self.file), line, place + 1), key, got, wanted))

    def raise_problems(self) -> None:
        """Raise `InputError` with the first problems and the number of the others, if there are any."""
        more = self.more + max(0, len(self.problems) - _MAX_PROBLEMS)
        tail = [Problem(Mark(str(self.file)), "", f"{more} more problems", "none")] if more else []
        if self.problems:
            raise InputError([*self.problems[:_MAX_PROBLEMS], *tail])


def rows(file: Path, wanted: str, where: Mark | None = None, key: str = "") -> list[Row]:
    """Read the rows of a CSV that hold anything, stripped, with their lines.

    Messages say what was `wanted`, and `where` it is named.
    InputError for text that is no CSV, and as soon as there is more of it than `limits` has room for.
    """
    return rows_of(file, files.text(file, wanted, where, key, limits.CSV_BYTES), wanted)


def rows_of(file: Path, text: str, wanted: str) -> list[Row]:
    """Read the rows of a CSV whose text is there; parameters, result and errors as of `rows`."""
    return list(each_row(file, text, wanted, limits.CSV_ROWS, limits.CSV_CELLS))


def each_row(file: Path, text: str, wanted: str, most_rows: int, most_cells: int) -> Iterator[Row]:
    """Yield the rows of a CSV one after the other, so that the text alone is held; errors as of `rows`, with limits of its own."""
    reader = csv.reader((line[0] for line in _LINE.finditer(text)), strict=True)
    num_rows = num_cells = 0
    try:
        for row in reader:
            num_rows += 1
            num_cells += len(row)
            if num_rows > most_rows or num_cells > most_cells:
                most = most_rows if num_rows > most_rows else most_cells
                got = f"more than {most:,} {'rows' if num_rows > most_rows else 'cells'}"
                raise InputError(
                    Problem(Mark(str(file), reader.line_num, 1), "", got, f"{wanted}, a shorter one")
                )
            row = [cell.strip() for cell in row]
            if any(row):
                yield reader.line_num, row
    except csv.Error as error:
        raise InputError(Problem(Mark(str(file), reader.line_num, 1), "", str(error), wanted)) from None


def sheet(
    file: Path,
    wanted: str,
    needed: Sequence[str],
    others: Sequence[str] = (),
    where: Mark | None = None,
    key: str = "",
) -> Sheet:
    """Read a CSV whose header has all columns `needed` and maybe `others`, in any order; see `rows` for the rest."""
    return headed(file, rows(file, wanted, where, key), needed, others)


def headed(
    file: Path,
    table: list[Row],
    needed: Sequence[str],
    others: Sequence[str] | None = (),
    instead: str = "",
) -> Sheet:
    """Take the first row of a CSV as its header, of any `others` where None; InputError with every problem of it.

    `instead` is what would do in place of the needed columns, for messages.
    """
    line, header = table[0] if table else (1, [])
    checked = Sheet(file, table[1:], {name: i for i, name in reversed(list(enumerate(header)))})
    top, known = str(file), header if others is None else (*needed, *others)
    checked.problems += [
        Problem(
            Mark(top, line, 1),
            name,
            "no such column",
            f"the columns {', '.join(needed)}{instead}",
            nearest(name, header),
        )
        for name in needed
        if name not in header
    ]
    for i, name in enumerate(header):
        if name not in known:
            got, wanted = f"the unknown column '{name}'", f"one of: {', '.join(known)}"
            checked.problems.append(Problem(Mark(top, line, i + 1), name, got, wanted, nearest(name, known)))
        elif i != checked.at[name]:
            got = f"the column '{name}' {header.count(name)} times"
            checked.problems.append(Problem(Mark(top, line, i + 1), name, got, "it once"))
    checked.raise_problems()
    return checked
