"""A training step as the arrays that `step_loop` runs on: tracks, tasks, nodes, messages, lanes, and what is under way."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.cluster.topology import NONE, Floats, Ints
from sim.engine import sharing
from sim.engine.step_lanes import StepLanes, lanes_of
from sim.engine.step_network import StepNetwork
from sim.engine.step_plan import StepPlan
from sim.engine.step_rows import MESSAGE, NODE, TASK, TRACK, Rows
from sim.engine.step_templates import Templates
from sim.engine.step_transfers import WAYS
from sim.schedule.operations import KINDS
from sim.schedule.programs import Node
from sim.schedule.training import Tasks


class StepWork(NamedTuple):
    """Work to be done, and when it was."""

    tracks: Rows
    tasks: Rows
    programs: Ints  # [num_programs + 1], where each one's nodes begin
    nodes: Rows
    waits: Ints  # nodes that a node waits for, counted from its program's first
    templates: Ints  # [num_tracks, kernels, 2]
    messages: Rows
    posted: Ints  # messages posted before all else
    node_times: Floats  # [2, kept nodes], start and end


class Net(NamedTuple):
    """Transfers under way: places of collectives, one a track, then of each kind of message to a track."""

    capacity: Floats  # now
    capacities: Floats  # [conditions, num_resources]
    pending: Ints  # [1], instants still to come
    begun: Floats  # [num_places], nan before
    since: Floats  # when its flows were last brought up to date
    active: npt.NDArray[np.bool_]
    lazy: npt.NDArray[np.bool_]  # alone so far, its flows not written out
    alone_s: Floats  # [num_templates], time of one alone, -1 until known
    alone_rate: Floats  # [flows of all templates]
    alone_end: Floats  # [flows of all templates], after its start
    template: Ints
    message: Ints
    left_flows: Ints
    near_first: Ints  # [num_places + 1]
    near: Ints  # places that share a resource which could fill
    seen: npt.NDArray[np.bool_]
    solved: Ints  # [num_places + 1], the event at which rates were last found; last, the present event
    island: Ints
    woken: Ints
    when: Floats  # timers
    winner: Ints
    left: Floats  # [flows of all templates]
    rate: Floats
    share: Floats
    finish: Floats
    bottleneck: Ints
    line: Floats  # [entries of all templates]
    crossings: sharing.Crossings
    first_bundle: Ints  # [num_templates + 1], the bundles of each
    bundle: npt.NDArray[np.int32]  # [entries of all templates]
    flows: Ints  # of a solution
    bundles: Ints
    scratch: sharing.Scratch
    used: Floats  # [num_resources]
    full: npt.NDArray[np.bool_]  # at the last solution that it was part of
    single: npt.NDArray[np.bool_]  # [num_places], of itself alone was its last solution
    noted: Ints  # [num_places, ways], of the transfer that ended last, see `step_transfers.note_full`
    held: Ints  # [num_tracks, most nodes, ways]; empty where nobody asks


def laid_out(
    plan: StepPlan, network: StepNetwork, keep_tasks: int, *, keep_full: bool = False
) -> tuple[StepWork, StepLanes, Templates, Net]:
    """Lay out everything that the loop touches; nodes' times of `keep_tasks` of each kind and track are kept."""
    tasks, folded = plan.tasks, network.folded
    num_ranks, num_classes = len(tasks), len(folded.groups)
    first, nodes, waits = _programs(tasks, network.kernels)
    rows, node_times = _tasks(tasks, first, keep_tasks, num_classes)
    messages, posted = _messages(tasks, network)
    templates = _one_each(network.templates, messages)
    num_tracks = num_ranks * num_classes
    tracks = np.zeros(num_tracks, dtype=TRACK)
    number = np.arange(num_tracks)
    rank, of_group = number % num_ranks, number // num_ranks
    tracks["first"] = tasks.first[rank] + of_group * len(tasks.kind)
    tracks["last"] = tasks.first[rank + 1] + of_group * len(tasks.kind)
    tracks["task"] = tracks["first"]
    tracks["of_group"] = of_group
    for member in plan.members:
        own = member.holds(rank)
        drawn = folded.groups[of_group[own]] if member.draws else np.zeros(own.sum(), dtype=np.int64)
        tracks["blocking"][own] = member.blocking
        tracks["number_drawn"][own] = rank[own] - member.first_rank + drawn * member.num_ranks
        before = of_group[own] * len(tasks.kind) + member.first_task
        tracks["tasks_drawn"][own] = drawn * member.num_tasks - before
        tracks["first_jitter"][own], tracks["num_jitter"][own] = member.first_jitter, member.num_jitter
    tracks["draws"], whole = lanes_of(plan, folded, rank, of_group, first, nodes, len(messages))
    collective = network.collective[rank, of_group]
    work = StepWork(tracks, rows, first, nodes, waits, collective, messages, posted, node_times)
    net = _net(templates, work, keep_full)
    # Rows of records, whose fields plain Python reads by name too.
    named = {name: getattr(work, name).view(np.recarray) for name in ("tracks", "tasks", "nodes", "messages")}
    return work._replace(**named), whole, templates, net


