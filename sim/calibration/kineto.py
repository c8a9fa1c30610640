"""Read a PyTorch profiler (Kineto) trace: the GPU kernels, where they ran, and who launched them.

Why this way: the file is somebody else's and may be anything, so it is bounded before it is unpacked, unpacked in pieces,
and every event is checked before it is believed. Only GPU work is kept; of the CPU side only the named ranges that a
person put around the launches (`torch.profiler.record_function`), because a kernel belongs to the range in which it was
*launched*, whatever the time at which it ran, and whichever thread launched it: autograd launches from its own.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from sim import files
from sim.calibration.kernel_names import KernelName, name_kernel
from sim.cost.measured import TraceOrigin
from sim.errors import InputError, Mark, Problem

MAX_TEXT_BYTES = 512 * 2**20
_PIECE_BYTES = 1 << 20
_WANTED = "a PyTorch profiler trace (JSON, also gzipped) with GPU kernels"
_GPU_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
_LAUNCHES = ("cuda_runtime", "cuda_driver")
_MAX_PROBLEMS = 5
_LONGEST_TOKEN = 8  # an error this near the end is a cut one
_MAX_US = 1e18
_MAX_NAME = 4096


@dataclass(frozen=True, slots=True)
class Range:
    """One use of a named range on the CPU: its name, and the how-manieth of that name it is, from 0."""

    name: str
    occurrence: int


@dataclass(frozen=True, slots=True)
class KernelEvent:
    """One run of a kernel on the GPU. Times from the first kernel's start."""

    name: str
    named: KernelName
    start_s: float
    end_s: float
    stream: str
    grid: tuple[int, ...]
    launched_in: Range | None

    @property
    def duration_s(self) -> float:
        """How long it ran."""
        return self.end_s - self.start_s

    @property
    def blocks(self) -> int:
        """Thread blocks of its grid; 0 where the trace does not say."""
        return math.prod(self.grid) if self.grid else 0


@dataclass(frozen=True, slots=True)
class KinetoTrace:
    """GPU work of one device, by start."""

    origin: TraceOrigin
    kernels: tuple[KernelEvent, ...]
    other_devices: int
    """Devices that also ran kernels and were left out."""


def read(path: str | Path, ranges: Collection[str] = ()) -> KinetoTrace:
    """Read a trace.

    Parameters: `path`, JSON or gzipped JSON; `ranges`, names of CPU ranges that kernels are to be traced back to.
    Raises `InputError` for a file that is not readable, truncated, too big, or not such a trace.
    """
    path = Path(path)
    tree = _tree(path)
    events = tree if isinstance(tree, list) else tree.get("traceEvents") if isinstance(tree, dict) else None
    if not isinstance(events, list):
        keys = ", ".join(map(repr, list(tree)[:5])) if isinstance(tree, dict) else ""
        raise _error(
            path, f"{f'JSON with the keys {keys}' if keys else 'other JSON'} and no list 'traceEvents'"
        )
    kinds = [event for event in events if isinstance(event, dict) and event.get("ph") == "X"]
    work = [event for event in kinds if event.get("cat") in _GPU_WORK]
    if not any(event["cat"] == "kernel" for event in work):
        raise _error(
            path,
            f"{len(events)} events, none of a GPU kernel",
            f"{_WANTED}: record with ProfilerActivity.CUDA",
        )
    problems = [problem for event in work if (problem := _problem(path, event))]
    if problems:
        raise InputError(problems[:_MAX_PROBLEMS])
    by_device: dict[str, list[dict[str, Any]]] = {}
    for event in work:
        by_device.setdefault(str(_args(event).get("device", event.get("pid"))), []).append(event)
    chosen = max(by_device.values(), key=lambda mine: sum(event["dur"] for event in mine))
    launched = _launched_in(kinds, ranges) if ranges else {}
    zero_us = min(event["ts"] for event in chosen)
    kernels = [_kernel(event, zero_us, launched) for event in chosen]
    kernels.sort(key=lambda one: (one.start_s, one.end_s, one.stream, one.name))
    device = _args(chosen[0]).get("device", 0)
    return KinetoTrace(_origin(path, tree, device), tuple(kernels), len(by_device) - 1)


def _tree(path: Path) -> Any:
    text = _text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise _error(path, "an empty file") from None
        if error.pos >= len(text.rstrip()) - _LONGEST_TOKEN or "Unterminated" in error.msg:
            raise _error(
                path, f"JSON that ends in the middle, after {len(text)} characters: a truncated file?"
            ) from None
        mark = Mark(str(path), error.lineno, error.colno)
        raise InputError(Problem(mark, "", "text that is not JSON", _WANTED)) from None
    except (ValueError, RecursionError):
        raise _error(path, "JSON that is nested too deep or holds an impossible number") from None


def _text(path: Path) -> str:
    raw = files.content(path, _WANTED)
    if raw[:2] == b"\x1f\x8b":
        raw = _unzip(path, raw)
    elif raw[:4] == b"PK\x03\x04":
        raise _error(path, "a zip archive", f"{_WANTED}: unpack it first")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _error(path, f"a byte that is not UTF-8 at {error.start}") from None


