"""The cluster, compiled: the cables of `fabrics` read once into the arrays that the engine uses.

One row per resource, and for each GPU the rows of the cables and memories it owns. The cables stay next to them, to be asked
for as a networkx graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sim.cluster import fabrics
from sim.cluster.cables import Cables
from sim.cluster.fabrics import NONE, Fabric, FabricKind, LeafSpine, NodePool, Routing
from sim.cluster.faults import Fault, Window, changes_s, lowered
from sim.cluster.nics import MEASURED_ON, NicReach, worst_reach
from sim.errors import InfeasibleError

if TYPE_CHECKING:
    import networkx as nx

    from sim.cluster.hardware import Hardware

__all__ = [
    "CLASSES", "NONE", "Cluster", "Fabric", "FabricKind", "Fault", "Floats", "Ints", "LeafSpine", "NodePool", "Routing",
    "build", "build_leaf_spine", "build_pools", "compile_cluster", "joined",
]  # fmt: skip

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_OF_GPUS = ("egress", "ingress", "pcie_tx", "pcie_rx", "hbm", "copy_sms", "nic_tx", "nic_rx", "leaf")
CLASSES = ("nic", "scale_up", "leaf_uplink", "pcie", "copy_sms", "hbm")
"""Resource classes, in the words of the `binding` metric (spine uplinks count as `leaf_uplink`)."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The compiled cluster. GPUs are numbered `node * gpus_per_node + index`; arrays hold resource rows, -1 = none."""

    num_nodes: int
    gpus_per_node: int
    fabric: Fabric
    cables: Cables
    names: tuple[str, ...]  # [num_resources]
    class_idx: Ints  # [num_resources], index into CLASSES
    capacity: (
        Floats  # [num_resources], bytes/s (copy_sms: 1, the SMs that a collective has of a GPU, together)
    )
    egress: Ints  # [num_gpus]
    ingress: Ints
    pcie_tx: Ints
    pcie_rx: Ints
    hbm: Ints
    copy_sms: Ints
    nic_tx: Ints
    nic_rx: Ints
    leaf: Ints  # [num_gpus], the leaf that the GPU's NIC is cabled to
    pod_of_leaf: Ints  # [num_leaves]
    up: Ints  # [num_leaves, num_uplinks]; one column where uplinks are pooled
    down: Ints  # [num_leaves, num_uplinks]
    pod_up: Ints  # [num_pods], three_tier only
    pod_down: Ints
    planes_joined: bool  # whether cables lead from one rail to another
    same_leaf_latency_s: float
    cross_leaf_latency_s: float
    scale_up_latency_s: float
    gpus_per_nic: int = 1  # GPUs in a row that share a NIC
    nic_reach: NicReach = MEASURED_ON
    windows: tuple[Window, ...] = ()  # faults between two instants

    nic_rate: Floats = field(init=False, repr=False)
    """Rate of each GPU's NIC in its slower direction, 0 without a NIC, [num_gpus] [bytes/s]."""
    numbers: Ints = field(init=False, repr=False)
    """Each GPU's own number, [num_gpus]."""
    nic_alive: npt.NDArray[np.bool_] = field(init=False, repr=False)
    """True for GPUs whose NIC has any bandwidth, [num_gpus]."""

    def __post_init__(self) -> None:
        usable = (self.nic_tx != NONE) & (self.nic_rx != NONE)
        slower = np.minimum(self.capacity[self.nic_tx], self.capacity[self.nic_rx])
        object.__setattr__(self, "nic_rate", np.where(usable, slower, 0.0))
        object.__setattr__(self, "nic_alive", self.nic_rate > 0)
        object.__setattr__(self, "numbers", np.arange(self.num_gpus))
        self.numbers.setflags(write=False)

    @property
    def graph(self) -> nx.DiGraph[str]:
        """The cables as a graph, made anew each time."""
        return self.cables.graph()

    @property
    def instants(self) -> Floats:
        """Instants at which capacities change, rising [s]."""
        return np.array(changes_s(self.windows))

    def capacity_at(self, time_s: float) -> Floats:
        """Capacities from an instant on, until the next of `instants`, [num_resources]."""
        capacity = self.capacity
        for window in self.windows:
            if window.from_s <= time_s < window.until_s:
                capacity = capacity.copy()
                capacity[window.rows] = np.minimum(capacity[window.rows], window.capacity)
        return capacity

    @property
    def num_gpus(self) -> int:
        """All GPUs (hosts, on a bare fabric)."""
        return self.num_nodes * self.gpus_per_node

    def row(self, name: str) -> int:
        """The row of a resource by its name, e.g. `node3/gpu5/scale_up/egress`."""
        return self.names.index(name)


