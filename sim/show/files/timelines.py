"""The timeline of a result document, for a trace viewer: kernels, flows, loads of links, operations, passes, requests.

A training step has a group of tracks for each pipeline rank: its operations, its compute, and its exchanges, which may
overlap. Compute and exchanges are there for the operations whose inside the result kept. A pass has both of its streams.
Requests of a serving run overlap: each stage of their lives is a track of transfers, and queues are counters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sim.show.files.trace import Args, Arrow, Counter, Slice, Timeline, Track, Transfer
from sim.show.views.lanes import LIVES
from sim.show.views.record import record
from sim.show.views.run import run_view
from sim.show.views.training import Operations

MAX_FLOWS = 50_000  # a viewer bears no more; flow_completion.csv has all


def of_result(result: Mapping[str, Any]) -> Timeline:
    """The timeline of a result document; each variant on rows of its own."""
    variants = result.get("variants") or {"": result}
    tracks: list[Track] = []
    slices: list[Slice] = []
    transfers: list[Transfer] = []
    counters: list[Counter] = []
    arrows: list[Arrow] = []
    for variant, one in variants.items():
        prefix = f"{variant}: " if variant else ""
        timeline = one.get("timeline") or {}
        kernels = timeline.get("kernels", [])
        slices += [bar for kernel in kernels for bar in _kernel_slices(kernel, prefix)]
        arrows += _barriers(kernels, prefix)
        row = Track(f"{prefix}flows", "transfers")
        transfers += [
            Transfer(row, f"flow {int(flow)}", start_us * 1e-6, done_us * 1e-6)
            for flow, start_us, done_us in (one.get("flow_completion") or [])[:MAX_FLOWS]
        ]
        counters += _utilisation(timeline.get("utilisation") or {}, f"{prefix}links")
        for rank in timeline.get("pipeline", []):
            tracks += [_track(rank, stream, prefix) for stream in ("operations", "compute", "communication")]
            slices += _operations(rank, prefix)
        for number, optimizer_s in enumerate(timeline.get("optimizer_s", [])):
            slices.append(_optimizer(timeline["pipeline"], number, optimizer_s, prefix))
        for rank in timeline.get("nodes", []):
            slices += [Slice(*one) for one in _nodes(rank, "compute", prefix)]
            transfers += [Transfer(*one) for one in _nodes(rank, "communication", prefix)]
        for one_pass in timeline.get("passes", []):
            slices += [Slice(*node) for node in _nodes(one_pass, "compute", prefix, "pass of rank")]
            moves = _nodes(one_pass, "communication", prefix, "pass of rank")
            transfers += [Transfer(*node) for node in moves]
        transfers += _requests(one, prefix)
        counters += _queues(timeline, prefix)
    return Timeline(
        title=str(result.get("title") or result.get("name") or "moesim"),
        tracks=tuple(tracks),
        slices=tuple(slices),
        transfers=tuple(transfers),
        counters=tuple(counters),
        arrows=tuple(arrows),
    )


def _row(kernel: Mapping[str, Any], rank: int, prefix: str) -> Track:
    return Track(f"{prefix}EP group {kernel['group']}", f"rank {rank} (gpu {kernel['first_gpu'] + rank})")


def _kernel_slices(kernel: Mapping[str, Any], prefix: str) -> list[Slice]:
    args: Args = {"latency_us": round(kernel["fixed_s"] * 1e6, 3)}
    return [
        Slice(_row(kernel, rank, prefix), kernel["name"], kernel["start_s"], end_s, args)
        for rank, end_s in enumerate(kernel["rank_ends_s"])
    ]


def _barriers(kernels: Sequence[Mapping[str, Any]], prefix: str) -> list[Arrow]:
    """From the last rank of a kernel to the ranks of the next one of its group, which waited for it."""
    arrows = []
    previous: dict[int, Mapping[str, Any]] = {}
    for kernel in kernels:
        before = previous.get(kernel["group"])
        previous[kernel["group"]] = kernel
        if before is None:
            continue
        ends = before["rank_ends_s"]
        last = max(range(len(ends)), key=ends.__getitem__)
        if ends[last] > kernel["start_s"]:
            continue
        inside_s = max(before["start_s"], ends[last] - 1e-9)  # a slice does not hold its own end
        arrows += [
            Arrow(
                "waits for",
                _row(before, last, prefix),
                inside_s,
                _row(kernel, rank, prefix),
                kernel["start_s"],
            )
            for rank in range(len(kernel["rank_ends_s"]))
        ]
    return arrows


def _utilisation(series: Mapping[str, Any], process: str) -> list[Counter]:
    """Counters in percent; the result gives the middle of each of its equal spans."""
    middles: list[float] = list(series.get("time_s", []))
    if len(middles) < 2:
        return []
    half = (middles[1] - middles[0]) / 2
    times_s = [max(0.0, middle - half) for middle in middles] + [middles[-1] + half]
    return [
        Counter(
            process,
            f"{name} load [% of what kernels reach]",
            times_s,
            {kind: [round(100 * share, 3) for share in shares] + [0.0] for kind, shares in values.items()},
        )
        for name, values in series.items()
        if name != "time_s"
    ]


def _requests(result: Mapping[str, Any], prefix: str) -> Iterator[Transfer]:
    """The stages of each request's life; a viewer has a track for each name."""
    lanes = run_view(result).lanes if result.get("requests") else None
    for kind, spans in (lanes.spans if lanes else {}).items():
        track = Track(f"{prefix}requests", LIVES[kind][0])
        for start_s, end_s, row, _ in spans:
            yield Transfer(track, LIVES[kind][0], start_s, end_s, {"request": row})


def _queues(timeline: Mapping[str, Any], prefix: str) -> Iterator[Counter]:
    """Requests in each stage; the result has them at even instants."""
    times_s = timeline.get("sample_s") or []
    for name, series in timeline.items():
        if times_s and name not in ("sample_s", "end_s"):
            yield Counter(f"{prefix}queues", name.replace("_", " "), times_s, {"requests": series})


def _track(rank: Mapping[str, Any], stream: str, prefix: str, what: str = "pipeline rank") -> Track:
    return Track(f"{prefix}{what} {rank['rank']}", stream)


def _operations(rank: Mapping[str, Any], prefix: str) -> list[Slice]:
    track = _track(rank, "operations", prefix)
    operations = record(Operations, rank)
    rows = zip(operations.names, operations.start_s, operations.end_s, strict=True)
    return [Slice(track, name, start_s, end_s) for name, start_s, end_s in rows]


def _optimizer(pipeline: Sequence[Mapping[str, Any]], row: int, optimizer_s: float, prefix: str) -> Slice:
    """After the last operation of all ranks."""
    start_s = max(max(rank["end_s"]) for rank in pipeline)
    return Slice(_track(pipeline[row], "operations", prefix), "optimizer", start_s, start_s + optimizer_s)


def _nodes(
    rank: Mapping[str, Any], stream: str, prefix: str, what: str = "pipeline rank"
) -> Iterator[tuple[Track, str, float, float]]:
    """Track, name, start and end of what ran on a stream; what took no time is left out."""
    track = _track(rank, stream, prefix, what)
    for name, its, start_s, end_s in zip(
        rank["names"], rank["streams"], rank["start_s"], rank["end_s"], strict=True
    ):
        if its == stream and end_s > start_s:
            yield track, name, start_s, end_s
