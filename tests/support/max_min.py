"""Weighted max-min fairness once more, by whole arrays: what the sharing law is tested against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.cluster.topology import Floats, Ints


@dataclass(frozen=True, slots=True)
class Rates:
    """A rate solution."""

    rate: Floats  # [num_flows], bytes/s; infinite for a flow without entries
    used: Floats  # [num_resources], capacity in use
    bottleneck: Ints  # [num_flows], the resource that froze the flow, -1 where none did


def max_min_rates(
    start: Ints, resource: Ints, line: Floats, share: Floats, capacity: Floats, active: npt.NDArray[np.bool_]
) -> Rates:
    """Weighted max-min fair rates of the active flows, by progressive filling."""
    flow = np.repeat(np.arange(len(share)), np.diff(start))
    rate = np.zeros(len(share))
    rate[active & (np.diff(start) == 0)] = np.inf
    bottleneck = np.full(len(share), -1)
    free = capacity.copy()
    waiting = active[flow]  # [num_entries]
    flow, resource, weight = flow[waiting], resource[waiting], (line * share[flow])[waiting]
    while len(flow):
        demand = np.bincount(resource, weight, len(capacity))
        level = np.full(len(capacity), np.inf)
        np.divide(np.maximum(free, 0.0), demand, out=level, where=demand > 0)
        lowest = level.min()
        holds = (level <= lowest * (1 + 1e-12))[resource]
        frozen = np.zeros(len(share), dtype=bool)
        frozen[flow[holds]] = True
        bottleneck[flow[holds]] = resource[holds]
        rate[frozen] = share[frozen] * lowest
        taken = frozen[flow]
        free -= np.bincount(resource[taken], weight[taken] * lowest, len(capacity))
        flow, resource, weight = flow[~taken], resource[~taken], weight[~taken]
    return Rates(rate, capacity - np.maximum(free, 0.0), bottleneck)
