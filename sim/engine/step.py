"""A training step in simulated time: cabled, folded, run by `step_loop`, and written down as records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.cluster.topology import Floats, Ints
from sim.engine import step_loop, step_transfers
from sim.engine.step_arrays import StepWork, laid_out
from sim.engine.step_lanes import StepLanes
from sim.engine.step_network import StepNetwork, network_of
from sim.engine.step_plan import Member, StepPlan
from sim.engine.step_records import GroupRecord, NodeRecords, TaskRecords
from sim.engine.step_templates import Templates
from sim.errors import InfeasibleError
from sim.schedule.flows import Flows
from sim.schedule.training import Tasks

COMPILED_FROM = 10_000
"""Nodes times lanes or flows from which numba's start, a third of a second, is worth it."""


@dataclass(frozen=True, slots=True)
class StepRun:
    """A step that ran.

    Parameters
    ----------
    records : list of GroupRecord
        Of every (pipeline rank, group); alike groups share theirs.
    network : StepNetwork
    bytes, used : float, [num_resources]
        What crossed each resource at mean loads, and the capacity that it used up [bytes].
    node_ends : float, [tracks, nodes, lane classes]
        When the nodes of each track's last task ended [s].
    member : Member
        Its part of the plan that ran.
    held : int, [tracks, nodes, ways]
        Classes of the resources that were full on the way of the last flow of each collective of a track's last task; empty
        where nobody asked.
    """

    records: list[GroupRecord]
    network: StepNetwork
    bytes: Floats
    used: Floats
    node_ends: Floats
    member: Member
    held: Ints

    def full_rows(self, flows: Flows, node: int, group: int, rank: int = 0) -> Ints:
        """Resources that were full on the way of the last flow of a group's collective, in the order of its `flows`."""
        folded = self.network.folded
        track = int(folded.group_class[group]) * len(self.network.collective) + self.member.first_rank + rank
        full = self.held[track, node]
        rows = flows.resource[np.isin(folded.resource[flows.resource], full[full >= 0])]
        return np.asarray(rows, dtype=np.int64)

    def lane_ends(self, group: int, rank: int = 0) -> Floats:
        """When the nodes of the last task of a group of a pipeline rank ended on each lane, [nodes, lanes] [s]."""
        folded = self.network.folded
        of_group = int(folded.group_class[group])
        track = of_group * len(self.network.collective) + self.member.first_rank + rank
        ends: Floats = self.node_ends[track]
        return ends[:, folded.lane_class[of_group][: self.member.lanes]]


def run_step(plan: StepPlan, *, keep_tasks: int = 0, network: StepNetwork | None = None) -> StepRun:
    """Run all tasks of all ranks; the optimizer is not part of it.

    Parameters
    ----------
    plan : StepPlan
    keep_tasks : int [count]
        Tasks of each kind and group whose nodes are kept.
    network : StepNetwork, optional
        Of another plan with the same traffic, lanes, speeds and loads, to save time.

    Returns
    -------
    StepRun

    Raises
    ------
    InfeasibleError
        Where bytes wait for a link without capacity.
    """
    (run,) = run_merged(plan, keep_tasks=keep_tasks, network=network)
    return run


def run_merged(
    plan: StepPlan, *, keep_tasks: int = 0, network: StepNetwork | None = None, keep_full: bool = False
) -> list[StepRun]:
    """Run all programs of a plan on one network, a run for each member; parameters and errors as of `run_step`.

    `keep_full` keeps what was full on the way of each collective's last flow.
    """
    network = network or network_of(plan)
    work, lanes, templates, net = laid_out(plan, network, keep_tasks, keep_full=keep_full)
    ended = _loop(work, lanes, templates)(work, lanes, templates, net)
    if ended == step_transfers.DEAD:
        raise InfeasibleError("bytes of the step wait forever: a link on their way has no capacity")
    if ended == step_transfers.STUCK and plan.conditions:
        raise InfeasibleError("the step never ends: a GPU or a link that fails in it does not come back")
    assert ended == step_transfers.DONE, "orders deadlock"
    return [_ran(plan, member, network, work, lanes, net.held) for member in plan.members]


