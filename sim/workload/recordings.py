"""Recordings of a gate: tables of numbers from CSV, npy or npz, and the experts that tokens chose.

Why this way: an npy is read here, header first, so that a file that promises more numbers than it holds allocates nothing; an
npz is unpacked only to what it declares, and that is bounded.
"""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim import cells, files, limits
from sim.errors import InputError, Mark, Problem

Table = NDArray[np.float64]
_TRACE = "rows of expert ids, one a token"
_MOST = 2.0**31 - 1
_TOKEN = ("token", "token_idx")


def load_trace(path: str | Path, where: Mark | None = None, key: str = "") -> NDArray[np.int32]:
    """Read the recorded experts of tokens.

    Parameters
    ----------
    path : str or Path
        A CSV with one row a token, maybe with a header (a first column called ``token`` or ``token_idx`` is dropped), or an
        npy or npz with one array.
    where : Mark, optional
        Place in a document that names the file.
    key : str
        Key of that place.

    Returns
    -------
    array of int32, [num_recorded, top_k]

    Raises
    ------
    InputError
        For cells that are no whole number of 0 or more, each at its line and column.
    """
    table, names = read_table(Path(path), f"a file with {_TRACE}", where, key, whole=True)
    if names and names[0] in _TOKEN:
        table = table[:, 1:]
    if table.ndim != 2 or table.size == 0:
        raise InputError(Problem(Mark(str(path)), "trace", shape_of(table), _TRACE))
    ids = table.astype(np.int32)
    ids.setflags(write=False)
    return ids


def shape_of(table: Table) -> str:
    """Put the shape of a table into words."""
    return f"a table of {' x '.join(map(str, table.shape))}" if table.size else "no number"


def read_table(
    path: Path, wanted: str, where: Mark | None, key: str, *, whole: bool
) -> tuple[Table, list[str]]:
    """Read the numbers of a file, all of 0 or more (or `whole`), and the names of its header, if it has one.

    As `files.content`.
    """
    if path.suffix not in (".npy", ".npz"):
        return _csv(path, wanted, where, key, whole=whole)
    raw = files.content(path, wanted, where, key)
    try:
        table = _array(raw if path.suffix == ".npy" else _unpacked(raw))
    except Exception as error:  # whatever a parser says to bytes that may be anything
        got = f"no such array: {str(error) or type(error).__name__}"
        raise InputError(
            Problem(Mark(str(path)), "", got, f"one array of numbers, in {path.suffix}")
        ) from None
    if not np.all((table >= 0) & (table <= _MOST)) or (whole and np.any(table != np.rint(table))):
        what = "whole numbers" if whole else "numbers"
        raise InputError(
            Problem(Mark(str(path)), "", "numbers that are none of these", f"{what} of 0 or more")
        )
    return table, []


def _csv(path: Path, wanted: str, where: Mark | None, key: str, *, whole: bool) -> tuple[Table, list[str]]:
    with files.uncollected():
        rows = cells.rows(path, wanted, where, key)
    names = rows.pop(0)[1] if rows and all(math.isnan(_number(cell)) for cell in rows[0][1]) else []
    sheet = cells.Sheet(path, rows, {name: i for i, name in enumerate(names)})
    width = len(names or rows[0][1]) if rows else 0
    table = np.empty((len(rows), width))
    for i, (line, row) in enumerate(rows):
        if len(row) != width:
            sheet.problem(line, 0, f"{len(row)} cells", f"{width}, as in the first row")
            continue
        table[i] = values = [_number(cell) for cell in row]
        for j, (cell, value) in enumerate(zip(row, values, strict=True)):
            if not 0 <= value <= _MOST or (whole and value != round(value)):
                kind = "a whole number" if whole else "a number"
                sheet.problem(line, names[j] if names else j, repr(cell), f"{kind} of 0 or more")
    sheet.raise_problems()
    return table, names


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _unpacked(raw: bytes) -> bytes:
    """The one file of an npz."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        inside = archive.infolist()
        if len(inside) != 1:
            raise ValueError(f"{len(inside)} arrays in one file")
        if inside[0].file_size > limits.FILE_BYTES:
            raise ValueError(f"{inside[0].file_size} bytes when unpacked, more than {limits.FILE_BYTES}")
        return archive.read(inside[0])


def _array(raw: bytes) -> Table:
    """The array of an npy, whose header must agree with the bytes that follow it."""
    stream = io.BytesIO(raw)
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, dtype = header(stream)
    if dtype.kind not in "iuf":
        raise ValueError(f"an array of {dtype}")
    start, count = stream.tell(), math.prod(shape)
    if count > limits.ARRAY_NUMBERS:
        raise ValueError(f"{count:,} numbers, more than {limits.ARRAY_NUMBERS:,}")
    if count * dtype.itemsize != len(raw) - start:
        raise ValueError(f"{len(raw) - start} bytes of data, {count * dtype.itemsize} promised")
    flat = np.frombuffer(raw, dtype, count, offset=start)
    return flat.reshape(shape, order="F" if by_column else "C").astype(np.float64, copy=False)