def _programs(tasks: Tasks, kernels: tuple[str, ...]) -> tuple[Ints, Rows, Ints]:
    """Offsets of each program's nodes, the nodes of all, and what they wait for."""
    sizes = [len(program) for program, _ in tasks.programs]
    nodes = [node for program, _ in tasks.programs for node in program]
    column = dict(zip(Node._fields, zip(*nodes, strict=True), strict=True)) if nodes else {}
    rows = np.zeros(len(nodes), dtype=NODE)
    if nodes:
        number: dict[str | None, int] = {None: NONE} | {name: i for i, name in enumerate(kernels)}
        rows["kernel"] = [number[name] for name in column["collective"]]
        rows["beside"] = np.repeat([overlapped for _, overlapped in tasks.programs], sizes)
        rows["forward"] = [half == "F" for half in column["half"]]
        rows["last_wait"] = np.cumsum([len(waits) for waits in column["waits"]])
        rows["first_wait"][1:] = rows["last_wait"][:-1]
        for name in ("barrier", "layer", "launches", "syncs", "fixed_s", "routed_s", "exposed_s", "held_s"):
            rows[name] = column[name]
    waits = [*itertools.chain.from_iterable(column.get("waits", ()))]
    return np.cumsum([0, *sizes]), rows, np.array(waits, dtype=np.int64)


def _tasks(tasks: Tasks, node_first: Ints, keep_tasks: int, num_classes: int) -> tuple[Rows, Floats]:
    """The tasks of all tracks, and room for the times of the nodes that are kept."""
    rows = np.zeros(len(tasks.kind), dtype=TASK)
    rows["program"] = tasks.program
    rows["forward"], rows["backward"] = tasks.microbatches.T
    keep = np.zeros(len(rows), dtype=np.bool_)  # the first of each kind on each rank
    for i, j in itertools.pairwise(tasks.first.tolist()):
        for kind in range(len(KINDS)):
            keep[i + np.flatnonzero(tasks.kind[i:j] == kind)[:keep_tasks]] = True
    rows = np.tile(rows, num_classes)
    keep = np.tile(keep, num_classes)
    for names, columns in ((("receive_f", "receive_b"), tasks.receives), (("send_f", "send_b"), tasks.sends)):
        for name, column in zip(names, columns.T, strict=True):
            of_class = column[None] + np.arange(num_classes)[:, None] * len(tasks.messages)
            rows[name] = np.where(column >= 0, of_class, -1).ravel()
    num_nodes = np.where(keep, np.diff(node_first)[rows["program"]], 0)
    rows["keep"] = np.where(keep, np.cumsum(num_nodes) - num_nodes, -1)
    return rows, np.zeros((2, int(num_nodes.sum())))


