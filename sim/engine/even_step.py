"""A step whose ranks are all alike, as arrays for the compiled event loop, and what it leaves as records.

Everything that the loop of `step_compiled` touches is laid out here, as arrays of records: ranks, tasks, the nodes of all
programs, messages, *places* (one for everything that can be under way: the exchange of each pipeline rank, then each kind
of message to a rank) and NIC ports.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.cluster.topology import Floats
from sim.engine import step_compiled
from sim.engine.step_plan import ExchangeTimes, StepPlan
from sim.engine.step_records import GroupRecord, NodeRecords, TaskRecords
from sim.schedule.operations import KINDS, Ints
from sim.schedule.training import Tasks

Rows = npt.NDArray[np.void]

_I, _F = np.int32, np.float64
RANK = np.dtype(
    [
        ("first", _I),  # of its tasks
        ("last", _I),  # one past them
        ("task", _I),  # where it stands
        ("node", _I),
        ("phase", _I),
        ("clock", _F),  # end of the last task
        ("compute", _F),  # ends of the two streams
        ("comm", _F),
        ("exposed", _F),  # compute has waited in this task
        ("speed", _F),  # time factor
    ],
    align=True,
)
TASK = np.dtype(
    [
        ("program", _I),
        ("receive_f", _I),  # rows of messages, -1 for none
        ("receive_b", _I),
        ("send_f", _I),
        ("send_b", _I),
        ("keep", _I),  # where the times of its nodes go, -1 for nowhere
        ("start_s", _F),  # filled in by the loop, as the two below
        ("end_s", _F),
        ("exposed_s", _F),
    ],
    align=True,
)
NODE = np.dtype(
    [
        ("exchange", _I),  # place among the exchanges; -1 computes
        ("first_wait", _I),  # of the nodes it waits for
        ("last_wait", _I),  # one past them
        ("work_s", _F),  # compute at the mean load
        ("exposed_s", _F),  # reductions inside the layer
    ],
    align=True,
)
EXCHANGE = np.dtype([("alone_s", _F), ("fill", _F), ("nic_bytes", _F)], align=True)
MESSAGE = np.dtype(
    [
        ("source", _I),  # ranks
        ("target", _I),
        ("place", _I),
        ("next", _I),  # of its kind to its target, -1 after the last
        ("ready", _F),  # when its sides have posted; nan until the first has
        ("arrived", _F),  # nan until then
    ],
    align=True,
)
PLACE = np.dtype(
    [
        ("sends", _I),  # ports
        ("receives", _I),
        ("message", _I),  # row, of a message
        ("seen", np.bool_),  # while a group is gathered
        ("begun", _F),  # nan until it begins
        ("alone_s", _F),  # this and what follows: see `ports.Use`
        ("fill", _F),
        ("weight", _F),
        ("left", _F),
        ("since", _F),
        ("pace", _F),
        ("rising", _F),  # the next pace, while it is found
        ("rise", _F),  # pace per unit of level
    ],
    align=True,
)
PORT = np.dtype(
    [("num_users", _I), ("free", _F), ("slope", _F)], align=True
)  # the last two while paces are found


def run_even(
    plan: StepPlan, exchanges: Callable[[str, bool], ExchangeTimes], keep_tasks: int
) -> list[GroupRecord]:
    """`training.run_step` where all ranks of a stage are alike: one lane, one group, every exchange of a kernel the same."""
    tasks = plan.tasks
    work = _programs(tasks, exchanges)
    messages, posted, places = _messages(plan)
    num_ports = 2 * len(tasks)
    most_users = int(np.bincount(np.concatenate([places["sends"], places["receives"]])).max())
    rows = _tasks(tasks, work.first, keep_tasks)
    node_times = np.zeros((2, int(np.diff(work.first)[tasks.program[rows["keep"] >= 0]].sum())))
    done = step_compiled.run(
        _ranks(plan),
        rows,
        work.first,
        work.nodes,
        work.waits,
        work.exchanges,
        np.zeros((len(tasks), int(np.diff(work.first).max(initial=0)))),
        node_times,
        messages,
        posted,
        plan.blocking,
        places,
        np.zeros(num_ports, dtype=PORT),
        np.zeros((num_ports, most_users), dtype=_I),
        np.zeros((2, len(places)), dtype=_I),
        *_timers(len(places)),
    )
    assert done == step_compiled.DONE, "orders deadlock"
    return [_group_record(tasks, rows, node_times, rank) for rank in range(len(tasks))]


# --- what is to be done -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Programs:
    """The nodes of all programs, one program after another."""

    first: Ints  # [num_programs + 1]
    nodes: Rows
    waits: Ints  # nodes that a node waits for, counted from the program's first
    exchanges: Rows


def _programs(tasks: Tasks, exchange: Callable[[str, bool], ExchangeTimes]) -> _Programs:
    kinds: dict[tuple[str, bool], int] = {}
    nodes: list[tuple[float, ...]] = []
    waits: list[int] = []
    for program, overlapped in tasks.programs:
        for node in program:
            kind = -1
            if node.exchange is not None:
                kind = kinds.setdefault((node.exchange, overlapped), len(kinds))
            first = len(waits)
            waits += node.waits
            nodes.append((kind, first, len(waits), node.fixed_s + node.routed_s, node.exposed_s))
    times = [exchange(*kind) for kind in kinds]
    return _Programs(
        first=np.cumsum([0, *(len(program) for program, _ in tasks.programs)], dtype=_I),
        nodes=np.array(nodes, dtype=NODE),
        waits=np.array(waits, dtype=_I),
        exchanges=np.array([(one.longest_s, one.fill, one.nic_bytes) for one in times], dtype=EXCHANGE),
    )


def _ranks(plan: StepPlan) -> Rows:
    first = plan.tasks.first
    ranks = np.zeros(len(plan.tasks), dtype=RANK)
    ranks["first"] = ranks["task"] = first[:-1]
    ranks["last"] = first[1:]
    ranks["speed"] = [float(np.max(groups[0])) for groups in plan.speed]
    return ranks


def _tasks(tasks: Tasks, node_first: Ints, keep_tasks: int) -> Rows:
    rows = np.zeros(len(tasks.kind), dtype=TASK)
    rows["program"] = tasks.program
    rows["receive_f"], rows["receive_b"] = tasks.receives.T
    rows["send_f"], rows["send_b"] = tasks.sends.T
    keep = np.zeros(len(rows), dtype=np.bool_)  # the first of each kind on each rank
    for i, j in itertools.pairwise(tasks.first.tolist()):
        for kind in range(len(KINDS)):
            keep[i + np.flatnonzero(tasks.kind[i:j] == kind)[:keep_tasks]] = True
    num_nodes = np.where(keep, np.diff(node_first)[tasks.program], 0)
    rows["keep"] = np.where(keep, np.cumsum(num_nodes) - num_nodes, -1)
    return rows


def _messages(plan: StepPlan) -> tuple[Rows, Ints, Rows]:
    """Messages, the rows of those posted before all else (the first of each kind to each target), and all places."""
    tasks, num_ranks = plan.tasks, len(plan.tasks)
    half, stage, _, source, target = tasks.messages.T
    # In the order in which their targets take them, kind by kind and target by target.
    row = tasks.receives[tasks.receives >= 0]
    kind = 2 * (stage[row].astype(np.int64) * num_ranks + target[row]) + half[row]
    order = np.argsort(kind, kind="stable")
    row, kind = row[order], kind[order]
    new = np.diff(kind, prepend=-1) > 0
    posted = row[new]
    messages = np.zeros(len(tasks.messages), dtype=MESSAGE)
    messages["source"], messages["target"] = source, target
    messages["ready"] = messages["arrived"] = np.nan
    messages["place"][row] = num_ranks + np.cumsum(new) - 1
    messages["next"][row[:-1]] = np.where(new[1:], -1, row[1:])
    messages["next"][row[-1:]] = -1
    places = np.zeros(num_ranks + len(posted), dtype=PLACE)
    places["sends"] = 2 * np.concatenate([np.arange(num_ranks), source[posted]])
    places["receives"] = 2 * np.concatenate([np.arange(num_ranks), target[posted]]) + 1
    places["begun"] = np.nan
    send = places[num_ranks:]
    send["alone_s"], send["fill"], send["weight"] = plan.send_s, 1.0, plan.send_bytes
    return messages, posted, places


def _timers(num_places: int) -> tuple[Floats, Ints]:
    """When something happens at each place (filled up to a power of two), and the winner of each pair, pair of pairs, ...

    The winner of all is the second entry; while no timer is set, the first place of each subtree.
    """
    width = size = 1 << max(1, (num_places - 1).bit_length())
    winner = np.zeros(2 * size, dtype=_I)
    while width >= 1:
        winner[width : 2 * width] = np.arange(width) * (size // width)
        width //= 2
    return np.full(size, np.inf), winner


# --- what is written down -----------------------------------------------------------------------------------


def _group_record(tasks: Tasks, rows: Rows, node_times: Floats, rank: int) -> GroupRecord:
    i, j = tasks.first[rank : rank + 2].tolist()
    mine = rows[i:j]
    columns: dict[str, Any] = {name: mine[name].copy() for name in ("start_s", "end_s", "exposed_s")}
    nodes: list[tuple[str, str, int]] = []
    kept = np.flatnonzero(mine["keep"] >= 0).tolist()
    for task in kept:
        nodes += [
            (node.name, "compute" if node.exchange is None else "communication", task)
            for node in tasks.programs[tasks.program[i + task]][0]
        ]
    first = int(mine["keep"][kept[0]]) if kept else 0
    names, streams, numbers = zip(*nodes, strict=True) if nodes else ((), (), ())
    start_s, end_s = node_times[:, first : first + len(nodes)].tolist()
    return GroupRecord(
        pipeline_rank=rank,
        group=0,
        tasks=TaskRecords(tasks.kind[i:j], tasks.microbatches[i:j], barrier_s=np.zeros(j - i), **columns),
        nodes=NodeRecords(names, streams, numbers, start_s, end_s),
        end_s=columns["end_s"][-1:].copy(),
    )
