"""Explanations and differences in sentences."""

from __future__ import annotations

from sim.metrics import dimension_of, phrase
from sim.show.views.answers import Cause, Difference, Explanation
from sim.show.views.names import LABEL
from sim.units import show

_FAR = 0.3  # off by more is no explanation


def explanation(view: Explanation) -> list[str]:
    """Return what the time is made of, and what would give the measured value."""
    longest = max(view.parts, key=lambda part: part.value_s, default=None)
    most = f", {100 * longest.share_fraction:.0f} % of it {longest.title}" if longest else ""
    sentences = [f"{phrase(view.metric).capitalize()} takes {show(view.value_s, 's', 3)}{most}."]
    if view.causes:
        first, *others = view.causes
        if first.distance_fraction <= _FAR:
            sentences.append(f"What was measured is best explained by {_cause(first)}.")
        else:
            sentences.append(f"No single change gives what was measured; nearest is {_cause(first)}.")
        sentences += [f"Next: {_cause(other)}." for other in others[:1]]
    return sentences


def _cause(cause: Cause) -> str:
    values = ", ".join(show(value, dimension_of(name), 3) for name, value in cause.values.items())
    binds = f"; {LABEL.get(cause.binding, cause.binding)} binds" if cause.binding else ""
    return f"{cause.title} ({values} simulated, {100 * cause.distance_fraction:.1f} % off{binds})"


def difference(view: Difference) -> list[str]:
    """Return how many settings and metrics differ between two results."""
    first, second = view.names
    if not view.settings and not view.metrics:
        return [f"{first} and {second} are the same run."]
    counts = f"{_many(len(view.settings), 'setting')} and {_many(len(view.metrics), 'metric')}"
    return [f"{counts} differ between {first} and {second}."]


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
