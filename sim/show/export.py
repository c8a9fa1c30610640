"""A sweep's points as a table for other programs: one row a point, SI units in the names of columns.

Columns: the axes by their dotted keys (a quantity as a number, with its unit in the name), status, reason, the derived layout,
every metric, spreads of replicas. CSV needs nothing; Parquet needs polars.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from sim import units
from sim.errors import Fault, InputError, nearest

FORMATS = ("csv", "parquet")
_SUFFIX = {
    "bytes": "_bytes", "bytes/s": "_bytes_per_s", "s": "_s", "flop/s": "_flops", "Hz": "_hz", "W": "_w",
    "mm2": "_mm2", "usd/gpu-hour": "_usd_per_gpu_hour", "fraction": "_fraction", "count": "",
}  # fmt: skip

Cell = str | int | float | bool | None


def check_format(asked: str) -> str:
    """The format. Raises `InputError` for an unknown one."""
    if asked not in FORMATS:
        wanted = f"one of: {', '.join(FORMATS)}"
        raise InputError(Fault(None, "--export", f"'{asked}'", wanted, nearest(asked, FORMATS)))
    return asked


def table(document: Mapping[str, Any]) -> dict[str, list[Cell]]:
    """Column -> values, [num_points], of a sweep's document."""
    rows = [_row(document, point) for point in document["points"]]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _row(document: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Cell]:
    row: dict[str, Cell] = {}
    for axis, value in point["values"].items():
        name, told = _quantity(axis, value, document["axes"][axis])
        row[name] = told
    row |= {"status": point["status"], "reason": point["reason"] or None}
    row |= {f"layout.{name}": size for name, size in point.get("layout", {}).items()}
    row |= dict(_flat(point["metrics"]))
    return row | {f"spread.{name}": size for name, size in point.get("spread", {}).items()}


def _quantity(axis: str, value: Any, values: list[Any]) -> tuple[str, Cell]:
    """The column of an axis and its value there: in SI units where all of its values are quantities of one kind."""
    read = [_read(one) for one in values]
    kinds = {one[0] if one else None for one in read}
    if len(kinds) == 1 and None not in kinds:
        found = _read(value)
        assert found is not None
        return axis + _SUFFIX.get(found[0], ""), found[1]
    return axis, value if isinstance(value, str | int | float | bool | None) else str(value)


def _read(value: Any) -> tuple[str, float] | None:
    if not isinstance(value, str):
        return None
    for dimension in _SUFFIX:
        try:
            return dimension, units.parse(value, dimension)
        except units.UnitError:
            continue
    return None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Cell]]:
    found: list[tuple[str, Cell]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, str | int | float | bool):
            found.append((prefix + key, value))
    return found


def encode(document: Mapping[str, Any], kind: str) -> bytes:
    """The table in a format of `FORMATS`. Raises `InputError` where polars is needed and missing."""
    columns = table(document)
    if kind == "parquet":
        try:
            import polars
        except ImportError:
            wanted = "the package polars: pip install 'moesim[tables]'; or --export csv"
            raise InputError(Fault(None, "--export", "parquet, and no package for it", wanted)) from None
        into = io.BytesIO()
        polars.DataFrame(columns, strict=False).write_parquet(into)
        return into.getvalue()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode()
