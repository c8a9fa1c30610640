"""Requests of users: arrival time, length of the prompt and length of the answer of each.

Either drawn (Poisson arrivals, lengths of a distribution) or read from a CSV with the columns
`arrival_s,prompt_tokens,output_tokens`, one request a row in the order of arrival. The first output token is the one that
prefill makes, so a request with one output token never decodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim import cells, files
from sim.errors import Mark

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens")
_MOST_TOKENS = 10**9
_MOST_SECONDS = 1e9
_WHAT = "a readable CSV of requests"


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests in the order of arrival; every array is [num_requests]."""

    arrival_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints

    @property
    def num_requests(self) -> int:
        """Number of requests."""
        return len(self.arrival_s)


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of token counts: `fixed`, `exponential` or `lognormal`, with its mean [tokens].

    `spread` is the standard deviation of the logarithm (lognormal only). Draws are rounded and held within 1 and
    `most_tokens`, which lowers the mean where the tail is long.
    """

    kind: str
    mean_tokens: float
    spread: float = 0.0
    most_tokens: int = _MOST_TOKENS

    def draw(self, num: int, rng: np.random.Generator) -> Ints:
        """Draw token counts.

        Parameters
        ----------
        num : int [count]
        rng : numpy.random.Generator

        Returns
        -------
        array of int64, [num] [tokens]
        """
        if self.kind == "fixed":
            drawn = np.full(num, self.mean_tokens)
        elif self.kind == "exponential":
            drawn = rng.exponential(self.mean_tokens, num)
        else:
            drawn = self.mean_tokens * np.exp(rng.normal(-(self.spread**2) / 2, self.spread, num))
        counts: Ints = np.clip(np.rint(drawn), 1, self.most_tokens).astype(np.int64)
        return counts


def poisson(
    num_requests: int,
    requests_per_s: float,
    prompt: Lengths,
    output: Lengths,
    rng: np.random.Generator,
) -> Requests:
    """Draw the requests of independent users.

    Parameters
    ----------
    num_requests : int [count]
    requests_per_s : float [1/s]
    prompt, output : Lengths
        Distributions of the tokens of prompts and of answers, independent of arrivals and of each other.
    rng : numpy.random.Generator

    Returns
    -------
    Requests

    Notes
    -----
    Gaps between arrivals are exponential with the mean 1 / `requests_per_s`.
    """
    gaps = rng.exponential(1.0 / requests_per_s, num_requests)
    return Requests(np.cumsum(gaps), prompt.draw(num_requests, rng), output.draw(num_requests, rng))


def read(file: Path, where: Mark | None = None, key: str = "") -> Requests:
    """Read and check a CSV of requests.

    Parameters
    ----------
    file : Path
        With the columns `arrival_s,prompt_tokens,output_tokens`, rows in the order of arrival.
    where : Mark, optional
        Place in a document that names the file.
    key : str
        Key of that place.

    Returns
    -------
    Requests

    Raises
    ------
    InputError
        With the problems, each at its line and column.
    """
    with files.uncollected():
        sheet = cells.sheet(file, _WHAT, COLUMNS, where=where, key=key)
        reader = _RequestReader(sheet)
        parsed = [reader.row(line, row) for line, row in sheet.rows]
    if not parsed:
        sheet.problem(1, 0, "no request", "one row or more")
    sheet.raise_problems()
    arrival, prompt, output = zip(*parsed, strict=True)
    return Requests(
        np.array(arrival, dtype=np.float64),
        np.array(prompt, dtype=np.int64),
        np.array(output, dtype=np.int64),
    )


class _RequestReader:
    """Parses rows; their problems are the sheet's."""

    def __init__(self, sheet: cells.Sheet) -> None:
        self.at, self.problem = sheet.at, sheet.problem
        self.latest_s, self.latest_line = 0.0, 0

    def row(self, line: int, row: list[str]) -> tuple[float, int, int]:
        if len(row) != len(self.at):
            self.problem(line, 0, f"{len(row)} cells", f"{len(self.at)}, as in the header")
            return 0.0, 1, 1
        arrival, prompt, output = (row[self.at[name]] for name in COLUMNS)
        return (
            self.arrival(line, arrival),
            self.tokens(line, "prompt_tokens", prompt),
            self.tokens(line, "output_tokens", output),
        )

    def arrival(self, line: int, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= _MOST_SECONDS:
            self.problem(line, "arrival_s", text or "nothing", "seconds of 0 or more, like 12.5")
            return 0.0
        if value < self.latest_s:
            wanted = (
                f"an arrival at or after the {self.latest_s:g} s of line {self.latest_line}: rows in order"
            )
            self.problem(line, "arrival_s", text, wanted)
            return value
        self.latest_s, self.latest_line = value, line
        return value

    def tokens(self, line: int, column: str, text: str) -> int:
        value = int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else 0
        if not 1 <= value <= _MOST_TOKENS:
            self.problem(line, column, text or "nothing", f"a whole number from 1 to {_MOST_TOKENS}")
            return 1
        return value
