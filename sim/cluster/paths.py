"""Which resources a byte crosses between two GPUs' NICs, for many pairs at once.

Three decisions live here. *Which NICs*: a GPU sends through its own NIC, unless the fabric has no cable between the two
rails (multi_plane, rail_only) or the sender asks for rail forwarding (NCCL's PXN); then the bytes first hop over the
scale-up switch to the GPU of the receiver's rail. *What if a NIC is dead*: the bytes spread evenly over the rails that
are alive at both ends (over all pairs of living NICs where there is no such rail, and cables join the rails).
*Which uplinks*: pooled (adaptive), hashed per queue pair (ecmp), or as given (static).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from sim.cluster.topology import NONE, Cluster, Floats, Ints
from sim.errors import InfeasibleError


@dataclass(frozen=True, slots=True)
class Leg:
    """The share of each pair's bytes that takes one pair of NICs; arrays [num_pairs]."""

    fraction: Floats
    via_src: Ints  # GPU whose NIC sends
    via_dst: Ints  # GPU whose NIC receives


def legs(cluster: Cluster, src: Ints, dst: Ints, *, forward_to_rail: bool = False) -> list[Leg]:
    """Choose the NICs through which pairs of GPUs send to one another.

    Parameters
    ----------
    cluster : Cluster
    src, dst : array of int, [num_pairs]
        Sending and receiving GPUs.
    forward_to_rail : bool
        Bytes first hop over scale-up to the GPU on the receiver's rail (PXN of NCCL).

    Returns
    -------
    list of Leg
        The fractions of a pair add up to 1.

    Raises
    ------
    InfeasibleError
        Where no living path joins a pair.

    Notes
    -----
    A pair whose own NIC is dead spreads evenly over the rails that are alive at both ends; where there is none and cables join
    the rails, over all pairs of living NICs.
    """
    gpn = cluster.gpus_per_node
    src_node, dst_node, dst_rail = src // gpn, dst // gpn, dst % gpn
    via = src
    if forward_to_rail or not cluster.planes_joined:
        same_rail = src % gpn // cluster.gpus_per_nic == dst_rail // cluster.gpus_per_nic
        via = np.where(same_rail, src, src_node * gpn + dst_rail)
    alive = cluster.nic_alive
    direct = alive[via] & alive[dst]
    if direct.all():
        return [Leg(np.ones(len(src)), via, dst)]
    by_node = alive.reshape(cluster.num_nodes, gpn)
    at_src, at_dst = by_node[src_node], by_node[dst_node]  # [num_pairs, rails]
    both = at_src & at_dst
    count = both.sum(axis=1)
    crossed = ~direct & (count == 0)  # no rail lives at both ends; where rails are joined, any two will do
    pairs = (
        at_src.sum(axis=1) * at_dst.sum(axis=1)
        if cluster.planes_joined
        else np.zeros(len(src), dtype=np.int64)
    )
    if np.any(crossed & (pairs == 0)):
        pair = int(np.flatnonzero(crossed & (pairs == 0))[0])
        raise InfeasibleError(
            f"no living rail joins node {src_node[pair]} and node {dst_node[pair]}: every NIC pair between them is dead"
        )
    parts = [Leg(direct.astype(float), via, dst)]
    rails = product(range(gpn), repeat=2) if crossed.any() else zip(range(gpn), range(gpn), strict=True)
    for rail, other in rails:
        if rail == other:
            share = np.where(~direct & both[:, rail], 1.0 / np.maximum(count, 1), 0.0)
        else:
            share = np.where(crossed & at_src[:, rail] & at_dst[:, other], 1.0 / np.maximum(pairs, 1), 0.0)
        if share.any():
            parts.append(Leg(share, src_node * gpn + rail, dst_node * gpn + other))
    return parts


def uplinks(
    cluster: Cluster, src: Ints, dst: Ints, *, queue_pairs: int = 1, salt: int = 0
) -> Iterator[tuple[Ints, Floats]]:
    """List the switch-to-switch resources between the NICs of pairs of GPUs.

    Parameters
    ----------
    cluster : Cluster
    src, dst : array of int, [num_pairs]
        GPUs whose NICs send and receive.
    queue_pairs : int [count]
        Connections that the bytes of a pair are spread over; ECMP hashes each to one uplink.
    salt : int
        Changes the hash.

    Yields
    ------
    (array of int, array of float), [num_pairs] each
        Row of a resource, -1 for none, and the fraction of the pair's bytes that crosses it.
    """
    a, b = cluster.leaf[src], cluster.leaf[dst]
    crosses = a != b
    if not crosses.any():
        return
    whole = np.ones(len(src))
    if cluster.up.shape[1] == 1:
        yield np.where(crosses, cluster.up[a, 0], NONE), whole
        yield from _cores(cluster, a, b)
        yield np.where(crosses, cluster.down[b, 0], NONE), whole
        return
    share = np.full(len(src), 1.0 / queue_pairs)
    spines = [
        (_hash(src, dst, qp, salt) % np.uint64(cluster.up.shape[1])).astype(np.int64)
        for qp in range(queue_pairs)
    ]
    for spine in spines:
        yield np.where(crosses, cluster.up[a, spine], NONE), share
    yield from _cores(cluster, a, b)
    for spine in spines:
        yield np.where(crosses, cluster.down[b, spine], NONE), share


def _cores(cluster: Cluster, a: Ints, b: Ints) -> Iterator[tuple[Ints, Floats]]:
    pod_a, pod_b = cluster.pod_of_leaf[a], cluster.pod_of_leaf[b]
    if cluster.fabric.kind != "three_tier" or not (pod_a != pod_b).any():
        return
    whole = np.ones(len(a))
    yield np.where(pod_a != pod_b, cluster.pod_up[pod_a], NONE), whole
    yield np.where(pod_a != pod_b, cluster.pod_down[pod_b], NONE), whole


def extra_latency_s(cluster: Cluster, src: Ints, dst: Ints) -> Floats:
    """Latency of a path through the spines beyond that of one within a leaf.

    Parameters
    ----------
    cluster : Cluster
    src, dst : array of int, [num_pairs]

    Returns
    -------
    array of float, [num_pairs] [s]
        0 within a leaf; through a core, twice that through a spine (assumed: two more hops).
    """
    a, b = cluster.leaf[src], cluster.leaf[dst]
    step = cluster.cross_leaf_latency_s - cluster.same_leaf_latency_s
    hops = np.where(a == b, 0, 1)
    if cluster.fabric.kind == "three_tier":
        hops = hops + (cluster.pod_of_leaf[a] != cluster.pod_of_leaf[b])
    return np.asarray(hops * step, dtype=float)


def _hash(src: Ints, dst: Ints, qp: int, salt: int) -> np.ndarray:
    """splitmix64 of a queue pair's identity: the same on every machine and run."""
    with np.errstate(over="ignore"):
        x = src.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x += dst.astype(np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
        x += np.uint64((qp + 1) * 0x94D049BB133111EB % 2**64) + np.uint64(salt)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ (x >> np.uint64(31)))
