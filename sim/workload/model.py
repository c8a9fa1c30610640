"""Models: the shape of a mixture-of-experts transformer, and what follows from the shape alone.

Parameter counts, KV-cache bytes and training FLOPs are arithmetic on a frozen ``Model``, read from one file of
``scenarios/models/`` for each published model.

Why this way: a model file holds the keys of the published configuration and nothing derived from them, so it can be compared
with its source line by line; published totals are asserted in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from sim import documents, schemas
from sim.descriptions import Description
from sim.errors import InputError, Mark

FOLDER = "scenarios/models"


Positive = Annotated[int, Field(gt=0, le=10**9, strict=True)]
Natural = Annotated[int, Field(ge=0, le=10**9, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class MLA(Description):
    """Multi-head latent attention: queries, keys and values go through low-rank latents [elements]."""

    kind: Literal["mla"] = "mla"
    num_heads: Positive
    q_lora_rank: Positive
    """Width of the latent that queries come from."""
    kv_lora_rank: Positive
    """Width of the latent that keys and values come from, which is cached."""
    qk_rope_head_dim: Positive
    """Rotated part of a query or key; all heads share the key's."""
    qk_nope_head_dim: Positive
    """Part that is not rotated."""
    v_head_dim: Positive

    @property
    def qk_head_dim(self) -> int:
        """Elements of one query or key head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class GQA(Description):
    """Grouped-query attention; `num_kv_heads` equal to `num_heads` is multi-head attention.

    Without window and chunk all layers attend to the whole context.
    """

    kind: Literal["gqa"] = "gqa"
    num_heads: Positive
    num_kv_heads: Positive
    head_dim: Positive
    window: Positive | None = None
    """Tokens that a layer with a sliding window looks back on."""
    chunk: Positive | None = None
    """Tokens of a chunk, in layers that attend within chunks only."""
    full_every: Positive = 1
    """Every so manieth layer attends to everything; the others have the window or chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Description):
    """A transformer whose feed-forward layers are mostly mixtures of experts; a dense one has one expert, top-1."""

    name: str
    num_layers: Annotated[Positive, Field(le=10**5)]
    num_dense_layers: Natural = 0
    """Layers with one dense feed-forward block instead of experts, among `num_layers`."""
    dense_layers: Literal["leading", "alternate"] = "leading"
    """leading: the dense layers come first. alternate: dense and expert layers take turns, a dense one first."""
    hidden: Positive
    """Width of the residual stream [elements]."""
    attention: Annotated[MLA | GQA, Field(discriminator="kind")]
    num_experts: Annotated[Positive, Field(le=2**17)]
    """Routed experts of a layer."""
    num_shared_experts: Natural = 0
    """Experts that every token goes through."""
    top_k: Positive
    """Routed experts of a token."""
    num_groups: Positive = 1
    """Groups, equal runs of experts, that a group-limited gate cuts the experts into."""
    top_groups: Positive = 1
    """Groups that a token may reach."""
    group_score: Literal["top2_sum", "max"] = "top2_sum"
    """Score that ranks the groups: the sum of their two best experts', or the best."""
    expert_hidden: Positive
    """Inner width of an expert; three matrices of `hidden` by this (SwiGLU)."""
    dense_hidden: Natural = 0
    """Inner width of a dense layer's feed-forward block."""
    vocab: Positive
    num_mtp_layers: Annotated[Natural, Field(le=100)] = 0
    """Modules that predict further tokens (MTP), counted apart from everything else."""
    tied_embeddings: bool = False
    """True where the output head is the embedding table, transposed."""
    source: str = "not said"
    """The published configuration that the numbers come from."""

    @property
    def num_moe_layers(self) -> int:
        """Layers with experts."""
        return self.num_layers - self.num_dense_layers

    def is_dense(self, layer_idx: int) -> bool:
        """True for a layer with one dense feed-forward block instead of experts."""
        if self.dense_layers == "alternate":
            return layer_idx % 2 == 0
        return layer_idx < self.num_dense_layers


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
    a = model.attention
    if isinstance(a, MLA):
        attention = (
            d * a.q_lora_rank
            + a.q_lora_rank * a.num_heads * a.qk_head_dim
            + d * (a.kv_lora_rank + a.qk_rope_head_dim)
            + a.kv_lora_rank * a.num_heads * (a.qk_nope_head_dim + a.v_head_dim)
            + a.num_heads * a.v_head_dim * d
            + (a.q_lora_rank + a.kv_lora_rank)  # norms
        )
    else:
        attention = 2 * d * (a.num_heads + a.num_kv_heads) * a.head_dim
    expert = 3 * d * model.expert_hidden
    gate = d * model.num_experts
    dense_ffn = 3 * d * model.dense_hidden
    norms = 2 * d
    moe_layer = attention + norms + gate + (model.num_experts + model.num_shared_experts) * expert
    moe_active = attention + norms + gate + (model.top_k + model.num_shared_experts) * expert
    dense_layer = attention + norms + dense_ffn
    embedding = model.vocab * d
    head = 0 if model.tied_embeddings else model.vocab * d
    matmul = model.num_moe_layers * moe_active + model.num_dense_layers * dense_layer + model.vocab * d + d
    mtp_own = 2 * d * d + 3 * d  # joins the previous hidden state and the next token's embedding
    return Parameters(
        total=model.num_moe_layers * moe_layer + model.num_dense_layers * dense_layer + embedding + head + d,
        active=matmul + embedding - (embedding if model.tied_embeddings else 0),
        matmul=matmul,
        attention=attention,
        expert=expert,
        gate=gate,
        dense_ffn=dense_ffn,
        moe_layer=moe_layer,
        dense_layer=dense_layer,
        embedding=embedding,
        head=head,
        mtp=model.num_mtp_layers * (moe_layer + mtp_own),
        mtp_active=model.num_mtp_layers * (moe_active + mtp_own),
    )


