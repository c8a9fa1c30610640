"""Lanes of a training step: their clocks, and the factors on what they compute, one for each class of alike ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sim.cluster.topology import Floats, Ints
from sim.engine.step_plan import StepPlan
from sim.engine.step_rows import Rows
from sim.engine.step_templates import Folded


class StepLanes(NamedTuple):
    """Clocks and factors over lane classes."""

    num_lanes: int
    zero: Floats  # [lanes]
    clock: Floats  # [num_tracks, lanes], end of the last task
    compute: Floats  # [num_tracks, lanes], ends of the two streams
    comm: Floats
    exposed: Floats  # [num_tracks, lanes], of this task
    barrier: Floats
    ends: Floats  # [num_tracks, most nodes, lanes]
    speed: Floats  # [num_tracks, lanes]
    weight: Floats  # [num_tracks, lanes], share of the track's lanes
    loads: Floats  # see StepPlan
    jitter: Floats
    instants: Floats  # see Conditions; without, no instant and no variant
    variant: Ints  # [conditions, num_tracks, lanes]
    fixed_s: Floats  # [variants, nodes]
    routed_s: Floats
    ready: Floats  # [num_messages, lanes], when both sides have posted
    arrived: Floats
    host_costs: Floats  # [num_tracks, 3], see `step_host`; zero without a host, and what follows is empty
    host: Floats  # [num_tracks, lanes], when the host is free
    host_first: Floats  # [num_tracks, lanes], when it issued the first launch of the last node
    hosted: Floats  # [num_tracks, lanes], time of this task that the device waited for it
    late: Floats  # [num_tracks, lanes], how late collectives since the last compute node were by the host
    done_count: Ints  # [num_tracks, kept], launches issued up to each of the last nodes
    done_end: Floats  # [num_tracks, kept, lanes], when they had run


def lanes_of(
    plan: StepPlan, folded: Folded, rank: Ints, of_group: Ints, programs: Ints, nodes: Rows, num_messages: int
) -> tuple[Ints, StepLanes]:
    """Lay out the lanes of a step, and the place of each track's draws among the loads.

    `rank` and `of_group` are the pipeline rank and class of groups of each track; `programs` is where each
    program's nodes begin [num_programs + 1].
    """
    num_tracks, num_lanes = len(rank), max(map(len, folded.lanes))
    draws, loads = _draws(plan, folded, of_group, num_lanes)
    speed, weight = np.ones((num_tracks, num_lanes)), np.zeros((num_tracks, num_lanes))
    for c, shown in enumerate(folded.lanes):
        own = of_group == c
        speed[own] = plan.speed[rank[own], folded.groups[c]][:, _filled(shown, num_lanes)]
        for member in plan.members:
            counts = np.bincount(folded.lane_class[c][: member.lanes], minlength=len(shown))
            if folded.groups[c] < member.num_groups:
                weight[own & member.holds(rank), : len(shown)] = counts / member.lanes
    shape = (num_tracks, num_lanes)
    return draws, StepLanes(
        num_lanes=num_lanes,
        zero=np.zeros(num_lanes),
        clock=np.zeros(shape),
        compute=np.zeros(shape),
        comm=np.zeros(shape),
        exposed=np.zeros(shape),
        barrier=np.zeros(shape),
        ends=np.zeros((num_tracks, int(np.diff(programs).max(initial=0)), num_lanes)),
        speed=speed,
        weight=weight,
        loads=np.ascontiguousarray(loads),  # of another layout, the whole loop would be compiled again
        jitter=np.ascontiguousarray(plan.jitter),
        **_conditions(plan, folded, rank, of_group, num_lanes),
        ready=np.zeros((num_messages, num_lanes)),
        arrived=np.zeros((num_messages, num_lanes)),
        **_host(plan, nodes, rank, num_lanes),
    )


def _filled(lanes: Ints, num_lanes: int) -> Ints:
    """Lanes that stand for a group's classes, then the first again: a lane beyond them is as early, and holds nobody up."""
    return np.concatenate([lanes, np.full(num_lanes - len(lanes), lanes[0])])


def _conditions(plan: StepPlan, folded: Folded, rank: Ints, of_group: Ints, num_lanes: int) -> dict[str, Any]:
    """Fields of `StepLanes` that `Conditions` fill in; `rank` and `of_group` are of each track."""
    known, none = plan.conditions, np.zeros((0, 0))
    if known is None:
        no_variant = np.zeros((0, 0, 0), np.int64)
        return {"instants": np.zeros(0), "variant": no_variant, "fixed_s": none, "routed_s": none}
    variant = np.zeros((len(known.variant), len(rank), num_lanes), dtype=np.int64)
    for c, shown in enumerate(folded.lanes):
        own = of_group == c
        of_class = known.variant[:, rank[own], folded.groups[c]]
        variant[:, own] = of_class[:, :, _filled(shown, num_lanes)]
    times = {name: np.ascontiguousarray(getattr(known, name)) for name in ("instants", "fixed_s", "routed_s")}
    return times | {"variant": variant}


def _host(plan: StepPlan, nodes: Rows, rank: Ints, num_lanes: int) -> dict[str, Any]:
    """Fields of `StepLanes` that the hosts of the plan's programs fill in."""
    costs, kept = np.zeros((len(rank), 3)), 0
    for member in plan.members:
        host = member.host
        if host is not None:
            costs[member.holds(rank)] = host.launch_s, host.sync_s, host.run_ahead
            fewest = nodes["launches"][nodes["launches"] > 0].min(initial=host.run_ahead)
            kept = max(kept, host.run_ahead // int(fewest) + 2)
    shape = (len(rank), num_lanes) if kept else (0, 0)
    clocks = {name: np.zeros(shape) for name in ("host", "host_first", "hosted", "late")}
    done = {
        "done_count": np.zeros((shape[0], kept), np.int64),
        "done_end": np.zeros((shape[0], kept, shape[1])),
    }
    return {"host_costs": costs, **clocks, **done}


def _draws(plan: StepPlan, folded: Folded, of_group: Ints, num_lanes: int) -> tuple[Ints, Floats]:
    """Place of each track's draws among the loads, and the loads by lane class."""
    drawn = folded.groups if len(plan.loads) > 1 else np.zeros_like(folded.groups)
    whole = np.arange(plan.lanes)
    if not plan.loads.size or all(np.array_equal(lanes, whole) for lanes in folded.lanes):
        return drawn[of_group], plan.loads
    shown = [
        plan.loads[own][..., _filled(lanes, num_lanes)]
        for own, lanes in zip(drawn, folded.lanes, strict=True)
    ]
    return of_group, np.stack(shown)
