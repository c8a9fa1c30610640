"""A decode step whose attention and experts are on pools of their own, as tasks of two ranks that send to each other.

Attention is the first rank, the experts are the second. Microbatches go round: while one is on the experts' pool, attention
has the next. A task of attention ends where its tokens leave; shared experts run after it, while the tokens are away:

    attention:  A(0) S(0) A(1) S(1) A(2) S(2) A(0)' ...          ' = of the next layer
    experts:             E(0)      E(1)      E(2) ...

Why this way: tokens and results are messages of a pipeline of two stages that go to and fro, so the loop of training steps
runs them as they are (`step_loop`), on one network, whatever is under way at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sim.schedule.programs import Node, Program
from sim.schedule.training import Message, PipelineTask, Tasks, tasks_from_rows

ATTENTION, EXPERTS = 0, 1
"""Places of the pools among the ranks."""


@dataclass(frozen=True, slots=True)
class LayerPrograms:
    """Programs of one layer with experts: of attention until tokens leave, of what needs no experts, and of the experts."""

    attention: Program
    shared: Program
    experts: Program


def chain(nodes: Sequence[Node]) -> Program:
    """Nodes of one stream, each after the one before; those that take no time are left out."""
    return tuple(node for node in nodes if node.mean_s > 0)


def afd_tasks(layers: Sequence[LayerPrograms], last: Program, microbatches: int) -> Tasks:
    """Lay out a step of attention and of the experts, with the programs of each layer with experts.

    `last` is what attention does with the results of the last layer.
    """
    attention: list[PipelineTask] = []
    experts: list[PipelineTask] = []

    def task(
        program: Program, microbatch: int, receives: tuple[Message, ...], sends: tuple[Message, ...]
    ) -> PipelineTask:
        return PipelineTask("F", program, microbatch, -1, False, receives, sends)

    back: dict[int, tuple[Message, ...]] = dict.fromkeys(range(microbatches), ())
    for layer, own in enumerate(layers):
        for i in range(microbatches):
            tokens = Message("F", i, layer, ATTENTION, EXPERTS)
            results = Message("F", i, layer, EXPERTS, ATTENTION)
            attention.append(task(own.attention, i, back[i], (tokens,)))
            if own.shared:
                attention.append(task(own.shared, i, (), ()))
            experts.append(task(own.experts, i, (tokens,), (results,)))
            back[i] = (results,)
    attention += [task(last, i, back[i], ()) for i in range(microbatches)]
    return tasks_from_rows([attention, experts])
