"""A measured compute profile: times of the operations of one layer pair on a real machine.

A file of `hardware/compute/` holds one. `moesim calibrate` writes it from a profiler trace; a scenario reads it with
`compute: measured`. Times are what the clock showed *with* communication next to the compute, on `compute_sms` SMs; the
split into a part bound by SMs and a part bound by HBM is there so that other SM counts can be derived from it.

For each phase: elapsed = sm_bound + memory_bound + idle. `sm_bound` is the time in which at least one SM-bound launch ran,
`memory_bound` the rest of the time in which any ran, `idle` what remains (launch gaps, waits for a collective).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sim import documents, schemas
from sim.descriptions import Description, OneOf
from sim.documents import Document
from sim.errors import InputError, Mark, Problem
from sim.schemas import Seconds

PHASES = ("attn(F)", "mlp(B)", "mlp(W)", "mlp(F)", "attn(B)", "attn(W)")
COLLECTIVES = ("combine(B)", "dispatch(F)", "dispatch(B)", "combine(F)")
PROFILE_SCHEMA = "moesim.compute-profile/1"
_SUM_TOLERANCE_FRACTION = 1e-4  # times are written with seven digits

Count = Annotated[int, Field(ge=0, strict=True)]
Time = Annotated[Seconds, Field(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSource(Description):
    """Place where a trace can be had."""

    title: str
    where: str
    date: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceOrigin(Description):
    """The machine that a trace was taken on; empty or 0 where the trace does not name it."""

    file: str
    name: str
    gpu: str
    gpu_sms: Count
    rank: Count
    world_size: Count
    backend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceContext(Description):
    """The shapes behind the times."""

    num_layers: Annotated[int, Field(ge=1, strict=True, alias="layers")]
    tokens_per_rank: Count
    """0 where the trace does not show it."""
    compute_sms: Count
    comm_sms: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationTime(Description):
    """One kind of launch in one phase of one layer."""

    num_kernels: Annotated[float, Field(ge=0, alias="kernels")]
    """Mean over layers."""
    time_s: Time
    """Sum over these launches, mean over layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPhase(Description):
    """One phase of a layer pair, mean over layers."""

    elapsed_s: Time
    sm_bound_s: Time
    memory_bound_s: Time
    idle_s: Time
    per_layer_s: tuple[Time, ...]
    """Elapsed, one a layer."""
    compute_sms: Count
    """Grid of its persistent GEMMs; 0 where the trace does not say."""
    expert_rows: tuple[Count, ...] = ()
    """Rows of the grouped GEMMs, padding included, one a layer; empty outside mlp(B) and mlp(F)."""
    operations: dict[str, OperationTime]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCollective(Description):
    """One dispatch or combine of a layer pair, mean over layers."""

    kernel: Literal["dispatch", "combine"]
    cached: bool = False
    data_s: Time
    """The kernel that moves the bytes."""
    notify_s: Time
    """Barrier and counts before it: mostly waiting for the slowest rank."""
    preparation_s: Time
    """Layout and casts before it."""
    per_layer_s: tuple[Time, ...]
    """Data kernel, one a layer."""
    comm_sms: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlapTime(Description):
    """Both streams over the whole span."""

    compute_busy_s: Time
    comm_busy_s: Time
    both_s: Time
    exposed_comm_s: Time
    idle_s: Time


@dataclass(frozen=True, slots=True, kw_only=True)
class UnnamedTime(Description):
    """Launches that the calibration could not name."""

    kernel: str
    count: Count
    time_s: Time


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredProfile(Description):
    """Times of a layer pair on a real machine. A layer pair is one layer forward and one backward."""

    schema: Literal["moesim.compute-profile/1"]
    name: str
    title: str
    grade: Literal["measured"]
    source: TraceSource
    trace: TraceOrigin
    context: TraceContext
    cut_by: Literal["ranges", "markers"]
    """Origin of the phases of launches: named ranges of the trace, or marker kernels."""
    span_s: Time
    """All layers, first launch to last."""
    phases: dict[Annotated[str, OneOf(PHASES)], MeasuredPhase]
    exchanges: dict[Annotated[str, OneOf(COLLECTIVES)], MeasuredCollective]
    overlap: OverlapTime
    unnamed: tuple[UnnamedTime, ...] = ()

    @property
    def gpu(self) -> str:
        """Name of the GPU, as the trace gives it."""
        return self.trace.gpu

    @property
    def world_size(self) -> int:
        """Ranks of the traced run."""
        return self.trace.world_size

    @property
    def num_layers(self) -> int:
        """Layer pairs that the means are over."""
        return self.context.num_layers

    @property
    def tokens_per_rank(self) -> int:
        """Tokens of a microbatch on one rank; 0 where the trace does not show it."""
        return self.context.tokens_per_rank


def load_profile(
    name_or_path: str | Path, *, near: Path | None = None, mark: Mark | None = None
) -> MeasuredProfile:
    """Read a measured profile.

    Parameters
    ----------
    name_or_path : str or Path
        The name of a file of `hardware/compute`, or a path.
    near : Path, optional
        Folder that a relative path may start from.
    mark : Mark, optional
        Where the name was written, for messages.

    Returns
    -------
    MeasuredProfile
        Times in seconds.

    Raises
    ------
    InputError
        With every problem of the file.

    Examples
    --------
    >>> round(load_profile("h800-train-measured").phases["mlp(F)"].elapsed_s * 1e6)
    4641
    """
    path = documents.find(str(name_or_path), "hardware/compute", "compute profile", near=near, mark=mark)
    return read_profile(documents.load(path))


def read_profile(document: Document) -> MeasuredProfile:
    """Check a profile document. Raises `InputError` with all problems."""
    profile = schemas.check(document, MeasuredProfile)
    problems = list(_problems(document, profile))
    if problems:
        raise InputError(problems)
    return replace(
        profile,
        phases={name: profile.phases[name] for name in PHASES},
        exchanges={name: profile.exchanges[name] for name in COLLECTIVES},
    )


def _problems(document: Document, profile: MeasuredProfile) -> Iterator[Problem]:
    layers = profile.context.num_layers
    for branch, names, present in (
        ("phases", PHASES, profile.phases),
        ("exchanges", COLLECTIVES, profile.exchanges),
    ):
        missing = [name for name in names if name not in present]
        if missing:
            yield document.problem((branch,), f"no {', '.join(missing)}", f"all of: {', '.join(names)}")
        for name, times in present.items():
            if len(times.per_layer_s) != layers:
                got, wanted = f"{len(times.per_layer_s)} times", f"one for each of {layers} layers"
                yield document.problem((branch, name, "per_layer"), got, wanted)
    for name, phase in profile.phases.items():
        total_s = phase.sm_bound_s + phase.memory_bound_s + phase.idle_s
        if abs(total_s - phase.elapsed_s) > _SUM_TOLERANCE_FRACTION * phase.elapsed_s:
            wanted = f"sm_bound + memory_bound + idle = {total_s:g} s"
            yield document.problem(("phases", name, "elapsed"), f"{phase.elapsed_s:g} s", wanted)
