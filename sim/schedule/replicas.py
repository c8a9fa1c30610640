"""All-to-alls before which replicas of busy experts are copied: a balancer that places them anew for every microbatch.

Why this way: a microbatch's loads are known once its gate has run, when its dispatch starts. Weights then go from the rank that
holds an expert to ranks of its node, over scale-up and next to the tokens, and experts wait for both. What a rank held for the
microbatch before is not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.schedule.collectives import Collective
from sim.schedule.flows import Columns, Flows
from sim.schedule.sends import hop


@dataclass(frozen=True, slots=True, eq=False)
class ReplicatingDispatch(Collective):
    """A dispatch, and the weights of replicas that move next to it, `expert_bytes` for each expert."""

    expert_bytes: float = 0.0

    def flows(self) -> Flows:
        """Write down the bytes that tokens and weights put on the links."""
        source, target = self.routing.moves.T
        columns = Columns(len(source))
        up = 1.0 / self.kernel.scale_up_efficiency_fraction[self.direction]
        ones = np.ones(len(source))
        hop(columns, self.cluster, self.gpus[source], self.gpus[target], source != target, ones, up)
        place, payload = np.arange(len(source)), np.full(len(source), self.expert_bytes)
        weights = columns.pack(
            payload,
            share=payload / self.record_bytes,  # in records, as those of tokens
            latency_s=np.zeros(len(source)),
            party_flow=np.concatenate([place, place]),
            party_rank=np.concatenate([source, target]),
        )
        return joined(Collective.flows(self), weights)


def dispatch_or_combine(expert_bytes: float, **fields: Any) -> Collective:
    """Build a collective of such fields, with the replicas that its routing moves if it dispatches."""
    if fields["direction"] == "dispatch" and len(fields["routing"].moves):
        return ReplicatingDispatch(**fields, expert_bytes=expert_bytes)
    return Collective(**fields)


def joined(first: Flows, second: Flows) -> Flows:
    """Flows of two kinds of the same ranks that are under way together, the second's numbered on from the first's."""
    shift: Mapping[str, int] = {
        "after": first.num_flows,
        "start": int(first.start[-1]),
        "party_flow": first.num_flows,
    }

    def column(name: str) -> Any:
        a, b = getattr(first, name), getattr(second, name)
        if name == "start":
            b = b[1:]
        moved = np.where(b < 0, b, b + shift[name]) if name in shift else b
        return np.concatenate([a, moved])

    return Flows(**{name: column(name) for name in Flows.__dataclass_fields__})
