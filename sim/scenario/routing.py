"""What scenarios of every kind share: counts, strict mappings, gates, kernels and placements, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Machines = Annotated[int, Field(ge=1, le=2**17, strict=True)]  # what is built as a graph
Index = Annotated[int, Field(ge=0, strict=True)]
MAX_MICROBATCHES = 2**17  # of one step; each pass of each of them is an operation
Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]  # no word, and no truth, is a number


class Branch(BaseModel):
    """A mapping of the scenario; unknown keys are faults."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True
    )


class GateBase(Branch):
    """Shared by all gates."""

    sampling: Literal["tokens", "expected"] = "tokens"
    """tokens: every token draws its experts. expected: mean bytes, no draw."""


class UniformGate(GateBase):
    """Any top-k of the experts, equally likely."""

    kind: Literal["uniform"]


class GroupLimitedGate(GateBase):
    """DeepSeek's rule: the best groups by their score, then the best experts of these."""

    kind: Literal["group_limited"]
    top_groups: Count | None = None
    """The model's when left out."""
    num_groups: Count | None = None
    group_score: Literal["top2_sum", "max"] | None = None


class BalancedGate(GateBase):
    """Every expert gets exactly tokens x top-k / experts."""

    kind: Literal["balanced"]
    top_groups: Count | None = None
    num_groups: Count | None = None


class BenchmarkGate(GateBase):
    """The routing of DeepEP's own benchmark: groups are nodes, a group's score is its maximum."""

    kind: Literal["deepep_benchmark"]
    top_groups: Count | None = None


class PopularityGate(GateBase):
    """Shared by gates in which some experts are liked better."""

    top_groups: Count | None = None
    num_groups: Count | None = None
    group_score: Literal["top2_sum", "max"] | None = None


class ZipfGate(PopularityGate):
    """Popularity of the r-th expert falls with r to the minus exponent, in random order."""

    kind: Literal["zipf"]
    exponent: Annotated[Number, Field(ge=0, le=10)]


class DirichletGate(PopularityGate):
    """Popularity drawn from a symmetric Dirichlet distribution."""

    kind: Literal["dirichlet"]
    alpha: Annotated[Number, Field(ge=1e-6, le=1e9)]


class LoadsGate(PopularityGate):
    """Popularity from a file: one number an expert."""

    kind: Literal["loads"]
    file: str


class TraceGate(GateBase):
    """Tokens as recorded: one row of expert ids a token."""

    kind: Literal["trace"]
    file: str


GateSpec = Annotated[
    UniformGate
    | GroupLimitedGate
    | BalancedGate
    | BenchmarkGate
    | ZipfGate
    | DirichletGate
    | LoadsGate
    | TraceGate,
    Field(discriminator="kind"),
]


class KernelBase(Branch):
    """Shared by all kernels."""

    override: dict[str, Any] = {}
    """Any figure of the kernel generation, e.g. {nic_efficiency_fraction: 0.95}."""


class TwoHopSpec(KernelBase):
    """DeepEP's normal kernels: once per node over the NIC, then NVLink."""

    kind: Literal["two_hop"]
    comm_sms: Count | None = None
    """SMs lent to the kernel; the generation's when left out."""


class LowLatencySpec(KernelBase):
    """DeepEP's low-latency kernels: one copy per token and expert."""

    kind: Literal["low_latency"]
    nvlink: bool = True
    """Same-node copies over NVLink; false: over the NIC too, as before June 2025."""


class FlatSpec(KernelBase):
    """Straight over the NIC to other nodes."""

    kind: Literal["flat"]
    copies: Literal["per_expert", "per_rank"] = "per_rank"
    comm_sms: Count | None = None


class NcclSpec(KernelBase):
    """NCCL's all-to-all from host-sorted buffers."""

    kind: Literal["nccl"]
    pxn: bool = True
    """Forward to the receiver's rail over NVLink first."""


KernelSpec = Annotated[TwoHopSpec | LowLatencySpec | FlatSpec | NcclSpec, Field(discriminator="kind")]


class PlacementSpec(Branch):
    """Which experts stand where."""

    kind: Literal["contiguous", "eplb"] = "contiguous"
    redundant_experts: Annotated[Index, Field(le=2**17)] = 0
    """Replicas beside the model's experts (eplb)."""
