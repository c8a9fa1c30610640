"""Templates: what each transfer of a folded step puts on one resource of each class.

Next to compute a kernel is slower because it gets less of its own GPU, not because cables are slower: its copies and its hops
over scale-up take `slowdown` times as long, and so does the *pump* that feeds a NIC, a resource of the kernel alone, while
the NIC itself stays as free for others as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sim.cluster.topology import CLASSES, NONE, Floats, Ints
from sim.engine import folding
from sim.engine.step_plan import GroupCollective, StepPlan
from sim.schedule.flows import Flows

_NIC, _UPLINK = CLASSES.index("nic"), CLASSES.index("leaf_uplink")
_FITS = 1.0 + 1e-9
_DENSE_PAIRS = 4  # of resources, for each that is there: fewer are kept in a table, more are sorted


@dataclass(frozen=True, slots=True)
class Folded:
    """Which groups and lanes of a step stand for all, and the classes of its flows and resources.

    Parameters
    ----------
    groups : int, [num_group_classes]
        A group of each class.
    group_class : int, [num_groups]
    lane_class : int, [num_group_classes, lanes]
        Class of each lane, counted within its group's class.
    lanes : list of int arrays, [num_group_classes][lane classes]
        A lane of each class.
    flow : int, [num_flows]
        Class of each cabled flow.
    resource : int, [num_resources]
        Class of each resource.
    member : int, [num_resource_classes]
        A resource of each class.
    """

    groups: Ints
    group_class: Ints
    lane_class: Ints
    lanes: list[Ints]
    flow: Ints
    resource: Ints
    member: Ints


class Templates(NamedTuple):
    """Load of transfers on the links, as columns over the flows and entries of all templates.

    Parameters
    ----------
    first : int, [num_templates + 1]
    fixed_s : float, [num_templates]
    payload, share, latency : float, [num_flows]
    owner : int, [num_flows]
        Place in `owner_first`, -1 where no load scales the flow.
    entry : int, [num_flows + 1]
    resource, line, taker : [num_entries]
        Classes of resources that could fill, capacity used per payload byte, lane class that scales it or -1.
    wire, used : float, [num_templates, num_resource_classes]
        Bytes that cross a resource of each class in one transfer, and capacity that they use up.
    party_first : int, [num_flows + 1]
    party : int
        Lane classes that take part in each flow; of a message, only its sender's, whose number is also its receiver's.
    owner_first, owner_lane : int
    capacity : float, [conditions, num_resource_classes + pumps]
    """

    first: Ints
    fixed_s: Floats
    payload: Floats
    share: Floats
    latency: Floats
    owner: Ints
    entry: Ints
    resource: Ints
    line: Floats
    taker: Ints
    wire: Floats
    used: Floats
    party_first: Ints
    party: Ints
    owner_first: Ints
    owner_lane: Ints
    capacity: Floats

    def repeated(self, which: Ints) -> Templates:
        """Add copies of some templates behind all, without `wire` and `used`, which stay as they are."""
        flows = _ranges(self.first, which)
        entries, parties = _ranges(self.entry, flows), _ranges(self.party_first, flows)
        more = {
            "fixed_s": self.fixed_s[which],
            **{name: getattr(self, name)[flows] for name in ("payload", "share", "latency", "owner")},
            **{name: getattr(self, name)[entries] for name in ("resource", "line", "taker")},
            "party": self.party[parties],
        }
        offsets = {"first": which, "entry": flows, "party_first": flows}
        columns = {name: np.concatenate([getattr(self, name), added]) for name, added in more.items()}
        for name, added in offsets.items():
            own = getattr(self, name)
            columns[name] = np.append(own, own[-1] + np.cumsum(np.diff(own)[added]))
        return self._replace(**columns)


@dataclass(frozen=True, slots=True)
class StepTransfer:
    """A transfer of one track or between two, and where its flows stand among all."""

    flows: Flows
    kind: int
    lanes: Ints  # over all lanes, of its parties' ranks
    group: int
    collective: GroupCollective | None = None
    slowdown: float = 1.0


@dataclass(frozen=True, slots=True)
class Weights:
    """Sums over a class of flows on one resource of each class, sorted by flow class.

    Parameters
    ----------
    first : int, [num_flow_classes + 1]
    resource, taker : int, [num_pairs]
    line, wire : float, [num_pairs]
    place : int, [num_pairs]
        Where the resource comes first on a flow's way.
    """

    first: Ints
    resource: Ints
    taker: Ints
    line: Floats
    wire: Floats
    place: Ints

    @classmethod
    def from_transfers(cls, transfers: list[StepTransfer], flows: folding.Cabled, folded: Folded) -> Weights:
        """From entries at the one resource of each class that stands for it."""
        taker = np.concatenate(
            [
                t.collective.taker
                if t.collective is not None and len(t.collective.taker)
                else np.full(len(t.flows.resource), NONE, dtype=np.int64)
                for t in transfers
            ]
            or [np.zeros(0, dtype=np.int64)]
        )
        shown = np.flatnonzero(folded.member[folded.resource[flows.resource]] == flows.resource)
        flow = flows.flow_of_entry[shown]
        key = (folded.flow[flow] * len(folded.member) + folded.resource[flows.resource[shown]]) * (
            int(taker.max(initial=0)) + 2
        ) + (taker[shown] + 1)
        order = np.argsort(key, kind="stable")
        key, shown, flow = key[order], shown[order], flow[order]
        new = np.flatnonzero(np.diff(key, prepend=-1))
        place = np.minimum.reduceat(shown - flows.start[flow], new) if len(new) else shown
        num = int(folded.flow.max(initial=-1)) + 1
        return cls(
            first=np.searchsorted(folded.flow[flow[new]], np.arange(num + 1)),
            resource=folded.resource[flows.resource[shown[new]]],
            taker=taker[shown[new]],
            line=np.add.reduceat(flows.line[shown], new) if len(new) else flows.line[:0],
            wire=np.add.reduceat(flows.wire[shown], new) if len(new) else flows.wire[:0],
            place=place,
        )


class Writer:
    """Collects templates, then leaves out the entries of resources that cannot fill."""

    def __init__(self, plan: StepPlan, folded: Folded, weights: Weights, flows: folding.Cabled) -> None:
        self.plan, self.folded, self.weights, self.flows = plan, folded, weights, flows
        self.class_idx = plan.traffic.class_idx[folded.member]
        self.capacity = plan.capacities[:, folded.member]
        num = len(folded.member)
        self.pump = np.full(num, NONE, dtype=np.int64)
        nics = np.flatnonzero(self.class_idx == _NIC)
        self.pump[nics] = num + np.arange(len(nics))
        self.columns: dict[str, list[Any]] = {
            name: [] for name in ("payload", "share", "latency", "owner", "entries", "resource", "line", "taker", "place", "parties", "party")
        }  # fmt: skip
        self.num_flows: list[int] = [0]  # the first template puts nothing on any link
        self.fixed_s: list[float] = [0.0]
        self.wire: list[Floats] = [np.zeros(num)]
        self.used: list[Floats] = [np.zeros(num)]
        self.owners: dict[tuple[int, ...], int] = {}

    def add(self, t: StepTransfer, number: int, slowdown: float | None) -> int:
        """Add the template of a transfer, next to compute where `slowdown` is given; return its number."""
        w, folded = self.weights, self.folded
        own = np.arange(self.flows.first[number], self.flows.first[number + 1])
        classes, shown = np.unique(folded.flow[own], return_index=True)
        own_pairs = w.first[classes + 1] - w.first[classes]
        flow = np.repeat(np.arange(len(classes)), own_pairs)
        pairs = np.arange(len(flow)) + (w.first[classes] - np.cumsum(own_pairs) + own_pairs)[flow]
        payload = t.flows.payload_bytes[shown]
        num = len(self.pump)
        wire = np.bincount(w.resource[pairs], w.wire[pairs] * payload[flow], num)
        used = np.bincount(w.resource[pairs], w.line[pairs] * payload[flow], num)
        resource, line, taker, place = w.resource[pairs], w.line[pairs], w.taker[pairs], w.place[pairs]
        by = 1.0 if slowdown is None else slowdown
        if slowdown is not None:
            shared = np.isin(self.class_idx[resource], (_NIC, _UPLINK))
            pumps = np.flatnonzero(self.class_idx[resource] == _NIC)
            resource = np.concatenate([resource, self.pump[resource[pumps]]])
            taker, place = np.concatenate([taker, taker[pumps]]), np.concatenate([place, place[pumps]])
            line = np.concatenate([np.where(shared, line, line * by), line[pumps] * by])
            flow = np.concatenate([flow, flow[pumps]])
        order = np.argsort(flow, kind="stable")
        self.columns["payload"].append(payload)
        self.columns["share"].append(t.flows.share[shown])
        self.columns["latency"].append(t.flows.latency_s[shown] * by)
        self.columns["owner"].append(self._owner(t, shown))
        self.columns["entries"].append(np.bincount(flow, minlength=len(classes)))
        for name, values in (("resource", resource), ("line", line), ("taker", taker), ("place", place)):
            self.columns[name].append(values[order])
        self._parties(t, classes, own)
        self.num_flows.append(len(classes))
        self.fixed_s.append((t.collective.fixed_s if t.collective else 0.0) * by)
        self.wire.append(np.asarray(wire, dtype=float))
        self.used.append(np.asarray(used, dtype=float))
        return len(self.num_flows) - 1

    def _owner(self, t: StepTransfer, shown: Ints) -> Ints:
        if t.collective is None or not len(t.collective.owner):
            return np.full(len(shown), NONE, dtype=np.int64)
        place = [
            self.owners.setdefault(tuple(t.collective.owners[owner].tolist()), len(self.owners))
            for owner in t.collective.owner[shown].tolist()
        ]
        return np.array(place, dtype=np.int64)

    def _parties(self, t: StepTransfer, classes: Ints, own: Ints) -> None:
        """Which lane classes take part in each flow class."""
        number = int(self.folded.group_class[t.group])
        stands = np.full(len(t.lanes), NONE, dtype=np.int64)
        lanes = self.folded.lanes[number]
        stands[lanes] = np.arange(len(lanes))
        whose = stands[t.flows.party_rank]
        if t.collective is None:
            whose = np.where(t.flows.party_rank < self.plan.lanes, whose, NONE)
        kept = whose != NONE
        place = np.searchsorted(classes, self.folded.flow[own[t.flows.party_flow[kept]]])
        flow, party = np.divmod(np.unique(place * len(stands) + whose[kept]), len(stands))
        self.columns["parties"].append(np.bincount(flow, minlength=len(classes)))
        self.columns["party"].append(party)

    def done(self) -> Templates:
        """All templates, without entries that no rate depends on."""
        c: dict[str, Any] = {
            name: np.concatenate(parts) if parts else np.zeros(0, np.int64)
            for name, parts in self.columns.items()
        }
        flow = np.repeat(np.arange(len(c["entries"])), c["entries"])
        capacity = np.concatenate([self.capacity, self.capacity[:, self.pump != NONE]], axis=1)
        capacity = np.ascontiguousarray(capacity)  # of another layout, the whole loop would be compiled again
        used = c["line"] > 0
        together = len(self.plan.tasks) * len(self.folded.groups) > 1
        if together or self.plan.traffic.scaled:  # or each transfer has all links to itself
            entries = (flow, c["resource"], c["line"], c["place"])
            could = np.any([can_fill(*entries, now) for now in capacity], axis=0)
            used &= could[c["resource"]]
        kept = np.flatnonzero(used)
        lanes = [np.array(owner) for owner in self.owners]
        return Templates(
            first=_offsets(self.num_flows),
            fixed_s=np.array(self.fixed_s),
            payload=c["payload"].astype(float),
            share=c["share"].astype(float),
            latency=c["latency"].astype(float),
            owner=c["owner"],
            entry=_offsets(np.bincount(flow[kept], minlength=len(c["entries"]))),
            resource=c["resource"][kept],
            line=c["line"][kept].astype(float),
            taker=c["taker"][kept],
            wire=np.array(self.wire),
            used=np.array(self.used),
            party_first=_offsets(c["parties"]),
            party=c["party"],
            owner_first=_offsets([len(owned) for owned in lanes]),
            owner_lane=np.concatenate([*lanes, np.zeros(0, np.int64)]).astype(np.int64),
            capacity=capacity,
        )


def can_fill(flow: Ints, resource: Ints, line: Floats, place: Ints, capacity: Floats) -> np.ndarray:
    """Find the resources that could ever be full, whatever is under way.

    Parameters
    ----------
    flow, resource, line, place : [num_entries]
        Flow and resource of each entry, capacity used per payload byte, and where the resource comes on the flow's way.
    capacity : float, [num_resources] [bytes/s]

    Returns
    -------
    bool, [num_resources]

    Notes
    -----
    The resource that lets a flow through slowest when it is alone bounds the flow's rate. Where the capacities of these
    bounds, times the largest ratio of the two line weights, add up to no more than a resource has, it never fills. A
    flow with several slowest resources is bounded by the first and by the last on its way; either may serve.
    """
    can = np.ones(len(capacity), dtype=bool)
    if not len(flow):
        return can
    with np.errstate(divide="ignore", invalid="ignore"):
        slowness = np.where(line > 0, line / capacity[resource], 0.0)
    slowest = np.zeros(int(flow.max()) + 1)
    np.maximum.at(slowest, flow, slowness)
    binds = np.flatnonzero((slowness >= slowest[flow] / _FITS) & (line > 0))
    can[:] = False
    can[resource[binds]] = True
    num = len(capacity)
    spare = np.zeros(num, dtype=bool)
    open_ = np.flatnonzero((line > 0) & ~can[resource])
    for on_the_way in (-place[binds], place[binds]):
        furthest = np.full(len(slowest), -np.inf)
        np.maximum.at(furthest, flow[binds], on_the_way)
        ends = binds[on_the_way == furthest[flow[binds]]]
        leader = np.full(len(slowest), NONE, dtype=np.int64)
        leader[flow[ends]] = ends  # the last written stays
        led = open_[leader[flow[open_]] != NONE]
        leads = leader[flow[led]]
        of_pair = resource[led] * num + resource[leads]
        if num * num <= _DENSE_PAIRS * len(led):
            pair, inverse = np.arange(num * num), of_pair
        else:
            pair, inverse = np.unique(of_pair, return_inverse=True)
        ratio = np.zeros(len(pair))
        np.maximum.at(ratio, inverse, line[led] / line[leads])
        bound = np.bincount(pair // num, ratio * capacity[pair % num], num)
        spare |= bound <= capacity * (1.0 - 1e-6)
    return can | ~spare


def _ranges(first: Ints, which: Ints) -> Ints:
    """Places first[i] to first[i + 1] of each i of `which`, one after another."""
    sizes = np.diff(first)[which]
    places: Ints = np.arange(sizes.sum()) + np.repeat(first[which] - np.cumsum(sizes) + sizes, sizes)
    return places


def _offsets(counts: Ints | list[int]) -> Ints:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
