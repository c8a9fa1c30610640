"""The least time of a pass: what it must compute, move through HBM and send, each alone, at datasheet rates.

Three resources, of which the busiest bounds the pass:

- compute: the FLOPs of every kernel over the dense peak of its own format, an FP8 projection at the FP8 peak and a BF16
  attention core at the BF16 peak, summed along the compute stream;
- HBM: the bytes of the same kernels over its rate;
- links: the bytes of all exchanges over the rate of the link that they load most.

The first two are of the rank that has most of them. Kernels are those that the pass runs (`kernels` of a result lists a
layer of them), so a pass of two microbatches reads its weights twice. No kernel is faster than its FLOPs over its peak or
its bytes over HBM's rate, and the kernels of a rank run one after the other: no latency, no launch, no efficiency is in it.
"""

from __future__ import annotations

import numpy as np

from sim.cost.work import hbm_bytes, least_s
from sim.runs.passes import Pass
from sim.schedule import bounds
from sim.schedule import inference as plans


def bounds_s(one: Pass) -> dict[str, float]:
    """Time that each class of resource needs alone, `compute`, `hbm` and `links` [s]; the longest bounds the pass."""
    ends = one.ends().values()
    need = np.zeros((2, one.ranks))
    need[0] = sum(least_s(part, one.peaks) for part in ends)
    need[1] = sum(hbm_bytes(part) for part in ends)
    for node in one.program():
        if node.stream == plans.COMPUTE:
            need += one.need(node)[1:]
    compute_s, moved_bytes = need.max(axis=1)
    flows = [solved.flows for solved in one.solved.values()]
    turns = len(one.blocks.layers) // one.drawn * (one.halves // len(one.routings[0]))
    beside = one.work.spec.overlap and not one.phases  # where a kernel says less than 1, so does its bound
    less = min(1.0, *(one.work.kernel.slowdown(name) for name in plans.COLLECTIVES)) if beside else 1.0
    return {
        "compute": float(compute_s),
        "hbm": float(moved_bytes) / one.hardware.gpu.hbm.bandwidth_bytes_per_s,
        "links": bounds.lower_bound_s(flows, one.cluster) * turns * less,
    }
