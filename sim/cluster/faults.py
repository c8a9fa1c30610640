"""Faults: parts of a cluster that are worse than healthy, for the whole run or between two instants.

A fault lowers capacities of resources (`bandwidth`, `scale_up`, `hbm`), or slows what a GPU computes (`clock`, `hbm`). One that
lasts is known to whoever chooses a path (`paths`); one between two instants changes rates alone, and bytes that meet a dead
link wait for its return.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Cluster = Any  # `topology.Cluster`, which is built with faults
Quantity = Literal["bandwidth", "clock", "hbm", "scale_up"]
QUANTITIES: tuple[Quantity, ...] = ("bandwidth", "clock", "hbm", "scale_up")


@dataclass(frozen=True, slots=True)
class Fault:
    """A part at a fraction of its healthy rate; 0 is dead.

    Parameters
    ----------
    quantity : str
        One of `QUANTITIES`.
    fraction : float
        Of the healthy rate, 0 to 1.
    node, gpu, nic, rail : int or None
        A node, one GPU or NIC of it, or the NIC of that index in every node.
    leaf, link : str or None
        A leaf with all that is cabled to it, or one resource, by their names in `links`.
    from_s, until_s : float [s]
        Instants of the run between which it holds.
    """

    quantity: Quantity
    fraction: float
    node: int | None = None
    gpu: int | None = None
    nic: int | None = None
    rail: int | None = None
    leaf: str | None = None
    link: str | None = None
    from_s: float = 0.0
    until_s: float = math.inf

    @property
    def lasts(self) -> bool:
        """True where it holds for the whole run."""
        return self.from_s <= 0.0 and math.isinf(self.until_s)

    def holds(self, time_s: float) -> bool:
        """True at an instant at which the part is at this fraction."""
        return self.lasts or self.from_s <= time_s < self.until_s

    @property
    def part(self) -> str:
        """Name of the part, for messages."""
        names = [f"{key} {getattr(self, key)}" for key in ("node", "gpu", "nic", "rail", "leaf", "link")]
        return ", ".join(name for name in names if not name.endswith(" None"))

    def gpus(self, num_gpus: int, gpus_per_node: int, gpus_per_nic: int = 1) -> npt.NDArray[np.bool_]:
        """True for the GPUs that it concerns, or whose NICs it does, [num_gpus]; none for a leaf or a link."""
        concerned = np.zeros(num_gpus, dtype=np.bool_)
        if self.leaf is None and self.link is None:
            index: Any = slice(None) if self.gpu is None else self.gpu
            nic = self.rail if self.nic is None else self.nic
            if nic is not None:
                index = slice(nic * gpus_per_nic, (nic + 1) * gpus_per_nic)
            node = slice(None) if self.node is None else self.node
            concerned.reshape(-1, gpus_per_node)[node, index] = True
        return concerned


@dataclass(frozen=True, slots=True)
class Window:
    """Resources that are slower between two instants of the run.

    Parameters
    ----------
    rows : int, [num_rows]
    capacity : float, [num_rows]
    from_s, until_s : float [s]
    """

    rows: npt.NDArray[np.int64]
    capacity: npt.NDArray[np.float64]
    from_s: float
    until_s: float


def changes_s(spans: Iterable[Fault | Window], after_s: float = 0.0) -> list[float]:
    """Instants after another at which faults, or what they make slower, come and go, rising [s]."""
    ends = {end for span in spans for end in (span.from_s, span.until_s)}
    return sorted(end for end in ends if after_s < end < math.inf)


def leaves(cluster: Cluster) -> list[str]:
    """List the leaves of a cluster by name, in the order of `Cluster.leaf`."""
    return [name for name, data in cluster.cables.nodes.items() if data["kind"] == "leaf"]


def rows_of(cluster: Cluster, fault: Fault, gpus_per_node: int) -> npt.NDArray[np.int64]:
    """List the resources that a fault makes slower; a leaf or link that it names is there.

    Nodes that faults count have `gpus_per_node`, whatever joins their GPUs.
    """
    c = cluster
    if fault.link is not None:
        return np.array([c.row(fault.link)], dtype=np.int64)
    if fault.leaf is not None:
        number = leaves(c).index(fault.leaf)
        own = c.leaf == number
        columns: tuple[Any, ...] = (
            c.nic_tx[own],
            c.nic_rx[own],
            *((c.up[number], c.down[number]) if c.up.size else ()),
        )
    else:
        own = fault.gpus(c.num_gpus, gpus_per_node, c.gpus_per_nic)
        of_gpu = {
            "bandwidth": (c.nic_tx, c.nic_rx),
            "scale_up": (c.egress, c.ingress),
            "hbm": (c.hbm,),
            "clock": (),
        }
        columns = tuple(column[own] for column in of_gpu[fault.quantity])
    rows = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *columns]))
    return rows[rows >= 0]


def lowered(cluster: Cluster, faults: Sequence[Fault], gpus_per_node: int) -> Cluster:
    """Lay faults over a healthy cluster: `capacity` is what faults that last leave, the others are `windows`.

    Of two faults of one resource at one time the worse counts.
    """
    capacity, windows = cluster.capacity.copy(), []
    for fault in faults:
        rows = rows_of(cluster, fault, gpus_per_node)
        slower = cluster.capacity[rows] * fault.fraction
        if fault.lasts:
            capacity[rows] = np.minimum(capacity[rows], slower)
        elif len(rows):
            windows.append(Window(rows, slower, fault.from_s, fault.until_s))
    return replace(cluster, capacity=capacity, windows=tuple(windows))
