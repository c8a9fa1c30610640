"""The events of a JSON trace, one at a time: what is passed over costs no memory, and what is counted can be stopped.

Why this way: `json.load` makes objects of a whole file before any of it can be counted; of two megabytes of gzip it makes
five gigabytes. Here the text comes in pieces, each event is decoded by itself, and nothing of it is kept here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from json.decoder import JSONDecodeError
from typing import Any

from sim import limits

_SPACE = re.compile(r"[ \t\n\r]*")
_CUT = 16  # characters: a token that ends so near the end of a piece may go on in the next
_MOST_HEAD = 1000  # entries next to the events


class CutError(ValueError):
    """The text ends in the middle."""


class FormatError(ValueError):
    """The text is no JSON, at a line and column counted from 1."""

    def __init__(self, line: int, column: int) -> None:
        super().__init__("text that is not JSON")
        self.line, self.column = line, column


class TooLongError(ValueError):
    """One entry is longer than `limits.TRACE_ENTRY`, or there are very many next to the events."""


class Reader:
    """Reads one document.

    Parameters
    ----------
    pieces : iterable of str
        The text, in any pieces.
    key : str
        Key of the list of events in a document that is a mapping.

    Attributes
    ----------
    head : dict
        The entries next to the events, once these have been read to their end.
    empty : bool
        There is nothing but space.
    has_events : bool
        There is a list of events.
    characters : int
        Read so far.
    """

    def __init__(self, pieces: Iterable[str], key: str) -> None:
        self.key = key
        self.head: dict[str, Any] = {}
        self.empty = False
        self.has_events = False
        self.characters = 0
        self._pieces = iter(pieces)
        self._text, self._at, self._lines, self._column = "", 0, 0, 0
        self._decode = json.JSONDecoder().raw_decode

    def events(self) -> Iterator[Any]:
        """Yield every event of the list, which is the document itself or is in it at `key`.

        CutError where the text ends in the middle, FormatError for no JSON, TooLongError for an entry too long
        or too many next to the events; ValueError and RecursionError as of `json`.
        """
        first = self._peek()
        if first == "[":
            self.has_events = True
            yield from self._list()
        elif first == "{":
            yield from self._mapping()
        elif first:
            self._value()
        else:
            self.empty = True
            return
        if self._peek():
            raise self._format_error(self._at)

    def _mapping(self) -> Iterator[Any]:
        self._at += 1
        if self._peek() == "}":
            self._at += 1
            return
        while True:
            if self._peek() != '"':
                raise self._wrong()
            name = self._value()
            if self._peek() != ":":
                raise self._wrong()
            self._at += 1
            if name == self.key and self._peek() == "[":
                self.has_events = True
                yield from self._list()
            else:
                self.head[name] = self._value()
                if len(self.head) > _MOST_HEAD:
                    raise TooLongError
            if self._next("}"):
                return

    def _list(self) -> Iterator[Any]:
        self._at += 1
        if self._peek() == "]":
            self._at += 1
            return
        while True:
            yield self._value()
            if self._next("]"):
                return

    def _next(self, end: str) -> bool:
        """Step over the comma between two entries, or over the end; return whether it was the end."""
        sign = self._peek()
        if sign not in (",", end):
            raise self._wrong()
        self._at += 1
        return sign == end

    def _peek(self) -> str:
        """Return the next character that is no space, without taking it; "" at the end of the text."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _value(self) -> Any:
        """Take one value, with more of the text as long as it does not end in what is there."""
        if not self._peek():
            raise CutError
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except JSONDecodeError as error:
                if len(self._text) - self._at > limits.TRACE_ENTRY:
                    raise self._too_long(error) from None
                if self._more():
                    continue
                if error.pos >= len(self._text.rstrip()) - _CUT // 2 or "Unterminated" in error.msg:
                    raise CutError from None
                raise self._format_error(error.pos) from None
            if end - self._at > limits.TRACE_ENTRY:
                raise TooLongError
            if end + _CUT > len(self._text) and not isinstance(value, dict | list | str) and self._more():
                continue
            self._at = end
            return value

    def _too_long(self, error: JSONDecodeError) -> ValueError:
        inside = error.pos < len(self._text) - _CUT and "Unterminated" not in error.msg
        return self._format_error(error.pos) if inside else TooLongError()

    def _wrong(self) -> ValueError:
        return self._format_error(self._at) if self._peek() else CutError()

    def _format_error(self, place: int) -> FormatError:
        line = self._text.count("\n", 0, place)
        start = self._text.rfind("\n", 0, place) + 1
        return FormatError(self._lines + line + 1, place - start + 1 + (0 if line else self._column))

    def _more(self) -> bool:
        """Drop what has been read and take the next piece; as much again as is left where an entry is long.

        False, and nothing has changed, where there is no more.
        """
        piece = next(self._pieces, None)
        if piece is None:
            return False
        dropped = self._text[: self._at]
        lines = dropped.count("\n")
        self._lines += lines
        self._column = len(dropped) - dropped.rfind("\n") - 1 + (0 if lines else self._column)
        parts = [self._text[self._at :], piece]
        left, got = len(parts[0]), len(piece)
        while got < left and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            got += len(piece)
        self._at, self._text = 0, "".join(parts)
        self.characters += got
        return True
