"""Traces of requests as people have them: the public formats, each known by the names of its columns.

Why this way: nearly all public traces are Mooncake's JSON lines or the CSVs of Azure, BurstGPT and vidur. A format is a row of
`FORMATS`: its columns, and how it writes a time. A recorded request without a prompt or an answer had failed; it is dropped and
counted. Rows are read many at once, and one by one where a cell is wrong, which is then told at its place. In the project's own CSV every row was written on purpose, and such a row is a problem.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sim import cells, files, limits
from sim.errors import InputError, Mark, Problem
from sim.trees import is_number
from sim.workload.request_rows import MOONCAKE_BLOCK_TOKENS, MOST_SECONDS, ArrivalOrder, Collected, Words
from sim.workload.requests import MOST_TOKENS, Floats, Ints, Requests

_WHAT = "a readable CSV of requests"
_MOST_ID = 2**63 - 1
_BATCH = 2**15  # rows that are read together


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _instant(text: str) -> float:
    """Seconds since 1970 of an ISO time; without a zone, of UTC."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return math.nan
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()


@dataclass(frozen=True, slots=True)
class Format:
    """A format of traces.

    Parameters
    ----------
    columns : (str, str, str)
        Names of arrival, prompt tokens and output tokens.
    seconds : function of a cell
        Its time [s]; nan for none.
    time : str
        The form of its times, for messages.
    is_clock : bool
        Times are of the calendar: the first row is 0 s.
    session : str
        Column that names a conversation, where the trace has one.
    is_recorded : bool
        Other columns may be there, and rows without tokens are dropped.
    """

    columns: tuple[str, str, str]
    seconds: Callable[[str], float] = _seconds
    time: str = "seconds of 0 or more, like 12.5"
    is_clock: bool = False
    session: str = ""
    is_recorded: bool = True


FORMATS = {
    "own": Format(("arrival_s", "prompt_tokens", "output_tokens"), is_recorded=False),
    "azure": Format(
        ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
        _instant,
        "a time like 2024-05-10 00:00:00.5, none before the first row's",
        True,
    ),
    "burstgpt": Format(("Timestamp", "Request tokens", "Response tokens"), session="Session ID"),
    "vidur": Format(("arrived_at", "num_prefill_tokens", "num_decode_tokens")),
}
"""Formats that are a CSV; Mooncake's, JSON lines, is the one more."""
_MOONCAKE = ("timestamp", "input_length", "output_length")
_OTHERS = "; or those of a trace of Mooncake (JSON lines), Azure, BurstGPT or vidur"


def read(file: Path, where: Mark | None = None, key: str = "", class_column: str = "") -> Requests:
    """Read and check a trace of requests, in any of the formats that are known.

    Parameters
    ----------
    file : Path
        A CSV with the columns `arrival_s,prompt_tokens,output_tokens` or those of another of `FORMATS`, or Mooncake's JSON
        lines; rows in the order of arrival.
    where : Mark, optional
        Place in a document that names the file.
    key : str
        Key of that place.
    class_column : str, optional
        Column, or key of JSON lines, whose words are classes of requests.

    Returns
    -------
    Requests

    Raises
    ------
    InputError
        With the problems, each at its line and column.

    References
    ----------
    kvcache-ai/Mooncake, FAST25-release/traces (times in ms, a hash for 512 tokens); Azure/AzurePublicDataset, LLM inference
    traces; HPMLL/BurstGPT; microsoft/vidur, data/processed_traces.
    """
    with files.uncollected():
        text = files.text(file, _WHAT, where, key, limits.REQUEST_BYTES)
        if re.match(r"\s*\{", text):
            return _mooncake(file, text, class_column)
        rows = cells.each_row(file, text, _WHAT, limits.REQUEST_ROWS, limits.REQUEST_CELLS)
        table = list(itertools.islice(rows, 1))
        header = table[0][1] if table else []
        name = max(FORMATS, key=lambda name: len({*FORMATS[name].columns} & {*header}))
        kind = FORMATS[name]
        needed = (*kind.columns, class_column) if class_column else kind.columns
        sheet = cells.headed(file, table, needed, None if kind.is_recorded else (), _OTHERS)
        kept = Collected(name, sheet, kind.is_recorded, class_column)
        reader = _RowReader(sheet, kind, class_column)
        while (batch := list(itertools.islice(rows, _BATCH))) and sheet.more < _BATCH:
            columns = reader.columns(batch)
            if columns is not None and kept.extend(*columns):
                reader.order.latest_s, reader.order.latest_line = float(columns[0][-1]), batch[-1][0]
                continue
            for line, row in batch:
                kept.add(line, *reader.row(line, row))
        kept.check()
        sheet.raise_problems()
    return kept.requests()


