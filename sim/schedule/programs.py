"""What a rank group does inside one pipeline operation: nodes on two streams, compute and communication.

A forward (F) or backward (B, W) chunk is a list of blocks, one a layer. A block of an MoE layer is

    F:  attn(F) -> dispatch(F) -> mlp(F) -> combine(F)
    B:  combine(B) -> mlp(B) [-> mlp(W)] -> dispatch(B) -> attn(B) [-> attn(W)]

where combine(B) is a *dispatch* kernel (the gradient is quantised and sent to the experts) and dispatch(B) a *combine*
kernel. An overlapped pair interleaves an F block of one microbatch with a B block of another, in the order of Figure 4
of the DeepSeek-V3 report (arXiv 2412.19437), so that each exchange of one runs beside compute of the other:

    compute:        attn(F)  mlp(B)  mlp(W)  mlp(F)  attn(B)  attn(W)
    communication:  combine(B)  dispatch(F)  dispatch(B)  combine(F)

Blocks without an exchange (dense layers, embedding, heads) are plain compute. Chunks of unequal lists are aligned so
that the exchanges are hidden best (`aligned`): which blocks pair up is searched, not assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

DISPATCH, COMBINE = "dispatch", "combine"
_SEARCHED = 30  # products of block counts up to which every alignment is tried


@dataclass(frozen=True, slots=True)
class Node:
    """One step of a program. Nodes of a stream run in the order of the program."""

    name: str  # "attn(F)"
    half: str  # F | B: which microbatch it works for
    layer: int  # layer of the model, -1 for embedding and heads
    exchange: str | None = None  # dispatch | combine: runs on the communication stream
    fixed_s: float = 0.0  # compute that does not depend on the routed load
    routed_s: float = 0.0  # compute at the mean load, proportional to the rank's routed load
    waits: tuple[int, ...] = ()  # nodes of the program that must have ended

    @property
    def mean_s(self) -> float:
        """Compute time at the mean load [s]."""
        return self.fixed_s + self.routed_s


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """Compute time of one phase of one layer [s]: what is fixed, and what is proportional to the routed load."""

    fixed_s: float = 0.0
    routed_s: float = 0.0

    @property
    def mean_s(self) -> float:
        """At the mean load [s]."""
        return self.fixed_s + self.routed_s

    def __add__(self, other: PhaseTime) -> PhaseTime:
        return PhaseTime(self.fixed_s + other.fixed_s, self.routed_s + other.routed_s)


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """Compute times of one layer of a stage, by phase. `exchanges` says whether its MLP talks to other ranks."""

    layer: int
    exchanges: bool
    attn_f: PhaseTime
    mlp_f: PhaseTime
    attn_b: PhaseTime
    mlp_b: PhaseTime
    attn_w: PhaseTime
    mlp_w: PhaseTime


Program = tuple[Node, ...]


class _Writer:
    """Appends nodes, keeping the last node of each half's chain of dependencies."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.last: dict[str, int] = {}

    def compute(self, name: str, half: str, layer: int, time: PhaseTime, *, chained: bool = True) -> None:
        waits = (self.last[half],) if half in self.last else ()
        self.nodes.append(Node(name, half, layer, None, time.fixed_s, time.routed_s, waits))
        if chained:
            self.last[half] = len(self.nodes) - 1

    def exchange(self, name: str, half: str, layer: int, kernel: str) -> None:
        waits = (self.last[half],) if half in self.last else ()
        self.nodes.append(Node(name, half, layer, kernel, waits=waits))
        self.last[half] = len(self.nodes) - 1


def forward(layers: Sequence[LayerTimes]) -> Program:
    """F of a chunk on its own: nothing to hide its exchanges behind."""
    out = _Writer()
    for layer in layers:
        _forward(out, layer)
    return tuple(out.nodes)


def _forward(out: _Writer, x: LayerTimes) -> None:
    out.compute("attn(F)", "F", x.layer, x.attn_f)
    if x.exchanges:
        out.exchange("dispatch(F)", "F", x.layer, DISPATCH)
    out.compute("mlp(F)", "F", x.layer, x.mlp_f)
    if x.exchanges:
        out.exchange("combine(F)", "F", x.layer, COMBINE)


