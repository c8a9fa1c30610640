"""Failures of large clusters by the one rate that a fleet published, and runs under stated conditions played by events."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sim.engine.failures import run_failures

_NODE_MTBF_S = 1000 / 6.5 * 86_400
"""Of a node of 8 GPUs: 6.5 failures for every 1,000 node-days (arXiv 2410.21680)."""
_GPUS = {"gpus-16384": 16_384, "gpus-100000": 100_000, "gpus-131072": 131_072, "llama3-16384": 16_384}
_CONDITIONS = {
    "mtbf-18min": (1080.0, 360.0, 60.0, 300.0),
    "mtbf-3h": (11_076.0, 1800.0, 60.0, 900.0),
    # 9,600 GPUs at that rate; the state of every step is kept, at 0.9 % of its time; the restart is assumed.
    "byterobust-moe": (_NODE_MTBF_S / 1200, 20.0, 0.18, 900.0),
}
"""Mean time between failures, training between checkpoints, time of a checkpoint and of a restart [s]."""
_FAILURES = 100_000


def _mtbf_s(cluster: str) -> float:
    """Mean time between failures of so many GPUs at the rate of the fleet [s]."""
    return _NODE_MTBF_S / (_GPUS[cluster] / 8)


def _ettr(conditions: str) -> float:
    """Effective training time ratio of a long run under some conditions."""
    mtbf_s, every_s, write_s, restart_s = _CONDITIONS[conditions]
    run = run_failures(
        1e18,
        {"node": mtbf_s},
        every_s=every_s,
        write_s=write_s,
        restart_s=restart_s,
        rng=np.random.default_rng(0),
        most=_FAILURES,
    )
    return run.trained_s / run.wall_s


FACTS: dict[str, Callable[[str], float]] = {
    "failures.mtbf_s": _mtbf_s,
    "failures.ettr_fraction": _ettr,
}
"""Quantities of a file of facts, each of a subject by its name."""
