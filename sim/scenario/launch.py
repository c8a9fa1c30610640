"""The workload of one launch on one GPU: a GEMM, a grouped GEMM, an attention core, or a copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sim.cost.curves import load_curves
from sim.scenario.descriptions import Workload
from sim.scenario.draft import Draft
from sim.scenario.kinds import Resolver
from sim.scenario.values import Count, WorkloadSpec
from sim.schemas import Bytes
from sim.workload.formats import PRODUCTS, ProductName

_AT = ("workload",)
_NEEDS = {
    "gemm": ("m", "n", "k"),
    "grouped_gemm": ("m", "n", "k", "experts"),
    "attention": ("m", "n", "k", "heads"),
    "copy": ("bytes",),
}
_TAKES = {
    "gemm": ("direction",),
    "grouped_gemm": ("direction", "rows"),
    "attention": ("direction", "kv_heads", "sequences", "context_tokens"),
    "copy": (),
}
"""Keys of an operation besides those that it needs; of others a launch has none."""
_ALSO = ("kind", "op", "dtype", "gemm_generation", "clock", "sms")
_DIRECTIONS = {
    "gemm": ("forward", "weight"),
    "grouped_gemm": ("forward", "weight"),
    "attention": ("forward", "backward", "decode"),
}


class LaunchSpec(WorkloadSpec):
    """One launch on one GPU, alone."""

    kind: Literal["launch"]
    op: Literal["gemm", "grouped_gemm", "attention", "copy"]
    """Operation of the launch."""
    m: Count | None = None
    """Rows of a GEMM, of a grouped one those of each expert; queries of each sequence of an attention."""
    n: Count | None = None
    """Outputs of a GEMM; width of a value head."""
    k: Count | None = None
    """Inputs of a GEMM; width of a query and key head."""
    dtype: ProductName = "bf16"
    """Formats of the operands; the output is BF16."""
    experts: Count | None = None
    """GEMMs of a grouped one."""
    rows: Literal["contiguous", "masked"] = "contiguous"
    """Layout of the rows of a grouped GEMM, as in prefill and training, or as in decode."""
    direction: Literal["forward", "backward", "weight", "decode"] = "forward"
    """weight: the gradient of a weight, summed over m rows; decode: few queries of an attention that reads its cache."""
    heads: Count | None = None
    """Query heads of an attention."""
    kv_heads: Count | None = None
    """Heads of keys and values, as many as of queries when left out; one with n less than k is a latent that all read (MLA)."""
    sequences: Count = 1
    """Sequences, or requests, of an attention."""
    context_tokens: Count | None = None
    """Keys of each sequence, its own queries among them; those alone when left out."""
    bytes: Bytes | None = None
    """Bytes that are copied: read, and written."""
    gemm_generation: str = "march_2025"
    clock: Literal["short", "sustained"] = "short"
    """Clock of tensor cores: of a short benchmark, or after seconds of load."""
    sms: Count | None = None
    """SMs that it may use; all when left out."""


@dataclass(frozen=True, slots=True)
class OneLaunch(Workload):
    """A launch, ready to be timed."""

    spec: LaunchSpec


def launch_of(draft: Draft, spec: LaunchSpec) -> OneLaunch:
    """Resolve a launch; problems are added to the draft."""
    if draft.hardware is None:
        draft.problem(("cluster", "fabric", "kind"), "'leaf_spine'", "a GPU for launch: the key 'hardware'")
        return OneLaunch(spec)
    if draft.model is not None:
        draft.problem(("model",), draft.document.get(("model",)), "none: a launch has a shape and no model")
    needs = _NEEDS[spec.op]
    for key in needs:
        if getattr(spec, key) is None:
            draft.problem(_AT, f"no '{key}'", f"the keys of {spec.op}: {', '.join(needs)}")
    for key in spec.model_fields_set - {*needs, *_TAKES[spec.op], *_ALSO}:
        draft.problem((*_AT, key), f"'{key}'", f"none: {spec.op} has {', '.join((*needs, *_TAKES[spec.op]))}")
    wanted = _DIRECTIONS.get(spec.op, ("forward",))
    if spec.direction not in wanted:
        draft.problem((*_AT, "direction"), f"'{spec.direction}'", f"one of: {', '.join(wanted)}")
    _check_gpu(draft, spec)
    _check_attention(draft, spec)
    return OneLaunch(spec)


def _check_gpu(draft: Draft, spec: LaunchSpec) -> None:
    assert draft.hardware is not None
    gpu, roof = draft.hardware.gpu, PRODUCTS[spec.dtype].roof
    if spec.op != "copy" and getattr(gpu.dense_flops, roof) is None:
        draft.problem(
            (*_AT, "dtype"),
            f"'{spec.dtype}'",
            f"another: {draft.hardware.title} has no {roof.upper()} tensor rate",
        )
    if spec.sms is not None and spec.sms > gpu.sms:
        draft.problem((*_AT, "sms"), str(spec.sms), f"at most the {gpu.sms} SMs of the GPU")
    generations = load_curves().gemm.generations
    if spec.gemm_generation not in generations:
        draft.problem(
            (*_AT, "gemm_generation"), f"'{spec.gemm_generation}'", f"one of: {', '.join(generations)}"
        )
    if spec.bytes is not None and spec.bytes <= 0:
        draft.problem((*_AT, "bytes"), str(draft.document.get((*_AT, "bytes"))), "more than 0")


def _check_attention(draft: Draft, spec: LaunchSpec) -> None:
    if spec.m and spec.context_tokens and spec.context_tokens < spec.m:
        wanted = f"{spec.m} or more: the queries are among the keys"
        draft.problem((*_AT, "context_tokens"), str(spec.context_tokens), wanted)
    if spec.heads and spec.kv_heads and spec.heads % spec.kv_heads:
        draft.problem((*_AT, "kv_heads"), str(spec.kv_heads), f"a divisor of the {spec.heads} heads")
    if spec.op == "attention" and spec.dtype not in ("bf16", "fp8_tensorwise"):
        draft.problem((*_AT, "dtype"), f"'{spec.dtype}'", "bf16 or fp8_tensorwise for attention")
    if spec.op == "attention" and spec.direction == "backward" and spec.context_tokens not in (None, spec.m):
        draft.problem(
            (*_AT, "context_tokens"), str(spec.context_tokens), "none: a backward has its own queries alone"
        )


RESOLVER = Resolver({"launch": LaunchSpec}, launch_of, takes_model=False, faults=())