def build(hardware: Hardware, num_nodes: int, fabric: Fabric, faults: Sequence[Fault] = ()) -> Cluster:
    """Cable nodes of some hardware with a fabric.

    Parameters
    ----------
    hardware : Hardware
    num_nodes : int [count]
        Nodes, each one scale-up domain of the hardware.
    fabric : Fabric
    faults : sequence of Fault
        Nodes are those of the hardware, whatever joins their GPUs.

    Returns
    -------
    Cluster
        With `scale_up` as the kind of fabric, all GPUs are one node.

    Raises
    ------
    InfeasibleError
        Where the fabric cannot join so many nodes.

    References
    ----------
    Fabrics: Table 3 and section 5 of "Insights into DeepSeek-V3", ISCA 2025, arXiv 2505.09343.

    Examples
    --------
    >>> from sim.cluster.hardware import load_hardware
    >>> cluster = build(load_hardware("h800"), 2, Fabric())
    >>> cluster.num_gpus
    16
    >>> float(cluster.capacity[cluster.nic_tx[0]]) / 1e9  # one NIC of 400 Gb/s a GPU
    50.0
    """
    healthy = _healthy(hardware, num_nodes, fabric)
    return lowered(healthy, faults, hardware.gpu.scale_up.domain) if faults else healthy


@lru_cache(maxsize=6)  # points of a sweep differ in more than their machines
def _healthy(hardware: Hardware, num_nodes: int, fabric: Fabric) -> Cluster:
    return build_pools([NodePool(hardware, num_nodes)], fabric)[0]


def build_pools(
    pools: Sequence[NodePool], fabric: Fabric, faults: Sequence[Sequence[Fault]] = ()
) -> list[Cluster]:
    """Cable pools of nodes with one fabric that joins all NICs, each at its own rate; faults of a pool count its own nodes.

    One cluster as each pool sees it: resources are those of all, nodes and GPUs its own. InfeasibleError where
    the fabric cannot join so many nodes.
    """
    joined = fabric.kind == "scale_up" and len(pools) == 1
    domains = [pool.hardware.gpu.scale_up.domain for pool in pools]
    nodes = [
        (1, pool.num_nodes * n) if joined else (pool.num_nodes, n)
        for pool, n in zip(pools, domains, strict=True)
    ]
    drawn = [replace(pool, num_nodes=num) for pool, (num, _) in zip(pools, nodes, strict=True)]
    cables = fabrics.node_cables(drawn, [gpus for _, gpus in nodes], fabric)
    views = [
        compile_cluster(
            cables,
            num,
            gpus,
            fabric,
            latencies_s=(
                pool.hardware.fabric.same_leaf_latency_s,
                pool.hardware.fabric.cross_leaf_latency_s,
                pool.hardware.gpu.scale_up.latency_s,
            ),
            gpus_per_nic=pool.hardware.gpus_per_nic,
            nic_reach=pool.hardware.nic_reach,
            first_node=pool.first_node,
        )
        for pool, (num, gpus) in zip(pools, nodes, strict=True)
    ]
    if not any(faults):
        return views
    worse = [lowered(*own) for own in zip(views, faults, domains, strict=True)]
    capacity = np.min([view.capacity for view in worse], axis=0)
    windows = tuple(window for view in worse for window in view.windows)
    return [replace(view, capacity=capacity, windows=windows) for view in views]