def backward(layers: Sequence[LayerTimes], *, weights: bool = True) -> Program:
    """B of a chunk on its own, layers given in forward order; with `weights` mlp(W) runs beside dispatch(B)."""
    out = _Writer()
    for layer in reversed(layers):
        _backward(out, layer, weights)
    return tuple(out.nodes)


def _backward(out: _Writer, x: LayerTimes, weights: bool) -> None:
    if x.exchanges:
        out.exchange("combine(B)", "B", x.layer, DISPATCH)
    out.compute("mlp(B)", "B", x.layer, x.mlp_b)
    after_mlp = out.last["B"]
    if x.exchanges:
        out.exchange("dispatch(B)", "B", x.layer, COMBINE)
    if weights:
        out.nodes.append(Node("mlp(W)", "B", x.layer, None, x.mlp_w.fixed_s, x.mlp_w.routed_s, (after_mlp,)))
    out.compute("attn(B)", "B", x.layer, x.attn_b)
    if weights:
        out.compute("attn(W)", "B", x.layer, x.attn_w, chained=False)


def weight_gradients(layers: Sequence[LayerTimes]) -> Program:
    """W of a chunk, postponed: compute only."""
    out = _Writer()
    for x in reversed(layers):
        out.compute("mlp(W)", "B", x.layer, x.mlp_w)
        out.compute("attn(W)", "B", x.layer, x.attn_w)
    return tuple(out.nodes)


def pair(f: LayerTimes | None, b: LayerTimes | None, out: _Writer | None = None) -> _Writer:
    """One F block beside one B block (either may be missing), in the order of Figure 4."""
    out = out or _Writer()
    if f is None or b is None:
        if f is not None:
            _forward(out, f)
        if b is not None:
            _backward(out, b, weights=True)
        return out
    if b.exchanges:
        out.exchange("combine(B)", "B", b.layer, DISPATCH)
    out.compute("attn(F)", "F", f.layer, f.attn_f)
    if f.exchanges:
        out.exchange("dispatch(F)", "F", f.layer, DISPATCH)
    out.compute("mlp(B)", "B", b.layer, b.mlp_b)
    after_mlp = out.last["B"]
    if b.exchanges:
        out.exchange("dispatch(B)", "B", b.layer, COMBINE)
    out.nodes.append(Node("mlp(W)", "B", b.layer, None, b.mlp_w.fixed_s, b.mlp_w.routed_s, (after_mlp,)))
    out.compute("mlp(F)", "F", f.layer, f.mlp_f)
    if f.exchanges:
        out.exchange("combine(F)", "F", f.layer, COMBINE)
    out.compute("attn(B)", "B", b.layer, b.attn_b)
    out.compute("attn(W)", "B", b.layer, b.attn_w, chained=False)
    return out


def paired(fs: Sequence[LayerTimes], bs: Sequence[LayerTimes], steps: Sequence[tuple[bool, bool]]) -> Program:
    """An overlapped pair of chunks; `steps` says for each step whether it takes an F block, a B block, or both."""
    out, f, b = _Writer(), iter(fs), iter(reversed(bs))
    for takes_f, takes_b in steps:
        pair(next(f) if takes_f else None, next(b) if takes_b else None, out)
    return tuple(out.nodes)


def aligned(
    fs: tuple[LayerTimes, ...], bs: tuple[LayerTimes, ...], exchange_s: Callable[[str], float]
) -> Program:
    """The pairing of the two chunks' blocks with the shortest time, every rank alike and exchanges at `exchange_s`."""
    return _aligned(fs, bs, exchange_s(DISPATCH), exchange_s(COMBINE))


@lru_cache(maxsize=256)
def _aligned(
    fs: tuple[LayerTimes, ...], bs: tuple[LayerTimes, ...], dispatch_s: float, combine_s: float
) -> Program:
    alike = [tuple(replace(x, layer=0) for x in chunk) for chunk in (fs, bs)]
    return paired(fs, bs, _best_steps(*alike, dispatch_s, combine_s))


Steps = tuple[tuple[bool, bool], ...]


