"""Attention: the part of a layer that mixes tokens, and what follows from its shape alone.

Each kind is one record. From it follow its parameters, the FLOPs of its core, what it keeps of a token in the cache
(``cache_bytes`` of at most ``kept_tokens``) and of a request whatever its length (``state_bytes``); costs and memory read
these and hold no shape of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from sim.descriptions import Description
from sim.workload.formats import FORMATS
from sim.workload.recurrent import CHUNK_TOKENS as CHUNK_TOKENS
from sim.workload.recurrent import GatedDelta as GatedDelta
from sim.workload.recurrent import KimiDelta as KimiDelta
from sim.workload.recurrent import Lightning as Lightning
from sim.workload.recurrent import Mamba2 as Mamba2
from sim.workload.recurrent import Positive as Positive
from sim.workload.recurrent import Recurrent as Recurrent

Natural = Annotated[int, Field(ge=0, le=10**9, strict=True)]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Index(Description):
    """Indexer of sparse attention: small heads score all earlier tokens, and the core attends to the best."""

    num_heads: Positive
    head_dim: Positive
    top_k: Positive
    """Tokens that a query attends to at most."""
    shared: bool = False
    """The choice of an earlier layer is taken: this one has no indexer of its own."""

    @property
    def key_bytes(self) -> float:
        """Bytes of a token's key in the cache: FP8 with a scale for 128 elements, whatever the rest is kept in."""
        return self.head_dim * FORMATS["fp8_rows"].element_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MLA(Description):
    """Multi-head latent attention: keys and values, and mostly queries, go through low-rank latents [elements]."""

    kind: Literal["mla"] = "mla"
    num_heads: Positive
    q_lora_rank: Positive | None = None
    """Width of the latent that queries come from; null where they come from the residual stream."""
    kv_lora_rank: Positive
    """Width of the latent that keys and values come from, which is cached."""
    qk_rope_head_dim: Positive
    """Rotated part of a query or key; all heads share the key's."""
    qk_nope_head_dim: Positive
    """Part that is not rotated."""
    v_head_dim: Positive
    index: Index | None = None
    """Sparse attention (DSA); its core works on latents, as every query has keys of its own."""

    @property
    def qk_head_dim(self) -> int:
        """Elements of one query or key head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def latent_dim(self) -> int:
        """Elements that are cached of a token: latent and rotary key."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def indexer(self) -> Index | None:
        """Indexer that the layer runs itself."""
        return self.index if self.index and not self.index.shared else None

    @property
    def core_dims(self) -> tuple[int, int]:
        """Widths of a query and of a value in a core over many queries."""
        if self.index:
            return self.latent_dim, self.kv_lora_rank
        return self.qk_head_dim, self.v_head_dim

    @property
    def output_width(self) -> int:
        """Inputs of the output projection."""
        return self.num_heads * self.v_head_dim

    @property
    def window(self) -> int | None:
        """Tokens that the core attends to at most."""
        return self.index.top_k if self.index else None

    def cache_bytes(self, element_bytes: float) -> float:
        """Bytes kept of a token: the latent, the rotary key, and the indexer's key."""
        return self.latent_dim * element_bytes + (self.indexer.key_bytes if self.indexer else 0.0)

    @property
    def num_cached_heads(self) -> int:
        """Parts that tensor parallelism can cut the cache into: all heads share one latent."""
        return 1

    @property
    def state_bytes(self) -> int:
        """Nothing is kept whatever the length."""
        return 0

    def kept_tokens(self, context_tokens: float) -> float:
        """Tokens of a context that are kept: all, as an indexer may choose any."""
        return context_tokens

    def query_parameters(self, hidden: int) -> int:
        """Matrices from the residual stream to the queries of all heads."""
        width = self.num_heads * self.qk_head_dim
        if self.q_lora_rank is None:
            return hidden * width
        return hidden * self.q_lora_rank + self.q_lora_rank * width

    def parameters(self, hidden: int) -> int:
        """Parameters, norms of the latents included; the indexer's with its LayerNorm."""
        count = self.query_parameters(hidden)
        count += hidden * self.latent_dim
        count += self.kv_lora_rank * self.num_heads * (self.qk_nope_head_dim + self.v_head_dim)
        count += self.output_width * hidden + (self.q_lora_rank or 0) + self.kv_lora_rank
        if index := self.indexer:
            queries = (self.q_lora_rank or hidden) * index.num_heads * index.head_dim
            count += queries + (hidden + 2) * index.head_dim + hidden * index.num_heads
        return count

    def core_flops(self, sequence_tokens: float, causal: bool) -> float:
        """Forward FLOPs of the core of one token, and of the indexer's scores over the whole sequence."""
        qk, v = self.core_dims
        attended = mean_context_tokens(sequence_tokens, causal, self.window, None)
        flops = 2.0 * self.num_heads * (qk + v) * attended
        if index := self.indexer:
            seen = mean_context_tokens(sequence_tokens, causal, None, None)
            flops += 2.0 * index.num_heads * index.head_dim * seen
        return flops


