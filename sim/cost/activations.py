"""Activations of a training run: what one microbatch keeps on a stage from its forward to its backward."""

from __future__ import annotations

from collections import Counter

from sim.cost.recipe import Recipe
from sim.cost.recompute import recomputed
from sim.workload.attention import CHUNK_TOKENS, MLA, Attention, Recurrent
from sim.workload.formats import PRODUCTS
from sim.workload.model import Model
from sim.workload.shape import Layer
from sim.workload.stages import Stage


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
    ranks_per_token : float [ranks]
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
    ranks_per_token : float [ranks]
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
    if not isinstance(a, MLA):
        kept += 2.0 * sum(outputs for _, outputs, _ in a.ups)
    if isinstance(a, Recurrent):
        return kept + 2.0 * a.input_width + a.state.elements * 2.0 / CHUNK_TOKENS  # states between chunks
    if not isinstance(a, MLA):
        return kept + 2.0 * a.input_width + sums
    kept += 2.0 * ((a.q_lora_rank or 0) + a.latent_dim)
    if "mla_up_proj" not in again:
        kept += 2.0 * a.num_heads * (2 * a.qk_head_dim + a.v_head_dim)
    index = 2.0 * (a.indexer.num_heads + 1) * a.indexer.head_dim if a.indexer else 0.0
    return kept + index + sums