@dataclass(frozen=True, slots=True)
class _State:
    """Where the streams and the two halves' chains of dependencies stand [s]."""

    compute: float = 0.0
    comm: float = 0.0
    f: float = 0.0
    b: float = 0.0

    def after(self, block: _Writer, times: Mapping[str, float]) -> _State:
        """The same when a block has run."""
        compute, comm = self.compute, self.comm
        ends: list[float] = []
        for node in block.nodes:
            ready = max((ends[i] for i in node.waits), default=self.f if node.half == "F" else self.b)
            if node.exchange is None:
                compute = max(compute, ready) + node.mean_s
                ends.append(compute)
            else:
                comm = max(comm, ready) + times[node.exchange]
                ends.append(comm)
        last = block.last
        f, b = ends[last["F"]] if "F" in last else self.f, ends[last["B"]] if "B" in last else self.b
        return _State(compute, comm, f, b)


@lru_cache(maxsize=256)
def _best_steps(
    fs: tuple[LayerTimes, ...], bs: tuple[LayerTimes, ...], dispatch_s: float, combine_s: float
) -> Steps:
    """The walk through both lists with the shortest span; of equal ones the first, pairs before single blocks.

    Every walk is tried, but for long lists only those with as many pairs as the shorter one has blocks. Walks that
    start alike share the work, and one that could not get shorter by hiding everything to come is left.
    """
    times = {DISPATCH: dispatch_s, COMBINE: combine_s}
    backward_order = bs[::-1]
    num_f, num_b = len(fs), len(bs)
    free = num_f * num_b <= _SEARCHED
    left_f = _left([x.attn_f.mean_s + x.mlp_f.mean_s for x in fs])
    left_b = _left([sum(p.mean_s for p in (x.mlp_b, x.mlp_w, x.attn_b, x.attn_w)) for x in backward_order])
    blocks: dict[tuple[int, int], _Writer] = {}
    best: list[tuple[float, Steps]] = []

    def block(i: int, j: int) -> _Writer:
        if (i, j) not in blocks:
            blocks[i, j] = pair(fs[i] if i >= 0 else None, backward_order[j] if j >= 0 else None)
        return blocks[i, j]

    def walk(i: int, j: int, state: _State, taken: Steps) -> None:
        if best and state.compute + left_f[i] + left_b[j] >= best[0][0]:
            return
        if i == num_f and j == num_b:
            span = max(state.compute, state.comm)
            if not best or span < best[0][0]:
                best[:] = [(span, taken)]
            return
        rest_f, rest_b = num_f - i, num_b - j
        if rest_f and rest_b:
            walk(i + 1, j + 1, state.after(block(i, j), times), (*taken, (True, True)))
        if rest_f and (free or rest_f > rest_b):
            walk(i + 1, j, state.after(block(i, -1), times), (*taken, (True, False)))
        if rest_b and (free or rest_b > rest_f):
            walk(i, j + 1, state.after(block(-1, j), times), (*taken, (False, True)))

    walk(0, 0, _State(), ())
    return best[0][1]


def _left(times_s: Sequence[float]) -> list[float]:
    """Sum of the times from each place on, [len(times_s) + 1] [s]."""
    return [sum(times_s[i:]) for i in range(len(times_s) + 1)]


def span_s(program: Program, exchange_s: Mapping[str, float]) -> float:
    """Time of a program when every rank is alike and an exchange takes `exchange_s` of its kernel [s]."""
    ends: list[float] = []
    compute = comm = 0.0
    for node in program:
        ready = max((ends[i] for i in node.waits), default=0.0)
        if node.exchange is None:
            compute = max(compute, ready) + node.mean_s
            ends.append(compute)
        else:
            comm = max(comm, ready) + exchange_s[node.exchange]
            ends.append(comm)
    return max(compute, comm)


def compute_s(program: Program) -> float:
    """Compute time in a program at the mean load [s]."""
    return sum(node.mean_s for node in program if node.exchange is None)


def one_after_another(first: Program, second: Program) -> Program:
    """Two programs in a row: the second starts when the first has ended."""
    last = len(first) - 1
    moved = (
        replace(node, waits=tuple(i + len(first) for i in node.waits) or ((last,) if last >= 0 else ()))
        for node in second
    )
    return (*first, *moved)
