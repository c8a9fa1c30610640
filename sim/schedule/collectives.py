"""All-to-all kernels as flows. All that follows from the kind of a kernel is its entry in `KINDS`; what a generation of it
achieves is in its file (`cluster.kernels`).

Dispatch carries tokens to experts, combine carries results back. The direct kinds are written from sender to
receiver, and combine transposes the matrix. `two_hop` is written as a dispatch, from the token's rank to the experts';
its combine is the exact mirror (the forwarder gathers and reduces), so `Collective.cable` turns every cable round.

What each kind puts on the links, per record (DeepEP csrc/kernels/legacy; NCCL's send/recv with PXN):

- `two_hop`: one record per token and *node*, over the NIC to the GPU of the same index, which passes it on over
  scale-up to each *rank* that holds a chosen expert; its SMs copy for all of them. One flow carries both hops.
- `low_latency`: one record per token and *expert*, straight to the expert's GPU.
- `flat`: as low_latency, with one record per rank or per expert.
- `nccl`: one record per rank from buffers the host has sorted; PXN forwards to the receiver's rail inside the node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from sim.cluster import paths
from sim.cluster.kernels import Kernel
from sim.cluster.topology import NONE, Cluster, Floats, Ints
from sim.errors import InputError, Problem, nearest
from sim.schedule.flows import Columns, Flows
from sim.schedule.mean_traffic import MeanBytes, between_pairs, through_nodes
from sim.schedule.record_sizes import bare_bytes, headed_bytes, tagged_bytes
from sim.workload.traffic import DIRECTIONS, Routing, payload_bytes

HEADERS = 4160 / 4096
"""Line bytes per record byte between switches: headers of 64 bytes a 4,096-byte packet. What a kernel achieves has a NIC's in it."""


