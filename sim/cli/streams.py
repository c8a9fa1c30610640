"""Output streams of the command that outlast their readers.

Why: results are files, what is printed reports them. A pipe whose reader has gone, a full disk behind a log or a closed descriptor
must not lose a run that goes on; and a document that could not be printed is reported missing, once.
"""

from __future__ import annotations

import io
import os
import sys
from typing import IO, Any


class _Pipe(io.FileIO):
    """A descriptor that takes everything: what nobody reads any more is dropped, and so is what follows a failure.

    A failure of standard output, such as a full disk, is raised once; `heedless` streams raise none.
    """

    def __init__(self, descriptor: int, *, heedless: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._heedless, self._gone = heedless, False

    def write(self, data: Any, /) -> int:
        if self._gone:
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            self._gone = True
            if self._heedless or isinstance(error, BrokenPipeError):
                return len(data)
            raise


def hold() -> None:
    """Put lasting streams in place of standard output and error, where these are no terminal; do so once, at the door."""
    if sys.stdout is None or sys.stdout is sys.__stdout__:  # else others hold them
        sys.stdout = _lasting(sys.stdout, heedless=False)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _lasting(sys.stderr, heedless=True)


def _lasting(stream: IO[str] | None, *, heedless: bool) -> IO[str]:
    if stream is None:  # closed by whoever started us
        return open(os.devnull, "w", encoding="utf-8")
    if stream.isatty() or not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    held = io.BufferedWriter(_Pipe(stream.fileno(), heedless=heedless))
    return io.TextIOWrapper(
        held,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
