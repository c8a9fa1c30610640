"""A measured compute profile: what the operations of one layer pair took on a real machine.

A file of `hardware/compute/` holds one. `moesim calibrate` writes it from a profiler trace; a scenario reads it with
`compute: measured`. Times are what the clock showed *with* communication beside the compute, on `compute_sms` SMs; the
split into a part bound by SMs and a part bound by HBM is there so that other SM counts can be derived from it.

For each phase: elapsed = sm_bound + memory_bound + idle. `sm_bound` is the time in which at least one SM-bound kernel ran,
`memory_bound` the rest of the time in which any ran, `idle` what remains (launch gaps, waits for an exchange).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from sim import documents, schemas
from sim.documents import Document
from sim.errors import Fault, InputError, Mark
from sim.schemas import Seconds

PhaseName = Literal["attn(F)", "mlp(B)", "mlp(W)", "mlp(F)", "attn(B)", "attn(W)"]
ExchangeName = Literal["combine(B)", "dispatch(F)", "dispatch(B)", "combine(F)"]
PROFILE_SCHEMA = "moesim.compute-profile/1"
_SUM_TOLERANCE_FRACTION = 1e-4  # figures are written with seven digits

Count = Annotated[int, Field(ge=0, strict=True)]


@dataclass(frozen=True, slots=True)
class OperationTime:
    """One kind of kernel in one phase of one layer."""

    num_kernels: float
    """Mean over layers."""
    time_s: float
    """Sum over these kernels, mean over layers."""


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """One phase of a layer pair, mean over layers."""

    elapsed_s: float
    sm_bound_s: float
    memory_bound_s: float
    idle_s: float
    per_layer_s: tuple[float, ...]
    """Elapsed, one a layer."""
    compute_sms: int
    """Grid of its persistent GEMMs; 0 where the trace does not say."""
    expert_rows: tuple[int, ...]
    """Rows of the grouped GEMMs, padding included, one a layer; empty outside mlp(B) and mlp(F)."""
    operations: Mapping[str, OperationTime]


@dataclass(frozen=True, slots=True)
class ExchangeTime:
    """One exchange of a layer pair, mean over layers."""

    kernel: Literal["dispatch", "combine"]
    cached: bool
    data_s: float
    """The kernel that moves the bytes."""
    notify_s: float
    """Barrier and counts before it: mostly waiting for the slowest rank."""
    preparation_s: float
    """Layout and casts before it."""
    per_layer_s: tuple[float, ...]
    """Data kernel, one a layer."""
    comm_sms: int


@dataclass(frozen=True, slots=True)
class OverlapTime:
    """Both streams over the whole span."""

    compute_busy_s: float
    comm_busy_s: float
    both_s: float
    exposed_comm_s: float
    idle_s: float


@dataclass(frozen=True, slots=True)
class MeasuredProfile:
    """Times of a layer pair on a real machine. A layer pair is one layer forward and one backward."""

    name: str
    title: str
    source: str
    gpu: str
    gpu_sms: int
    num_layers: int
    tokens_per_rank: int
    world_size: int
    compute_sms: int
    comm_sms: int
    span_s: float
    """All layers, first kernel to last."""
    phases: Mapping[str, PhaseTime]
    exchanges: Mapping[str, ExchangeTime]
    overlap: OverlapTime


class Branch(BaseModel):
    """A mapping of the file; unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Time = Annotated[Seconds, Field(ge=0)]


class SourceFile(Branch):
    """`source`: where the trace can be had."""

    title: str
    where: str
    date: str | None = None
    note: str | None = None


class TraceFile(Branch):
    """`trace`: what the trace says about itself."""

    file: str
    name: str
    gpu: str
    gpu_sms: Count
    rank: Count
    world_size: Count
    backend: str


class ContextFile(Branch):
    """`context`: the shapes behind the times."""

    layers: Annotated[int, Field(ge=1, strict=True)]
    tokens_per_rank: Count
    """0 where the trace does not show it."""
    compute_sms: Count
    comm_sms: Count


class OperationFile(Branch):
    """A kind of kernel in a phase."""

    kernels: Annotated[float, Field(ge=0)]
    """Mean number a layer."""
    time: Time


class PhaseFile(Branch):
    """A phase."""

    elapsed: Time
    sm_bound: Time
    memory_bound: Time
    idle: Time
    per_layer: list[Time]
    compute_sms: Count
    expert_rows: list[Count] = []
    operations: dict[str, OperationFile]


