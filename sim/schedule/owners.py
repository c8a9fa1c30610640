"""Owners of an all-to-all's bytes: how its flows change when some ranks' experts are wanted more than others'.

Mean traffic is cabled once. When each rank draws `load` times its mean share of every source's tokens, a flow to a rank
carries that much more; a flow to a node, the mean of its ranks' loads more, and each of its ranks takes its own share over
scale-up. The forwarder's own link keeps its mean weight: what it passes on to seven others varies by a seventh as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.cluster.topology import NONE, Ints
from sim.schedule.collectives import Collective
from sim.schedule.flows import Flows


@dataclass(frozen=True, slots=True)
class Owners:
    """Which ranks' loads scale the flows of a collective.

    Parameters
    ----------
    flow : int, [num_flows]
        Place in `ranks` of whom a flow's bytes are for.
    ranks : sequence of int arrays
        Ranks whose mean load scales what they own.
    entry : int, [num_entries]
        Rank whose load over its flow's scales an entry; -1 where none does.
    """

    flow: Ints
    ranks: Sequence[Ints]
    entry: Ints


def owners(collective: Collective, flows: Flows) -> Owners:
    """Who owns the flows that a dispatch or combine puts on the links."""
    dispatch, num = collective.direction == "dispatch", len(collective.gpus)
    if not collective.kind.flow_per_node:  # a flow belongs to the rank that holds the experts
        half = len(flows.party_rank) // 2
        flow = flows.party_rank[half:] if dispatch else flows.party_rank[:half]
        return Owners(flow, [np.array([rank]) for rank in range(num)], np.full(len(flows.resource), NONE))
    # A flow belongs to the node that holds the experts; each of its ranks takes its share over scale-up.
    first = np.flatnonzero(np.diff(flows.party_flow[flows.num_flows :], prepend=-1))
    node_of_rank, cluster = collective.routing.node_of_rank, collective.cluster
    rank = np.full(len(cluster.names), NONE)
    rank[(cluster.ingress if dispatch else cluster.egress)[collective.gpus]] = np.arange(num)
    flow, entry = node_of_rank[flows.party_rank[flows.num_flows + first]], rank[flows.resource]
    elsewhere = (
        node_of_rank[entry] != flow[flows.flow_of_entry]
    )  # a hop to a borrowed NIC, before the bytes leave their node
    return Owners(
        flow=flow,
        ranks=[np.flatnonzero(node_of_rank == node) for node in range(int(node_of_rank.max()) + 1)],
        entry=np.where(elsewhere, NONE, entry),
    )
