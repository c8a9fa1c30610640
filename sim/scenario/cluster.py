"""The cluster branch of a scenario: hardware with its overrides, and fabric."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from sim import units
from sim.cluster import parts, topology
from sim.cluster.hardware import FabricKind, Hardware, load_hardware
from sim.documents import Document
from sim.errors import InputError, Problem, nearest
from sim.scenario.draft import catch
from sim.scenario.faults import FaultSpec
from sim.scenario.pools import HardwareKey, NodePoolSpec, SharedCluster, laid_out, named
from sim.scenario.values import NAME, Branch, Count, Index, Machines, Number, Whole
from sim.schemas import Bytes, Duration, Rate, written
from sim.units import UnitError


def cluster_of(
    document: Document, cluster: ClusterSpec, problems: list[Problem], *, divides: bool = False
) -> tuple[
    Hardware | None,
    int,
    topology.Fabric | topology.LeafSpine | None,
    SharedCluster | None,
]:
    """Resolve the cluster branch of a scenario; problems are added to those given.

    Hardware (None of a bare fabric, and where it has problems), nodes or hosts, fabric, and with pools all of
    them. With pools, hardware and nodes are those of the one it runs on, unless the workload `divides` them
    itself.
    """
    at = ("cluster",)
    if cluster.pools:
        return _pools(document, cluster, problems, divides)
    if cluster.pool is not None:
        problems.append(document.problem((*at, "pool"), f"'{cluster.pool}'", "a cluster of 'pools'"))
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
        return None, cluster.fabric.hosts, _leaf_spine(document, cluster.fabric, problems), None
    if cluster.hardware is None:
        problems.append(document.problem(at, "nothing", "the key 'hardware', or a fabric of kind leaf_spine"))
        return None, 0, None, None
    if cluster.nodes is None:
        problems.append(
            document.problem(
                (*at, "nodes"), "nothing", "the number of nodes: a cluster without nodes has no GPU to run on"
            )
        )
    name, override = named(cluster.hardware), document.branch(("cluster", "override"))
    mark = document.mark((*at, "hardware"))
    hardware = catch(problems, lambda: load_hardware(name, override, near=document.folder, mark=mark))
    if hardware is None or cluster.nodes is None:
        return hardware, 0, None, None
    return (
        hardware,
        cluster.nodes,
        _fabric(document, cluster.fabric or FabricSpec(), [hardware], problems),
        None,
    )


def _pools(
    document: Document, cluster: ClusterSpec, problems: list[Problem], divides: bool
) -> tuple[Hardware | None, int, topology.Fabric | None, SharedCluster | None]:
    """Hardware, nodes and fabric as of `cluster_of`, of a cluster of pools."""
    at, names = ("cluster",), [*cluster.pools]
    for key, given in (
        ("hardware", cluster.hardware),
        ("nodes", cluster.nodes),
        ("override", cluster.override or None),
    ):
        if given is not None:
            wanted = f"no such key next to pools, each of which has its own '{key}'"
            problems.append(document.problem((*at, key), f"'{key}'", wanted, key=True))
    asked = cluster.fabric or FabricSpec()
    if isinstance(asked, LeafSpineSpec) or asked.kind == "scale_up":
        wanted = "a fabric that joins NICs of nodes"
        problems.append(document.problem((*at, "fabric", "kind"), f"'{asked.kind}' next to pools", wanted))
    if cluster.pool not in (None, *names):
        wanted, near = f"one of: {', '.join(names)}", nearest(str(cluster.pool), names)
        problems.append(document.problem((*at, "pool"), f"'{cluster.pool}'", wanted, near))
    elif cluster.pool is None and not divides:
        wanted = f"the key 'pool', on which the workload runs: {', '.join(names)}"
        problems.append(document.problem(at, "pools and no 'pool'", wanted))
    parts: dict[str, tuple[Hardware, int]] = {}
    for name, pool in cluster.pools.items():
        own = (*at, "pools", name)
        mark, override = document.mark((*own, "hardware")), document.branch((*own, "override"))
        load = partial(load_hardware, named(pool.hardware), override, near=document.folder, mark=mark)
        hardware = catch(problems, load)
        if hardware is not None:
            parts[name] = (hardware, pool.nodes)
    if problems or isinstance(asked, LeafSpineSpec):
        return None, 0, None, None
    shared = SharedCluster(laid_out(parts), cluster.pool or names[0])
    own_hardware, nodes = parts[shared.own]
    fabric = _fabric(document, asked, [hardware for hardware, _ in parts.values()], problems)
    return own_hardware, nodes, fabric, shared


def _fabric(
    document: Document, asked: FabricSpec, machines: Sequence[Hardware], problems: list[Problem]
) -> topology.Fabric:
    """A fabric with what is left out from the profiles: the kind of the first, the smallest leaf of all."""
    if asked.queue_pairs is not None and asked.routing != "ecmp":
        wanted = "'routing: ecmp': adaptive routing spreads packets over all paths, however many connections there are"
        at = ("cluster", "fabric", "queue_pairs")
        problems.append(document.problem(at, str(asked.queue_pairs), wanted))
    kind = asked.kind or machines[0].fabric.kind
    on_leaf = max(hardware.nics_per_node for hardware in machines) if kind == "fat_tree" else 1
    nodes_per_leaf = min(hardware.fabric.nodes_per_leaf for hardware in machines)
    return topology.Fabric(
        kind=kind,
        routing=asked.routing,
        oversubscription=asked.oversubscription,
        nodes_per_leaf=asked.nodes_per_leaf or max(1, nodes_per_leaf // max(1, on_leaf)),
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


class LeafSpineSpec(Branch):
    """A bare fabric of hosts, for `flows`."""

    kind: Literal["leaf_spine"]
    hosts: Machines
    hosts_per_leaf: Machines
    spines: Machines
    link: Rate
    """Rate of a cable, each way."""
    oversubscription: Annotated[Number, Field(gt=0)] | None = None
    """Must equal hosts_per_leaf / spines."""
    link_latency: Duration = written("0 s")
    """Time of a cable."""
    switch_latency: Duration = written("0 s")
    """Time through a switch."""
    routing: Literal["adaptive", "ecmp", "static"] = "adaptive"
    """adaptive: uplinks pooled; ecmp: each flow hashed to one path; static: paths given in the flows."""
    payload_per_packet: Bytes = written("4096 B")
    """Bytes of a flow in each packet."""
    wire_per_packet: Bytes = written("4096 B")
    """Bytes of that packet on a cable, headers included."""


class FabricSpec(Branch):
    """The scale-out fabric between nodes."""

    kind: FabricKind | None = None
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

    hardware: HardwareKey | None = None
    """A profile of `hardware/`, a path to one, or a chip in a node: {chip: h20, node: dgx-4nic}."""
    nodes: Whole | None = None
    pools: dict[Annotated[str, Field(pattern=NAME)], NodePoolSpec] = Field(default_factory=dict)
    """Instead of `hardware` and `nodes`: pools of nodes by name, joined by one fabric, each NIC at its own rate."""
    pool: str | None = None
    """The pool that the workload runs on; `gpus` and `use_nodes` are of it."""
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
