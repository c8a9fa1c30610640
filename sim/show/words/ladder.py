"""Ladders in sentences: what each choice moves, how far apart machines are, how much of a link is enough.

Every sentence is true when it is read alone. `ladder_changes` defines what a change and a gap are.
"""

from __future__ import annotations

from itertools import pairwise

from sim.show.views.ladder import (
    Curve,
    Enough,
    LadderView,
    Machine,
    Need,
    Reading,
    Rung,
    Unknown,
    machine_label,
)
from sim.show.views.ladder_changes import NONE, change_text
from sim.show.views.names import joined
from sim.show.words import exchange, search
from sim.units import show

_SMALL = 0.01  # changes and gaps up to this are reported as small
_FAR = -0.05  # a gap from which on a machine is clearly ahead
_MOST = 3  # choices in a sentence


def finding(view: LadderView) -> list[str]:
    """Return everything that a ladder says, the most important sentence first."""
    curves = (curve_sentence(view, curve) for curve in view.curves.values())
    return [*answer(view), *map(enough_sentence, view.enough.values()), *filter(None, curves)]


def headline(view: LadderView) -> list[str]:
    """Return from where to where the choices lead, and what becomes of the gap."""
    return [*_course(view), *_gap(view)]


def answer(view: LadderView) -> list[str]:
    """Return what the rungs say: from where to where, the gap, what is missed most, what harms, what does not run."""
    asked = [
        *(search.sentences(view.search) if view.search else []),
        *(exchange.sentences(view.exchange) if view.exchange else []),
    ]
    if not view.has_rungs:
        return [*asked, *([] if view.search else _refusals(view))]
    rungs = [*_course(view), *_companions(view), *_gap(view), *removals(view), *_harm(view), *_refusals(view)]
    return [*rungs, *asked]


def _course(view: LadderView) -> list[str]:
    metric, count = view.metric, len(view.choices)
    choices = f"{count} choices take" if count > 1 else "One choice takes"
    spans, unfit = [], []
    for machine in view.machines[:2]:
        start, end = (rung.in_turn[machine.name].value for rung in (view.naive, view.full))
        if start is None or end is None:
            which = [design for design, value in (("naive", start), ("full", end)) if value is None]
            unfit.append(f"On {machine.label} the {joined(which)} design does not run.")
        else:
            speed = f"on {machine.label} ({metric.speed_phrase(end, start)})"
            spans.append(f"from {metric.text(start)} to {metric.text(end)} {speed}")
    return [*([f"{choices} {metric.label} {' and '.join(spans)}."] if spans else []), *unfit]


def _companions(view: LadderView) -> list[str]:
    """Report what else differs between the naive design and the full one, on the reference."""
    naive, full = (rung.in_turn[view.reference.name].companions for rung in (view.naive, view.full))
    changes = [f"{name} from {naive[name]} to {full[name]}" for name in naive if full]
    start = f"On {view.reference.label}, from the naive design to the full one"
    return [f"{start}: {', '.join(changes)}."] if changes else []


def _gap(view: LadderView) -> list[str]:
    """Report what becomes of the gap to the first other machine, and which choices move it most."""
    gaps = [(rung, rung.gap) for rung in view.rungs if rung.gap is not None]
    if view.rival is None or len(gaps) < 2:
        return []
    ours, theirs = view.reference.label, view.rival.label
    most = max(abs(gap) for _, gap in gaps)
    if most <= _SMALL:
        far = "equal" if most < NONE else f"within {100 * most:.1f} % of each other"
        return [f"{ours} and {theirs} are {far} on every rung: what a choice moves, it moves on both."]
    (lowest, first), (highest, last) = gaps[0], gaps[-1]
    start = "the naive design" if lowest is view.naive else f"'{lowest.title}'"
    end = "the full one" if highest is view.full else f"'{highest.title}'"
    moves = [(abs(gap) - abs(before), rung) for (_, before), (rung, gap) in pairwise(gaps)]
    up, down = (pick(moves, key=lambda move: move[0]) for pick in (max, min))
    why = []
    if up[0] > _SMALL:
        why.append(f"'{up[1].title}' widens the gap by {100 * up[0]:.1f} points")
    if down[0] < -_SMALL:
        why.append(f"'{down[1].title}' narrows {'it' if why else 'the gap'} by {-100 * down[0]:.1f} points")
    phrases = [f"{view.metric.gap_phrase(gap)} {theirs}" for gap in (first, last)]
    rest = f"; {joined(why)}" if why else ""
    return [f"In {start} {ours} takes {phrases[0]}, in {end} {phrases[1]}{rest}."]


def _removals_on(view: LadderView, machine: Machine) -> list[tuple[float, Rung, Reading]]:
    """Return each removal that runs on a machine, with what the design takes more [fraction]."""
    readings = ((rung, rung.removed[machine.name]) for rung in view.choices)
    return [
        (view.metric.cost(reading.change), rung, reading)
        for rung, reading in readings
        if reading.change is not None
    ]


def removals(view: LadderView) -> list[str]:
    """Return what is missed most of the choices that come out by themselves; then those that take others along."""
    metric, on = view.metric, view.reference
    full = metric.text(view.full.in_turn[on.name].value)
    ranked = sorted(_removals_on(view, on), key=lambda removal: -removal[0])
    lone = [removal for removal in ranked if not removal[1].takes_along]
    missed = [(rung, reading) for cost, rung, reading in lone if cost >= NONE][:_MOST]
    out, sentences = "Taken out of the full design by itself", []
    if missed:
        starts = [f"{metric.label} from {full} to", *(["to"] * len(missed))]
        parts = [
            f"{rung.removal_text(_QUOTE)} ({start} {metric.text(reading.value)}, {change_text(reading.change)})"
            for start, (rung, reading) in zip(starts, missed, strict=False)
        ]
        sentences.append(f"{out}, the choice that {on.label} misses most is {', then '.join(parts)}.")
    elif lone:
        sentences.append(f"{out}, no choice is missed on {on.label}.")
    sentences += [
        f"Without {rung.removal_text(_QUOTE)}, the full design on {on.label} goes from {full} to {metric.text(reading.value)} "
        f"({metric.label}, {change_text(reading.change)})."
        for _, rung, reading in ranked
        if rung.takes_along
    ]
    return sentences


