"""The finished part of work that is under way, written as it grows, so that no end of the process loses it.

A variant, rung, point or group of a validation that has ended is written in a document of the same shape as the whole one,
which says under `partial` how much it holds. The whole document takes its place. A whole document that stands there from
before is not replaced by a partial one, which then lies next to it, as `result.partial.json`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from sim.errors import InputError, MoesimError
from sim.show.files import folder as folders

_SOON_S = 1.0  # what ends before is written with what comes after: to make it again takes no longer
_SHARE = 0.1  # of the time, at most, goes into writing before the end
_HEAD = 4096  # bytes in which `partial` stands

Make = Callable[[], dict[str, Any] | None]
"""Makes the document of what is finished; None where there is nothing yet."""


def words(document: Mapping[str, Any]) -> str:
    """Say how much a partial document holds: `2 of 3 variants`; "" for a whole one."""
    part = document.get("partial")
    return f"{part['finished']:,} of {part['of']:,} {part['what']}" if isinstance(part, Mapping) else ""


class Keeper:
    """Writes what is finished into a folder; a context manager around the work that calls it."""

    def __init__(self, folder: Path | None, name: str, tell: Callable[[str], None]) -> None:
        self.folder, self.name, self.tell = folder, name, tell
        self._make: Make | None = None
        self._path: Path | None = None
        self._words = ""
        self._next_s = time.monotonic() + _SOON_S

    def __call__(self, make: Make) -> None:
        """Take note that something more has ended; `make` makes the document of it all, when it is time to write."""
        self._make = make
        if time.monotonic() >= self._next_s:
            self._write()

    def later(self, make: Make) -> None:
        """Take note in the same way, but write at the end alone: where what ends is kept in another way too."""
        self._make, self._next_s = make, float("inf")

    def _write(self) -> None:
        make, self._make = self._make, None
        if make is None or self.folder is None:
            return
        begun = time.monotonic()
        document = make()
        if document is not None:
            if self._path is None:
                whole = self.folder / self.name
                self._path = whole if replaceable(whole) else folders.partial_name(whole)
            if self._path.name == self.name:
                folders.write(self.folder, folders.numbers(document))
            else:  # the rows that have a CSV of their own stay in it: the CSVs there are those of the whole one
                folders.write(self.folder, {self._path.name: folders.dump(document)})
            self._words = words(document)
        now = time.monotonic()
        self._next_s = now + (now - begun) / _SHARE

    def __enter__(self) -> Keeper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Write what is not written yet where the work stopped before its end, and tell where it is."""
        if error is None or isinstance(error, InputError):
            return
        try:
            self._write()
        except (MoesimError, OSError, LookupError, TypeError, ValueError, ArithmeticError) as unable:
            self.tell(f"note: what is finished could not be written: {unable}")
        if self._words:
            self.tell(f"note: {self._path} is partial: it holds {self._words}")


def replaceable(path: Path) -> bool:
    """Tell whether a partial document may take the place of what is there: nothing, or a partial one."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return True
    return b'\n "partial": {' in head
