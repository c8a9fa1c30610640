"""Launches that only move bytes: norms, casts, transposes, permutations."""

from __future__ import annotations

import math

from sim.cost.compute import Processor


def streaming_s(
    p: Processor, moved_bytes: float, *, blocks: int | None = None, resident_grid: bool = False
) -> float:
    """Time of a launch that only moves bytes.

    Parameters
    ----------
    p : Processor
    moved_bytes : float [bytes]
        Bytes read and written.
    blocks : int, optional [count]
        Thread blocks, where there are fewer than SMs: each has one SM's share of the HBM rate.
    resident_grid : bool
        The launch has one round of blocks for every SM of the whole GPU (row norms do); on fewer SMs the rest waits for a
        second round.

    Returns
    -------
    float [s]

    Notes
    -----
    t = launch + rounds x bytes / (HBM rate x efficiency x min(1, blocks / SMs)).

    References
    ----------
    Launch: ai-dynamo/aiconfigurator @095f58a, the files of systems/ (constant time of a memory-bound kernel).

    Examples
    --------
    >>> from sim.cluster.hardware import load_hardware
    >>> from sim.cost.compute import processor
    >>> p = processor(load_hardware("h800"))
    >>> round((streaming_s(p, 2e9) - streaming_s(p, 1e9)) * 1e6)  # a gigabyte at 0.81 of 3,350 GB/s [us]
    369
    """
    rate = p.hbm_bytes_per_s * p.streaming_fraction
    if blocks is not None:
        rate *= min(1.0, blocks / p.whole_sms)
    rounds = math.ceil(p.whole_sms / p.sms) if resident_grid else 1
    return p.curves.streaming.launch_s + rounds * moved_bytes / rate
