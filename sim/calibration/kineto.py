"""Read a PyTorch profiler (Kineto) trace: the GPU kernels, where they ran, and who launched them.

Why this way: the file is somebody else's and may be anything, so it is unpacked and decoded in pieces, counted as it
comes, and every event is checked before it is believed. Only GPU work is kept; of the CPU side only the named ranges that a
person put around the launches (`torch.profiler.record_function`), because a kernel belongs to the range in which it was
*launched*, whatever the time at which it ran, and whichever thread launched it: autograd launches from its own.
"""

from __future__ import annotations

import codecs
import math
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from sim import files, json_events, limits
from sim.calibration.kernel_names import KernelName, name_kernel
from sim.cost.measured import TraceOrigin
from sim.errors import InputError, Mark, Problem
from sim.trees import is_number

_PIECE_BYTES = 1 << 20
_TOLD_EVENTS = 250_000  # between two words of progress
_WANTED = "a PyTorch profiler trace (JSON, also gzipped) with GPU kernels"
_GPU_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
_LAUNCHES = ("cuda_runtime", "cuda_driver")
_MAX_PROBLEMS = 5
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
        """Time that it ran."""
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
    launched_s: tuple[float, ...] = ()
    """When threads of the host launched them, in order; with `ranges` alone."""


class _Work(NamedTuple):
    """GPU work as the trace tells it; times in microseconds."""

    name: str
    ts: float
    dur: float
    device: str
    stream: str
    grid: tuple[int, ...]
    correlation: int | None


Timed = tuple[float, float, Any]
"""Start and duration [us] of a range (with its name) or a launch (with its correlation)."""


@dataclass(slots=True)
class _Kept:
    """Events of a trace that calibration reads, and the number of all."""

    path: Path
    ranges: Collection[str]
    num_events: int = 0
    num_kernels: int = 0
    work: list[_Work] = field(default_factory=list)
    marked: list[Timed] = field(default_factory=list)
    launches: list[Timed] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    devices: dict[str, object] = field(default_factory=dict)
    words: dict[Any, Any] = field(default_factory=dict)

    def add(self, event: Any) -> None:
        """Count an event, and keep it where it is of use. Raises `InputError` beyond the limits."""
        self.num_events += 1
        if self.num_events > limits.TRACE_EVENTS:
            raise _error(self.path, f"more than {limits.TRACE_EVENTS:,} events", "a shorter trace")
        if not isinstance(event, dict) or event.get("ph") != "X":
            return
        category = event.get("cat")
        if category in _GPU_WORK:
            self.num_kernels += category == "kernel"
            self.add_work(event)
        elif self.ranges and category in _LAUNCHES and _is_timed(event):
            self.launches.append((event["ts"], event["dur"], _correlation(event)))
        elif category == "user_annotation" and _is_timed(event):
            name = event.get("name")
            if isinstance(name, str) and name in self.ranges:
                self.marked.append((event["ts"], event["dur"], name))
        if len(self.work) + len(self.launches) + len(self.marked) > limits.TRACE_KEPT:
            got = f"more than {limits.TRACE_KEPT:,} kernels and launches"
            raise _error(self.path, got, "a shorter trace")

    def add_work(self, event: Mapping[str, Any]) -> None:
        if len(self.problems) == _MAX_PROBLEMS:
            return
        problem = _problem(self.path, event)
        if problem:
            self.problems.append(problem)
            return
        args = _args(event)
        device = args.get("device", event.get("pid"))
        key = self.word(_clean(device))
        self.devices.setdefault(key, args.get("device", 0))
        grid = args.get("grid")
        sides = tuple(_whole(side) for side in grid[:3]) if isinstance(grid, list) else ()
        self.work.append(
            _Work(
                self.word(_clean(event["name"])),
                event["ts"],
                event["dur"],
                key,
                self.word(_clean(args.get("stream", event.get("tid")))),
                self.words.setdefault(sides, sides) if all(sides) else (),
                _correlation(event),
            )
        )

    def word(self, text: str) -> str:
        """The text, kept once however often it comes."""
        kept: str = self.words.setdefault(text, text)
        if len(self.words) > limits.TRACE_NAMES:
            got = f"more than {limits.TRACE_NAMES:,} different names and grids"
            raise _error(self.path, got, "a trace of one program")
        return kept


