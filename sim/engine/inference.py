"""A forward pass in time: two streams of one EP group, clocks as vectors over its ranks.

A compute node takes each rank its own time: a rank with more tokens on its experts is late. A collective that starts with a
barrier starts everywhere when the last rank is there; one without (`schedule.collectives.Kind`) starts when its own rank is
ready, and ends on a rank when its own traffic is done and the last sender's has come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sim.cluster.topology import Floats
from sim.schedule.inference import COMPUTE, PassNode

Duration = Callable[[PassNode], Floats]
"""Time of a node on each rank [num_ranks]: compute, or an exchange alone."""


@dataclass(frozen=True, slots=True)
class PassRecord:
    """A pass as it ran; spans are means over ranks, [nodes] [s]."""

    end_s: Floats  # [num_ranks]
    start_s: Floats  # [nodes]
    finish_s: Floats  # [nodes]
    waited_s: Floats  # [num_ranks], the compute stream stood and waited for an exchange
    skew_s: Floats  # [num_ranks], of it the wait for slower ranks
    busy_s: dict[str, float] = field(default_factory=dict)  # part -> time on its stream, mean over ranks


def run_pass(nodes: Sequence[PassNode], duration: Duration, num_ranks: int, *, barrier: bool) -> PassRecord:
    """Run a program; `barrier` says whether exchanges start with one."""
    zero = np.zeros(num_ranks)
    compute, communication = zero, zero
    waited, skew = np.zeros(num_ranks), np.zeros(num_ranks)
    starts, takes, ends = (np.empty((len(nodes), num_ranks)) for _ in range(3))
    for index, node in enumerate(nodes):
        free = compute if node.stream == COMPUTE else communication
        ready = free
        for other in node.waits:
            ready = np.maximum(ready, ends[other])
        starts[index], takes[index] = ready, duration(node)
        if node.stream == COMPUTE:
            waited += ready - free
            compute = np.add(ready, takes[index], out=ends[index])
        else:
            last = float(ready.max())
            skew += last - ready
            # The last sender's bytes need what an unhindered rank needs.
            if barrier:
                communication = np.add(last, takes[index], out=ends[index])
            else:
                least = last + float(takes[index].min())
                communication = np.maximum(ready + takes[index], least, out=ends[index])
    end = np.maximum(compute, communication)
    waited += end - compute
    busy: dict[str, float] = {}
    for node, mean_s in zip(nodes, takes.mean(axis=1).tolist(), strict=True):
        busy[node.part] = busy.get(node.part, 0.0) + mean_s
    return PassRecord(end, starts.mean(axis=1), ends.mean(axis=1), waited, skew, busy)
