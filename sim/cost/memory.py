"""Memory of a training run: the contents of each pipeline rank's GPUs, part by part, and their fit.

Weights, gradients and optimizer follow from the parameters of the stages that a rank holds; activations from
what one microbatch keeps on each stage and from how many the schedule keeps at a time.

Why this way: schedules are defined above this room, so the caller hands in `peak`, the function from bytes a stage
to bytes a rank (`sim.schedule.replay.peaks` of its pipeline). A rank's parts are kept apart, so that an
overflow can name its causes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from sim import units
from sim.cost.recompute import recomputed
from sim.errors import DoesNotFitError, InputError, Problem, nearest
from sim.workload.attention import CHUNK_TOKENS, MLA, Attention, Recurrent
from sim.workload.formats import PRODUCTS, ProductName
from sim.workload.layout import Layout
from sim.workload.model import Model
from sim.workload.shape import Layer
from sim.workload.stages import Stage, held_parameters

Peak = Callable[[Sequence[float]], Sequence[float]]
"""Bytes a microbatch keeps on each stage, [num_stages] -> most that each pipeline rank keeps, [num_ranks]."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Formats of a training run; the defaults are DeepSeek-V3's.

    Parameters
    ----------
    compute : str
        A name of `formats.PRODUCTS`, of copies of matrices and kept inputs; "fp8" keeps what SwiGLU reads and attention gives too.
    recompute : str or sequence of str
        Part that the backward computes again: "none", "selective", "full" or modules, see `cost.recompute`.
    gradient_bytes, master_bytes, moments_bytes : float [bytes per parameter]
        Accumulated gradient; master weight; both Adam moments together.
    attention_output_bits : float [bits per element]
        Format in which "fp8" keeps the output of attention: a 12-bit one, E5M6.
    """

    compute: ProductName = "fp8"
    recompute: str | Sequence[str] = "selective"
    gradient_bytes: float = 4.0
    master_bytes: float = 4.0
    moments_bytes: float = 4.0
    attention_output_bits: float = 12.0


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
    ranks_per_token : float, optional
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
    Optimizer states are cut as ZeRO-1 does: over DP x CP, those of experts over expert-DP. Where a schedule keeps two copies of a
    stage, each keeps its own states.

    References
    ----------
    DeepSeek-V3, arXiv 2412.19437, sections 3.2.3 and 3.3; ZeRO, arXiv 1910.02054.
    """
    recipe = _checked(recipe or Recipe())
    if ranks_per_token is None:
        ranks_per_token = uniform_ranks_per_token(model, layout.ep)
    tokens = tokens_per_microbatch / (layout.tp * layout.cp)
    received = ranks_per_token * layout.etp
    stage_bytes = [stage_activation_bytes(model, stage, tokens, received, recipe) for stage in stages]
    per_master = recipe.master_bytes + recipe.moments_bytes
    buffers = buffer_bytes(model, layout, tokens, ranks_per_token, recipe, gpus_per_node)
    rows = []
    for rank, (own, activations) in enumerate(zip(held, peak(stage_bytes), strict=True)):
        count = held_parameters(model, [stages[index] for index in own])
        experts = count.experts / (layout.ep * layout.etp)
        layers = count.layers / layout.tp
        others = layers + (count.embedding + count.head) / layout.tp
        rows.append(
            RankMemory(
                rank=rank,
                weights_bytes=2.0 * (experts + others),
                fp8_copies_bytes=PRODUCTS[recipe.compute].copies_bytes * (experts + layers),
                gradients_bytes=recipe.gradient_bytes * (experts + others),
                optimizer_bytes=per_master * (others / (layout.dp * layout.cp) + experts / layout.expert_dp),
                activations_bytes=activations,
                buffers_bytes=buffers,
            )
        )
    return tuple(rows)


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


# --- activations --------------------------------------------------------------------------------------------


