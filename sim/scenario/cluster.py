"""The cluster and model branches of a scenario: hardware with its overrides, fabric, faults, model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sim import documents, units
from sim.cluster import topology
from sim.cluster.hardware import Hardware, load_hardware
from sim.documents import Document
from sim.errors import Fault, InputError, Mark
from sim.scenario.specification import FabricSpec, LeafSpineSpec, ScenarioSpec
from sim.workload.model import Model, load_model

T = TypeVar("T")


@dataclass(slots=True)
class Draft:
    """A scenario on its way: what is known of it, and every fault found so far."""

    document: Document
    spec: ScenarioSpec
    faults: list[Fault] = field(default_factory=list)
    hardware: Hardware | None = None
    num_nodes: int = 0
    fabric: topology.Fabric | topology.LeafSpine | None = None
    model: Model | None = None
    layout: dict[str, int] = field(default_factory=dict)
    derived: dict[str, int] = field(default_factory=dict)  # keys of the workload that follow from others

    def fault(self, path: documents.Path_, got: object, wanted: str) -> None:
        """Note a fault at a path of the document."""
        self.faults.append(self.document.fault(path, got, wanted))

    @property
    def num_ranks(self) -> int:
        """GPUs of the cluster."""
        assert self.hardware is not None
        return self.num_nodes * self.hardware.gpu.scale_up.domain

    @property
    def gpus_per_node(self) -> int:
        """GPUs of one scale-up domain."""
        assert self.hardware is not None
        joined = isinstance(self.fabric, topology.Fabric) and self.fabric.kind == "scale_up"
        return self.num_ranks if joined else self.hardware.gpu.scale_up.domain


def catch(faults: list[Fault], make: Callable[[], T]) -> T | None:
    """Run `make`; its faults join the others, so that all are told together."""
    try:
        return make()
    except InputError as error:
        faults.extend([fault for fault in error.faults if fault not in faults])
        return None


def placed_at(document: Document, base: documents.Path_, error: InputError) -> list[Fault]:
    """Faults found deeper in the house, at the place of the scenario that caused them."""
    placed = []
    for fault in error.faults:
        where = fault.where or document.mark((*base, *documents.split(fault.key)))
        placed.append(Fault(where, fault.key, fault.got, fault.wanted, fault.nearest))
    return placed


def beside(document: Document, path: documents.Path_) -> tuple[Path, Mark, str]:
    """The file that a key of a scenario names, absolute or relative to the scenario; where it is named, and the key."""
    file = (document.folder or Path()) / str(document.get(path))
    return file, document.mark(path), documents.dotted(path)


def cluster_of(
    document: Document, spec: ScenarioSpec, faults: list[Fault]
) -> tuple[Hardware | None, int, topology.Fabric | topology.LeafSpine | None, tuple[topology.LinkFault, ...]]:
    """Hardware, number of nodes, fabric and link faults; what is wrong joins `faults`."""
    cluster, at = spec.cluster, ("cluster",)
    if isinstance(cluster.fabric, LeafSpineSpec):
        if cluster.hardware or cluster.nodes:
            faults.append(
                document.fault(at, "hardware beside leaf_spine", "a bare fabric without hardware and nodes")
            )
        return None, cluster.fabric.hosts, _leaf_spine(document, cluster.fabric, faults), ()
    if cluster.hardware is None:
        faults.append(document.fault(at, "nothing", "the key 'hardware', or a fabric of kind leaf_spine"))
        return None, 0, None, ()
    if cluster.nodes is None:
        faults.append(
            document.fault(
                (*at, "nodes"), "nothing", "the number of nodes: a cluster without nodes has no GPU to run on"
            )
        )
    name, override = cluster.hardware, document.branch(("cluster", "override"))
    mark = document.mark((*at, "hardware"))
    hardware = catch(faults, lambda: load_hardware(name, override, near=document.folder, mark=mark))
    if hardware is None or cluster.nodes is None:
        return hardware, 0, None, ()
    asked = cluster.fabric or FabricSpec()
    fabric = topology.Fabric(
        kind=asked.kind or hardware.fabric.kind,
        routing=asked.routing,
        oversubscription=asked.oversubscription,
        nodes_per_leaf=asked.nodes_per_leaf or hardware.fabric.nodes_per_leaf,
    )
    return hardware, cluster.nodes, fabric, tuple(_link_faults(document, spec, hardware, faults))


def _leaf_spine(document: Document, asked: LeafSpineSpec, faults: list[Fault]) -> topology.LeafSpine:
    at = ("cluster", "fabric")
    ratio = asked.hosts_per_leaf / asked.spines
    if asked.oversubscription is not None and abs(asked.oversubscription - ratio) > 1e-9:
        wanted = f"hosts_per_leaf / spines = {ratio:g}, or leave it out"
        faults.append(document.fault((*at, "oversubscription"), f"{asked.oversubscription:g}", wanted))
    for key in ("link", "payload_per_packet", "wire_per_packet"):
        if getattr(asked, key) <= 0:
            faults.append(document.fault((*at, key), str(document.get((*at, key))), "more than 0"))
    if asked.wire_per_packet < asked.payload_per_packet:
        faults.append(
            document.fault(
                (*at, "wire_per_packet"),
                units.show(asked.wire_per_packet, "bytes"),
                "payload_per_packet or more",
            )
        )
    return topology.LeafSpine(
        hosts=asked.hosts,
        hosts_per_leaf=asked.hosts_per_leaf,
        spines=asked.spines,
        link_bytes_per_s=asked.link,
        routing=asked.routing,
        link_latency_s=asked.link_latency,
        switch_latency_s=asked.switch_latency,
        payload_per_packet_bytes=asked.payload_per_packet,
        wire_per_packet_bytes=asked.wire_per_packet,
    )


def _link_faults(
    document: Document, spec: ScenarioSpec, hardware: Hardware, faults: list[Fault]
) -> Iterator[topology.LinkFault]:
    rails, nodes = hardware.gpu.scale_up.domain, spec.cluster.nodes or 0
    for i, fault in enumerate(spec.cluster.faults):
        at = ("cluster", "faults", i)
        by_node = fault.node is not None and fault.nic is not None
        if by_node == (fault.rail is not None) or (fault.node is None) != (fault.nic is None):
            faults.append(document.fault(at, "a fault", "either 'node' and 'nic', or 'rail' alone"))
            continue
        nic = fault.nic if fault.rail is None else fault.rail
        assert nic is not None
        if nic >= rails:
            key = "nic" if fault.rail is None else "rail"
            faults.append(document.fault((*at, key), str(nic), f"0 to {rails - 1}: a node has {rails} GPUs"))
        if fault.node is not None and fault.node >= nodes:
            faults.append(
                document.fault(
                    (*at, "node"), str(fault.node), f"0 to {nodes - 1}: the cluster has {nodes} nodes"
                )
            )
        yield topology.LinkFault(nic, fault.bandwidth, fault.node)


def model_of(document: Document, spec: ScenarioSpec, *, needed: bool) -> Model | None:
    """The model, by name, path or inline; None where the workload needs none."""
    if spec.model is None:
        if needed:
            raise InputError(
                document.fault((), "no model", "the key 'model', e.g. deepseek-v3, or bytes_per_rank")
            )
        return None
    if isinstance(spec.model, str):
        return load_model(spec.model, near=document.folder, mark=document.mark(("model",)))
    return load_model(document.branch(("model",)))
