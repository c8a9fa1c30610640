"""A timeline as a trace for ui.perfetto.dev and chrome://tracing: JSON events, gzipped.

Why this way: the JSON form needs no library and both viewers read it. Its traps are ours to avoid, so they have a checker:
complete slices on one track must nest, or viewers drop the later one without a word, so what may overlap (transfers) is
written as pairs of asynchronous begin and end, with ids of their process, beside whose tracks they then stand. Times are whole nanoseconds, so that an end and the next start compare
equal after rounding. The same timeline gives the same bytes.

    blob = encode(document(Timeline("a step", slices=(Slice(Track("stage 0", "compute"), "F 0", 0.0, 1e-3),))))

References: Trace Event Format, docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections import defaultdict
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
class Transfer:
    """Something that may overlap others of its track."""

    track: Track
    name: str
    start_s: float
    end_s: float
    args: Args = field(default_factory=dict)


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
    """What there is to draw; rows in the order of `tracks`, then in the order in which they first occur."""

    title: str
    tracks: tuple[Track, ...] = ()
    slices: tuple[Slice, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    counters: tuple[Counter, ...] = ()
    arrows: tuple[Arrow, ...] = ()


def document(timeline: Timeline) -> dict[str, Any]:
    """The trace document: metadata first, then events by time."""
    pids, tids = _numbers(timeline)

    def at(track: Track) -> Event:
        return {"pid": pids[track.process], "tid": tids[track]}

    metadata = [
        {"ph": "M", "name": kind, "pid": pid, "tid": 0, "args": args}
        for process, pid in pids.items()
        for kind, args in (("process_name", {"name": process}), ("process_sort_index", {"sort_index": pid}))
    ]
    metadata += [
        {"ph": "M", "name": kind, **at(track), "args": args}
        for track, tid in tids.items()
        for kind, args in (
            ("thread_name", {"name": track.thread}),
            ("thread_sort_index", {"sort_index": tid}),
        )
    ]
    keyed: list[tuple[tuple[int, int], Event]] = []  # sorted by time, then longer slices first: they enclose

    def add(time_ns: int, event: Event, duration_ns: int = 0) -> None:
        keyed.append(((time_ns, -duration_ns), {"ph": event.pop("ph"), "ts": _us(time_ns), **event}))

    for one in timeline.slices:
        start_ns, end_ns = _ns(one.start_s), _ns(one.end_s)
        duration_ns = end_ns - start_ns
        event = {"ph": "X", "dur": _us(duration_ns), "name": one.name, "cat": "slice", **at(one.track)}
        add(start_ns, event | _with(one.args), duration_ns)
    for i, move in enumerate(timeline.transfers):
        same = {"name": move.name, "cat": "transfer", "id2": {"local": f"t{i}"}, **at(move.track)}
        add(_ns(move.start_s), {"ph": "b", **same, **_with(move.args)})
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
        add(_ns(arrow.source_s), {"ph": "s", **same, **at(arrow.source)})
        add(_ns(arrow.target_s), {"ph": "f", "bp": "e", **same, **at(arrow.target)})
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
    tracks += [one.track for one in timeline.slices] + [one.track for one in timeline.transfers]
    tracks += [end for one in timeline.arrows for end in (one.source, one.target)]
    tids = {track: i for i, track in enumerate(dict.fromkeys(tracks), 1)}
    processes = [track.process for track in tids] + [one.process for one in timeline.counters]
    return {process: i for i, process in enumerate(dict.fromkeys(processes), 1)}, tids


def _ns(time_s: float) -> int:
    return round(time_s * 1e9)


def _us(time_ns: int) -> float | int:
    """Microseconds, the unit of the format; whole ones without a point."""
    return time_ns // 1000 if time_ns % 1000 == 0 else time_ns / 1000


def _with(args: Args) -> Event:
    return {"args": dict(args)} if args else {}


# --- checker ---------------------------------------------------------------------------------------------------------

_PHASES = frozenset("XbeCsfM")
_MAX_PROBLEMS = 50


def check_trace(trace: Mapping[str, Any] | bytes | str) -> list[str]:
    """What a viewer would misread or drop, a sentence each; empty where the trace is sound.

    Holds: the JSON parses; times are finite and not negative; slices of one track nest; every begin of a transfer has its
    later end, every arrow its two ends, in order; every process and track that is used has a name.
    """
    if isinstance(trace, bytes | str):
        try:
            text = gzip.decompress(trace) if isinstance(trace, bytes) and trace[:2] == b"\x1f\x8b" else trace
            trace = json.loads(text)
        except (ValueError, OSError, EOFError, zlib.error) as error:
            return [f"not JSON: {error}"]
    events = trace.get("traceEvents") if isinstance(trace, Mapping) else None
    if not isinstance(events, list):
        return ["no list 'traceEvents'"]
    problems: list[str] = []
    sound: dict[str, list[Event]] = defaultdict(list)
    for i, event in enumerate(events):
        problem = _event_problem(event)
        if problem:
            problems.append(f"event {i}: {problem}")
        else:
            sound[event["ph"]].append(event)
    problems += _unnested(sound["X"])
    problems += _unpaired(sound["b"], sound["e"], "transfer")
    problems += _unpaired(sound["s"], sound["f"], "arrow")
    problems += _nameless(sound)
    return problems[:_MAX_PROBLEMS]


def _event_problem(event: Any) -> str | None:
    if not isinstance(event, dict):
        return "not a mapping"
    phase = event.get("ph")
    if not isinstance(phase, str) or phase not in _PHASES:
        return f"unknown phase {phase!r}"
    for key in ("pid", "tid"):
        if not isinstance(event.get(key), int):
            return f"no whole number '{key}'"
    if not isinstance(event.get("name"), str):
        return "no name"
    if phase == "M":
        return None
    for key in ("ts", "dur") if phase == "X" else ("ts",):
        if not _is_number(event.get(key)) or event[key] < 0:
            return f"{key} {event.get(key)!r}, not a number of 0 or more"
    args = event.get("args", {})
    if phase == "C" and not (isinstance(args, dict) and args and all(map(_is_number, args.values()))):
        return "a counter without numbers"
    if phase in "besf" and not isinstance(_id(event), str | int):
        return "no id"
    return None


def _id(event: Event) -> Any:
    """What joins the two halves of a pair; `id2` is of one process."""
    own = event.get("id2")
    return own.get("local") if isinstance(own, dict) else event.get("id")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _unnested(slices: Sequence[Event]) -> list[str]:
    """Slices that begin inside an earlier one of their track and outlive it."""
    problems = []
    by_track: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in slices:
        by_track[event["pid"], event["tid"]].append(event)
    for (pid, tid), mine in sorted(by_track.items()):
        mine.sort(key=lambda event: (event["ts"], -event["dur"]))
        open_ends: list[int] = []
        for event in mine:
            start = round(event["ts"] * 1000)
            end = start + round(event["dur"] * 1000)
            while open_ends and open_ends[-1] <= start:
                open_ends.pop()
            if open_ends and end > open_ends[-1]:
                problems.append(
                    f"slice '{event['name']}' at {event['ts']} us overlaps another of track {pid}/{tid}"
                )
            open_ends.append(end)
    return problems


def _unpaired(begins: Sequence[Event], ends: Sequence[Event], what: str) -> list[str]:
    problems = []
    halves: dict[Any, list[Event]] = defaultdict(list)
    for event in [*begins, *ends]:
        halves[event.get("cat"), event["pid"] if "id2" in event else 0, str(_id(event))].append(event)
    for (_, _, key), pair in sorted(halves.items(), key=str):
        phases = [event["ph"] for event in pair]
        if len(pair) != 2 or phases[0] == phases[1]:
            problems.append(f"{what} {key} has {', '.join(phases)} instead of one begin and one end")
        elif pair[1]["ts"] < pair[0]["ts"]:
            problems.append(f"{what} {key} ends before it begins")
    return problems


def _nameless(sound: Mapping[str, Sequence[Event]]) -> list[str]:
    named_processes = {one["pid"] for one in sound.get("M", []) if one["name"] == "process_name"}
    named_tracks = {(one["pid"], one["tid"]) for one in sound.get("M", []) if one["name"] == "thread_name"}
    used = [event for phase, mine in sound.items() if phase != "M" for event in mine]
    processes = {event["pid"] for event in used} - named_processes
    tracks = {(event["pid"], event["tid"]) for event in used if event["ph"] != "C"} - named_tracks
    return [f"process {pid} has no name" for pid in sorted(processes)] + [
        f"track {pid}/{tid} has no name" for pid, tid in sorted(tracks)
    ]
