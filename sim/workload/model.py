"""Models: the shape of a mixture-of-experts transformer, and what follows from the shape alone.

Parameter counts, KV-cache bytes and training FLOPs are arithmetic on a frozen ``Model``. Shapes stand in
``scenarios/models/*.yaml``, one published model a file.

Why this way: a model file holds the keys of the published configuration and nothing derived from them, so
it can be compared with its source line by line; published totals are asserted in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim import documents, schemas
from sim.errors import InputError, Mark

FOLDER = "scenarios/models"


@dataclass(frozen=True, slots=True)
class MLA:
    """Multi-head latent attention: queries, keys and values go through low-rank latents [elements]."""

    num_heads: int
    q_lora_rank: int
    kv_lora_rank: int
    qk_rope_head_dim: int
    qk_nope_head_dim: int
    v_head_dim: int

    @property
    def qk_head_dim(self) -> int:
        """Elements of one query or key head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim


@dataclass(frozen=True, slots=True)
class GQA:
    """Grouped-query attention.

    Every ``full_every``-th layer attends to the whole context; the others to the last ``window`` tokens, or
    to the tokens of their own ``chunk``. Without window and chunk all layers attend to everything.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    window: int | None = None
    chunk: int | None = None
    full_every: int = 1


@dataclass(frozen=True, slots=True)
class Model:
    """A transformer whose feed-forward layers are mostly mixtures of experts.

    Parameters
    ----------
    num_layers, num_dense_layers : int [count]
        All transformer layers, and those with one dense feed-forward block.
    dense_layers : str
        "leading": the first ``num_dense_layers`` are dense. "alternate": dense and expert layers take
        turns, a dense one first.
    hidden, expert_hidden, dense_hidden : int [elements]
        Width of the residual stream, of one expert's and of a dense layer's inner activation.
    num_experts, num_shared_experts, top_k : int [count]
        Routed experts, experts that every token takes, and routed experts a token.
    num_groups, top_groups : int [count]
        Equal runs of experts, and how many of them a token may use.
    group_score : str
        "top2_sum" or "max": what ranks the groups.
    vocab : int [count]
    num_mtp_layers : int [count]
        Multi-token-prediction modules, counted apart from everything else.
    tied_embeddings : bool
        Whether the output head is the transposed embedding.
    source : str
        The published configuration.
    """

    name: str
    num_layers: int
    num_dense_layers: int
    dense_layers: str
    hidden: int
    attention: MLA | GQA
    num_experts: int
    num_shared_experts: int
    top_k: int
    num_groups: int
    top_groups: int
    group_score: str
    expert_hidden: int
    dense_hidden: int
    vocab: int
    num_mtp_layers: int
    tied_embeddings: bool
    source: str

    @property
    def num_moe_layers(self) -> int:
        """Layers with experts."""
        return self.num_layers - self.num_dense_layers

    def is_dense(self, layer_idx: int) -> bool:
        """Whether a layer has one dense feed-forward block instead of experts."""
        if self.dense_layers == "alternate":
            return layer_idx % 2 == 0
        return layer_idx < self.num_dense_layers


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of a model [count]; multi-token-prediction modules only in ``mtp``.

    ``total`` is what is stored. ``active`` is what one token uses, embedding and output head included.
    ``matmul`` is ``active`` without the embedding table, of which a token reads one row: the parameters
    that cost FLOPs. ``moe_layer`` and ``dense_layer`` are whole layers, attention included.
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

    Norms are counted; the biases that a few models have are not (under 0.1 %).
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
            + a.q_lora_rank
            + a.kv_lora_rank
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
    """Bytes one token of context keeps in the KV cache of all layers [bytes].

    MLA keeps the latent and the rotary key, GQA keys and values of every KV head. Layers with a window or a
    chunk are counted in full: an upper bound for contexts beyond it.
    """
    a = model.attention
    elements = a.kv_lora_rank + a.qk_rope_head_dim if isinstance(a, MLA) else 2 * a.num_kv_heads * a.head_dim
    return model.num_layers * elements * bytes_per_element


def mean_context_tokens(
    sequence_tokens: float, causal: bool, window: float | None, chunk: float | None
) -> float:
    """Mean number of tokens a query is counted to attend to in a sequence of length s [tokens].

    s without a mask, s/2 with the causal one; a window of w makes it w - w**2 / (2 s) (non-causal
    convention: w), chunks of c make each chunk a sequence of its own.
    """
    s = sequence_tokens
    if chunk is not None and chunk < s:
        return chunk / 2 if causal else chunk
    if window is not None and window < s:
        return window - window**2 / (2 * s) if causal else window
    return s / 2 if causal else s


def attention_core_flops_per_token(model: Model, sequence_tokens: float, causal: bool) -> float:
    """FLOPs of query-key and probability-value products, forward, all layers, one token [FLOP].

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
    """FLOPs to train one token, forward and backward [FLOP].

    Parameters
    ----------
    sequence_tokens : [tokens]
    causal : bool
        Count only the attended half of the attention matrix.
    include_mtp : bool
        Count the multi-token-prediction modules too, each with its pass through the output head. Published
        MFU of DeepSeek-V3 leaves them out.

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


# --- reading ----------------------------------------------------------------------------------------------


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
        The name of a shipped model, a path, or the model itself.
    near : Path, optional
        Folder that a relative path may start from.
    mark : Mark, optional
        Where the name was written, for messages.
    """
    if isinstance(spec, str | Path):
        document = documents.load(documents.find(str(spec), FOLDER, "model", near=near, mark=mark))
    elif isinstance(spec, documents.Document):
        document = spec
    else:
        document = documents.Document(dict(spec), "model")
    from sim.workload.model_file import ModelFile

    fields: dict[str, Any] = schemas.check(document, ModelFile).model_dump()
    attention = fields.pop("attention")
    kind = MLA if attention.pop("kind") == "mla" else GQA
    model = Model(**fields, attention=kind(**attention))
    problems = [
        document.problem((key,), getattr(model, key), wanted) for key, wanted in _contradictions(model)
    ]
    if problems:
        raise InputError(problems)
    return model


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
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
