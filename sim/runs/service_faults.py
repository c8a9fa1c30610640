"""Faults and neighbours of a serving deployment: which concern an instance, and what its passes cost from one change to the next.

An instance is costed as the scenario that stands for its pool, with the faults that hold at the time. One that lasts is known to
who chooses paths there; of others capacities alone are lower. An instance whose passes cross links of which other jobs leave a
part is costed on its own nodes, at the rates that are left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import cache

import numpy as np

from sim.cluster.faults import Fault, changes_s
from sim.cluster.parts import ClusterPart
from sim.cluster.topology import NONE, Cluster, Ints
from sim.engine.link_states import senders_of
from sim.engine.serving_lives import ServingTrace
from sim.runs.pass_collectives import collectives_of
from sim.runs.pass_plan import PassPlan
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.schedule.serving import KvLinks, PassCost, PassWork, Spell

_ALWAYS_S = 1e18
"""End of a fault that holds in all of a spell, but is not known to who chooses paths."""

_DIGITS = 9  # to which parts that are left count as the same
_MANY, _MANY_TOKENS = 64, 2048  # requests and tokens whose all-to-alls show which links passes cross

Costs = Callable[[Scenario], PassCost]


def instance_faults(scenario: Scenario, part: Scenario, gpus: Ints) -> tuple[Fault, ...]:
    """Faults that concern an instance, on the nodes of the scenario that stands for its pool.

    `part` has those that are everywhere; `gpus` are the instance's, in its pool.
    """
    if part.workload.parts:  # that are the pools, with their faults
        return ()
    nodes = dict.fromkeys((gpus // part.part.domain).tolist())
    stands_for = dict(zip(nodes, part.part.nodes, strict=True))
    known = (
        scenario.shared.faults.get(part.shared.own, ())
        if scenario.shared and part.shared
        else scenario.faults
    )
    own = (replace(fault, node=stands_for[fault.node]) for fault in known if fault.node in stands_for)
    return (*(fault for fault in part.faults if fault.node is None), *own)


def at_fault(part: Scenario, faults: tuple[Fault, ...]) -> Scenario:
    """The scenario that stands for a pool with these faults; of other pools those that last."""
    if faults == part.faults:
        return part
    part = replace(part, faults=faults)
    if part.shared is None:
        return part
    others = {
        name: tuple(fault for fault in known if fault.lasts) for name, known in part.shared.faults.items()
    }
    return replace(part, shared=replace(part.shared, faults={**others, part.shared.own: faults}))


def unchanging(part: Scenario) -> Scenario:
    """The scenario that stands for a pool with the faults that last."""
    return at_fault(part, tuple(fault for fault in part.faults if fault.lasts))


class Spells:
    """Spells of the instances of a deployment; instances with like faults share their costs.

    Parameters
    ----------
    scenario : Scenario
        The whole deployment.
    prefill_s, decode_step_s : function of a scenario -> PassCost
        What passes of a pool cost as that scenario.
    """

    def __init__(self, scenario: Scenario, prefill_s: Costs, decode_step_s: Costs) -> None:
        self.scenario, self.costs = scenario, (prefill_s, decode_step_s)
        self.known: dict[Hashable, PassCost] = {}

    def of_instance(
        self, gpus: Ints, parts: tuple[Scenario | None, Scenario | None], calm: tuple[PassCost, PassCost]
    ) -> tuple[Spell, ...] | None:
        """Spells of an instance on these GPUs; None where all of it is as it is everywhere for the whole run.

        `parts` stand for its pool where it prefills and where it decodes; `calm` are costs without faults of its own or other jobs.
        """
        whole = calm
        if self.scenario.left:
            parts = (
                parts[0] and beside_others(self.scenario, parts[0], gpus),
                parts[1] and beside_others(self.scenario, parts[1], gpus),
            )
            calm = self._beside(0, parts[0], calm[0]), self._beside(1, parts[1], calm[1])
        faults = [instance_faults(self.scenario, part, gpus) if part else () for part in parts]
        changes = changes_s(fault for own in faults for fault in own)
        spells = tuple(self._spell(from_s, faults, parts, calm) for from_s in (0.0, *changes))
        return None if len(spells) == 1 and not spells[0].down and self._pair(spells[0]) == whole else spells

    @staticmethod
    def _pair(spell: Spell) -> tuple[PassCost, PassCost]:
        return spell.prefill_s, spell.decode_step_s

    def _beside(self, role: int, part: Scenario | None, calm: PassCost) -> PassCost:
        """Costs at what other jobs leave, never less than those of the instance that stands for its pool, which has all."""
        if part is None or not part.left:
            return calm

        def make() -> PassCost:
            slower = self.costs[role](unchanging(part))
            return lambda work: max(calm(work), slower(work))

        return self._known((role, *_likeness(part)), make)

    def _spell(
        self,
        from_s: float,
        faults: list[tuple[Fault, ...]],
        parts: tuple[Scenario | None, Scenario | None],
        calm: tuple[PassCost, PassCost],
    ) -> Spell:
        held = [tuple(fault for fault in own if fault.holds(from_s)) for own in faults]
        down = any(_kills(fault) for own in held for fault in own)
        prefill_s, decode_s = (
            calm[role] if down or part is None else self._cost(role, part, own, calm[role])
            for role, (part, own) in enumerate(zip(parts, held, strict=True))
        )
        return Spell(from_s, prefill_s, decode_s, down)

    def _cost(self, role: int, part: Scenario, held: tuple[Fault, ...], calm: PassCost) -> PassCost:
        own = tuple(fault if fault.lasts else replace(fault, from_s=0.0, until_s=_ALWAYS_S) for fault in held)
        if own == unchanging(part).faults:
            return calm
        return self._known(
            (role, frozenset(own), *_likeness(part)), lambda: self.costs[role](at_fault(part, own))
        )

    def _known(self, key: Hashable, make: Callable[[], PassCost]) -> PassCost:
        if key not in self.known:
            self.known[key] = _later(make)
        return self.known[key]


def beside_others(scenario: Scenario, part: Scenario, gpus: Ints) -> Scenario:
    """The scenario that stands for a pool on the nodes of one instance, at what other jobs leave of the links that its passes cross.

    The same one where they leave all.
    """
    taken = dict(scenario.left)
    if part.workload.parts or not taken:
        return part
    own = on_nodes(part, gpus)
    left = tuple((row, taken[row]) for row in crossed(own) if row in taken)
    return replace(own, left=left) if left else part


def on_nodes(part: Scenario, gpus: Ints) -> Scenario:
    """The scenario that stands for a pool on the nodes of one of its instances."""
    nodes = tuple(dict.fromkeys((gpus // part.part.domain).tolist()))
    return replace(part, part=ClusterPart(nodes, part.part.gpus_per_node, part.part.domain))


def crossed(part: Scenario) -> dict[int, float]:
    """Links between leaves that passes of an instance cross, its all-to-alls and what its stages send, and the NICs that send there."""
    work, cluster = part.workload, part.cluster()
    assert isinstance(work, Inference)
    leaves = np.unique(cluster.leaf[part.gpus])
    leaves = leaves[leaves != NONE]
    rows = np.unique([row for leaf in leaves.tolist() for row in _above(cluster, leaf)]).astype(np.int64)
    tokens = work.step_tokens if work.spec.kind == "decode" else _MANY_TOKENS
    several = replace(
        work,
        requests=_MANY,
        context_tokens=_MANY_TOKENS,
        step_tokens=tokens,
        cached_tokens=0,
        sampling="expected",
    )
    flows = collectives_of(PassPlan(part, several, _MANY)).flows
    senders = senders_of(flows, cluster, rows)
    least = 1.0 if work.layout.pp > 1 else 0.0
    return {
        row: num for row, num in zip(rows.tolist(), np.maximum(senders, least).tolist(), strict=True) if num
    }


def _above(cluster: Cluster, leaf: int) -> list[int]:
    """Rows of the links from a leaf to the spines and back, and of those from its pod to the cores and back."""
    rows = [*cluster.up[leaf].tolist(), *cluster.down[leaf].tolist()] if cluster.up.size else []
    if len(cluster.pod_up):
        pod = cluster.pod_of_leaf[leaf]
        rows += [int(cluster.pod_up[pod]), int(cluster.pod_down[pod])]
    return rows


def _likeness(part: Scenario) -> tuple[Hashable, ...]:
    """What instances have alike that cost the same next to other jobs: their leaves in the order of GPUs, and what is left of each."""
    if not part.left:
        return ()
    cluster, left = part.cluster(), dict(part.left)
    names, first, order = np.unique(cluster.leaf[part.gpus], return_index=True, return_inverse=True)
    place = np.empty(len(first), dtype=np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    shares, pods = [], dict[int, int]()
    for leaf in names[np.argsort(first)].tolist():
        pod = int(cluster.pod_of_leaf[leaf])
        share = tuple(round(left.get(row, 1.0), _DIGITS) for row in _above(cluster, leaf))
        shares.append((pods.setdefault(pod, len(pods)), share))
    return tuple(place[order.ravel()].tolist()), tuple(shares)


def _kills(fault: Fault) -> bool:
    """True of a fault that leaves a GPU dead, with what is in its memory."""
    return fault.quantity in ("clock", "hbm") and fault.fraction == 0.0


def _later(make: Callable[[], PassCost]) -> PassCost:
    """A cost that is made when it is first asked for."""
    made = cache(make)

    def cost_s(work: PassWork) -> float:
        return made()(work)

    return cost_s


def with_changes(links: KvLinks, cluster: Cluster) -> KvLinks:
    """The way of KV with the capacities that links of a cluster have from each instant on."""
    changes = tuple((time_s, cluster.capacity_at(time_s).tolist()) for time_s in changes_s(cluster.windows))
    return replace(links, capacity=cluster.capacity_at(0.0).tolist(), changes=changes)


def fault_metrics(scenario: Scenario, trace: ServingTrace) -> dict[str, float]:
    """Return the metrics of faults in serving.

    - `restarts` = times that a request lost its KV with a GPU;
    - `down_s` = time in which instances had a dead GPU, of all together;
    - `queue_drain_s` = from the last end of a fault until nobody waits for prefill or for a decode rank; none where no fault ends in
      the run, or somebody waits for ever.
    """
    records = {id(own): own for own in (*trace.prefill, *trace.decode)}.values()
    metrics: dict[str, float] = {
        "restarts": int(trace.restarts.sum()),
        "down_s": float(sum(own.down_s for own in records)),
    }
    known = (scenario.faults, *(scenario.shared.faults.values() if scenario.shared else ()))
    ends = [fault.until_s for own in known for fault in own if fault.until_s < trace.end_s]
    if ends and (empty_s := empty_from_s(trace, max(ends))) is not None:
        metrics["queue_drain_s"] = empty_s - max(ends)
    return metrics


def empty_from_s(trace: ServingTrace, time_s: float) -> float | None:
    """First instant from a time on at which nobody waits; None where somebody does for ever [s]."""
    instants, waits = trace.instants, []
    for joins, leaves in (("arrival_s", "prefill_start_s"), ("first_token_s", "decode_admitted_s")):
        ended = ~np.isnan(instants["end_s"]) & np.isnan(instants[leaves])  # with their first token
        row = np.stack([instants[joins], instants[leaves]])
        waits.append(row[:, ~np.isnan(instants[joins]) & ~ended & ~trace.refused])
    came, left = np.concatenate(waits, axis=1)
    left = np.where(np.isnan(left), np.inf, left)
    order = np.argsort(came, kind="stable")
    came, busy = came[order], np.maximum.accumulate(left[order])
    while True:  # to the end of the waits that have begun
        begun = int(np.searchsorted(came, time_s, "right"))
        if not begun or busy[begun - 1] <= time_s:
            return time_s
        if math.isinf(busy[begun - 1]):
            return None
        time_s = float(busy[begun - 1])
