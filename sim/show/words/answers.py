"""Explanations, differences and sizes in sentences."""

from __future__ import annotations

from sim.metrics import dimension_of, phrase
from sim.show.views.answers import Cause, Difference, Explanation, Fitted, Sizes, Span
from sim.show.views.names import LABEL
from sim.units import show

_FAR = 0.3  # off by more is no explanation


def explanation(view: Explanation) -> list[str]:
    """Return what the time is made of, and what would give the measured value."""
    longest = max(view.parts, key=lambda part: part.value_s, default=None)
    most = f", {100 * longest.share_fraction:.0f} % of it {longest.title}" if longest else ""
    what = phrase(view.metric).removesuffix(" completion time").capitalize()
    sentences = [f"{what} takes {show(view.value_s, 's', 3)}{most}."]
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


def sizes(view: Sizes) -> list[str]:
    """Return the fewest GPUs of each machine, the fewest first, and what the next smaller number lacks."""
    served = sorted((fitted for fitted in view.machines if fitted.gpus), key=lambda fitted: fitted.gpus or 0)
    sentences = [f"{_fewest(view, fitted)}." for fitted in served]
    sentences += [
        f"{_machines(fitted.smaller_gpus, fitted)} do{'es' * (fitted.smaller_gpus == 1)} not: {fitted.smaller}."
        for fitted in served
        if fitted.smaller_gpus
    ]
    return sentences + [
        f"No number of {fitted.title} serves {view.title} so: {fitted.reason}."
        for fitted in view.machines
        if not fitted.gpus
    ]


def _machines(count: int, fitted: Fitted) -> str:
    return f"One {fitted.title}" if count == 1 else f"{count:,} {fitted.title}"


def _fewest(view: Sizes, fitted: Fitted) -> str:
    users = _many(view.users, "user")
    limit = f" within {show(view.tpot_limit_s, 's', 3)} a token" if view.tpot_limit_s else ""
    verb = "serves" if fitted.gpus == 1 else "serve"
    return (
        f"{_machines(fitted.gpus or 0, fitted)} {verb} {view.title} to {users} with "
        f"{view.context_tokens:,} tokens each{limit}: {show(fitted.tpot_s or 0.0, 's', 3)} a token"
    )


def span(view: Span) -> list[str]:
    """Return between which ends the headline lies, and how many assumptions could not be moved."""
    dimension, whose = dimension_of(view.metric), f"{view.name}: " if view.name else ""
    value = show(view.value, dimension, 3)
    sentences = []
    if not view.parameters:
        sentences.append(
            f"{whose}{phrase(view.metric)} is {value}; no parameter that it leans on states a range."
        )
    elif view.low is None or view.high is None:
        sentences.append(f"{whose}with every parameter at its end the run cannot be.")
    else:
        ends = f"{show(view.low, dimension, 3)} to {show(view.high, dimension, 3)}"
        far = max(abs(end / view.value - 1) for end in (view.low, view.high)) if view.value else 0.0
        many = _many(len(view.parameters), "parameter")
        sentences.append(
            f"{whose}{phrase(view.metric)} is {value}, and {ends} with {many} at the stated ends: within {100 * far:.1f} %."
        )
    if view.unstated:
        sentences.append(f"{_many(len(view.unstated), 'assumed or derived parameter')} more state no range.")
    return sentences
