"""Models: what follows from the shape of a mixture-of-experts transformer alone.

Parameter counts, KV-cache bytes and training FLOPs are arithmetic on a frozen ``Model``, read from one file of
``scenarios/models/`` for each published model, or from the `config.json` that its publisher ships. They are sums over layers, so
that a layer of any kind counts as what it is; published totals are asserted in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim import documents, schemas
from sim.errors import InputError, Mark
from sim.workload.attention import GQA as GQA
from sim.workload.attention import MLA as MLA
from sim.workload.attention import mean_context_tokens as mean_context_tokens
from sim.workload.model_files import FOLDER, model_document, published
from sim.workload.shape import Layer, contradictions
from sim.workload.shape import Model as Model


@dataclass(frozen=True, slots=True)
class LayerParameters:
    """Parameters of one layer by part [count]; ``gate`` with the projections to and from the width of latent experts."""

    attention: int = 0
    norms: int = 0
    gate: int = 0
    routed: int = 0
    routed_active: int = 0
    shared: int = 0
    dense_ffn: int = 0

    @property
    def others(self) -> int:
        """All but the routed experts."""
        return self.attention + self.norms + self.gate + self.shared + self.dense_ffn

    @property
    def total(self) -> int:
        """All that is stored."""
        return self.others + self.routed

    @property
    def active(self) -> int:
        """The part that one token uses."""
        return self.others + self.routed_active


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of a model [count]; multi-token-prediction modules only in ``mtp``.

    ``total`` is all that is stored, ``active`` the part that one token uses, embedding and output head included. ``matmul``
    is ``active`` without the embedding table, of which a token reads one row: the parameters that cost FLOPs.
    ``moe_layer`` and ``dense_layer`` are whole layers, attention included.
    """

    total: int
    active: int
    matmul: int
    attention: int
    expert: int
    gate: int
    dense_ffn: int
    moe_layer: int
    dense_layer: int
    embedding: int
    head: int
    mtp: int
    mtp_active: int


def expert_parameters(model: Model) -> int:
    """Count the parameters of one routed expert."""
    return (model.up_matrices + 1) * model.routed_width * model.expert_hidden


def layer_parameters(model: Model, layer: Layer) -> LayerParameters:
    """Count the parameters of a layer, one of `model.layers`."""
    d = model.hidden
    attention = layer.attention.parameters(d) if layer.attention else 0
    norms = d * ((layer.attention is not None) + (layer.mlp != "none"))
    if layer.mlp == "none":
        return LayerParameters(attention, norms)
    ffn = (model.up_matrices + 1) * d
    if layer.mlp == "dense":
        return LayerParameters(attention, norms, dense_ffn=ffn * model.dense_hidden)
    expert = expert_parameters(model)
    gate = d * model.gate_width if model.has_gate else 0
    return LayerParameters(
        attention,
        norms,
        gate=gate + (2 * d * model.expert_latent if model.expert_latent else 0),
        routed=model.num_experts * expert,
        routed_active=model.top_k * expert,
        shared=ffn * model.shared_width,
    )


def parameters(model: Model) -> Parameters:
    """Count the parameters of a model: in all, and of its parts (``attention``, ``expert`` ... of one layer).

    Parameters
    ----------
    model : Model

    Returns
    -------
    Parameters [count]

    Notes
    -----
    An expert has three matrices (SwiGLU), 3 x hidden x expert_hidden. Norms are counted; the biases that a few models have are
    not (under 0.1 %).

    Examples
    --------
    >>> count = parameters(load_model("deepseek-v3"))
    >>> f"{count.total / 1e9:.0f} billion, {count.active / 1e9:.1f} active"
    '671 billion, 37.6 active'
    """
    d = model.hidden
    layers = [(layer_parameters(model, layer), n) for layer, n in model.layers().items()]
    moe = layer_parameters(model, Layer(model.attention, "experts"))
    dense = layer_parameters(model, Layer(model.attention, "dense"))
    last = layer_parameters(model, model.layer(model.num_layers))
    embedding = model.vocab * d
    head = 0 if model.tied_embeddings else model.vocab * d
    matmul = sum(n * count.active for count, n in layers) + model.vocab * d + d
    mtp_own = 2 * d * d + 3 * d  # joins the previous hidden state and the next token's embedding
    return Parameters(
        total=sum(n * count.total for count, n in layers) + embedding + head + d,
        active=matmul + embedding - (embedding if model.tied_embeddings else 0),
        matmul=matmul,
        attention=moe.attention,
        expert=expert_parameters(model),
        gate=moe.gate,
        dense_ffn=dense.dense_ffn,
        moe_layer=moe.total,
        dense_layer=dense.total,
        embedding=embedding,
        head=head,
        mtp=model.num_mtp_layers * (last.total + mtp_own),
        mtp_active=model.num_mtp_layers * (last.active + mtp_own),
    )


