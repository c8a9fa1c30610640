"""Gates, kernels and placements as every workload with experts declares them, and their resolvers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sim.cluster.kernels import Kernel, generations, load_kernel
from sim.errors import InputError, nearest
from sim.scenario.draft import Draft, named_file, placed_at
from sim.scenario.values import Branch, Count, Index, Number
from sim.workload import gates, recordings
from sim.workload.gates import Gate

_AT = ("workload",)
DRIFT = 0.1
"""Part of popularity's variance that is new between planning and use (assumed; `scenarios/published/sglang_prefill.yaml`)."""


class GateBase(Branch):
    """Keys that all gates share."""

    sampling: Literal["tokens", "expected"] = "tokens"
    """tokens: every token draws its experts. expected: mean bytes, no draw."""
    capacity_factor: Annotated[Number, Field(gt=0, le=1e6)] | None = None
    """Most tokens of a rank that an expert takes, over those of an even gate; no limit when left out."""
    drop: bool | None = None
    """States whether tokens are dropped, for a reader: true beside a `capacity_factor`, false without one."""


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
    """Keys that gates share in which some experts are more popular."""

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


class LognormalGate(PopularityGate):
    """Popularity lognormal by layer and expert, as measured on DeepSeek-V3."""

    kind: Literal["lognormal"]
    spread: Annotated[Number, Field(ge=0, le=10)] = 0.8
    """Standard deviation of the logarithm; 0.8 on DeepSeek-V3 (DeepEP, issue 393)."""
    drift: Annotated[Number, Field(ge=0, le=1)] = DRIFT
    """Part of the variance that is drawn anew after experts were placed; 0: the placement knows it, 1: nothing of it."""


class LoadsGate(PopularityGate):
    """Popularity from a file: one number an expert, in each layer."""

    kind: Literal["loads"]
    file: str
    layer: Index | None = None
    """The only layer of the file to take, from 0; the model's layers with experts take all in turn when left out."""


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
    | LognormalGate
    | LoadsGate
    | TraceGate,
    Field(discriminator="kind"),
]


class KernelBase(Branch):
    """Keys that all kernels share."""

    override: dict[str, Any] = Field(default_factory=dict)
    """Any parameter of the kernel generation, e.g. {nic_efficiency_fraction: 0.95}."""
    generation: str | None = None
    """A shipped generation of the kind, or a file of your own, relative to the scenario; the kind's default when left out."""


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


NCCL = NcclSpec(kind="nccl")
"""The kernel where none is named."""


class PlacementSpec(Branch):
    """Ranks that hold each expert."""

    kind: Literal["contiguous", "eplb", "per_microbatch"] = "contiguous"
    """eplb: placed by earlier loads. per_microbatch: by those of each microbatch, whose replicas move over scale-up first."""
    redundant_experts: Annotated[Index, Field(le=2**17)] = 0
    """Replicas next to the model's experts; contiguous ones are of the first experts again."""


def kernel_of(draft: Draft, spec: KernelSpec) -> tuple[Kernel, int, dict[str, Any]]:
    """Resolve the all-to-all kernel of a workload: its generation, the SMs lent to it, and options of its kind.

    Problems are added to the draft; InputError where the generation cannot be loaded.
    """
    at, document = (*_AT, "kernel"), draft.document
    if document.get(at) is None and draft.model is not None and draft.model.has_gate:
        draft.problem(_AT, "nothing", "the key 'kernel', of the all-to-alls of its experts")
    options = spec.model_dump(exclude={"kind", "generation", "override"})
    named, where = spec.generation or spec.kind, (*at, "generation")
    kernel = load_kernel(
        named, document.branch((*at, "override")), near=document.folder, mark=document.mark(where)
    )
    if kernel.kind != spec.kind:
        known = generations(spec.kind)
        wanted = f"a generation of {spec.kind}: {', '.join(known)} or a file that says 'kind: {spec.kind}'"
        draft.problems.append(
            document.problem(where, f"'{named}', of kind {kernel.kind}", wanted, nearest(named, known))
        )
    comm_sms: int = options.pop("comm_sms", None) or kernel.comm_sms
    assert draft.hardware is not None
    if comm_sms > draft.hardware.gpu.sms:
        draft.problem((*at, "comm_sms"), str(comm_sms), f"at most {draft.hardware.gpu.sms}, the GPU's SMs")
    return kernel, comm_sms, options


def placement_of(draft: Draft, spec: PlacementSpec, ep: int) -> None:
    """Check that experts and replicas fill the `ep` ranks of an EP group; problems are added to the draft."""
    assert draft.model is not None
    num_experts, redundant = draft.model.num_experts, spec.redundant_experts
    if (num_experts + redundant) % ep:
        more = f" ({num_experts} + {redundant} redundant)" if redundant else ""
        near = -(num_experts + redundant) % ep + redundant
        wanted = f"a divisor of the {num_experts + redundant} experts{more}; or {near} redundant_experts"
        draft.problem(("layout", "ep"), str(ep), wanted)
    elif spec.kind == "per_microbatch":
        if num_experts % ep or not redundant:
            got = f"{redundant} next to {num_experts} experts on EP{ep}"
            wanted = f"a multiple of EP{ep}, and an EP that divides the {num_experts} experts"
            draft.problem((*_AT, "placement", "redundant_experts"), got, wanted)
        if draft.fidelity == "closed_form":
            draft.problem(("fidelity",), "'closed_form'", "'flow' next to placement per_microbatch")


def gate_of(draft: Draft, spec: GateSpec, num_nodes: int) -> Gate | None:
    """Resolve the gate of a workload, which the model completes, for an EP group on so many nodes.

    None where it has problems, which are added to the draft.
    """
    model = draft.model
    assert model is not None
    given = {
        key: value
        for key, value in spec.model_dump(exclude={"sampling", "drop"}).items()
        if value is not None
    }
    if spec.drop is not None and spec.drop != (spec.capacity_factor is not None):
        beside = (
            "without a capacity_factor" if spec.drop else f"next to capacity_factor {spec.capacity_factor:g}"
        )
        draft.problem(
            (*_AT, "gate", "drop"), f"{str(spec.drop).lower()} {beside}", "both, or neither: dropless"
        )
    try:
        if given.pop("file", None) is not None:
            file = named_file(draft.document, (*_AT, "gate", "file"))
            if isinstance(spec, LoadsGate):
                from sim.workload.recorded_loads import load_loads  # few gates are recorded

                given |= _recorded(draft, load_loads(*file), given.pop("layer", None))
            else:
                given["trace"] = recordings.load_trace(*file)
        gate = gates.complete(
            Gate(**given),
            num_nodes=num_nodes,
            model_num_groups=model.num_groups,
            model_top_groups=model.top_groups,
            model_group_score=model.group_score,
        )
        gates.check(gate, model.num_experts, model.top_k)
    except InputError as error:
        draft.problems.extend(placed_at(draft.document, _AT, error))
        return None
    return gate


def _recorded(
    draft: Draft, layers: tuple[tuple[float, ...], ...], asked: int | None
) -> dict[str, tuple[Any, ...]]:
    """Fields of a gate of recorded loads: those of the layer that is asked for, or of all."""
    if asked is not None and asked >= len(layers):
        wanted = f"0 to {len(layers) - 1}: the file has {len(layers)} layers with loads"
        draft.problem((*_AT, "gate", "layer"), str(asked), wanted)
    chosen = layers if asked is None else layers[asked : asked + 1] or layers[:1]
    return {"loads": chosen[0], "layers": chosen if len(chosen) > 1 else ()}
