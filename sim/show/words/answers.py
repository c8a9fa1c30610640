"""Explanations and differences in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.metrics import dimension_of, phrase
from sim.show.views.names import LABEL
from sim.units import show

Document = Mapping[str, Any]
_FAR = 0.3  # off by more is no explanation


def explanation(document: Document) -> list[str]:
    """Return what the time is made of, and what would give the measured value."""
    longest = max(document["parts"], key=lambda part: part["value_s"], default=None)
    metric = document["metric"]
    sentences = [f"{phrase(metric).capitalize()} takes {show(document['value_s'], 's', 3)}"]
    if longest is not None:
        sentences[0] += f", {100 * longest['share_fraction']:.0f} % of it {longest['title']}"
    sentences[0] += "."
    if document["causes"]:
        first, *others = document["causes"]
        if first["distance_fraction"] <= _FAR:
            sentences.append(f"What was measured is best explained by {_cause(first)}.")
        else:
            sentences.append(f"No single change gives what was measured; nearest is {_cause(first)}.")
        if others:
            sentences.append(f"Next: {_cause(others[0])}.")
    return sentences


def _cause(cause: Mapping[str, Any]) -> str:
    values = ", ".join(show(value, dimension_of(name), 3) for name, value in cause["values"].items())
    binds = f"; {LABEL.get(cause['binding'], cause['binding'])} binds" if cause["binding"] else ""
    return f"{cause['title']} ({values} simulated, {100 * cause['distance_fraction']:.1f} % off{binds})"


def difference(document: Document) -> list[str]:
    """Return how many settings and metrics differ between two results."""
    count, moved = len(document["settings"]), len(document["metrics"])
    first, second = document["names"]
    if not count and not moved:
        return [f"{first} and {second} are the same run."]
    return [f"{_many(count, 'setting')} and {_many(moved, 'metric')} differ between {first} and {second}."]


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
