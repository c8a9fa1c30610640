"""Quantities with units, at the border of the program: `"400 Gb/s"` -> 5e10 [bytes/s].

Inside, everything is SI (s, bytes, bytes/s, FLOP/s; decimal G), and the unit is part of the name. Units are
case-sensitive: `Gb` is a gigabit, `GB` a gigabyte, eight times as much. A bare number where a unit is due is an error.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence

_DECIMAL = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_NUMBER = re.compile(r"\s*([-+]?(?:\d+(?:[_,]\d{3})*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*")


def _prefixed(*units: str, scale: float = 1.0, binary: bool = False) -> dict[str, float]:
    prefixes = {**_DECIMAL, **(_BINARY if binary else {})}
    return {prefix + unit: factor * scale for unit in units for prefix, factor in prefixes.items()}


_UNITS: Mapping[str, Mapping[str, float]] = {
    "bytes": {**_prefixed("B", binary=True), **_prefixed("b", "bit", scale=1 / 8, binary=True)},
    "bytes/s": {
        **_prefixed("B/s", "Bps", binary=True),
        **_prefixed("b/s", "bps", "bit/s", scale=1 / 8, binary=True),
    },
    "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0, "d": 86400.0},
    "flop/s": _prefixed("FLOP/s", "FLOPS", "OP/s"),
    "Hz": _prefixed("Hz"),
    "W": _prefixed("W"),
    "mm2": {"mm2": 1.0, "mm²": 1.0},
    "usd/gpu-hour": {"$/GPU-hour": 1.0, "USD/GPU-hour": 1.0, "$/GPU-h": 1.0, "USD/GPU-h": 1.0},
    "fraction": {"": 1.0, "%": 0.01},
    "count": _DECIMAL,
    "number": {"": 1.0},
}
_EXAMPLE = {
    "bytes": "a size with its unit, like '80 GB' or '16 GiB'",
    "bytes/s": "a rate with its unit, like '400 GB/s' or '400 Gb/s'",
    "s": "a time with its unit, like '3.2 us'",
    "flop/s": "a compute rate with its unit, like '989 TFLOP/s'",
    "Hz": "a frequency with its unit, like '1.83 GHz'",
    "W": "a power with its unit, like '700 W'",
    "mm2": "an area with its unit, like '814 mm2'",
    "usd/gpu-hour": "a price with its unit, like '2 $/GPU-hour'",
    "fraction": "a fraction, like '0.9' or '90 %'",
    "count": "a count, like '4096' or '14.8 T'",
    "number": "a number",
}
DIMENSIONS = tuple(_UNITS)
_LEAST, _MOST, _MOST_FLOPS = 1e-18, 1e18, 1e24
"""No machine, model or run lies beyond these, in SI units; between them products of a few quantities stay finite."""
FACTORS: Mapping[str, float] = {
    unit: factor for units in _UNITS.values() for unit, factor in units.items() if unit
}
"""Every unit with what it multiplies to SI; none means two things."""


class UnitError(ValueError):
    """A quantity that cannot be read; carries what a `Problem` needs."""

    def __init__(self, got: str, wanted: str, suggestion: str | None = None) -> None:
        self.got, self.wanted, self.suggestion = got, wanted, suggestion
        super().__init__(f"got {got}; wanted {wanted}")


def parse(text: object, dimension: str) -> float:
    """Read a quantity as written into SI units, a bare number only where its dimension has no unit.

    UnitError with what was got and wanted, and the nearest unit.

    Examples
    --------
    >>> parse("400 Gb/s", "bytes/s"), parse("400 GB/s", "bytes/s")
    (50000000000.0, 400000000000.0)
    """
    units, wanted = _UNITS[dimension], _EXAMPLE[dimension]
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise UnitError(repr(text), wanted)
    match = _NUMBER.fullmatch(str(text))
    if not match:
        raise UnitError(repr(text), wanted)
    number, unit = float(match[1].replace("_", "").replace(",", "")), match[2]
    if unit not in units:
        close = _closest(unit, units) if unit else None
        raise UnitError(repr(text), wanted, f"'{match[1]} {close}'" if close else None)
    value = number * units[unit]
    most = _MOST_FLOPS if dimension == "flop/s" else _MOST
    if not abs(value) <= most:
        raise UnitError(repr(text), f"{wanted}, at most {show(most, dimension)}")
    if 0 < abs(value) < _LEAST:
        raise UnitError(repr(text), f"{wanted}, 0 or at least {_LEAST:g}")
    return value


def split(text: str) -> tuple[float, str] | None:
    """Split a quantity of any dimension into its number, finite, and its unit ("" for none); None for other text.

    Examples
    --------
    >>> split("3.2 us")
    (3.2, 'us')
    """
    match = _NUMBER.fullmatch(text)
    if not match or not (match[2] in FACTORS or not match[2]):
        return None
    number = float(match[1].replace("_", "").replace(",", ""))
    return (number, match[2]) if math.isfinite(number) else None


def dimension_of_unit(unit: str) -> str:
    """Look up the dimension of a unit.

    Examples
    --------
    >>> dimension_of_unit("Gb/s")
    'bytes/s'
    """
    return next(dimension for dimension, units in _UNITS.items() if unit in units)


def _closest(unit: str, known: Iterable[str]) -> str | None:
    """Return the unit most likely meant: the case counts, lest a byte be taken for a bit."""
    same = [name for name in known if name.lower() == unit.lower()] or list(known)
    close = difflib.get_close_matches(unit, same, n=1, cutoff=0.5)
    return close[0] if close else None


def describe(dimension: str) -> str:
    """Describe a quantity by an example, for messages and JSON Schema: "a time with its unit, like '3.2 us'"."""
    return _EXAMPLE[dimension]


_WRITTEN_OUT = 1e8  # from here on a number is written with an exponent
_STEPS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def figures(value: float, digits: int = 4) -> str:
    """Write a number to some significant digits, as a person reads it.

    Examples
    --------
    >>> figures(12634.2), figures(0.05), figures(3e12)
    ('12,630', '0.05', '3e+12')
    """
    text = f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if "e+" in text and abs(value) < _WRITTEN_OUT else text


def told_apart(values: Sequence[float], digits: int = 3) -> list[str]:
    """Write unlike numbers to so many significant digits, or as many more as no two of them look alike with.

    Examples
    --------
    >>> told_apart([0.5, 1.0]), told_apart([1.0012, 1.0014])
    (['0.5', '1'], ['1.0012', '1.0014'])
    """
    texts = [figures(value, digits) for value in values]
    return texts if len(set(texts)) == len(texts) or digits > 15 else told_apart(values, digits + 1)


_LEAST_S = 1e-12


def show(value: float, dimension: str, digits: int = 4) -> str:
    """Write a value of SI units as a person reads it: with the prefix that keeps it between 1 and 1000, and its unit.

    A time below a picosecond is what rounding leaves of a difference, and written as 0.

    Examples
    --------
    >>> show(5e10, "bytes/s"), show(3.2e-6, "s"), show(-3.6e-15, "s")
    ('50 GB/s', '3.2 us', '0 s')
    >>> show(5446000, "$"), show(12634.2, "$"), show(276.216, "$"), show(0.31417, "$")
    ('$5.446 M', '$12,634', '$276.22', '$0.3142')
    """
    if dimension == "s":
        for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
            if abs(value) >= factor:
                return f"{figures(value / factor, digits)} {unit}"
        return f"{figures(value * 1e9, digits)} ns" if abs(value) >= _LEAST_S else "0 s"
    if dimension == "fraction":
        return f"{figures(100 * value, digits)} %"
    if dimension == "number":
        return figures(value, digits)
    if dimension == "mm2":
        return f"{figures(value, digits)} mm2"
    if dimension == "usd/gpu-hour":
        return f"{figures(value, digits)} $/GPU-hour"
    if dimension == "$":
        return _dollars(value, digits)
    unit = {"bytes": "B", "bytes/s": "B/s", "flop/s": "FLOP/s", "count": ""}.get(dimension, dimension)
    for factor, prefix in _STEPS:
        if abs(value) >= factor and not (dimension == "count" and factor < 1e6):
            return f"{figures(value / factor, digits)} {prefix}{unit}".rstrip()
    return f"{figures(value, digits)} {unit}".rstrip()


def _dollars(value: float, digits: int) -> str:
    if abs(value) >= 1e6:
        return f"${figures(value / 1e6, digits)} M"
    if abs(value) >= 1000:
        return f"${value:,.0f}"
    return f"${value:.2f}" if abs(value) >= 1 else f"${figures(value, digits)}"


def exact(value: float, dimension: str) -> str | float:
    """Write a value of SI units as a file would, with every digit; a bare number where its dimension has no unit.

    Examples
    --------
    >>> exact(5e10, "bytes/s"), exact(0.9, "fraction")
    ('50000000000.0 B/s', 0.9)
    """
    unit = next(unit for unit, factor in _UNITS[dimension].items() if factor == 1.0)
    return f"{value!r} {unit}" if unit else value


_SUFFIXES = (
    ("_bytes_per_s", "bytes/s"),
    ("_per_s", "number"),
    ("_bytes", "bytes"),
    ("_flops", "flop/s"),
    ("_fraction", "fraction"),
    ("_s", "s"),
    ("_w", "W"),
)


def dimension_of(key: str) -> str:
    """Read the dimension of a metric off the suffix of its name; "number" for a name without a unit.

    Examples
    --------
    >>> dimension_of("dispatch.time_s")
    's'
    """
    if key == "bytes":  # of a launch
        return key
    return next((dimension for suffix, dimension in _SUFFIXES if key.endswith(suffix)), "number")
