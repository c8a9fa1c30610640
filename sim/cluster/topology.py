"""The cluster as a graph of metal and cables, and the arrays the engine reads from it.

A networkx graph holds GPUs, the scale-up switch of each node, NICs, leaves, spines and cores; every directed edge has a
`capacity` [bytes/s], a `kind` and the `resource` it belongs to. `compile_cluster` turns that graph once into arrays:
one row per resource, and for each GPU the rows of the cables and memories it owns.

Why resources and not edges: with adaptive routing a leaf sprays packets over all its uplinks, so the uplinks are *one*
pooled resource; with ECMP or static routing each uplink is its own. The graph is the same, only the names differ.

Fabrics (Table 3 and section 5 of the ISCA'25 DeepSeek-V3 paper, arXiv 2505.09343):

- `rail_optimized`: NIC r of each node of a pod meets at the leaf of rail r; all leaves meet at the spines.
- `multi_plane`: each rail is a fabric of its own; no cable joins two planes, NVLink does.
- `rail_only`: as multi_plane, one leaf per rail and no spines.
- `three_tier`: rail_optimized pods, joined by cores.
- `scale_up`: all GPUs in one scale-up domain, no NIC used.
- `leaf_spine`: bare hosts (see `build_leaf_spine`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import networkx as nx
import numpy as np
import numpy.typing as npt

from sim.errors import InfeasibleError

if TYPE_CHECKING:
    from sim.cluster.hardware import Hardware

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
FabricKind = Literal["rail_optimized", "multi_plane", "three_tier", "rail_only", "scale_up"]
Routing = Literal["adaptive", "ecmp", "static"]

CLASSES = ("nic", "scale_up", "leaf_uplink", "pcie", "copy_sms", "hbm")
"""Resource classes, in the words of the `binding` metric (spine uplinks count as `leaf_uplink`)."""

NONE = -1


@dataclass(frozen=True, slots=True)
class Fabric:
    """What a scenario says of the scale-out fabric."""

    kind: FabricKind = "rail_optimized"
    routing: Routing = "adaptive"
    oversubscription: float = 1.0
    nodes_per_leaf: int = 32


@dataclass(frozen=True, slots=True)
class LinkFault:
    """A NIC (or a whole rail, where `node` is None) at another rate; 0 bytes/s is dead."""

    nic_idx: int
    bandwidth_bytes_per_s: float
    node: int | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """The compiled cluster. GPUs are numbered `node * gpus_per_node + index`; arrays hold resource rows, -1 = none."""

    num_nodes: int
    gpus_per_node: int
    fabric: Fabric
    graph: nx.DiGraph[str]
    names: tuple[str, ...]  # [num_resources]
    class_idx: Ints  # [num_resources], index into CLASSES
    capacity: Floats  # [num_resources], bytes/s (copy_sms: SMs)
    egress: Ints  # [num_gpus]
    ingress: Ints
    pcie_tx: Ints
    pcie_rx: Ints
    hbm: Ints
    copy_sms: Ints
    nic_tx: Ints
    nic_rx: Ints
    leaf: Ints  # [num_gpus], the leaf that the NIC is cabled to
    pod_of_leaf: Ints  # [num_leaves]
    up: Ints  # [num_leaves, num_uplinks]; one column where uplinks are pooled
    down: Ints  # [num_leaves, num_uplinks]
    pod_up: Ints  # [num_pods], three_tier only
    pod_down: Ints
    planes_joined: bool  # whether cables lead from one rail to another
    same_leaf_latency_s: float
    cross_leaf_latency_s: float

    @property
    def num_gpus(self) -> int:
        """All GPUs (hosts, on a bare fabric)."""
        return self.num_nodes * self.gpus_per_node

    @property
    def nic_alive(self) -> npt.NDArray[np.bool_]:
        """Whether the GPU's NIC has any bandwidth, [num_gpus]."""
        usable = (self.nic_tx >= 0) & (self.nic_rx >= 0)
        return np.asarray(usable & (self.capacity[self.nic_tx] > 0) & (self.capacity[self.nic_rx] > 0))

    def row(self, name: str) -> int:
        """The row of a resource by its name, e.g. `node3/gpu5/scale_up/egress`."""
        return self.names.index(name)


