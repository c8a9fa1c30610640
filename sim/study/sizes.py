"""Sizes of a scenario: what its run would build, counted where it is resolved, before any of it is built.

`moesim check` counts the same, so that nobody waits for a run that cannot end. Everything here is a product of a few
numbers; what a product may be stands in `sim.limits`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim import limits
from sim.cluster import sizes as cluster_sizes
from sim.cluster.topology import Fabric, LeafSpine
from sim.study.descriptions import AllToAll, FlowList, Inference, Scenario, Training
from sim.study.metal import Draft

_DIRECTIONS = 2  # a dispatch and a combine


def require_cluster(draft: Draft) -> None:
    """Refuse a cluster that nobody could build, before a workload is laid on it. Raises `InfeasibleError`."""
    if isinstance(draft.fabric, LeafSpine):
        cluster_sizes.require_hosts(draft.fabric)
    elif draft.hardware is not None:
        cluster_sizes.require_gpus(draft.num_nodes, draft.hardware.gpu.scale_up.domain)


def require_schedule(pipeline_ranks: int, microbatches: int, chunks: int) -> None:
    """Refuse a pipeline of more operations than are planned. Raises `InfeasibleError`."""
    keys = f"layout.pp {pipeline_ranks:,} x workload.microbatches {microbatches:,} x chunks {chunks:,} x F, B and W"
    limits.require(3 * pipeline_ranks * microbatches * chunks, limits.OPERATIONS, keys)


def require(scenario: Scenario) -> None:
    """Refuse a scenario whose run would need more memory or time than anyone has. Raises `InfeasibleError`."""
    count = _COUNTS.get(type(scenario.workload))
    if count is not None:
        count(scenario, scenario.workload)


def _all_to_all(scenario: Scenario, work: AllToAll) -> None:
    _cluster(scenario, scenario.num_nodes, "cluster.nodes")
    groups = scenario.num_ranks // scenario.ep
    require_pairs(groups, scenario.ep)
    if work.gate is not None and scenario.model is not None:
        drawn = work.sampling == "tokens"
        _tokens(scenario.ep, work.tokens_per_rank, groups if drawn else 0, scenario.model.num_experts)
        _replicas(scenario.model.num_experts, work.redundant_experts)


def _flows(scenario: Scenario, _: FlowList) -> None:
    if scenario.hardware is not None:
        _cluster(scenario, scenario.num_nodes, "cluster.nodes")


def _training(scenario: Scenario, work: Training) -> None:
    assert scenario.model is not None
    assert scenario.hardware is not None
    layout, layers = work.layout, scenario.model.num_layers + scenario.model.num_mtp_layers
    _cluster(scenario, -(-layout.ep // scenario.hardware.gpu.scale_up.domain), "the nodes of layout.ep")
    require_pairs(1, layout.ep)
    if work.skew.routed_load and layout.ep > 1:
        groups, kernels = layout.expert_dp, layers * work.num_microbatches
        at = f"EP groups {groups:,} (ranks / pp / ep) x layers {layers:,} x workload.microbatches {work.num_microbatches:,}"
        limits.require(groups * kernels * layout.ep, limits.CELLS, f"{at} x layout.ep {layout.ep:,}")
        solved = _DIRECTIONS * groups * kernels * layout.ep**2
        limits.require(solved, limits.SOLVED_PAIRS, f"{at} x layout.ep {layout.ep:,} squared x 2 directions")


def _inference(scenario: Scenario, work: Inference) -> None:
    assert scenario.model is not None
    assert scenario.hardware is not None
    _cluster(
        scenario, max(1, work.layout.ep // scenario.hardware.gpu.scale_up.domain), "the nodes of layout.ep"
    )
    require_pairs(1, work.layout.ep)
    _replicas(scenario.model.num_experts, work.redundant_experts)
    if work.kind == "prefill":
        new = work.context_tokens - work.cached_tokens
        keys = f"prompt_tokens {new:,} to compute / chunk_tokens {work.step_tokens:,}"
        limits.require(new // work.step_tokens, limits.PASSES, keys)
    if work.sampling == "tokens" and work.requests is not None:
        tokens = max(1, work.requests * work.step_tokens // (2 if work.overlap else 1))
        draws = min(work.drawn_layers, scenario.model.num_layers)
        _tokens(work.layout.ep, tokens, draws, scenario.model.num_experts)


_COUNTS: dict[type, Callable[[Scenario, Any], None]] = {
    AllToAll: _all_to_all,
    FlowList: _flows,
    Training: _training,
    Inference: _inference,
}
"""A kind of workload -> what counts it. The pools of a serving scenario are scenarios of their own."""


def require_pairs(groups: int, ep: int) -> None:
    """Refuse EP groups of more pairs of ranks than are simulated together. Raises `InfeasibleError`."""
    limits.require(groups * ep**2, limits.PAIRS, f"EP groups {groups:,} x layout.ep {ep:,} squared")


def _cluster(scenario: Scenario, num_nodes: int, nodes: str) -> None:
    if isinstance(scenario.fabric, Fabric) and scenario.hardware is not None:
        cluster_sizes.require_nodes(num_nodes, scenario.hardware.gpu.scale_up.domain, scenario.fabric, nodes)


def _tokens(ep: int, tokens_per_rank: int, draws: int, num_experts: int) -> None:
    """Tokens of an EP group, drawn so many times; nothing where none are drawn."""
    keys = f"layout.ep {ep:,} x tokens_per_rank {tokens_per_rank:,}"
    if draws:
        advice = "'sampling: expected' in the gate takes their mean"
        limits.require(ep * tokens_per_rank, limits.DRAWN, keys, advice)
        more = f"{keys} x draws {draws:,} x experts {num_experts:,}"
        limits.require(ep * tokens_per_rank * draws * num_experts, limits.SCORES, more, advice)


def _replicas(num_experts: int, redundant: int) -> None:
    """The table of where each copy of an expert stands, if all copies were of one expert."""
    keys = f"experts {num_experts:,} x (1 + placement.redundant_experts {redundant:,})"
    limits.require(num_experts * (1 + redundant), limits.CELLS, keys)