def stage_activation_bytes(
    model: Model, stage: Stage, tokens: float, ranks_per_token: float, recipe: Recipe
) -> float:
    """Activations that one microbatch keeps on a stage from its forward to its backward.

    Parameters
    ----------
    model : Model
    stage : Stage
    tokens : float [tokens]
        Of one GPU.
    ranks_per_token : float
        Rows that a rank receives per token it has.
    recipe : Recipe

    Returns
    -------
    float [bytes]

    Notes
    -----
    The head keeps the logits in BF16, which become their own gradient in place, and its input. A layer computed again in full is
    held once more while that happens; `buffer_bytes` counts it.
    """
    layers = Counter(model.layer(layer_idx) for layer_idx in stage.layers)
    layers[model.layer(model.num_layers)] += stage.num_mtp
    head = 2.0 * model.vocab + 2.0 * model.hidden
    per_token = stage.num_head_passes * head
    for layer, n in layers.items():
        per_token += n * layer_activation_bytes_per_token(model, layer, ranks_per_token, recipe)
    return tokens * per_token


def layer_activation_bytes_per_token(
    model: Model, layer: Layer, ranks_per_token: float, recipe: Recipe
) -> float:
    """Activations that one token keeps in one layer.

    Parameters
    ----------
    model : Model
    layer : Layer
        One of `model.layers`.
    ranks_per_token : float
        Rows that a rank receives per token it has.
    recipe : Recipe

    Returns
    -------
    float [bytes]

    Notes
    -----
    Kept: the inputs of attention and of the feed-forward block (BF16), those of attention's backward, rows received for experts,
    the input of SwiGLU (two widths) of each expert a token takes, and what modules made that are not in `cost.recompute`.
    """
    d = model.hidden
    if recipe.recompute == "full":
        return 2.0 * d
    again = recomputed(recipe.recompute)
    element = PRODUCTS[recipe.compute].inputs.element_bytes
    read = element if recipe.compute == "fp8" else 2.0  # of SwiGLU
    kept = _attention_bytes_per_token(layer.attention, recipe, again) if layer.attention else 0.0
    blocks = (layer.attention is not None) + (layer.mlp != "none")
    kept += 2.0 * d * blocks * (1 if "layernorm" in again else 2)
    inputs = model.up_matrices * read  # of an element of SwiGLU's output
    plain = inputs + (0.0 if "ffn_act" in again else element)
    if layer.mlp == "dense" and "mlp" not in again:
        kept += plain * model.dense_hidden
    if layer.mlp == "experts" and "moe" not in again:
        kept += ranks_per_token * model.routed_width * element
        kept += (inputs + (0.0 if "moe_act" in again else element)) * model.top_k * model.expert_hidden
        kept += plain * model.shared_width if "shared_experts" not in again else 0.0
    return kept


def _attention_bytes_per_token(a: Attention, recipe: Recipe, again: frozenset[str]) -> float:
    """Inputs and output of the core, and its log-sum-exp (FP32 a head) [bytes]."""
    sums = 4.0 * a.num_heads if not isinstance(a, Recurrent) and "core_attn" not in again else 0.0
    out_element = recipe.attention_output_bits / 8 if recipe.compute == "fp8" else 2.0
    kept = a.output_width * out_element
    if isinstance(a, Recurrent):
        return kept + 2.0 * a.input_width + a.state.elements * 2.0 / CHUNK_TOKENS  # states between chunks
    if not isinstance(a, MLA):
        return kept + 2.0 * a.input_width + sums
    kept += 2.0 * ((a.q_lora_rank or 0) + a.latent_dim)
    if "mla_up_proj" not in again:
        kept += 2.0 * a.num_heads * (2 * a.qk_head_dim + a.v_head_dim)
    index = 2.0 * (a.indexer.num_heads + 1) * a.indexer.head_dim if a.indexer else 0.0
    return kept + index + sums


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
    ranks_per_token : float
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


def _checked(recipe: Recipe) -> Recipe:
    recomputed(recipe.recompute)
    if recipe.compute not in PRODUCTS:
        got, near = f"'{recipe.compute}'", nearest(str(recipe.compute), PRODUCTS)
        raise InputError(Problem(None, "compute", got, f"one of: {', '.join(PRODUCTS)}", near))
    return recipe
