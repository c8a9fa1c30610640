"""Ladders in sentences: what each choice moves, how far apart machines are, how much of a link is enough.

Changes are told of what a design *takes*: its time, or the time that a rate leaves for each token. So less is always better,
and a gap of 5 % means that the reference takes 5 % longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from sim.show import findings
from sim.show.cases import Case
from sim.show.grid import Cell
from sim.units import dimension_of, show

Document = Mapping[str, Any]
Rung = Mapping[str, Any]

NAMES = {
    "step_time_s": "the step",
    "tokens_per_s_per_gpu": "tokens a second and GPU",
    "tokens_per_s_per_node": "tokens a second and node",
    "tokens_per_s_per_user": "tokens a second and user",
    "tpot_s": "time per output token",
    "ttft_s": "time to the first token",
    "layer_comm_alone_s": "exchanges of one layer",
    "layer_time_s": "one layer",
    "dispatch.time_s": "dispatch",
    "combine.time_s": "combine",
    "dispatch.time_s + combine.time_s": "dispatch and combine",
}
"""Metric -> what a reader calls it; others are called by their name."""

_SMALL = 0.01  # gaps up to here are told as small


def is_ladder(document: Document) -> bool:
    """Whether a document is what `moesim ladder --json` prints."""
    return str(document.get("schema", "")).startswith("moesim.ladder/")


# --- reading --------------------------------------------------------------------------------------------------------


def machine(name: str) -> str:
    """`h800` -> `H800`, `h100-235` -> `H100-235`."""
    return "-".join(findings.hardware_name(part) for part in name.split("-"))


def machines(document: Document) -> list[Case]:
    """The machines of a ladder that ran, each as a case: its scenario and what it leaned on."""
    return [
        Case(name, {"scenario": one["scenario"], "provenance": one["provenance"]})
        for name, one in document["hardware"].items()
        if "scenario" in one
    ]


def called(metric: str) -> str:
    """What a reader calls a metric."""
    return NAMES.get(metric, metric)


def said(metric: str, value: float | None, digits: int = 3) -> Cell:
    """A value of a metric with its unit; `-` for none."""
    if value is None:
        return "-"
    dimension = dimension_of(metric.partition("+")[0].strip())
    if dimension == "number" and abs(value) >= 1000:
        return f"{value:,.0f}"
    return show(value, dimension, digits)


def percent(fraction: float | None, digits: int = 1) -> Cell:
    """A signed percentage; `-` for none, `0` for what rounds to it."""
    if fraction is None:
        return "-"
    text = f"{100 * fraction:+,.{digits}f} %"
    return f"{0:.{digits}f} %" if float(text[1:].replace(",", "").split()[0]) == 0 else text


def takes(document: Document, value: float | None) -> float | None:
    """What a design takes: its value, or the reciprocal where more is better."""
    more = document["metric"]["more_is_better"]
    return None if value is None else 1 / value if more else value


def change(document: Document, new: float | None, old: float | None) -> float | None:
    """How much more a design takes than another [fraction]; None where one of them did not run."""
    ours, theirs = takes(document, new), takes(document, old)
    return None if ours is None or theirs is None else ours / theirs - 1


def change_alone(document: Document, rung: Rung, on: str) -> float | None:
    """What the naive design takes more or less with this choice alone [fraction]."""
    return change(
        document, rung["values"]["added_first"][on], document["rungs"][0]["values"]["cumulative"][on]
    )


def cost_without(document: Document, rung: Rung, on: str) -> float | None:
    """What the full design takes more or less without this choice [fraction]."""
    full = document["rungs"][-1]["values"]["cumulative"][on]
    return change(document, rung["values"]["removed_last"][on], full)


def steps(document: Document) -> Iterator[tuple[Rung, Rung]]:
    """Each choice with the rung before it."""
    yield from pairwise(document["rungs"])


def other(document: Document) -> str | None:
    """The machine that the reference is compared with first; None where it stands alone."""
    return next((name for name in document["hardware"] if name != document["reference"]), None)


def upper(text: str) -> str:
    """A text with its first letter as a capital."""
    return text[:1].upper() + text[1:]


# --- sentences ------------------------------------------------------------------------------------------------------


def finding(document: Document) -> list[str]:
    """What a ladder says, the most important first."""
    return [
        *_from_to(document),
        *_gap(document),
        *_removed(document),
        *_harmful(document),
        *_unfit(document),
        *(enough_sentence(one) for one in document["enough"].values()),
        *(sentence for one in document["curves"].values() if (sentence := curve_sentence(document, one))),
    ]


def _from_to(document: Document) -> list[str]:
    metric, naive, full = document["metric"]["name"], document["rungs"][0], document["rungs"][-1]
    count = len(document["rungs"]) - 1
    choices = f"{count} choices take" if count > 1 else "One choice takes"
    told = []
    for name in list(document["hardware"])[:2]:
        start, end = (rung["values"]["cumulative"][name] for rung in (naive, full))
        faster = change(document, start, end)
        if faster is None:
            told.append(f"from {said(metric, start)} to {said(metric, end)} on {machine(name)}")
            continue
        times = f"{1 + faster:.{2 if faster < 9 else 1}f}x"
        told.append(f"from {said(metric, start)} to {said(metric, end)} on {machine(name)} ({times})")
    return [f"{choices} {called(metric)} {' and '.join(told)}."]


def _gap(document: Document) -> list[str]:
    """What becomes of the gap to the first other machine, and which choice moves it most."""
    name = other(document)
    gaps = [(rung, rung["gap_fraction"]) for rung in document["rungs"] if rung["gap_fraction"] is not None]
    if name is None or len(gaps) < 2:
        return []
    pair = f"{machine(document['reference'])} and {machine(name)}"
    most = max(abs(gap) for _, gap in gaps)
    if most <= _SMALL:
        return [
            f"{pair} are never more than {most:.1%} apart: what these choices work around, both have."
            if most >= 0.0005
            else f"{pair} are equal on every rung: what these choices work around, both have."
        ]
    first, last = gaps[0][1], gaps[-1][1]
    moves = [(after[1] - before[1], after[0]) for before, after in pairwise(gaps)]
    up, down = max(moves, key=lambda move: move[0]), min(moves, key=lambda move: move[0])
    told = [
        f"{_name(rung)} {verb} {abs(100 * move):.1f} points of it"
        for verb, (move, rung) in (("opens", up), ("closes", down))
        if abs(move) > _SMALL and (move > 0) == (verb == "opens")
    ]
    return [f"The gap between {pair} goes from {percent(first)} to {percent(last)}; {' and '.join(told)}."]


def _name(rung: Rung) -> str:
    """A rung inside a sentence."""
    return f"'{rung['title']}'"


def _removed(document: Document) -> list[str]:
    on = document["reference"]
    costs = [
        (cost, rung) for _, rung in steps(document) if (cost := cost_without(document, rung, on)) is not None
    ]
    if not costs:
        return []
    costs.sort(key=lambda one: -one[0])
    told = [f"{_name(rung)} {percent(cost)}" for cost, rung in costs[:3]]
    return [f"Taken out of the full design on {machine(on)}, what costs most is {', then '.join(told)}."]


def _harmful(document: Document) -> list[str]:
    """Choices without which the full design is better on some machine."""
    told = []
    for name in document["hardware"]:
        worst = [
            f"{_name(rung)} ({percent(-cost)})"
            for _, rung in steps(document)
            if (cost := cost_without(document, rung, name)) is not None and cost < -_SMALL
        ]
        if worst:
            told.append(f"on {machine(name)} {', '.join(worst)}")
    return [f"The full design would be faster without some choices: {'; '.join(told)}."] if told else []


def _unfit(document: Document) -> list[str]:
    """How many designs cannot run, and which choices are in them."""
    found = [
        (rung["title"], way, name)
        for rung in document["rungs"]
        for way, reasons in rung["reasons"].items()
        for name in reasons
    ]
    if not found:
        return []
    titles = ", ".join(f"'{title}'" for title in dict.fromkeys(title for title, _, _ in found))
    many = f"{len(found)} designs do" if len(found) > 1 else "One design does"
    return [f"{many} not fit, for the reasons in the table: {titles}."]


def enough_sentence(one: Document) -> str:
    """How much of a figure is enough, in a sentence."""
    if "needed" not in one:
        return f"{one['title']}: {one['reason']}."
    present, dimension, tightest = one["present"]["value"], one["dimension"], one["needed"][0]
    if tightest["at_most"]:
        return (
            f"{one['title']}: {show(tightest['value'], dimension, 3)} is within {100 * tightest['within_fraction']:g} % of "
            f"unlimited already; {machine(one['hardware'])} has {show(present, dimension, 3)}."
        )
    told = [
        f"{'at most ' if need['at_most'] else ''}{show(need['value'], dimension, 3)} for {100 * need['within_fraction']:g} %"
        for need in one["needed"]
    ]
    return (
        f"{one['title']}: {', '.join(told)} above what an unlimited one takes; "
        f"{machine(one['hardware'])} has {show(present, dimension, 3)}."
    )


def curve_sentence(document: Document, one: Document) -> str | None:
    """Where the reference breaks even with the first other machine; None where it stands alone."""
    name = other(document)
    if name is None:
        return None
    at, ran = one["break_even"][name]["at"], [p for p in one["points"] if p["gaps"][name] is not None]
    if not ran:
        return f"Along {one['title']}, no point fits on both machines."
    axis = [point["value"] for point in ran]
    widest = max(ran, key=lambda point: abs(point["gaps"][name]))
    ours, theirs = machine(document["reference"]), machine(name)
    if at == axis:
        where = "everywhere"
    elif not at:
        where = "nowhere"
    elif len(at) == 1:
        where = f"at {at[0]:g} only"
    elif at == axis[: len(at)]:
        where = f"up to {at[-1]:g}"
    elif at == axis[-len(at) :]:
        where = f"from {at[0]:g} on"
    else:
        where = f"at {', '.join(f'{value:g}' for value in at)}"
    told = f"Along {one['title']}, {ours} is within {100 * one['within_fraction']:g} % of {theirs} {where}"
    if at != axis or widest["gaps"][name] < -0.05:
        told += f"; the gap is widest at {widest['value']:g}, {percent(widest['gaps'][name])}"
    return f"{told}{_best(document, one)}."


def _best(document: Document, one: Document) -> str:
    """The best point of the reference, where it lies inside the axis: an end says no more than which way is better."""
    on = document["reference"]
    ran = [point for point in one["points"] if point["values"].get(on) is not None]
    sign = -1 if one["more_is_better"] else 1
    best = min(range(len(ran)), key=lambda i: sign * ran[i]["values"][on])
    if best in (0, len(ran) - 1):
        return ""
    return (
        f"; {machine(on)} is best at {ran[best]['value']:g}, {said(one['metric'], ran[best]['values'][on])}"
    )
