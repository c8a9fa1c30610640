"""Sizes of one record of an all-to-all kernel: the payload of a token and what the kernel sends with it."""

from __future__ import annotations


def tagged_bytes(direction: str, payload: int, top_k: int) -> int:
    """Size of a record with its source and, per selected expert, an id and a weight; rounded up to 16 bytes.

    Only a dispatch carries the ids of the experts.

    References
    ----------
    DeepEP, `get_num_bytes_per_token` of csrc/kernels/legacy/internode.cu.
    """
    return -(-(payload + 8 + (8 if direction == "dispatch" else 4) * top_k) // 16) * 16


def headed_bytes(direction: str, payload: int, top_k: int) -> int:
    """Size of a record with a header of 16 bytes in dispatch; in combine, of the bare payload.

    References
    ----------
    DeepEP, csrc/kernels/legacy/internode_ll.cu.
    """
    return payload + 16 if direction == "dispatch" else payload


def bare_bytes(direction: str, payload: int, top_k: int) -> int:
    """Size of a record that is the bare payload."""
    return payload
