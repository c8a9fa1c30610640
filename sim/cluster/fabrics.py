"""Fabrics: what joins GPUs as a scenario describes it, and the cables that it takes.

Every directed edge has a `capacity` [bytes/s], a `kind` and the `resource` it belongs to.

Why resources and not edges: with adaptive routing a leaf sprays packets over all its uplinks, so the uplinks are *one*
pooled resource; with ECMP or static routing each uplink is its own. The cables are the same, only the names differ.

Kinds (Table 3 and section 5 of the ISCA'25 DeepSeek-V3 paper, arXiv 2505.09343):

- `rail_optimized`: NIC r of each node of a pod meets at the leaf of rail r; all leaves meet at the spines. A rail is a NIC
  of a node, whichever GPUs share it.
- `multi_plane`: each rail is a fabric of its own; no cable joins two planes, NVLink does.
- `rail_only`: as multi_plane, one leaf per rail and no spines.
- `three_tier`: rail_optimized pods, joined by cores.
- `fat_tree`: all NICs of a node meet at one leaf, next to those of its neighbours; all leaves meet at the spines.
- `scale_up`: all GPUs in one scale-up domain, no NIC used.
- leaf-spine: bare hosts.

A cluster is one pool of nodes, or several of unlike hardware; nodes are numbered through all of them. The uplinks of a leaf
add up to its NICs over the oversubscription, had it as many of each kind as it has now and were it full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sim.cluster.cables import Cables
from sim.errors import InfeasibleError

if TYPE_CHECKING:
    from sim.cluster.hardware import Hardware

FabricKind = Literal["rail_optimized", "multi_plane", "three_tier", "rail_only", "fat_tree", "scale_up"]
Routing = Literal["adaptive", "ecmp", "static"]

NONE = -1


@dataclass(frozen=True, slots=True)
class Fabric:
    """The scale-out fabric of a scenario."""

    kind: FabricKind = "rail_optimized"
    routing: Routing = "adaptive"
    oversubscription: float = 1.0
    nodes_per_leaf: int = 32
    nics_on_leaf: int = 1  # of a node, that share a leaf
    queue_pairs: int | None = None  # that the bytes of a pair are spread over; None where its kernel decides


@dataclass(frozen=True, slots=True)
class NodePool:
    """Nodes of one hardware, numbered from `first_node` in the whole cluster."""

    hardware: Hardware
    num_nodes: int
    first_node: int = 0


@dataclass(frozen=True, slots=True)
class LeafSpine:
    """A bare two-tier fabric of hosts. Rates [bytes/s], latencies [s], packet sizes [bytes]."""

    hosts: int
    hosts_per_leaf: int
    spines: int
    link_bytes_per_s: float
    routing: Routing = "adaptive"
    link_latency_s: float = 0.0
    switch_latency_s: float = 0.0
    payload_per_packet_bytes: float = 1.0
    wire_per_packet_bytes: float = 1.0

    @property
    def line_per_payload(self) -> float:
        """Bytes of line time per payload byte: the headers."""
        return self.wire_per_packet_bytes / self.payload_per_packet_bytes

    def idle_latency_s(self, same_leaf: Any) -> Any:
        """Time of one packet through idle links and store-and-forward switches.

        Parameters
        ----------
        same_leaf : bool or array of bool
            True for hosts of one leaf.

        Returns
        -------
        float or array [s]

        Notes
        -----
        links x link latency + switches x (switch latency + packet / link rate): 2 links and 1 switch on one leaf, 4 links and 3
        switches from leaf to spine to leaf.
        """
        packet_s = self.wire_per_packet_bytes / self.link_bytes_per_s
        within_leaf = 2 * self.link_latency_s + 1 * (self.switch_latency_s + packet_s)
        across_leaves = 4 * self.link_latency_s + 3 * (self.switch_latency_s + packet_s)
        return np.where(same_leaf, within_leaf, across_leaves)


def node_cables(
    pools: Sequence[NodePool],
    gpus_per_node: Sequence[int],
    fabric: Fabric,
) -> Cables:
    """Cable nodes with their fabric; edges have a `capacity` [bytes/s], a `kind` and a `resource`.

    InfeasibleError where several nodes have no NIC, or more nodes than a rail-only leaf has ports.
    """
    shown = [
        f"{pool.num_nodes} x {gpus} {pool.hardware.title}"
        for pool, gpus in zip(pools, gpus_per_node, strict=True)
    ]
    cables = Cables(f"{' and '.join(shown)}, {fabric.kind}")
    num_nodes = sum(pool.num_nodes for pool in pools)
    for pool, gpus in zip(pools, gpus_per_node, strict=True):
        _add_nodes(cables, pool, gpus)
        if pool.hardware.nic is not None and fabric.kind != "scale_up":
            _add_nics(cables, pool)
        elif num_nodes > 1:
            raise InfeasibleError(
                f"{pool.hardware.name} has no NIC, so {num_nodes} nodes cannot reach each other"
            )
    if any(data["kind"] == "nic" for data in cables.nodes.values()):
        _FABRICS[fabric.kind](cables, pools, fabric)
    return cables


def host_cables(spec: LeafSpine) -> Cables:
    """Cable bare hosts with leaves, and leaves with spines."""
    cables = Cables(f"{spec.hosts} hosts, {spec.spines} spines")
    num_leaves = -(-spec.hosts // spec.hosts_per_leaf)
    for leaf in range(num_leaves):
        cables.add_node(f"leaf{leaf}", kind="leaf", rail=0, pod=leaf)
    for host in range(spec.hosts):
        name = f"host{host}"
        cables.add_node(name, kind="nic", node=host, rail=0, rate=spec.link_bytes_per_s)
        _plug(cables, name, f"leaf{host // spec.hosts_per_leaf}")
    for leaf in range(num_leaves):
        for s in range(spec.spines):
            cables.add_node(f"spine{s}", kind="spine", pod=NONE)
            _uplink(cables, f"leaf{leaf}", f"spine{s}", spec.link_bytes_per_s, spec.routing == "adaptive")
    return cables


def _duplex(cables: Cables, a: str, b: str, rate: float, kind: str, forth: str, back: str) -> None:
    cables.add_edge(a, b, capacity=rate, kind=kind, resource=forth)
    cables.add_edge(b, a, capacity=rate, kind=kind, resource=back)


def _add_nodes(cables: Cables, pool: NodePool, gpus_per_node: int) -> None:
    gpu = pool.hardware.gpu
    for node in range(pool.first_node, pool.first_node + pool.num_nodes):
        switch = f"node{node}/nvswitch"
        cables.add_node(switch, kind="nvswitch", node=node)
        for i in range(gpus_per_node):
            name = f"node{node}/gpu{i}"
            cables.add_node(
                name,
                kind="gpu",
                node=node,
                rail=i,
                owns={"hbm": gpu.hbm.bandwidth_bytes_per_s, "copy_sms": 1.0},
            )
            rate = gpu.scale_up.bandwidth_bytes_per_s
            if gpu.scale_up.over_pcie:
                _duplex(cables, name, switch, rate, "pcie", f"{name}/pcie/tx", f"{name}/pcie/rx")
            else:
                _duplex(
                    cables,
                    name,
                    switch,
                    rate,
                    "scale_up",
                    f"{name}/scale_up/egress",
                    f"{name}/scale_up/ingress",
                )


def _add_nics(cables: Cables, pool: NodePool) -> None:
    hardware = pool.hardware
    nics, shared = hardware.nics_per_node, hardware.gpus_per_nic
    for node in range(pool.first_node, pool.first_node + pool.num_nodes):
        for i in range(nics):
            nic = f"node{node}/nic{i}"
            cables.add_node(nic, kind="nic", node=node, rail=i, rate=hardware.nic_bytes_per_s)
            for gpu in (f"node{node}/gpu{g}" for g in range(i * shared, (i + 1) * shared)):
                if hardware.gpu.scale_up.over_pcie:
                    cables.add_edge(gpu, nic, kind="pcie", resource=f"{gpu}/pcie/tx", capacity=0.0)
                    cables.add_edge(nic, gpu, kind="pcie", resource=f"{gpu}/pcie/rx", capacity=0.0)
                elif hardware.gpu.pcie is not None:
                    pcie = hardware.gpu.pcie.bandwidth_bytes_per_s
                    _duplex(cables, gpu, nic, pcie, "pcie", f"{gpu}/pcie/tx", f"{gpu}/pcie/rx")


def _plug(cables: Cables, nic: str, leaf: str) -> None:
    _duplex(cables, nic, leaf, cables.nodes[nic]["rate"], "nic", f"{nic}/tx", f"{nic}/rx")


def _uplink(cables: Cables, low: str, high: str, rate: float, pooled: bool) -> None:
    forth = f"{low}/up" if pooled else f"{low}->{high}"
    back = f"{low}/down" if pooled else f"{high}->{low}"
    _duplex(cables, low, high, rate, "leaf_uplink", forth, back)


def _leaves(
    cables: Cables, pools: Sequence[NodePool], fabric: Fabric, prefix: str
) -> Iterator[tuple[int, int, str]]:
    """Make the leaf of each (rail, pod), plug its NICs in, and yield (rail, pod, name)."""
    for rail in range(max(pool.hardware.nics_per_node for pool in pools)):
        for pod, nodes in _pods(pools, fabric):
            nics = [nic for node in nodes if (nic := f"node{node}/nic{rail}") in cables]
            leaf = f"{prefix}{rail}/leaf{pod}"
            if nics:
                cables.add_node(leaf, kind="leaf", rail=rail, pod=pod)
                for nic in nics:
                    _plug(cables, nic, leaf)
                yield rail, pod, leaf


def _pods(pools: Sequence[NodePool], fabric: Fabric) -> Iterator[tuple[int, range]]:
    """Yield each pod with the nodes that share its leaves."""
    num_nodes = sum(pool.num_nodes for pool in pools)
    for pod, first in enumerate(range(0, num_nodes, fabric.nodes_per_leaf)):
        yield pod, range(first, min(first + fabric.nodes_per_leaf, num_nodes))


def num_uplinks(fabric: Fabric) -> int:
    """Cables from a leaf to the spines."""
    return max(1, round(fabric.nodes_per_leaf * fabric.nics_on_leaf / fabric.oversubscription))


def _uplink_rate(cables: Cables, leaf: str, fabric: Fabric) -> float:
    """Rate of one uplink of a leaf [bytes/s]."""
    nics = [data["rate"] for nic in cables.ends[leaf] if (data := cables.nodes[nic])["kind"] == "nic"]
    nic_bytes_per_s = fsum(nics) / len(nics)
    nics_bytes_per_s = fabric.nodes_per_leaf * fabric.nics_on_leaf * nic_bytes_per_s
    return nics_bytes_per_s / fabric.oversubscription / num_uplinks(fabric)


def _rail_optimized(cables: Cables, pools: Sequence[NodePool], fabric: Fabric) -> None:
    pooled = fabric.routing == "adaptive"
    spines = [f"spine{s}" for s in range(num_uplinks(fabric))]
    cables.add_nodes(spines, kind="spine", pod=NONE)
    for _, _, leaf in list(_leaves(cables, pools, fabric, "rail")):
        rate = _uplink_rate(cables, leaf, fabric)
        for spine in spines:
            _uplink(cables, leaf, spine, rate, pooled)


def _multi_plane(cables: Cables, pools: Sequence[NodePool], fabric: Fabric) -> None:
    pooled = fabric.routing == "adaptive"
    leaves = list(_leaves(cables, pools, fabric, "plane"))
    if len(list(_pods(pools, fabric))) == 1:
        return
    for rail, _, leaf in leaves:
        rate = _uplink_rate(cables, leaf, fabric)
        for s in range(num_uplinks(fabric)):
            spine = f"plane{rail}/spine{s}"
            cables.add_node(spine, kind="spine", rail=rail, pod=NONE)
            _uplink(cables, leaf, spine, rate, pooled)


def _rail_only(cables: Cables, pools: Sequence[NodePool], fabric: Fabric) -> None:
    num_nodes = sum(pool.num_nodes for pool in pools)
    if num_nodes > fabric.nodes_per_leaf:
        raise InfeasibleError(
            f"a rail-only fabric joins at most nodes_per_leaf = {fabric.nodes_per_leaf} nodes, and {num_nodes} are asked for"
        )
    list(_leaves(cables, pools, fabric, "rail"))


def _fat_tree(cables: Cables, pools: Sequence[NodePool], fabric: Fabric) -> None:
    pooled = fabric.routing == "adaptive"
    nics = max(pool.hardware.nics_per_node for pool in pools)
    spines = [f"spine{s}" for s in range(num_uplinks(fabric))]
    cables.add_nodes(spines, kind="spine", pod=NONE)
    for pod, nodes in _pods(pools, fabric):
        leaf = f"leaf{pod}"
        cables.add_node(leaf, kind="leaf", rail=NONE, pod=pod)
        for nic in (f"node{node}/nic{i}" for node in nodes for i in range(nics)):
            if nic in cables:
                _plug(cables, nic, leaf)
        rate = _uplink_rate(cables, leaf, fabric)
        for spine in spines:
            _uplink(cables, leaf, spine, rate, pooled)


def _three_tier(cables: Cables, pools: Sequence[NodePool], fabric: Fabric) -> None:
    pooled = fabric.routing == "adaptive"
    pods: dict[int, float] = {}  # pod -> rate of an uplink of each of its leaves, together
    for _, pod, leaf in list(_leaves(cables, pools, fabric, "rail")):
        rate = _uplink_rate(cables, leaf, fabric)
        pods[pod] = pods.get(pod, 0.0) + rate
        for s in range(num_uplinks(fabric)):
            spine = f"pod{pod}/spine{s}"
            cables.add_node(spine, kind="spine", pod=pod)
            _uplink(cables, leaf, spine, rate, pooled)
    if len(pods) < 2:
        return
    for pod in sorted(pods):
        for s in range(num_uplinks(fabric)):
            core = f"core{s}"
            cables.add_node(core, kind="core")
            up_rate = pods[pod] / fabric.oversubscription
            _duplex(
                cables, f"pod{pod}/spine{s}", core, up_rate, "leaf_uplink", f"pod{pod}/up", f"pod{pod}/down"
            )


_FABRICS: dict[str, Callable[[Cables, Sequence[NodePool], Fabric], None]] = {
    "rail_optimized": _rail_optimized,
    "multi_plane": _multi_plane,
    "rail_only": _rail_only,
    "fat_tree": _fat_tree,
    "three_tier": _three_tier,
}
