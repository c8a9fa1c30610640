"""A sweep in sentences: the best points, the choice that costs most, what cannot be, and what more memory would give."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from sim.metrics import label
from sim.show.views.names import joined
from sim.show.views.sweep import Change, Condition, PointView, SweepView
from sim.units import show

_MOST_CONDITIONS = 4  # that have a sentence each
_CLOSE = 1.05  # times the best that is called as good


def finding(view: SweepView) -> list[str]:
    """Return the answer of a sweep, the most important sentence first."""
    counts = view.counts
    if not view.ranked:
        return [f"None of {counts['points']:,} points can be run. {_most_frequent(view)}".strip()]
    if len(view.conditions) <= _MOST_CONDITIONS:
        sentences = [_leader(view, *item) for item in view.conditions.items()]
    else:
        sentences = _least(view)
    if len(view.objectives) > 1:
        names = " and ".join(objective.label for objective in view.objectives)
        front = len(view.pareto)
        verb, whose = ("point is", "its") if front == 1 else ("points are", "their")
        sentences.append(f"{front} {verb} beaten by none{view.peers_text(whose)} on {names}.")
    sentences += filter(None, [_costliest(view)])
    words = (("infeasible", "cannot be"), ("pruned", "were skipped by their bound"), ("failed", "failed"))
    rest = [f"{counts[status]:,} {word}" for status, word in words if counts[status]]
    if rest:
        ran = "ran and met every constraint" if view.has_constraints else "ran"
        sentences.append(f"{counts['ok']:,} {ran}; {', '.join(rest)}. {_most_frequent(view)}".strip())
    return [*sentences, _change(view)] if view.changes else sentences


def _leader(view: SweepView, condition: Condition, points: Sequence[PointView]) -> str:
    """Name the best point of a condition, and the next."""
    name, leader, text = view.objective.metric, view.leaders.get(condition), view.condition_text(condition)
    if leader is None:
        return f"{text}: nothing can be run."
    axes, lead = view.choices or view.varied, f"{text}: best" if condition else "Best"
    best = f"{lead} of {len(points):,} that ran is {leader.text(axes)}: {label(name)} {leader.cell(name)}."
    second = next((point for point in points if point is not leader), None)
    if len(view.objectives) > 1 or second is None:
        return best
    return f"{best} Next: {second.text(axes)}, {'as good' if second.lag == 0 else second.lag_cell}."


def _least(view: SweepView) -> list[str]:
    """Name of many conditions those that need least and most of each choice to come close to their best."""
    sentences = []
    for axis in view.choices:
        close = [
            (condition, point.texts[axis.name])
            for condition, points in view.conditions.items()
            if (point := view.least_within(axis, points, _CLOSE)) is not None
        ]
        if (sizes := axis.sizes) is None or not close:
            continue
        least, most = (pick(close, key=lambda item: sizes[item[1]]) for pick in (min, max))
        within = f"To come within {_CLOSE - 1:.0%} of its best, {view.condition_text(least[0])} needs"
        apart = sizes[least[1]] < sizes[most[1]]
        rest = f"; {view.condition_text(most[0])} needs {most[1]}" if apart else ", like all others"
        sentences.append(f"{within} {axis.label} {least[1]}{rest}.")
    if not sentences and (turns := _turns(view)):
        return turns
    many = f"The best of each of {len(view.conditions)} conditions ({view.given_text}) is in the table."
    return sentences or [many]


def _turns(view: SweepView) -> list[str]:
    """Name the best designs along the given axis of most sizes, and where one takes over from another."""
    along = max((axis for axis in view.given if axis.sizes), key=lambda axis: len(axis.values), default=None)
    if along is None:
        return []
    at = view.given.index(along)
    rows: dict[Condition, list[tuple[str, str]]] = {}
    for condition in view.conditions:
        leader = view.leaders.get(condition)
        best = leader.text(view.choices or view.varied) if leader else "nothing"
        rows.setdefault((*condition[:at], *condition[at + 1 :]), []).append((best, condition[at]))
    others = [axis for axis in view.given if axis is not along]
    sentences = []
    for condition, row in rows.items():
        stretches = [
            (best, [text for _, text in own]) for best, own in groupby(row, key=lambda item: item[0])
        ]
        *firsts, (last, texts) = stretches
        parts = [f"{best} up to {own[-1]}" for best, own in firsts]
        parts.append(f"{last} from {texts[0]} on" if firsts else f"{last} throughout")
        names = zip(others, condition, strict=True)
        where = ", ".join(f"{axis.label} {text}" if text[:1].isdigit() else text for axis, text in names)
        lead = f"{where}: best" if where else "Best"
        sentences.append(f"{lead} by {along.label} is {joined(parts)}.")
    return sentences[:_MOST_CONDITIONS]


def _costliest(view: SweepView) -> str:
    """Name the value of an axis that costs most, over all others at their best; "" where none costs a hundredth."""
    worst = (1.01, "")
    for condition, points in view.conditions.items():
        where = f" ({view.condition_text(condition)})" if condition else ""
        for axis in view.choices:
            for marginal in view.marginals(axis, points):
                if (best := marginal.best) is not None:
                    times = (
                        f"{best.times_best:.3g}x the"
                        if view.objective.minimise
                        else f"1/{best.times_best:.3g} of the"
                    )
                    cost = f"at best {best.cell(view.objective.metric)}, {times} best"
                    text = f"Of all choices {axis.label} {marginal.text} costs most{where}: {cost}."
                    worst = max(worst, (best.times_best, text))
    return worst[1]


def _change(view: SweepView) -> str:
    """Name points with the memory that they lack: the one that helps with least, and the one that gives most."""
    nearest, tried = view.changes[0], view.runs.of_changes
    better = [change for change in view.changes if change.times_best < 1]
    if not better:
        none = f"None of the {tried} points tried with the memory they lack would"
        worse = f"{none if tried > 1 else 'The only point that lacks memory alone would not'} beat the best"
        return f"{worse}: with what it needs, {_reach(view, nearest)}."
    least = min(better, key=lambda change: change.ratio)
    most = f"; with still more, {_reach(view, nearest)}" if nearest is not least else ""
    return f"With more memory, {_reach(view, least)}{most}."


def _reach(view: SweepView, change: Change) -> str:
    needs = (
        f"{show(change.needed_bytes, 'bytes', 3)} a GPU instead of {show(change.capacity_bytes, 'bytes', 3)}"
    )
    gain = f", {change.point.lag_cell}" if change.point.lag else ""
    return f"{change.point.text(view.varied)} ({needs}) would reach {change.point.cell(view.objective.metric)}{gain}"


def _most_frequent(view: SweepView) -> str:
    return f"Most often: {view.reasons[0].kind} ({view.reasons[0].count:,})." if view.reasons else ""
