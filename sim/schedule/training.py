"""A training step as data: what each pipeline rank does, with its layers' programs and the messages between ranks.

A step of a large model has a hundred thousand tasks and as many messages, but few programs: tasks are columns (`Tasks`), and
an object is made of a rank's tasks only where one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.schedule import alignment, programs
from sim.schedule.operations import CODES, KINDS, PAIRS, WEIGHT_PARTS, Ints, Kind, Operation, Pipeline
from sim.schedule.programs import LayerTimes, Program
from sim.schedule.replay import replay

HALVES = ("F", "B")


@dataclass(frozen=True, slots=True)
class Message:
    """A send from one pipeline rank to another: activations (F) or gradients (B) for a stage and microbatch."""

    half: str
    stage: int  # of the receiver
    microbatch: int
    source: int  # pipeline rank
    target: int


@dataclass(frozen=True, slots=True)
class PipelineTask:
    """One operation of a pipeline rank, ready to run."""

    kind: Kind
    program: Program
    microbatch_f: int
    microbatch_b: int
    overlapped: bool
    receives: tuple[Message, ...]
    sends: tuple[Message, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Tasks:
    """All tasks of a step as columns, one pipeline rank after another; `tasks[rank]` are those of a rank as objects.

    Parameters
    ----------
    first : int, [num_ranks + 1]
        Where each rank's tasks begin, and where the last one's end.
    kind : int, [num_tasks]
        Place in `operations.KINDS`.
    microbatches : int, [num_tasks, 2]
        Of the forward and of the backward; -1 where there is none.
    program : int, [num_tasks]
        Place in `programs`.
    receives, sends : int, [num_tasks, 2]
        Rows of `messages`, -1 for none.
    programs : tuple, [num_programs]
        Each with whether it runs compute next to collectives.
    messages : int, [num_messages, 5]
        Half (place in `HALVES`), stage of the receiver, microbatch, source rank, target rank.
    """

    first: Ints
    kind: npt.NDArray[np.int8]
    microbatches: Ints
    program: Ints
    receives: Ints
    sends: Ints
    programs: tuple[tuple[Program, bool], ...]
    messages: Ints

    def __len__(self) -> int:
        return len(self.first) - 1

    def __iter__(self) -> Iterator[tuple[PipelineTask, ...]]:
        return (self[rank] for rank in range(len(self)))

    def __getitem__(self, rank: int) -> tuple[PipelineTask, ...]:
        own = slice(self.first[rank], self.first[rank + 1])
        columns = (self.kind, self.program, self.microbatches, self.receives, self.sends)
        return tuple(
            PipelineTask(
                KINDS[kind], program, f, b, overlapped, self._messages(receives), self._messages(sends)
            )
            for kind, number, (f, b), receives, sends in zip(
                *(column[own].tolist() for column in columns), strict=True
            )
            for program, overlapped in [self.programs[number]]
        )

    def _messages(self, rows: Sequence[int]) -> tuple[Message, ...]:
        return tuple(
            Message(HALVES[half], *where)
            for half, *where in (self.messages[row].tolist() for row in rows if row >= 0)
        )


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Compute times of one stage's layers, in forward order, as (layers with all SMs, layers next to communication)."""

    alone: tuple[LayerTimes, ...]
    beside: tuple[LayerTimes, ...]


def tasks(
    pipeline: Pipeline,
    stages: Sequence[StageTimes],
    collective_s: Callable[[str], float],
    *,
    overlap: bool = True,
    reductions: Mapping[str, Sequence[str]] | None = None,
    reduced_s: Mapping[str, float] | None = None,
) -> Tasks:
    """Lay out the tasks of each pipeline rank.

    Parameters
    ----------
    pipeline : Pipeline
    stages : sequence of StageTimes, [num_stages]
    collective_s : function
        Name of a kernel (`programs.DISPATCH`, `programs.COMBINE`) -> its mean time [s], by which pairs are aligned.
    overlap : bool
        False to run a pair's forward, then its backward, and nothing next to a collective.
    reductions : mapping, optional
        Name of a node ("attn(F)") -> kernels of TP and CP that follow it; in overlapped pairs they stay a time of its compute.
    reduced_s : mapping, optional [s]
        Name of a node -> time of these, where its exposed time holds more than them.

    Returns
    -------
    Tasks
    """
    table, num_stages = pipeline.table, pipeline.num_stages
    f, b = table.forward[:, 1], table.backward[:, 1]
    # Operations of one kind on the same stages have one program.
    likes = (table.kind.astype(np.int32) * (num_stages + 1) + f + 1) * (num_stages + 1) + b + 1
    known = np.flatnonzero(np.bincount(likes))
    place = np.zeros(known[-1] + 1, dtype=np.int32)
    place[known] = np.arange(len(known))
    made = []
    for like in known.tolist():
        rest, backward = divmod(like, num_stages + 1)
        kind, forward = divmod(rest, num_stages + 1)
        whole = _program(KINDS[kind], stages, forward - 1, backward - 1, collective_s, overlap)
        overlapped = overlap and KINDS[kind] in PAIRS
        if not overlap:
            whole = programs.serial(whole)
        made.append(
            (whole if overlapped else programs.reducing(whole, reductions or {}, reduced_s), overlapped)
        )
    messages = _messages(pipeline)
    receives, sends = _sent(pipeline, messages)
    return Tasks(
        first=table.first,
        kind=table.kind,
        microbatches=np.stack([table.forward[:, 2], table.backward[:, 2]], axis=1),
        program=place[likes],
        receives=receives,
        sends=sends,
        programs=tuple(made),
        messages=messages,
    )