@dataclass(frozen=True, slots=True, kw_only=True)
class GQA(Description):
    """Grouped-query attention; `num_kv_heads` equal to `num_heads` is multi-head attention.

    Without window and chunk all layers attend to the whole context.
    """

    kind: Literal["gqa"] = "gqa"
    num_heads: Positive
    num_kv_heads: Positive
    head_dim: Positive
    """Elements of a query or key head."""
    v_head_dim: Positive | None = None
    """Elements of a value head; `head_dim` where left out."""
    window: Positive | None = None
    """Tokens that a layer with a sliding window looks back on."""
    chunk: Positive | None = None
    """Tokens of a chunk, in layers that attend within chunks only."""
    full_every: Positive | None = None
    """Every so manieth layer attends to everything; the others have the window or chunk. Left out: all have it."""
    output_gate: bool = False
    """The core's output is multiplied by a gate as wide as the queries, from a projection of its own."""
    q_lora_rank: Positive | None = None
    """Width of a latent that the queries of all heads come from (multi-matrix factorization, MFA); null for none."""
    values_are_keys: bool = False
    """Values are the keys before their norm and rotation: they are cached, and no projection makes them."""

    @property
    def value_dim(self) -> int:
        """Elements of a value head."""
        return self.v_head_dim or self.head_dim

    @property
    def core_dims(self) -> tuple[int, int]:
        """Widths of a query and of a value."""
        return self.head_dim, self.value_dim

    @property
    def output_width(self) -> int:
        """Inputs of the output projection."""
        return self.num_heads * self.value_dim

    @property
    def kv_width(self) -> int:
        """Outputs of the projections to keys and values."""
        return self.num_kv_heads * (self.head_dim + (0 if self.values_are_keys else self.value_dim))

    @property
    def input_width(self) -> int:
        """Outputs of the projection to queries or their latent, their gate, keys and values."""
        gate = self.output_width if self.output_gate else 0
        return (self.q_lora_rank or self.num_heads * self.head_dim) + self.kv_width + gate

    @property
    def ups(self) -> tuple[tuple[str, int, int], ...]:
        """Name, outputs and inputs of the projections behind a narrow one: queries from their latent."""
        if self.q_lora_rank is None:
            return ()
        return (("q up", self.num_heads * self.head_dim, self.q_lora_rank),)

    def cache_bytes(self, element_bytes: float) -> float:
        """Bytes kept of a token: keys and values of every KV head."""
        return self.num_kv_heads * (self.head_dim + self.value_dim) * element_bytes

    @property
    def num_cached_heads(self) -> int:
        """Parts that tensor parallelism can cut the cache into."""
        return self.num_kv_heads

    @property
    def state_bytes(self) -> int:
        """Nothing is kept whatever the length."""
        return 0

    def kept_tokens(self, context_tokens: float) -> float:
        """Tokens of a context that are kept: what a window or chunk looks back on."""
        return min(context_tokens, self.window or context_tokens, self.chunk or context_tokens)

    def attended_tokens(self, context_tokens: float) -> float:
        """Tokens that one new query reads: the context, its window, or on average half a chunk."""
        return min(context_tokens, self.window or context_tokens, (self.chunk or 2 * context_tokens) / 2)

    def parameters(self, hidden: int) -> int:
        """Parameters of the projections, and of the norm of a latent."""
        count = hidden * (self.input_width + self.output_width) + (self.q_lora_rank or 0)
        return count + sum(outputs * inputs for _, outputs, inputs in self.ups)

    def core_flops(self, sequence_tokens: float, causal: bool) -> float:
        """Forward FLOPs of the core of one token."""
        attended = mean_context_tokens(sequence_tokens, causal, self.window, self.chunk)
        return 2.0 * self.num_heads * (self.head_dim + self.value_dim) * attended


Attention = MLA | GQA | GatedDelta | KimiDelta | Lightning | Mamba2
