"""One optimizer step in simulated time: rank groups run their tasks, exchange, and send to one another.

A rank group is the ranks of one EP group at one pipeline rank; it is one process whose clocks are vectors over its ranks
(lanes): compute runs at each lane's own pace, an all-to-all starts by a barrier when the slowest lane is there, and ends
for each lane when its own bytes have come. Waiting at that barrier is skew, not a constant. Groups meet in pipeline
sends, lane to lane, and on their NICs (`ports`).

Sends follow the published DualPipe code (deepseek-ai/DualPipe @3da1bba): what an operation produced goes out with the
receives that come next, a transfer starts when both sides have posted (rendezvous), and a rank waits for its sends
before it starts the next operation. A receiver has one buffer posted ahead for each kind of message it gets (F or
B of each of its stages), so the next microbatch may arrive while this one is computed. With `blocking=False` senders
never wait.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator
from dataclasses import dataclass, field, fields

import numpy as np
import simpy
from simpy.events import Event

from sim.cluster.topology import Floats
from sim.engine.ports import Ports
from sim.engine.step_plan import StepPlan
from sim.engine.step_records import GroupRecord, NodeRecord, NodeRecords, TaskRecords
from sim.schedule.training import Message, PipelineTask, Tasks


@dataclass(slots=True)
class _Running:
    """A rank group's step so far; see `step_records` for the columns."""

    rank: int
    group: int
    tasks: list[tuple[float, float, float, float]] = field(default_factory=list)
    nodes: list[NodeRecord] = field(default_factory=list)
    kept: Counter[str] = field(default_factory=Counter)  # tasks of each kind whose nodes are kept
    end_s: Floats = field(default_factory=lambda: np.zeros(1))

    def record(self, tasks: Tasks) -> GroupRecord:
        """Frozen."""
        mine = slice(tasks.first[self.rank], tasks.first[self.rank + 1])
        times = np.array(self.tasks).reshape(-1, 4).T
        columns = [[getattr(node, one.name) for node in self.nodes] for one in fields(NodeRecord)]
        return GroupRecord(
            self.rank,
            self.group,
            TaskRecords(tasks.kind[mine], tasks.microbatches[mine], *times),
            NodeRecords(*columns),
            self.end_s,
        )


@dataclass(slots=True)
class _Meeting:
    """A message's two sides; the transfer starts when both have posted."""

    event: Event
    clocks: list[Floats] = field(default_factory=list)


