"""Program of a rank group inside one pipeline operation: nodes on two streams, compute and communication.

A forward (F) or backward (B, W) chunk is a list of blocks, one a layer. A block of an MoE layer is

    F:  attn(F) -> dispatch(F) -> mlp(F) -> combine(F)
    B:  combine(B) -> mlp(B) [-> mlp(W)] -> dispatch(B) -> attn(B) [-> attn(W)]

where combine(B) is a *dispatch* kernel (the gradient is quantised and sent to the experts) and dispatch(B) a *combine*
kernel. An overlapped pair interleaves an F block of one microbatch with a B block of another, in the order of Figure 4
of the DeepSeek-V3 report (arXiv 2412.19437), so that each collective of one runs next to compute of the other:

    compute:        attn(F)  mlp(B)  mlp(W)  mlp(F)  attn(B)  attn(W)
    communication:  combine(B)  dispatch(F)  dispatch(B)  combine(F)

Blocks without a collective (dense layers, embedding, heads) are plain compute. Which blocks of two chunks pair up is
searched (`alignment`), not assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DISPATCH, COMBINE = "dispatch", "combine"


@dataclass(frozen=True, slots=True, eq=False)
class LoadSpread:
    """Loads over their mean that a part of a time is proportional to, [dp, cp or 1, microbatches]."""

    loads: Floats


class Node(NamedTuple):
    """One step of a program; those of a stream run in its order. A tuple, since hundreds are made for each of hundreds of passes."""

    name: str  # "attn(F)"
    half: str  # F | B: which microbatch it works for
    layer: int  # layer of the model, -1 for embedding and heads
    collective: str | None = None  # name of the kernel, which runs on the communication stream
    fixed_s: float = 0.0  # compute that does not depend on the routed load
    routed_s: float = 0.0  # compute at the mean load, proportional to the rank's routed load
    exposed_s: float = 0.0  # reductions inside the layer, which nothing hides
    waits: tuple[int, ...] = ()  # nodes of the program that must have ended
    barrier: bool = True  # of a collective: it starts everywhere when the last rank is there
    held_s: float = (
        0.0  # of one without a barrier: its sends and receives, which are nodes of the compute stream
    )
    launches: int = 0  # that the host issues for it
    syncs: int = 0  # times that the host waits for it to be due, before it issues them
    spread: LoadSpread | None = (
        None  # loads of the routed compute; those of experts in the layer where left out
    )

    @property
    def mean_s(self) -> float:
        """Time at the mean load [s]."""
        return self.fixed_s + self.routed_s + self.exposed_s


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """Time of one phase of one layer [s].

    Compute that is fixed, compute proportional to the routed load, and communication inside the phase that nothing hides.
    """

    fixed_s: float = 0.0
    routed_s: float = 0.0
    exposed_s: float = 0.0
    memory_s: float = 0.0  # of the compute, in launches that only move bytes
    launches: int = 0
    spread: LoadSpread | None = None  # of what is proportional to a load, where that is not the routed one

    @property
    def mean_s(self) -> float:
        """At the mean load [s]."""
        return self.fixed_s + self.routed_s + self.exposed_s


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """Times of one layer of a stage, by phase.

    `communicates`: its MLP talks to other ranks. `again`: its backward first computes the forward again. `gate_f`: time of the
    gate, part of `attn_f`, where the backward computes its experts' block alone again.
    """

    layer: int
    communicates: bool
    attn_f: PhaseTime
    mlp_f: PhaseTime
    attn_b: PhaseTime
    mlp_b: PhaseTime
    attn_w: PhaseTime
    mlp_w: PhaseTime
    again: bool = False
    gate_f: PhaseTime | None = None


Program = tuple[Node, ...]


class _ProgramWriter:
    """Appends nodes, keeping the last node of each half's chain of dependencies."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.last: dict[str, int] = {}

    def compute(self, name: str, half: str, layer: int, time: PhaseTime, *, chained: bool = True) -> None:
        waits = (self.last[half],) if half in self.last else ()
        self._add(name, half, layer, time, waits)
        if chained:
            self.last[half] = len(self.nodes) - 1

    def branch(self, name: str, half: str, layer: int, time: PhaseTime, after: int) -> None:
        """Compute that only waits for one earlier node, and that nothing waits for."""
        self._add(name, half, layer, time, (after,))

    def _add(self, name: str, half: str, layer: int, time: PhaseTime, waits: tuple[int, ...]) -> None:
        work = (time.fixed_s, time.routed_s, time.exposed_s)
        self.nodes.append(
            Node(name, half, layer, None, *work, waits, launches=time.launches, spread=time.spread)
        )

    def collective(self, name: str, half: str, layer: int, kernel: str) -> None:
        waits = (self.last[half],) if half in self.last else ()
        self.nodes.append(Node(name, half, layer, kernel, waits=waits, launches=1))
        self.last[half] = len(self.nodes) - 1


