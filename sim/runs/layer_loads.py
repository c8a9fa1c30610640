"""Routed loads of a training step's layers: what a gate with popular experts gives each rank of an EP group.

Why this way: each layer has popular experts of its own, and every all-to-all waits for its slowest rank, so no layer's loads
may be added to another's. The mean traffic of a layer is cabled once, the same to every rank; the loads here scale a rank's
compute, what it keeps, and the bytes to and from it alike (`schedule/owners.py`). Distinct tokens grow a few per cent less than
selections where many tokens choose two experts of one rank; that is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sim.cluster.topology import Floats
from sim.scenario.descriptions import Scenario
from sim.scenario.training import Training
from sim.workload.model import Model
from sim.workload.placement import contiguous
from sim.workload.traffic import Routing, route

DRAWN_LAYERS = 8
"""Layers that are drawn; the model's layers with experts take them in turn, in which no two of a stage are alike."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerLoads:
    """Mean counts of one EP group, and how loads differ from them.

    Parameters
    ----------
    routing : Routing
        The same to every rank, mean of all layers; nothing is dropped in it.
    loads : float, [layers, num_ranks]
        Selections of each rank over the mean of those before any is dropped, by the model's layers with those that speculate
        and one more; without layers where all ranks are alike.
    dropped_fraction : float
        Selections that exceed the capacity of their expert, over all.
    """

    routing: Routing
    loads: Floats
    dropped_fraction: float = 0.0

    @property
    def uneven(self) -> bool:
        """True where ranks or layers differ from the mean."""
        return self.loads.size > 0


def layer_loads(scenario: Scenario, work: Training, model: Model) -> LayerLoads:
    """Route the layers of a step."""
    gate, experts = work.gate, contiguous(model.num_experts, work.layout.ep)
    tokens = max(1, work.microbatch_tokens // (work.layout.tp * work.layout.cp))
    options = {"top_k": model.top_k, "tokens_per_rank": tokens, "sampling": "expected"}
    options["ranks_per_node"] = work.layout.near(scenario.gpus_per_node, "ep")
    drawn = 1 if gate.is_exchangeable or gate.kind == "trace" else len(gate.layers) or DRAWN_LAYERS
    free: list[Routing] = []
    kept: list[Routing] = []
    for layer in range(drawn):
        seed = [scenario.seed, 0, layer] if layer else [scenario.seed, 0]
        for factor, routed in ((None, free), (gate.capacity_factor, kept)):
            limited = replace(gate.layer_gate(layer), capacity_factor=factor)
            if routed is kept and factor is None:
                routed.append(free[-1])
            else:
                routed.append(route(limited, experts, rng=np.random.default_rng(seed), **options))  # type: ignore[arg-type]
    if gate.is_exchangeable and gate.capacity_factor is None:
        return LayerLoads(free[0], np.ones((0, work.layout.ep)))
    nominal = tokens * model.top_k
    by_draw = np.array([routing.selections_to_rank.sum(axis=0) / nominal for routing in kept])
    with_experts = [layer for layer in range(model.num_layers) if not model.is_dense(layer)]
    place = np.zeros(model.num_layers + model.num_mtp_layers + 1, dtype=np.int64)
    place[with_experts] = np.arange(len(with_experts))
    place[model.num_layers :] = len(with_experts) + np.arange(model.num_mtp_layers + 1)
    dropped = float(np.mean([routing.dropped_fraction for routing in kept]))
    return LayerLoads(_even(free), by_draw[place % drawn], dropped)


def _even(routings: list[Routing]) -> Routing:
    """Mean counts of some routings, the same to every rank and node."""
    first = routings[0]

    def mean(name: str) -> Floats:
        counts = np.mean([getattr(routing, name) for routing in routings], axis=0)
        return np.full_like(counts, counts.mean())

    ranks_of_node = np.bincount(first.node_of_rank)
    to_node = mean("tokens_to_node") * (ranks_of_node / ranks_of_node.mean())
    return replace(
        first,
        tokens_to_node=to_node,
        tokens_to_rank=mean("tokens_to_rank"),
        selections_to_rank=mean("selections_to_rank"),
        selections_to_physical=mean("selections_to_physical"),
    )