def _messages(tasks: Tasks, network: StepNetwork) -> tuple[Rows, Ints]:
    """Messages of all tracks with their places, and those posted before all else (the first of each kind to each track)."""
    num_ranks, num_classes = len(tasks), len(network.folded.groups)
    half, stage, _, source, target = tasks.messages.T
    # In the order in which their targets take them, kind by kind and target by target.
    row = tasks.receives[tasks.receives >= 0]
    kind = 2 * (stage[row].astype(np.int64) * num_ranks + target[row]) + half[row]
    order = np.argsort(kind, kind="stable")
    row, kind = row[order], kind[order]
    new = np.diff(kind, prepend=-1) > 0
    messages = np.zeros((num_classes, len(tasks.messages)), dtype=MESSAGE)
    messages["next"] = -1
    of_class = np.arange(num_classes)[:, None]
    messages["source"], messages["target"] = source + of_class * num_ranks, target + of_class * num_ranks
    kinds = int(new.sum())
    messages["place"][:, row] = num_ranks * num_classes + np.cumsum(new) - 1 + of_class * kinds
    following = np.where(new[1:], -1, row[1:] + of_class * len(tasks.messages))
    messages["next"][:, row[:-1]] = following
    templates = np.zeros((num_ranks, num_ranks, num_classes), dtype=np.int64)
    for (a, b), numbers in network.message.items():
        templates[a, b] = numbers
    messages["template"][:, row] = templates[source[row], target[row]].T
    posted = row[new] + of_class * len(tasks.messages)
    return messages.ravel(), posted.ravel()


def _one_each(templates: Templates, messages: Rows) -> Templates:
    """Templates of which each serves one place alone, so that their flows can be those under way there."""
    pairs, which = np.unique(
        messages["place"] * len(templates.fixed_s) + messages["template"], return_inverse=True
    )
    template = pairs % len(templates.fixed_s)
    again = np.ones(len(template), dtype=np.bool_)
    again[np.unique(template, return_index=True)[1]] = False
    template[again], copied = len(templates.fixed_s) + np.arange(again.sum()), template[again]
    messages["template"] = template[which]
    return templates.repeated(copied)


def _net(t: Templates, work: StepWork, keep_full: bool) -> Net:
    num_tracks, num_nodes = len(work.tracks), int(np.diff(work.programs).max(initial=0))
    num_places = num_tracks + len(work.posted)
    # Of each place the templates that it may ever have.
    pairs = [(track, template) for track, own in enumerate(work.templates) for template in own.ravel()]
    pairs += [(int(m["place"]), int(m["template"])) for m in work.messages[work.posted]]
    near_first, near = _near(pairs, t.resource, t.entry[t.first], num_places, t.capacity.shape[1])
    crossings, first_bundle, bundle = _crossings(t)
    num_flows, num_bundles = len(t.payload), len(crossings.resource)
    when, winner = _timers(num_places)
    return Net(
        capacity=t.capacity[0].copy(),
        capacities=t.capacity,
        pending=np.array([len(t.capacity) - 1], dtype=np.int64),
        begun=np.full(num_places, np.nan),
        since=np.zeros(num_places),
        active=np.zeros(num_places, dtype=np.bool_),
        lazy=np.zeros(num_places, dtype=np.bool_),
        alone_s=np.full(len(t.fixed_s), -1.0),
        alone_rate=np.zeros(len(t.payload)),
        alone_end=np.zeros(len(t.payload)),
        template=np.zeros(num_places, dtype=np.int64),
        message=np.zeros(num_places, dtype=np.int64),
        left_flows=np.zeros(num_places, dtype=np.int64),
        near_first=near_first,
        near=near,
        seen=np.zeros(num_places, dtype=np.bool_),
        solved=np.zeros(num_places + 1, dtype=np.int64),
        island=np.zeros(num_places + 1, dtype=np.int64),
        woken=np.zeros(num_tracks + 2, dtype=np.int64),
        when=when,
        winner=winner,
        left=np.zeros(num_flows),
        rate=np.zeros(num_flows),
        share=t.share.copy(),
        finish=np.zeros(num_flows),
        bottleneck=np.zeros(num_flows, dtype=np.int32),
        line=t.line.copy(),
        crossings=crossings,
        first_bundle=first_bundle,
        bundle=bundle,
        flows=np.zeros(num_flows, dtype=np.int32),
        bundles=np.zeros(num_bundles, dtype=np.int32),
        scratch=sharing.scratch(t.capacity.shape[1], num_bundles),
        used=np.zeros(t.capacity.shape[1]),
        full=np.zeros(t.capacity.shape[1], dtype=np.bool_),
        single=np.zeros(num_places, dtype=np.bool_),
        noted=np.full((num_places, WAYS), NONE, dtype=np.int64),
        held=np.full((num_tracks, num_nodes, WAYS) if keep_full else (0, 0, 0), NONE, dtype=np.int64),
    )


