"""A training step as data: what each pipeline rank does, with its layers' programs and the messages between ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sim.schedule import programs
from sim.schedule.operations import Operation, Pass, Pipeline
from sim.schedule.programs import LayerTimes, Program


@dataclass(frozen=True, slots=True)
class Message:
    """What one pipeline rank sends another: activations (F) or gradients (B) for a stage and microbatch."""

    half: str
    stage: int  # of the receiver
    microbatch: int
    source: int  # pipeline rank
    target: int


@dataclass(frozen=True, slots=True)
class Task:
    """One operation of a pipeline rank, ready to run."""

    kind: str  # F | B | B_in | W | FB
    program: Program
    microbatch_f: int
    microbatch_b: int
    overlapped: bool
    receives: tuple[Message, ...]
    sends: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Compute times of one stage's layers, in forward order, as (layers with all SMs, layers beside communication)."""

    alone: tuple[LayerTimes, ...]
    beside: tuple[LayerTimes, ...]


def tasks(
    pipeline: Pipeline,
    stages: Sequence[StageTimes],
    exchange_s: Callable[[str], float],
    *,
    overlap: bool = True,
) -> tuple[tuple[Task, ...], ...]:
    """The tasks of each pipeline rank.

    `exchange_s`: mean time of a dispatch or combine kernel, by which overlapped pairs are aligned. Without `overlap`, a
    pair runs its forward, then its backward, and nothing runs beside an exchange.
    """
    made: dict[tuple[object, ...], Program] = {}

    def program(operation: Operation) -> Program:
        f, b = _stage(operation.forward), _stage(operation.backward)
        key = (operation.kind, f, b)
        if key not in made:
            whole = _program(operation.kind, stages, f, b, exchange_s, overlap)
            made[key] = whole if overlap else programs.serial(whole)
        return made[key]

    return tuple(
        tuple(_task(pipeline, rank, operation, program(operation), overlap) for operation in order)
        for rank, order in enumerate(pipeline.orders)
    )


def _stage(run: Pass | None) -> int | None:
    return run.stage if run else None


def _program(
    kind: str,
    stages: Sequence[StageTimes],
    f: int | None,
    b: int | None,
    exchange_s: Callable[[str], float],
    overlap: bool,
) -> Program:
    if kind == "FB":
        assert f is not None
        assert b is not None
        if overlap:
            return programs.aligned(stages[f].beside, stages[b].beside, exchange_s)
        return programs.one_after_another(
            programs.forward(stages[f].alone), programs.backward(stages[b].alone)
        )
    if kind == "F":
        assert f is not None
        return programs.forward(stages[f].alone)
    assert b is not None
    if kind == "W":
        return programs.weight_gradients(stages[b].alone)
    return programs.backward(stages[b].alone, weights=kind == "B")


def _task(pipeline: Pipeline, rank: int, operation: Operation, program: Program, overlap: bool) -> Task:
    receives, sends = [], []
    f, b = operation.forward, operation.backward
    if f is not None:
        if f.stage > 0:
            receives.append(_message(pipeline, "F", f.stage - 1, f.stage, f.microbatch))
        if f.stage < pipeline.num_stages - 1:
            sends.append(_message(pipeline, "F", f.stage, f.stage + 1, f.microbatch))
    if b is not None and operation.kind != "W":
        if b.stage < pipeline.num_stages - 1:
            receives.append(_message(pipeline, "B", b.stage + 1, b.stage, b.microbatch))
        if b.stage > 0:
            sends.append(_message(pipeline, "B", b.stage, b.stage - 1, b.microbatch))
    return Task(
        kind=operation.kind,
        program=program,
        microbatch_f=f.microbatch if f else -1,
        microbatch_b=b.microbatch if b else -1,
        overlapped=overlap and operation.kind == "FB",
        receives=tuple(one for one in receives if one.source != one.target),
        sends=tuple(one for one in sends if one.source != one.target),
    )


def _message(pipeline: Pipeline, half: str, source_stage: int, stage: int, microbatch: int) -> Message:
    return Message(
        half,
        stage,
        microbatch,
        pipeline.rank_of(source_stage, microbatch),
        pipeline.rank_of(stage, microbatch),
    )
