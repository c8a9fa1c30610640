"""The cluster branch of a scenario: hardware with its overrides, and fabric."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from sim import units
from sim.cluster import parts, topology
from sim.cluster.hardware import Hardware, load_hardware
from sim.documents import Document
from sim.errors import InputError, Problem
from sim.scenario.draft import catch
from sim.scenario.faults import FaultSpec
from sim.scenario.values import Branch, Count, Index, Machines, Number, Whole
from sim.schemas import Bytes, Duration, Rate, written
from sim.units import UnitError


def cluster_of(
    document: Document, cluster: ClusterSpec, problems: list[Problem]
) -> tuple[
    Hardware | None,
    int,
    topology.Fabric | topology.LeafSpine | None,
]:
    """Resolve the cluster branch of a scenario.

    Parameters
    ----------
    document : Document
    cluster : ClusterSpec
    problems : list of Problem
        Problems are added to it.

    Returns
    -------
    hardware : Hardware or None
        None of a bare fabric, and where it has problems.
    num_nodes : int [count]
        Hosts of a bare fabric.
    fabric : Fabric, LeafSpine or None
    """
    at = ("cluster",)
    if isinstance(cluster.fabric, LeafSpineSpec):
        if cluster.hardware or cluster.nodes:
            problems.append(
                document.problem(
                    at, "hardware next to leaf_spine", "a bare fabric without hardware and nodes"
                )
            )
        for key, given in (("gpus", cluster.gpus != "all"), ("use_nodes", cluster.use_nodes is not None)):
            if given:
                wanted = "no such key next to leaf_spine: a bare fabric has hosts"
                problems.append(document.problem((*at, key), f"'{key}'", wanted, key=True))
        return None, cluster.fabric.hosts, _leaf_spine(document, cluster.fabric, problems)
    if cluster.hardware is None:
        problems.append(document.problem(at, "nothing", "the key 'hardware', or a fabric of kind leaf_spine"))
        return None, 0, None
    if cluster.nodes is None:
        problems.append(
            document.problem(
                (*at, "nodes"), "nothing", "the number of nodes: a cluster without nodes has no GPU to run on"
            )
        )
    name, override = cluster.hardware, document.branch(("cluster", "override"))
    mark = document.mark((*at, "hardware"))
    hardware = catch(problems, lambda: load_hardware(name, override, near=document.folder, mark=mark))
    if hardware is None or cluster.nodes is None:
        return hardware, 0, None
    asked = cluster.fabric or FabricSpec()
    if asked.queue_pairs is not None and asked.routing != "ecmp":
        wanted = "'routing: ecmp': adaptive routing spreads packets over all paths, however many connections there are"
        problems.append(document.problem((*at, "fabric", "queue_pairs"), str(asked.queue_pairs), wanted))
    return hardware, cluster.nodes, _fabric(asked, hardware)


def _fabric(asked: FabricSpec, hardware: Hardware) -> topology.Fabric:
    """A fabric with what is left out from the profile."""
    kind = asked.kind or hardware.fabric.kind
    on_leaf = hardware.nics_per_node if kind == "fat_tree" else 1
    return topology.Fabric(
        kind=kind,
        routing=asked.routing,
        oversubscription=asked.oversubscription,
        nodes_per_leaf=asked.nodes_per_leaf or max(1, hardware.fabric.nodes_per_leaf // max(1, on_leaf)),
        nics_on_leaf=on_leaf,
        queue_pairs=asked.queue_pairs,
    )


def part_in_use(
    document: Document, cluster: ClusterSpec, num_nodes: int, domain: int, problems: list[Problem]
) -> parts.ClusterPart | None:
    """GPUs that the workload takes, of nodes with `domain` each; None where they do not fit, which is added to `problems`."""
    gpus = None if cluster.gpus == "all" else cluster.gpus
    try:
        return parts.part_of(num_nodes, domain, gpus=gpus, use_nodes=cluster.use_nodes)
    except InputError as error:
        problems += [
            document.problem(("cluster", each.key), each.got, each.wanted) for each in error.problems
        ]
        return None


def _leaf_spine(document: Document, asked: LeafSpineSpec, problems: list[Problem]) -> topology.LeafSpine:
    at = ("cluster", "fabric")
    ratio = asked.hosts_per_leaf / asked.spines
    if asked.oversubscription is not None and abs(asked.oversubscription - ratio) > 1e-9:
        wanted = f"hosts_per_leaf / spines = {ratio:g}, or leave it out"
        problems.append(document.problem((*at, "oversubscription"), f"{asked.oversubscription:g}", wanted))
    for key in ("link", "payload_per_packet", "wire_per_packet"):
        if getattr(asked, key) <= 0:
            problems.append(document.problem((*at, key), str(document.get((*at, key))), "more than 0"))
    if asked.wire_per_packet < asked.payload_per_packet:
        problems.append(
            document.problem(
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


FabricKindName = Literal["rail_optimized", "multi_plane", "three_tier", "rail_only", "fat_tree", "scale_up"]


class LeafSpineSpec(Branch):
    """A bare fabric of hosts, for `flows`."""

    kind: Literal["leaf_spine"]
    hosts: Machines
    hosts_per_leaf: Machines
    spines: Machines
    link: Rate
    oversubscription: Annotated[Number, Field(gt=0)] | None = None
    """Must equal hosts_per_leaf / spines."""
    link_latency: Duration = written("0 s")
    switch_latency: Duration = written("0 s")
    routing: Literal["adaptive", "ecmp", "static"] = "adaptive"
    """adaptive: uplinks pooled; ecmp: each flow hashed to one path; static: paths given in the flows."""
    payload_per_packet: Bytes = written("4096 B")
    wire_per_packet: Bytes = written("4096 B")


class FabricSpec(Branch):
    """The scale-out fabric between nodes."""

    kind: FabricKindName | None = None
    """The profile's when left out."""
    routing: Literal["adaptive", "ecmp"] = "adaptive"
    oversubscription: Annotated[Number, Field(ge=1e-3, le=1000)] = 1.0
    nodes_per_leaf: Machines | None = None
    """Nodes that one leaf joins; the profile's when left out, of a fat_tree as many as have that many NICs."""
    queue_pairs: Annotated[int, Field(ge=1, le=4096, strict=True)] | None = None
    """Connections that the bytes between two NICs are spread over, each hashed to a path (ecmp); the kernel's when left out."""


