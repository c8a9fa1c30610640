"""Training steps by hand: stages of one layer, collectives of a known time, sends, on NICs that carry a unit a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sim.cluster.topology import CLASSES, Floats
from sim.engine.step import StepRun, run_step
from sim.engine.step_plan import GroupCollective, StepPlan, Traffic
from sim.engine.step_records import GroupRecord
from sim.runs.step_traffic import side_by_side
from sim.schedule.flows import Columns, Flows
from sim.schedule.operations import Pipeline
from sim.schedule.programs import LayerTimes, Node, PhaseTime, Program
from sim.schedule.training import PipelineTask, StageTimes, Tasks, tasks, tasks_from_rows

SHAPES = {
    "gpipe": [(1, 1), (3, 5), (8, 8)],
    "1f1b": [(1, 3), (4, 2), (4, 9), (8, 24)],
    "interleaved": [(2, 4), (4, 12)],
    "zb1p": [(4, 8), (6, 7), (8, 20)],
    "zb2p": [(4, 8), (6, 7), (8, 20)],
    "dualpipe": [(2, 4), (4, 8), (8, 20), (16, 120)],
    "dualpipev": [(2, 4), (4, 9), (8, 20)],
}
NO_LOADS, NO_JITTER = np.ones((0, 0, 0, 0)), np.ones((0, 0))
SENT, MOVED = 58.7e6, 50e6
"""Bytes of a send and of a lane's collective."""


def stage(
    f: float, b_in: float, w: float, *, layer: int = 0, routed: float = 0.0, communicates: bool = False
) -> StageTimes:
    """A stage of one layer; `routed` is the part that grows with the load."""
    none = PhaseTime()

    def split(time: float) -> PhaseTime:
        return PhaseTime(time * (1 - routed), time * routed)

    times = LayerTimes(layer, communicates, none, split(f), none, split(b_in), none, split(w))
    return StageTimes((times,), (times,))


def traffic(
    steps: Tasks,
    collective_s: Mapping[str, float],
    *,
    fill: float = 0.5,
    send_s: float = 0.0,
    num_groups: int = 1,
    lanes: int = 1,
    slowdown: float = 1.0,
) -> Traffic:
    """Each lane has a NIC of its own, and something private that makes a collective as long as it is.

    `fill`: part of the NIC that a collective takes while it is alone.
    """
    num = len(steps) * num_groups * lanes
    kinds = [CLASSES.index(name) for name in ("nic", "nic", "copy_sms")]

    def rows(rank: int, group: int, what: int) -> np.ndarray:
        return what * num + (rank * num_groups + group) * lanes + np.arange(lanes)

    def collective(rank: int, group: int, time_s: float) -> GroupCollective:
        columns = Columns(lanes)
        for what, part in ((0, fill), (1, fill), (2, 1.0)):
            columns.add(rows(rank, group, what), part, part * time_s / MOVED)
        return GroupCollective(_flows(columns, MOVED), 0.0, slowdown)

    def send(source: int, target: int, group: int) -> Flows:
        columns = Columns(lanes)
        columns.add(rows(source, group, 0), 1.0, send_s / SENT)
        columns.add(rows(target, group, 1), 1.0, send_s / SENT)
        flows = _flows(columns, SENT)
        return side_by_side(flows)

    pairs = {tuple(pair) for pair in steps.messages[steps.receives[steps.receives >= 0], 3:5].tolist()}
    return Traffic(
        capacity=np.ones(3 * num),
        class_idx=np.repeat(kinds, num),
        collectives=[
            [
                {name: collective(rank, group, time_s) for name, time_s in collective_s.items()}
                for group in range(num_groups)
            ]
            for rank in range(len(steps))
        ],
        sends={(a, b): [send(a, b, group) for group in range(num_groups)] for a, b in sorted(pairs)},
    )


def _flows(columns: Columns, payload: float | Floats) -> Flows:
    num = columns.num_flows
    place = np.arange(num)
    return columns.pack(
        np.full(num, payload),
        share=np.full(num, payload),
        latency_s=np.zeros(num),
        party_flow=np.concatenate([place, place]),
        party_rank=np.concatenate([place, place]),
    )


def planned(
    pipeline: Pipeline,
    stages: Sequence[StageTimes],
    *,
    collective_s: float | Mapping[str, float] = 0.0,
    fill: float = 0.5,
    send_s: float = 0.0,
    slowdown: float = 1.0,
    blocking: bool = True,
    overlap: bool = True,
    speed: Floats | float = 1.0,
    num_groups: int = 1,
    lanes: int = 1,
    loads: Floats = NO_LOADS,
) -> StepPlan:
    """A step of stages by hand; `speed` is broadcast over [pipeline ranks, groups, lanes]."""
    times = (
        collective_s
        if isinstance(collective_s, Mapping)
        else dict.fromkeys(("dispatch", "combine"), collective_s)
    )
    steps = tasks(pipeline, stages, times.__getitem__, overlap=overlap)
    shape = (len(steps), num_groups, lanes)
    return StepPlan(
        steps,
        traffic(
            steps, times, fill=fill, send_s=send_s, num_groups=num_groups, lanes=lanes, slowdown=slowdown
        ),
        num_groups,
        lanes,
        np.broadcast_to(speed, shape).copy(),
        loads=loads,
        blocking=blocking,
    )


def run(
    pipeline: Pipeline, stages: Sequence[StageTimes], *, keep_tasks: int = 0, **how: object
) -> list[GroupRecord]:
    """The records of a step by hand."""
    ran: StepRun = run_step(planned(pipeline, stages, **how), keep_tasks=keep_tasks)  # type: ignore[arg-type]
    return ran.records


def end_s(records: Sequence[GroupRecord]) -> float:
    """When the last lane ends [s]."""
    return max(float(record.end_s.max()) for record in records)


def run_program(
    program: Program, time_s: Callable[[Node], Floats], lanes: int, *, barrier: bool
) -> GroupRecord:
    """One program of one group; `time_s` is what a node takes each lane, of a collective what each lane's bytes take."""
    loads = np.array([[[time_s(node)] for node in program]])
    timed, collectives = [], {}
    for i, node in enumerate(program):
        if node.collective is None:
            timed.append(node._replace(half="F", layer=i, routed_s=1.0))
            continue
        timed.append(node._replace(collective=str(i), barrier=barrier))
        columns = Columns(lanes)
        columns.add(np.arange(lanes), 1.0, 1.0)
        collectives[str(i)] = GroupCollective(_flows(columns, loads[0, i, 0]), 0.0)
    traffic_ = Traffic(np.ones(lanes), np.zeros(lanes, dtype=np.int64), [[collectives]], {})
    steps = tasks_from_rows([[PipelineTask("F", tuple(timed), 0, 0, False, (), ())]])
    plan = StepPlan(steps, traffic_, 1, lanes, np.ones((1, 1, lanes)), loads=loads)
    (record,) = run_step(plan).records
    return record
