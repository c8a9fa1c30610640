"""The answer to a question: where what is compared differs most, why, and from where on it does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sim.metrics import dimension_of, phrase
from sim.show.views.names import binds, capital, joined
from sim.show.views.question import Compared, Question
from sim.units import show

SAME = 0.02
"""Ratios that differ by less from 1 are the same."""


Because = Callable[[str, str], str]
"""Variant before and after -> what moved between them, in words; "" where nothing is known of that."""


def answer(question: Question, because: Because = lambda before, after: "") -> list[str]:
    """Return the sentences that answer a question, what differs most first."""
    first, *others = question.compared
    others.sort(key=lambda other: _most(question, first, other), reverse=True)
    return [sentence for other in others for sentence in _pair(question, first, other, because)]


def _most(question: Question, first: str, other: str) -> float:
    """Return the largest logarithm of a ratio of two that are compared, whichever is larger."""
    return max((_apart(row, first, other) for row in _rows(question, first, other)), default=0.0)


def _apart(row: Compared, first: str, other: str) -> float:
    return abs(math.log(_ratio(row, first, other)))


def _rows(question: Question, first: str, other: str) -> list[Compared]:
    """Return the rows in which both have a value."""
    return [
        row
        for row in question.rows
        if first in row.runs and other in row.runs and row.runs[first].value and row.runs[other].value
    ]


def _pair(question: Question, first: str, other: str, because: Because) -> list[str]:
    rows = _rows(question, first, other)
    if not rows:
        return [f"No value is known of both {first} and {other}."]
    most = max(rows, key=lambda row: _apart(row, first, other))
    both = f"{_on(question)} both"
    if _is_same(most, first, other):
        what = phrase(question.metric).removeprefix("the ")
        why = _why(question, most, first, other)
        return [f"{first} and {other} have the same {what}{_everywhere(question, rows, first)}{why}."]
    sentences = [_difference(question, most, first, other, because)]
    same = [row for row in rows if _is_same(row, first, other)]
    if len(same) > 1 and rows[-len(same) :] == same:
        place = f"From {same[0].over.removeprefix('at ')} on"
        sentences.append(f"{place} it is the same {both}{_why(question, same[0], first, other)}.")
    elif same:
        places = joined([row.over for row in same])
        sentences.append(capital(f"{places} it is the same {both}{_why(question, same[0], first, other)}."))
    elif len(rows) > 1:
        least = min(rows, key=lambda row: _apart(row, first, other))
        near = f"{_times(question, least, first, other)}{_why(question, least, first, other)}"
        sentences.append(f"They are nearest {least.over}: {near}.")
    return sentences


def _everywhere(question: Question, rows: Sequence[Compared], first: str) -> str:
    """Return the value that two share, or those of the first and the last place."""
    if len(rows) == 1:
        return f": {_value(question, rows[0], first)}"
    ends = [f"{_value(question, row, first)} {row.over}" for row in (rows[0], rows[-1])]
    return f" throughout, {f'{ends[0]} and {ends[1]}' if len(rows) == 2 else f'from {ends[0]} to {ends[1]}'}"


def _difference(question: Question, row: Compared, first: str, other: str, because: Because) -> str:
    place = f"{row.over} " if row.over else ""
    ours, theirs = (_value(question, row, name) for name in (first, other))
    verb = "takes" if _is_time(question) else "is"
    on = _on(question)
    start = f"{place}{phrase(question.metric)} {verb} {ours} {on} {first} and {theirs} {on} {other}"
    why = _why(question, row, first, other)
    if not why and (moved := because(row.runs[first].variant, row.runs[other].variant)):
        why = f"; {other} spends {moved}" if question.are_machines else f"; with {other} it spends {moved}"
    return capital(f"{start}, {_times(question, row, first, other)}{why}.")


def _on(question: Question) -> str:
    return "on" if question.are_machines else "with"


def _ratio(row: Compared, first: str, other: str) -> float:
    return row.runs[first].value / row.runs[other].value


def _is_same(row: Compared, first: str, other: str) -> bool:
    return _apart(row, first, other) < SAME


def _value(question: Question, row: Compared, name: str) -> str:
    return show(row.runs[name].value, dimension_of(question.metric), 3)


def _times(question: Question, row: Compared, first: str, other: str) -> str:
    """Return the ratio of the larger to the smaller, with whose is which."""
    ratio = _ratio(row, first, other)
    large, small = (first, other) if ratio > 1 else (other, first)
    much = "long" if _is_time(question) else "much"
    on = _on(question)
    return f"{max(ratio, 1 / ratio):.2f} times as {much} {on} {large} as {on} {small}"


def _is_time(question: Question) -> bool:
    return dimension_of(question.metric) == "s"


def _why(question: Question, row: Compared, first: str, other: str) -> str:
    """Return what binds, in both or in each."""
    ours, theirs = (row.runs[name].binding for name in (first, other))
    if not ours or not theirs:
        return ""
    on = _on(question)
    if ours == theirs:
        return f"; {binds(ours)} {on} both"
    return f"; {binds(ours)} {on} {first}, {binds(theirs)} {on} {other}"