def kv_bytes_per_token(model: Model, bytes_per_element: float = 2.0, tp: int = 1) -> float:
    """Bytes that one token of context keeps in the KV cache of all layers.

    Parameters
    ----------
    model : Model
    bytes_per_element : float [bytes]
    tp : int [ranks]
        Ranks that share the KV heads; of one of them.

    Returns
    -------
    float [bytes]

    Notes
    -----
    MLA keeps the latent and the rotary key, layers x (kv_lora_rank + qk_rope_head_dim) elements; GQA keys and values of every
    KV head, layers x 2 x num_kv_heads x head_dim. For a token inside every window; `cache_bytes` counts a whole request.

    References
    ----------
    DeepSeek-V3's 70 KB a token: "Insights into DeepSeek-V3", ISCA 2025, arXiv 2505.09343, section 2.1.

    Examples
    --------
    >>> kv_bytes_per_token(load_model("deepseek-v3"))
    70272.0
    """
    each = ((layer.attention, n) for layer, n in model.layers().items() if layer.attention)
    return float(sum(n * a.cache_bytes(bytes_per_element) / min(tp, a.num_cached_heads) for a, n in each))


def cache_bytes(
    model: Model,
    context_tokens: float,
    bytes_per_element: float = 2.0,
    *,
    layers: Mapping[Layer, int] | None = None,
    tp: int = 1,
) -> float:
    """Bytes that a request keeps in all layers, or in some: tokens that windows still see, and states of linear attention.

    Parameters
    ----------
    model : Model
    context_tokens : float [tokens]
    bytes_per_element : float [bytes]
    layers : mapping of Layer to int [count], optional
        Layers that are counted, as `Stage.kinds` gives them; all of the model's own by default.
    tp : int [ranks]
        Ranks that share attention: each keeps its part of the heads, or what cannot be cut, of tp requests.

    Returns
    -------
    float [bytes]
        Of one GPU for each request that it has.

    Notes
    -----
    A layer with a window of w keeps min(context, w) tokens; one with chunks of c the tokens of a chunk, at most c.

    References
    ----------
    Separate pools for layers with windows: vLLM's hybrid KV cache manager, SGLang's SWA memory pool.

    Examples
    --------
    >>> cache_bytes(load_model("gpt-oss-120b"), 131072)  # 18 layers of 131,072 tokens, 18 of 128, 2,048 bytes each
    4836556800.0
    """
    total = 0.0
    for layer, n in (model.layers() if layers is None else layers).items():
        if a := layer.attention:
            kept = a.cache_bytes(bytes_per_element) * a.kept_tokens(context_tokens) + a.state_bytes
            total += n * kept * tp / min(tp, a.num_cached_heads)
    return total


def attention_core_flops_per_token(model: Model, sequence_tokens: float, causal: bool) -> float:
    """FLOPs of query-key and probability-value products of one token, forward, in all layers.

    Parameters
    ----------
    model : Model
    sequence_tokens : float [tokens]
    causal : bool
        Count only the attended half of the attention matrix.

    Returns
    -------
    float [FLOP]

    Notes
    -----
    Per layer and attended token 2 H (d_qk + d_v); MLA in its unabsorbed form, as in training and prefill, but where an indexer
    makes it sparse. Linear attention: the products of its recurrence, the same at any length.
    """
    each = ((layer.attention, n) for layer, n in model.layers().items() if layer.attention)
    return sum(n * attention.core_flops(sequence_tokens, causal) for attention, n in each)


def training_flops_per_token(
    model: Model, sequence_tokens: float, causal: bool, include_mtp: bool = False
) -> float:
    """FLOPs to train one token, forward and backward.

    Parameters
    ----------
    model : Model
    sequence_tokens : float [tokens]
    causal : bool
        Count only the attended half of the attention matrix.
    include_mtp : bool
        Count the multi-token-prediction modules too, each with its pass through the output head. Published MFU of
        DeepSeek-V3 leaves them out.

    Returns
    -------
    float [FLOP]

    Notes
    -----
    6 FLOPs per active matrix parameter plus 3 times the forward attention core; recomputation is not counted.
    """
    count = parameters(model)
    core = attention_core_flops_per_token(model, sequence_tokens, causal)
    flops = 6.0 * count.matmul + 3.0 * core
    if include_mtp and model.num_mtp_layers:
        flops += 6.0 * (count.mtp_active + model.num_mtp_layers * model.vocab * model.hidden)
        last = model.layer(model.num_layers).attention
        flops += 3.0 * model.num_mtp_layers * (last.core_flops(sequence_tokens, causal) if last else 0.0)
    return flops


def load_model(
    spec: str | Path | documents.Document | Mapping[str, Any],
    *,
    near: Path | None = None,
    mark: Mark | None = None,
) -> Model:
    """Read a model.

    Parameters
    ----------
    spec : str, Path, Document or mapping
        The name of a shipped model (`shipped_models`), a path, or the model itself, also as `{huggingface: path}`. A path that
        ends in `.json` is a publisher's configuration.
    near : Path, optional
        Folder that a relative path may start from.
    mark : Mark, optional
        Place of the name in a document, for messages.

    Returns
    -------
    Model

    Raises
    ------
    InputError
        With every problem of the file, keys that contradict one another included.
    """
    if isinstance(spec, str | Path):
        document = model_document(spec, near=near, mark=mark)
    elif isinstance(spec, documents.Document):
        document = spec
    else:
        document = documents.Document(dict(spec), "model")
    if "huggingface" in document.tree:
        document = published(document, near)
    model = schemas.check(document, Model)
    wrong = contradictions(model)
    if wrong:
        raise InputError(document.problem((key,), getattr(model, key), wanted) for key, wanted in wrong)
    return model


def shipped_models() -> list[str]:
    """List the models that come with the package.

    Returns
    -------
    list of str
    """
    return sorted(documents.shipped(FOLDER))