def forward(layers: Sequence[LayerTimes]) -> Program:
    """F of a chunk on its own, its layers in forward order: nothing to hide its collectives behind."""
    out = _ProgramWriter()
    for layer in layers:
        _forward(out, layer)
    return tuple(out.nodes)


def _forward(out: _ProgramWriter, x: LayerTimes) -> None:
    out.compute("attn(F)", "F", x.layer, x.attn_f)
    if x.communicates:
        out.collective("dispatch(F)", "F", x.layer, DISPATCH)
    out.compute("mlp(F)", "F", x.layer, x.mlp_f)
    if x.communicates:
        out.collective("combine(F)", "F", x.layer, COMBINE)


def backward(layers: Sequence[LayerTimes], *, weights: bool = True) -> Program:
    """B of a chunk on its own, its layers in forward order.

    With `weights` it computes weight gradients too; mlp(W) then runs next to dispatch(B).
    """
    out = _ProgramWriter()
    for layer in reversed(layers):
        _backward(out, layer, weights)
    return tuple(out.nodes)


def _again(out: _ProgramWriter, x: LayerTimes) -> None:
    """The forward of a layer without combine(F), which nobody needs; or of experts alone, with it (Megatron's `custom_forward`)."""
    if x.again or x.gate_f is not None:
        if x.gate_f is None:
            out.compute("attn(F)", "B", x.layer, x.attn_f)
        else:
            out.compute("gate(F)", "B", x.layer, x.gate_f)
        if x.communicates:
            out.collective("dispatch(F)", "B", x.layer, DISPATCH)
        out.compute("mlp(F)", "B", x.layer, x.mlp_f)
        if x.communicates and x.gate_f is not None:
            out.collective("combine(F)", "B", x.layer, COMBINE)


def _backward(out: _ProgramWriter, x: LayerTimes, weights: bool) -> None:
    _again(out, x)
    if x.communicates:
        out.collective("combine(B)", "B", x.layer, DISPATCH)
    out.compute("mlp(B)", "B", x.layer, x.mlp_b)
    after_mlp = out.last["B"]
    if x.communicates:
        out.collective("dispatch(B)", "B", x.layer, COMBINE)
    if weights:
        out.branch("mlp(W)", "B", x.layer, x.mlp_w, after_mlp)
    out.compute("attn(B)", "B", x.layer, x.attn_b)
    if weights:
        out.compute("attn(W)", "B", x.layer, x.attn_w, chained=False)


def weight_gradients(layers: Sequence[LayerTimes]) -> Program:
    """W of a chunk, its layers in forward order, postponed: compute only."""
    out = _ProgramWriter()
    for x in reversed(layers):
        out.compute("mlp(W)", "B", x.layer, x.mlp_w)
        out.compute("attn(W)", "B", x.layer, x.attn_w)
    return tuple(out.nodes)


