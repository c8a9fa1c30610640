"""Point-to-point sends as flows: activations and gradients between pipeline ranks, cabled pair by pair.

Two GPUs of one node use the scale-up switch. Others use the NICs that `paths` names: their own where cables join the
rails, else that of the receiver's rail, behind a hop over scale-up.
"""

from __future__ import annotations

import numpy as np

from sim.cluster import paths
from sim.cluster.kernels import Kernel
from sim.cluster.topology import NONE, Cluster, Floats, Ints
from sim.schedule.collectives import HEADERS
from sim.schedule.flows import Columns, Flows


def send_flows(cluster: Cluster, kernel: Kernel, src: Ints, dst: Ints, payload_bytes: float) -> Flows:
    """One flow for each pair of GPUs.

    Parameters
    ----------
    cluster : Cluster
    kernel : Kernel
        What moves the bytes, as fast as in its `dispatch`.
    src, dst : int, [num_pairs]
        GPUs. A pair of one GPU sends nothing over any link.
    payload_bytes : float
        Of each pair [bytes].

    Returns
    -------
    Flows
        Their parties are the pairs' places, first all senders, then all receivers.

    Raises
    ------
    InfeasibleError
        Where no living path joins a pair.
    """
    c, num = cluster, len(src)
    columns, latency = Columns(num), np.zeros(num)
    near = src // c.gpus_per_node == dst // c.gpus_per_node
    up = 1.0 / kernel.scale_up_efficiency_fraction["dispatch"]
    hop(columns, c, src, dst, near & (src != dst), np.ones(num), up)
    if not near.all():
        away = np.flatnonzero(~near)
        nic = 1.0 / c.nic_reach.fraction(kernel.nic_efficiency_fraction, 0.0)
        leg = paths.leg(c, src[away], dst[away], np.full(len(away), payload_bytes))
        via, a, b = dst.copy(), dst.copy(), dst.copy()
        via[away], a[away], b[away] = leg.via_src, leg.nic_src, leg.nic_dst
        part = np.where(near, 0.0, 1.0)
        for first, last in ((src, via), (via, a)):
            hop(columns, c, first, last, ~near & (first != last), part, up)
        columns.add(np.where(near, NONE, c.nic_tx[a]), part, part * nic)
        columns.add(np.where(near, NONE, c.pcie_tx[a]), part, part * nic)
        for resource, fraction in paths.uplinks(c, a, b):
            columns.add(np.where(near, NONE, resource), part * fraction, part * fraction * HEADERS)
        columns.add(np.where(near, NONE, c.nic_rx[b]), part, part * nic)
        columns.add(np.where(near, NONE, c.pcie_rx[b]), part, part * nic)
        hop(columns, c, b, dst, ~near & (b != dst), part, up)
        latency = np.where(near, 0.0, paths.extra_latency_s(c, a, b))
    place = np.arange(num)
    return columns.pack(
        np.full(num, payload_bytes),
        share=np.full(num, payload_bytes),
        latency_s=latency,
        party_flow=np.concatenate([place, place]),
        party_rank=np.concatenate([place, place]),
    )


def hop(
    columns: Columns, c: Cluster, src: Ints, dst: Ints, where: np.ndarray, part: Floats, line: float
) -> None:
    """Add a hop over the scale-up switch to the columns, for the pairs of GPUs `where` it is taken [num_pairs].

    `part` is the bytes that take it per payload byte, `line` the capacity used up per byte.
    """
    columns.add(np.where(where, c.egress[src], NONE), part, part * line)
    columns.add(np.where(where, c.ingress[dst], NONE), part, part * line)
