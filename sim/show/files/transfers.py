"""The timeline of a collective or of flows, for a trace viewer: kernels, flows, loads of links."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sim.show.files.trace import Args, Arrow, AsyncSlice, Counter, Slice, Timeline, Track
from sim.show.views.transfers import KernelRun, TransfersView, Utilisation

MAX_FLOWS = 50_000  # a viewer bears no more; flow_completion.csv has all


def timeline(run: TransfersView, prefix: str) -> Timeline:
    """Kernels of each rank, flows, barriers between kernels, and loads of links."""
    flows = Track(f"{prefix}flows", "transfers")
    return Timeline(
        slices=tuple(bar for kernel in run.kernels for bar in _kernel_slices(kernel, prefix)),
        transfers=tuple(
            AsyncSlice(flows, f"flow {int(flow)}", start_us * 1e-6, done_us * 1e-6)
            for flow, start_us, done_us in run.flows[:MAX_FLOWS]
        ),
        counters=tuple(_loads(run.utilisation, f"{prefix}links")) if run.utilisation else (),
        arrows=tuple(_barriers(run.kernels, prefix)),
    )


def _row(kernel: KernelRun, rank: int, prefix: str) -> Track:
    kind = "EP group" if kernel.name in ("dispatch", "combine", "exchange") else "group"
    return Track(f"{prefix}{kind} {kernel.group}", f"rank {rank} (gpu {kernel.gpus[rank]})")


def _kernel_slices(kernel: KernelRun, prefix: str) -> list[Slice]:
    args: Args = {"latency_us": round(kernel.fixed_s * 1e6, 3)}
    return [
        Slice(_row(kernel, rank, prefix), kernel.name, kernel.start_s, end_s, args)
        for rank, end_s in enumerate(kernel.rank_ends_s)
    ]


def _barriers(kernels: Sequence[KernelRun], prefix: str) -> Iterator[Arrow]:
    """From the last rank of a kernel to the ranks of the next one of its group, which waited for it."""
    previous: dict[int, KernelRun] = {}
    for kernel in kernels:
        before = previous.get(kernel.group)
        previous[kernel.group] = kernel
        if before is None:
            continue
        ends = before.rank_ends_s
        last = max(range(len(ends)), key=ends.__getitem__)
        if ends[last] > kernel.start_s:
            continue
        inside_s = max(before.start_s, ends[last] - 1e-9)  # a slice does not hold its own end
        source = _row(before, last, prefix)
        for rank in range(len(kernel.rank_ends_s)):
            yield Arrow("waits for", source, inside_s, _row(kernel, rank, prefix), kernel.start_s)


def _loads(utilisation: Utilisation, process: str) -> Iterator[Counter]:
    """Counters in percent; the result gives the middle of each of its equal spans."""
    middles = utilisation.time_s
    if len(middles) < 2:
        return
    half = (middles[1] - middles[0]) / 2
    times_s = [max(0.0, middle - half) for middle in middles] + [middles[-1] + half]
    for name, course in utilisation.courses.items():
        series = {"mean": course.mean, "busiest": course.busiest}
        values = {
            kind: [round(100 * share, 3) for share in shares] + [0.0] for kind, shares in series.items()
        }
        yield Counter(process, f"{name} load [% of what kernels reach]", times_s, values)
