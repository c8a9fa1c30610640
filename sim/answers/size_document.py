"""The shape of the document of `moesim size`, for its JSON Schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sim.scenario.values import Branch


class SmallerSpec(Branch):
    """The number of GPUs below."""

    gpus: int
    """GPUs that were tried and do not do."""
    reason: str
    """What they lack: memory, or the time that a token takes."""


class SizedMachineSpec(Branch):
    """The fewest GPUs of a machine, and how they serve; all but title and reason are missing where no number does."""

    title: str
    """Name of the machine for a reader."""
    gpus: int | None
    """Fewest GPUs that serve; null where no number does."""
    reason: str = ""
    """Why no number does."""
    nodes: int | None = None
    """Nodes that they stand on."""
    layout: dict[str, int] = Field(default_factory=dict)
    """Sizes of the groups: tp of attention, ep of experts."""
    overlap: bool | None = None
    """True for two microbatches, one's all-to-alls next to the other's compute."""
    tpot_s: float | None = None
    """Time per output token [s]."""
    tokens_per_s_per_gpu: float | None = None
    """Tokens that a GPU gives in a second."""
    max_users: int | None = None
    """Users whose requests these GPUs have memory for."""
    memory_bytes: float | None = None
    """Memory of the fullest GPU, reserve included [bytes]."""
    memory_capacity_bytes: float | None = None
    """Memory that a GPU has [bytes]."""
    usd_per_hour: float | None = None
    """Price of all GPUs for an hour; null where the profile has none."""
    usd_per_million_tokens: float | None = None
    """Price of a million tokens; null where the profile has none."""
    scenario: dict[str, Any] | None = None
    """The scenario that ran, as `moesim run` takes it."""
    smaller: SmallerSpec | None = None
    """The next smaller number of GPUs, and what it lacks; null where there is none."""


class SizesSpec(Branch):
    """The document that `moesim size --json` prints."""

    schema_: Annotated[Literal["moesim.size/1"], Field(alias="schema")]
    """Kind and version of the document."""
    model: str
    """The model as it was asked for."""
    title: str
    """Name of the model."""
    context_tokens: int
    """Tokens of each user in the cache."""
    users: int
    """Users at once."""
    tpot_limit_s: float | None
    """Longest time per output token [s]; null for no limit."""
    machines: dict[str, SizedMachineSpec]
    """Machine -> its fewest GPUs."""
    provenance: dict[str, str]
    """Version of this package."""