def balanced_s(pipeline: Pipeline, steps: Tasks, collective_s: Callable[[str, bool], float]) -> float:
    """Time of a step whose ranks are alike, with sends that take none [s].

    `collective_s` is the mean time of a kernel, alone or in an overlapped pair; 0 for kernels without one.
    """
    spans = [
        programs.span_s(
            program, {n.collective: collective_s(n.collective, pair) for n in program if n.collective}
        )
        for program, pair in steps.programs
    ]
    table = pipeline.table
    stages = np.stack([table.kind, table.forward[:, 1], table.backward[:, 1]], axis=1)
    kinds, first = np.unique(stages, axis=0, return_index=True)
    took: dict[tuple[int, ...], float] = {
        tuple(row): spans[steps.program[i]] for row, i in zip(kinds.tolist(), first, strict=True)
    }

    def duration(own: Operation) -> float:
        f, b = (each.stage if each else -1 for each in (own.forward, own.backward))
        return took[CODES[own.kind], f, b]

    return replay(pipeline, duration).total_s


def tasks_from_rows(rows: Sequence[Sequence[PipelineTask]]) -> Tasks:
    """Lay out tasks that are given one by one, a row for each rank."""
    flat = [task for row in rows for task in row]
    programs_ = {(id(task.program), task.overlapped): (task.program, task.overlapped) for task in flat}
    place = {key: i for i, key in enumerate(programs_)}
    messages = dict.fromkeys(message for task in flat for message in (*task.receives, *task.sends))
    row_of = {message: i for i, message in enumerate(messages)}

    def rows_of(few: tuple[Message, ...]) -> list[int]:
        return ([row_of[message] for message in few] + [-1, -1])[:2]

    def column(values: Sequence[Any], width: int = 1) -> Ints:
        return np.array(values, dtype=np.int32).reshape((-1, width) if width > 1 else -1)

    return Tasks(
        first=np.cumsum([0, *map(len, rows)], dtype=np.int32),
        kind=np.array([CODES[task.kind] for task in flat], dtype=np.int8),
        microbatches=column([(task.microbatch_f, task.microbatch_b) for task in flat], 2),
        program=column([place[id(task.program), task.overlapped] for task in flat]),
        receives=column([rows_of(task.receives) for task in flat], 2),
        sends=column([rows_of(task.sends) for task in flat], 2),
        programs=tuple(programs_.values()),
        messages=column(
            [(HALVES.index(m.half), m.stage, m.microbatch, m.source, m.target) for m in messages], 5
        ),
    )


def _program(
    kind: Kind,
    stages: Sequence[StageTimes],
    f: int,
    b: int,
    collective_s: Callable[[str], float],
    overlap: bool,
) -> Program:
    if kind == "FB":
        if overlap:
            return alignment.aligned(stages[f].beside, stages[b].beside, collective_s)
        return programs.one_after_another(
            programs.forward(stages[f].alone), programs.backward(stages[b].alone)
        )
    if kind == "FW":
        return alignment.filled(stages[f].beside, stages[b].beside, collective_s)
    if kind == "F":
        return programs.forward(stages[f].alone)
    if kind == "W":
        return programs.weight_gradients(stages[b].alone)
    return programs.backward(stages[b].alone, weights=kind == "B")


def _messages(pipeline: Pipeline) -> Ints:
    """Messages into every stage with every microbatch, `Tasks.messages`: row (half x stages + stage) x microbatches + m.

    Rows that nobody sends (activations into the first stage, gradients into the last) have no source.
    """
    num_stages, num = pipeline.num_stages, pipeline.num_microbatches
    late = (np.arange(num) >= num // 2).astype(int)
    rows = np.empty((2, num_stages, num, 5), dtype=np.int32)
    rows[..., 0] = np.arange(2)[:, None, None]
    rows[..., 1] = np.arange(num_stages)[:, None]
    rows[..., 2] = np.arange(num)
    holders = pipeline.holders[:, late]  # [num_stages, num_microbatches]
    rows[..., 3], rows[..., 4] = -1, holders
    rows[0, 1:, :, 3] = holders[:-1]
    rows[1, :-1, :, 3] = holders[1:]
    return rows.reshape(-1, 5)


def _sent(pipeline: Pipeline, messages: Ints) -> tuple[Ints, Ints]:
    """`Tasks.receives` and `Tasks.sends`; what a rank hands on to itself is no message."""
    table, last, num = pipeline.table, pipeline.num_stages - 1, pipeline.num_microbatches
    _, f, m = table.forward.T
    _, b, n = table.backward.T
    gradient = (b >= 0) & ~np.isin(table.kind, [CODES[kind] for kind in WEIGHT_PARTS])
    into, back = f * num + m, (last + 1 + b) * num + n
    asked = {  # rows, and which operations have them
        "receives": [(into, f > 0), (back, gradient & (b < last))],
        "sends": [(into + num, (f >= 0) & (f < last)), (back - num, gradient & (b > 0))],
    }
    own = messages[:, 3] == messages[:, 4]
    sides = []
    for pair in asked.values():
        columns = []
        for rows, there in pair:
            there = there & ~own[np.where(there, rows, 0)]
            columns.append(np.where(there, rows, -1))
        sides.append(np.stack(columns, axis=1).astype(np.int32))
    return sides[0], sides[1]
