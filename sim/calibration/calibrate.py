"""Calibrate on a profiler trace: what each phase and exchange of a layer pair took on the real machine.

A trace that is not of a DualPipe pair still gives totals by class of kernel; only a profile needs the phases. A kernel
that cannot be named counts as memory-bound in its phase and is listed.
"""

from __future__ import annotations

import itertools
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sim.calibration import kineto
from sim.calibration.kernel_names import COMMUNICATION_BOUNDS, short_name
from sim.calibration.kineto import KernelEvent
from sim.calibration.layer_pairs import (
    EXCHANGE_KERNELS,
    EXCHANGES,
    PHASES,
    RANGES,
    LayerKernels,
    Segmentation,
    Streams,
    find_streams,
    segment,
)
from sim.cost.measured import MeasuredCollective, MeasuredPhase, OperationTime, OverlapTime, TraceOrigin

Interval = tuple[float, float]
_ANY_GRID = 2**31
_WAIT_S = 1e-3


@dataclass(frozen=True, slots=True)
class ClassTime:
    """All kernels of one class."""

    label: str
    bound: str
    num_kernels: int
    time_s: float
    share_fraction: float
    """Part of the kernel time of all classes."""


@dataclass(frozen=True, slots=True)
class UnnamedKernel:
    """A kernel whose name no rule knows."""

    name: str
    num_kernels: int
    time_s: float
    share_fraction: float


@dataclass(frozen=True, slots=True)
class HostTime:
    """Time from one launch of the host to its next, of all threads together; the profiler's own part is in it."""

    num_launches: int
    launch_s: float
    """Mean, but for waits: a figure for `launch` of a software profile."""
    half_s: float
    """Half of them follow within this time."""
    waited_s: float
    """Sum of what is longer than a millisecond: the host waits for the device there."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The times of a trace, by class of kernels, and by phase where it is of layer pairs."""

    origin: TraceOrigin
    streams: Streams
    num_kernels: int
    span_s: float
    """First kernel to last."""
    classes: tuple[ClassTime, ...]
    """Longest first."""
    unnamed: tuple[UnnamedKernel, ...]
    """Longest first."""
    overlap: OverlapTime
    compute_sms: int
    comm_sms: int
    tokens_per_rank: int
    """Rows of most of the row-wise casts; 0 where there are none."""
    cut_by: str
    """ranges, markers, or none."""
    why_not: str
    """The reason why it has no phases; empty where it has some."""
    num_layers: int
    phases: Mapping[str, MeasuredPhase]
    exchanges: Mapping[str, MeasuredCollective]
    host: HostTime | None
    """None where the trace has no launches."""


def calibrate(path: str | Path, progress: Callable[[str], None] = lambda _: None) -> Calibration:
    """Read a Kineto trace, gzipped or not; time its classes, and its phases where it is of layer pairs.

    InputError for a file that cannot be read, is truncated, or is not such a trace.
    """
    trace = kineto.read(path, RANGES, progress)
    kernels = trace.kernels
    streams = find_streams(kernels)
    cut = segment(kernels, streams)
    spans = [_spans(kernels, streams, communication=which) for which in (False, True)]
    compute_busy_s, comm_busy_s, any_busy_s = (
        _union_s(spans[0]),
        _union_s(spans[1]),
        _union_s(spans[0] + spans[1]),
    )
    span_s = max(kernel.end_s for kernel in kernels)
    return Calibration(
        origin=trace.origin,
        streams=streams,
        num_kernels=len(kernels),
        span_s=span_s,
        classes=_classes(kernels),
        unnamed=_unnamed(kernels),
        overlap=OverlapTime(
            compute_busy_s=compute_busy_s,
            comm_busy_s=comm_busy_s,
            both_s=compute_busy_s + comm_busy_s - any_busy_s,
            exposed_comm_s=any_busy_s - compute_busy_s,
            idle_s=span_s - any_busy_s,
        ),
        compute_sms=_sms(kernels, "sm", trace.origin.gpu_sms),
        comm_sms=_sms(kernels, "transfer", trace.origin.gpu_sms),
        tokens_per_rank=_tokens(kernels),
        cut_by=cut.by,
        why_not=cut.why_not,
        num_layers=len(cut.layers),
        phases=_phases(cut, trace.origin.gpu_sms),
        exchanges=_exchanges(cut, trace.origin.gpu_sms),
        host=_host(trace.launched_s),
    )


def _host(launched_s: Sequence[float]) -> HostTime | None:
    apart = [after - before for before, after in itertools.pairwise(launched_s)]
    issued = [time_s for time_s in apart if time_s <= _WAIT_S]
    if not issued:
        return None
    return HostTime(
        len(launched_s), statistics.fmean(issued), statistics.median(issued), sum(apart) - sum(issued)
    )


# --- whole trace ---------------------------------------------------------------------------------------------------


def _classes(kernels: Sequence[KernelEvent]) -> tuple[ClassTime, ...]:
    by_label: dict[str, list[KernelEvent]] = defaultdict(list)
    for kernel in kernels:
        by_label[kernel.named.label].append(kernel)
    total_s = _sum_s(kernels) or 1.0
    times = [
        ClassTime(label, members[0].named.bound, len(members), _sum_s(members), _sum_s(members) / total_s)
        for label, members in by_label.items()
    ]
    return tuple(sorted(times, key=lambda entry: (-entry.time_s, entry.label)))


def _unnamed(kernels: Sequence[KernelEvent]) -> tuple[UnnamedKernel, ...]:
    by_name: dict[str, list[KernelEvent]] = defaultdict(list)
    for kernel in kernels:
        if kernel.named.kind == "unknown":
            by_name[short_name(kernel.name)].append(kernel)
    total_s = _sum_s(kernels) or 1.0
    times = [
        UnnamedKernel(name, len(members), _sum_s(members), _sum_s(members) / total_s)
        for name, members in by_name.items()
    ]
    return tuple(sorted(times, key=lambda entry: (-entry.time_s, entry.name)))


