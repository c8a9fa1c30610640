"""A timeline as a trace for ui.perfetto.dev and chrome://tracing: JSON events, gzipped.

Why this way: the JSON form needs no library and both viewers read it. Complete slices on one track must nest, or
viewers drop the later one without a word, so what may overlap (transfers) is written as pairs of asynchronous begin and end,
with ids of their process, beside whose tracks they then stand. Times are whole nanoseconds, so that an end and the next start
compare equal after rounding. The same timeline gives the same bytes.

    blob = encode(document(Timeline("a step", slices=(Slice(Track("stage 0", "compute"), "F 0", 0.0, 1e-3),))))

References: Trace Event Format, docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Args = Mapping[str, str | int | float]
Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Track:
    """A row of the viewer; rows of one process stand together."""

    process: str
    thread: str


@dataclass(frozen=True, slots=True)
class Slice:
    """Something that held a track. Slices of one track nest or stand apart, never half over each other."""

    track: Track
    name: str
    start_s: float
    end_s: float
    args: Args = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AsyncSlice(Slice):
    """Something that may overlap others of its track."""


@dataclass(frozen=True, slots=True)
class Counter:
    """Numbers over time, drawn as steps: `values[i]` holds from `times_s[i]` on."""

    process: str
    name: str
    times_s: Sequence[float]
    values: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Arrow:
    """From a moment within one slice to a moment within another: what caused, what waited."""

    name: str
    source: Track
    source_s: float
    target: Track
    target_s: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """All there is to draw; rows in the order of `tracks`, then in the order in which they first occur."""

    title: str = ""
    tracks: tuple[Track, ...] = ()
    slices: tuple[Slice, ...] = ()
    transfers: tuple[AsyncSlice, ...] = ()
    counters: tuple[Counter, ...] = ()
    arrows: tuple[Arrow, ...] = ()


def document(timeline: Timeline) -> dict[str, Any]:
    """The trace document: metadata first, then events by time."""
    pids, tids = _numbers(timeline)

    def address(track: Track) -> Event:
        return {"pid": pids[track.process], "tid": tids[track]}

    metadata = [
        {"ph": "M", "name": kind, "pid": pid, "tid": 0, "args": args}
        for process, pid in pids.items()
        for kind, args in (("process_name", {"name": process}), ("process_sort_index", {"sort_index": pid}))
    ]
    metadata += [
        {"ph": "M", "name": kind, **address(track), "args": args}
        for track, tid in tids.items()
        for kind, args in (
            ("thread_name", {"name": track.thread}),
            ("thread_sort_index", {"sort_index": tid}),
        )
    ]
    keyed: list[tuple[tuple[int, int], Event]] = []  # sorted by time, then longer slices first: they enclose

    def add(time_ns: int, event: Event, duration_ns: int = 0) -> None:
        keyed.append(((time_ns, -duration_ns), {"ph": event.pop("ph"), "ts": _us(time_ns), **event}))

    for bar in timeline.slices:
        start_ns, end_ns = _ns(bar.start_s), _ns(bar.end_s)
        duration_ns = end_ns - start_ns
        event = {"ph": "X", "dur": _us(duration_ns), "name": bar.name, "cat": "slice", **address(bar.track)}
        add(start_ns, event | _args(bar.args), duration_ns)
    for i, move in enumerate(timeline.transfers):
        same = {"name": move.name, "cat": "transfer", "id2": {"local": f"t{i}"}, **address(move.track)}
        add(_ns(move.start_s), {"ph": "b", **same, **_args(move.args)})
        add(_ns(move.end_s), {"ph": "e", **same})
    for counter in timeline.counters:
        for row, time_s in enumerate(counter.times_s):
            values = {series: numbers[row] for series, numbers in counter.values.items()}
            add(
                _ns(time_s),
                {"ph": "C", "name": counter.name, "pid": pids[counter.process], "tid": 0, "args": values},
            )
    for i, arrow in enumerate(timeline.arrows):
        same = {"name": arrow.name, "cat": "arrow", "id": f"a{i}"}
        add(_ns(arrow.source_s), {"ph": "s", **same, **address(arrow.source)})
        add(_ns(arrow.target_s), {"ph": "f", "bp": "e", **same, **address(arrow.target)})
    keyed.sort(key=lambda pair: pair[0])
    return {
        "displayTimeUnit": "ms",
        "otherData": {"title": timeline.title},
        "traceEvents": metadata + [event for _, event in keyed],
    }


def encode(trace: Mapping[str, Any]) -> bytes:
    """The document as gzipped JSON, the same bytes every time."""
    text = json.dumps(trace, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return gzip.compress(text.encode(), compresslevel=6, mtime=0)


def _numbers(timeline: Timeline) -> tuple[dict[str, int], dict[Track, int]]:
    """Numbers from 1 for processes, and for tracks within the whole trace."""
    tracks = list(timeline.tracks)
    tracks += [bar.track for bar in timeline.slices] + [move.track for move in timeline.transfers]
    tracks += [end for arrow in timeline.arrows for end in (arrow.source, arrow.target)]
    tids = {track: i for i, track in enumerate(dict.fromkeys(tracks), 1)}
    processes = [track.process for track in tids] + [counter.process for counter in timeline.counters]
    return {process: i for i, process in enumerate(dict.fromkeys(processes), 1)}, tids


def _ns(time_s: float) -> int:
    return round(time_s * 1e9)


def _us(time_ns: int) -> float | int:
    """Microseconds, the unit of the format; whole ones without a point."""
    return time_ns // 1000 if time_ns % 1000 == 0 else time_ns / 1000


def _args(args: Args) -> Event:
    return {"args": dict(args)} if args else {}
