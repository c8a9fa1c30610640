"""Sizes of one record of an all-to-all kernel: the payload of a token and what the kernel sends with it."""

from __future__ import annotations


def tagged_bytes(direction: str, payload: int, top_k: int) -> int:
    """Size of a record with its source and, per selected expert, an id and a weight; rounded up to 16 bytes.

    Parameters
    ----------
    direction : str
        "dispatch" or "combine".
    payload : int
        Payload of one token [bytes].
    top_k : int
        Experts that a token selects, whose ids only a dispatch carries [count].

    Returns
    -------
    int
        The size [bytes].

    References
    ----------
    DeepEP, `get_num_bytes_per_token` of csrc/kernels/legacy/internode.cu.
    """
    return -(-(payload + 8 + (8 if direction == "dispatch" else 4) * top_k) // 16) * 16


def headed_bytes(direction: str, payload: int, top_k: int) -> int:
    """Size of a record with a header of 16 bytes in dispatch; in combine, of the bare payload.

    Parameters
    ----------
    direction : str
        "dispatch" or "combine".
    payload : int
        Payload of one token [bytes].
    top_k : int
        Not used; other sizes depend on it.

    Returns
    -------
    int
        The size [bytes].

    References
    ----------
    DeepEP, csrc/kernels/legacy/internode_ll.cu.
    """
    return payload + 16 if direction == "dispatch" else payload


def bare_bytes(direction: str, payload: int, top_k: int) -> int:
    """Size of a record that is the bare payload.

    Parameters
    ----------
    direction : str
        "dispatch" or "combine".
    payload : int
        Payload of one token [bytes].
    top_k : int
        Not used; other sizes depend on it.

    Returns
    -------
    int
        The size [bytes].
    """
    return payload
