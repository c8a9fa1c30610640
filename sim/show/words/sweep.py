"""TODO sim/show/words/sweep.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.show.views.sweep import (
    Condition,
    Point,
    Sweep,
    _times_with_it,
    axis_label,
    by_condition,
    cell,
    changed,
    changes,
    choices,
    condition_text,
    enough,
    given_text,
    label,
    lag,
    lag_cell,
    leaders,
    marginals,
    memory_ratio,
    metric,
    objective,
    of_given,
    size,
    times_best,
    times_text,
    value_label,
    values_text,
    varied,
)
from sim.show.views.sweep_reasons import reasons
from sim.units import show

_TOLD = 4  # conditions that have a sentence each


_CLOSE = 1.05  # times the best that is called as good


def finding(document: Sweep) -> list[str]:
    """What the sweep found, the most important first."""
    counts = document["counts"]
    if not document["ranked"]:
        return [f"None of {counts['points']:,} points can be run. {_most_reasons(document)}".strip()]
    many = by_condition(document)
    said = [_leader(document, *one) for one in many.items()] if len(many) <= _TOLD else _least(document, many)
    if len(document["objectives"]) > 1:
        names = " and ".join(label(one) for one in document["objectives"])
        front = len(document["pareto"])
        verb, whose = ("point is", "its") if front == 1 else ("points are", "their")
        said.append(f"{front} {verb} beaten by none{of_given(document, whose)} on {names}.")
    said += filter(None, [_costliest(document, many)])
    told = (("infeasible", "cannot be"), ("pruned", "were skipped by their bound"), ("failed", "failed"))
    rest = [f"{counts[status]:,} {word}" for status, word in told if counts[status]]
    if rest:
        ran = "ran and met every constraint" if document["sweep"].get("constraints") else "ran"
        said.append(f"{counts['ok']:,} {ran}; {', '.join(rest)}. {_most_reasons(document)}".strip())
    if document["changes"]:
        said.append(_change(document))
    return said


def _leader(document: Sweep, condition: Condition, here: Sequence[Point]) -> str:
    """The best point and the next one of the same condition."""
    name, leader = objective(document)[0], leaders(document).get(condition)
    lead = f"{condition_text(document, condition)}: best" if condition else "Best"
    if leader is None:
        return f"{condition_text(document, condition)}: nothing can be run."
    axes = choices(document) or varied(document)
    first = f"{lead} of {len(here):,} that ran is {values_text(leader, axes)}: {label(name)} {cell(name, metric(leader, name))}."
    others = [point for point in here if point is not leader]
    if len(document["objectives"]) > 1 or not others:
        return first
    behind = lag_cell(document, others[0])
    return f"{first} Next: {values_text(others[0], axes)}, {'as good' if behind == 'best' else behind}."


def _least(document: Sweep, many: Mapping[Condition, Sequence[Point]]) -> list[str]:
    """Of many conditions, those that need least and most of each choice to come close to their best."""
    said = []
    for axis in choices(document):
        found = [(enough(document, axis, points, _CLOSE), one) for one, points in many.items()]
        sized = [(size(p["values"][axis]) or 0.0, value_label(p["values"][axis]), c) for p, c in found if p]
        if not sized:
            continue
        (low, least, first), (high, most, last) = (pick(sized, key=lambda one: one[0]) for pick in (min, max))
        within = f"To come within {_CLOSE - 1:.0%} of its best, {condition_text(document, first)} needs"
        rest = f"; {condition_text(document, last)} needs {most}" if low < high else ", like all others"
        said.append(f"{within} {axis_label(axis)} {least}{rest}.")
    return said or [
        f"The best of each of {len(many)} conditions ({given_text(document)}) stands in the table."
    ]


def _costliest(document: Sweep, many: Mapping[Condition, Sequence[Point]]) -> str:
    """The value of an axis that costs most, over all others at their best."""
    name = objective(document)[0]
    worst: tuple[float, str] | None = None
    for condition, points in many.items():
        for axis in choices(document):
            for value, point, _ in marginals(document, axis, points):
                if point is None:
                    continue
                times = times_best(document, point)
                where = f" ({condition_text(document, condition)})" if condition else ""
                told = f"Of all choices {axis_label(axis)} {value} costs most{where}: at best {cell(name, metric(point, name))}, {times_text(document, times)}."
                worst = max(worst, (times, told)) if worst else (times, told)
    return worst[1] if worst and worst[0] >= 1.01 else ""


def _change(document: Sweep) -> str:
    """What points that lack memory would need and give: the one that helps with least, and the one that gives most."""
    best, tried = changes(document), document["runs"]["of_changes"]
    better = [one for one in best if _times_with_it(document, one) < 1]
    if not better:
        none = f"None of the {tried} points tried with the memory they lack would"
        worse = f"{none if tried > 1 else 'The only point that lacks memory alone would not'} beat the best"
        return f"{worse}: with what it needs, {_reached(document, best[0])}."
    least = min(better, key=memory_ratio)
    most = f"; with still more, {_reached(document, best[0])}" if best[0] is not least else ""
    return f"With more memory, {_reached(document, least)}{most}."


def _reached(document: Sweep, change: Mapping[str, Any]) -> str:
    name, would = objective(document)[0], changed(document, change)
    needs = f"{show(change['needed_bytes'], 'bytes', 3)} a GPU instead of {show(change['capacity_bytes'], 'bytes', 3)}"
    gain = f", {lag_cell(document, would)}" if lag(document, would) else ""
    return f"{values_text(would, varied(document))} ({needs}) would reach {cell(name, metric(would, name))}{gain}"


def _most_reasons(document: Sweep) -> str:
    found = reasons(document)
    return f"Most often: {found[0][0]} ({found[0][1]:,})." if found else ""