def read(
    path: str | Path, ranges: Collection[str] = (), progress: Callable[[str], None] = lambda _: None
) -> KinetoTrace:
    """Read a trace.

    Parameters: `path`, JSON or gzipped JSON; `ranges`, names of CPU ranges that kernels are to be traced back to;
    `progress`, told how far reading is.
    Raises `InputError` for a file that is not readable, truncated, too big, or not such a trace.
    """
    path = Path(path)
    kept = _Kept(path, ranges)
    with files.uncollected():
        head = _read_events(path, kept, progress)
    progress(f"{path.name}: {len(kept.work):,} kernels")
    if not kept.num_kernels:
        got = f"{kept.num_events} events, none of a GPU kernel"
        raise _error(path, got, f"{_WANTED}: record with ProfilerActivity.CUDA")
    if kept.problems:
        raise InputError(kept.problems)
    by_device: dict[str, list[_Work]] = {}
    for event in kept.work:
        by_device.setdefault(event.device, []).append(event)
    chosen = max(by_device.values(), key=lambda events: sum(event.dur for event in events))
    launched = _launched_in(kept)
    zero_us = min(event.ts for event in chosen)
    kernels = [_kernel(event, zero_us, launched) for event in chosen]
    kernels.sort(key=lambda kernel: (kernel.start_s, kernel.end_s, kernel.stream, kernel.name))
    device = kept.devices[chosen[0].device]
    ran = {event.correlation for event in chosen} - {None}
    launched_s = sorted(ts * 1e-6 for ts, _, correlation in kept.launches if correlation in ran)
    return KinetoTrace(_origin(path, head, device), tuple(kernels), tuple(launched_s))


def _read_events(path: Path, kept: _Kept, progress: Callable[[str], None]) -> Mapping[str, Any]:
    """Hand every event to `kept`; what stands next to the events."""
    reader = json_events.Reader(_pieces(path), "traceEvents")
    try:
        for event in reader.events():
            kept.add(event)
            if kept.num_events % _TOLD_EVENTS == 0:
                progress(f"{path.name}: {kept.num_events:,} events read")
    except json_events.FormatError as error:
        mark = Mark(str(path), error.line, error.column)
        raise InputError(Problem(mark, "", "text that is not JSON", _WANTED)) from None
    except json_events.CutError:
        got = f"JSON that ends in the middle, after {reader.characters} characters: a truncated file?"
        raise _error(path, got) from None
    except json_events.TooLongError:
        raise _error(path, f"an entry of more than {limits.TRACE_ENTRY} characters, or very many") from None
    except (ValueError, RecursionError):
        raise _error(path, "JSON that is nested too deep or holds an impossible number") from None
    if reader.empty:
        raise _error(path, "an empty file")
    if not reader.has_events:
        keys = ", ".join(map(repr, list(reader.head)[:5]))
        got = f"{f'JSON with the keys {keys}' if keys else 'other JSON'} and no list 'traceEvents'"
        raise _error(path, got)
    return reader.head


def _pieces(path: Path) -> Iterator[str]:
    """The text of the file, unpacked and decoded piece by piece."""
    raw = files.content(path, _WANTED)
    if raw[:4] == b"PK\x03\x04":
        raise _error(path, "a zip archive", f"{_WANTED}: unpack it first")
    zipped = raw[:2] == b"\x1f\x8b"
    decoder = codecs.getincrementaldecoder("utf-8")()
    total = 0
    for piece in _unzip(path, raw) if zipped else _cut(raw):
        before = total - len(decoder.getstate()[0])
        total += len(piece)
        if total > limits.TRACE_BYTES:
            raise _error(path, f"more than {limits.TRACE_BYTES} bytes when unpacked", "a shorter trace")
        try:
            text = decoder.decode(piece)
        except UnicodeDecodeError as error:
            raise _error(path, f"a byte that is not UTF-8 at {before + error.start}") from None
        text = text.removeprefix("\ufeff") if before == 0 else text
        if text:
            yield text
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise _error(path, f"a byte that is not UTF-8 at {total - len(decoder.getstate()[0])}") from None


