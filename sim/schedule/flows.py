"""Flows: bytes that want to move, and what they use while moving.

A flow has payload bytes, a fair-share weight, a release time, a latency, and for each resource two weights per payload
byte: `wire`, the bytes that cross it, and `line`, the capacity they use up. They differ by what the sender's kernel
achieves: a generation that alone reaches 45 of a NIC's 50 GB/s uses 50/45 bytes of line time per byte on the wire.
That one idea carries headers, two-hop forwarding, multicast fan-out, in-network-node reduction and SM copy pools.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from sim.cluster.topology import NONE, Floats, Ints


@dataclass(frozen=True, slots=True)
class Flows:
    """Many flows as arrays.

    Parameters
    ----------
    payload_bytes : float, [num_flows]
        Payload of each flow [bytes].
    share : float, [num_flows]
        Fair-share weight.
    release_s : float, [num_flows]
        Release after the batch starts [s].
    latency_s : float, [num_flows]
        Time between the last byte sent and the last byte there [s].
    after : int, [num_flows]
        The flow that a flow waits for, or -1.
    start : int, [num_flows + 1]
        Entries of flow f are `start[f]:start[f + 1]` of `resource`, `wire` and `line`.
    resource : int, [num_entries]
        Row of the resource in the cluster.
    wire : float, [num_entries]
        Bytes that cross the resource per payload byte.
    line : float, [num_entries]
        Capacity used up per payload byte.
    party_flow, party_rank : int, [num_parties]
        Each (flow, rank) pair in which the rank sends or receives.
    """

    payload_bytes: Floats
    share: Floats
    release_s: Floats
    latency_s: Floats
    after: Ints
    start: Ints
    resource: npt.NDArray[np.int32]
    wire: Floats
    line: Floats
    party_flow: Ints
    party_rank: Ints

    @property
    def num_flows(self) -> int:
        """Number of flows [count]."""
        return len(self.payload_bytes)

    @property
    def flow_of_entry(self) -> Ints:
        """The flow that each entry belongs to, [num_entries]."""
        return np.repeat(np.arange(self.num_flows), np.diff(self.start))

    def bytes_by_resource(self, num_resources: int) -> Floats:
        """Bytes that cross each resource, [num_resources]."""
        return self._resource_sums(self.wire, num_resources)

    def line_by_resource(self, num_resources: int) -> Floats:
        """Capacity that the flows use up on each resource, in bytes (SM-seconds for copy pools), [num_resources]."""
        return self._resource_sums(self.line, num_resources)

    def _resource_sums(self, weight: Floats, num_resources: int) -> Floats:
        used = weight * self.payload_bytes[self.flow_of_entry]
        return np.asarray(np.bincount(self.resource, used, num_resources), dtype=np.float64)

    def among_others(self, num_ranks: int) -> Flows:
        """Make shares add up to the number of ranks that send: among other transfers, each rank is worth one flow."""
        total = float(self.share.sum())
        return replace(self, share=self.share * (num_ranks / total)) if total else self

    def rank_ends(self, finish_s: Floats, num_ranks: int, floor_s: float) -> Floats:
        """When each rank's own sends and receives are done [s], [num_ranks]; `floor_s` for a rank without any."""
        ends = np.full(num_ranks, floor_s)
        np.maximum.at(ends, self.party_rank, finish_s[self.party_flow])
        return ends


@dataclass(slots=True)
class Columns:
    """Collects the entries of many flows a column at a time, then packs them flow by flow."""

    num_flows: int
    parts: list[tuple[Ints, npt.NDArray[np.int32], Floats | float, Floats | float]] = field(
        default_factory=list
    )
    """Columns so far: the flows that use each, and their resource, wire and line; a number is that of all."""

    def add(self, resource: Ints, wire: Floats | float, line: Floats | float) -> None:
        """Add one entry to each flow that uses something of a resource [num_flows], a row of it or -1 for none.

        `wire` bytes cross it, and `line` is the capacity used up, per payload byte.
        """
        flow = np.flatnonzero((resource != NONE) & ((wire != 0) | (line != 0)))
        if len(flow):
            used = [each[flow] if isinstance(each, np.ndarray) else each for each in (wire, line)]
            self.parts.append((flow, resource[flow].astype(np.int32), used[0], used[1]))

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
        """Pack the flows, with entries in the order of the columns.

        Parameters are fields of `Flows`; without `release_s` all are released at once, without `after` none waits.
        """
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


NO_FLOWS = Columns(0).pack(
    np.zeros(0),
    share=np.zeros(0),
    latency_s=np.zeros(0),
    party_flow=np.zeros(0, dtype=np.int64),
    party_rank=np.zeros(0, dtype=np.int64),
)
"""Nothing that wants to move."""
