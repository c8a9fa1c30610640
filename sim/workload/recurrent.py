"""Linear attention: kinds whose every token updates matrices that are kept of a request in place of a cache.

Each kind is one record, as those of `workload.attention` are; what follows from its matrices is written once, in `Recurrent`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from sim.descriptions import Description

Positive = Annotated[int, Field(gt=0, le=10**9, strict=True)]

CHUNK_TOKENS = 64
"""Tokens that kernels of linear attention take at once between two states (assumed, as flash-linear-attention has it)."""
_FP32, _BF16 = 4, 2


@dataclass(frozen=True, slots=True)
class State:
    """Matrices that a linear kind keeps of a request in place of a cache, `num_heads` of `key_dim` x `value_dim`."""

    num_heads: int
    key_dim: int
    value_dim: int
    products: int
    """Products of a matrix and a vector, or of two vectors, that a token takes."""

    @property
    def elements(self) -> int:
        """Elements of all matrices."""
        return self.num_heads * self.key_dim * self.value_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrent(Description, ABC):
    """Linear attention: every token updates matrices, whose size is that of no context."""

    conv_kernel: Positive = 4
    """Tokens that the convolution before the core sees."""

    @property
    @abstractmethod
    def state(self) -> State:
        """The matrices."""

    @property
    @abstractmethod
    def conv_width(self) -> int:
        """Channels of the convolution: all that enters the core."""

    @property
    @abstractmethod
    def input_width(self) -> int:
        """Outputs of the projections from the residual stream."""

    @property
    def ups(self) -> tuple[tuple[str, int, int], ...]:
        """Name, outputs and inputs of the projections behind a narrow one."""
        return ()

    @property
    def output_width(self) -> int:
        """Inputs of the output projection."""
        return self.state.num_heads * self.state.value_dim

    def cache_bytes(self, element_bytes: float) -> float:
        """Nothing is kept of a token by itself."""
        return 0.0

    @property
    def num_cached_heads(self) -> int:
        """Parts that tensor parallelism can cut the state into."""
        return self.state.num_heads

    @property
    def state_bytes(self) -> int:
        """Bytes kept of a request: the matrices in FP32, and the last inputs of the convolution in BF16."""
        return _FP32 * self.state.elements + _BF16 * self.conv_width * (self.conv_kernel - 1)

    def kept_tokens(self, context_tokens: float) -> float:
        """Tokens of a context that are kept: none."""
        return 0.0

    def core_flops(self, sequence_tokens: float, causal: bool) -> float:
        """Forward FLOPs of the recurrence of one token, the same at any length."""
        return 2.0 * self.state.products * self.state.elements


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedDelta(Recurrent):
    """Linear attention by the gated delta rule (Gated DeltaNet, arXiv 2412.06464): a matrix for each value head."""

    kind: Literal["gated_delta"] = "gated_delta"
    num_key_heads: Positive
    """Heads of queries and keys, which value heads share."""
    num_heads: Positive
    """Value heads."""
    key_head_dim: Positive
    """Elements of a query or key head."""
    value_head_dim: Positive
    """Elements of a value head."""

    @property
    def state(self) -> State:
        """A token recalls by its key, adds the difference, and reads by its query."""
        return State(self.num_heads, self.key_head_dim, self.value_head_dim, products=3)

    @property
    def conv_width(self) -> int:
        """Channels of the convolution: queries, keys and values."""
        return 2 * self.num_key_heads * self.key_head_dim + self.output_width

    @property
    def input_width(self) -> int:
        """Outputs of the projections: queries, keys, values, output gate, and two gates a head."""
        return self.conv_width + self.output_width + 2 * self.num_heads

    def parameters(self, hidden: int) -> int:
        """Projections, convolution, decay and time step of each head, and the norm of a head."""
        matrices = hidden * (self.input_width + self.output_width) + self.conv_width * self.conv_kernel
        return matrices + 2 * self.num_heads + self.value_head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class KimiDelta(Recurrent):
    """Kimi delta attention (arXiv 2510.26692): the delta rule with a decay for each channel of a key."""

    kind: Literal["kimi_delta"] = "kimi_delta"
    num_heads: Positive
    head_dim: Positive
    """Elements of a query, key or value head, and of the latents that gates come from."""
    full_rank_gate: bool = False
    """The output gate has a projection of its own; else it comes from a latent, as the decay does."""

    @property
    def state(self) -> State:
        """A token recalls by its key, adds the difference, and reads by its query."""
        return State(self.num_heads, self.head_dim, self.head_dim, products=3)

    @property
    def conv_width(self) -> int:
        """Channels of the convolutions: queries, keys and values."""
        return 3 * self.output_width

    @property
    def input_width(self) -> int:
        """Outputs of the projections: queries, keys, values, the latent of the decay, the output gate or its latent, a step a head."""
        gate = self.output_width if self.full_rank_gate else self.head_dim
        return self.conv_width + self.head_dim + gate + self.num_heads

    @property
    def ups(self) -> tuple[tuple[str, int, int], ...]:
        """The decay from its latent, and the output gate."""
        gates = 1 if self.full_rank_gate else 2
        return (("gates up", gates * self.output_width, self.head_dim),)

    def parameters(self, hidden: int) -> int:
        """Projections, convolutions, time step of each channel and decay of each head, and the norm of a head."""
        matrices = hidden * (self.input_width + self.output_width) + self.conv_width * self.conv_kernel
        ups = sum(outputs * inputs for _, outputs, inputs in self.ups)
        return matrices + ups + self.output_width + self.num_heads + self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class Lightning(Recurrent):
    """Lightning attention (arXiv 2401.04658): linear attention with a fixed decay of each head, and an output gate."""

    kind: Literal["lightning"] = "lightning"
    num_heads: Positive
    head_dim: Positive
    """Elements of a query, key or value head."""
    conv_kernel: Positive = 1
    """Tokens that the convolution before the core sees: none but its own, as there is none."""

    @property
    def state(self) -> State:
        """A token adds its key and value, and reads by its query."""
        return State(self.num_heads, self.head_dim, self.head_dim, products=2)

    @property
    def conv_width(self) -> int:
        """Inputs of the core: queries, keys and values."""
        return 3 * self.output_width

    @property
    def input_width(self) -> int:
        """Outputs of the projections: queries, keys, values and the output gate."""
        return 4 * self.output_width

    def parameters(self, hidden: int) -> int:
        """Projections, and the norm before the output."""
        return hidden * (self.input_width + self.output_width) + self.output_width


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba2(Recurrent):
    """A state-space layer (Mamba-2, arXiv 2405.21060): a matrix of state_dim x head_dim for each head."""

    kind: Literal["mamba2"] = "mamba2"
    num_heads: Positive
    head_dim: Positive
    """Elements of a head: columns of its matrix."""
    state_dim: Positive
    """Rows of a head's matrix."""
    num_groups: Positive = 1
    """Groups of heads that share the state's input and output."""

    @property
    def state(self) -> State:
        """A token adds its input, and reads its output."""
        return State(self.num_heads, self.state_dim, self.head_dim, products=2)

    @property
    def conv_width(self) -> int:
        """Channels of the convolution: inputs, and the state's input and output of each group."""
        return self.output_width + 2 * self.num_groups * self.state_dim

    @property
    def input_width(self) -> int:
        """Outputs of the projection: the convolution's channels, the output gate, a time step a head."""
        return self.conv_width + self.output_width + self.num_heads

    def parameters(self, hidden: int) -> int:
        """Projections, convolution with its bias, three numbers a head, and the norm before the output."""
        matrices = hidden * (self.input_width + self.output_width)
        return matrices + self.conv_width * (self.conv_kernel + 1) + 3 * self.num_heads + self.output_width