class ExchangeFile(Branch):
    """An exchange."""

    kernel: Literal["dispatch", "combine"]
    cached: bool = False
    data: Time
    notify: Time
    preparation: Time
    per_layer: list[Time]
    comm_sms: Count


class OverlapFile(Branch):
    """`overlap`."""

    compute_busy: Time
    comm_busy: Time
    both: Time
    exposed_comm: Time
    idle: Time


class UnnamedFile(Branch):
    """A kernel that the calibration could not name."""

    kernel: str
    count: Count
    time: Time


class ProfileFile(Branch):
    """A file of `hardware/compute/`."""

    schema_: Literal["moesim.compute-profile/1"] = Field(alias="schema")
    name: str
    title: str
    grade: Literal["measured"]
    source: SourceFile
    trace: TraceFile
    context: ContextFile
    cut_by: Literal["ranges", "markers"]
    """How kernels were given to phases: by named ranges of the trace, or by marker kernels."""
    span: Time
    phases: dict[PhaseName, PhaseFile]
    exchanges: dict[ExchangeName, ExchangeFile]
    overlap: OverlapFile
    unnamed: list[UnnamedFile] = []


def load_profile(
    name_or_path: str | Path, *, near: Path | None = None, mark: Mark | None = None
) -> MeasuredProfile:
    """Read a measured profile: a path (relative to `near` too), or the name of a file of `hardware/compute`."""
    path = documents.find(str(name_or_path), "hardware/compute", "compute profile", near=near, mark=mark)
    return read_profile(documents.load(path))


def read_profile(document: Document) -> MeasuredProfile:
    """Check a profile document. Raises `InputError` with all faults."""
    file = schemas.check(document, ProfileFile)
    faults = list(_faults(document, file))
    if faults:
        raise InputError(faults)
    return MeasuredProfile(
        name=file.name,
        title=file.title,
        source=f"{file.source.title}, {file.source.where}",
        gpu=file.trace.gpu,
        gpu_sms=file.trace.gpu_sms,
        num_layers=file.context.layers,
        tokens_per_rank=file.context.tokens_per_rank,
        world_size=file.trace.world_size,
        compute_sms=file.context.compute_sms,
        comm_sms=file.context.comm_sms,
        span_s=file.span,
        phases={name: _phase(file.phases[name]) for name in get_args(PhaseName)},
        exchanges={name: _exchange(file.exchanges[name]) for name in get_args(ExchangeName)},
        overlap=OverlapTime(
            compute_busy_s=file.overlap.compute_busy,
            comm_busy_s=file.overlap.comm_busy,
            both_s=file.overlap.both,
            exposed_comm_s=file.overlap.exposed_comm,
            idle_s=file.overlap.idle,
        ),
    )


def _phase(file: PhaseFile) -> PhaseTime:
    return PhaseTime(
        elapsed_s=file.elapsed,
        sm_bound_s=file.sm_bound,
        memory_bound_s=file.memory_bound,
        idle_s=file.idle,
        per_layer_s=tuple(file.per_layer),
        compute_sms=file.compute_sms,
        expert_rows=tuple(file.expert_rows),
        operations={kind: OperationTime(one.kernels, one.time) for kind, one in file.operations.items()},
    )


def _exchange(file: ExchangeFile) -> ExchangeTime:
    return ExchangeTime(
        kernel=file.kernel,
        cached=file.cached,
        data_s=file.data,
        notify_s=file.notify,
        preparation_s=file.preparation,
        per_layer_s=tuple(file.per_layer),
        comm_sms=file.comm_sms,
    )


def _faults(document: Document, file: ProfileFile) -> list[Fault]:
    faults: list[Fault] = []
    branches = (
        ("phases", get_args(PhaseName), file.phases),
        ("exchanges", get_args(ExchangeName), file.exchanges),
    )
    for branch, names, present in branches:
        missing = [name for name in names if name not in present]
        if missing:
            faults.append(
                document.fault((branch,), f"no {', '.join(missing)}", f"all of: {', '.join(names)}")
            )
        for name, one in present.items():
            if len(one.per_layer) != file.context.layers:
                got, wanted = f"{len(one.per_layer)} times", f"one for each of {file.context.layers} layers"
                faults.append(document.fault((branch, name, "per_layer"), got, wanted))
    for name, phase in file.phases.items():
        total = phase.sm_bound + phase.memory_bound + phase.idle
        if abs(total - phase.elapsed) > _SUM_TOLERANCE_FRACTION * phase.elapsed:
            wanted = f"sm_bound + memory_bound + idle = {total:g} s"
            faults.append(document.fault(("phases", name, "elapsed"), f"{phase.elapsed:g} s", wanted))
    return faults