class _Step:
    def __init__(self, plan: StepPlan, keep_tasks: int) -> None:
        self.env = simpy.Environment()
        self.plan, self.keep_tasks = plan, keep_tasks
        self.ports = Ports(self.env)
        self.meetings: dict[tuple[int, Message], _Meeting] = {}

    def port(self, pipeline_rank: int, group: int, receives: bool) -> int:
        return 2 * (pipeline_rank * self.plan.num_groups + group) + receives

    def post(self, group: int, message: Message, clock: Floats) -> Event:
        """One side of a message is ready; the event's value is when each lane's bytes have come."""
        key = (group, message)
        meeting = self.meetings.get(key)
        if meeting is None:
            meeting = self.meetings[key] = _Meeting(self.env.event())
        meeting.clocks.append(clock)
        if len(meeting.clocks) == 2:
            self.env.process(self.send(group, message, meeting))
            del self.meetings[key]
        return meeting.event

    def send(self, group: int, message: Message, meeting: _Meeting) -> Generator[Event, object, None]:
        ready = np.maximum(*meeting.clocks)
        begin = _mean(ready)
        if begin > self.env.now:
            yield self.env.timeout(begin - self.env.now)
        begun = self.env.now
        ports = (self.port(message.source, group, False), self.port(message.target, group, True))
        yield self.ports.use(self.plan.send_s, 1.0, self.plan.send_bytes, ports)
        meeting.event.succeed(ready + (self.env.now - begun))

    def group(self, record: _Running, tasks: tuple[PipelineTask, ...]) -> Generator[Event, object, None]:
        group = record.group
        clock: Floats = np.zeros(self.plan.lanes)
        coming: dict[tuple[str, int], deque[Message]] = {}
        for task in tasks:
            for message in task.receives:
                coming.setdefault((message.half, message.stage), deque()).append(message)
        posted = {queue[0]: self.post(group, queue[0], clock) for queue in coming.values()}
        leaving: tuple[Message, ...] = ()
        outstanding: list[Event] = []
        for number, task in enumerate(tasks):
            outstanding = [self.post(group, message, clock) for message in leaving]
            waits = outstanding if self.plan.blocking else []
            waits = waits + [posted.pop(message) for message in task.receives]
            for wait in waits:
                arrived = yield wait
                assert isinstance(arrived, np.ndarray)
                clock = np.maximum(clock, arrived)
            for message in task.receives:
                queue = coming[message.half, message.stage]
                queue.popleft()
                if queue:
                    posted[queue[0]] = self.post(group, queue[0], clock)
            clock = yield from self.run(record, number, task, clock)
            leaving = task.sends
        for message in leaving:
            self.post(group, message, clock)
        record.end_s = clock

    def run(
        self, record: _Running, number: int, task: PipelineTask, clock: Floats
    ) -> Generator[Event, object, Floats]:
        costs, rank, group = self.plan.costs, record.rank, record.group
        speed = self.plan.speed[rank][group]
        ports = (self.port(rank, group, False), self.port(rank, group, True))
        compute = comm = clock
        ends: list[Floats] = []
        exposed = barrier = np.zeros(self.plan.lanes)
        record.kept[task.kind] += 1
        keep = record.kept[task.kind] <= self.keep_tasks
        for node in task.program:
            microbatch = task.microbatch_f if node.half == "F" else task.microbatch_b
            free = compute if node.exchange is None else comm
            ready = free
            start: Floats | float
            for i in node.waits:
                if ends[i] is not ready:  # most nodes wait for the one before them
                    ready = np.maximum(ready, ends[i])
            if node.exchange is None:
                start = ready
                if ready is not free:
                    exposed = exposed + (ready - free)
                load = costs.load(group, node.layer, microbatch) if node.routed_s else 1.0
                compute = ready + (node.fixed_s + node.routed_s * load) * (speed * costs.jitter(group))
                if node.exposed_s:
                    compute = compute + node.exposed_s
                    exposed = exposed + node.exposed_s
                ends.append(compute)
            else:
                begin = float(ready.max())
                start = begin
                barrier = barrier + (begin - ready)
                if begin > self.env.now:
                    yield self.env.timeout(begin - self.env.now)
                begin = self.env.now
                times = costs.exchange(node.exchange, task.overlapped, group, node.layer, microbatch)
                yield self.ports.use(times.longest_s, times.fill, times.nic_bytes, ports)
                stretch = (self.env.now - begin) / times.longest_s if times.longest_s else 1.0
                comm = begin + times.alone_s * stretch
                ends.append(comm)
            if keep:
                stream = "compute" if node.exchange is None else "communication"
                record.nodes.append(NodeRecord(node.name, stream, number, _mean(start), _mean(ends[-1])))
        end = np.maximum(compute, comm)
        exposed = exposed + (end - compute)
        record.tasks.append((_mean(clock), _mean(end), _mean(exposed), _mean(barrier)))
        return end


def _mean(lanes: Floats | float) -> float:
    return lanes if isinstance(lanes, float) else float(np.add.reduce(lanes)) / len(lanes)


def run_step(plan: StepPlan, *, keep_tasks: int = 0) -> list[GroupRecord]:
    """Run all tasks of all rank groups; the optimizer is not part of it.

    `keep_tasks`: of how many tasks of each kind and group to keep the nodes. Returns a record per (pipeline rank, group).
    A step whose ranks are all alike is run by `even_step`, where numba can be had; every other one by `run_events`.
    """
    exchanges = plan.costs.even() if plan.lanes == plan.num_groups == 1 else None
    if exchanges is not None:
        try:
            from sim.engine.even_step import run_even
        except ImportError:
            pass
        else:
            return run_even(plan, exchanges, keep_tasks)
    return run_events(plan, keep_tasks=keep_tasks)


def run_events(plan: StepPlan, *, keep_tasks: int = 0) -> list[GroupRecord]:
    """`run_step` event by event, whatever the lanes, groups and costs; the oracle of `even_step`."""
    step = _Step(plan, keep_tasks)
    running = [_Running(rank, group) for rank in range(len(plan.tasks)) for group in range(plan.num_groups)]
    rows = [plan.tasks[rank] for rank in range(len(plan.tasks))]
    processes = [step.env.process(step.group(record, rows[record.rank])) for record in running]
    step.env.run(until=step.env.all_of(processes))
    return [record.record(plan.tasks) for record in running]