def kv_bytes_per_token(model: Model, bytes_per_element: float = 2.0) -> float:
    """Bytes that one token of context keeps in the KV cache of all layers.

    Parameters
    ----------
    model : Model
    bytes_per_element : float [bytes]

    Returns
    -------
    float [bytes]

    Notes
    -----
    MLA keeps the latent and the rotary key, layers x (kv_lora_rank + qk_rope_head_dim) elements; GQA keys and values of every
    KV head, layers x 2 x num_kv_heads x head_dim. Layers with a window or a chunk are counted in full: an upper bound for
    contexts beyond it.

    References
    ----------
    DeepSeek-V3's 70 KB a token: "Insights into DeepSeek-V3", ISCA 2025, arXiv 2505.09343, section 2.1.

    Examples
    --------
    >>> kv_bytes_per_token(load_model("deepseek-v3"))
    70272.0
    """
    a = model.attention
    elements = a.kv_lora_rank + a.qk_rope_head_dim if isinstance(a, MLA) else 2 * a.num_kv_heads * a.head_dim
    return model.num_layers * elements * bytes_per_element


def mean_context_tokens(
    sequence_tokens: float, causal: bool, window: float | None, chunk: float | None
) -> float:
    """Mean number of tokens that a query is counted to attend to in a sequence.

    Parameters
    ----------
    sequence_tokens : float [tokens]
    causal : bool
        Count only the attended half of the attention matrix.
    window, chunk : float or None [tokens]
        Tokens that a query looks back on, and length of chunks that attend within themselves only; None for no limit.

    Returns
    -------
    float [tokens]

    Notes
    -----
    For a sequence of length s: s without a mask, s/2 with the causal one; a window of w makes it w - w^2 / (2 s)
    (non-causal convention: w), chunks of c make each chunk a sequence of its own.
    """
    s = sequence_tokens
    if chunk is not None and chunk < s:
        return chunk / 2 if causal else chunk
    if window is not None and window < s:
        return window - window**2 / (2 * s) if causal else window
    return s / 2 if causal else s


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
    Per layer and attended token 2 H (d_qk + d_v); MLA in its unabsorbed form, as in training and prefill.
    """
    a = model.attention
    whole = mean_context_tokens(sequence_tokens, causal, None, None)
    if isinstance(a, MLA):
        return model.num_layers * 2.0 * a.num_heads * (a.qk_head_dim + a.v_head_dim) * whole
    part = mean_context_tokens(sequence_tokens, causal, a.window, a.chunk)
    full_layers = model.num_layers // a.full_every
    context = full_layers * whole + (model.num_layers - full_layers) * part
    return 4.0 * a.num_heads * a.head_dim * context


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
        flops += 3.0 * core * model.num_mtp_layers / model.num_layers
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
        The name of a shipped model (`shipped_models`), a path, or the model itself.
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
        document = documents.load(documents.find(str(spec), FOLDER, "model", near=near, mark=mark))
    elif isinstance(spec, documents.Document):
        document = spec
    else:
        document = documents.Document(dict(spec), "model")
    model = schemas.check(document, Model)
    wrong = _contradictions(model)
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


def _contradictions(model: Model) -> list[tuple[str, str]]:
    """Keys that are well formed but do not fit the others, each with what would."""
    wrong: list[tuple[str, str]] = []
    if model.num_experts % model.num_groups:
        wrong.append(("num_groups", f"a divisor of num_experts, {model.num_experts}"))
    elif model.top_groups > model.num_groups:
        wrong.append(("top_groups", f"at most num_groups, {model.num_groups}"))
    elif model.top_k > model.top_groups * (model.num_experts // model.num_groups):
        held = model.top_groups * (model.num_experts // model.num_groups)
        wrong.append(("top_k", f"at most {held}, the experts of top_groups groups"))
    if model.num_dense_layers > model.num_layers:
        wrong.append(("num_dense_layers", f"at most num_layers, {model.num_layers}"))
    if model.dense_layers == "alternate" and model.num_dense_layers != (model.num_layers + 1) // 2:
        wrong.append(("num_dense_layers", f"{(model.num_layers + 1) // 2}, every other of num_layers"))
    if model.num_dense_layers and not model.dense_hidden:
        wrong.append(("dense_hidden", "the inner width of the dense layers"))
    a = model.attention
    if isinstance(a, GQA) and a.num_heads % a.num_kv_heads:
        wrong.append(("attention", f"num_heads a multiple of num_kv_heads, {a.num_kv_heads}"))
    if isinstance(a, GQA) and a.window is not None and a.chunk is not None:
        wrong.append(("attention", "a window or a chunk, not both"))
    return wrong
