"""Rows and errors of groups of published figures."""

from __future__ import annotations

from typing import Any

from shared import group


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
