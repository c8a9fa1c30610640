"""All-reduces of few bytes, for which GPUs of a scale-up domain read each other's memory."""

from __future__ import annotations

from sim.schedule.reductions import Links


def direct_all_reduce_s(links: Links, total_bytes: float, num_ranks: int, launch_s: float) -> float:
    """Time of an all-reduce among the GPUs of a scale-up domain that read each other's memory, as serving engines do where bytes are few.

    Parameters
    ----------
    links : Links
    total_bytes : float
        Bytes of the whole buffer [bytes].
    num_ranks : int
        Ranks that take part [count].
    launch_s : float
        Constant time of a launch [s].

    Returns
    -------
    float
        The time of the faster of two forms [s].

    Notes
    -----
    In one shot every rank reads the buffers of all others between two barriers: S (n - 1) bytes, two flags one way and a read there
    and back. In two, it sums its part, and after a third barrier reads the sums of the others: 2 S (n - 1) / n bytes, and a read more.

    References
    ----------
    `cross_device_reduce_1stage` and `_2stage` of vLLM and SGLang (csrc/custom_all_reduce.cuh); TensorRT-LLM has both, too.
    """
    once, flag_s = total_bytes * (num_ranks - 1) / links.scale_up_bytes_per_s, links.flag_s
    return launch_s + min((2 + 2) * flag_s + once, (3 + 4) * flag_s + 2 * once / num_ranks)