def pair(f: LayerTimes | None, b: LayerTimes | None, out: _ProgramWriter | None = None) -> _ProgramWriter:
    """Write one F block next to one B block, either maybe missing, in the order of figure 4 of the report.

    The writer has the `nodes` of the program so far, and the `last` node of each half.

    References
    ----------
    DeepSeek-V3 Technical Report, arXiv 2412.19437, figure 4.
    """
    out = out or _ProgramWriter()
    if f is None or b is None:
        if f is not None:
            _forward(out, f)
        if b is not None:
            _backward(out, b, weights=True)
        return out
    _again(out, b)
    if b.communicates:
        out.collective("combine(B)", "B", b.layer, DISPATCH)
    out.compute("attn(F)", "F", f.layer, f.attn_f)
    if f.communicates:
        out.collective("dispatch(F)", "F", f.layer, DISPATCH)
    out.compute("mlp(B)", "B", b.layer, b.mlp_b)
    after_mlp = out.last["B"]
    if b.communicates:
        out.collective("dispatch(B)", "B", b.layer, COMBINE)
    out.branch("mlp(W)", "B", b.layer, b.mlp_w, after_mlp)
    out.compute("mlp(F)", "F", f.layer, f.mlp_f)
    if f.communicates:
        out.collective("combine(F)", "F", f.layer, COMBINE)
    out.compute("attn(B)", "B", b.layer, b.attn_b)
    out.compute("attn(W)", "B", b.layer, b.attn_w, chained=False)
    return out


def paired(fs: Sequence[LayerTimes], bs: Sequence[LayerTimes], steps: Sequence[tuple[bool, bool]]) -> Program:
    """Program of an overlapped pair of chunks, the blocks of both in forward order.

    Each step takes an F block, a B block, or both.
    References
    ----------
    DeepSeek-V3 Technical Report, arXiv 2412.19437, figure 4.
    """
    out, f, b = _ProgramWriter(), iter(fs), iter(reversed(bs))
    for takes_f, takes_b in steps:
        pair(next(f) if takes_f else None, next(b) if takes_b else None, out)
    return tuple(out.nodes)


def span_s(program: Program, collective_s: Mapping[str, float]) -> float:
    """Time of a program when every rank is alike.

    Parameters
    ----------
    program : tuple of Node
    collective_s : mapping
        Name of a kernel (`DISPATCH`, `COMBINE`) -> its time [s].

    Returns
    -------
    float
        The time from its first node to its last [s].
    """
    ends: list[float] = []
    compute = comm = 0.0
    for node in program:
        ready = max((ends[i] for i in node.waits), default=0.0)
        if node.collective is None:
            compute = max(compute, ready) + node.mean_s
            ends.append(compute)
        else:
            comm = max(comm, ready) + collective_s[node.collective]
            ends.append(comm)
    return max(compute, comm)


def compute_s(program: Program) -> float:
    """Time of a program's compute stream at the mean load.

    Parameters
    ----------
    program : tuple of Node

    Returns
    -------
    float
        The time [s].
    """
    return sum(node.mean_s for node in program if node.collective is None)


def serial(program: Program) -> Program:
    """Rewrite a program to do one thing at a time: every collective is exposed."""
    return tuple(node._replace(waits=(i - 1,) if i else ()) for i, node in enumerate(program))


def reducing(
    program: Program, calls: Mapping[str, Sequence[str]], took_s: Mapping[str, float] | None = None
) -> Program:
    """Put the reductions inside layers on the network: kernels that follow a node, instead of its exposed time.

    `calls` are the kernels that follow a node, by its name, one after another; that of a block with routed
    experts is "experts(F)". They take the place of `took_s` of its exposed time, of all of it where left out.
    What waited for a node waits for the last of its kernels. Those of embedding and heads stay a time of theirs.
    """
    out: list[Node] = []
    place: list[int] = []
    for node in program:
        own = node._replace(waits=tuple(place[i] for i in node.waits))
        asked = node.name.replace("mlp", "experts") if node.routed_s > 0 else node.name
        kernels = calls.get(asked, ()) if node.exposed_s > 0 and node.layer >= 0 else ()
        left = max(0.0, node.exposed_s - took_s.get(asked, 0.0)) if took_s else 0.0
        out.append(own._replace(exposed_s=left) if kernels else own)
        for kernel in kernels:
            name = f"{kernel}({node.half})"
            out.append(Node(name, node.half, node.layer, kernel, waits=(len(out) - 1,)))
        place.append(len(out) - 1)
    return tuple(out)


def one_after_another(first: Program, second: Program) -> Program:
    """Join two programs in a row: the second starts when the first has ended."""
    last = len(first) - 1
    moved = (
        node._replace(waits=tuple(i + len(first) for i in node.waits) or ((last,) if last >= 0 else ()))
        for node in second
    )
    return (*first, *moved)
