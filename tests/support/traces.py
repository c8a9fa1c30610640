"""What a viewer would misread or drop of a trace: JSON that does not parse, slices that do not nest, halves without the other."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sim.show.files.trace import Event

_PHASES = frozenset("XbeCsfM")
_MAX_PROBLEMS = 50


def check_trace(trace: Mapping[str, Any] | bytes | str) -> list[str]:
    """Find what a viewer would misread or drop, a sentence each; empty where the trace is sound.

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
    """Key that joins the two halves of a pair; `id2` is of one process."""
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
    for (pid, tid), bars in sorted(by_track.items()):
        bars.sort(key=lambda event: (event["ts"], -event["dur"]))
        open_ends: list[int] = []
        for event in bars:
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
    names = sound.get("M", [])
    named_processes = {event["pid"] for event in names if event["name"] == "process_name"}
    named_tracks = {(event["pid"], event["tid"]) for event in names if event["name"] == "thread_name"}
    used = [event for phase, events in sound.items() if phase != "M" for event in events]
    processes = {event["pid"] for event in used} - named_processes
    tracks = {(event["pid"], event["tid"]) for event in used if event["ph"] != "C"} - named_tracks
    return [f"process {pid} has no name" for pid in sorted(processes)] + [
        f"track {pid}/{tid} has no name" for pid, tid in sorted(tracks)
    ]
