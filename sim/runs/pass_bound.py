"""The least time of a pass: what it must compute, move through HBM and send, each alone, at datasheet rates.

Three resources, of which the busiest bounds the pass:

- compute: the FLOPs of every launch over the dense peak of its own format, an FP8 projection at the FP8 peak and a BF16
  attention core at the BF16 peak, summed along the compute stream;
- HBM: the bytes of the same launches over its rate;
- links: the bytes of all collectives over the rate of the link that they load most.

The first two are of the rank that has most of them. Launches are those that the pass runs (`kernels` of a result lists a
layer of them), so a pass of two microbatches reads its weights twice. No launch is faster than its FLOPs over its peak or
its bytes over HBM's rate, and the launches of a rank run one after the other: no latency and no efficiency is in it.
"""

from __future__ import annotations

import numpy as np

from sim.cost.work import dense_peaks, hbm_bytes, least_s
from sim.runs import passes
from sim.runs.passes import ForwardPass
from sim.schedule import bounds
from sim.schedule import inference as plans


def bounds_s(forward: ForwardPass) -> dict[str, float]:
    """Bound a pass by `compute`, `hbm` and `links` alone [s]; the longest bounds the pass."""
    plan, collectives = forward.plan, forward.collectives
    peaks = dense_peaks(plan.hardware.gpu)
    ends = passes.ends(forward).values()
    need = np.zeros((2, plan.ranks))
    need[0] = sum(least_s(part, peaks) for part in ends)
    need[1] = sum(hbm_bytes(part) for part in ends)
    for node in plan.program():
        if node.collective is None:
            need += passes.need(forward, node)[1:]
    compute_s, moved_bytes = need.max(axis=1)
    turns = len(plan.blocks.layers) // plan.num_drawn
    turns *= plan.num_microbatches // len(collectives.routings[0])
    # Where a kernel's slowdown next to compute is less than 1, so is its bound.
    slowdowns = [plan.work.kernel.slowdown(name) for name in plans.COLLECTIVES] if plan.in_background else []
    return {
        "compute": float(compute_s),
        "hbm": float(moved_bytes) / plan.hardware.gpu.hbm.bandwidth_bytes_per_s,
        "links": bounds.lower_bound_s(collectives.flows, collectives.cluster)
        * turns
        * min([1.0, *slowdowns]),
    }
