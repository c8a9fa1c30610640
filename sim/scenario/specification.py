"""What a scenario file may say, as pydantic models: the shape of the YAML, its defaults and its JSON Schema.

Only shape is checked here; what must agree across branches (EP and ranks, groups and experts) is checked by `scenario`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from sim.scenario.routing import (
    MAX_MICROBATCHES,
    Branch,
    Count,
    GateSpec,
    Index,
    KernelSpec,
    Machines,
    Number,
    PlacementSpec,
    UniformGate,
    Whole,
)
from sim.scenario.serving import ServingSpec
from sim.schemas import quantity
from sim.study.deployed import DecodeSpec, PrefillSpec
from sim.units import UnitError

__all__ = [
    "AllToAllSpec",
    "Branch",
    "ClusterSpec",
    "Count",
    "DecodeSpec",
    "FabricSpec",
    "FlowsSpec",
    "GateSpec",
    "KernelSpec",
    "LeafSpineSpec",
    "PlacementSpec",
    "PrefillSpec",
    "ScenarioSpec",
    "TrainingSpec",
]

FabricKindName = Literal["rail_optimized", "multi_plane", "three_tier", "rail_only", "scale_up"]


# --- cluster -------------------------------------------------------------------------------------------------------


class LeafSpineSpec(Branch):
    """A bare fabric of hosts, for `flows`."""

    kind: Literal["leaf_spine"]
    hosts: Machines
    hosts_per_leaf: Machines
    spines: Machines
    link: quantity("bytes/s")  # type: ignore[valid-type]
    oversubscription: Annotated[Number, Field(gt=0)] | None = None
    """Must equal hosts_per_leaf / spines."""
    link_latency: quantity("s", 0) = "0 s"  # type: ignore[valid-type]
    switch_latency: quantity("s", 0) = "0 s"  # type: ignore[valid-type]
    routing: Literal["adaptive", "ecmp", "static"] = "adaptive"
    """adaptive: uplinks pooled; ecmp: each flow hashed to one path; static: paths given in the flows."""
    payload_per_packet: quantity("bytes") = "4096 B"  # type: ignore[valid-type]
    wire_per_packet: quantity("bytes") = "4096 B"  # type: ignore[valid-type]


class FabricSpec(Branch):
    """The scale-out fabric between nodes."""

    kind: FabricKindName | None = None
    """The profile's when left out."""
    routing: Literal["adaptive", "ecmp"] = "adaptive"
    oversubscription: Annotated[Number, Field(ge=1e-3, le=1000)] = 1.0
    nodes_per_leaf: Machines | None = None
    """Nodes that one leaf joins; the profile's when left out."""


class FaultSpec(Branch):
    """A NIC at another rate: of one node (`node` and `nic`) or of all nodes (`rail`)."""

    node: Index | None = None
    nic: Index | None = None
    rail: Index | None = None
    bandwidth: quantity("bytes/s")  # type: ignore[valid-type]

    @field_validator("bandwidth")
    @classmethod
    def _not_negative(cls, value: float) -> float:
        if value < 0:
            raise UnitError(f"{value:g} bytes/s", "a rate of 0 or more")
        return value


