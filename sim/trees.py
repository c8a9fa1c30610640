"""Trees of mappings, as documents and metrics are: their leaves, and their numbers under dotted names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

Path_ = tuple[str | int, ...]


def leaves(tree: Mapping[str, Any], at: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Walk the leaves of a tree of mappings, what is no mapping or an empty one, with their paths, which start with `at`."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*at, key))
        else:
            yield (*at, key), value


def dotted(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted name -> value of all that is no mapping."""
    return {".".join(map(str, path)): value for path, value in leaves(tree) if not isinstance(value, Mapping)}


def flatten(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Collect the numbers of a tree of metrics by their dotted names.

    Examples
    --------
    >>> flatten({"dispatch": {"time_s": 1, "binding": "nic"}})
    {'dispatch.time_s': 1.0}
    """
    return {name: float(value) for name, value in dotted(metrics).items() if is_number(value)}


def is_number(value: object) -> TypeGuard[int | float]:
    """Tell a number; a truth is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
