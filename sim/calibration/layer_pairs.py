"""Cut a profiled timeline into layer pairs: which kernel belongs to which phase of which layer.

In a DualPipe pair one microbatch goes forward and another backward through a layer at the same time. Per layer the
compute stream does attn(F), mlp(B), mlp(W), mlp(F), attn(B), attn(W), the communication stream combine(B), dispatch(F),
dispatch(B), combine(F). A name in brackets B is the *backward of* that operation: the backward of a combine sends
gradients to the experts, so its kernel is a (cached) dispatch; the backward of a dispatch brings them back, a combine.

Two ways, tried in this order. Ranges: the person who profiled put the names above around the launches. Markers: attention
kernels, grouped GEMMs, weight-gradient GEMMs and exchanges stand in an order that only this schedule has; a phase that
waits for the same kernel as an exchange begins where that exchange begins.

References: DeepSeek-V3, arXiv 2412.19437, section 3.2.1 and figure 4.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sim.calibration.kernel_names import COMMUNICATION_BOUNDS
from sim.calibration.kineto import KernelEvent

PHASES = ("attn(F)", "mlp(B)", "mlp(W)", "mlp(F)", "attn(B)", "attn(W)")
EXCHANGES = ("combine(B)", "dispatch(F)", "dispatch(B)", "combine(F)")
RANGES = frozenset({*PHASES, *EXCHANGES})
EXCHANGE_KERNELS = {
    "combine(B)": "dispatch",
    "dispatch(F)": "dispatch",
    "dispatch(B)": "combine",
    "combine(F)": "combine",
}
_SLACK_S = 1e-9  # of floats: whole microseconds, cut off, keep the order of an end and a start after it

Kernels = tuple[KernelEvent, ...]


@dataclass(frozen=True, slots=True)
class Streams:
    """The streams by what they do; `communication` is empty where exchanges run on the compute stream."""

    compute: str
    second_compute: tuple[str, ...]
    communication: str


@dataclass(frozen=True, slots=True)
class LayerKernels:
    """The kernels of one layer pair, by phase and by exchange."""

    phases: dict[str, Kernels]
    exchanges: dict[str, Kernels]


@dataclass(frozen=True, slots=True)
class Segmentation:
    """Layer pairs in order of time; `why_not` says what stood in the way where there are none."""

    by: Literal["ranges", "markers", "none"]
    layers: tuple[LayerKernels, ...]
    why_not: str = ""


def find_streams(kernels: Iterable[KernelEvent]) -> Streams:
    """Tell streams apart by what takes their time: SM-bound kernels, or transfers and their barriers."""
    sm: dict[str, float] = defaultdict(float)
    comm: dict[str, float] = defaultdict(float)
    for kernel in kernels:
        spent = (
            sm if kernel.named.bound == "sm" else comm if kernel.named.bound in COMMUNICATION_BOUNDS else None
        )
        if spent is not None:
            spent[kernel.stream] += kernel.duration_s
    compute = max(sorted(sm), key=sm.__getitem__, default="")
    busiest = max(sorted(comm), key=comm.__getitem__, default="")
    communication = busiest if busiest != compute else ""
    return Streams(compute, tuple(sorted(set(sm) - {compute, communication})), communication)


def segment(kernels: Sequence[KernelEvent], streams: Streams) -> Segmentation:
    """Cut a trace into layer pairs by named ranges where it has them, else by markers.

    Kernels are in order of their starts.
    """
    by_ranges = _by_ranges(kernels)
    if by_ranges:
        return Segmentation("ranges", by_ranges)
    by_markers = _by_markers(kernels, streams)
    if isinstance(by_markers, str):
        return Segmentation("none", (), by_markers)
    return Segmentation("markers", by_markers)


def _by_ranges(kernels: Sequence[KernelEvent]) -> tuple[LayerKernels, ...]:
    occurrences: dict[int, dict[str, list[KernelEvent]]] = defaultdict(lambda: defaultdict(list))
    for kernel in kernels:
        if kernel.launched_in:
            occurrences[kernel.launched_in.occurrence][kernel.launched_in.name].append(kernel)
    complete = [by_name for _, by_name in sorted(occurrences.items()) if by_name.keys() == RANGES]
    return tuple(_layer(by_name) for by_name in complete)


def _layer(by_name: dict[str, list[KernelEvent]]) -> LayerKernels:
    return LayerKernels(
        {name: tuple(by_name[name]) for name in PHASES}, {name: tuple(by_name[name]) for name in EXCHANGES}
    )


def _by_markers(kernels: Sequence[KernelEvent], streams: Streams) -> tuple[LayerKernels, ...] | str:
    """Return layer pairs, or what is in the way."""
    if not streams.communication:
        return "no stream of its own for communication"
    compute = [kernel for kernel in kernels if kernel.stream == streams.compute]
    second = [kernel for kernel in kernels if kernel.stream in streams.second_compute]
    groups = exchange_groups(kernel for kernel in kernels if kernel.stream == streams.communication)
    attention = [
        (i, kernel.named.kind)
        for i, kernel in enumerate(compute)
        if kernel.named.kind.startswith("attention_")
    ]
    attention = [(i, kind) for i, kind in attention if kind != "attention_fixup"]
    num_layers = len(attention) // 2
    if (
        not attention
        or [kind for _, kind in attention] != ["attention_forward", "attention_backward"] * num_layers
    ):
        return "attention forward and backward kernels that do not alternate"
    pattern = [EXCHANGE_KERNELS[name] for name in EXCHANGES] * num_layers
    if [group[-1].named.kind for group in groups] != pattern:
        return "exchanges that are not two dispatches and two combines a layer"
    layers: list[LayerKernels] = []
    begin = 0
    for layer in range(num_layers):
        forward, backward = attention[2 * layer][0], attention[2 * layer + 1][0]
        end = attention[2 * layer + 2][0] if layer + 1 < num_layers else len(compute)
        exchanges = dict(zip(EXCHANGES, groups[4 * layer : 4 * layer + 4], strict=True))
        mlp_w = _wgrads(compute, forward, backward)
        attn_w = _wgrads(compute, backward, end)
        if not mlp_w or not attn_w:
            return "no weight-gradient kernels that can be told by name"
        mlp_b = _first_after(compute, forward, exchanges["dispatch(F)"][0].start_s)
        attn_b = _first_after(compute, mlp_w[-1], exchanges["combine(F)"][0].start_s)
        cuts = (begin, mlp_b, mlp_w[0], mlp_w[-1] + 1, attn_b, attn_w[0], attn_w[-1] + 1)
        if list(cuts) != sorted(set(cuts)):
            return f"phases of layer {layer} that do not follow each other"
        phases = {
            name: compute[low:high] for name, low, high in zip(PHASES, cuts[:-1], cuts[1:], strict=True)
        }
        window = (compute[mlp_w[0]].start_s, phases["mlp(F)"][0].start_s)
        phases["mlp(W)"] += [kernel for kernel in second if window[0] <= kernel.start_s < window[1]]
        if not all(_has_grouped_gemm(phases[name]) for name in ("mlp(B)", "mlp(F)")):
            return f"no grouped GEMM in mlp(B) or mlp(F) of layer {layer}"
        layers.append(_layer(phases | {name: list(group) for name, group in exchanges.items()}))
        begin = cuts[-1]
    return tuple(layers)


def exchange_groups(kernels: Iterable[KernelEvent]) -> list[Kernels]:
    """Cut kernels of a communication stream into exchanges: what prepares it, then the kernel that moves its data."""
    groups: list[Kernels] = []
    open_group: list[KernelEvent] = []
    for kernel in kernels:
        open_group.append(kernel)
        if kernel.named.bound == "transfer":
            groups.append(tuple(open_group))
            open_group = []
    return groups


def _wgrads(kernels: Sequence[KernelEvent], low: int, high: int) -> list[int]:
    return [i for i in range(low, high) if kernels[i].named.kind == "wgrad_gemm"]


def _first_after(kernels: Sequence[KernelEvent], low: int, time_s: float) -> int:
    """Return the first kernel after `low` that ends later than `time_s`: it did not hold up what began then."""
    return next(
        (i for i in range(low + 1, len(kernels)) if kernels[i].end_s > time_s + _SLACK_S), len(kernels)
    )


def _has_grouped_gemm(kernels: Sequence[KernelEvent]) -> bool:
    return any(kernel.named.kind == "grouped_gemm" for kernel in kernels)