def _unzip(path: Path, raw: bytes) -> bytes:
    pieces, total = [], 0
    reader = zlib.decompressobj(wbits=31)
    try:
        piece = reader.decompress(raw, _PIECE_BYTES)
        while piece or reader.unconsumed_tail:
            pieces.append(piece)
            total += len(piece)
            if total > MAX_TEXT_BYTES:
                raise _error(path, f"more than {MAX_TEXT_BYTES} bytes when unpacked", "a shorter trace")
            piece = reader.decompress(reader.unconsumed_tail, _PIECE_BYTES)
    except zlib.error:
        raise _error(path, "damaged gzip data") from None
    if not reader.eof:
        raise _error(
            path, f"gzip data that ends in the middle, after {total} bytes unpacked: a truncated file?"
        )
    return b"".join(pieces)


def _problem(path: Path, event: Mapping[str, Any]) -> Problem | None:
    """What is wrong with an event of GPU work, if anything."""
    for key, least in (("ts", -math.inf), ("dur", 0.0)):
        value = event.get(key)
        if not _is_time(value) or value < least:
            name = str(event.get("name"))[:60]
            wanted = "microseconds" + (" of 0 or more" if key == "dur" else "")
            return Problem(Mark(str(path)), f"traceEvents '{name}' {key}", repr(value)[:60], wanted)
    if not isinstance(event.get("name"), str):
        return Problem(Mark(str(path)), "traceEvents name", repr(event.get("name")), "the name of a kernel")
    return None


def _kernel(event: Mapping[str, Any], zero_us: float, launched: Mapping[Any, Range]) -> KernelEvent:
    args = _args(event)
    start_us = event["ts"] - zero_us
    grid = args.get("grid")
    sides = [_whole(side) for side in grid[:3]] if isinstance(grid, list) else []
    return KernelEvent(
        name=_clean(event["name"]),
        named=name_kernel(_clean(event["name"])),
        start_s=start_us * 1e-6,
        end_s=(start_us + event["dur"]) * 1e-6,
        stream=_clean(args.get("stream", event.get("tid"))),
        grid=tuple(sides) if all(sides) else (),
        launched_in=launched.get(_correlation(event)),
    )


def _launched_in(events: list[dict[str, Any]], names: Collection[str]) -> dict[Any, Range]:
    """Correlation of a launch -> the innermost range of one of `names` that was open on the CPU when it was made."""
    timed = [one for one in events if _is_time(one.get("ts")) and _is_time(one.get("dur"))]
    marked = [
        one for one in timed if one.get("cat") == "user_annotation" and isinstance(one.get("name"), str)
    ]
    opened: list[tuple[float, float, Range]] = []
    seen: dict[str, int] = {}
    for event in sorted((one for one in marked if one["name"] in names), key=_by_ts):
        name = event["name"]
        opened.append((event["ts"], event["ts"] + event["dur"], Range(name, seen.get(name, 0))))
        seen[name] = seen.get(name, 0) + 1
    found: dict[Any, Range] = {}
    active: list[tuple[float, float, Range]] = []
    waiting = iter(opened)
    upcoming = next(waiting, None)
    for launch in sorted((e for e in timed if e.get("cat") in _LAUNCHES), key=_by_ts):
        now = launch["ts"]
        while upcoming and upcoming[0] <= now:
            active.append(upcoming)
            upcoming = next(waiting, None)
        active = [one for one in active if one[1] >= now]
        correlation = _correlation(launch)
        if active and correlation is not None:
            found[correlation] = active[-1][2]
    return found


def _origin(path: Path, tree: Any, device: object) -> TraceOrigin:
    head: Mapping[str, Any] = tree if isinstance(tree, dict) else {}
    properties = next(iter(_devices(head, device)), {})
    distributed = head.get("distributedInfo")
    world: Mapping[str, Any] = distributed if isinstance(distributed, dict) else {}
    return TraceOrigin(
        file=path.name,
        name=_clean(head.get("traceName", "")),
        gpu=_clean(properties.get("name", "")),
        gpu_sms=_whole(properties.get("numSms")),
        rank=_whole(world.get("rank")),
        world_size=_whole(world.get("world_size")),
        backend=_clean(world.get("backend", "")),
    )


def _devices(head: Mapping[str, Any], device: object) -> Iterator[Mapping[str, Any]]:
    listed = head.get("deviceProperties")
    known = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    yield from (one for one in known if one.get("id") == device)
    yield from known


def _args(event: Mapping[str, Any]) -> Mapping[str, Any]:
    args = event.get("args")
    return args if isinstance(args, dict) else {}


def _correlation(event: Mapping[str, Any]) -> int | None:
    value = _args(event).get("correlation")
    return value if isinstance(value, int) else None


def _by_ts(event: Mapping[str, Any]) -> tuple[float, float]:
    return event["ts"], -event["dur"]


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else 0


def _is_time(value: object) -> TypeGuard[float]:
    """Whether it is a finite number of microseconds, of which sums stay finite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_MAX_US < value < _MAX_US


def _clean(value: object) -> str:
    """A word of the trace that can be written to a file: bounded, without lone surrogates."""
    text = str(value)[:_MAX_NAME]
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _error(path: Path, got: str, wanted: str = _WANTED) -> InputError:
    return InputError(Problem(Mark(str(path)), "", got, wanted))
