"""Memory of a training run: the contents of each pipeline rank's GPUs, part by part, and their fit.

Weights, gradients and optimizer follow from the parameters of the stages that a rank holds; activations from
what one microbatch keeps on each stage and from how many the schedule keeps at a time.

Why this way: schedules are defined above this room, so the caller hands in `peak`, the function from bytes a stage
to bytes a rank (`sim.schedule.replay.peaks` of its pipeline). A rank's parts are kept apart, so that an
overflow can name its causes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from sim import units
from sim.cost.activations import layer_activation_bytes_per_token, stage_activation_bytes
from sim.cost.recipe import Recipe
from sim.cost.recompute import recomputed
from sim.errors import DoesNotFitError
from sim.workload.formats import PRODUCTS
from sim.workload.layout import Layout
from sim.workload.model import Model, layer_parameters
from sim.workload.stages import Stage, held_parameters

Peak = Callable[[Sequence[float]], Sequence[float]]
"""Bytes a microbatch keeps on each stage, [num_stages] -> most that each pipeline rank keeps, [num_ranks]."""


@dataclass(frozen=True, slots=True)
class RankMemory:
    """Contents of the memory of one GPU of a pipeline rank [bytes]."""

    rank: int
    weights_bytes: float
    fp8_copies_bytes: float
    gradients_bytes: float
    optimizer_bytes: float
    activations_bytes: float
    buffers_bytes: float

    @property
    def states_bytes(self) -> float:
        """Weights with their copies, gradients and optimizer."""
        return self.weights_bytes + self.fp8_copies_bytes + self.gradients_bytes + self.optimizer_bytes

    @property
    def total_bytes(self) -> float:
        """Everything."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, float]:
        """Name -> bytes, the biggest first."""
        named = {
            part.name.removesuffix("_bytes").replace("_", " "): getattr(self, part.name)
            for part in fields(self)[1:]
        }
        return dict(sorted(named.items(), key=lambda item: -item[1]))


def memory(
    model: Model,
    layout: Layout,
    stages: Sequence[Stage],
    held: Sequence[Sequence[int]],
    peak: Peak,
    *,
    tokens_per_microbatch: float = 4096.0,
    ranks_per_token: float | None = None,
    recipe: Recipe | None = None,
    gpus_per_node: int = 8,
) -> tuple[RankMemory, ...]:
    """Memory of one GPU at each pipeline rank.

    Parameters
    ----------
    model : Model
    layout : Layout
    stages : sequence of Stage, [num_stages]
    held : sequence of sequence of int, [num_ranks][num_chunks]
        Stages of each pipeline rank.
    peak : function
        See `Peak`.
    tokens_per_microbatch : float [tokens]
        Of one data-parallel rank, before TP and CP share them.
    ranks_per_token : float [ranks], optional
        Mean number of EP ranks that a token goes to, and so the rows that a rank receives per token it has. Uniform routing
        without a group limit where left out, the most that a balanced gate can ask for.
    recipe : Recipe, optional
        DeepSeek-V3's by default.
    gpus_per_node : int [count]

    Returns
    -------
    tuple of RankMemory, [num_ranks]

    Raises
    ------
    InputError
        For a recipe that does not exist.

    Notes
    -----
    Optimizer states are cut over DP x CP, those of experts over expert-DP, and with `shard` gradients and weights too. Where a
    schedule keeps two copies of a stage, each keeps its own states.

    References
    ----------
    DeepSeek-V3, arXiv 2412.19437, sections 3.2.3 and 3.3; ZeRO, arXiv 1910.02054.
    """
    recipe = (recipe or Recipe()).checked()
    optimizer = recipe.optimizer
    if ranks_per_token is None:
        ranks_per_token = uniform_ranks_per_token(model, layout.ep)
    tokens = tokens_per_microbatch / (layout.tp * layout.cp)
    received = ranks_per_token * layout.etp
    stage_bytes = [stage_activation_bytes(model, stage, tokens, received, recipe) for stage in stages]
    buffers = buffer_bytes(model, layout, tokens, ranks_per_token, recipe, gpus_per_node)
    rows = []
    for rank, (own, activations) in enumerate(zip(held, peak(stage_bytes), strict=True)):
        count = held_parameters(model, [stages[index] for index in own])
        experts = count.experts / (layout.ep * layout.etp)
        layers, tables = count.layers / layout.tp, (count.embedding + count.head) / layout.tp
        ranks, expert_ranks = layout.dp * layout.cp, layout.expert_dp
        part = experts / expert_ranks + layers / ranks
        gradients = (part if optimizer.shards_gradients else experts + layers) + tables
        weights = (part if optimizer.shards_weights else experts + layers) + tables
        states = optimizer.state_bytes(part, tables / ranks)
        gathered = (
            _gathered_bytes(model, layout, [stages[index] for index in own])
            if optimizer.shards_weights
            else 0.0
        )
        rows.append(
            RankMemory(
                rank=rank,
                weights_bytes=2.0 * weights + gathered,
                fp8_copies_bytes=PRODUCTS[recipe.compute].copies_bytes * (weights - tables),
                gradients_bytes=optimizer.gradient_bytes * gradients,
                optimizer_bytes=states if optimizer.offload == "none" else 0.0,
                activations_bytes=activations,
                buffers_bytes=buffers,
            )
        )
    return tuple(rows)


