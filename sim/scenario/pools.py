"""Pools of a cluster: nodes of unlike hardware that one fabric joins, as a job of one of them sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from sim.cluster import topology
from sim.cluster.fabrics import NodePool
from sim.cluster.faults import Fault
from sim.cluster.hardware import Hardware
from sim.documents import Document, Path_
from sim.errors import Problem, nearest
from sim.scenario.values import Branch, Machines, WordOr


class MachineSpec(Branch):
    """A chip in a node; of each a file, or the part of a profile."""

    chip: str
    """A file of `hardware/chips/`, a profile of `hardware/`, or a path: the GPU."""
    node: str
    """A file of `hardware/nodes/`, a profile of `hardware/`, or a path: links between GPUs, NICs, fabric."""


HardwareKey = WordOr[str, MachineSpec]


def named(hardware: str | MachineSpec) -> str | dict[str, str]:
    """The key `hardware` as `load_hardware` takes it."""
    return hardware if isinstance(hardware, str) else hardware.model_dump()


class NodePoolSpec(Branch):
    """Nodes of one hardware."""

    hardware: HardwareKey
    """A profile of `hardware/`, a path to one, or {chip: h20, node: dgx-4nic}."""
    nodes: Machines
    """Nodes of the pool, numbered on from those of the pools before it."""
    override: dict[str, Any] = Field(default_factory=dict)
    """Any value of the profile, as a tree or with dotted keys."""


@dataclass(frozen=True, slots=True)
class SharedCluster:
    """All pools of a cluster, and the one that a job runs on.

    Parameters
    ----------
    pools : name -> NodePool
        One after the other.
    own : str
        Pool of the job.
    faults : name -> tuple of Fault
        Those that concern each pool, nodes counted from its own first.
    """

    pools: dict[str, NodePool]
    own: str
    faults: dict[str, tuple[Fault, ...]] = field(default_factory=dict)

    @property
    def num_nodes(self) -> int:
        """Nodes of all pools [count]."""
        return sum(pool.num_nodes for pool in self.pools.values())

    def owner(self, node: int) -> str | None:
        """The pool of a node of the whole cluster; None beyond the last."""
        for name, pool in self.pools.items():
            if pool.first_node <= node < pool.first_node + pool.num_nodes:
                return name
        return None

    def build(self, fabric: topology.Fabric) -> dict[str, topology.Cluster]:
        """The cabled cluster as each pool sees it."""
        faults = [self.faults.get(name, ()) for name in self.pools]
        return dict(
            zip(self.pools, topology.build_pools([*self.pools.values()], fabric, faults), strict=True)
        )

    def joined(self, fabric: topology.Fabric, names: Sequence[str] = ()) -> topology.Cluster:
        """Some pools, all where none is named, seen as one cluster; InfeasibleError where no cable joins their rails."""
        views = self.build(fabric)
        return topology.joined([views[name] for name in names or views])

    def ranks(self, pool: str, gpus: topology.Ints, names: Sequence[str] = ()) -> topology.Ints:
        """Numbers of GPUs of a pool in what `joined` makes of the same names."""
        own, among = self.pools[pool], [self.pools[name] for name in names or self.pools]
        first_node = sum(other.num_nodes for other in among[: among.index(own)])
        node, index = np.divmod(gpus, own.hardware.gpu.scale_up.domain)
        most = max(other.hardware.gpu.scale_up.domain for other in among)
        return np.asarray((first_node + node) * most + index)


def laid_out(hardware: dict[str, tuple[Hardware, int]]) -> dict[str, NodePool]:
    """Number the nodes of pools, given by hardware and count, one after the other."""
    pools: dict[str, NodePool] = {}
    first = 0
    for name, (part, nodes) in hardware.items():
        pools[name] = NodePool(part, nodes, first)
        first += nodes
    return pools


def pool_problem(document: Document, path: Path_, name: str, pools: Sequence[str]) -> list[Problem]:
    """The problem of a key that names none of the cluster's pools (it may have none); none where it does."""
    if name in pools:
        return []
    known = f"one of: {', '.join(pools)}" if pools else "a cluster of 'pools'"
    return [document.problem(path, f"'{name}'", known, nearest(str(name), pools))]