def build(
    hardware: Hardware, num_nodes: int, fabric: Fabric, faults: Sequence[LinkFault] = (), comm_sms: int = 0
) -> Cluster:
    """Cable `num_nodes` nodes of `hardware` with `fabric`; `comm_sms` SMs of each GPU are lent to communication."""
    gpus_per_node = hardware.gpu.scale_up.domain
    if fabric.kind == "scale_up":
        num_nodes, gpus_per_node = 1, num_nodes * gpus_per_node
    graph: nx.DiGraph[str] = nx.DiGraph(
        title=f"{num_nodes} x {gpus_per_node} {hardware.title}, {fabric.kind}"
    )
    _add_nodes(graph, hardware, num_nodes, gpus_per_node, comm_sms)
    if hardware.nic is not None and fabric.kind != "scale_up" and num_nodes >= 1:
        _add_nics(graph, hardware, num_nodes, gpus_per_node, faults)
        _FABRICS[fabric.kind](graph, hardware, num_nodes, gpus_per_node, fabric)
    elif num_nodes > 1:
        raise InfeasibleError(f"{hardware.name} has no NIC, so {num_nodes} nodes cannot reach each other")
    return compile_cluster(
        graph,
        num_nodes,
        gpus_per_node,
        fabric,
        latencies_s=(hardware.fabric.same_leaf_latency_s, hardware.fabric.cross_leaf_latency_s),
    )


def _duplex(graph: nx.DiGraph[str], a: str, b: str, rate: float, kind: str, forth: str, back: str) -> None:
    graph.add_edge(a, b, capacity=rate, kind=kind, resource=forth)
    graph.add_edge(b, a, capacity=rate, kind=kind, resource=back)


def _add_nodes(
    graph: nx.DiGraph[str], hardware: Hardware, num_nodes: int, gpus_per_node: int, comm_sms: int
) -> None:
    gpu = hardware.gpu
    for node in range(num_nodes):
        switch = f"node{node}/nvswitch"
        graph.add_node(switch, kind="nvswitch", node=node)
        for i in range(gpus_per_node):
            name = f"node{node}/gpu{i}"
            graph.add_node(
                name,
                kind="gpu",
                node=node,
                rail=i,
                owns={"hbm": gpu.hbm.bandwidth_bytes_per_s, "copy_sms": float(comm_sms)},
            )
            _duplex(
                graph,
                name,
                switch,
                gpu.scale_up.bandwidth_bytes_per_s,
                "scale_up",
                f"{name}/scale_up/egress",
                f"{name}/scale_up/ingress",
            )


def _add_nics(
    graph: nx.DiGraph[str],
    hardware: Hardware,
    num_nodes: int,
    gpus_per_node: int,
    faults: Sequence[LinkFault],
) -> None:
    assert hardware.nic is not None
    healthy = hardware.nic.bandwidth_bytes_per_s * hardware.nic.per_gpu
    rate = np.full((num_nodes, gpus_per_node), healthy)
    for fault in faults:
        rate[slice(None) if fault.node is None else fault.node, fault.nic_idx] = fault.bandwidth_bytes_per_s
    for node in range(num_nodes):
        for i in range(gpus_per_node):
            gpu, nic = f"node{node}/gpu{i}", f"node{node}/nic{i}"
            graph.add_node(nic, kind="nic", node=node, rail=i, rate=float(rate[node, i]))
            if hardware.gpu.pcie is not None:
                pcie = hardware.gpu.pcie.bandwidth_bytes_per_s
                _duplex(graph, gpu, nic, pcie, "pcie", f"{gpu}/pcie/tx", f"{gpu}/pcie/rx")


def _plug(graph: nx.DiGraph[str], nic: str, leaf: str) -> None:
    _duplex(graph, nic, leaf, graph.nodes[nic]["rate"], "nic", f"{nic}/tx", f"{nic}/rx")


def _uplink(graph: nx.DiGraph[str], low: str, high: str, rate: float, pooled: bool) -> None:
    forth = f"{low}/up" if pooled else f"{low}->{high}"
    back = f"{low}/down" if pooled else f"{high}->{low}"
    _duplex(graph, low, high, rate, "leaf_uplink", forth, back)


def _leaves(
    graph: nx.DiGraph[str], num_nodes: int, gpus_per_node: int, fabric: Fabric, prefix: str
) -> Iterator[tuple[int, int, str]]:
    """Make the leaf of each (rail, pod), plug its NICs in, and yield (rail, pod, name)."""
    for rail in range(gpus_per_node):
        for pod, first in enumerate(range(0, num_nodes, fabric.nodes_per_leaf)):
            leaf = f"{prefix}{rail}/leaf{pod}"
            graph.add_node(leaf, kind="leaf", rail=rail, pod=pod)
            for node in range(first, min(first + fabric.nodes_per_leaf, num_nodes)):
                _plug(graph, f"node{node}/nic{rail}", leaf)
            yield rail, pod, leaf


def _num_uplinks(fabric: Fabric) -> int:
    return max(1, round(fabric.nodes_per_leaf / fabric.oversubscription))


