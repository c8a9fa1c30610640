"""Orders in which a collective passes a group of GPUs: rings that stay on their rails, and trees between nodes.

A *channel* carries an equal part of the bytes by a way of its own. With g GPUs on each node there are g channels, so that
every NIC has as much to send as any other. A ring enters one node and leaves it for the next on the same rail, which takes
turns: channel c goes from the GPU of index c round to c + 1 on even nodes, and back on odd ones, as NCCL's do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sim.cluster.topology import Floats, Ints


class Hops(NamedTuple):
    """Sends from GPU to GPU, and the bytes that each carries per byte of its channel's payload; arrays [num_hops]."""

    channel: Ints
    src: Ints
    dst: Ints
    part: Floats


def num_channels(nodes: Sequence[Ints]) -> int:
    """Count the channels of a group: as many as the node with the fewest GPUs has; one inside a node."""
    return 1 if len(nodes) == 1 else min(map(len, nodes))


def ring_hops(nodes: Sequence[Ints], *, closed: bool = True) -> Hops:
    """Lay the rings of a group, given its GPUs on each node; all parts are 1.

    One that is not `closed` is a chain: nobody sends to the group's first GPU, from which a broadcast comes.

    Examples
    --------
    >>> [array.tolist() for array in ring_hops([np.arange(2), np.arange(2, 4)])[1:3]]
    [[0, 1, 3, 2, 1, 0, 2, 3], [1, 3, 2, 0, 0, 2, 3, 1]]
    """
    channel, src, dst = [], [], []
    for c in range(num_channels(nodes)):
        turns = [
            np.roll(gpus[::-1], c + 1 - len(gpus)) if m % 2 == 0 else np.roll(gpus, -(c + 1))
            for m, gpus in enumerate(nodes)
        ]
        ring = np.concatenate(turns)
        after = np.roll(ring, -1)
        kept = np.full(len(ring), True) if closed else after != nodes[0][0]
        channel.append(np.full(int(kept.sum()), c))
        src.append(ring[kept])
        dst.append(after[kept])
    hops = np.concatenate(src)
    return Hops(np.concatenate(channel), hops, np.concatenate(dst), np.ones(len(hops)))


def layered_hops(nodes: Sequence[Ints]) -> Hops:
    """Lay rings inside nodes and, one for each channel, between GPUs of the same place on every node, which all have as many.

    Channel c carries its part of the buffer over its own ring between nodes, and over all rings inside them.
    """
    table = np.array(nodes)  # [num_nodes, GPUs of each]
    num, each = table.shape
    along, across = np.roll(table, -1, axis=1), np.roll(table, -1, axis=0)
    src = [np.concatenate([table.ravel(), table[:, c]]) for c in range(each)]
    dst = [np.concatenate([along.ravel(), across[:, c]]) for c in range(each)]
    part = np.repeat([(each - 1) / each, (num - 1) / num], [num * each, num])
    channel = np.repeat(np.arange(each), num * each + num)
    return Hops(channel, np.concatenate(src), np.concatenate(dst), np.tile(part, each))


def tree_hops(nodes: Sequence[Ints], *, chains: bool = True) -> Hops:
    """Lay two binary trees between nodes for each channel; every edge carries sums up and results down.

    A chain through the GPUs of each node ends at the channel's GPU, which is on the trees, unless the switch
    sums. Channel 2 c + t is tree t of the rail c.
    """
    channel, src, dst = [], [], []
    for c in range(num_channels(nodes)):
        heads = np.array([gpus[c] for gpus in nodes])
        inside = [np.roll(gpus, -c) for gpus in nodes] if chains else []
        for tree, parent in enumerate(tree_parents(len(nodes))):
            child = np.flatnonzero(parent >= 0)
            low = np.concatenate([heads[child], *(chain[1:] for chain in inside)])
            high = np.concatenate([heads[parent[child]], *(chain[:-1] for chain in inside)])
            channel.append(np.full(2 * len(low), 2 * c + tree))
            src += [low, high]
            dst += [high, low]
    hops = np.concatenate(src)
    return Hops(np.concatenate(channel), hops, np.concatenate(dst), np.ones(len(hops)))


def tree_parents(num: int) -> tuple[Ints, Ints]:
    """Double binary tree of so many nodes: the parent of each in either tree, -1 at the root.

    Inner nodes of one are leaves of the other.
    References
    ----------
    Sanders, Speck, Träff, Two-tree algorithms for full bandwidth broadcast, reduction and scan (2009); NCCL, trees.cc.

    Examples
    --------
    >>> [tree.tolist() for tree in tree_parents(4)]
    [[-1, 2, 0, 2], [1, 3, 1, -1]]
    """
    place = np.arange(num)
    low = place & -place  # the lowest bit that is set
    parent = (place ^ low) | (low << 1)
    parent = np.where(place == 0, -1, np.where(parent < num, parent, place ^ low))
    other = (place - 1) % num if num % 2 else num - 1 - place  # shifted, or mirrored
    back = np.argsort(other)
    above = parent[other]
    return parent, np.where(above >= 0, back[above], -1)
