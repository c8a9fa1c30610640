"""Parts of a cluster: the GPUs that a job takes of it, while the rest idles.

Ranks stand node after node, equally many on each. GPUs keep their numbers in the whole cluster (`node * domain + index`), so
leaves, rails and faults are where they are, whichever nodes a job has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.cluster.topology import Ints
from sim.errors import InputError, Problem


@dataclass(frozen=True, slots=True)
class ClusterPart:
    """The first GPUs of some nodes.

    Parameters
    ----------
    nodes : tuple of int
        In the order of ranks.
    gpus_per_node : int [count]
        GPUs in use on each.
    domain : int [count]
        GPUs that a node has.
    """

    nodes: tuple[int, ...]
    gpus_per_node: int
    domain: int

    @property
    def num_gpus(self) -> int:
        """GPUs in use [count]."""
        return len(self.nodes) * self.gpus_per_node

    @property
    def gpus(self) -> Ints:
        """GPU of each rank, [num_gpus]."""
        first = np.array(self.nodes, dtype=np.int64)[:, None] * self.domain
        return (first + np.arange(self.gpus_per_node)).ravel()


def part_of(
    num_nodes: int, domain: int, *, gpus: int | None = None, use_nodes: Sequence[int] | None = None
) -> ClusterPart:
    """Choose the GPUs that a job takes.

    Parameters
    ----------
    num_nodes : int [count]
        Nodes of the cluster.
    domain : int [count]
        GPUs of each.
    gpus : int, optional [count]
        GPUs in use, equally many on each node: on as few nodes as hold them, or on `use_nodes`. All where left out.
    use_nodes : sequence of int, optional
        Nodes in use, in the order of ranks.

    Returns
    -------
    ClusterPart

    Raises
    ------
    InputError
        With the counts, where they do not fit.

    Examples
    --------
    >>> part_of(1, 72, gpus=64).num_gpus
    64
    >>> part_of(4, 8, gpus=4, use_nodes=[0, 3]).gpus.tolist()
    [0, 1, 24, 25]
    """
    has = f"the cluster has {num_nodes} {'node' if num_nodes == 1 else 'nodes'}"
    nodes = tuple(range(num_nodes) if use_nodes is None else use_nodes)
    if use_nodes is not None:
        unknown = [node for node in nodes if not 0 <= node < num_nodes]
        wanted = f"nodes 0 to {num_nodes - 1}, each once: {has}"
        if unknown or len(set(nodes)) < len(nodes) or not nodes:
            twice = next((node for node in nodes if nodes.count(node) > 1), None)
            got = f"node {unknown[0]}" if unknown else "no node" if not nodes else f"node {twice} twice"
            raise InputError(Problem(None, "use_nodes", got, wanted))
    if gpus is None:
        return ClusterPart(nodes, domain, domain)
    most = len(nodes) * domain
    if gpus > most:
        those = has if use_nodes is None else f"use_nodes names {len(nodes)}"
        raise InputError(Problem(None, "gpus", str(gpus), f"at most {most}: {those} of {domain} GPUs"))
    if use_nodes is None:
        nodes = nodes[: -(-gpus // domain)]
    if gpus % len(nodes):
        low = gpus // len(nodes) * len(nodes)
        near = " or ".join(str(size) for size in (low, low + len(nodes)) if 0 < size <= most)
        wanted = f"equally many GPUs on each of {len(nodes)} nodes of {domain}: {near}"
        raise InputError(Problem(None, "gpus", str(gpus), wanted))
    return ClusterPart(nodes, gpus // len(nodes), domain)
