"""The prefill and decode workloads as a scenario may write them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sim.scenario.routing import Branch, Count, GateSpec, Index, KernelSpec, PlacementSpec, UniformGate
from sim.schemas import quantity


class DeployedSpec(Branch):
    """What prefill and decode share: one EP group of a deployment, and what it is made of."""

    overlap: bool = True
    """Two microbatches, the exchanges of one beside compute of the other; false: one batch, every exchange waited for."""
    gate: GateSpec = UniformGate(kind="uniform")
    kernel: KernelSpec
    placement: PlacementSpec = PlacementSpec()
    drawn_layers: Count = 4
    """Layers with a routing of their own, taken in turn (1 where the gate samples nothing)."""
    dispatch_dtype: Literal["fp8", "bf16"] = "fp8"
    combine_dtype: Literal["bf16", "fp8", "logfmt10"] = "bf16"
    precision: Literal["fp8", "bf16"] = "fp8"
    """Of weights and GEMMs; embedding, head and gate are BF16."""
    kv_dtype: Literal["bf16", "fp8"] = "bf16"
    fused_gate: bool = True
    """One kernel from the gate's logits to the experts of a token; false: some thirty small ones, as in training."""
    gemm_generation: str = "march_2025"
    reserve: quantity("fraction") = "10 %"  # type: ignore[valid-type]
    """Of HBM, kept from weights and cache (assumed: driver, communicator, allocator)."""
    graphs: quantity("bytes", 0) = "2 GB"  # type: ignore[valid-type]
    """CUDA graphs and activations (assumed)."""


class PrefillSpec(DeployedSpec):
    """Prompts into the cache, and the first token of each."""

    kind: Literal["prefill"]
    prompt_tokens: Count = 4096
    prompts_per_gpu: Count = 4
    """Prompts computed together on each GPU, in both microbatches; `prompt_tokens` or `chunk_tokens` of each a pass."""
    chunk_tokens: Count | None = None
    """Tokens of a prompt in one pass; the whole prompt when left out."""
    cached_tokens: Index = 0
    """Tokens of a prompt whose keys and values are there already: attended to, not computed."""


class DecodeSpec(DeployedSpec):
    """Steps that give each request its next tokens."""

    kind: Literal["decode"]
    requests_per_gpu: Count | None = None
    """When left out the most that memory allows, with two microbatches the even number below: half of them in each."""
    context_tokens: Count
    """Mean tokens of a request in the cache."""
    tokens_per_step: Annotated[int, Field(ge=1, le=16, strict=True)] = 1
    """Tokens of a request that one step verifies: 2 with one speculated token (MTP)."""
    acceptance: quantity("fraction") = "80 %"  # type: ignore[valid-type]
    """How often a speculated token is right; nothing to accept at one token a step."""
