"""Which cases of a result are told beside which, in what order.

The first case is the reference. Cases that differ from it in more than hardware are *choices*; each is compared with it. Of
hardware twins the first alone is a choice, and the other is compared with its twin, after the choices: what a design does
is asked before what a machine does to it. Of many those of the largest effect speak.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from sim.show.views.run import Case, twins

MOST_TOLD = 3
"""Choices, and twins, that get a sentence each."""
_One = TypeVar("_One")
_Pair = tuple[Case, Case]
"""A reference, and what is compared with it."""


def choices(found: Sequence[Case]) -> list[Case]:
    """Cases that differ from the first in more than hardware, of hardware twins the first alone."""
    others = {id(pair.other) for pair in twins(found)}
    return [case for case in found[1:] if id(case) not in others]


def most_different(found: Sequence[_One], effect: Callable[[_One], float]) -> list[_One]:
    """Up to `MOST_TOLD`, the largest effect (log of a ratio) first; one of each sign where there are both."""
    ranked = sorted(found, key=lambda one: -abs(effect(one)))
    told, rest = ranked[:MOST_TOLD], ranked[MOST_TOLD:]
    better = effect(ranked[0]) < 0 if ranked else False
    opposite = [one for one in rest if (effect(one) < 0) != better]
    if opposite and all((effect(one) < 0) == better for one in told):
        told = [*told[:-1], opposite[0]]
    return sorted(told, key=lambda one: -abs(effect(one)))


def told(found: Sequence[Case], time_s: Callable[[Case], float]) -> tuple[list[_Pair], list[_Pair], str]:
    """The choices and the twins that are told, each with its reference, and a sentence on those left out (or none)."""

    def effect(pair: _Pair) -> float:
        return math.log(time_s(pair[1]) / time_s(pair[0]))

    chosen = [(found[0], case) for case in choices(found)]
    pairs = [(pair.reference, pair.other) for pair in twins(found)]
    first, then = most_different(chosen, effect), most_different(pairs, effect)
    left = len(chosen) + len(pairs) - len(first) - len(then)
    some = f"The other {left} differ" if left > 1 else "The other one differs"
    return first, then, f"{some} less." if left else ""


def as_reference(reference: Case, found: Sequence[Case]) -> str:
    """` as NAME` where the reference is not the first of all."""
    return "" if reference is found[0] else f" as {reference.name}"
