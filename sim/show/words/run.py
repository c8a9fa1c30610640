"""What a result says, in one or two sentences with numbers; tables, titles of plots and the report share them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sim.show.kinds import kind_of
from sim.show.views import inference as inference_views
from sim.show.views import serving as serving_views
from sim.show.views import training as training_views
from sim.show.views.comparison import choices, most_different
from sim.show.views.names import binds, hardware_name, label
from sim.show.views.run import Case, Result, cases, over_bound, time_of, twins
from sim.show.views.run import CaseTwin as Twin
from sim.show.views.validation import validation_view
from sim.show.words import inference as inference_words
from sim.show.words import serving as serving_words
from sim.show.words import training as training_words
from sim.show.words import validation
from sim.units import show

_SAME = 0.015  # gains below this are told as "the same"

_TOLD: tuple[tuple[Callable[[Case], bool], Callable[[Sequence[Case]], list[str]]], ...] = (
    (training_views.is_training, training_words.finding),
    (inference_views.is_inference, inference_words.finding),
    (serving_views.is_serving, serving_words.finding),
)
"""Workloads that have sentences of their own."""


def finding(result: Result) -> list[str]:
    """The sentences that answer a result document, the most important first."""
    if kind_of(result) == "validation":
        return validation.finding(validation_view(result))
    found = cases(result)
    for is_one, tell in _TOLD:
        if all(map(is_one, found)):
            return tell(found)
    if len(found) == 1:
        return of_case(found[0])
    pairs = twins(found)
    # A time on more or fewer nodes is another task, not the effect of a choice.
    chosen = [case for case in choices(found) if case.num_nodes == found[0].num_nodes]
    said = of_choices(found[0], chosen)
    if pairs:
        return [*said, *of_twins(pairs)]
    return said or of_variants(found)


def of_case(case: Case) -> list[str]:
    """How long each direction takes, beside its bound, and what binds."""
    return [_transfer(case, name, metrics) for name, metrics in case.transfers.items()]


def _transfer(case: Case, name: str, metrics: Mapping[str, Any]) -> str:
    ratio = over_bound(metrics)
    beside = f", {ratio:.2f}x its lower bound" if ratio else ""
    resource = metrics.get("binding_resource")
    where = f" ({resource})" if resource else ""
    time = show(time_of(metrics), "s", 3)
    if name == "flows":
        flows = case.result.get("flow_completion") or []
        return f"{len(flows):,} flows complete in {time}{beside}; {binds(metrics)}{where}."
    return f"{name.capitalize()} takes {time}{beside}; {binds(metrics)}{where}."


def of_twins(pairs: Sequence[Twin]) -> list[str]:
    """By how much other hardware gains: where most, where least, and what binds there."""
    gains = []
    for pair in pairs:
        for direction in pair.reference.transfers:
            ratio = pair.ratio(direction)
            if ratio:
                gains.append((ratio, pair, direction))
    if not gains:
        return []
    gains.sort(key=lambda one: one[0])
    # Among equals the longest transfer speaks: that is where a reader would look first.
    most, least = (
        max((g for g in gains if abs(g[0] - end) < 0.005), key=_length) for end in (gains[0][0], gains[-1][0])
    )
    if abs(most[0] - 1) <= _SAME and abs(least[0] - 1) <= _SAME:
        shared = sorted({label(p.reference.transfers[d]["binding"]) for _, p, d in gains})
        names = " and ".join(dict.fromkeys(p.other.hardware for p in pairs))
        same = dict.fromkeys(p.reference.hardware for p in pairs)
        return [
            f"The {hardware_name(names)} takes as long as the {hardware_name(' and '.join(same))} in every case, within "
            f"{_within(1 + max(abs(r - 1) for r, _, _ in gains))}; what binds: {', '.join(shared)}."
        ]
    sentences = [_gain(*most, f"{_subject(most[1])} {'gains most' if most[0] < 1 else 'loses least'}")]
    if len(gains) > 1 and least[0] - most[0] > _SAME:
        subject = "It" if _subject(least[1]) == _subject(most[1]) else _subject(least[1])
        sentences.append(
            _gain(*least, f"{subject} {'gains least' if least[0] < 1 + _SAME else 'loses most'}")
        )
    return sentences


def of_choices(first: Case, chosen: Sequence[Case]) -> list[str]:
    """What each choice changes against the first case, by name, the largest effect first; nothing where none does."""

    def ratios(case: Case) -> dict[str, float]:
        found = {name: Twin(first, case).ratio(name) for name in first.transfers}
        return {name: ratio for name, ratio in found.items() if ratio}

    def effect(case: Case) -> float:
        return max((math.log(ratio) for ratio in ratios(case).values()), key=abs, default=0.0)

    apart = [case for case in chosen if abs(effect(case)) > math.log(1 + _SAME)]
    said = []
    for case in most_different(apart, effect):
        parts: list[str] = []
        for name, ratio in ratios(case).items():
            theirs, ours = (show(time_of(one.transfers[name]), "s", 3) for one in (case, first))
            where = "" if parts else f" in {first.name}"
            parts.append(f"{name} {'' if parts else 'takes '}{theirs} against {ours}{where} ({_as(ratio)})")
        said.append(f"{case.name}: {', '.join(parts)}; {_both_bind(first, case)}.")
    if said and len(apart) < len(chosen):
        names = " and ".join(case.name for case in chosen if case not in apart)
        most = max(abs(effect(case)) for case in chosen if case not in apart)
        said.append(
            f"{names} {'takes' if len(chosen) - len(apart) == 1 else 'take'} as long as {first.name}, within {_within(math.exp(most))}."
        )
    return said


def _as(ratio: float) -> str:
    return (
        "as long"
        if abs(ratio - 1) < 0.005
        else f"{1 / ratio:.2f}x as fast"
        if ratio < 1
        else f"{ratio:.2f}x as long"
    )


def _both_bind(first: Case, case: Case) -> str:
    """What binds where a variant's longest transfer is, and whether the same did before."""
    longest = max(case.transfers, key=lambda name: time_of(case.transfers[name]))
    now, before = binds(case.transfers[longest]), binds(first.transfers.get(longest, case.transfers[longest]))
    return f"{now} in both" if now == before else f"{now}, in {first.name} {before}"


