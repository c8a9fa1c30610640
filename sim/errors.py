"""What can go wrong for a user, and how it is said.

A problem names *where* it stands, *what was got*, *what was wanted* and the *nearest right thing*. All problems of a
document travel in one `InputError`, so that a person mends a file once. Tracebacks are for our own bugs only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

EXIT_DONE = 0
EXIT_MISSED = 1
EXIT_BAD_INPUT = 2
EXIT_INFEASIBLE = 3

_MOST_SHOWN = 200  # characters of what was got
_LONGEST_PLACE = 1000  # a path is there to be copied
_MOST_TOLD = 100  # problems of one message


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a document: file name, line and column, both counted from 1 (0 = unknown)."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        known = [str(number) for number in (self.line, self.column) if number]
        return ":".join([shown(self.file, _LONGEST_PLACE), *known])


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in the input."""

    where: Mark | None
    key: str
    got: str
    wanted: str
    nearest: str | None = None

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        key = f"{shown(self.key)}: " if self.key else ""
        hint = f"; did you mean {shown(self.nearest)}?" if self.nearest else ""
        return f"{place}{key}got {shown(self.got)}; wanted {printable(self.wanted)}{hint}"


class MoesimError(Exception):
    """Base of what we say to a user without a traceback."""

    exit_code = EXIT_MISSED


class InputError(MoesimError):
    """The input is wrong; carries every problem found, and tells the first hundred."""

    exit_code = EXIT_BAD_INPUT

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        lines = [str(problem) for problem in self.problems[:_MOST_TOLD]]
        left = len(self.problems) - len(lines)
        super().__init__("\n".join([*lines, *([f"... and {left:,} more problems"] if left else [])]))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[Problem, ...]]]:
        """Travels between processes as its problems, not as its text."""
        return type(self), (self.problems,)


class InfeasibleError(MoesimError):
    """The input is well formed, but no machine could do it; the message says why."""

    exit_code = EXIT_INFEASIBLE


class DoesNotFitError(InfeasibleError):
    """Memory overflows: what a GPU would need, what it has, and the parts, the biggest first [bytes]."""

    def __init__(
        self, message: str, *, needed_bytes: float, capacity_bytes: float, parts: Mapping[str, float]
    ) -> None:
        self.needed_bytes, self.capacity_bytes, self.parts = needed_bytes, capacity_bytes, dict(parts)
        super().__init__(message)


def printable(text: str) -> str:
    """Text as one line that a terminal takes for nothing but text: whatever cannot be seen is escaped."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def shown(text: str, most: int = _MOST_SHOWN) -> str:
    """A user's text in a message: `printable`, and cut in the middle where it is longer than `most` characters."""
    plain = printable(text if len(text) <= 2 * most else text[:most] + text[-most:])
    if len(plain) <= most:
        return plain
    return f"{plain[: most * 2 // 3]}...{plain[-most // 4 :]}"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word closest to `word`, or None where nothing is close."""
    candidates: Sequence[str] = list(known)
    by_case = {candidate.lower(): candidate for candidate in candidates}
    if word.lower() in by_case:
        return by_case[word.lower()]
    found = difflib.get_close_matches(word.lower(), by_case, n=1, cutoff=0.55)
    return by_case[found[0]] if found else None
