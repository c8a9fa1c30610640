"""Lists of GPUs that stand alike in a cluster, so that what is cabled for one of them is cabled for all, on other rows.

Two lists are alike where the same places of both share nodes, leaves and pods, in the same order of numbers; their GPUs have
the same places in their nodes, and these nodes the same cables of the same capacities. All that a rule can ask of the
cluster by these GPUs is then the same but for the rows of resources, which correspond one to one. Uplinks that are chosen by
a hash of the GPUs' own numbers make no two lists alike.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.cluster.topology import NONE, Cluster, Ints

_TABLES = ("egress", "ingress", "pcie_tx", "pcie_rx", "hbm", "copy_sms", "nic_tx", "nic_rx")


class Alike:
    """Which lists of GPUs are alike.

    Parameters
    ----------
    cluster : Cluster
    gpus : int, [num_lists, num_gpus]
    """

    def __init__(self, cluster: Cluster, gpus: Ints) -> None:
        self.cluster, self.gpus = cluster, gpus

    @cached_property
    def first(self) -> list[int]:
        """The first list that each is alike, itself where there is none before it, [num_lists]."""
        c, num = self.cluster, len(self.gpus)
        if c.up.size and c.up.shape[1] > 1:
            return [*range(num)]
        gpn = c.gpus_per_node
        node = self.gpus // gpn
        nodes_alike = self._nodes_alike[node]
        whole = (node[:, :, None] * gpn + np.arange(gpn)).reshape(num, -1)
        leaf = c.leaf[whole]
        pod = np.where(leaf >= 0, np.append(c.pod_of_leaf, NONE)[leaf], NONE)
        signs = np.hstack(
            [self.gpus % gpn, nodes_alike, *map(_ordinals, (node, leaf, pod)), np.minimum(leaf, 0)]
        )
        return _first_equal(signs)

    @cached_property
    def _nodes_alike(self) -> Ints:
        """A number for each node, the same for those that have the same cables and capacities, [num_nodes]."""
        c = self.cluster
        rows = np.hstack([getattr(c, name).reshape(c.num_nodes, -1) for name in _TABLES])
        capacity = np.where(rows == NONE, np.nan, c.capacity[rows])
        return np.array(_first_equal(np.hstack([_ordinals(rows), capacity.view(np.int64)])), dtype=np.int64)

    def rows(self, i: int) -> Ints:
        """All rows that bytes between the nodes of a list may cross; those of alike lists correspond place by place."""
        c, gpn = self.cluster, self.cluster.gpus_per_node
        whole = (np.unique(self.gpus[i] // gpn)[:, None] * gpn + np.arange(gpn)).ravel()
        leaves = np.unique(c.leaf[whole])
        leaves = leaves[leaves != NONE]
        pods = np.unique(c.pod_of_leaf[leaves])
        return np.concatenate(
            [
                *(getattr(c, name)[whole] for name in _TABLES),
                *(table[leaves].ravel() for table in (c.up, c.down)),
                *(table[pods] for table in (c.pod_up, c.pod_down)),
            ]
        )

    def places(self, resource: npt.NDArray[np.integer[Any]], i: int) -> Ints:
        """Places in `rows` of a list of resources that its bytes cross, [any number]."""
        rows = self.rows(i)
        order = np.argsort(rows, kind="stable")
        places = order[np.searchsorted(rows[order], resource)]
        assert np.array_equal(rows[places], resource), "bytes cross nothing but what is of their nodes"
        return places


def _first_equal(signs: Ints) -> list[int]:
    """The first row that each is equal to, itself where there is none before it."""
    known: dict[bytes, int] = {}
    return [known.setdefault(sign.tobytes(), i) for i, sign in enumerate(signs)]


def _ordinals(numbers: Ints) -> Ints:
    """Number the values of each row by their order: equal for rows in which the same places hold equal and larger values."""
    order = np.argsort(numbers, axis=1, kind="stable")
    sorted_ = np.take_along_axis(numbers, order, axis=1)
    rank = np.zeros_like(numbers)
    rank[:, 1:] = np.cumsum(sorted_[:, 1:] != sorted_[:, :-1], axis=1)
    placed = np.empty_like(numbers)
    np.put_along_axis(placed, order, rank, axis=1)
    return placed
