"""Collectives of a group as NCCL runs them: what each algorithm puts on the links, and the time of its steps.

Every channel is one flow over all links that it passes: chunks follow one another, so the slowest link of a ring or tree sets
the pace of all its links. Sizes are those of nccl-tests: S is the whole buffer, of an all-gather all shards together.

    ring          each link of the ring carries S b, with b the factor of bus bandwidth
    tree          all-reduce; S up and S down each edge, of which every channel has two trees with half of its bytes each
    nvls          all-reduce; a GPU sends the switch S + S / g and gets as much, with g GPUs a node; trees between nodes
    hierarchical  a ring inside each node, and one between the GPUs of the same place on every node
    direct        all-to-all; every rank to every other, as `collectives` writes NCCL's sends
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sim.cluster.collective_library import PROTOCOLS, CollectiveLibrary, Steps
from sim.cluster.fabrics import NONE
from sim.cluster.hardware import Hardware
from sim.cluster.kernels import Kernel
from sim.cluster.topology import CLASSES, Cluster, Floats, Ints
from sim.schedule.collectives import HEADERS
from sim.schedule.flows import Flows
from sim.schedule.rings import Hops, layered_hops, ring_hops, tree_hops, tree_parents
from sim.schedule.sends import send_flows

OPERATIONS: Mapping[str, Callable[[int], float]] = {
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "broadcast": lambda n: 1.0,
    "all_to_all": lambda n: (n - 1) / n,
}
"""Operation -> bus bandwidth over algorithm bandwidth, of the ranks of a group (nccl-tests, doc/PERFORMANCE.md)."""


@dataclass(frozen=True, eq=False)
class GroupOperation:
    """One collective of one group of ranks, by one algorithm in one protocol.

    Parameters
    ----------
    cluster : Cluster
    hardware : Hardware
    library : CollectiveLibrary
    kernel : Kernel
        NCCL's sends: the part of the NIC's rate that they reach.
    op : str
        A key of `OPERATIONS` but `all_to_all`.
    total_bytes : float
        The whole buffer, S [bytes].
    gpus : int, [num_ranks]
        GPU of each rank, ascending; the first is the root of a broadcast.
    algorithm : str
        `ring`, `tree`, `nvls` or `hierarchical`.
    protocol : str
        One of `PROTOCOLS`.
    """

    cluster: Cluster
    hardware: Hardware
    library: CollectiveLibrary
    kernel: Kernel
    op: str
    total_bytes: float
    gpus: Ints
    algorithm: str = "ring"
    protocol: str = "simple"

    @cached_property
    def nodes(self) -> list[Ints]:
        """GPUs of the group on each of its nodes."""
        own = self.gpus // self.cluster.gpus_per_node
        return np.split(self.gpus, np.flatnonzero(np.diff(own)) + 1)

    @property
    def passes(self) -> int:
        """Times that every byte goes round: an all-reduce scatters and gathers."""
        return 2 if self.op == "all_reduce" else 1

    @property
    def steps(self) -> Steps:
        """Times of a step."""
        by_protocol = self.library.tree if self.algorithm == "tree" else self.library.ring
        steps: Steps = getattr(by_protocol, self.protocol)
        return steps

    def num_steps(self) -> tuple[int, int]:
        """Steps one after another inside nodes, and between them."""
        n, num, most = len(self.gpus), len(self.nodes), max(map(len, self.nodes))
        if self.algorithm == "ring":
            return self.passes * (n - num), self.passes * (num - 1)
        if self.algorithm == "hierarchical":
            return self.passes * (most - 1), self.passes * (num - 1)
        deep = 2 * math.ceil(math.log2(num))
        return (2 * (most - 1) if self.algorithm == "tree" else 0), deep

    def latency_s(self) -> float:
        """Time of its steps without bytes: launch, and every step inside nodes and between them [s]."""
        (near, far), reach = self.num_steps(), self.hardware.nic_reach
        if self.algorithm == "nvls":
            return self.library.nvls.launch_s + far * (self.library.nvls.nic_step_s + reach.step_s)
        return (
            self.steps.launch_s
            + near * self.steps.scale_up_step_s
            + far * (self.steps.nic_step_s + reach.step_s)
        )

    @property
    def efficiencies(self) -> tuple[float, float]:
        """Parts of the rates of scale-up and of the NIC that it reaches."""
        nic = self.hardware.nic_reach.fraction(self.kernel.nic_efficiency_fraction, 0.0)
        if self.algorithm == "nvls":
            return self.library.nvls.scale_up_efficiency_fraction, nic
        part: float = getattr(self.library.bandwidth_fraction, self.protocol)
        if self.algorithm == "tree":
            part *= self.library.tree_bandwidth_fraction
        return self.library.scale_up_efficiency_fraction * part, nic * part

    def _hops(self) -> tuple[float, Hops]:
        """Bytes that all channels carry together, and their hops."""
        if self.algorithm == "ring":
            return self.total_bytes * OPERATIONS[self.op](len(self.gpus)), ring_hops(
                self.nodes, closed=self.op != "broadcast"
            )
        if self.algorithm == "hierarchical":
            return self.total_bytes * self.passes, layered_hops(self.nodes)
        return self.total_bytes, tree_hops(self.nodes, chains=self.algorithm == "tree")

    def flows(self) -> Flows:
        """Write down the bytes that it puts on the links: a flow for each channel."""
        c, (total, hops) = self.cluster, self._hops()
        num = int(hops.channel.max(initial=0)) + 1
        sent = send_flows(c, self.kernel, hops.src, hops.dst, 1.0)
        entry = sent.flow_of_entry
        channel, resource = hops.channel[entry], sent.resource.astype(np.int64)
        wire: Floats = sent.wire * hops.part[entry]
        if self.algorithm == "nvls":
            ends = np.concatenate([c.egress[self.gpus], c.ingress[self.gpus]])
            each = np.concatenate([np.full(len(gpus), 1 + 1 / len(gpus)) for gpus in self.nodes])
            channel = np.concatenate([channel, np.repeat(np.arange(num), len(ends))])
            resource = np.concatenate([resource, np.tile(ends, num)])
            wire = np.concatenate([wire, np.tile(each, 2 * num)])
        rows = len(c.names)
        keys, place = np.unique(channel * rows + resource, return_inverse=True)
        wire = np.bincount(place, wire).astype(float)
        used = keys % rows
        up, nic = self.efficiencies
        by_class = {"scale_up": 1 / up, "nic": 1 / nic, "pcie": 1 / nic, "leaf_uplink": HEADERS}
        per_byte = np.array([by_class.get(name, 1.0) for name in CLASSES])[c.class_idx[used]]
        payload = np.full(num, total / num)
        far = sent.latency_s[hops.src // c.gpus_per_node != hops.dst // c.gpus_per_node]
        rank = np.arange(len(self.gpus))
        return Flows(
            payload_bytes=payload,
            share=payload,
            release_s=np.zeros(num),
            latency_s=np.full(num, self.num_steps()[1] * float(far.mean()) if len(far) else 0.0),
            after=np.full(num, NONE),
            start=np.searchsorted(keys, np.arange(num + 1) * rows),
            resource=used.astype(np.int32),
            wire=wire,
            line=wire * per_byte,
            party_flow=np.repeat(np.arange(num), len(rank)),
            party_rank=np.tile(rank, num),
        )

    def sent_bytes(self) -> tuple[float, float]:
        """Bytes that the busiest GPU sends over scale-up and over its NIC, by arithmetic."""
        n, num = len(self.gpus), len(self.nodes)
        each, s = n / num, self.total_bytes
        if self.algorithm in ("tree", "nvls"):
            ends = sum(_degrees(parent) for parent in tree_parents(num)) / 2  # edges, each S up and S down
            up = 2 * s * (each - 1) / each if self.algorithm == "tree" else s * (1 + 1 / each)
            return up, s * float(np.max(ends)) / each
        if self.algorithm == "hierarchical":
            return self.passes * s * (each - 1) / each, self.passes * s / each * (num - 1) / num
        moved = s * OPERATIONS[self.op](n)
        return (moved, 0.0) if num == 1 else (moved * (each - 1) / each, moved / each)

    def closed_form_s(self) -> tuple[float, str]:
        """Time by arithmetic alone, with every link alike and healthy; and the class of resource that binds, or `latency`.

        t = steps + max(scale_up bytes / (efficiency x rate), NIC bytes / (efficiency x rate))
        """
        rates = (
            self.hardware.gpu.scale_up.bandwidth_bytes_per_s,
            self.hardware.nic_bytes_per_s / self.hardware.gpus_per_nic or 1.0,
        )
        times = [
            sent / (rate * part)
            for sent, rate, part in zip(self.sent_bytes(), rates, self.efficiencies, strict=True)
        ]
        fixed, longest = self.latency_s(), max(times)
        name = "scale_up" if times[0] >= times[1] else "nic"
        return fixed + longest, name if longest >= fixed else "latency"


def _degrees(parent: Ints) -> Floats:
    """Edges of each node of a tree."""
    child = np.flatnonzero(parent >= 0)
    return np.bincount(np.concatenate([child, parent[child]]), minlength=len(parent)).astype(float)


def algorithms(op: str, gpus: Ints, hardware: Hardware, gpus_per_node: int) -> list[str]:
    """List the algorithms that can run an operation on a group, those first that NCCL itself chooses from.

    Parameters
    ----------
    op : str
        A key of `OPERATIONS`.
    gpus : int, [num_ranks]
        GPU of each rank.
    hardware : Hardware
    gpus_per_node : int [count]

    Returns
    -------
    list of str
    """
    if op == "all_to_all":
        return ["direct"]
    each = np.unique(gpus // gpus_per_node, return_counts=True)[1]
    several = len(each) > 1
    able = ["ring"]
    if op == "all_reduce":
        able += ["tree"] if several else []
        reduces = hardware.gpu.scale_up.reduces_in_switch or 0
        able += ["nvls"] if 1 < each.min() == each.max() <= reduces else []
    if op != "broadcast" and several and each.min() == each.max():
        able.append("hierarchical")
    return able


def tuned(candidates: Sequence[GroupOperation]) -> GroupOperation:
    """Choose as NCCL's tuner does: the candidate of the least time by arithmetic, the first of equal ones.

    Parameters
    ----------
    candidates : sequence of GroupOperation

    Returns
    -------
    GroupOperation
    """
    return min(candidates, key=lambda candidate: candidate.closed_form_s()[0])


def protocols(algorithm: str) -> tuple[str, ...]:
    """List the protocols of an algorithm: sums in the switch have but one."""
    return ("simple",) if algorithm == "nvls" else PROTOCOLS