@dataclass(frozen=True, slots=True)
class Collective:
    """One dispatch or combine of one EP group.

    Parameters
    ----------
    cluster : Cluster
    kernel : Kernel
        The generation of kernels that moves the bytes.
    direction : str
        "dispatch" or "combine".
    gpus : int, [ep]
        GPU of each rank.
    routing : Routing
        Tokens that each rank sends to each other.
    record_bytes : float
        Size of one record [bytes]; see `record_bytes`.
    comm_sms : int
        SMs that copy on each GPU [count].
    nvlink : bool
        True to send same-node copies over scale-up; an option of `low_latency`.
    copies : str
        "per_rank" or "per_expert"; an option of `flat`.
    pxn : bool
        True to forward to the receiver's rail inside the node; an option of `nccl`.
    """

    cluster: Cluster
    kernel: Kernel
    direction: str  # dispatch | combine
    gpus: Ints  # [ep], GPU of each rank
    routing: Routing
    record_bytes: float
    comm_sms: int
    nvlink: bool = True  # from here on options of one kind or another: same-node copies over scale-up
    copies: str = "per_rank"  # per_rank | per_expert
    pxn: bool = True

    @property
    def kind(self) -> Kind:
        """The entry of `KINDS` for the kernel."""
        return KINDS[self.kernel.kind]

    @property
    def num_nodes(self) -> int:
        """Nodes that the group spans."""
        return len(np.unique(self.gpus // self.cluster.gpus_per_node))

    @property
    def uses_nic(self) -> bool:
        """True where any record leaves a GPU by its NIC."""
        return self.num_nodes > 1 or not self.kind.takes_nvlink(self)

    def latency_s(self) -> float:
        """The kernel's fixed time on these links [s]."""
        c, uses_nic, nodes = self.cluster, self.uses_nic, self.num_nodes
        peers = len(self.gpus) - len(self.gpus) // nodes
        time_s = self.kernel.fixed_s(
            self.direction, uses_nic=uses_nic, num_nodes=nodes, num_remote_peers=peers
        )
        beyond_s = self.kernel.beyond_s(c.scale_up_latency_s, c.same_leaf_latency_s, uses_nic=uses_nic)
        return max(0.0, time_s + beyond_s + self._filling_s())

    def _filling_s(self) -> float:
        """Time in which the first chunks fill the pipeline [s]."""
        k, r, on_nic = self.kernel, self.routing, self.uses_nic
        sizes = self.direction, self.record_bytes, r.tokens_per_rank, r.ranks_per_token, r.nodes_per_token
        time_s = k.first_chunk_s(*sizes, uses_nic=on_nic, sms=self.comm_sms)
        if k.chunk_time_s is None:
            return time_s
        chunk_s = (k.chunk_time_s.over_nic if on_nic else k.chunk_time_s.single_node)[self.direction]
        return time_s + 2 * math.sqrt(chunk_s * max(self.mean_times_s().values()))

    @property
    def mean_bytes(self) -> MeanBytes:
        """Bytes of the mean rank with even loads."""
        if self.kind.flow_per_node:
            return through_nodes(self.routing, self.record_bytes, self.num_nodes)
        to_rail = self.kind.forwards_to_rail(self) or not self.cluster.planes_joined
        pairs = self.routing, self.records, self.record_bytes, self.num_nodes
        return between_pairs(*pairs, by_nic=not self.kind.takes_nvlink(self), to_rail=to_rail)

    def mean_times_s(self) -> dict[str, float]:
        """Time that each class of resource takes for the bytes of the mean rank, as the kernel achieves it where nothing is broken [s]."""
        c, k, way, mean, on_nic = self.cluster, self.kernel, self.direction, self.mean_bytes, self.uses_nic
        up_rate = k.scale_up_efficiency_fraction[way] * float(c.capacity[c.egress[self.gpus]].max())
        times = {"scale_up": mean.scale_up / up_rate}
        if on_nic:
            rate = self.nic_efficiency_fraction * self.nic_line_bytes_per_s / c.gpus_per_nic
            times["nic"] = mean.nic / rate + k.exposed_fraction(way) * times["scale_up"]
        copied = way, self.record_bytes, mean.copied, mean.taken_in
        return times | {"copy_sms": float(k.copy_s(*copied, uses_nic=on_nic, sms=self.comm_sms))}

    @property
    def nic_efficiency_fraction(self) -> float:
        """Part of a NIC's line rate that the kernel reaches with the cluster's kind of NIC and its own messages."""
        message_bytes, line = self.kind.message_records * self.record_bytes, self.nic_line_bytes_per_s
        return self.cluster.nic_reach.fraction(self.kernel.nic_efficiency_fraction, line, message_bytes)

    @property
    def nic_line_bytes_per_s(self) -> float:
        """Line rate of the group's fastest NIC: a slow or dead one changes no time of the kernel's own [bytes/s]."""
        return float(self.cluster.capacity[self.cluster.nic_tx[self.gpus]].max())

    def flows(self) -> Flows:
        """Write down the bytes that the kernel puts on the links."""
        return self.kind.flows(self)

    @property
    def records(self) -> Floats:
        """Records from the token's rank to the expert's, [ep, ep]."""
        return self.kind.records(self)

    @property
    def mirrored(self) -> bool:
        """True where bytes run from what the kernel calls its destination to its source."""
        return self.direction == "combine" and self.kind.mirrored

    def cable(self, columns: Columns, forth: Ints, back: Ints, wire: Floats, efficiency: float) -> None:
        """A column on a cable: `forth` is its resource from source to destination, `back` the other way."""
        columns.add(back if self.mirrored else forth, wire, wire / efficiency)

    def scale_up(self, columns: Columns, src: Ints, dst: Ints, wire: Floats) -> None:
        """A hop over the scale-up switch."""
        c, efficiency = self.cluster, self.kernel.scale_up_efficiency_fraction[self.direction]
        self.cable(columns, c.egress[src], c.ingress[src], wire, efficiency)
        self.cable(columns, c.ingress[dst], c.egress[dst], wire, efficiency)

    def scale_out(self, columns: Columns, leg: paths.Leg, src: Ints, dst: Ints, used: Floats) -> Floats:
        """The way between two nodes, `used` bytes per payload byte; returns the latency of each flow [s], [num_flows].

        Bytes that take a borrowed NIC keep their line time on uplinks which they no longer cross: the kernel's schedule stays, and
        a dead NIC makes no collective faster. A kernel waits for its last peer: the longest path counts for every flow.
        """
        c, a, b = self.cluster, leg.nic_src, leg.nic_dst
        efficiency = self.nic_efficiency_fraction
        self.hop(columns, src, leg.via_src, used)
        self.hop(columns, leg.via_src, a, used)
        self.cable(columns, c.nic_tx[a], c.nic_rx[a], used, efficiency)
        self.cable(columns, c.pcie_tx[a], c.pcie_rx[a], used, efficiency)
        crossed, latency = self._uplinks(a, b), paths.extra_latency_s(c, a, b)
        for resource, fraction in crossed:
            columns.add(resource, used * fraction, used * fraction * HEADERS)
        if np.any((a != leg.via_src) | (b != dst)):
            for resource, fraction in self._uplinks(leg.via_src, dst):
                left = np.all([resource != other for other, _ in crossed] or [used > 0], axis=0)
                columns.add(np.where(left, resource, NONE), 0.0, used * fraction * HEADERS)
            through_spine = (c.cross_leaf_latency_s - c.same_leaf_latency_s) * c.planes_joined
            latency = np.maximum(
                paths.extra_latency_s(c, leg.via_src, dst), np.maximum(latency, through_spine)
            )
        self.cable(columns, c.nic_rx[b], c.nic_tx[b], used, efficiency)
        self.cable(columns, c.pcie_rx[b], c.pcie_tx[b], used, efficiency)
        self.hop(columns, b, dst, used)
        return np.full(len(used), np.where(used > 0, latency, 0.0).max(initial=0.0))

    def _uplinks(self, src: Ints, dst: Ints) -> list[tuple[Ints, Floats]]:
        ends = (dst, src) if self.mirrored else (src, dst)
        return list(paths.uplinks(self.cluster, *ends, queue_pairs=max(1, self.comm_sms // 2)))

    def hop(self, columns: Columns, src: Ints, dst: Ints, used: Floats) -> None:
        """A hop over the scale-up switch for those whose two GPUs are not the same one."""
        self.scale_up(columns, src, dst, np.where(src != dst, used, 0.0))

    def copy(self, columns: Columns, gpu: Ints, copies: Floats) -> None:
        """Time that `copies` records per payload record cost on `gpu`, whose `comm_sms` copy together."""
        line = self.kernel.copy_s(
            self.direction, self.record_bytes, copies, uses_nic=self.uses_nic, sms=self.comm_sms
        )
        if np.any(line):
            columns.add(self.cluster.copy_sms[gpu], 0.0, line)

    def memory(self, columns: Columns, gpu: Ints, records: Floats) -> None:
        """HBM traffic of `records` that `gpu` receives per payload record; follows the column that brings them."""
        touched = records * self.kernel.hbm_touches[self.direction]
        columns.add(self.cluster.hbm[gpu], touched, touched)


# --- how bytes travel ----------------------------------------------------------------------------------------------


def _node_flows(x: Collective) -> Flows:
    """One flow per source rank and node that its tokens reach; see the module docstring."""
    c, gpn = x.cluster, x.cluster.gpus_per_node
    tokens, to_rank = x.routing.tokens_to_node, x.routing.tokens_to_rank
    s, b = np.nonzero(tokens > 0)
    count, src = tokens[s, b], x.gpus[s]
    first = np.unique(x.routing.node_of_rank, return_index=True)[1]  # rank of each node of the group
    home, node = src // gpn, x.gpus[first][b] // gpn
    remote = home != node
    f = np.where(remote, node * gpn + src % gpn, src)  # forwarder
    member = np.full((tokens.shape[1], gpn), NONE)  # [nodes, index] -> rank of the group
    member[x.routing.node_of_rank, x.gpus % gpn] = np.arange(len(x.gpus))
    reached = member[b]  # [num_flows, gpn]
    share = np.where(reached >= 0, to_rank[s[:, None], reached] / count[:, None], 0.0)
    columns = Columns(len(s))
    leg = _leg(x, remote, src, f, count, forward_to_rail=False)
    latency = x.scale_out(columns, leg, src, f, np.where(remote, 1.0, 0.0))
    everyone = share.sum(axis=1)
    others = everyone - share[np.arange(len(s)), f % gpn]
    efficiency = x.kernel.scale_up_efficiency_fraction[x.direction]
    x.copy(columns, f, everyone)
    x.memory(columns, f, others if x.mirrored else everyone - others)
    x.cable(columns, c.egress[f], c.ingress[f], others, efficiency)
    for i in range(gpn):
        gpu = node * gpn + i
        taken = np.where(gpu != f, share[:, i], 0.0)
        x.cable(columns, c.ingress[gpu], c.egress[gpu], taken, efficiency)
        if not x.mirrored:
            x.memory(columns, gpu, taken)
    flow, column = np.nonzero(share > 0)
    return columns.pack(
        count * x.record_bytes,
        share=count,
        latency_s=latency,
        party_flow=np.concatenate([np.arange(len(s)), flow]),
        party_rank=np.concatenate([s, reached[flow, column]]),
    )


def _pair_flows(x: Collective) -> Flows:
    """One flow per pair of ranks."""
    c, gpn = x.cluster, x.cluster.gpus_per_node
    between = np.array(x.records if x.direction == "dispatch" else x.records.T)
    np.fill_diagonal(between, 0.0)  # a record to the own rank crosses no link
    s, d = np.nonzero(between)
    src, dst, count = x.gpus[s], x.gpus[d], between[s, d]
    local = (src // gpn == dst // gpn) & x.kind.takes_nvlink(x)
    columns = Columns(len(s))
    x.copy(columns, src, np.ones(len(s)))
    x.scale_up(columns, src, dst, np.where(local, 1.0, 0.0))
    leg = _leg(x, ~local, src, dst, count, forward_to_rail=x.kind.forwards_to_rail(x))
    exposed = x.kernel.exposed_fraction(x.direction)
    if exposed and x.uses_nic:
        # The warps that write to scale-up peers also post to the NIC, which waits a part of that time: no bytes, only
        # line time, as long on the NIC as `exposed` of it is on scale-up, of all its GPUs at once.
        nic, efficiency = c.nic_tx[leg.lender[src]], x.kernel.scale_up_efficiency_fraction[x.direction]
        line = exposed / efficiency * c.capacity[nic] / c.capacity[c.egress[src]] / c.gpus_per_nic
        columns.add(np.where(local, nic, NONE), 0.0, line)
    latency = x.scale_out(columns, leg, src, dst, np.where(local, 0.0, 1.0))
    x.memory(columns, dst, np.ones(len(s)))
    flow = np.arange(len(s))
    return columns.pack(
        count * x.record_bytes,
        share=count,
        latency_s=latency,
        party_flow=np.concatenate([flow, flow]),
        party_rank=np.concatenate([s, d]),
    )


def _leg(
    x: Collective, away: np.ndarray, src: Ints, dst: Ints, records: Floats, *, forward_to_rail: bool
) -> paths.Leg:
    """`paths.leg` of the flows that leave by a NIC; the others start where they end."""
    own = paths.Leg(dst.copy(), dst.copy(), dst.copy(), np.arange(x.cluster.num_gpus))
    if not away.any():
        return own
    chosen = paths.leg(x.cluster, src[away], dst[away], records[away], forward_to_rail=forward_to_rail)
    own.via_src[away], own.nic_src[away], own.nic_dst[away] = chosen.via_src, chosen.nic_src, chosen.nic_dst
    return replace(own, lender=chosen.lender)


# --- records -------------------------------------------------------------------------------------------------------


def record_bytes(kind: str, direction: str, dtype: str, hidden: int, top_k: int) -> int:
    """Size of one record: the bytes that one copy of a token puts into the network, without packet headers.

    Parameters
    ----------
    kind : str
        A key of `KINDS`.
    direction : str
        "dispatch" or "combine".
    dtype : str
        Format of the payload, as in `payload_bytes`.
    hidden : int
        Hidden size of the model [count].
    top_k : int
        Experts that a token selects [count].

    Returns
    -------
    int
        The size [bytes].

    Raises
    ------
    InputError
        For an unknown kind, direction or format.
    """
    for key, word, known in (("kernel", kind, tuple(KINDS)), ("direction", direction, DIRECTIONS)):
        if word not in known:
            raise InputError(Problem(None, key, word, "one of " + ", ".join(known), nearest(word, known)))
    return KINDS[kind].record_bytes(direction, payload_bytes(dtype, hidden), top_k)


# --- kinds ---------------------------------------------------------------------------------------------------------


def _always(x: Collective) -> bool:
    return True


def _never(x: Collective) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Kind:
    """All that follows from how the kernels of one kind move bytes, whatever a generation of them achieves."""

    flows: Callable[[Collective], Flows]
    """Travel: what a collective puts on the links."""
    flow_per_node: bool
    """A flow ends at a node, which shares it out over scale-up, and not at a rank."""
    mirrored: bool
    """Combine runs every cable of dispatch the other way, and does not send for itself."""
    records: Callable[[Collective], Floats]
    """Records from the token's rank to the expert's, [ep, ep]: the traffic matrix."""
    record_bytes: Callable[[str, int, int], int]
    """Size of a record: of direction, payload and top-k [bytes]."""
    takes_nvlink: Callable[[Collective], bool]
    """Same-node copies take scale-up; otherwise the NIC too."""
    forwards_to_rail: Callable[[Collective], bool]
    """Records take scale-up to the GPU of the receiver's rail before they leave the node."""
    barrier: bool
    """A collective starts on all ranks when the last is there; otherwise on each when it is ready."""
    phases: bool
    """In decode, SMs send and receive as two launches of their own, and none is held in between."""
    slots: bool
    """Every token has receive buffers of its own; otherwise rows of experts are as many as arrive."""
    message_records: float
    """Records that leave in one message; infinite for whole buffers."""
    counts_selections: bool
    """Benchmarks count every (token, expert) selection as a record; otherwise payload to every distinct node and rank."""


KINDS: Mapping[str, Kind] = {
    "two_hop": Kind(
        flows=_node_flows, flow_per_node=True, mirrored=True,
        records=lambda x: x.routing.tokens_to_rank, record_bytes=tagged_bytes, takes_nvlink=_always, forwards_to_rail=_never,
        barrier=True, phases=False, slots=False, message_records=8, counts_selections=False,
    ),
    "low_latency": Kind(
        flows=_pair_flows, flow_per_node=False, mirrored=False,
        records=lambda x: x.routing.selections_to_rank, record_bytes=headed_bytes, takes_nvlink=lambda x: x.nvlink, forwards_to_rail=_never,
        barrier=False, phases=True, slots=True, message_records=1, counts_selections=True,
    ),
    "flat": Kind(
        flows=_pair_flows, flow_per_node=False, mirrored=False,
        records=lambda x: x.routing.tokens_to_rank if x.copies == "per_rank" else x.routing.selections_to_rank, record_bytes=bare_bytes, takes_nvlink=_always, forwards_to_rail=_never,
        barrier=True, phases=False, slots=False, message_records=8, counts_selections=False,
    ),
    "nccl": Kind(
        flows=_pair_flows, flow_per_node=False, mirrored=False,
        records=lambda x: x.routing.tokens_to_rank, record_bytes=bare_bytes, takes_nvlink=_always, forwards_to_rail=lambda x: x.pxn,
        barrier=True, phases=False, slots=False, message_records=math.inf, counts_selections=False,
    ),
}  # fmt: skip
"""Name of a kind -> what it does; the only place that is asked by a kind's name."""