class _RowReader:
    """Parses rows of a CSV; their problems are the sheet's."""

    def __init__(self, sheet: cells.Sheet, kind: Format, class_column: str) -> None:
        self.sheet, self.kind, self.order = sheet, kind, ArrivalOrder(sheet)
        self.at = [sheet.at[name] for name in kind.columns]
        self.session, self.kept_class = sheet.at.get(kind.session), sheet.at.get(class_column)
        self.least = 0 if kind.is_recorded else 1
        self.zero_s = math.nan  # of a calendar

    def columns(self, batch: list[cells.Row]) -> tuple[Floats, Ints, Ints, Words, Words] | None:
        """Read rows together: arrivals [s], prompt tokens, output tokens, sessions and classes; None where a cell has a problem."""
        if {len(row) for _, row in batch} != {len(self.sheet.at)}:
            return None
        columns = list(zip(*(row for _, row in batch), strict=True))
        seconds = np.array([self.kind.seconds(text) for text in columns[self.at[0]]])
        zero_s = float(seconds[0]) if math.isnan(self.zero_s) else self.zero_s
        if self.kind.is_clock:
            seconds -= zero_s
        prompt, output = (_whole(columns[i], self.least) for i in self.at[1:])
        rising = np.diff(seconds, prepend=self.order.latest_s) >= 0  # False for nan
        if prompt is None or output is None or not (rising.all() and seconds[-1] <= MOST_SECONDS):
            return None
        self.zero_s = zero_s
        session, kind = (() if i is None else columns[i] for i in (self.session, self.kept_class))
        return seconds, prompt, output, session, kind

    def row(self, line: int, row: list[str]) -> tuple[float, int, int, str, str]:
        if len(row) != len(self.sheet.at):
            self.sheet.problem(line, 0, f"{len(row)} cells", f"{len(self.sheet.at)}, as in the header")
            return 0.0, 1, 1, "", "none"
        arrival, prompt, output = (row[i] for i in self.at)
        names, value = self.kind.columns, self.kind.seconds(arrival)
        if self.kind.is_clock:
            self.zero_s = value if math.isnan(self.zero_s) else self.zero_s
            value -= self.zero_s
        return (
            self.order.arrival(line, names[0], arrival, value, self.kind.time),
            self.tokens(line, names[1], prompt),
            self.tokens(line, names[2], output),
            "" if self.session is None else row[self.session],
            "" if self.kept_class is None else row[self.kept_class],
        )

    def tokens(self, line: int, column: str, text: str) -> int:
        value = int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else -1
        if not self.least <= value <= MOST_TOKENS:
            self.sheet.problem(
                line, column, text or "nothing", f"a whole number from {self.least} to {MOST_TOKENS}"
            )
            return 1
        return value


def _whole(texts: Words, least: int) -> Ints | None:
    """Whole numbers of a column, as `_RowReader.tokens` reads each; None where one is none, or out of range."""
    digits = "".join(texts)
    if not (
        digits.isascii() and digits.isdecimal() and 1 <= min(map(len, texts)) <= max(map(len, texts)) < 12
    ):
        return None
    values = np.array(list(map(int, texts)), dtype=np.int64)
    return values if least <= values.min() and values.max() <= MOST_TOKENS else None


def _mooncake(file: Path, text: str, class_column: str) -> Requests:
    """Read JSON lines, one request each; lines and entries are counted before any is decoded."""
    wanted = "a readable trace in Mooncake's JSON lines"
    for count, most, noun in (
        (text.count("\n"), limits.CSV_ROWS, "rows"),
        (text.count(",") + text.count("["), limits.CSV_CELLS, "cells"),
    ):
        if count > most:
            raise InputError(
                Problem(Mark(str(file)), "", f"more than {most:,} {noun}", f"{wanted}, a shorter one")
            )
    sheet = cells.Sheet(file, [])
    kept, order = Collected("mooncake", sheet, may_drop=True, class_column=class_column), ArrivalOrder(sheet)
    for line, row in _objects(text, sheet, (*_MOONCAKE, *filter(None, [class_column]))):
        arrival, prompt, output = (row.get(name) for name in _MOONCAKE)
        kept.add(
            line,
            order.arrival(
                line,
                _MOONCAKE[0],
                _shown(arrival),
                _seconds(str(arrival)) / 1e3 if is_number(arrival) else math.nan,
                "milliseconds of 0 or more",
            ),
            _length(sheet, line, _MOONCAKE[1], prompt),
            _length(sheet, line, _MOONCAKE[2], output),
            str(row.get("session_id", "")),
            str(row.get(class_column, "")),
            _hashes(sheet, line, row.get("hash_ids", []), prompt),
        )
    kept.check()
    sheet.raise_problems()
    return kept.requests()


def _objects(text: str, sheet: cells.Sheet, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each line that holds anything, with its number from 1."""
    wanted = f"a JSON object with {', '.join(needed)} on each line"
    for line, match in enumerate(re.finditer(r"[^\n]*\n|[^\n]+", text), 1):
        if not (row := match[0].strip()):
            continue
        try:
            value = json.loads(row)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            sheet.problem(line, 0, row if len(row) < 40 else f"{row[:40]} ...", wanted)
            continue
        if missing := [name for name in needed if name not in value]:
            sheet.problem(line, 0, f"no {' and no '.join(missing)}", wanted)
            continue
        yield line, value


def _shown(value: Any) -> str:
    return json.dumps(value)[:40]


def _length(sheet: cells.Sheet, line: int, name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MOST_TOKENS:
        sheet.problem(line, name, _shown(value), f"a whole number from 0 to {MOST_TOKENS}")
        return 1
    return value


def _hashes(sheet: cells.Sheet, line: int, ids: Any, prompt: Any) -> list[int]:
    if not isinstance(ids, list) or not all(type(x) is int and 0 <= x <= _MOST_ID for x in ids):
        sheet.problem(line, "hash_ids", _shown(ids), "a list of whole numbers of 0 or more")
        return []
    most = -(-prompt // MOONCAKE_BLOCK_TOKENS) if type(prompt) is int else len(ids)
    if len(ids) > most:
        wanted = f"at most {most}: one for {MOONCAKE_BLOCK_TOKENS} tokens of the prompt"
        sheet.problem(line, "hash_ids", f"{len(ids)} ids", wanted)
    return ids
