"""The routing of a scenario: placement of experts, and where the tokens of each EP group go.

One generator per purpose is derived from the scenario's seed: the popularity of experts is shared by all EP groups (it
is one layer of one model), tokens are drawn by each group for itself.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from sim.cluster.topology import Ints
from sim.scenario.all_to_all import AllToAll
from sim.scenario.descriptions import Scenario
from sim.schedule.collectives import record_bytes
from sim.workload.gates import Gate
from sim.workload.gating import popularity
from sim.workload.model import Model
from sim.workload.placement import Placement, contiguous, copied, eplb, per_microbatch
from sim.workload.traffic import Routing, route

_POPULARITY, _PAST, _TOKENS = 0, 1, 2  # purposes of the derived generators


def routings(scenario: Scenario) -> list[Routing]:
    """Draw the routing of each EP group of an all_to_all scenario [num_ranks / ep].

    InfeasibleError where more than `MAX_PAIRS` pairs of ranks send to each other.
    """
    work, ep = scenario.workload, scenario.ep
    assert isinstance(work, AllToAll)
    per_node = scenario.gpus_per_node
    groups = scenario.num_ranks // ep
    if work.spec.bytes_per_rank is not None:
        return [plain(group * ep + np.arange(ep), per_node) for group in range(groups)]
    assert scenario.model is not None
    assert work.gate is not None
    model = scenario.model
    args = (
        work.gate,
        work.spec.placement.kind,
        work.spec.placement.redundant_experts,
        model.num_experts,
        model.top_k,
        model.num_groups,
    )
    shape = (work.spec.tokens_per_rank or 1, work.sampling, ep, per_node, scenario.seed)
    draw = draw_routing if work.gate.kind == "trace" else _remembered  # a trace is not hashed by content
    return [draw(*args, *shape, group, group * ep) for group in range(groups)]


def draw_routing(
    gate: Gate, placement_kind: str, redundant: int, num_experts: int, top_k: int, num_groups: int, tokens_per_rank: int,
    sampling: str, ep: int, per_node: int, seed: int, draw: int, node_offset: int = 0,
) -> Routing:  # fmt: skip
    """Draw where the tokens of an EP group go, as `place` has its experts, `node_offset` ranks after the first of all.

    `sampling` is `drawn` or `expected`; `draw` is the number of the EP group or microbatch.
    """
    likes = popularity(gate, num_experts, np.random.default_rng([seed, _POPULARITY]))

    def routed(placement: Placement) -> Routing:
        return route(
            gate,
            placement,
            top_k=top_k,
            tokens_per_rank=tokens_per_rank,
            ranks_per_node=per_node,
            node_offset=node_offset,
            sampling=sampling,
            rng=np.random.default_rng([seed, _TOKENS, draw]),
            probabilities=likes,
        )

    if placement_kind == "per_microbatch":  # the same tokens, counted before they are placed
        loads = routed(contiguous(num_experts, ep)).selections_to_physical
        balanced = per_microbatch(loads, ep, min(per_node, ep), redundant)
        return replace(routed(balanced), moves=copied(balanced))
    return routed(place(gate, placement_kind, redundant, num_experts, top_k, num_groups, ep, per_node, seed))


_remembered = lru_cache(maxsize=64)(draw_routing)


@lru_cache(maxsize=16)
def place(
    gate: Gate,
    kind: str,
    redundant: int,
    num_experts: int,
    top_k: int,
    num_groups: int,
    ep: int,
    per_node: int,
    seed: int,
) -> Placement:
    """Place experts of a model, with redundant replicas, on the ranks of an EP group.

    `contiguous`, or `eplb`, which balances the loads of an earlier, independent draw of the same gate, before
    it drifted.
    """
    if kind == "contiguous":
        return contiguous(num_experts, ep, redundant)
    likes = popularity(gate, num_experts, np.random.default_rng([seed, _POPULARITY]), planned=True)
    past = route(
        replace(gate, capacity_factor=None),
        contiguous(num_experts, 1),
        top_k=top_k,
        tokens_per_rank=65_536,
        ranks_per_node=1,
        rng=np.random.default_rng([seed, _PAST]),
        probabilities=likes,
    )
    return eplb(past.selections_to_physical, num_experts + redundant, num_groups, max(1, ep // per_node), ep)


def plain(gpus: Ints, per_node: int) -> Routing:
    """A plain all-to-all as a routing of one record per pair: equal parts to every rank, the own one included."""
    ep = len(gpus)
    node_of_rank = np.unique(gpus // per_node, return_inverse=True)[1]
    ones = np.ones((ep, ep))
    to_node = np.stack([np.bincount(node_of_rank).astype(float)] * ep)
    return Routing(1, ep, node_of_rank, to_node, ones, ones.copy(), np.full(ep, float(ep)))


def record_of(scenario: Scenario, direction: str) -> float:
    """Size of one record of a `dispatch` or `combine`; of a plain all-to-all, of one pair of ranks [bytes]."""
    work = scenario.workload
    assert isinstance(work, AllToAll)
    if work.spec.bytes_per_rank is not None:
        return work.spec.bytes_per_rank / scenario.ep
    assert scenario.model is not None
    dtype = work.spec.dispatch_dtype if direction == "dispatch" else work.spec.combine_dtype
    return float(
        record_bytes(work.kernel.kind, direction, dtype, scenario.model.routed_width, scenario.model.top_k)
    )


def expert_bytes(model: Model, element_bytes: float) -> float:
    """Size of the weights of one routed expert [bytes]."""
    return (model.up_matrices + 1) * model.routed_width * model.expert_hidden * element_bytes
