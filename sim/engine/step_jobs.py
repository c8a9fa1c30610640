"""Several programs on one network, each of its own shape: merged into one plan, run together, and told apart again.

Pipeline ranks of the programs stand one after the other; groups and lanes that a program has fewer of than another are not
there: they weigh nothing and hold nobody up. A program may begin later than the others, and one that has ended leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sim.cluster.topology import Cluster, Floats
from sim.engine.step import StepRun, run_merged
from sim.engine.step_plan import Conditions, GroupCollective, Member, StepPlan, Traffic
from sim.schedule.flows import Flows
from sim.schedule.operations import CODES
from sim.schedule.programs import Node, Program
from sim.schedule.training import Tasks


def run_jobs(
    cluster: Cluster, plans: Sequence[StepPlan], begins_s: Sequence[float], *, keep_tasks: int = 0
) -> list[StepRun]:
    """Run several plans on one network, a run for each; times from its own begin on, bytes its own.

    The traffic of all is cabled on the cluster. InfeasibleError where bytes wait for a link without capacity.
    """
    later = [_later(plan, begin) for plan, begin in zip(plans, begins_s, strict=True)]
    merged = merge(cluster, later)
    runs = run_merged(merged, keep_tasks=keep_tasks, keep_full=True)
    return [_since(run, begin) if begin > 0.0 else run for run, begin in zip(runs, begins_s, strict=True)]


def _later(plan: StepPlan, begin_s: float) -> StepPlan:
    """The plan with a task in front of each pipeline rank that takes so long."""
    if begin_s <= 0.0:
        return plan
    tasks = plan.tasks
    wait: Program = (Node("wait", "B", -1, None, begin_s),)
    at = tasks.first[:-1]
    none = np.full((len(at), 2), -1, dtype=np.int32)

    def insert(column: Any, values: Any) -> Any:
        return np.insert(column, at, values, axis=0)

    conditions = plan.conditions
    if conditions is not None:
        held = np.full((len(conditions.fixed_s), 1), begin_s)
        fixed, routed = (
            np.concatenate(parts, axis=1)
            for parts in ((conditions.fixed_s, held), (conditions.routed_s, 0.0 * held))
        )
        conditions = replace(conditions, fixed_s=fixed, routed_s=routed)
    own = Tasks(
        first=(tasks.first + np.arange(len(tasks.first))).astype(np.int32),
        kind=np.insert(tasks.kind, at, CODES["W"]),
        microbatches=insert(tasks.microbatches, none),
        program=insert(tasks.program, len(tasks.programs)),
        receives=insert(tasks.receives, none),
        sends=insert(tasks.sends, none),
        programs=(*tasks.programs, (wait, False)),
        messages=tasks.messages,
    )
    return replace(plan, tasks=own, speed=np.ones_like(plan.speed), conditions=conditions)


def _since(run: StepRun, begin_s: float) -> StepRun:
    """Records of a plan that waited first, without the wait, counted from its begin."""
    records = []
    for record in run.records:
        own = {
            name: getattr(record.tasks, name)[1:]
            for name in ("kind", "microbatches", "exposed_s", "barrier_s", "host_s")
        }
        times = {name: getattr(record.tasks, name)[1:] - begin_s for name in ("start_s", "end_s")}
        nodes = record.nodes
        kept = [i for i, name in enumerate(nodes.name) if name != "wait"]
        shown = replace(
            nodes,
            **{name: [getattr(nodes, name)[i] for i in kept] for name in ("name", "stream")},
            task=[nodes.task[i] - 1 for i in kept],
            start_s=[nodes.start_s[i] - begin_s for i in kept],
            end_s=[nodes.end_s[i] - begin_s for i in kept],
        )
        tasks = replace(record.tasks, **own, **times)
        records.append(replace(record, tasks=tasks, nodes=shown, end_s=record.end_s - begin_s))
    return replace(run, records=records, node_ends=run.node_ends - begin_s)


def merge(cluster: Cluster, plans: Sequence[StepPlan]) -> StepPlan:
    """Put plans, none of them merged, together into one."""
    num_groups, lanes = (max(getattr(plan, name) for plan in plans) for name in ("num_groups", "lanes"))
    members: list[Member] = []
    ranks = tasks = rows = 0
    for plan in plans:
        (alone,) = plan.members
        members.append(replace(alone, first_rank=ranks, first_task=tasks, first_jitter=rows))
        ranks, tasks, rows = ranks + alone.num_ranks, tasks + alone.num_tasks, rows + alone.num_jitter
    speed = np.ones((ranks, num_groups, lanes))
    for member, plan in zip(members, plans, strict=True):
        speed[member.ranks, : plan.num_groups, : plan.lanes] = plan.speed
    loads, layers = _loads(plans, num_groups, lanes)
    return StepPlan(
        _tasks(plans, members, layers),
        _traffic(cluster, plans, members, lanes),
        num_groups,
        lanes,
        speed,
        loads=loads,
        jitter=np.concatenate([_padded(plan.jitter, lanes) for plan in plans]) if rows else np.ones((0, 0)),
        conditions=_conditions(cluster, plans, members, (ranks, num_groups, lanes)),
        merged=tuple(members),
    )


def _padded(columns: Floats, lanes: int) -> Floats:
    """Columns over lanes, and ones for those that are not there."""
    missing = [(0, 0)] * (columns.ndim - 1) + [(0, lanes - columns.shape[-1])]
    padded: Floats = np.pad(columns, missing, constant_values=1.0)
    return padded


def _loads(plans: Sequence[StepPlan], num_groups: int, lanes: int) -> tuple[Floats, list[int]]:
    """Loads of all plans, one behind the other along the layers, and the first layer of each; ones for a plan without."""
    first, drawn = [], [plan for plan in plans if plan.loads.size]
    if not drawn:
        return np.ones((0, 0, 0, 0)), [0] * len(plans)
    groups = num_groups if any(len(plan.loads) > 1 for plan in drawn) else 1
    microbatches = max(
        int(max(plan.tasks.microbatches.max(initial=0) + 1, plan.loads.shape[2])) for plan in plans
    )
    parts, layers = [], 0
    for plan in plans:
        first.append(layers)
        part = plan.loads if plan.loads.size else np.ones((1, _num_layers(plan), 1, 1))
        whole = np.ones((groups, part.shape[1], microbatches, lanes))
        own = plan.num_groups if len(part) > 1 else groups
        whole[:own, :, : part.shape[2], : part.shape[3]] = part
        parts.append(whole)
        layers += part.shape[1]
    return np.concatenate(parts, axis=1), first


def _num_layers(plan: StepPlan) -> int:
    return max((node.layer for program, _ in plan.tasks.programs for node in program), default=0) + 1


_COLUMNS = ("kind", "microbatches", "program", "receives", "sends", "messages")


def _tasks(plans: Sequence[StepPlan], members: Sequence[Member], layers: Sequence[int]) -> Tasks:
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    first, programs = [np.zeros(1, dtype=np.int32)], list[tuple[Program, bool]]()
    messages = 0
    for plan, member, layer in zip(plans, members, layers, strict=True):
        own = plan.tasks
        first.append(own.first[1:] + member.first_task)
        for name in ("kind", "microbatches"):
            columns[name].append(getattr(own, name))
        columns["program"].append(own.program + len(programs))
        for name in ("receives", "sends"):
            rows = getattr(own, name)
            columns[name].append(np.where(rows >= 0, rows + messages, -1))
        moved = own.messages.copy()
        if len(moved):
            moved[:, 3:5] += np.where(moved[:, 3:5] >= 0, member.first_rank, 0)
            columns["messages"].append(moved)
        messages += len(moved)
        programs += [
            (tuple(node._replace(layer=node.layer + layer) for node in program) if layer else program, beside)
            for program, beside in own.programs
        ]
    if not columns["messages"]:
        columns["messages"] = [np.zeros((0, 5), dtype=np.int32)]
    joined: dict[str, Any] = {name: np.concatenate(parts) for name, parts in columns.items()}
    return Tasks(first=np.concatenate(first).astype(np.int32), programs=tuple(programs), **joined)


def _traffic(cluster: Cluster, plans: Sequence[StepPlan], members: Sequence[Member], lanes: int) -> Traffic:
    collectives: list[Sequence[dict[str, GroupCollective]]] = []
    sends: dict[tuple[int, int], list[Flows]] = {}
    for plan, member in zip(plans, members, strict=True):
        collectives += [[dict(group) for group in rank] for rank in plan.traffic.collectives]
        for (source, target), groups in plan.traffic.sends.items():
            ends = (source + member.first_rank, target + member.first_rank)
            sends[ends] = [_numbered_on(flows, plan.lanes, lanes) for flows in groups]
    return Traffic(cluster.capacity, cluster.class_idx, collectives, sends)


def _numbered_on(flows: Flows, own: int, lanes: int) -> Flows:
    """Sends whose receivers are numbered on from as many lanes as the merged plan has."""
    ranks = flows.party_rank
    return replace(flows, party_rank=np.where(ranks >= own, ranks + lanes - own, ranks))


def _conditions(
    cluster: Cluster, plans: Sequence[StepPlan], members: Sequence[Member], shape: tuple[int, int, int]
) -> Conditions | None:
    known = [plan.conditions for plan in plans if plan.conditions is not None]
    if not known and not len(cluster.instants):
        return None
    instants = np.unique(np.concatenate([cluster.instants, *(own.instants for own in known)]))
    begins = np.concatenate([[0.0], instants])
    num_variants = max((len(own.fixed_s) for own in known), default=1)
    variant = np.zeros((len(begins), *shape), dtype=np.int64)
    times: list[list[Floats]] = [[], []]
    for plan, member in zip(plans, members, strict=True):
        nodes = [node for program, _ in plan.tasks.programs for node in program]
        alone = np.array([[node.fixed_s for node in nodes], [node.routed_s for node in nodes]])
        own = plan.conditions
        if own is not None:
            now = np.searchsorted(own.instants, begins, side="right")
            variant[:, member.ranks, : plan.num_groups, : plan.lanes] = own.variant[now]
        for kind in range(2):
            rows = alone[kind][None] if own is None else (own.fixed_s, own.routed_s)[kind]
            times[kind].append(rows[np.minimum(np.arange(num_variants), len(rows) - 1)])
    fixed, routed = (np.concatenate(part, axis=1) for part in times)
    capacity = np.array([cluster.capacity_at(begin) for begin in begins.tolist()])
    return Conditions(instants, capacity, variant, fixed, routed)
