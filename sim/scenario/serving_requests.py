"""Requests of a serving workload as written: when they arrive, how long they are, and which classes are measured apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from sim.documents import Path_
from sim.errors import InputError, nearest
from sim.scenario.draft import Draft, named_file
from sim.scenario.values import NAME, Branch, Count, LengthsSpec, Number
from sim.schemas import Fraction, Seconds
from sim.workload import request_classes as grouping
from sim.workload import request_traces
from sim.workload import requests as users
from sim.workload.request_classes import MOST_CLASSES, DrawnClass

_AT = ("workload",)
_ARRIVALS, _CLASSES = (*_AT, "arrivals"), (*_AT, "classes")
_SEED = 3  # stream of arrivals within the scenario's seed
_WAYS = ("share", "file", "most_prompt_tokens")
_SUM = 1e-6


class PoissonSpec(Branch):
    """Independent users."""

    kind: Literal["poisson"]
    requests: Annotated[int, Field(ge=1, le=10**7, strict=True)]
    requests_per_s: Annotated[Number, Field(gt=0, le=1e7)]
    prompt: LengthsSpec | None = None
    """Of every class without lengths of its own."""
    output: LengthsSpec | None = None
    """Of every class without lengths of its own."""


class ClosedSpec(Branch):
    """So many users, each of whom asks again when the answer has ended: `--max-concurrency` of benchmarks."""

    kind: Literal["closed"]
    requests: Annotated[int, Field(ge=1, le=10**7, strict=True)]
    concurrency: Count
    """Requests in the system at once."""
    prompt: LengthsSpec | None = None
    """Of every class without lengths of its own."""
    output: LengthsSpec | None = None
    """Of every class without lengths of its own."""


class RequestTraceSpec(Branch):
    """Requests as recorded."""

    kind: Literal["trace"]
    file: str | None = None
    """A CSV with arrival_s,prompt_tokens,output_tokens, or a trace of Mooncake, Azure, BurstGPT or vidur; none where each
    class has a file of its own."""
    class_column: Annotated[str, Field(min_length=1)] | None = None
    """Column whose words are classes, such as `Log Type` of BurstGPT; names are lower-case, with hyphens for what is no letter."""


class ObjectiveSpec(Branch):
    """Times that a request must meet to count as good."""

    ttft: Seconds | None = None
    tpot: Seconds | None = None


class ClassSpec(Branch):
    """Requests that are measured apart. `share`, `file` or `most_prompt_tokens`, the same of every class, says which they are;
    none of these where `arrivals.class_column` does.
    """

    share: Fraction | None = None
    """Part of the drawn requests; the shares add up to 100 %."""
    prompt: LengthsSpec | None = None
    """Of a class with a share; those of the arrivals when left out."""
    output: LengthsSpec | None = None
    """Of a class with a share; those of the arrivals when left out."""
    file: str | None = None
    """A trace that has this class alone; those of all classes start together."""
    most_prompt_tokens: Count | None = None
    """A request is of the first class whose most its prompt does not exceed; the last class has none."""
    slo: ObjectiveSpec = ObjectiveSpec()
    """Objectives of its own; those of the workload for what is left out."""


ArrivalsSpec = PoissonSpec | ClosedSpec | RequestTraceSpec
Arrivals = Annotated[ArrivalsSpec, Field(discriminator="kind")]
Classes = dict[Annotated[str, Field(pattern=NAME, max_length=40)], ClassSpec]


def objectives_of(
    slo: ObjectiveSpec, classes: Mapping[str, ClassSpec], asked: users.Requests
) -> dict[str, users.Floats]:
    """Objectives of each request, `ttft_s` and `tpot_s` [num_requests] [s]; infinite where it has none."""
    names: tuple[str, ...] = asked.classes.names if asked.classes else ("",)
    which = asked.classes.class_idx if asked.classes else np.zeros(asked.num_requests, dtype=np.int64)
    found = {}
    for key in ("ttft", "tpot"):
        own = [getattr(classes[name].slo, key) if name in classes else None for name in names]
        every = getattr(slo, key)
        bounds = [value if value is not None else every for value in own]
        found[f"{key}_s"] = np.array([np.inf if bound is None else bound for bound in bounds])[which]
    return found


def check_requests(
    draft: Draft,
    arrivals: ArrivalsSpec,
    classes: Mapping[str, ClassSpec],
    slo: ObjectiveSpec,
) -> None:
    """Note what contradicts itself, and objectives that no request could meet."""
    for problem in _problems(arrivals, classes):
        draft.problem(*problem)
    rows: list[tuple[Path_, ObjectiveSpec]] = [((*_AT, "slo"), slo)]
    rows += [((*_CLASSES, name, "slo"), own.slo) for name, own in classes.items()]
    for at, own in rows:
        for key in ("ttft", "tpot"):
            bound = getattr(own, key)
            if bound is not None and bound <= 0:
                draft.problem((*at, key), str(draft.document.get((*at, key))), "more than 0 s")


def requests_of(draft: Draft, arrivals: ArrivalsSpec, classes: Mapping[str, ClassSpec]) -> users.Requests:
    """Draw or read requests that `check_requests` found nothing wrong with, and sort them into classes.

    InputError with the problems of a trace.
    """
    if isinstance(arrivals, RequestTraceSpec):
        asked = _read(draft, arrivals, classes)
    else:
        asked = _drawn(draft, arrivals, classes)
    if any(own.most_prompt_tokens for own in classes.values()):
        asked = grouping.split_by_length(
            asked, {name: own.most_prompt_tokens for name, own in classes.items()}
        )
    if asked.classes is not None:
        _check_names(draft, asked.classes.names, classes)
    return asked


def _drawn(
    draft: Draft, arrivals: PoissonSpec | ClosedSpec, classes: Mapping[str, ClassSpec]
) -> users.Requests:
    """Draw requests; those of a closed loop arrive when others have left, of the same draws as at any rate."""
    rng = np.random.default_rng([draft.seed, _SEED])
    num, closed = arrivals.requests, arrivals if isinstance(arrivals, ClosedSpec) else None
    rate = 1.0 if isinstance(arrivals, ClosedSpec) else arrivals.requests_per_s
    if not any(own.share for own in classes.values()):
        asked = users.poisson(num, rate, _lengths(arrivals.prompt), _lengths(arrivals.output), rng)
        return _closed(asked, closed)
    drawn = {
        name: DrawnClass(
            own.share or 0.0, _lengths(own.prompt or arrivals.prompt), _lengths(own.output or arrivals.output)
        )
        for name, own in classes.items()
    }
    return _closed(grouping.poisson_classes(num, rate, drawn, rng), closed)


def _closed(asked: users.Requests, closed: ClosedSpec | None) -> users.Requests:
    """Requests that arrive as soon as they may, where a loop is closed."""
    if closed is None:
        return asked
    return replace(asked, arrival_s=np.zeros(asked.num_requests), concurrency=closed.concurrency)


def _lengths(spec: LengthsSpec | None) -> users.Lengths:
    assert spec is not None
    return spec.distribution


def _read(draft: Draft, arrivals: RequestTraceSpec, classes: Mapping[str, ClassSpec]) -> users.Requests:
    if arrivals.file is not None:
        file = named_file(draft.document, (*_ARRIVALS, "file"))
        return request_traces.read(*file, arrivals.class_column or "")
    return grouping.merged(
        {
            name: request_traces.read(*named_file(draft.document, (*_CLASSES, name, "file")))
            for name in classes
        }
    )


def _check_names(draft: Draft, names: tuple[str, ...], classes: Mapping[str, ClassSpec]) -> None:
    """A class that is given objectives must be one that a trace has."""
    unknown = [name for name in classes if name not in names]
    wanted = f"a class of the trace: {', '.join(names[:8])}"
    problems = [
        draft.document.problem((*_CLASSES, name), f"'{name}'", wanted, nearest(name, names))
        for name in unknown
    ]
    if problems:
        raise InputError(problems)


def _problems(arrivals: ArrivalsSpec, classes: Mapping[str, ClassSpec]) -> Iterator[tuple[Path_, str, str]]:
    """What contradicts itself: a place, what is there, and what is wanted."""
    ways = [way for way in _WAYS if any(getattr(own, way) is not None for own in classes.values())]
    trace = arrivals if isinstance(arrivals, RequestTraceSpec) else None
    first, others = ways[:1], dict.fromkeys(ways[1:], ways[0] if ways else "")
    others |= dict.fromkeys(["share"] if trace else ["file"], f"arrivals.kind: {arrivals.kind}")
    if trace and trace.class_column is not None:
        others |= dict.fromkeys(_WAYS, "arrivals.class_column")
    elif classes and not ways:
        wanted = f"each with '{'file' if trace else 'share'}' or 'most_prompt_tokens'"
        column = ", or 'arrivals.class_column'" if trace else ""
        yield _CLASSES, "classes that nothing tells apart", wanted + column
    if len(classes) > MOST_CLASSES:
        yield _CLASSES, f"{len(classes)} classes", f"at most {MOST_CLASSES}"
    for name, own in classes.items():
        if first in (["share"], ["file"]) and getattr(own, first[0]) is None:
            yield (*_CLASSES, name), f"no '{first[0]}'", f"'{first[0]}' in every class, or in none"
        for way, other in others.items():
            if getattr(own, way) is not None:
                yield (*_CLASSES, name, way), f"given next to {other}", "one way to tell classes apart"
        for key in ("prompt", "output"):
            if getattr(own, key) is not None and own.share is None:
                wanted = "no such key: they are those of the arrivals"
                yield (*_CLASSES, name, key), "lengths of a class without a share", wanted
    if first == ["most_prompt_tokens"]:
        yield from _ranges(classes)
    if trace is None:
        yield from _shares(classes if "share" in ways else {})
        yield from _missing_lengths(arrivals, classes if "share" in ways else {})
    elif trace.file is None and first != ["file"]:
        yield (*_ARRIVALS, "file"), "no file", "a trace, or one in each of workload.classes"
    elif trace.file is not None and "file" in ways:
        yield (*_ARRIVALS, "file"), "given next to a file in each class", "one of them"


def _shares(classes: Mapping[str, ClassSpec]) -> Iterator[tuple[Path_, str, str]]:
    """Shares that are none, and that are not those of one whole."""
    shares = {name: own.share for name, own in classes.items() if own.share is not None}
    for name, share in shares.items():
        if not 0 < share <= 1:
            yield (*_CLASSES, name, "share"), f"{share:.4g}", "more than 0 %, and 100 % at the most"
    if classes and abs(sum(shares.values()) - 1) > _SUM:
        yield _CLASSES, f"shares of {sum(shares.values()):.4%} together", "100 %"


def _ranges(classes: Mapping[str, ClassSpec]) -> Iterator[tuple[Path_, str, str]]:
    """Ranges of lengths that overlap, or that leave prompts without a class."""
    *before, (last, own) = classes.items()
    below = 0
    if own.most_prompt_tokens is not None:
        yield (
            (*_CLASSES, last, "most_prompt_tokens"),
            str(own.most_prompt_tokens),
            "none: the last class has all longer prompts",
        )
    for name, kind in before:
        if kind.most_prompt_tokens is None:
            yield (*_CLASSES, name), "no 'most_prompt_tokens'", "it in every class but the last"
        elif kind.most_prompt_tokens <= below:
            at = (*_CLASSES, name, "most_prompt_tokens")
            yield at, str(kind.most_prompt_tokens), f"more than the {below} of the class before"
        below = kind.most_prompt_tokens or below


def _missing_lengths(
    arrivals: ArrivalsSpec, classes: Mapping[str, ClassSpec]
) -> Iterator[tuple[Path_, str, str]]:
    """Lengths that nobody has, and those of the arrivals that nobody takes."""
    for key in ("prompt", "output"):
        whole = getattr(arrivals, key)
        without = [name for name, own in classes.items() if getattr(own, key) is None]
        if whole is None and (without or not classes):
            at = (*_CLASSES, without[0]) if without else _ARRIVALS
            yield (
                at,
                f"no '{key}'",
                f"its lengths, or those of all in arrivals.{key}" if without else f"the lengths of '{key}'",
            )
        elif whole is not None and classes and not without:
            yield (*_ARRIVALS, key), "given, and every class has its own", "no such key"
