"""The search of a ladder in sentences: what the machine loses at its best, what each held choice costs, what a design buys back."""

from __future__ import annotations

from collections.abc import Iterator

from sim.show.views.ladder_changes import NONE
from sim.show.views.names import binds, called, joined
from sim.show.views.search import Best, DesignSearch, HeldChoice, Searched


def sentences(search: DesignSearch) -> list[str]:
    """Return what the search found, the answer first."""
    sentences = [sentence for machine in search.machines for sentence in _machine(search, machine)]
    if search.num_failed:
        sentences.append(
            f"{search.num_failed} designs failed, and are in none of these figures: {search.failure}."
        )
    return sentences


def _machine(search: DesignSearch, machine: Searched) -> Iterator[str]:
    gap = machine.gap_fraction
    if gap is None or machine.best is None:
        yield f"No design of the search runs on {machine.label}."
        return
    ran = [held for held in machine.held if held.gap_fraction is not None]
    ran.sort(key=lambda held: -(held.gap_fraction or 0.0))
    ours, theirs = machine.label, search.reference
    start = f"With the best design for each, {ours} takes {search.metric.gap_phrase(gap)} {theirs}"
    if not ran or (ran[0].gap_fraction or 0.0) <= gap + NONE:
        yield f"{start}{'; no choice that is held makes it more' if ran else ''}."
    else:
        worst = ran[0]
        yield f"{start}; with {worst.name} held and all else chosen anew, {_much(search, worst)}."
    for held in ran[:1]:
        first, second = (
            f"{search.metric.gap_phrase(cost or 0.0)} {label}"
            for cost, label in (
                (held.costs_reference_fraction, "at its own best"),
                (held.costs_machine_fraction, "at its own"),
            )
        )
        yield f"With {held.name} held {theirs} takes {first}, and {ours} {second}."
        yield from _binds(search, machine, held)
    if len(ran) > 1:
        others = [f"{held.name} {_much(search, held)}" for held in ran[1:]]
        yield f"Other choices held, on {ours}: {joined(others)}."
    for held in machine.held:
        if held.gap_fraction is None:
            yield f"With {held.name} held no design runs on {ours} or none on {theirs}."
    yield _kept(search, machine)


def _binds(search: DesignSearch, machine: Searched, held: HeldChoice) -> Iterator[str]:
    """Yield what holds the best designs with a choice held, next to those without: a link, or communication that shows."""
    ours, theirs = machine.label, search.reference
    mine, other, free, free_other = held.best, held.reference_best, machine.best, search.best
    if mine is None or other is None or free is None:
        return
    if mine.shares and other.shares and free.shares and free_other.shares:
        yield (
            f"What binds is {_most(mine)} on {ours} and {_most(other)} on {theirs}, by how much of the time goes with its rate; with "
            f"the best design for each, {_most(free)} and {_most(free_other)}."
        )
    elif mine.binding and other.binding:
        same = mine.binding == other.binding
        yield f"Then {f'{binds(mine.binding)} on both' if same else f'{binds(mine.binding)} on {ours}, {binds(other.binding)} on {theirs}'}."
    parts = [design.exposed_fraction for design in (mine, other, free, free_other)]
    if None not in parts:
        shown = [f"{100 * (part or 0.0):.0f} %" for part in parts]
        yield (
            f"Then {shown[0]} of the time on {ours} is communication that shows, and {shown[1]} on {theirs}; with the best design "
            f"for each, {shown[2]} and {shown[3]}."
        )


def _most(design: Best) -> str:
    """Return the resource with whose rate most of a time goes, and that part: `NVLink (44 %)`."""
    name = max(design.shares, key=lambda name: design.shares[name])
    return f"{called(name)} ({100 * design.shares[name]:.0f} %)"


def _much(search: DesignSearch, held: HeldChoice) -> str:
    """Return a gap without what it is over: `25.9 % longer`."""
    return search.metric.gap_phrase(held.gap_fraction or 0.0).rpartition(" ")[0]


def _kept(search: DesignSearch, machine: Searched) -> str:
    """Return what becomes of the reference's design on the machine, and what a design of its own buys back."""
    ours, theirs, metric = machine.label, search.reference, search.metric
    replaced = f" (with {joined(list(machine.replaced))})" if machine.replaced else ""
    start = f"The best design of {theirs} ({search.best.words}), kept on {ours}{replaced},"
    if machine.cost_fraction is None:
        return f"{start} does not run: {machine.reason}."
    text = f"{start} takes {metric.gap_phrase(machine.cost_fraction)} on {theirs}"
    if machine.num_near > 1 and machine.low is not None and machine.high is not None:
        near = f"{machine.num_near} designs within {100 * search.near_fraction:g} % of it"
        text += f" ({near}: {metric.text(machine.low)} to {metric.text(machine.high)})"
    if machine.bought_back_fraction is not None and machine.best is not None:
        back = f"{100 * machine.bought_back_fraction:.0f} %"
        return f"{text}; a design of its own ({machine.best.words}) buys back {back} of that."
    return f"{text}; the same design is best on both, or as good: nothing to buy back."