def _crossings(t: Templates) -> tuple[sharing.Crossings, Ints, npt.NDArray[np.int32]]:
    """Flows of each template by the resources that they cross, where each template's bundles begin, and the bundle of each entry."""
    flow = np.repeat(np.arange(len(t.payload)), np.diff(t.entry))
    template = np.repeat(np.arange(len(t.fixed_s)), np.diff(t.entry[t.first]))
    key = template * t.capacity.shape[1] + t.resource
    order = np.argsort(key, kind="stable")
    new = np.diff(key[order], prepend=-1) > 0
    first = np.flatnonzero(new)
    bundle = np.empty(len(order), dtype=np.int32)
    bundle[order] = np.cumsum(new) - 1
    crossings = sharing.Crossings(
        resource=t.resource[order[first]].astype(np.int32),
        first=np.append(first, len(order)).astype(np.int32),
        flow=flow[order].astype(np.int32),
        entry=order.astype(np.int32),
        asked=np.bincount(bundle, t.line * t.share[flow], len(first)).astype(np.float64),  # of nothing: int64
        leader=np.full(len(first), NONE, dtype=np.int32),
    )
    with np.errstate(divide="ignore"):
        slowness = t.line / t.capacity[:, t.resource]
    sharing.lead(crossings, slowness, t.taker < 0)
    return crossings, np.searchsorted(template[order[first]], np.arange(len(t.first))), bundle


def _near(
    pairs: list[tuple[int, int]], resource: Ints, entry: Ints, num_places: int, num_resources: int
) -> tuple[Ints, Ints]:
    """Neighbours of each place: those whose templates use a resource that one of its own uses, as offsets and places."""
    uses = np.zeros((num_places, num_resources), dtype=np.bool_)
    for place, template in pairs:
        uses[place, resource[entry[template] : entry[template + 1]]] = True
    packed = np.ascontiguousarray(np.packbits(uses, axis=0).T)
    # Of resources that the same places use, one.
    _, first_of = np.unique(packed.view(f"V{packed.shape[1]}"), return_index=True)
    shared = uses[:, first_of].astype(np.float32)
    joined = shared @ shared.T > 0
    np.fill_diagonal(joined, False)
    first = np.concatenate([[0], np.cumsum(joined.sum(axis=1))])
    return first.astype(np.int64), np.nonzero(joined)[1].astype(np.int64)


def _timers(num_places: int) -> tuple[Floats, Ints]:
    """When something happens at each place (filled up to a power of two), and the winner of each pair, pair of pairs, ...

    The winner of all is the second entry; while no timer is set, the first place of each subtree.
    """
    width = size = 1 << max(1, (num_places - 1).bit_length())
    winner = np.zeros(2 * size, dtype=np.int64)
    while width >= 1:
        winner[width : 2 * width] = np.arange(width) * (size // width)
        width //= 2
    return np.full(size, np.inf), winner