_QUOTE = "'"


def _harm(view: LadderView) -> list[str]:
    """Report choices without which the full design is better on some machine."""
    metric, sentences = view.metric, []
    for machine in view.machines:
        harmful = [
            f"{rung.removal_text(_QUOTE)} ({metric.text(reading.value)}, {change_text(reading.change)})"
            for cost, rung, reading in _removals_on(view, machine)
            if cost < -_SMALL
        ]
        if harmful:
            full = f"({metric.label}: {metric.text(view.full.in_turn[machine.name].value)})"
            better = f"is {'faster' if metric.is_timely else 'better'} without {joined(harmful, 'or')}"
            sentences.append(f"On {machine.label} the full design {full} {better}.")
    return sentences


def _refusals(view: LadderView) -> list[str]:
    """Report which designs do not run, and where."""
    where: dict[tuple[str, str], list[str]] = {}
    for rung in view.rungs:
        on: dict[str, list[str]] = {}
        for words, name, _ in rung.refusals():
            on.setdefault(words, []).append(machine_label(name))
        for words, names in on.items():
            where.setdefault((joined(names), words), []).append(f"'{rung.title}'")
    parts = [f"{joined(titles)} {words} on {names}" for (names, words), titles in where.items()]
    return [f"These do not run, for the reasons in the table: {'; '.join(parts)}."] if parts else []


def enough_sentence(enough: Enough | Unknown) -> str:
    """Return how much of a figure is enough, in a sentence."""
    if isinstance(enough, Unknown):
        return f"{enough.title}: {enough.reason}."
    tightest, on = enough.needed[0], enough.machine
    present = show(enough.present, enough.dimension, 3)
    if tightest.at_most:
        tried = f"even with {show(tightest.value, enough.dimension, 3)}, the least that was tried"
        return f"{enough.title}: {tried}, {on} {_excess(enough, tightest.value)}; it has {present}."
    needs = ", ".join(
        f"{need_text(enough, need)}{' comes' if need is tightest else ''} within {100 * need.within_fraction:g} %"
        for need in enough.needed
    )
    return f"{enough.title}: {needs} of an unlimited one; {on} has {present} and {_excess(enough, enough.present)}."


def need_text(enough: Enough, need: Need, at_most: str = "at most ") -> str:
    """Return the value that is enough, after `at_most` where less may do."""
    return f"{at_most if need.at_most else ''}{show(need.value, enough.dimension, 3)}"


def _excess(enough: Enough, value: float) -> str:
    if value not in enough.excess:
        return "does not run with it"
    return f"takes {enough.metric.gap_phrase(enough.excess[value])} with an unlimited one"


def curve_sentence(view: LadderView, curve: Curve) -> str | None:
    """Return where the reference breaks even with the first other machine; None where it is alone."""
    if view.rival is None:
        return None
    name, ours, theirs = view.rival.name, view.reference.label, view.rival.label
    along = f"Along {curve.title}{f' ({curve.held})' if curve.held else ''}"
    gaps = {point.value: gap for point in curve.points if (gap := point.gaps[name]) is not None}
    if not gaps:
        return f"{along}, no point runs on both {ours} and {theirs}."
    even, axis = list(curve.break_even[name]), list(gaps)
    widest = max(axis, key=lambda value: abs(gaps[value]))
    mark = f"{100 * curve.within_fraction:g} % {curve.metric.longer}"
    bound = f"{'more than' if not even else 'at most'} {mark} than {theirs} {_place(even, axis)}"
    apart = ""
    if even != axis or gaps[widest] < _FAR:
        phrase = f"{curve.metric.gap_phrase(gaps[widest])} {theirs}"
        apart = f"; they differ most at {widest:g}, where {ours} takes {phrase}"
    return f"{along}, {ours} takes {bound}{apart}{_best(view, curve)}."


def _place(some: list[float], axis: list[float]) -> str:
    """Return where on an axis some of its values are: `up to 8`, `from 32 on`."""
    if some == axis or not some:
        return "everywhere"
    if len(some) == 1:
        return f"at {some[0]:g} only"
    if some == axis[: len(some)]:
        return f"up to {some[-1]:g}"
    if some == axis[-len(some) :]:
        return f"from {some[0]:g} on"
    return f"at {joined([f'{value:g}' for value in some])}"


def _best(view: LadderView, curve: Curve) -> str:
    """Return the best point of the reference, where it lies inside the axis: an end says no more than which way is better."""
    readings = [(point.value, point.readings[view.reference.name]) for point in curve.points]
    ran = [
        (value, reading, curve.metric.takes(reading.value))
        for value, reading in readings
        if reading.value is not None
    ]
    place, (value, reading, _) = min(enumerate(ran), key=lambda item: item[1][2])
    if place in (0, len(ran) - 1):
        return ""
    parts = {curve.metric.label: curve.metric.text(reading.value), **reading.companions}
    words = ", ".join(f"{name}: {text}" for name, text in parts.items())
    return f"; {view.reference.label} does best at {value:g} ({words})"