def _gathered_bytes(model: Model, layout: Layout, stages: Sequence[Stage]) -> float:
    """Weights of the largest layer (BF16) while it computes, and of the one that is gathered meanwhile."""
    largest = 0.0
    for stage in stages:
        for layer in stage.kinds(model, stage.num_mtp):
            count = layer_parameters(model, layer)
            own = count.others / layout.tp + count.routed / (layout.ep * layout.etp)
            largest = max(largest, 2.0 * own)
    return 2 * largest


def uniform_ranks_per_token(model: Model, ep: int) -> float:
    """Mean number of EP ranks that a token reaches when every choice of experts is equally likely.

    Parameters
    ----------
    model : Model
    ep : int [ranks]

    Returns
    -------
    float

    Notes
    -----
    EP x (1 - C(E - E/EP, k) / C(E, k)) for k of E experts.

    Examples
    --------
    >>> from sim.workload.model import load_model
    >>> round(uniform_ranks_per_token(load_model("deepseek-v3"), 64), 2)
    7.68
    """
    local = model.num_experts // ep
    miss = math.comb(model.num_experts - local, model.top_k) / math.comb(model.num_experts, model.top_k)
    return ep * (1.0 - miss)


def fits(rows: Sequence[RankMemory], capacity_bytes: float) -> bool:
    """Tell whether the memory of every rank fits.

    Parameters
    ----------
    rows : sequence of RankMemory
    capacity_bytes : float [bytes]

    Returns
    -------
    bool
    """
    return all(row.total_bytes <= capacity_bytes for row in rows)


def require_fit(rows: Sequence[RankMemory], capacity_bytes: float, gpu: str) -> None:
    """Check that every rank fits.

    Parameters
    ----------
    rows : sequence of RankMemory
    capacity_bytes : float [bytes]
    gpu : str
        Name of the GPU, for the message.

    Raises
    ------
    DoesNotFitError
        With the fullest rank and its biggest parts.
    """
    if fits(rows, capacity_bytes):
        return
    worst = max(rows, key=lambda row: row.total_bytes)
    largest = list(worst.parts().items())[:3]
    parts = ", ".join(f"{name} {units.show(size, 'bytes', 3)}" for name, size in largest)
    over = sum(row.total_bytes > capacity_bytes for row in rows)
    raise DoesNotFitError(
        f"pipeline rank {worst.rank} needs {units.show(worst.total_bytes, 'bytes', 3)} of the "
        f"{units.show(capacity_bytes, 'bytes', 3)} of {gpu}: {parts}; {over} of {len(rows)} ranks do not fit",
        needed_bytes=worst.total_bytes,
        capacity_bytes=capacity_bytes,
        parts=worst.parts(),
    )


# --- buffers ------------------------------------------------------------------------------------------------

# Rows that one ring of the two-hop kernel holds, per GPU of the node and per node, and rings each way, see `buffer_bytes`.
_GPU_RING_ROWS = 288
_NODE_RING_ROWS = 128
_RING_CHANNELS = 10


def buffer_bytes(
    model: Model,
    layout: Layout,
    tokens: float,
    ranks_per_token: float,
    recipe: Recipe,
    gpus_per_node: int = 8,
) -> float:
    """Buffers of communication and recomputation; an estimate.

    Parameters
    ----------
    model : Model
    layout : Layout
    tokens : float [tokens]
        Of one GPU and microbatch.
    ranks_per_token : float [ranks]
        Rows that a rank receives per token it has.
    recipe : Recipe
    gpus_per_node : int [count]

    Returns
    -------
    float [bytes]

    Notes
    -----
    Experts' results (BF16 rows) of one forward and one backward on their way to combine; the rings of the two-hop kernel, for
    every GPU of a node and, sender and receiver, for every node; a boundary tensor in and out, of activations and of gradients,
    for the pipeline; and one whole layer, or feed-forward block, where such are computed again.

    References
    ----------
    Rings: default configurations of DeepEP (20 SMs, two a channel; 288 and 128 rows), assumed for every group size.
    """
    record = 2.0 * model.routed_width
    total = 4 * tokens * 2.0 * model.hidden if layout.pp > 1 else 0.0
    if layout.ep > 1:
        total += 2 * ranks_per_token * tokens * record
        num_nodes = math.ceil(layout.ep / gpus_per_node)
        ring_rows = min(layout.ep, gpus_per_node) * _GPU_RING_ROWS
        ring_rows += 2 * num_nodes * _NODE_RING_ROWS if num_nodes > 1 else 0
        total += _RING_CHANNELS * ring_rows * record
    blocks = frozenset({"mlp", "moe", "shared_experts"}) & recomputed(recipe.recompute)
    if recipe.recompute == "full" or blocks:
        least = "full" if recipe.recompute == "full" else tuple(blocks)
        whole, rest = (Recipe(compute=recipe.compute, recompute=kept) for kept in ("none", least))
        total += tokens * max(
            layer_activation_bytes_per_token(model, layer, ranks_per_token, whole)
            - (layer_activation_bytes_per_token(model, layer, ranks_per_token, rest) if blocks else 0.0)
            for layer in model.layers()
        )
    return total
