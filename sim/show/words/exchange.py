"""The exchange of a ladder in sentences: how much of the scale-up link is free, who asks for more, what a machine affords."""

from __future__ import annotations

from sim.show.views.exchange import Design, Exchange
from sim.show.views.names import joined


def sentences(exchange: Exchange) -> list[str]:
    """Return what the designs say, the limit first."""
    return [*_limit(exchange), *_published(exchange), *_headroom(exchange)]


def _limit(exchange: Exchange) -> list[str]:
    ran, ours, theirs = exchange.measured, exchange.machine, exchange.reference
    if not ran:
        return [f"No design runs on both {ours} and {theirs}."]
    free = [point for point in ran if exchange.is_free(point)]
    costly = [point for point in ran if not exchange.is_free(point)]
    if not costly:
        return [f"None of {len(ran)} designs takes longer on {ours} than on {theirs}."]
    asked = min(point.x or 0.0 for point in costly)
    most = max(point.ratio or 0.0 for point in costly)
    if len(costly) == 1:
        rest = f"the other asks for {asked:.2f} and takes {most:.2f} times as long"
    else:
        rest = (
            f"the {len(costly)} others ask for {asked:.2f} or more, and take up to {most:.2f} times as long"
        )
    limit = f"{exchange.limit:.1f}" if exchange.limit is not None else "few"
    start = f"Up to {limit} NVLink bytes for each NIC byte are free on {ours}"
    return [
        f"{start}: of {len(ran)} designs that cross nodes, {len(free)} take the same time as on {theirs}; {rest}."
    ]


def _published(exchange: Exchange) -> list[str]:
    ran = [design for design in exchange.published if design.ratio is not None]
    free = [
        f"{design.title} ({design.x:.1f})"
        for design in ran
        if design.x is not None and exchange.is_free(design)
    ]
    costly = [design for design in ran if not exchange.is_free(design)]
    ask = "asks" if len(free) == 1 else "ask"
    sentences = (
        [f"{joined(free)} {ask} for no more, and lose{'s' * (len(free) == 1)} nothing."] if free else []
    )
    far = [(f"{design.title} ({design.x:.1f})", design) for design in costly if design.x is not None]
    near = [(design.title, design) for design in costly if design.x is None]
    if far:
        sentences.append(f"{_slower(far, exchange.reference)}.")
    if near:
        sentences.append(
            f"Within one node there is no NIC to hide behind: {_slower(near, exchange.reference)}."
        )
    return sentences


def _slower(named: list[tuple[str, Design]], reference: str) -> str:
    """Return how much longer designs take: `one takes 1.66 times as long as on H100, another 1.86 times`."""
    (first, design), *others = named
    start = f"{first} takes {design.ratio:.2f} times as long as on {reference}"
    return joined([start, *(f"{name} {other.ratio:.2f} times" for name, other in others)])


def _headroom(exchange: Exchange) -> list[str]:
    room = exchange.headroom
    if room is None:
        return []
    design = ", ".join(filter(None, (room.design, f"{room.present} {room.title}")))
    return [
        f"Within {100 * room.slack_fraction:g} % of the time of one design ({design}), {exchange.reference} affords "
        f"{room.theirs} {room.title}, {exchange.machine} {room.ours}."
    ]
