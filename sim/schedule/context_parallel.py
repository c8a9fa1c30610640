"""Keys and values of the other parts of a sequence: gathered before the core of attention, or passed round a ring next to it."""

from __future__ import annotations

from sim.schedule.reductions import Links, scatter_s


def context_parallel_s(links: Links, kv_bytes: float, cp: int, near: int | None = None) -> float:
    """Time to gather the keys and values of the other parts of a sequence for one attention block.

    Parameters
    ----------
    links : Links
    kv_bytes : float
        Keys and values of the whole sequence [bytes].
    cp, near : int
        Ranks that share a sequence, and those of them on each node, as in `scatter_s` [count].

    Returns
    -------
    float
        The time [s].
    """
    return scatter_s(links, kv_bytes, cp, near)


def ring_step_s(links: Links, kv_bytes: float, cp: int, near: int | None = None) -> float:
    """Time of one step of a ring of CP: each rank hands the part of the keys and values that it holds to the next.

    Parameters
    ----------
    links : Links
    kv_bytes : float
        Keys and values of the whole sequence [bytes].
    cp, near : int
        Ranks that share a sequence, and those of them on each node, as in `scatter_s` [count].

    Returns
    -------
    float
        The time [s]: of the NIC, where the ring leaves a node anywhere.
    """
    near = min(cp, near or links.gpus_per_node)
    rate = links.scale_up_bytes_per_s if near >= cp else links.nic_bytes_per_s
    return links.latency_s + kv_bytes / cp / rate


def ring_exposed_s(step_s: float, core_s: float, cp: int) -> float:
    """Time by which a ring of CP is longer than the core of attention that runs next to it.

    Parameters
    ----------
    step_s : float [s]
        One step, as of `ring_step_s`.
    core_s : float [s]
        The core of a rank's queries over all keys, which comes in as many equal blocks.
    cp : int [count]

    Returns
    -------
    float
        The time [s].

    Notes
    -----
    A rank has a part from both ends of the sequence, so that each of its blocks is as long under a causal mask. Its own is there,
    and each other comes while the one before is computed: t = core + (cp - 1) max(0, step - core / cp).

    References
    ----------
    Ring attention, arXiv 2310.01889; keys and values passed on in prefill, arXiv 2411.01783; Transformer Engine, `cp_comm_type: p2p`.

    Examples
    --------
    >>> ring_exposed_s(2.0, 4.0, 4)
    3.0
    """
    return (cp - 1) * max(0.0, step_s - core_s / cp)