def _spans(kernels: Iterable[KernelEvent], streams: Streams, *, communication: bool) -> list[Interval]:
    """Return when communication (its stream, and transfers elsewhere) or the rest ran."""
    return [
        (kernel.start_s, kernel.end_s)
        for kernel in kernels
        if communication
        == (kernel.stream == streams.communication or kernel.named.bound in COMMUNICATION_BOUNDS)
    ]


def _sms(kernels: Iterable[KernelEvent], bound: str, gpu_sms: int) -> int:
    """Return the SMs that kernels of a bound use: the grid, no larger than the GPU, in which most of their time is spent.

    A grid shows that only of kernels that stay on their SMs, as GEMMs and exchanges that share a GPU do; 0 where it cannot.
    """
    limit = gpu_sms or (_ANY_GRID if bound == "transfer" else 0)
    spent: Counter[int] = Counter()
    for kernel in kernels:
        if kernel.named.bound == bound and 0 < kernel.blocks <= limit:
            spent[kernel.blocks] += round(kernel.duration_s * 1e9)
    return max(sorted(spent), key=spent.__getitem__, default=0)


def _tokens(kernels: Iterable[KernelEvent]) -> int:
    rows = Counter(kernel.grid[0] for kernel in kernels if kernel.grid and _is_row_wise(kernel))
    return max(sorted(rows), key=rows.__getitem__, default=0)


def _is_row_wise(kernel: KernelEvent) -> bool:
    """Return whether a kernel has one block a token, so that its grid is the number of rows."""
    return "per_token" in kernel.name and kernel.named.kind in ("cast", "swiglu")


def _sum_s(kernels: Iterable[KernelEvent]) -> float:
    return sum(kernel.duration_s for kernel in kernels)


def _union_s(spans: Iterable[Interval]) -> float:
    """Return the time in which at least one of `spans` is open."""
    total_s, reached_s = 0.0, -1.0
    for start_s, end_s in sorted(spans):
        total_s += max(0.0, end_s - max(start_s, reached_s))
        reached_s = max(reached_s, end_s)
    return total_s


# --- layer pairs -----------------------------------------------------------------------------------------------------


def _phases(cut: Segmentation, gpu_sms: int) -> dict[str, MeasuredPhase]:
    return {name: _phase(name, cut.layers, gpu_sms) for name in PHASES} if cut.layers else {}


def _phase(name: str, layers: Sequence[LayerKernels], gpu_sms: int) -> MeasuredPhase:
    elapsed_s, sm_bound_s, busy_s, rows = [], [], [], []
    operations: dict[str, list[float]] = defaultdict(list)
    for layer in layers:
        kernels = layer.phases[name]
        elapsed_s.append(max(kernel.end_s for kernel in kernels) - min(kernel.start_s for kernel in kernels))
        busy_s.append(_union_s((kernel.start_s, kernel.end_s) for kernel in kernels))
        sm_bound_s.append(
            _union_s((kernel.start_s, kernel.end_s) for kernel in kernels if kernel.named.bound == "sm")
        )
        if any(kernel.named.kind == "grouped_gemm" for kernel in kernels):
            rows.append(
                max((kernel.grid[0] for kernel in kernels if kernel.grid and _is_row_wise(kernel)), default=0)
            )
        for kernel in kernels:
            operations[kernel.named.label].append(kernel.duration_s)
    num = len(layers)
    busy_mean_s, sm_mean_s = statistics.fmean(busy_s), statistics.fmean(sm_bound_s)
    return MeasuredPhase(
        elapsed_s=statistics.fmean(elapsed_s),
        sm_bound_s=sm_mean_s,
        memory_bound_s=busy_mean_s - sm_mean_s,
        idle_s=statistics.fmean(elapsed_s) - busy_mean_s,
        per_layer_s=tuple(elapsed_s),
        compute_sms=_sms((kernel for layer in layers for kernel in layer.phases[name]), "sm", gpu_sms),
        expert_rows=tuple(rows),
        operations={
            label: OperationTime(num_kernels=len(times) / num, time_s=sum(times) / num)
            for label, times in sorted(operations.items(), key=lambda item: (-sum(item[1]), item[0]))
        },
    )


def _exchanges(cut: Segmentation, gpu_sms: int) -> dict[str, MeasuredCollective]:
    return {name: _exchange(name, cut.layers, gpu_sms) for name in EXCHANGES} if cut.layers else {}


def _exchange(name: str, layers: Sequence[LayerKernels], gpu_sms: int) -> MeasuredCollective:
    exchanges = [layer.exchanges[name] for layer in layers]
    data = [[kernel for kernel in kernels if kernel.named.bound == "transfer"] for kernels in exchanges]
    waits = [_sum_s(kernel for kernel in kernels if kernel.named.bound == "wait") for kernels in exchanges]
    others = [
        _sum_s(kernel for kernel in kernels if kernel.named.bound not in COMMUNICATION_BOUNDS)
        for kernels in exchanges
    ]
    per_layer_s = tuple(_sum_s(kernels) for kernels in data)
    return MeasuredCollective(
        kernel="dispatch" if EXCHANGE_KERNELS[name] == "dispatch" else "combine",
        cached=any(kernel.named.cached for kernels in data for kernel in kernels),
        data_s=statistics.fmean(per_layer_s),
        notify_s=statistics.fmean(waits),
        preparation_s=statistics.fmean(others),
        per_layer_s=per_layer_s,
        comm_sms=_sms((kernel for kernels in data for kernel in kernels), "transfer", gpu_sms),
    )
