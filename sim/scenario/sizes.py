"""Sizes of a scenario: what its run would build, counted where it is resolved, before any of it is built.

`moesim check` counts the same, so that nobody waits for a run that cannot end. Everything here is a product of a few
numbers; what a product may be is defined in `sim.limits`, and what a kind of workload builds, in its module (`Resolver.count`).
"""

from __future__ import annotations

from sim import limits
from sim.cluster import sizes as cluster_sizes
from sim.cluster.topology import Fabric, LeafSpine
from sim.scenario.descriptions import Scenario
from sim.scenario.draft import Draft


def require_cluster(draft: Draft) -> None:
    """Refuse a cluster that nobody could build, before a workload is laid on it. Raises `InfeasibleError`."""
    if isinstance(draft.fabric, LeafSpine):
        cluster_sizes.require_hosts(draft.fabric)
    elif draft.shared is not None:
        machines = [pool.hardware for pool in draft.shared.pools.values()]
        domain = max(hardware.gpu.scale_up.domain for hardware in machines)
        nics = max(hardware.nics_per_node for hardware in machines)
        assert draft.fabric is not None
        cluster_sizes.require_nodes(
            draft.shared.num_nodes, domain, nics, draft.fabric, "nodes of cluster.pools"
        )
    elif draft.hardware is not None:
        cluster_sizes.require_gpus(draft.num_nodes, draft.hardware.gpu.scale_up.domain)


def require_nodes(scenario: Scenario, num_nodes: int, nodes: str = "cluster.nodes") -> None:
    """Refuse so many nodes of a scenario's cluster as nobody builds; `nodes` says what they are. Raises `InfeasibleError`."""
    if isinstance(scenario.fabric, Fabric) and scenario.hardware is not None:
        hardware = scenario.hardware
        domain, nics = hardware.gpu.scale_up.domain, hardware.nics_per_node
        cluster_sizes.require_nodes(num_nodes, domain, nics, scenario.fabric, nodes)


def require_schedule(pipeline_ranks: int, microbatches: int, chunks: int) -> None:
    """Refuse a pipeline of more operations than are planned. Raises `InfeasibleError`."""
    keys = f"layout.pp {pipeline_ranks:,} x workload.microbatches {microbatches:,} x chunks {chunks:,} x F, B and W"
    limits.require(3 * pipeline_ranks * microbatches * chunks, limits.OPERATIONS, keys)


def require_pairs(groups: int, ep: int, draws: int = 1) -> None:
    """Refuse EP groups of more pairs of ranks than are simulated together. Raises `InfeasibleError`."""
    keys = f"EP groups {groups:,} x layout.ep {ep:,} squared" + (f" x draws {draws:,}" if draws > 1 else "")
    limits.require(groups * ep**2 * draws, limits.PAIRS, keys)


def require_draws(ep: int, tokens_per_rank: int, draws: int, num_experts: int) -> None:
    """Refuse more tokens of an EP group, drawn so many times, than are drawn one by one. Raises `InfeasibleError`."""
    keys = f"layout.ep {ep:,} x tokens_per_rank {tokens_per_rank:,}"
    advice = "'sampling: expected' in the gate takes their mean"
    limits.require(ep * tokens_per_rank, limits.DRAWN, keys, advice)
    more = f"{keys} x draws {draws:,} x experts {num_experts:,}"
    limits.require(ep * tokens_per_rank * draws * num_experts, limits.SCORES, more, advice)


def require_samples(num: int) -> None:
    """Refuse more samples than are rolled out one by one. Raises `InfeasibleError`."""
    limits.require(num, limits.SAMPLES, "workload.iterations x prompts x samples")


def require_replicas(num_experts: int, redundant: int) -> None:
    """Refuse a table of the copies of each expert, if all were of one, that is too large. Raises `InfeasibleError`."""
    keys = f"experts {num_experts:,} x (1 + placement.redundant_experts {redundant:,})"
    limits.require(num_experts * (1 + redundant), limits.CELLS, keys)
