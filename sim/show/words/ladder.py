"""Ladders in sentences: what each choice moves, how far apart machines are, how much of a link is enough.

Every sentence is true when it is read alone. What a change and a gap are, `ladder_changes` says.
"""

from __future__ import annotations

from itertools import pairwise

from sim.show.views.ladder import WAYS, beside, called, machine, other, said, steps
from sim.show.views.ladder_changes import (
    NONE,
    Document,
    against,
    change_removed,
    cost,
    goes_alone,
    is_timely,
    moved,
    removal,
    speed,
    takes,
)
from sim.show.views.run import joined
from sim.units import show

_SMALL = 0.01  # changes and gaps up to here are told as small
_MOST = 3  # choices in a sentence


# --- reading --------------------------------------------------------------------------------------------------------


# --- sentences ------------------------------------------------------------------------------------------------------


def finding(document: Document) -> list[str]:
    """What a ladder says, the most important first."""
    return [
        *answer(document),
        *(enough_sentence(one) for one in document["enough"].values()),
        *(sentence for one in document["curves"].values() if (sentence := curve_sentence(document, one))),
    ]


def headline(document: Document) -> list[str]:
    """From where to where its choices lead, and what becomes of the gap."""
    return [*_from_to(document), *_gap(document)]


def answer(document: Document) -> list[str]:
    """What its rungs say: from where to where, the gap, what is missed most, what harms, what does not run."""
    return [
        *_from_to(document),
        *_beside(document),
        *_gap(document),
        *removed(document),
        *_harmful(document),
        *_unfit(document),
    ]


def _from_to(document: Document) -> list[str]:
    metric, naive, full = document["metric"]["name"], document["rungs"][0], document["rungs"][-1]
    count = len(document["rungs"]) - 1
    choices = f"{count} choices take" if count > 1 else "One choice takes"
    told, unfit = [], []
    for name in list(document["hardware"])[:2]:
        start, end = (rung["values"]["cumulative"][name] for rung in (naive, full))
        if start is None or end is None:
            which = [design for design, value in (("naive", start), ("full", end)) if value is None]
            unfit.append(f"On {machine(name)} the {joined(which)} design does not run.")
        else:
            how = f"on {machine(name)} ({speed(document, end, start)})"
            told.append(f"from {said(metric, start)} to {said(metric, end)} {how}")
    return [*([f"{choices} {called(metric)} {' and '.join(told)}."] if told else []), *unfit]


def _beside(document: Document) -> list[str]:
    """What else differs between the naive design and the full one, on the reference."""
    on, metric = document["reference"], document["metric"]["name"]
    ends = [document["rungs"][i]["cumulative"][on] for i in (0, -1)]
    if None in ends:
        return []
    naive, full = (beside(document, end, metric) for end in ends)
    changes = [f"{called(name)} from {naive[name]} to {full[name]}" for name in naive]
    return (
        [f"On {machine(on)}, from the naive design to the full one: {', '.join(changes)}."] if changes else []
    )


def _gap(document: Document) -> list[str]:
    """What becomes of the gap to the first other machine, and which choices move it most."""
    name = other(document)
    gaps = [(rung, rung["gap_fraction"]) for rung in document["rungs"] if rung["gap_fraction"] is not None]
    if name is None or len(gaps) < 2:
        return []
    ours, theirs = machine(document["reference"]), machine(name)
    most = max(abs(gap) for _, gap in gaps)
    if most <= _SMALL:
        far = "equal" if most < NONE else f"within {100 * most:.1f} % of each other"
        return [f"{ours} and {theirs} are {far} on every rung: what a choice moves, it moves on both."]
    timely = is_timely(document["metric"])
    (lowest, first), (highest, last) = gaps[0], gaps[-1]
    start = "the naive design" if lowest is document["rungs"][0] else f"'{lowest['title']}'"
    end = "the full one" if highest is document["rungs"][-1] else f"'{highest['title']}'"
    moves = [(abs(after[1]) - abs(before[1]), after[0]) for before, after in pairwise(gaps)]
    up, down = max(moves, key=lambda move: move[0]), min(moves, key=lambda move: move[0])
    why = []
    if up[0] > _SMALL:
        why.append(f"'{up[1]['title']}' widens the gap by {100 * up[0]:.1f} points")
    if down[0] < -_SMALL:
        what = "it" if why else "the gap"
        why.append(f"'{down[1]['title']}' narrows {what} by {-100 * down[0]:.1f} points")
    return [
        f"In {start} {ours} takes {against(first, timely)} {theirs}, in {end} {against(last, timely)} {theirs}"
        f"{f'; {joined(why)}' if why else ''}."
    ]


def removed(document: Document) -> list[str]:
    """What is missed most of the choices that come out by themselves; then those that take others along, each with them."""
    on, metric = document["reference"], document["metric"]["name"]
    full = said(metric, document["rungs"][-1]["values"]["cumulative"][on])
    found = [
        (by, removal(document, rung, "'"), said(metric, rung["values"]["removed_last"][on]), goes_alone(rung))
        for _, rung in steps(document)
        if (by := change_removed(document, rung, on)) is not None
    ]
    found.sort(key=lambda one: -cost(document, one[0]))
    lone = [one for one in found if one[3]]
    missed = [one for one in lone if cost(document, one[0]) >= NONE][:_MOST]
    out = "Taken out of the full design by itself"
    told = []
    if missed:
        starts = [f"{called(metric)} from {full} to", *(["to"] * len(missed))]
        parts = [
            f"{name} ({start} {value}, {moved(by)})"
            for start, (by, name, value, _) in zip(starts, missed, strict=False)
        ]
        told.append(f"{out}, the choice that {machine(on)} misses most is {', then '.join(parts)}.")
    elif lone:
        told.append(f"{out}, no choice is missed on {machine(on)}.")
    told += [
        f"Without {name}, the full design on {machine(on)} goes from {full} to {value} ({called(metric)}, {moved(by)})."
        for by, name, value, is_lone in found
        if not is_lone
    ]
    return told


