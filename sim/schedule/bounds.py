"""Times of an all-to-all by arithmetic alone: bounds that no machine beats, and the closed form of uniform traffic.

`lower_bound_s` is bytes over datasheet rate on the busiest resource: no latency, no efficiency; a simulated time below
it is a bug. `closed_form_s` adds what the kernel achieves and its fixed time, on the mean rank; it is the oracle that
the flow level must meet within 2 % under uniform expected traffic.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    times = x.mean_times_s()
    fixed = x.latency_s()
    binding = max(times, key=lambda name: times[name])
    return fixed + times[binding], binding if times[binding] >= fixed else "latency"