def joined(pools: Sequence[Cluster]) -> Cluster:
    """See pools as one cluster, for what is sent from one to another.

    Parameters
    ----------
    pools : sequence of Cluster
        As `build_pools` makes them, one after the other.

    Returns
    -------
    Cluster
        GPUs are numbered `node * gpus_per_node + index` through all pools, by the node that has most; rows of those that a
        node lacks are `NONE`. Latencies and the reach of NICs are the worst of all pools.

    Raises
    ------
    InfeasibleError
        Where nodes are unlike and no cable joins their rails.
    """
    first, per_node = pools[0], max(pool.gpus_per_node for pool in pools)
    shapes = {(pool.gpus_per_node, pool.gpus_per_nic) for pool in pools}
    if len(shapes) > 1 and not first.planes_joined:
        raise InfeasibleError(
            f"no cable joins the rails of this {first.fabric.kind} fabric, and its pools have nodes with unlike GPUs or NICs"
        )

    def rows(name: str) -> Ints:
        parts = []
        for pool in pools:
            whole = np.full((pool.num_nodes, per_node), NONE, dtype=np.int64)
            whole[:, : pool.gpus_per_node] = getattr(pool, name).reshape(pool.num_nodes, -1)
            parts.append(whole.ravel())
        return np.concatenate(parts)

    of_gpus: dict[str, Any] = {name: rows(name) for name in _OF_GPUS}
    return replace(
        first,
        num_nodes=sum(pool.num_nodes for pool in pools),
        gpus_per_node=per_node,
        **of_gpus,
        same_leaf_latency_s=max(pool.same_leaf_latency_s for pool in pools),
        cross_leaf_latency_s=max(pool.cross_leaf_latency_s for pool in pools),
        scale_up_latency_s=max(pool.scale_up_latency_s for pool in pools),
        gpus_per_nic=first.gpus_per_nic if len(shapes) == 1 else 1,
        nic_reach=worst_reach([pool.nic_reach for pool in pools]),
    )


def left_by_others(cluster: Cluster, left: Sequence[tuple[int, float]]) -> Cluster:
    """Lower the capacities of some resources, by row, to the part that other jobs leave of each."""
    if not left:
        return cluster
    part = np.ones(len(cluster.names))
    part[[row for row, _ in left]] = [fraction for _, fraction in left]
    windows = tuple(replace(own, capacity=own.capacity * part[own.rows]) for own in cluster.windows)
    return replace(cluster, capacity=cluster.capacity * part, windows=windows)


def build_leaf_spine(spec: LeafSpine, faults: Sequence[Fault] = ()) -> Cluster:
    """Cable bare hosts to leaves, and leaves to spines.

    Parameters
    ----------
    spec : LeafSpine
    faults : sequence of Fault
        Of nodes, which are hosts, leaves and links.

    Returns
    -------
    Cluster
        A host counts as a node with one NIC and nothing else.
    """
    fabric = Fabric(kind="rail_optimized", routing=spec.routing, nodes_per_leaf=spec.hosts_per_leaf)
    cables = fabrics.host_cables(spec)
    healthy = compile_cluster(cables, spec.hosts, 1, fabric, latencies_s=(0.0, 0.0, 0.0), prefix="host")
    return lowered(healthy, faults, 1) if faults else healthy


