"""Mean traffic of a rank in an all-to-all with even loads: the bytes of the closed form."""

from __future__ import annotations

from typing import NamedTuple

from sim.cluster.topology import Floats
from sim.workload.traffic import Routing


class MeanBytes(NamedTuple):
    """Bytes that the mean rank puts on its links and copies [bytes]."""

    nic: float
    scale_up: float
    taken_in: float
    copied: float


def through_nodes(r: Routing, record_bytes: float, num_nodes: int) -> MeanBytes:
    """Count a record to each node of a token, where it goes on to each rank."""
    tokens, per_node = r.tokens_per_rank * record_bytes, r.num_ranks / num_nodes
    to_nodes, to_ranks = tokens * r.nodes_per_token, tokens * r.ranks_per_token
    return MeanBytes(
        to_nodes * (1 - 1 / num_nodes),
        to_ranks * (1 - 1 / per_node),
        to_nodes,
        to_ranks,
    )


def between_pairs(
    r: Routing, records: Floats, record_bytes: float, num_nodes: int, *, by_nic: bool, to_rail: bool
) -> MeanBytes:
    """Count records that go straight to their rank [ep, ep].

    `by_nic`: records to the own node take the NIC too. `to_rail`: records to other nodes take scale-up to the
    receiver's rail first.
    """
    p = r.num_ranks
    per_node = p / num_nodes
    copies = float(records.sum() / p / r.tokens_per_rank)
    sent = r.tokens_per_rank * record_bytes * copies
    away, near = 1 - per_node / p, (per_node - 1) / p  # to other nodes, to other ranks of the own node
    if by_nic:
        away, near = 1 - 1 / p, 0.0
    nic, scale_up = sent * away, sent * near
    if to_rail:
        scale_up += nic * (1 - 1 / per_node)
    return MeanBytes(nic, scale_up, sent * (1 - 1 / p), sent * (1 - 1 / p))
