"""Requests of a trace as they are read, column by column, and the order of their arrivals."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sim import cells
from sim.workload.request_classes import MOST_CLASSES, class_name
from sim.workload.requests import Floats, Ints, PromptBlocks, RequestClasses, Requests

MOONCAKE_BLOCK_TOKENS = 512
MOST_SECONDS = 1e9
Words = Sequence[str]


@dataclass(slots=True)
class Collected:
    """Requests as they are read."""

    source: str
    sheet: cells.Sheet
    may_drop: bool
    class_column: str
    arrival_s: array[float] = field(default_factory=lambda: array("d"))
    prompt_tokens: array[int] = field(default_factory=lambda: array("q"))
    output_tokens: array[int] = field(default_factory=lambda: array("q"))
    session_idx: array[int] = field(default_factory=lambda: array("q"))
    sessions: dict[str, int] = field(default_factory=dict)
    class_idx: array[int] = field(default_factory=lambda: array("q"))
    classes: dict[str, int] = field(default_factory=dict)
    ids: array[int] = field(default_factory=lambda: array("q"))
    first: array[int] = field(default_factory=lambda: array("q", [0]))
    num_dropped: int = 0

    def add(
        self,
        line: int,
        arrival_s: float,
        prompt: int,
        output: int,
        session: str = "",
        kind: str = "",
        ids: Sequence[int] = (),
    ) -> None:
        """Keep a request, unless it had failed."""
        if self.may_drop and not (prompt and output):
            self.num_dropped += 1
            return
        self.arrival_s.append(arrival_s)
        self.prompt_tokens.append(prompt)
        self.output_tokens.append(output)
        self.session_idx.append(self.sessions.setdefault(session, len(self.sessions)))
        if self.class_column:
            self.class_idx.append(self._class(line, kind))
        self.ids.extend(ids)
        self.first.append(len(self.ids))

    def extend(self, arrival_s: Floats, prompt: Ints, output: Ints, sessions: Words, kinds: Words) -> bool:
        """Keep many requests whose cells were found right; False, and none is kept, where a class is not."""
        kept = (prompt > 0) & (output > 0) | (not self.may_drop)
        names = {word: class_name(word) for word in {*kinds}}
        if "" in names.values() or len(self.classes | dict.fromkeys(names.values())) > MOST_CLASSES:
            return False
        for own, values in (
            (self.arrival_s, arrival_s),
            (self.prompt_tokens, prompt),
            (self.output_tokens, output),
        ):
            own.frombytes(values[kept].tobytes())
        for number, numbers, words in (
            (self.sessions, self.session_idx, sessions),
            (self.classes, self.class_idx, [names[word] for word in kinds]),
        ):
            if words:
                numbers.extend(
                    number.setdefault(word, len(number)) for word in itertools.compress(words, kept)
                )
        self.num_dropped += len(kept) - int(kept.sum())
        return True

    def _class(self, line: int, text: str) -> int:
        """Number of the class that a trace has in words."""
        name = class_name(text)
        if not name:
            self.sheet.problem(line, self.class_column, text or "nothing", "the name of a class")
        elif name not in self.classes and len(self.classes) == MOST_CLASSES:
            wanted = f"a column with at most {MOST_CLASSES} words, one for each class"
            self.sheet.problem(line, self.class_column, f"'{text}' after {MOST_CLASSES} others", wanted)
            return 0
        return self.classes.setdefault(name, len(self.classes))

    def check(self) -> None:
        """Note where there is no request."""
        if not self.arrival_s:
            got = (
                f"{self.num_dropped} requests, none with prompt and answer"
                if self.num_dropped
                else "no request"
            )
            self.sheet.problem(1, 0, got, "one row or more")

    def requests(self) -> Requests:
        """Make arrays of them."""
        ids, first = np.array(self.ids, np.int64), np.array(self.first, np.int64)
        return Requests(
            np.array(self.arrival_s, np.float64),
            np.array(self.prompt_tokens, np.int64),
            np.array(self.output_tokens, np.int64),
            PromptBlocks(ids, first, MOONCAKE_BLOCK_TOKENS) if len(ids) else None,
            np.array(self.session_idx, np.int64) if any(self.sessions) else None,
            self.source,
            self.num_dropped,
            RequestClasses(tuple(self.classes), np.array(self.class_idx, np.int64))
            if self.class_column
            else None,
        )


@dataclass(slots=True)
class ArrivalOrder:
    """Arrivals that must not run backwards."""

    sheet: cells.Sheet
    latest_s: float = 0.0
    latest_line: int = 0

    def arrival(self, line: int, column: str | int, text: str, value: float, wanted: str) -> float:
        """Check an arrival [s]; its problem is the sheet's."""
        if not 0 <= value <= MOST_SECONDS:
            self.sheet.problem(line, column, text or "nothing", wanted)
            return 0.0
        if value < self.latest_s:
            wanted = (
                f"an arrival at or after the {self.latest_s:g} s of line {self.latest_line}: rows in order"
            )
            self.sheet.problem(line, column, text, wanted)
            return value
        self.latest_s, self.latest_line = value, line
        return value
