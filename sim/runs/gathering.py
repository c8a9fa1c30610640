"""The error that gathered completions leave, stated with every result that has them.

A completion is put off by part of the window, so times err in proportion to it: what changes when the window is doubled is
about the error of the window itself. On 16,256 unequal flows between 128 hosts a window of 0.1 % puts flows 0.07 % off.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sim.cluster.topology import Floats
from sim.runs.kinds import Progress, Result, runner
from sim.scenario.descriptions import Scenario


def error_of(scenario: Scenario, result: Result, progress: Progress) -> dict[str, Any]:
    """Estimate the error of gathered completions by a run with twice the window.

    The window, and the mean and the largest difference of the time of a flow or rank, as parts of that time.
    """
    progress(f"{scenario.name}: again with twice the window, for the error")
    coarser = replace(scenario, gather_fraction=2 * scenario.gather_fraction)
    ours, theirs = _times_s(result), _times_s(runner(scenario.kind).run(coarser, lambda _: None))
    differs = np.abs(theirs - ours) / np.where(ours > 0, ours, 1.0)
    return {
        "gather_fraction": scenario.gather_fraction,
        "mean_error_fraction": float(differs.mean()),
        "worst_error_fraction": float(differs.max()),
    }


def _times_s(result: Result) -> Floats:
    """Time of each flow, or of each rank in each collective."""
    if "flow_completion" in result:
        _, released_us, done_us = np.array(result["flow_completion"]).T
        return np.asarray((done_us - released_us) * 1e-6)
    kernels = result["timeline"]["kernels"]
    return np.concatenate([np.array(kernel["rank_ends_s"]) - kernel["start_s"] for kernel in kernels])
