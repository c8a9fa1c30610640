"""Groups of published figures, each compared once for all tests."""

from __future__ import annotations

from functools import cache
from typing import Any

from sim.validation.validate import validate


@cache
def group(name: str) -> dict[str, Any]:
    found: dict[str, Any] = validate([name])["groups"][name]
    return found


def rows(name: str, bar: str = "main") -> list[dict[str, Any]]:
    """The rows that count towards a bar."""
    return [row for row in group(name)["rows"] if row["bar"] == bar]


def by_id(name: str) -> dict[str, dict[str, Any]]:
    """Every row, those printed only included."""
    return {row["id"]: row for row in group(name)["rows"]}


def mean_error(of: list[dict[str, Any]]) -> float:
    return sum(abs(row["error_fraction"]) for row in of) / len(of)


def worst_error(of: list[dict[str, Any]]) -> float:
    return max(abs(row["error_fraction"]) for row in of)