def _cut(raw: bytes) -> Iterator[bytes]:
    for first in range(0, len(raw), _PIECE_BYTES):
        yield raw[first : first + _PIECE_BYTES]


def _unzip(path: Path, raw: bytes) -> Iterator[bytes]:
    total = 0
    reader = zlib.decompressobj(wbits=31)
    try:
        piece = reader.decompress(raw, _PIECE_BYTES)
        while piece or reader.unconsumed_tail:
            total += len(piece)
            yield piece
            piece = reader.decompress(reader.unconsumed_tail, _PIECE_BYTES)
    except zlib.error:
        raise _error(path, "damaged gzip data") from None
    if not reader.eof:
        raise _error(
            path, f"gzip data that ends in the middle, after {total} bytes unpacked: a truncated file?"
        )


def _problem(path: Path, event: Mapping[str, Any]) -> Problem | None:
    """Return what is wrong with an event of GPU work, if anything."""
    for key, least in (("ts", -math.inf), ("dur", 0.0)):
        value = event.get(key)
        if not _is_time(value) or value < least:
            name = str(event.get("name"))[:60]
            wanted = "microseconds" + (" of 0 or more" if key == "dur" else "")
            return Problem(Mark(str(path)), f"traceEvents '{name}' {key}", repr(value)[:60], wanted)
    if not isinstance(event.get("name"), str):
        return Problem(Mark(str(path)), "traceEvents name", repr(event.get("name")), "the name of a kernel")
    return None


def _kernel(event: _Work, zero_us: float, launched: Mapping[Any, Range]) -> KernelEvent:
    start_us = event.ts - zero_us
    return KernelEvent(
        name=event.name,
        named=name_kernel(event.name),
        start_s=start_us * 1e-6,
        end_s=(start_us + event.dur) * 1e-6,
        stream=event.stream,
        grid=event.grid,
        launched_in=launched.get(event.correlation),
    )


def _launched_in(kept: _Kept) -> dict[Any, Range]:
    """Return for each launch, by its correlation, the innermost range that was open on the CPU when it was made."""
    opened: list[tuple[float, float, Range]] = []
    seen: dict[str, int] = {}
    for start, lasts, name in sorted(kept.marked, key=_by_start):
        opened.append((start, start + lasts, Range(name, seen.get(name, 0))))
        seen[name] = seen.get(name, 0) + 1
    launched: dict[Any, Range] = {}
    active: list[tuple[float, float, Range]] = []
    waiting = iter(opened)
    upcoming = next(waiting, None)
    for now, _, correlation in sorted(kept.launches, key=_by_start):
        while upcoming and upcoming[0] <= now:
            active.append(upcoming)
            upcoming = next(waiting, None)
        active = [span for span in active if span[1] >= now]
        if active and correlation is not None:
            launched[correlation] = active[-1][2]
    return launched


def _origin(path: Path, head: Mapping[str, Any], device: object) -> TraceOrigin:
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
    known = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    yield from (entry for entry in known if entry.get("id") == device)
    yield from known


def _args(event: Mapping[str, Any]) -> Mapping[str, Any]:
    args = event.get("args")
    return args if isinstance(args, dict) else {}


def _correlation(event: Mapping[str, Any]) -> int | None:
    value = _args(event).get("correlation")
    return value if isinstance(value, int) else None


def _by_start(timed: Timed) -> tuple[float, float]:
    return timed[0], -timed[1]


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else 0


def _is_time(value: object) -> TypeGuard[float]:
    """Return whether it is a finite number of microseconds, of which sums stay finite."""
    return is_number(value) and -_MAX_US < value < _MAX_US


def _is_timed(event: Mapping[str, Any]) -> bool:
    return _is_time(event.get("ts")) and _is_time(event.get("dur"))


def _clean(value: object) -> str:
    """Return a word of the trace that can be written to a file: bounded, without lone surrogates."""
    text = str(value)[:_MAX_NAME]
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _error(path: Path, got: str, wanted: str = _WANTED) -> InputError:
    return InputError(Problem(Mark(str(path)), "", got, wanted))