def _fabric_tag(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return "leaf_spine" if kind == "leaf_spine" else "cluster"


class ClusterSpec(Branch):
    """Hardware, its number of nodes, and how they are cabled; or a bare fabric alone."""

    hardware: str | None = None
    """A profile of `hardware/`, or a path to one."""
    nodes: Whole | None = None
    override: dict[str, Any] = Field(default_factory=dict)
    """Any value of the profile, as a tree or with dotted keys: {gpu.scale_up.bandwidth: 450 GB/s}."""
    fabric: (
        Annotated[
            Annotated[FabricSpec, Tag("cluster")] | Annotated[LeafSpineSpec, Tag("leaf_spine")],
            Discriminator(_fabric_tag),
        ]
        | None
    ) = None
    faults: list[FaultSpec] = Field(default_factory=list)

    @field_validator("nodes")
    @classmethod
    def _some_nodes(cls, value: int | None) -> int | None:
        if value is not None and value < 1:
            raise UnitError(str(value), "1 or more: a cluster without nodes has no GPU to run on")
        if value is not None and value > 2**17:
            raise UnitError(str(value), f"at most {2**17} nodes")
        return value


# --- layout --------------------------------------------------------------------------------------------------------


class LayoutSpec(Branch):
    """How ranks are split; what is left out is derived."""

    ep: Count | None = None
    pp: Count | None = None
    tp: Count | None = None
    dp: Count | None = None
    cp: Count | None = None


# --- workload ------------------------------------------------------------------------------------------------------


class AllToAllSpec(Branch):
    """One dispatch and one combine of every EP group; or a plain exchange of `bytes_per_rank`."""

    kind: Literal["all_to_all"]
    tokens_per_rank: Count | None = None
    bytes_per_rank: quantity("bytes") | None = None  # type: ignore[valid-type]
    gate: GateSpec | None = None
    kernel: KernelSpec
    dispatch_dtype: Literal["fp8", "bf16"] = "fp8"
    combine_dtype: Literal["bf16", "fp8", "logfmt10"] = "bf16"
    placement: PlacementSpec = PlacementSpec()


class FlowsSpec(Branch):
    """One's own flows, from a CSV."""

    kind: Literal["flows"]
    file: str
    """flow_id,src,dst,bytes,start_us[,after_flow_id][,links]; relative to the scenario, or absolute."""


class SkewSpec(Branch):
    """Lognormal standard deviations: how unlike ranks are. All 0 is a balanced step."""

    routed_load: quantity("fraction") = "7.5 %"  # type: ignore[valid-type]
    """Of a rank's routed tokens, by (layer, microbatch, rank)."""
    kernel_jitter: quantity("fraction") = "2 %"  # type: ignore[valid-type]
    """Of a kernel's time."""
    gpu_spread: quantity("fraction") = "1.5 %"  # type: ignore[valid-type]
    """Of a GPU's speed, for the whole step."""


class RunSpec(Branch):
    """A whole training run of such steps."""

    tokens: quantity("count")  # type: ignore[valid-type]
    price: quantity("usd/gpu-hour") | None = None  # type: ignore[valid-type]
    """The profile's when left out."""
    gpu_load: quantity("fraction") = "85 %"  # type: ignore[valid-type]
    """Mean power of a GPU over its TDP (assumed: between a GEMM's and a wait's)."""
    host_power: quantity("W") = "300 W"  # type: ignore[valid-type]
    """CPU, memory, fans of a node for each GPU (assumed: 2.4 kW a node of 8)."""
    network_power: quantity("W") = "50 W"  # type: ignore[valid-type]
    """NIC, optics and switches for each GPU (assumed)."""
    pue: Annotated[Number, Field(ge=1, le=100)] = 1.2
    """Power of the building over power of the machines (assumed)."""


class TrainingSpec(Branch):
    """One optimizer step, and with `run` a whole run of them."""

    kind: Literal["training"]
    sequence_tokens: Count = 4096
    microbatch_sequences: Count = 1
    microbatches: Annotated[Count, Field(le=MAX_MICROBATCHES)] | None = None
    """Of one pipeline and step (of both directions together, where a schedule has two)."""
    global_batch: Count | None = None
    """Sequences of one step over all data-parallel ranks; microbatches follow from it and the layout."""
    schedule: Literal["gpipe", "1f1b", "interleaved", "zb1p", "zb2p", "dualpipe", "dualpipev"] = "dualpipe"
    chunks: Count | None = None
    """Stages a rank, for `interleaved`."""
    stage_layers: list[Index] | None = None
    """Layers of each stage; balanced when left out."""
    overlap: bool = True
    """Whether pairs of a forward and a backward hide their all-to-alls behind one another."""
    gate: GateSpec = UniformGate(kind="uniform")
    """Mean copies a token; the spread around them is `skew`."""
    kernel: KernelSpec
    dispatch_dtype: Literal["fp8", "bf16"] = "fp8"
    combine_dtype: Literal["bf16", "fp8", "logfmt10"] = "bf16"
    precision: Literal["fp8", "bf16"] = "fp8"
    """Of the layers' GEMMs; heads and gates are BF16."""
    compute: Literal["modelled", "measured"] = "modelled"
    profile: str | None = None
    """A measured compute profile, beside `compute: measured`."""
    gemm_generation: str = "march_2025"
    """Of the GEMM kernels."""
    recompute: Literal["none", "selective", "full"] = "selective"
    skew: SkewSpec = SkewSpec()
    run: RunSpec | None = None


WorkloadSpec = Annotated[
    AllToAllSpec | FlowsSpec | TrainingSpec | PrefillSpec | DecodeSpec | ServingSpec,
    Field(discriminator="kind"),
]


# --- the whole -----------------------------------------------------------------------------------------------------


class ExpectSpec(Branch):
    """A published value that a metric must meet."""

    value: str | Number
    tolerance: quantity("fraction", 0)  # type: ignore[valid-type]
    source: str | None = None


class ScenarioSpec(Branch):
    """A scenario file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    title: str | None = None
    seed: Index = 0
    fidelity: Literal["flow", "closed_form"] = "flow"
    cluster: ClusterSpec
    model: str | dict[str, Any] | None = None
    """A model of `scenarios/models/`, a path, or the model itself."""
    layout: LayoutSpec = LayoutSpec()
    workload: WorkloadSpec
    expect: dict[str, ExpectSpec] = Field(default_factory=dict)
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """The scenario several ways: {h800: {}, h100: {cluster.hardware: h100}}; the first is the reference."""