def _length(gain: tuple[float, Twin, str]) -> float:
    return time_of(gain[1].reference.transfers[gain[2]])


def _gain(ratio: float, pair: Twin, direction: str, lead: str) -> str:
    ours, theirs = pair.reference.transfers[direction], pair.other.transfers[direction]
    our_time, their_time = show(time_of(ours), "s", 3), show(time_of(theirs), "s", 3)
    if abs(ratio - 1) <= _SAME:
        times = (
            f"{their_time} on both"
            if our_time == their_time
            else f"{their_time} against {our_time}, the same within {_within(ratio)}"
        )
    else:
        times = f"{their_time} against {our_time} ({1 / ratio if ratio < 1 else ratio:.2f}x {'faster' if ratio < 1 else 'slower'})"
    here, there = binds(ours), binds(theirs)
    why = (
        f"{here} on both"
        if here == there
        else f"{here} on {_who(pair, pair.reference)}, {there} on {_who(pair, pair.other)}"
    )
    return f"{lead} at {pair.reference.name}: {direction} takes {times}; {why}."


def _within(ratio: float) -> str:
    """How close a ratio is to 1, never told as 0."""
    return f"{max(abs(ratio - 1), 0.001):.1%}"


def of_variants(found: Sequence[Case]) -> list[str]:
    """The fastest and the slowest variant of each direction."""
    sentences = []
    for direction in dict.fromkeys(name for case in found for name in case.transfers):
        timed = [(time_of(case.transfers[direction]), case) for case in found if direction in case.transfers]
        fast, slow = min(timed, key=lambda one: one[0]), max(timed, key=lambda one: one[0])
        if slow[0] <= fast[0] * (1 + _SAME):
            sentences.append(
                f"{direction.capitalize()} takes {show(fast[0], 's', 3)} in every variant, within {_within(slow[0] / fast[0])}."
            )
            continue
        bound = [label(case.transfers[direction]["binding"]) for _, case in (fast, slow)]
        sentences.append(
            f"{direction.capitalize()} is fastest in {fast[1].name} ({show(fast[0], 's', 3)}, bound by {bound[0]}) and takes "
            f"{slow[0] / fast[0]:.2f}x as long in {slow[1].name} ({show(slow[0], 's', 3)}, bound by {bound[1]})."
        )
    return sentences


def of_bounds(result: Result) -> str:
    """How far times lie above their lower bounds, and what binds how often."""
    transfers = [metrics for case in cases(result) for metrics in case.transfers.values()]
    ratios = sorted(ratio for one in transfers if (ratio := over_bound(one)))
    if not ratios:
        return "No lower bound is known."
    low, high = f"{ratios[0]:.2f}", f"{ratios[-1]:.2f}"
    between = low if low == high else f"{low} to {high}"
    span = f"{between} times {'its lower bound' if len(ratios) == 1 else 'their lower bounds'}"
    bound = [label(str(one["binding"])) for one in transfers]
    counts = sorted({name: bound.count(name) for name in bound}.items(), key=lambda one: -one[1])
    said = ", ".join(f"{name} in {count}" for name, count in counts)
    many = (
        f"Of {len(transfers)} transfers the binding link is {said}"
        if len(counts) > 1
        else f"{counts[0][0][0].upper()}{counts[0][0][1:]} binds throughout"
    )
    return f"{'The time is' if len(ratios) == 1 else 'Times are'} {span}. {many}."


def of_expectations(result: Result) -> str | None:
    """How the published values of `expect` were met; None without any."""
    rows = [row for case in cases(result) for row in case.result.get("expect") or []]
    if not rows:
        return None
    met = sum(bool(row["ok"]) for row in rows)
    worst = max(rows, key=lambda row: abs(row["error_fraction"]))
    changed = any((case.result.get("provenance") or {}).get("settings") for case in cases(result))
    whose = "values published for the scenario as it was before --set" if changed else "expected values"
    return f"{met} of {len(rows)} {whose} are met; the largest error is {worst['error_fraction']:+.1%} ({worst['metric']})."


def _who(pair: Twin, case: Case) -> str:
    """A case of a pair by its hardware; by its name where both have the same with other figures."""
    return case.name if pair.reference.hardware == pair.other.hardware else hardware_name(case.hardware)


def _subject(pair: Twin) -> str:
    who = _who(pair, pair.other)
    return who if who == pair.other.name else f"The {who}"
