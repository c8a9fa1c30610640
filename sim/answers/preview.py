"""Previews: a step of unlike ranks takes seconds to run; with ranks that are all alike it runs in a fraction of one.

What a preview leaves out is skew alone: routed loads, kernels and GPUs then take what the mean of them takes.
"""

from __future__ import annotations

from sim.answers.changed import lay
from sim.documents import Document
from sim.errors import InfeasibleError, InputError
from sim.scenario import resolve as scenarios
from sim.scenario.training import Training

_MOST = 2**13
"""Microbatches of all ranks of a pipeline of EP groups, each of which ends at an instant of its own: 60 microseconds of the run each."""
_ALIKE = {"routed_load": 0, "kernel_jitter": 0, "gpu_spread": 0}


def preview(document: Document) -> Document | None:
    """Return a scenario with ranks that are alike; None where it runs within a second as it is, or cannot be."""
    return lay(document, {"workload.skew": _ALIKE}) if num_unlike(document) >= _MOST else None


def num_unlike(document: Document) -> int:
    """Count the microbatches of a training step each of which ends at an instant of its own; 0 of ranks that are alike, or of no step."""
    if document.get(("workload", "kind")) != "training":
        return 0
    try:
        scenario = scenarios.resolve(document)
    except (InputError, InfeasibleError):
        return 0
    work = scenario.workload
    assert isinstance(work, Training)
    layout = work.layout
    unlike = any(getattr(work.skew, name) for name in _ALIKE)
    return layout.pp * layout.ep * work.num_microbatches if unlike else 0