def compile_cluster(
    cables: Cables,
    num_nodes: int,
    gpus_per_node: int,
    fabric: Fabric,
    latencies_s: tuple[float, float, float],
    prefix: str = "node",
    gpus_per_nic: int = 1,
    nic_reach: NicReach = MEASURED_ON,
    first_node: int = 0,
) -> Cluster:
    """Read cables of `fabrics` once into arrays; those of one `resource` add their capacities.

    `latencies_s` are within a leaf, across leaves, and over scale-up; `prefix` is `node`, or `host` of bare
    hosts, and `first_node` the number of the first among the cables.
    """
    capacity: dict[str, float] = {}
    kind: dict[str, int] = {}
    number = {name: i for i, name in enumerate(CLASSES)}
    for edge in cables.edges():
        resource = edge["resource"]
        capacity[resource] = capacity.get(resource, 0.0) + edge["capacity"]
        kind[resource] = number[edge["kind"]]
    for name, owner in cables.nodes.items():
        for what, amount in owner.get("owns", {}).items():
            resource = f"{name}/{what}"
            capacity[resource], kind[resource] = amount, number[what]
    row = dict(zip(capacity, range(len(capacity)), strict=True))
    places = [(first_node + node, i) for node in range(num_nodes) for i in range(gpus_per_node)]

    bare = prefix == "host"
    gpu_names = [f"node{n}/gpu{i}" for n, i in places]
    nic_names = [f"host{n}" if bare else f"node{n}/nic{i // gpus_per_nic}" for n, i in places]

    def rows(owners: Sequence[str], what: str) -> Ints:
        return np.array([row.get(owner + what, NONE) for owner in owners], dtype=np.int64)

    egress, ingress = (rows(gpu_names, f"/scale_up/{way}") for way in ("egress", "ingress"))
    pcie_tx, pcie_rx = (rows(gpu_names, f"/pcie/{way}") for way in ("tx", "rx"))
    leaves = [name for name, data in cables.nodes.items() if data["kind"] == "leaf"]
    plugged = {peer: i for i, leaf in enumerate(leaves) for peer in cables.ends[leaf]}
    leaf_of = np.array([plugged.get(name, NONE) for name in nic_names], dtype=np.int64)
    up, down = _uplink_tables(cables, leaves, row)
    pods = sorted({cables.nodes[leaf]["pod"] for leaf in leaves})
    return Cluster(
        num_nodes=num_nodes,
        gpus_per_node=gpus_per_node,
        fabric=fabric,
        cables=cables,
        names=tuple(capacity),
        class_idx=np.fromiter(kind.values(), dtype=np.int64, count=len(kind)),
        capacity=np.fromiter(capacity.values(), dtype=np.float64, count=len(capacity)),
        egress=np.where(egress >= 0, egress, pcie_tx),
        ingress=np.where(ingress >= 0, ingress, pcie_rx),
        pcie_tx=pcie_tx,
        pcie_rx=pcie_rx,
        hbm=rows(gpu_names, "/hbm"),
        copy_sms=rows(gpu_names, "/copy_sms"),
        nic_tx=rows(nic_names, "/tx"),
        nic_rx=rows(nic_names, "/rx"),
        leaf=leaf_of,
        pod_of_leaf=np.array([cables.nodes[leaf]["pod"] for leaf in leaves], dtype=np.int64),
        up=up,
        down=down,
        pod_up=np.array([row.get(f"pod{p}/up", NONE) for p in pods], dtype=np.int64),
        pod_down=np.array([row.get(f"pod{p}/down", NONE) for p in pods], dtype=np.int64),
        planes_joined=fabric.kind not in ("multi_plane", "rail_only"),
        same_leaf_latency_s=latencies_s[0],
        cross_leaf_latency_s=latencies_s[1],
        scale_up_latency_s=latencies_s[2],
        gpus_per_nic=gpus_per_nic,
        nic_reach=nic_reach,
    )


def _uplink_tables(cables: Cables, leaves: list[str], row: dict[str, int]) -> tuple[Ints, Ints]:
    """Rows of each leaf's uplinks and downlinks, [num_leaves, num_uplinks] (one column where pooled)."""
    spines = {
        leaf: [peer for peer in cables.ends[leaf] if cables.nodes[peer]["kind"] == "spine"] for leaf in leaves
    }
    ups = [
        list(dict.fromkeys(row[cables.ends[leaf][s]["resource"]] for s in spines[leaf])) for leaf in leaves
    ]
    downs = [
        list(dict.fromkeys(row[cables.ends[s][leaf]["resource"]] for s in spines[leaf])) for leaf in leaves
    ]
    return np.array(ups, dtype=np.int64), np.array(downs, dtype=np.int64)
