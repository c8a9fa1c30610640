"""Flows: bytes that want to move, and what they use while moving.

A flow has payload bytes, a fair-share weight, a release time, a latency, and for each resource two weights per payload
byte: `wire`, the bytes that cross it, and `line`, the capacity they use up. They differ by what the sender's kernel
achieves: a generation that alone reaches 45 of a NIC's 50 GB/s uses 50/45 bytes of line time per byte on the wire.
That one idea carries headers, two-hop forwarding, multicast fan-out, in-network-node reduction and SM copy pools.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sim.cluster.topology import NONE, Floats, Ints


@dataclass(frozen=True, slots=True)
class Flows:
    """Many flows as arrays. Entries of flow f are `start[f]:start[f + 1]` of `resource`, `wire` and `line`."""

    payload_bytes: Floats  # [num_flows]
    share: Floats  # [num_flows], fair-share weight
    release_s: Floats  # [num_flows], after the batch starts
    latency_s: Floats  # [num_flows], between the last byte sent and the last byte there
    after: Ints  # [num_flows], the flow this one waits for, or -1
    start: Ints  # [num_flows + 1]
    resource: npt.NDArray[np.int32]  # [num_entries]
    wire: Floats  # [num_entries], bytes per payload byte
    line: Floats  # [num_entries], capacity used per payload byte
    party_flow: Ints  # [num_parties], flow of each (flow, rank) pair in which the rank sends or receives
    party_rank: Ints  # [num_parties]

    @property
    def num_flows(self) -> int:
        """How many flows there are."""
        return len(self.payload_bytes)

    @property
    def flow_of_entry(self) -> Ints:
        """The flow that each entry belongs to, [num_entries]."""
        return np.repeat(np.arange(self.num_flows), np.diff(self.start))

    def bytes_by_resource(self, num_resources: int) -> Floats:
        """Bytes that cross each resource, [num_resources]."""
        return self._by_resource(self.wire, num_resources)

    def line_by_resource(self, num_resources: int) -> Floats:
        """Capacity that the flows use up on each resource, in bytes (SM-seconds for copy pools), [num_resources]."""
        return self._by_resource(self.line, num_resources)

    def _by_resource(self, weight: Floats, num_resources: int) -> Floats:
        used = weight * self.payload_bytes[self.flow_of_entry]
        return np.asarray(np.bincount(self.resource, used, num_resources), dtype=np.float64)

    def rank_ends(self, finish_s: Floats, num_ranks: int, floor_s: float) -> Floats:
        """When each rank's own sends and receives are done [s], [num_ranks]; `floor_s` for a rank without any."""
        ends = np.full(num_ranks, floor_s)
        np.maximum.at(ends, self.party_rank, finish_s[self.party_flow])
        return ends


@dataclass(slots=True)
class Columns:
    """Collects the entries of many flows a column at a time, then packs them flow by flow."""

    num_flows: int
    parts: list[tuple[Ints, npt.NDArray[np.int32], Floats, Floats]] = field(default_factory=list)
    """Of each column the flows that use it, and their resource, wire and line."""

    def add(self, resource: Ints, wire: Floats | float, line: Floats | float) -> None:
        """One entry for each flow: resource row (-1 = none), wire and line weight per payload byte."""
        shape = (self.num_flows,)
        wire, line = np.broadcast_to(wire, shape), np.broadcast_to(line, shape)
        flow = np.flatnonzero((resource != NONE) & ((wire != 0) | (line != 0)))
        if len(flow):
            self.parts.append((flow, resource[flow].astype(np.int32), wire[flow], line[flow]))

    def pack(
        self,
        payload_bytes: Floats,
        *,
        share: Floats,
        latency_s: Floats,
        party_flow: Ints,
        party_rank: Ints,
        release_s: Floats | None = None,
        after: Ints | None = None,
    ) -> Flows:
        """The flows, with entries in the order of the columns."""
        start = np.zeros(self.num_flows + 1, dtype=np.int64)
        for flow, _, _, _ in self.parts:
            start[flow + 1] += 1
        np.cumsum(start, out=start)
        resource = np.empty(start[-1], dtype=np.int32)
        wire, line = np.empty(start[-1]), np.empty(start[-1])
        place = start[:-1].copy()  # of each flow's next entry
        for flow, of_resource, of_wire, of_line in self.parts:
            at = place[flow]
            resource[at], wire[at], line[at] = of_resource, of_wire, of_line
            place[flow] += 1
        return Flows(
            payload_bytes=payload_bytes.astype(float),
            share=share.astype(float),
            release_s=np.zeros(self.num_flows) if release_s is None else release_s,
            latency_s=latency_s,
            after=np.full(self.num_flows, NONE) if after is None else after,
            start=start,
            resource=resource,
            wire=wire,
            line=line,
            party_flow=party_flow,
            party_rank=party_rank,
        )
