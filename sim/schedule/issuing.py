"""Launches that the host issues for the nodes of a program, by the kernel list of its software.

A node comes with the launches of moesim's own lists. Where the software has a list of its own, an operation's launches are
those of that list: of attention, norms, router and permutation before a dispatch, of experts after it; those that are more than
moesim's own take the device the constant time of a launch each. A dispatch into buffers that are sized by what comes is
synchronised with, once where the software has no list. A CUDA graph is one launch, of the first node, and holds no synchronisation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sim.cluster.software import Issued, Launches, Software
from sim.cost.curves import load_curves
from sim.schedule.collectives import KINDS
from sim.schedule.programs import Node, Program
from sim.schedule.training import Tasks
from sim.workload.layout import Layout
from sim.workload.model import Model

_HALVES = {"attention_0": 0, "attention_1": 1}
_BEFORE_EXPERTS = ("norm", "attention", "router", "permute")


@dataclass(frozen=True, slots=True)
class Issuer:
    """The software of a rank, and what its launches depend on."""

    software: Software
    model: Model
    kind: str
    """Kind of workload, which decides whether it runs from graphs."""
    local_experts: int
    tp: int
    least_s: float
    """Time that the shortest launch takes the device [s]."""
    reads_counts: bool = False
    """The host reads the counts of a dispatch back, as kernels without slots for every token make it do."""
    pp: int = 1
    splits_shared: bool = False
    """TP splits the shared experts of a pass, and reduces what they return."""
    dense_before: tuple[int, ...] = ()
    """Layers without experts that a pass runs before each with experts."""

    def issued(self, program: Program) -> Program:
        """Give the nodes of a program, which has the launches of moesim's own lists, their launches and synchronisations."""
        listed = self.software.launches
        nodes = [
            self._longer(node, self._node(node, listed)) if listed else self._synchronised(node)
            for node in program
        ]
        if self.software.graphed(self.kind):
            return tuple(node._replace(launches=int(place == 0), syncs=0) for place, node in enumerate(nodes))
        if listed and listed.stage and self.pp > 1 and nodes:
            first, stage, ways = nodes[0], listed.stage, {_part(node) for node in nodes} & {"F", "B"}
            launches = first.launches + sum(map(stage.count, ways))  # gradients of weights go nowhere
            syncs = first.syncs + (stage.syncs or 0) * bool(ways)  # both ways of a pair are one exchange
            nodes[0] = first._replace(launches=launches, syncs=syncs)
        return tuple(nodes)

    def added_s(self, program: Program, elapsed_s: float) -> float:
        """About how much longer than `elapsed_s` a program takes with the software, were the host never ahead of a synchronisation [s]."""
        nodes, software = self.issued(program), self.software
        more = sum(node.fixed_s for node in nodes) - sum(node.fixed_s for node in program)
        drained_s = sum(node.syncs for node in nodes) * (software.sync_s + software.launch_s)
        issue_s = sum(node.launches * software.launch_s + node.syncs * software.sync_s for node in nodes)
        return max(elapsed_s + more + drained_s, issue_s) - elapsed_s

    def _synchronised(self, node: Node) -> Node:
        """A node of moesim's own list: a forward dispatch waits for its counts."""
        dispatches = node.collective is not None and node.name in ("dispatch", "dispatch(F)")
        return node._replace(syncs=int(dispatches and self.reads_counts))

    def _longer(self, own: Node, node: Node) -> Node:
        """A compute node with the time of the launches that moesim's list lacks."""
        more = max(0, node.launches - own.launches) if node.collective is None else 0
        return node._replace(fixed_s=node.fixed_s + more * self.least_s) if more else node

    def _node(self, node: Node, own: Launches) -> Node:
        if node.layer < 0:
            return node
        name, part = node.name.partition("(")[0], _part(node)
        first, _, phase = name.partition(" ")
        if first in ("dispatch", "combine"):
            return self._collective(node, getattr(own, first), part, phase)
        rows = self._rows(node, name, own)
        launches = sum(row.count(part) * times for row, times in rows)
        if name in _HALVES:  # of decode
            launches = launches // 2 + _HALVES[name] * (launches % 2)
        syncs = sum(row.syncs or 0 for row, _ in rows) if part == "F" and name != "attention_0" else 0
        return node._replace(launches=launches, syncs=syncs)

    def _collective(self, node: Node, row: Issued, part: str, phase: str) -> Node:
        """Launches of an all-to-all; where it has phases its receive is one launch, and its flight none."""
        launches, syncs = row.count(part), (row.syncs or 0) * int(part == "F" and self.reads_counts)
        if phase == "receive":
            return node._replace(launches=1, syncs=0)
        if phase == "send":
            return node._replace(launches=max(launches - 1, 1), syncs=syncs)
        return node._replace(
            launches=launches if node.held_s == 0.0 else 0, syncs=syncs * (node.held_s == 0.0)
        )

    def _rows(self, node: Node, name: str, listed: Launches) -> list[tuple[Issued, int]]:
        """Operations of a compute node, and how often it has them."""
        rows: list[tuple[Issued | None, int]] = []
        layer: list[tuple[Issued | None, int]] = [(getattr(listed, key), 1) for key in _BEFORE_EXPERTS]
        layer.append((listed.tensor_parallel, int(self.tp > 1)))
        dense = [*layer[:2], layer[-1], (listed.dense, 1)]
        if name in ("attn", "mlp") and node.layer < self.model.num_layers and self.model.is_dense(node.layer):
            rows = dense[:-1] if name == "attn" else dense[-1:]
        elif name in ("attn", "attention", *_HALVES):
            rows = layer
        elif name == "gate":  # computed again before experts are
            rows = layer[2:4]
        else:
            own: list[tuple[Issued | None, int]] = [
                (listed.experts, 1),
                (listed.each_expert, self.local_experts),
            ]
            split = self.model.shared_width > 0
            shared: list[tuple[Issued | None, int]] = [(listed.shared_experts, int(split))]
            if name == "shared":
                shared.append((listed.tensor_parallel, int(split and self.splits_shared)))
            rows = shared if name == "shared" else own if name == "experts" else [*own, *shared]
        before = self.dense_before[node.layer] if name in ("attention", "attention_0") else 0
        rows += [(row, before * (2 if name == "attention_0" else 1)) for row, times in dense if times]
        return [(row, times) for row, times in rows if row is not None and times]


def _part(node: Node) -> str:
    """F, B or W: the part of a layer that a node is of; F in a pass, which has no other."""
    return node.name.removesuffix(")").partition("(")[2] or "F"


def step_issuer(software: Software, model: Model, layout: Layout, kernel: str) -> Issuer:
    """Make what issues the launches of a training step with all-to-all kernels of a kind."""
    return Issuer(
        software,
        model,
        "training",
        local_experts=max(1, model.num_experts // layout.ep),
        tp=layout.tp,
        least_s=load_curves().streaming.launch_s,
        reads_counts=layout.ep > 1 and not KINDS[kernel].slots,
        pp=layout.pp,
    )


def issued_tasks(tasks: Tasks, software: Software | None, model: Model, layout: Layout, kernel: str) -> Tasks:
    """Give the programs of a training step the launches of its software; None where they cost nothing."""
    if software is None:
        return tasks
    issuer = step_issuer(software, model, layout, kernel)
    return replace(tasks, programs=tuple((issuer.issued(own), beside) for own, beside in tasks.programs))
