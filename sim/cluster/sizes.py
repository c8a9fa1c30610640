"""Sizes of a cluster, counted from its scenario before its graph is built."""

from __future__ import annotations

from sim import limits
from sim.cluster.fabrics import Fabric, LeafSpine, num_uplinks


def require_gpus(num_nodes: int, gpus_per_node: int) -> None:
    """Refuse more GPUs than any cluster has (`limits.GPUS`), however few of them are built."""
    keys = f"cluster.nodes {num_nodes:,} x gpu.scale_up.domain {gpus_per_node:,}"
    limits.require(num_nodes * gpus_per_node, limits.GPUS, keys)


def require_nodes(
    num_nodes: int, gpus_per_node: int, nics_per_node: int, fabric: Fabric, nodes: str = "cluster.nodes"
) -> None:
    """Refuse a cluster of more GPUs, or of more cables between switches, than are built.

    `nodes` is what they are called.
    """
    keys = f"{nodes} {num_nodes:,} x gpu.scale_up.domain {gpus_per_node:,}"
    limits.require(num_nodes * gpus_per_node, limits.BUILT_GPUS, keys)
    if fabric.kind in ("scale_up", "rail_only"):
        return
    pods, uplinks = -(-num_nodes // fabric.nodes_per_leaf), num_uplinks(fabric)
    if fabric.kind == "multi_plane" and pods == 1:
        return
    leaves = nics_per_node // fabric.nics_on_leaf * pods
    cables = leaves * uplinks + (pods * uplinks if fabric.kind == "three_tier" else 0)
    keys = (
        f"leaves {leaves:,} (NICs of a node x {nodes} / nodes_per_leaf) x uplinks {uplinks:,} of each "
        "(cluster.fabric.nodes_per_leaf / oversubscription)"
    )
    limits.require(cables, limits.CABLES, keys)


def switch_ports(fabric: Fabric | LeafSpine, num_nodes: int) -> float:
    """Count the ports of switches that serve one NIC: its own, and of each cable above its part of both ends."""
    if isinstance(fabric, LeafSpine):
        return 1.0 + 2.0 * fabric.spines / fabric.hosts_per_leaf
    if fabric.kind == "scale_up":
        return 0.0
    one_leaf = num_nodes <= fabric.nodes_per_leaf
    if fabric.kind == "rail_only" or (fabric.kind == "multi_plane" and one_leaf):
        return 1.0
    up = 2.0 / fabric.oversubscription
    cores = fabric.kind == "three_tier" and not one_leaf
    return 1.0 + up + (up / fabric.oversubscription if cores else 0.0)


def require_hosts(spec: LeafSpine) -> None:
    """Refuse a bare fabric of more hosts, or of more cables between switches, than are built."""
    limits.require(spec.hosts, limits.BUILT_GPUS, "cluster.fabric.hosts")
    leaves = -(-spec.hosts // spec.hosts_per_leaf)
    keys = (
        f"leaves {leaves:,} (cluster.fabric.hosts {spec.hosts:,} / hosts_per_leaf {spec.hosts_per_leaf:,}) "
        f"x cluster.fabric.spines {spec.spines:,}"
    )
    limits.require(leaves * spec.spines, limits.CABLES, keys)
