"""Which runs of a result are compared with which, in what order.

The first run is the reference. Runs that differ from it in more than hardware are *choices*; each is compared with it. Of
hardware twins the first alone is a choice, and the other is compared with its twin, after the choices: what a design does
is asked before what a machine does to it. Of many those of the largest effect speak.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from sim.show.views.run import RunView, Twin

SAME = 0.005
"""Ratios this close to 1 are called "as long"."""
MOST_COMPARED = 3
"""Choices, and twins, that get a sentence each."""
_Item = TypeVar("_Item")
_Run = TypeVar("_Run", bound=RunView)


def choices(runs: Sequence[_Run], twins: Sequence[Twin]) -> list[_Run]:
    """Runs that differ from the first in more than hardware, of hardware twins the first alone."""
    others = {twin.other for twin in twins}
    return [run for run in runs[1:] if run not in others]


def most_different(
    items: Sequence[_Item], effect: Callable[[_Item], float], room: int = MOST_COMPARED
) -> list[_Item]:
    """Up to `room`, the largest effect (log of a ratio) first; one of each sign where there are both."""
    ranked = sorted(items, key=lambda item: -abs(effect(item)))
    kept, rest = ranked[:room], ranked[room:]
    better = effect(ranked[0]) < 0 if ranked else False
    opposite = [item for item in rest if (effect(item) < 0) != better]
    if opposite and all((effect(item) < 0) == better for item in kept):
        kept = [*kept[:-1], opposite[0]]
    return sorted(kept, key=lambda item: -abs(effect(item)))


def pairs_of(
    runs: Sequence[_Run],
    twins: Sequence[Twin],
    time_s: Callable[[_Run], float],
    room: int = 2 * MOST_COMPARED,
) -> tuple[list[tuple[_Run, _Run]], str]:
    """Choose what is compared: reference and run of each choice, then of each twin, at most `room`.

    And a sentence on the rest.
    """

    def effect(pair: tuple[_Run, _Run]) -> float:
        return math.log(time_s(pair[1]) / time_s(pair[0]))

    known: dict[RunView, _Run] = {run: run for run in runs}
    chosen = [(runs[0], run) for run in choices(runs, twins)]
    paired = [(known[twin.reference], known[twin.other]) for twin in twins if twin.other in known]
    first, then = most_different(chosen, effect), most_different(paired, effect)
    crowded = len(first) + len(then) > room
    while len(first) + len(then) > room:
        (first if len(first) > len(then) else then).pop()
    left = len(chosen) + len(paired) - len(first) - len(then)
    if crowded:
        rest = f"{left} more {'are' if left > 1 else 'is'} in the table."
    else:
        rest = f"The other {left} differ less." if left > 1 else "The other one differs less."
    return [*first, *then], rest if left else ""


def speed(ratio: float) -> str:
    """`1.25x as fast`, or `1.25x as long`, of a time over the one that it is compared with."""
    return f"{1 / ratio:.2f}x as fast" if ratio < 1 else f"{ratio:.2f}x as long"


def as_long(ratio: float) -> str:
    """Distance of a ratio from 1, never 0."""
    return f"{max(abs(ratio - 1), 0.001):.1%}"


def most_moved(before: Mapping[str, float], after: Mapping[str, float], *, slower: bool) -> tuple[str, float]:
    """The part of a time that changed most in the way of the whole, and by how much [s]."""
    changes = {part: after.get(part, 0.0) - before.get(part, 0.0) for part in {**before, **after}}
    part = max(changes, key=lambda name: changes[name] if slower else -changes[name])
    return part, changes[part]


def append_rest(sentences: Sequence[str], rest: str) -> list[str]:
    """The sentences, the last of them followed by what is left out."""
    return [*sentences[:-1], f"{sentences[-1]} {rest}" if rest else sentences[-1]]


def as_reference(reference: RunView, runs: Sequence[RunView]) -> str:
    """` as NAME` where the reference is not the first of all."""
    return "" if reference is runs[0] else f" as {reference.name}"
