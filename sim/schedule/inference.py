"""A forward pass of a deployment as data: which part of which microbatch and layer runs on which stream, after what.

Prefill with two microbatches, in the steady state (DeepSeek's inference overview, open-infra-index day 6); microbatch 0 is
a layer ahead:

    compute:        attention(1) shared(0) attention(0)' experts(1) experts(0)' shared(1)
    communication:  combine(0)   dispatch(1)             dispatch(0)'  combine(1)            ' = of the next layer

Decode in five stages: attention is cut in two, and each collective has a partner,

    compute:        shared(a) attention_0(b) | experts(a) | attention_1(b)     then a and b change roles
    communication:  dispatch(a)              |            | combine(a)

Low-latency kernels hold SMs while they send and while they receive, and none in between: their sends and receives are nodes
of the compute stream, and only the flight between stands on the other one. Without overlap one batch runs part after part.

Layers without experts have no collective: they run with the attention of the next layer that has, or at the end.

A node's name is its part: attention, attention_0, attention_1, shared, experts, dense, dispatch, combine, "dispatch send", ...
Its half names its microbatch (`HALVES`), its layer counts those with experts; -1 is of dense layers after the last. Nodes have no times yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from sim.schedule.programs import Node, Program
from sim.schedule.training import HALVES
from sim.workload.model import Model

COLLECTIVES = ("dispatch", "combine")


@dataclass(frozen=True, slots=True)
class Blocks:
    """Layers with experts in their order, with the dense layers that run before each, and after the last."""

    layers: tuple[int, ...]  # of the model
    dense_before: tuple[tuple[int, ...], ...]
    dense_after: tuple[int, ...]

    @property
    def dense(self) -> tuple[int, ...]:
        """All dense layers, in their order."""
        return (*chain.from_iterable(self.dense_before), *self.dense_after)


def blocks(model: Model, extra: int = 0) -> Blocks:
    """Cut a model into blocks of one layer with experts and the dense layers before it.

    `extra` layers with experts (multi-token prediction) come last.
    """
    layers: list[int] = []
    before: list[tuple[int, ...]] = []
    waiting: list[int] = []
    for layer in range(model.num_layers + extra):
        if layer < model.num_layers and model.is_dense(layer):
            waiting.append(layer)
        else:
            layers.append(layer)
            before.append(tuple(waiting))
            waiting = []
    return Blocks(tuple(layers), tuple(before), tuple(waiting))


class _PassWriter:
    """Appends nodes; knows the last node of each part of each microbatch."""

    def __init__(self, *, phases: bool) -> None:
        self.nodes: list[Node] = []
        self.last: dict[tuple[str, int], int] = {}
        self.phases = phases

    def add(self, part: str, microbatch: int, layer: int, collective: str | None, *after: str) -> None:
        """A node that waits for the latest `after` parts of its microbatch."""
        waits = tuple(self.last[name, microbatch] for name in after if (name, microbatch) in self.last)
        self.nodes.append(Node(part, HALVES[microbatch], layer, collective, waits=waits))
        self.last[part, microbatch] = len(self.nodes) - 1

    def compute(self, part: str, microbatch: int, layer: int, *after: str) -> None:
        """A part on the compute stream."""
        self.add(part, microbatch, layer, None, *after)

    def start(self, collective: str, microbatch: int, layer: int, *after: str) -> None:
        """A collective leaves; with phases, its send holds the SMs first."""
        if self.phases:
            self.compute(f"{collective} send", microbatch, layer, *after)
            after = (f"{collective} send",)
        self.add(collective, microbatch, layer, collective, *after)

    def arrive(self, collective: str, microbatch: int, layer: int) -> None:
        """A collective is taken in; without phases whoever needs it waits for it."""
        if self.phases:
            self.compute(f"{collective} receive", microbatch, layer, collective)


def _arrived(collective: str, phases: bool) -> str:
    return f"{collective} receive" if phases else collective


def serial_pass(num_layers: int, *, decode: bool, phases: bool, trailing: bool) -> Program:
    """Program of one batch, part after part, every collective waited for; arguments as of `forward`."""
    out = _PassWriter(phases=phases)
    dispatched, combined = _arrived("dispatch", phases), _arrived("combine", phases)
    halves = ("attention_0", "attention_1") if decode else ("attention",)
    for layer in range(num_layers):
        out.compute(halves[0], 0, layer, combined, "shared")
        for half in halves[1:]:
            out.compute(half, 0, layer, halves[0])
        out.start("dispatch", 0, layer, halves[-1])
        out.arrive("dispatch", 0, layer)
        out.compute("experts", 0, layer, dispatched)
        out.start("combine", 0, layer, "experts")
        out.arrive("combine", 0, layer)
        out.compute("shared", 0, layer, combined)
    if trailing:
        out.compute("dense", 0, -1, combined, "shared")
    return tuple(out.nodes)


def prefill_pair(num_layers: int, *, trailing: bool) -> Program:
    """Program of two microbatches of prefill, microbatch 0 a layer ahead; arguments as of `forward`.

    References
    ----------
    DeepSeek, open-infra-index, day 6: overview of the inference system.
    """
    out = _PassWriter(phases=False)

    def attention(microbatch: int, layer: int) -> None:
        out.compute("attention", microbatch, layer, "combine", "shared")

    if num_layers:
        attention(0, 0)
        out.start("dispatch", 0, 0, "attention")
    for layer in range(num_layers):
        last = layer == num_layers - 1
        if layer == 0:  # nothing of the layer before to do next to the first dispatch
            attention(1, 0)
            out.compute("experts", 0, 0, "dispatch")
            out.start("combine", 0, 0, "experts")
        else:
            attention(1, layer)
        out.compute("shared", 0, layer, "attention")
        out.start("dispatch", 1, layer, "attention")
        if not last:
            attention(0, layer + 1)
            out.start("dispatch", 0, layer + 1, "attention")
        out.compute("experts", 1, layer, "dispatch")
        out.start("combine", 1, layer, "experts")
        if not last:
            out.compute("experts", 0, layer + 1, "dispatch")
        out.compute("shared", 1, layer, "attention")
        if not last:
            # After combine(1) in the order of the stream, which is where the next layer starts.
            out.start("combine", 0, layer + 1, "experts")
    if trailing:
        for microbatch in (0, 1):
            out.compute("dense", microbatch, -1, "combine", "shared")
    return tuple(out.nodes)


def decode_pair(num_layers: int, *, phases: bool, trailing: bool) -> Program:
    """Program of two microbatches of decode in five stages; see the module docstring. Arguments as of `forward`.

    References
    ----------
    DeepSeek, open-infra-index, day 6: overview of the inference system.
    """
    out = _PassWriter(phases=phases)
    dispatched, combined = _arrived("dispatch", phases), _arrived("combine", phases)

    def first_half(microbatch: int, layer: int) -> None:
        out.compute("attention_0", microbatch, layer, combined, "shared")

    if num_layers:
        first_half(0, 0)
        out.compute("attention_1", 0, 0, "attention_0")
    for stage in range(2 * num_layers):
        lead, layer = stage % 2, stage // 2
        other, other_layer = 1 - lead, layer + lead  # of the other microbatch's next attention
        more = other_layer < num_layers
        out.start("dispatch", lead, layer, "attention_1")
        out.compute("shared", lead, layer, "attention_1")
        if more:
            first_half(other, other_layer)
        out.arrive("dispatch", lead, layer)
        out.compute("experts", lead, layer, dispatched)
        out.start("combine", lead, layer, "experts")
        if more:
            out.compute("attention_1", other, other_layer, "attention_0")
        out.arrive("combine", lead, layer)
    if trailing:
        for microbatch in (0, 1):
            out.compute("dense", microbatch, -1, combined, "shared")
    return tuple(out.nodes)


@lru_cache(maxsize=8)
def forward(
    num_layers: int, *, decode: bool, overlap: bool, phases: bool, trailing: Sequence[int] = ()
) -> Program:
    """Program of a pass through so many layers with experts; `overlap` has two microbatches hide each other's collectives.

    In `decode` attention is cut in two. `phases` of low-latency kernels hold SMs only to send and to receive.
    `trailing` are the dense layers after the last one with experts.
    """
    if not overlap:
        return serial_pass(num_layers, decode=decode, phases=phases, trailing=bool(trailing))
    if decode:
        return decode_pair(num_layers, phases=phases, trailing=bool(trailing))
    return prefill_pair(num_layers, trailing=bool(trailing))