def _fabric_tag(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return "leaf_spine" if kind == "leaf_spine" else "cluster"


class ClusterSpec(Branch):
    """Hardware, its number of nodes, and how they are cabled; or a bare fabric alone."""

    hardware: str | None = None
    """A profile of `hardware/`, or a path to one."""
    nodes: Whole | None = None
    gpus: Count | Literal["all"] = "all"
    """GPUs that the workload takes, equally many on as few nodes as hold them (or on `use_nodes`); the rest idles."""
    use_nodes: list[Index] | None = None
    """Nodes that the workload takes, in the order of its ranks; all when left out."""
    override: dict[str, Any] = Field(default_factory=dict)
    """Any value of the profile, as a tree or with dotted keys: {gpu.scale_up.bandwidth: 450 GB/s}."""
    fabric: (
        Annotated[
            Annotated[FabricSpec, Tag("cluster")] | Annotated[LeafSpineSpec, Tag("leaf_spine")],
            Discriminator(_fabric_tag),
        ]
        | None
    ) = None
    faults: list[FaultSpec] = Field(default_factory=list)

    @field_validator("nodes")
    @classmethod
    def _some_nodes(cls, value: int | None) -> int | None:
        if value is not None and value < 1:
            raise UnitError(str(value), "1 or more: a cluster without nodes has no GPU to run on")
        if value is not None and value > 2**17:
            raise UnitError(str(value), f"at most {2**17} nodes")
        return value
