"""What can go wrong for a user, and how it is said.

A fault names *where* it stands, *what was got*, *what was wanted* and the *nearest right thing*. All faults of a
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


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a document: file name, line and column, both counted from 1 (0 = unknown)."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in the input."""

    where: Mark | None
    key: str
    got: str
    wanted: str
    nearest: str | None = None

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        key = f"{self.key}: " if self.key else ""
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{place}{key}got {self.got}; wanted {self.wanted}{hint}"


class MoesimError(Exception):
    """Base of what we say to a user without a traceback."""

    exit_code = EXIT_MISSED


class InputError(MoesimError):
    """The input is wrong; carries every fault found."""

    exit_code = EXIT_BAD_INPUT

    def __init__(self, faults: Fault | Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[Fault, ...]]]:
        """Travels between processes as its faults, not as its text."""
        return type(self), (self.faults,)


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


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word closest to `word`, or None where nothing is close."""
    candidates: Sequence[str] = list(known)
    by_case = {candidate.lower(): candidate for candidate in candidates}
    if word.lower() in by_case:
        return by_case[word.lower()]
    found = difflib.get_close_matches(word.lower(), by_case, n=1, cutoff=0.55)
    return by_case[found[0]] if found else None
