"""Exact folding: alike flows, resources and lanes as one of each.

In a healthy, balanced run most ranks are alike. A partition of flows and resources is *equitable* when every
flow of a class uses every class of resources in the same way, and every resource of a class is used in the same way by
each class of flows. Max-min rates are then constant on classes, so one representative of each class, with a resource's
sum over the class as its weight, has exactly the rates of all (colour refinement; Grohe et al., "Dimension Reduction via
Colour Refinement", ESA 2014).

Why this way: the start is what may differ at all (what a rank does, capacities, latencies, bytes), and the classes are split
until the partition is equitable on the flows as they are cabled. Nothing is taken to be alike that was not looked at: a
fault, an uneven placement or a skewed load leaves as many classes as it makes.

Colours are 64-bit hashes of what a thing is and of the multiset of its neighbours' colours; that two unlike things of
some ten million share one has a chance of 1 in 400,000.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.cluster.topology import Floats, Ints
from sim.schedule.flows import Flows

Colours = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Cabled:
    """All flows that may ever be under way, one transfer after another, as columns.

    Parameters
    ----------
    first : int, [num_transfers + 1]
        Where each transfer's flows begin.
    start : int, [num_flows + 1]
        Where each flow's entries begin.
    resource, line, wire : [num_entries]
        As in `Flows`.
    weight : uint64, [num_entries]
        Odd, and the same where line and wire are.
    party_flow, party_lane : int, [num_parties]
        Who takes part in which flow; lanes are counted over all groups.
    party_sends : bool, [num_parties]
        True where it is the sender.
    colour : uint64, [num_flows]
        What makes flows differ from the start: bytes, share, latency, release, kind of transfer.
    """

    first: Ints
    start: Ints
    resource: npt.NDArray[np.int32]
    line: Floats
    wire: Floats
    weight: Colours
    party_flow: Ints
    party_lane: Ints
    party_sends: npt.NDArray[np.bool_]
    colour: Colours

    @property
    def flow_of_entry(self) -> Ints:
        """The flow that each entry belongs to, [num_entries]."""
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))


def cabled(transfers: Sequence[tuple[Flows, int, Ints]]) -> Cabled:
    """Put transfers of flows, kind and lanes one after another.

    Those of one kind are the same kernel or message; lanes [ranks] are those of the flows' party ranks.
    """
    flows = [part for part, _, _ in transfers]
    colours: dict[tuple[int, ...], Colours] = {}  # alike groups share the arrays of their flows

    def once(make: Callable[..., Colours], *parts: Any) -> Colours:
        key = tuple(part if isinstance(part, int) else id(part) for part in parts)
        if key not in colours:
            colours[key] = make(*parts)
        return colours[key]

    num = np.cumsum([0, *(part.num_flows for part in flows)])
    entries = np.cumsum([0, *(len(part.resource) for part in flows)])
    starts = [part.start[:-1] + before for part, before in zip(flows, entries, strict=False)]
    return Cabled(
        first=num,
        start=np.concatenate([*starts, entries[-1:]]),
        resource=_joined([part.resource for part in flows], np.int32),
        line=_joined([part.line for part in flows], np.float64),
        wire=_joined([part.wire for part in flows], np.float64),
        weight=_joined([once(_weights, part.line, part.wire) for part in flows], np.uint64),
        party_flow=_joined(
            [part.party_flow + before for part, before in zip(flows, num, strict=False)], np.int64
        ),
        party_lane=_joined([lanes[part.party_rank] for part, _, lanes in transfers], np.int64),
        party_sends=_joined([np.arange(len(part.party_rank)) < part.num_flows for part in flows], np.bool_),
        colour=_joined(
            [
                once(_colours, kind, part.payload_bytes, part.share, part.latency_s, part.release_s)
                for part, kind, _ in transfers
            ],
            np.uint64,
        ),
    )


def _joined(parts: list[Any], dtype: Any) -> Any:
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.zeros(0, dtype)


def _weights(line: Floats, wire: Floats) -> Colours:
    """Odd numbers that stand for weights: a colour times one is the colour of the pair."""
    return np.asarray(mixed(rounded(line), rounded(wire)) | np.uint64(1))


def _colours(
    kind: int, payload_bytes: Floats, share: Floats, latency_s: Floats, release_s: Floats
) -> Colours:
    """Colours by all that makes the flows of a transfer differ from the start."""
    sizes = (rounded(column) for column in (payload_bytes, share, latency_s))
    return np.broadcast_to(mixed(kind, *sizes, release_s), payload_bytes.shape)


def rounded(values: Floats) -> Floats:
    """Round to twelve digits, so that sums taken in another order count as equal."""
    bits = (np.ascontiguousarray(values, dtype=np.float64).view(np.int64) + (1 << 11)) >> 12 << 12
    return bits.view(np.float64)


def mixed(*parts: npt.ArrayLike) -> Colours:
    """Hash several numbers to one colour, element by element.

    References
    ----------
    Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014 (splitmix64).
    """
    whole = np.zeros(1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            bits = np.asarray(part)
            bits = bits.view(np.uint64) if bits.dtype == np.float64 else bits.astype(np.uint64)
            # Turned, so that a colour and its own hash do not cancel out.
            x = (whole << np.uint64(23) | whole >> np.uint64(41)) * np.uint64(0x9E3779B97F4A7C15) ^ bits
            shifted = np.empty_like(x)
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
                x ^= np.right_shift(x, np.uint64(shift), out=shifted)
                x *= np.uint64(factor)
            whole = x
    return whole


def refine(
    flows: Cabled, resources: Colours, lanes: Colours, groups: Ints
) -> tuple[Colours, Colours, Colours]:
    """Find the coarsest equitable partition that keeps the colours given.

    Parameters
    ----------
    flows : Cabled
    resources : uint64, [num_resources]
        What makes resources differ from the start: class, capacity.
    lanes : uint64, [num_lanes]
        What makes lanes differ from the start: program, speed.
    groups : int, [num_lanes]
        Lanes of one group wait for each other, so whatever splits one of them splits off its group.

    Returns
    -------
    uint64 arrays
        Colours of flows, of resources and of lanes.

    References
    ----------
    Grohe, Kersting, Mladenov and Selman, "Dimension Reduction via Colour Refinement", ESA 2014.
    """
    flow_of_entry, weight = flows.flow_of_entry, flows.weight
    role = mixed(flows.party_sends) | np.uint64(1)
    colour, classes = flows.colour, -1
    num_groups = int(groups.max(initial=-1)) + 1
    while True:
        up_to = np.append(np.uint64(0), np.cumsum(resources[flows.resource] * weight))
        uses = np.diff(up_to[flows.start])
        takes_part = _sums(flows.party_flow, lanes[flows.party_lane] * role, len(colour))
        colour = mixed(colour, uses, takes_part)
        carries = _sums(flows.resource, colour[flow_of_entry] * weight, len(resources))
        resources = mixed(resources, carries)
        lanes = mixed(lanes, _sums(flows.party_lane, colour[flows.party_flow] * role, len(lanes)))
        lanes = mixed(lanes, _sums(groups, mixed(lanes), num_groups)[groups])
        now = sum(len(np.unique(colours)) for colours in (colour, resources, lanes))
        if now == classes:
            return colour, resources, lanes
        classes = now


def _sums(place: npt.NDArray[Any], values: Colours, num: int) -> Colours:
    """Sums of colours by place, modulo 2**64, [num]."""
    total = np.zeros(num, dtype=np.uint64)
    np.add.at(total, place, values)
    return total
