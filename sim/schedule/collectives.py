"""All-to-all kernels as flows: one function per kernel, one entry in `KERNELS`.

Dispatch carries tokens to experts, combine carries results back. The direct kernels are written from sender to
receiver, and combine transposes the matrix. `two_hop` is written as a dispatch, from the token's rank to the experts';
its combine is the exact mirror (the forwarder gathers and reduces), so `Exchange.cable` turns every cable round.

What each puts on the links, per record (DeepEP csrc/kernels/legacy; NCCL's send/recv with PXN):

- `two_hop`: one record per token and *node*, over the NIC to the GPU of the same index, which passes it on over
  scale-up to each *rank* that holds a chosen expert; its SMs copy for all of them. One flow carries both hops.
- `low_latency`: one record per token and *expert*, straight to the expert's GPU.
- `flat`: as low_latency, with one record per rank or per expert, and the fixed costs of two_hop.
- `nccl`: one record per rank from buffers the host has sorted; PXN forwards to the receiver's rail inside the node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sim.cluster import paths
from sim.cluster.kernels import Kernel
from sim.cluster.topology import NONE, Cluster, Floats, Ints
from sim.schedule.flows import Columns, Flows
from sim.workload.traffic import Routing

HEADERS = 4160 / 4096
"""Line bytes per record byte between switches: 64 bytes of headers a 4,096-byte packet. On a NIC they are part of what
the kernel achieves."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One dispatch or combine of one EP group."""

    cluster: Cluster
    kernel: Kernel
    direction: str  # dispatch | combine
    gpus: Ints  # [ep], GPU of each rank
    routing: Routing
    record_bytes: float
    comm_sms: int = 0
    nvlink: bool = True  # low_latency: same-node copies over scale-up
    copies: str = "per_rank"  # flat: per_rank | per_expert
    pxn: bool = True  # nccl

    @property
    def num_nodes(self) -> int:
        """Nodes that the group spans."""
        return len(np.unique(self.gpus // self.cluster.gpus_per_node))

    @property
    def uses_nic(self) -> bool:
        """Whether any record leaves a GPU by its NIC."""
        return self.num_nodes > 1 or (self.kernel.name == "low_latency" and not self.nvlink)

    def latency_s(self) -> float:
        """The kernel's fixed time [s]."""
        peers = len(self.gpus) - len(self.gpus) // self.num_nodes
        return self.kernel.latency(
            self.direction, uses_nic=self.uses_nic, num_nodes=self.num_nodes, num_remote_peers=peers
        )

    def flows(self) -> Flows:
        """What the kernel puts on the links."""
        return KERNELS[self.kernel.name](self)

    @property
    def mirrored(self) -> bool:
        """Whether bytes run from what the kernel calls its destination to its source."""
        return self.direction == "combine" and self.kernel.name == "two_hop"

    def cable(self, columns: Columns, forth: Ints, back: Ints, wire: Floats, efficiency: float) -> None:
        """A column on a cable: `forth` is its resource from source to destination, `back` the other way."""
        columns.add(back if self.mirrored else forth, wire, wire / efficiency)

    def scale_up(self, columns: Columns, src: Ints, dst: Ints, wire: Floats) -> None:
        """A hop over the scale-up switch."""
        c, efficiency = self.cluster, self.kernel.scale_up_efficiency_fraction.of(self.direction)
        self.cable(columns, c.egress[src], c.ingress[src], wire, efficiency)
        self.cable(columns, c.ingress[dst], c.egress[dst], wire, efficiency)

    def scale_out(self, columns: Columns, leg: paths.Leg, used: Floats) -> Floats:
        """The NICs and switches of one leg, `used` bytes per payload byte; returns the latency it adds [s]."""
        c, a, b, efficiency = self.cluster, leg.via_src, leg.via_dst, self.kernel.nic_efficiency_fraction
        self.cable(columns, c.nic_tx[a], c.nic_rx[a], used, efficiency)
        self.cable(columns, c.pcie_tx[a], c.pcie_rx[a], used, efficiency)
        ends = (b, a) if self.mirrored else (a, b)
        queue_pairs = max(1, self.comm_sms // 2)
        for resource, fraction in paths.uplinks(c, *ends, queue_pairs=queue_pairs):
            columns.add(resource, used * fraction, used * fraction * HEADERS)
        self.cable(columns, c.nic_rx[b], c.nic_tx[b], used, efficiency)
        self.cable(columns, c.pcie_rx[b], c.pcie_tx[b], used, efficiency)
        return np.where(used > 0, paths.extra_latency_s(c, a, b), 0.0)

    def copy(self, columns: Columns, gpu: Ints, copies: Floats) -> None:
        """SM time that `copies` records per payload record cost on `gpu`."""
        rate = self.kernel.copy_rate_bytes_per_s_per_sm
        if rate is not None and self.comm_sms > 0:
            per_sm = rate.of(uses_nic=self.uses_nic, direction=self.direction)
            columns.add(self.cluster.copy_sms[gpu], 0.0, copies / per_sm)

    def memory(self, columns: Columns, gpu: Ints, records: Floats) -> None:
        """HBM traffic of `records` that `gpu` receives per payload record; follows the column that brings them."""
        touched = records * self.kernel.hbm_touches.of(self.direction)
        columns.add(self.cluster.hbm[gpu], touched, touched)


def two_hop(x: Exchange) -> Flows:
    """One flow per source rank and node that its tokens reach; see the module docstring."""
    c, gpn = x.cluster, x.cluster.gpus_per_node
    tokens, to_rank = x.routing.tokens_to_node, x.routing.tokens_to_rank
    s, b = np.nonzero(tokens > 0)
    count, src = tokens[s, b], x.gpus[s]
    home, node = src // gpn, x.gpus[0] // gpn + b
    remote = home != node
    same_index = np.where(remote, node * gpn + src % gpn, src)
    member = np.full((tokens.shape[1], gpn), NONE)  # [nodes, index] -> rank of the group
    member[x.gpus // gpn - x.gpus[0] // gpn, x.gpus % gpn] = np.arange(len(x.gpus))
    reached = member[b]  # [num_flows, gpn]
    share = np.where(reached >= 0, to_rank[s[:, None], reached] / count[:, None], 0.0)
    columns, latency = Columns(len(s)), np.zeros(len(s))
    for leg in _legs_where(x, remote, src, same_index, forward_to_rail=False):
        a, f, part = leg.via_src, leg.via_dst, leg.fraction
        x.scale_up(
            columns, np.where(a != src, src, NONE), np.where(a != src, a, NONE), np.where(a != src, part, 0.0)
        )
        latency = np.maximum(latency, x.scale_out(columns, leg, np.where(remote, part, 0.0)))
        everyone = share.sum(axis=1)
        others = everyone - share[np.arange(len(s)), f % gpn]
        efficiency = x.kernel.scale_up_efficiency_fraction.of(x.direction)
        x.copy(columns, f, part * everyone)
        x.memory(columns, f, part * (others if x.mirrored else everyone - others))
        x.cable(columns, c.egress[f], c.ingress[f], part * others, efficiency)
        for i in range(gpn):
            gpu = node * gpn + i
            taken = np.where(gpu != f, part * share[:, i], 0.0)
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


def low_latency(x: Exchange) -> Flows:
    """One record per token and expert; same-node peers over scale-up where `nvlink`, else over the NIC too."""
    return _direct(x, x.routing.selections_to_rank, over_nvlink=x.nvlink, forward_to_rail=False)


def flat(x: Exchange) -> Flows:
    """One record per token and rank, or per token and expert, straight over the NIC to other nodes."""
    routing = x.routing
    matrix = routing.tokens_to_rank if x.copies == "per_rank" else routing.selections_to_rank
    return _direct(x, matrix, over_nvlink=True, forward_to_rail=False)


def nccl(x: Exchange) -> Flows:
    """One record per token and rank, sorted by the host; with PXN over the NIC of the receiver's rail."""
    return _direct(x, x.routing.tokens_to_rank, over_nvlink=True, forward_to_rail=x.pxn)


KERNELS: dict[str, Callable[[Exchange], Flows]] = {
    "two_hop": two_hop,
    "low_latency": low_latency,
    "flat": flat,
    "nccl": nccl,
}


def _direct(x: Exchange, records: Floats, *, over_nvlink: bool, forward_to_rail: bool) -> Flows:
    """One flow per pair of ranks; `records` [ep, ep] from the token's rank to the expert's."""
    c, gpn = x.cluster, x.cluster.gpus_per_node
    between = np.array(records if x.direction == "dispatch" else records.T)
    np.fill_diagonal(between, 0.0)  # a record to the own rank crosses no link
    s, d = np.nonzero(between)
    src, dst, count = x.gpus[s], x.gpus[d], between[s, d]
    local = (src // gpn == dst // gpn) & over_nvlink
    columns, latency = Columns(len(s)), np.zeros(len(s))
    none = np.full(len(s), NONE)
    x.copy(columns, src, np.ones(len(s)))
    x.scale_up(columns, np.where(local, src, none), np.where(local, dst, none), np.where(local, 1.0, 0.0))
    exposed = x.kernel.shorter_path_exposed_fraction.of(x.direction)
    if exposed and x.uses_nic:
        # The warps that write to scale-up peers also post to the NIC, which waits a part of that time: no bytes, only
        # line time, as long on the NIC as `exposed` of it is on scale-up.
        nic, efficiency = c.nic_tx[src], x.kernel.scale_up_efficiency_fraction.of(x.direction)
        columns.add(
            np.where(local, nic, NONE),
            0.0,
            exposed / efficiency * c.capacity[nic] / c.capacity[c.egress[src]],
        )
    for leg in _legs_where(x, ~local, src, dst, forward_to_rail=forward_to_rail):
        a, b, part = leg.via_src, leg.via_dst, leg.fraction
        for hop_from, hop_to in ((src, a), (b, dst)):
            hops = (hop_from != hop_to) & ~local
            x.scale_up(
                columns,
                np.where(hops, hop_from, NONE),
                np.where(hops, hop_to, NONE),
                np.where(hops, part, 0.0),
            )
        latency = np.maximum(latency, x.scale_out(columns, leg, np.where(local, 0.0, part)))
    x.memory(columns, dst, np.ones(len(s)))
    flow = np.arange(len(s))
    return columns.pack(
        count * x.record_bytes,
        share=count,
        latency_s=latency,
        party_flow=np.concatenate([flow, flow]),
        party_rank=np.concatenate([s, d]),
    )


def _legs_where(
    x: Exchange, remote: np.ndarray, src: Ints, dst: Ints, *, forward_to_rail: bool
) -> list[paths.Leg]:
    """`paths.legs` of the remote pairs; the others keep fraction 1 in the first leg and use no NIC."""
    here = paths.Leg(np.where(remote, 0.0, 1.0), np.where(remote, src, dst), dst)
    if not remote.any():
        return [here]
    found = []
    for leg in paths.legs(x.cluster, src[remote], dst[remote], forward_to_rail=forward_to_rail):
        full = paths.Leg(np.zeros(len(src)), dst.copy(), dst.copy())
        full.fraction[remote], full.via_src[remote], full.via_dst[remote] = (
            leg.fraction,
            leg.via_src,
            leg.via_dst,
        )
        found.append(full)
    found[0].fraction[~remote] = 1.0
    return found