def _harmful(document: Document) -> list[str]:
    """Choices without which the full design is better on some machine."""
    metric, told = document["metric"]["name"], []
    better = "faster" if is_timely(document["metric"]) else "better"
    for name in document["hardware"]:
        found = [
            (removal(document, rung, "'"), said(metric, rung["values"]["removed_last"][name]), moved(by))
            for _, rung in steps(document)
            if (by := change_removed(document, rung, name)) is not None and cost(document, by) < -_SMALL
        ]
        if found:
            full = said(metric, document["rungs"][-1]["values"]["cumulative"][name])
            without = joined([f"{rung} ({value}, {by})" for rung, value, by in found], "or")
            told.append(
                f"On {machine(name)} the full design ({called(metric)}: {full}) is {better} without {without}."
            )
    return told


def _unfit(document: Document) -> list[str]:
    """Which designs do not run, and where."""
    where: dict[tuple[str, str], list[str]] = {}
    for rung in document["rungs"]:
        for way, reasons in rung["reasons"].items():
            where.setdefault((joined([machine(name) for name in reasons]), way), []).append(
                f"'{rung['title']}'"
            )
    told = [f"{joined(titles)} {WAYS[way]} on {names}" for (names, way), titles in where.items()]
    return [f"These do not run, for the reasons in the table: {'; '.join(told)}."] if told else []


def enough_sentence(one: Document) -> str:
    """How much of a figure is enough, in a sentence."""
    if "needed" not in one:
        return f"{one['title']}: {one['reason']}."
    dimension, tightest, on = one["dimension"], one["needed"][0], machine(one["hardware"])
    present = show(one["present"]["value"], dimension, 3)
    if tightest["at_most"]:
        least = next(point for point in one["points"] if point["value"] == tightest["value"])
        return (
            f"{one['title']}: even with {show(tightest['value'], dimension, 3)}, the least that was tried, {on} "
            f"{_above(one, least['metric'])}; it has {present}."
        )
    told = [
        f"{'at most ' if need['at_most'] else ''}{show(need['value'], dimension, 3)} within {100 * need['within_fraction']:g} %"
        for need in one["needed"]
    ]
    return (
        f"{one['title']}: {told[0].replace(' within', ' comes within')}{''.join(f', {more}' for more in told[1:])} "
        f"of an unlimited one; {on} has {present} and {_above(one, one['present']['metric'])}."
    )


def above_unlimited(one: Document, metric: float) -> float:
    """How much more a run takes than with an unlimited figure [fraction]."""
    more, unlimited = one["more_is_better"], one["unlimited"]["metric"]
    return 0.0 if metric == unlimited else takes(metric, more) / takes(unlimited, more) - 1


def _above(one: Document, metric: float | None) -> str:
    if metric is None:
        return "does not run with it"
    return f"takes {against(above_unlimited(one, metric), is_timely(one))} with an unlimited one"


def curve_sentence(document: Document, one: Document) -> str | None:
    """Where the reference breaks even with the first other machine; None where it stands alone."""
    name = other(document)
    if name is None:
        return None
    along = f"Along {one['title']}{f' ({held})' if (held := one['held']) else ''}"
    at, ran = one["break_even"][name]["at"], [p for p in one["points"] if p["gaps"][name] is not None]
    if not ran:
        return f"{along}, no point runs on both {machine(document['reference'])} and {machine(name)}."
    axis, timely = [point["value"] for point in ran], is_timely(one)
    widest = max(ran, key=lambda point: abs(point["gaps"][name]))
    ours, theirs = machine(document["reference"]), machine(name)
    if at == axis or not at:
        where = "everywhere"
    elif len(at) == 1:
        where = f"at {at[0]:g} only"
    elif at == axis[: len(at)]:
        where = f"up to {at[-1]:g}"
    elif at == axis[-len(at) :]:
        where = f"from {at[0]:g} on"
    else:
        where = f"at {joined([f'{value:g}' for value in at])}"
    mark = f"{100 * one['within_fraction']:g} % {'longer' if timely else 'more'}"
    told = f"{along}, {ours} takes {'more than' if not at else 'at most'} {mark} than {theirs} {where}"
    if at != axis or widest["gaps"][name] < -0.05:
        told += f"; they differ most at {widest['value']:g}, where {ours} takes {against(widest['gaps'][name], timely)} {theirs}"
    return f"{told}{_best(document, one)}."


def _best(document: Document, one: Document) -> str:
    """The best point of the reference, where it lies inside the axis: an end says no more than which way is better."""
    on = document["reference"]
    ran = [point for point in one["points"] if point["values"].get(on) is not None]
    sign = -1 if one["more_is_better"] else 1
    best = min(range(len(ran)), key=lambda i: sign * ran[i]["values"][on])
    if best in (0, len(ran) - 1):
        return ""
    point, metric = ran[best], one["metric"]
    more = beside(document, point["metrics"][on], metric).items()
    told = [(metric, said(metric, point["values"][on])), *more]
    return f"; {machine(on)} does best at {point['value']:g} ({', '.join(f'{called(name)}: {value}' for name, value in told)})"
