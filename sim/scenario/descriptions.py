"""A scenario, resolved: frozen descriptions, SI units, nothing left to look up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim.cluster import topology
from sim.cluster.hardware import Hardware
from sim.cluster.kernels import Kernel
from sim.cluster.parameters import SourcedFile
from sim.cluster.parts import ClusterPart
from sim.cluster.software import Software
from sim.errors import Mark
from sim.scenario.pools import SharedCluster
from sim.scenario.values import WorkloadSpec
from sim.workload.model import Model


class Workload:
    """A workload, resolved: its specification, and what was derived from it. Each kind has a description of its own."""

    __slots__ = ()
    spec: WorkloadSpec

    @property
    def parts(self) -> tuple[Scenario, ...]:
        """Scenarios that it is made of, where it is."""
        return ()

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The all-to-all kernels that it runs, or its parts do."""
        return tuple(dict.fromkeys(kernel for part in self.parts for kernel in part.workload.kernels))

    @property
    def files(self) -> tuple[SourcedFile, ...]:
        """Files of parameters that it reads besides the hardware's: its kernels', and its library's of collectives."""
        return self.kernels

    @property
    def stated_price_usd(self) -> float | None:
        """Price of a GPU-hour that it states [$]; None where the profile's counts."""
        return None


@dataclass(frozen=True, slots=True)
class Expectation:
    """A published value that a metric must meet."""

    metric: str
    value: float
    tolerance_fraction: float
    source: str | None
    mark: Mark | None = None  # where the scenario names the metric


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run, resolved."""

    name: str
    title: str
    seed: int
    fidelity: str
    hardware: Hardware | None
    num_nodes: int
    part: ClusterPart  # the GPUs that the workload takes, or hosts of a bare fabric
    fabric: topology.Fabric | topology.LeafSpine
    faults: tuple[topology.Fault, ...]
    model: Model | None
    ep: int
    workload: Workload
    expectations: tuple[Expectation, ...]
    document: dict[str, Any] = field(repr=False)
    settings: tuple[str, ...] = ()  # laid over the file, `key.path=value`
    shared: SharedCluster | None = None  # where the cluster has pools
    software: Software | None = None  # None where launches cost nothing
    gather_fraction: float = 0.0  # of the least time, in which completions count as one
    left: tuple[
        tuple[int, float], ...
    ] = ()  # links by their rows, and the part that other jobs leave of each
    _built: list[topology.Cluster] = field(default_factory=list, init=False, repr=False, compare=False)
    _joined: list[topology.Cluster] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def kind(self) -> str:
        """Kind of its workload."""
        return self.workload.spec.kind

    @property
    def machine(self) -> str | None:
        """Name of the hardware profile that it runs on; where its parts have their own, each once, joined by `+`."""
        names = [part.machine for part in self.workload.parts] or [
            self.hardware.name if self.hardware else None
        ]
        return "+".join(dict.fromkeys(filter(None, names))) or None

    @property
    def num_ranks(self) -> int:
        """GPUs that the workload takes."""
        return self.part.num_gpus

    @property
    def gpus(self) -> topology.Ints:
        """GPU of each rank in the cluster, [num_ranks]."""
        return self.part.gpus

    @property
    def gpus_per_node(self) -> int:
        """GPUs that the workload takes of one scale-up domain."""
        joined = isinstance(self.fabric, topology.Fabric) and self.fabric.kind == "scale_up"
        return self.num_ranks if joined else self.part.gpus_per_node

    def slowness(self) -> topology.Floats:
        """Compute time of the GPU of each rank over that of a healthy one, of clocks that are lower for the whole run, [num_ranks]."""
        factor = np.ones(self.num_nodes * self.part.domain)
        for fault in self.faults:
            if fault.quantity == "clock" and fault.lasts:
                factor[fault.gpus(len(factor), self.part.domain)] /= fault.fraction
        return factor[self.gpus]

    def cluster(self) -> topology.Cluster:
        """The cabled cluster, the same one whenever it is asked for; with pools, as the own one sees it."""
        if not self._built:
            self._built.append(topology.left_by_others(self._cabled(), self.left))
        return self._built[0]

    def joined(self) -> topology.Cluster:
        """All pools as one cluster, the same one whenever it is asked for; `shared.ranks` are the numbers of GPUs in it."""
        if not self._joined:
            assert self.shared is not None
            assert isinstance(self.fabric, topology.Fabric)
            self._joined.append(self.shared.joined(self.fabric))
        return self._joined[0]

    def _cabled(self) -> topology.Cluster:
        if isinstance(self.fabric, topology.LeafSpine):
            return topology.build_leaf_spine(self.fabric, self.faults)
        if self.shared is not None:
            return self.shared.build(self.fabric)[self.shared.own]
        assert self.hardware is not None
        return topology.build(self.hardware, self.num_nodes, self.fabric, self.faults)
