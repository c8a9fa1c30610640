"""What a model file may say, as pydantic models: the keys of a published configuration, their defaults and JSON Schema."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0, le=10**9, strict=True)]
Natural = Annotated[int, Field(ge=0, le=10**9, strict=True)]
Layers = Annotated[Positive, Field(le=10**5)]
Experts = Annotated[Positive, Field(le=2**17)]


class Branch(BaseModel):
    """A mapping of a model file; unknown keys are problems."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class MLAFile(Branch):
    """Multi-head latent attention."""

    kind: Literal["mla"]
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


class GQAFile(Branch):
    """Grouped-query attention; `num_kv_heads` equal to `num_heads` is multi-head attention."""

    kind: Literal["gqa"]
    num_heads: Positive
    num_kv_heads: Positive
    head_dim: Positive
    window: Positive | None = None
    """Tokens that a layer with a sliding window looks back on."""
    chunk: Positive | None = None
    """Tokens of a chunk, in layers that attend within chunks only."""
    full_every: Positive = 1
    """Every so manieth layer attends to everything; the others have the window or chunk."""


class ModelFile(Branch):
    """A mixture-of-experts transformer, or a dense one (one expert, top-1)."""

    name: str
    source: str = "not said"
    """Where the numbers come from."""
    num_layers: Layers
    num_dense_layers: Natural = 0
    """Layers without experts, among `num_layers`."""
    dense_layers: Literal["leading", "alternate"] = "leading"
    """leading: the dense layers come first. alternate: dense and expert layers take turns."""
    hidden: Positive
    attention: Annotated[MLAFile | GQAFile, Field(discriminator="kind")]
    num_experts: Experts
    """Routed experts of a layer."""
    num_shared_experts: Natural = 0
    """Experts that every token goes through."""
    top_k: Positive
    """Routed experts of a token."""
    num_groups: Positive = 1
    """Groups that a group-limited gate cuts the experts into."""
    top_groups: Positive = 1
    """Groups that a token may reach."""
    group_score: Literal["top2_sum", "max"] = "top2_sum"
    """What ranks the groups."""
    expert_hidden: Positive
    """Inner width of an expert; three matrices of `hidden` by this (SwiGLU)."""
    dense_hidden: Natural = 0
    """Inner width of a dense layer's feed-forward block."""
    vocab: Positive
    num_mtp_layers: Annotated[Natural, Field(le=100)] = 0
    """Modules that predict further tokens (MTP)."""
    tied_embeddings: bool = False
    """Whether the output head is the embedding table."""