def _uplink_rate(hardware: Hardware, fabric: Fabric) -> float:
    """Rate of one uplink [bytes/s], so that they add up to `nodes_per_leaf` NICs over the oversubscription."""
    assert hardware.nic is not None
    nic = hardware.nic.bandwidth_bytes_per_s * hardware.nic.per_gpu
    return fabric.nodes_per_leaf * nic / fabric.oversubscription / _num_uplinks(fabric)


def _rail_optimized(
    graph: nx.DiGraph[str], hardware: Hardware, num_nodes: int, gpus_per_node: int, fabric: Fabric
) -> None:
    rate, pooled = _uplink_rate(hardware, fabric), fabric.routing == "adaptive"
    spines = [f"spine{s}" for s in range(_num_uplinks(fabric))]
    graph.add_nodes_from(spines, kind="spine", pod=NONE)
    for _, _, leaf in list(_leaves(graph, num_nodes, gpus_per_node, fabric, "rail")):
        for spine in spines:
            _uplink(graph, leaf, spine, rate, pooled)


def _multi_plane(
    graph: nx.DiGraph[str], hardware: Hardware, num_nodes: int, gpus_per_node: int, fabric: Fabric
) -> None:
    rate, pooled = _uplink_rate(hardware, fabric), fabric.routing == "adaptive"
    leaves = list(_leaves(graph, num_nodes, gpus_per_node, fabric, "plane"))
    if num_nodes <= fabric.nodes_per_leaf:
        return
    for rail, _, leaf in leaves:
        for s in range(_num_uplinks(fabric)):
            spine = f"plane{rail}/spine{s}"
            graph.add_node(spine, kind="spine", rail=rail, pod=NONE)
            _uplink(graph, leaf, spine, rate, pooled)


def _rail_only(
    graph: nx.DiGraph[str], hardware: Hardware, num_nodes: int, gpus_per_node: int, fabric: Fabric
) -> None:
    if num_nodes > fabric.nodes_per_leaf:
        raise InfeasibleError(
            f"a rail-only fabric joins at most nodes_per_leaf = {fabric.nodes_per_leaf} nodes, and {num_nodes} are asked for"
        )
    list(_leaves(graph, num_nodes, gpus_per_node, fabric, "rail"))


def _three_tier(
    graph: nx.DiGraph[str], hardware: Hardware, num_nodes: int, gpus_per_node: int, fabric: Fabric
) -> None:
    rate, pooled = _uplink_rate(hardware, fabric), fabric.routing == "adaptive"
    pods: set[int] = set()
    for _, pod, leaf in list(_leaves(graph, num_nodes, gpus_per_node, fabric, "rail")):
        pods.add(pod)
        for s in range(_num_uplinks(fabric)):
            spine = f"pod{pod}/spine{s}"
            graph.add_node(spine, kind="spine", pod=pod)
            _uplink(graph, leaf, spine, rate, pooled)
    if len(pods) < 2:
        return
    for pod in sorted(pods):
        for s in range(_num_uplinks(fabric)):
            core = f"core{s}"
            graph.add_node(core, kind="core")
            up_rate = rate * gpus_per_node / fabric.oversubscription
            _duplex(
                graph, f"pod{pod}/spine{s}", core, up_rate, "leaf_uplink", f"pod{pod}/up", f"pod{pod}/down"
            )


_FABRICS: dict[str, Callable[[nx.DiGraph[str], Any, int, int, Fabric], None]] = {
    "rail_optimized": _rail_optimized,
    "multi_plane": _multi_plane,
    "rail_only": _rail_only,
    "three_tier": _three_tier,
}


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
        """Time of one packet through idle links and store-and-forward switches [s], 1 leaf or leaf-spine-leaf."""
        packet_s = self.wire_per_packet_bytes / self.link_bytes_per_s
        one = 2 * self.link_latency_s + 1 * (self.switch_latency_s + packet_s)
        three = 4 * self.link_latency_s + 3 * (self.switch_latency_s + packet_s)
        return np.where(same_leaf, one, three)


