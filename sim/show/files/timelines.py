"""The timeline of a result, for a trace viewer: kernels, flows, loads of links, operations, passes, requests.

A training step has a group of tracks for each pipeline rank: its operations, its compute, and its collectives, which may
overlap. Compute and collectives are there for the operations whose inside the result kept. A pass has both of its streams.
Requests of a serving run overlap: each stage of their lives is a track of transfers, and queues are counters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from sim.show.files.trace import Args, Arrow, Counter, Slice, Timeline, Track, Transfer
from sim.show.views.inference import PassView
from sim.show.views.lanes import LIVES
from sim.show.views.run import views_of
from sim.show.views.serving import ServiceView
from sim.show.views.training import Nodes, Operations, StepView
from sim.show.views.transfers import Kernel, TransfersView, Utilisation

MAX_FLOWS = 50_000  # a viewer bears no more; flow_completion.csv has all


def timeline(document: Mapping[str, Any]) -> Timeline:
    """Collect the course in time of a result document; each variant has rows of its own."""
    view = views_of(document)
    parts = [_DRAWN[run.family](run, f"{run.variant}: " if run.variant else "") for run in view.runs]
    return Timeline(
        title=view.title or "moesim",
        tracks=tuple(chain.from_iterable(part.tracks for part in parts)),
        slices=tuple(chain.from_iterable(part.slices for part in parts)),
        transfers=tuple(chain.from_iterable(part.transfers for part in parts)),
        counters=tuple(chain.from_iterable(part.counters for part in parts)),
        arrows=tuple(chain.from_iterable(part.arrows for part in parts)),
    )


# --- kernels and flows -----------------------------------------------------------------------------------------------


def _transfers(run: TransfersView, prefix: str) -> Timeline:
    flows = Track(f"{prefix}flows", "transfers")
    return Timeline(
        slices=tuple(bar for kernel in run.kernels for bar in _kernel_slices(kernel, prefix)),
        transfers=tuple(
            Transfer(flows, f"flow {int(flow)}", start_us * 1e-6, done_us * 1e-6)
            for flow, start_us, done_us in run.flows[:MAX_FLOWS]
        ),
        counters=tuple(_loads(run.utilisation, f"{prefix}links")) if run.utilisation else (),
        arrows=tuple(_barriers(run.kernels, prefix)),
    )


def _row(kernel: Kernel, rank: int, prefix: str) -> Track:
    return Track(f"{prefix}EP group {kernel.group}", f"rank {rank} (gpu {kernel.first_gpu + rank})")


def _kernel_slices(kernel: Kernel, prefix: str) -> list[Slice]:
    args: Args = {"latency_us": round(kernel.fixed_s * 1e6, 3)}
    return [
        Slice(_row(kernel, rank, prefix), kernel.name, kernel.start_s, end_s, args)
        for rank, end_s in enumerate(kernel.rank_ends_s)
    ]


def _barriers(kernels: Sequence[Kernel], prefix: str) -> Iterator[Arrow]:
    """From the last rank of a kernel to the ranks of the next one of its group, which waited for it."""
    previous: dict[int, Kernel] = {}
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


# --- steps and passes ------------------------------------------------------------------------------------------------


def _step(run: StepView, prefix: str) -> Timeline:
    streams = ("operations", "compute", "communication")
    last_s = max((max(rank.end_s) for rank in run.pipeline), default=0.0)
    optimizer = [
        Slice(_track(rank, "operations", prefix), "optimizer", last_s, last_s + time_s)
        for rank, time_s in zip(run.pipeline, run.optimizer_s, strict=False)
    ]
    return Timeline(
        tracks=tuple(_track(rank, stream, prefix) for rank in run.pipeline for stream in streams),
        slices=(
            *(bar for rank in run.pipeline for bar in _operations(rank, prefix)),
            *optimizer,
            *(Slice(*node) for rank in run.nodes for node in _nodes(rank, "compute", prefix)),
        ),
        transfers=tuple(
            Transfer(*node) for rank in run.nodes for node in _nodes(rank, "communication", prefix)
        ),
    )


def _pass(run: PassView, prefix: str) -> Timeline:
    compute, moves = (
        [node for kept in run.passes for node in _nodes(kept, stream, prefix, "pass of rank")]
        for stream in ("compute", "communication")
    )
    return Timeline(
        slices=tuple(Slice(*node) for node in compute), transfers=tuple(Transfer(*node) for node in moves)
    )


def _track(rank: Operations | Nodes, stream: str, prefix: str, what: str = "pipeline rank") -> Track:
    return Track(f"{prefix}{what} {rank.rank}", stream)


def _operations(rank: Operations, prefix: str) -> Iterator[Slice]:
    track = _track(rank, "operations", prefix)
    for name, start_s, end_s in zip(rank.names, rank.start_s, rank.end_s, strict=True):
        yield Slice(track, name, start_s, end_s)


def _nodes(
    rank: Nodes, stream: str, prefix: str, what: str = "pipeline rank"
) -> Iterator[tuple[Track, str, float, float]]:
    """Track, name, start and end of what ran on a stream; what took no time is left out."""
    track = _track(rank, stream, prefix, what)
    for name, its, start_s, end_s in zip(rank.names, rank.streams, rank.start_s, rank.end_s, strict=True):
        if its == stream and end_s > start_s:
            yield track, name, start_s, end_s


# --- services --------------------------------------------------------------------------------------------------------


def _service(run: ServiceView, prefix: str) -> Timeline:
    """The stages of each request's life, a track for each name; requests in each stage at even instants."""
    spans = run.lanes.spans if run.lanes else {}
    tracks = {stage: Track(f"{prefix}requests", LIVES[stage][0]) for stage in spans}
    stages = run.stages
    return Timeline(
        transfers=tuple(
            Transfer(tracks[stage], tracks[stage].thread, start_s, end_s, {"request": row})
            for stage, lives in spans.items()
            for start_s, end_s, row, _ in lives
        ),
        counters=tuple(
            Counter(f"{prefix}queues", stage.replace("_", " "), stages.sample_s, {"requests": counts})
            for stage, counts in stages.counts.items()
        )
        if stages
        else (),
    )


_DRAWN: Mapping[str, Callable[[Any, str], Timeline]] = {
    TransfersView.family: _transfers,
    StepView.family: _step,
    PassView.family: _pass,
    ServiceView.family: _service,
}
"""Family of a run -> what draws it."""
