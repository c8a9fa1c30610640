"""Which resources a byte crosses between two GPUs' NICs, for many pairs at once.

Three decisions live here. *Which NICs*: a GPU sends through its own NIC, unless the fabric has no cable between the two
rails (multi_plane, rail_only) or the sender asks for rail forwarding (NCCL's PXN); then the bytes first hop over the
scale-up switch to the GPU of the receiver's rail. *What if a NIC is dead*: its GPU borrows the NIC of the next living one of
its node, which carries the bytes of both; they hop over scale-up between the two. Where no cable joins the rails, a rail
with a dead NIC is out of use for all nodes that send together, and the next rail carries its bytes. *Which uplinks*: pooled
(adaptive), hashed per queue pair (ecmp), or as given (static).

Why this way: whole loads move on top of others, and nothing is spread, so that no resource has less to carry than in a healthy
cluster and a fault never makes a lone collective faster. A slow NIC is used, or avoided like a dead one, whichever leaves
the slower NIC done earlier; so time falls as its rate rises.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sim.cluster.topology import NONE, Cluster, Floats, Ints
from sim.errors import InfeasibleError

_CORE = 1.25
"""Latency of a path through a core over that of one through a spine."""


@dataclass(frozen=True, slots=True)
class Leg:
    """GPUs and NICs on the way of each pair, [num_pairs], and the NIC that each GPU of the cluster uses."""

    via_src: Ints  # GPU from which the bytes leave the node
    nic_src: Ints  # GPU whose NIC sends: that one, or what it borrows from
    nic_dst: Ints  # GPU whose NIC receives
    lender: Ints  # [num_gpus], GPU whose NIC each one uses


def leg(
    cluster: Cluster, src: Ints, dst: Ints, payload_bytes: Floats, *, forward_to_rail: bool = False
) -> Leg:
    """Choose the NICs through which pairs of GPUs send to one another.

    Parameters
    ----------
    cluster : Cluster
    src, dst : array of int, [num_pairs]
        Sending and receiving GPUs, of different nodes.
    payload_bytes : array of float, [num_pairs]
        Size of what each pair sends; only ratios count.
    forward_to_rail : bool
        Bytes first hop over scale-up to the GPU on the receiver's rail (PXN of NCCL).

    Returns
    -------
    Leg

    Raises
    ------
    InfeasibleError
        Where no living path joins a pair.
    """
    gpn, joined, share = cluster.gpus_per_node, cluster.planes_joined, cluster.gpus_per_nic
    via = src
    if forward_to_rail or not joined:
        same_rail = src % gpn // share == dst % gpn // share
        via = np.where(same_rail, src, src // gpn * gpn + dst % gpn)
    own = cluster.numbers
    nodes = np.unique(np.concatenate([src, dst]) // gpn)
    rate = cluster.nic_rate[::share].reshape(-1, gpn // share)[nodes]
    if not len(src) or ((rate > 0).all() and (rate == rate[0, 0]).all()):
        return Leg(via, via, dst, own)
    loads = np.array([np.bincount(ends, payload_bytes, cluster.num_gpus) for ends in (via, dst)])
    loads = loads.reshape(2, -1, gpn // share, share).sum(axis=3)[:, nodes]
    lender, beside = own.reshape(-1, gpn).copy(), np.arange(gpn) % share
    if joined:
        for i, node in enumerate(nodes.tolist()):
            rails = _borrowed(loads[:, i : i + 1], rate[i : i + 1])
            if rails is None:
                peer = int(
                    (dst[src // gpn == node] if np.any(src // gpn == node) else src[dst // gpn == node])[0]
                )
                raise _unreachable(node, peer // gpn)
            lender[node] = node * gpn + np.repeat(rails, share) * share + beside
    else:
        rails = _borrowed(loads, rate)
        if (
            rails is None
        ):  # every rail is dead in some node: each pair takes the next that is alive at both ends
            return _pairwise(cluster, via, dst)
        lender[nodes] = nodes[:, None] * gpn + np.repeat(rails, share) * share + beside
    used = lender.ravel()
    return Leg(via, used[via], used[dst], used)


def _borrowed(loads: Floats, rate: Floats) -> Ints | None:
    """The rail whose NIC each rail uses, so that the last NIC is done earliest; None where no rail may be used.

    Parameters
    ----------
    loads : float, [2, num_nodes, rails]
        Bytes that leave and enter by each NIC.
    rate : float, [num_nodes, rails]

    Notes
    -----
    Rails whose NICs are all as fast as the fastest stay in use, those with a dead one do not, and of the others those are avoided
    with which the least maximum of load over rate is reached. An avoided rail is carried by the next that is used, so used
    rails and those before them are runs of a circle: least maxima of runs, from one used rail on.
    """
    num = rate.shape[1]
    usable, whole = np.all(rate > 0, axis=0), np.all(rate == rate.max(), axis=0)
    best, chosen = np.inf, None
    anchors = np.flatnonzero(whole)[:1] if whole.any() else np.flatnonzero(usable)
    for anchor in anchors.tolist():
        order = (anchor + 1 + np.arange(num)) % num
        ends, before = np.full(num + 1, np.inf), np.zeros(num + 1, dtype=np.int64)
        ends[0] = 0.0
        for j in range(1, num + 1):
            rail, run = order[j - 1], np.zeros(loads.shape[:2])
            for i in range(j - 1 if usable[rail] else -1, -1, -1):
                if i < j - 1 and whole[order[i]]:
                    break
                run = run + loads[:, :, order[i]]
                time = max(ends[i], float((run / rate[:, rail]).max()))
                if time < ends[j]:
                    ends[j], before[j] = time, i
        if ends[num] < best:
            best, chosen, j = float(ends[num]), np.arange(num), num
            while j > 0:
                chosen[order[before[j] : j]] = order[j - 1]
                j = int(before[j])
    return chosen


def _pairwise(cluster: Cluster, via: Ints, dst: Ints) -> Leg:
    gpn = cluster.gpus_per_node
    alive = cluster.nic_alive.reshape(-1, gpn)
    both = alive[via // gpn] & alive[dst // gpn]
    if not both.any(axis=1).all():
        pair = int(np.flatnonzero(~both.any(axis=1))[0])
        raise _unreachable(int(via[pair]) // gpn, int(dst[pair]) // gpn)
    rails = (dst[:, None] % gpn + np.arange(gpn)) % gpn
    rail = rails[np.arange(len(dst)), np.take_along_axis(both, rails, axis=1).argmax(axis=1)]
    return Leg(via, via // gpn * gpn + rail, dst // gpn * gpn + rail, np.arange(cluster.num_gpus))


def _unreachable(node: int, peer: int) -> InfeasibleError:
    a, b = sorted((node, peer))
    return InfeasibleError(f"no living rail joins node {a} and node {b}: every NIC pair between them is dead")


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
        Connections that the bytes of a pair are spread over, unless the fabric states it; ECMP hashes each to one uplink.
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
    queue_pairs = cluster.fabric.queue_pairs or queue_pairs
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
        0 within a leaf; a path through a core takes 5/4 of one through a spine (assumed: two more hops, as on Hopper's fabrics
        0.9 of 3.7 us).
    """
    a, b = cluster.leaf[src], cluster.leaf[dst]
    same_s, cross_s = cluster.same_leaf_latency_s, cluster.cross_leaf_latency_s
    path_s = np.where(a == b, same_s, cross_s)
    if cluster.fabric.kind == "three_tier":
        path_s = np.where(cluster.pod_of_leaf[a] != cluster.pod_of_leaf[b], _CORE * cross_s, path_s)
    return np.asarray(path_s - same_s, dtype=float)


def _hash(src: Ints, dst: Ints, qp: int, salt: int) -> np.ndarray:
    """splitmix64 of a queue pair's identity: the same on every machine and run."""
    with np.errstate(over="ignore"):
        x = src.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x += dst.astype(np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
        x += np.uint64((qp + 1) * 0x94D049BB133111EB % 2**64) + np.uint64(salt)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ (x >> np.uint64(31)))