def build_leaf_spine(spec: LeafSpine) -> Cluster:
    """Bare hosts on leaves, leaves on spines; a host counts as a node with one NIC and nothing else."""
    graph: nx.DiGraph[str] = nx.DiGraph(title=f"{spec.hosts} hosts, {spec.spines} spines")
    num_leaves = -(-spec.hosts // spec.hosts_per_leaf)
    for leaf in range(num_leaves):
        graph.add_node(f"leaf{leaf}", kind="leaf", rail=0, pod=leaf)
    for host in range(spec.hosts):
        name = f"host{host}"
        graph.add_node(name, kind="nic", node=host, rail=0, rate=spec.link_bytes_per_s)
        _plug(graph, name, f"leaf{host // spec.hosts_per_leaf}")
    for leaf in range(num_leaves):
        for s in range(spec.spines):
            graph.add_node(f"spine{s}", kind="spine", pod=NONE)
            _uplink(graph, f"leaf{leaf}", f"spine{s}", spec.link_bytes_per_s, spec.routing == "adaptive")
    fabric = Fabric(kind="rail_optimized", routing=spec.routing, nodes_per_leaf=spec.hosts_per_leaf)
    return compile_cluster(graph, spec.hosts, 1, fabric, latencies_s=(0.0, 0.0), prefix="host")


def compile_cluster(
    graph: nx.DiGraph[str],
    num_nodes: int,
    gpus_per_node: int,
    fabric: Fabric,
    latencies_s: tuple[float, float],
    prefix: str = "node",
) -> Cluster:
    """Read the graph once into arrays. Edges of one `resource` add their capacities."""
    capacity: dict[str, float] = {}
    kind: dict[str, str] = {}
    for _, _, edge in graph.edges(data=True):
        capacity[edge["resource"]] = capacity.get(edge["resource"], 0.0) + edge["capacity"]
        kind[edge["resource"]] = edge["kind"]
    for name, owner in graph.nodes(data=True):
        for what, amount in owner.get("owns", {}).items():
            capacity[f"{name}/{what}"], kind[f"{name}/{what}"] = amount, what
    row = {name: i for i, name in enumerate(capacity)}
    places = [(node, i) for node in range(num_nodes) for i in range(gpus_per_node)]

    def rows(pattern: str) -> Ints:
        return np.array([row.get(pattern.format(n=n, i=i), NONE) for n, i in places], dtype=np.int64)

    nic = "host{n}" if prefix == "host" else "node{n}/nic{i}"
    leaves = [name for name, data in graph.nodes(data=True) if data["kind"] == "leaf"]
    leaf_idx = {name: i for i, name in enumerate(leaves)}
    leaf_of = np.full(len(places), NONE, dtype=np.int64)
    for g, (n, i) in enumerate(places):
        name = nic.format(n=n, i=i)
        if name in graph:
            leaf_of[g] = leaf_idx[next(peer for peer in graph.successors(name) if peer in leaf_idx)]
    up, down = _uplink_tables(graph, leaves, row)
    pods = sorted({graph.nodes[leaf]["pod"] for leaf in leaves})
    return Cluster(
        num_nodes=num_nodes,
        gpus_per_node=gpus_per_node,
        fabric=fabric,
        graph=graph,
        names=tuple(capacity),
        class_idx=np.array([CLASSES.index(kind[name]) for name in capacity], dtype=np.int64),
        capacity=np.array(list(capacity.values())),
        egress=rows("node{n}/gpu{i}/scale_up/egress"),
        ingress=rows("node{n}/gpu{i}/scale_up/ingress"),
        pcie_tx=rows("node{n}/gpu{i}/pcie/tx"),
        pcie_rx=rows("node{n}/gpu{i}/pcie/rx"),
        hbm=rows("node{n}/gpu{i}/hbm"),
        copy_sms=rows("node{n}/gpu{i}/copy_sms"),
        nic_tx=rows(nic + "/tx"),
        nic_rx=rows(nic + "/rx"),
        leaf=leaf_of,
        pod_of_leaf=np.array([graph.nodes[leaf]["pod"] for leaf in leaves], dtype=np.int64),
        up=up,
        down=down,
        pod_up=np.array([row.get(f"pod{p}/up", NONE) for p in pods], dtype=np.int64),
        pod_down=np.array([row.get(f"pod{p}/down", NONE) for p in pods], dtype=np.int64),
        planes_joined=fabric.kind not in ("multi_plane", "rail_only"),
        same_leaf_latency_s=latencies_s[0],
        cross_leaf_latency_s=latencies_s[1],
    )


def _uplink_tables(graph: nx.DiGraph[str], leaves: list[str], row: dict[str, int]) -> tuple[Ints, Ints]:
    """Rows of each leaf's uplinks and downlinks, [num_leaves, num_uplinks] (one column where pooled)."""
    spines = {
        leaf: [peer for peer in graph.successors(leaf) if graph.nodes[peer]["kind"] == "spine"]
        for leaf in leaves
    }
    ups = [
        list(dict.fromkeys(row[graph.edges[leaf, s]["resource"]] for s in spines[leaf])) for leaf in leaves
    ]
    downs = [
        list(dict.fromkeys(row[graph.edges[s, leaf]["resource"]] for s in spines[leaf])) for leaf in leaves
    ]
    return np.array(ups, dtype=np.int64), np.array(downs, dtype=np.int64)
