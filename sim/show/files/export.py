"""A sweep's points as a table for other programs: one row a point, SI units in the names of columns.

Columns: the axes by their dotted keys (a quantity as a number, with its unit in the name), status, reason, the derived layout,
every metric, spreads of replicas. CSV needs nothing; Parquet needs polars.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from sim import units
from sim.errors import InputError, Problem, nearest

FORMATS = ("csv", "parquet")
_SUFFIX = {
    "bytes": "_bytes", "bytes/s": "_bytes_per_s", "s": "_s", "flop/s": "_flops", "Hz": "_hz", "W": "_w",
    "mm2": "_mm2", "usd/gpu-hour": "_usd_per_gpu_hour", "fraction": "_fraction", "count": "",
}  # fmt: skip

Cell = str | int | float | bool | None


def check_format(asked: str) -> str:
    """The format. Raises `InputError` for an unknown one, and where polars is needed and missing."""
    if asked not in FORMATS:
        wanted = f"one of: {', '.join(FORMATS)}"
        raise InputError(Problem(None, "--export", f"'{asked}'", wanted, nearest(asked, FORMATS)))
    if asked == "parquet" and find_spec("polars") is None:
        wanted = "the package polars: pip install 'moesim[tables]'; or --export csv"
        raise InputError(Problem(None, "--export", "parquet, and no package for it", wanted))
    return asked


def table(document: Mapping[str, Any]) -> dict[str, list[Cell]]:
    """Column -> values, [num_points], of a sweep's document."""
    kinds = {axis: _kind(values) for axis, values in document["axes"].items()}
    rows = [_row(kinds, point) for point in document["points"]]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _row(kinds: Mapping[str, str | None], point: Mapping[str, Any]) -> dict[str, Cell]:
    row: dict[str, Cell] = {}
    for axis, value in point["values"].items():
        kind = kinds[axis]
        if kind:
            row[axis + _SUFFIX[kind]] = units.parse(value, kind)
        else:
            row[axis] = value if isinstance(value, str | int | float | bool | None) else str(value)
    row |= {"status": point["status"], "reason": point["reason"] or None}
    row |= {f"layout.{name}": size for name, size in point.get("layout", {}).items()}
    row |= dict(_flat(point["metrics"]))
    return row | {f"spread.{name}": size for name, size in point.get("spread", {}).items()}


def _kind(values: Sequence[Any]) -> str | None:
    """The dimension of an axis all of whose values are quantities of one kind; None for any other axis."""
    read = [units.split(one) if isinstance(one, str) else None for one in values]
    kinds = {units.dimension_of_unit(one[1]) if one and one[1] else None for one in read}
    return kinds.pop() if len(kinds) == 1 else None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Cell]]:
    found: list[tuple[str, Cell]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, str | int | float | bool):
            found.append((prefix + key, value))
    return found


def encode(document: Mapping[str, Any], kind: str) -> bytes:
    """The table in a format that `check_format` lets pass."""
    columns = table(document)
    if kind == "parquet":
        import polars

        into = io.BytesIO()
        polars.DataFrame(columns, strict=False).write_parquet(into)
        return into.getvalue()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode()