def _loop(work: StepWork, lanes: StepLanes, templates: Templates) -> Callable[..., int]:
    """The compiled loop for large or many steps, plain Python for a few small programs of one track."""
    nodes = int(np.diff(work.programs)[work.tasks["program"]].sum())
    most = max(lanes.num_lanes, int(np.diff(templates.first).max()))
    size = nodes * most if len(work.tracks) == 1 else COMPILED_FROM
    loop: Callable[..., int] = step_loop.run.worth(size, COMPILED_FROM)
    return loop


# --- what is written down -----------------------------------------------------------------------------------


def _ran(
    plan: StepPlan, member: Member, network: StepNetwork, work: StepWork, lanes: StepLanes, held: Ints
) -> StepRun:
    folded = network.folded
    ranks = range(member.first_rank, member.first_rank + member.num_ranks)
    classes = np.unique(folded.group_class[: member.num_groups]).tolist()
    by_class = [
        {c: _group_record(plan, member, network, work, lanes, rank, c) for c in classes} for rank in ranks
    ]
    records = []
    for rank, of_rank in enumerate(by_class):
        for group in range(member.num_groups):
            own = of_rank[int(folded.group_class[group])]
            records.append(GroupRecord(rank, group, own.tasks, own.nodes, own.end_s))
    return StepRun(records, network, *_carried(plan.tasks, network, ranks), lanes.ends, member, held)


def _carried(tasks: Tasks, network: StepNetwork, ranks: range) -> tuple[Floats, Floats]:
    """Load of all transfers of some pipeline ranks on each resource: bytes, and capacity used up, [num_resources]."""
    times = np.zeros(len(network.templates.first) - 1)
    for rank in ranks:
        ran = np.bincount(
            tasks.program[tasks.first[rank] : tasks.first[rank + 1]], minlength=len(tasks.programs)
        )
        for (program, overlapped), often in zip(tasks.programs, ran.tolist(), strict=True):
            for name, num in Counter(node.collective for node in program).items() if often else ():
                if name is not None:
                    kernel = network.kernels.index(name)
                    times[network.collective[rank, :, kernel, int(overlapped)]] += often * num
    sent = tasks.messages[tasks.receives[tasks.receives >= 0]]
    pairs, counts = np.unique(sent[:, 3:5], axis=0, return_counts=True)
    for (source, target), count in zip(pairs.tolist(), counts.tolist(), strict=True):
        if source in ranks and (source, target) in network.message:
            times[network.message[source, target]] += count
    by_class = (times @ network.templates.wire, times @ network.templates.used)
    return by_class[0][network.folded.resource], by_class[1][network.folded.resource]


def _group_record(
    plan: StepPlan,
    member: Member,
    network: StepNetwork,
    work: StepWork,
    lanes: StepLanes,
    rank: int,
    of_group: int,
) -> GroupRecord:
    tasks, folded = plan.tasks, network.folded
    before = of_group * len(tasks.kind)
    i, j = tasks.first[rank : rank + 2].tolist()
    own = work.tasks[before + i : before + j]
    columns: dict[str, Any] = {
        name: own[name].copy() for name in ("start_s", "end_s", "exposed_s", "barrier_s", "host_s")
    }
    names: list[str] = []
    streams: list[str] = []
    numbers: list[int] = []
    kept = np.flatnonzero(own["keep"] >= 0).tolist()
    for task in kept:
        program = tasks.programs[tasks.program[i + task]][0]
        names += [node.name for node in program]
        streams += ["compute" if node.collective is None else "communication" for node in program]
        numbers += [task] * len(program)
    first = int(own["keep"][kept[0]]) if kept else 0
    start_s, end_s = work.node_times[:, first : first + len(names)].tolist()
    track = of_group * len(tasks) + rank
    return GroupRecord(
        pipeline_rank=rank,
        group=int(folded.groups[of_group]),
        tasks=TaskRecords(tasks.kind[i:j], tasks.microbatches[i:j], **columns),
        nodes=NodeRecords(names, streams, numbers, start_s, end_s),
        end_s=lanes.clock[track][folded.lane_class[of_group][: member.lanes]],
    )
