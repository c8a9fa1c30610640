"""Times of an all-to-all by arithmetic alone: bounds that no machine beats, and the closed form of uniform traffic.

`lower_bound_s` is bytes over datasheet rate on the busiest resource: no latency, no efficiency; a simulated time below
it is a bug. `closed_form_s` adds what the kernel achieves and its fixed time, on the mean rank; it is the oracle that
the flow level must meet within 2 % under uniform expected traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sim.cluster.topology import CLASSES, Cluster, Floats
from sim.schedule.collectives import Collective
from sim.schedule.flows import Flows


def busiest(flows: Sequence[Flows], cluster: Cluster) -> tuple[float, int]:
    """Find the resource that bounds the time of flows which start together.

    Parameters
    ----------
    flows : sequence of Flows
    cluster : Cluster
        Its capacities are datasheet rates.

    Returns
    -------
    float, int
        The lower bound [s], and the row of the resource that sets it (-1, where none is used).
    """
    num = len(cluster.names)
    load = np.zeros(num)
    for batch in flows:
        load += batch.bytes_by_resource(num)
    load[cluster.class_idx == CLASSES.index("copy_sms")] = 0.0  # what an SM copies is no datasheet rate
    times = _times(load, cluster.capacity)
    row = int(times.argmax()) if num else -1
    return (float(times[row]), row) if row >= 0 and times[row] > 0 else (0.0, -1)


def lower_bound_s(flows: Sequence[Flows], cluster: Cluster) -> float:
    """Divide bytes by datasheet rate on the busiest resource.

    Parameters
    ----------
    flows : sequence of Flows
        Flows that start together.
    cluster : Cluster

    Returns
    -------
    float
        Time that no schedule of these flows beats [s].
    """
    return busiest(flows, cluster)[0]


def _times(load: Floats, capacity: Floats) -> Floats:
    return np.divide(load, capacity, out=np.zeros(len(load)), where=(load > 0) & (capacity > 0))


class _MeanBytes(NamedTuple):
    """Bytes that the mean rank of uniform traffic puts on its links and copies [bytes]."""

    nic: float
    scale_up: float
    taken_in: float
    copied: float


def _node_means(x: Collective) -> _MeanBytes:
    r, nodes = x.routing, x.num_nodes
    tokens, per_node = r.tokens_per_rank * x.record_bytes, len(x.gpus) / nodes
    nic = tokens * r.nodes_per_token * (1 - 1 / nodes)
    everyone = tokens * r.ranks_per_token
    return _MeanBytes(nic, everyone * (1 - 1 / per_node), tokens * r.nodes_per_token, everyone)


def _pair_means(x: Collective) -> _MeanBytes:
    r, p = x.routing, len(x.gpus)
    per_node = p / x.num_nodes
    copies = float(x.records.sum() / p / r.tokens_per_rank)
    sent = r.tokens_per_rank * x.record_bytes * copies
    away, near = 1 - per_node / p, (per_node - 1) / p  # to other nodes, to other ranks of the own node
    if not x.kind.takes_nvlink(x):
        away, near = 1 - 1 / p, 0.0
    nic, scale_up = sent * away, sent * near
    if x.kind.forwards_to_rail(x) or not x.cluster.planes_joined:
        scale_up += nic * (1 - 1 / per_node)
    return _MeanBytes(nic, scale_up, sent * (1 - 1 / p), sent * (1 - 1 / p))


def closed_form_s(x: Collective) -> tuple[float, str]:
    """Time of the mean rank of a collective in closed form.

    Parameters
    ----------
    x : Collective

    Returns
    -------
    float, str
        The time [s], and the class of resource that binds it; "latency", where the fixed time is the longest part.

    Notes
    -----
    Each class of resource takes its bytes over what the kernel achieves of it, all at once; the longest counts, and
    the kernel's fixed time is added:

        t = latency + max(nic / (eff_nic B_nic), scale_up / (eff_up B_up), copy time of its SMs)

    Valid for uniform traffic on a fabric whose uplinks do not bind, with every NIC alike.
    """
    c, k, mean = x.cluster, x.kernel, _node_means(x) if x.kind.flow_per_node else _pair_means(x)
    up_rate = k.scale_up_efficiency_fraction[x.direction] * float(c.capacity[c.egress[x.gpus[0]]])
    times = {"scale_up": mean.scale_up / up_rate}
    if x.uses_nic:
        nic_rate = x.nic_efficiency_fraction * float(c.capacity[c.nic_tx[x.gpus[0]]])
        times["nic"] = (
            mean.nic * c.gpus_per_nic / nic_rate + k.exposed_fraction(x.direction) * times["scale_up"]
        )
    times["copy_sms"] = float(
        k.copy_s(x.direction, x.record_bytes, mean.copied, mean.taken_in, uses_nic=x.uses_nic, sms=x.comm_sms)
    )
    fixed = x.latency_s()
    binding = max(times, key=lambda name: times[name])
    return fixed + times[binding], binding if times[binding] >= fixed else "latency"
