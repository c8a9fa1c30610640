"""Plot of one overlapped layer pair: its compute phases and its exchanges on their streams, beside a real trace's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from sim import documents
from sim.cost.measured import PROFILE_SCHEMA, MeasuredProfile, load_profile
from sim.show import style
from sim.show.canvas import Canvas, Picture, absent
from sim.show.plots.timeline import boxes
from sim.show.views.run import RunsView
from sim.show.views.training import Nodes, StepView
from sim.show.words.headline import headline
from sim.units import show

_PHASES = ("attn(F)", "mlp(B)", "mlp(W)", "mlp(F)", "attn(B)", "attn(W)")
_AFTER = {"combine(B)": None, "dispatch(F)": "attn(F)", "dispatch(B)": "mlp(B)", "combine(F)": "mlp(F)"}
"""Exchange of a pair -> the phase after which it starts, in the order of the schedule."""
_LOOKS = {
    "forward compute": "#005EAE",
    "backward compute": "#F2791B",
    "weight gradients": "#5EAE94",
    "dispatch kernel": "#BC86F2",
    "combine kernel": "#86515E",
    "layer before": "rgba(0,0,0,0)",
}
_KERNELS = {
    "dispatch kernel": "dispatch kernels: dispatch(F), combine(B)",
    "combine kernel": "combine kernels: combine(F), dispatch(B)",
}
"""Legend of the exchanges: the backward of a combine is run by a dispatch kernel, and the other way round."""
_NARROW = 0.035  # of the whole width; a shorter bar is not named


@dataclass(frozen=True, slots=True)
class PairBar:
    """A phase or an exchange of a pair [s]; 0 is when the compute of the layer before ended."""

    name: str
    stream: str  # compute | communication
    start_s: float
    end_s: float


def layer_pair(runs: RunsView) -> Picture:
    """One layer of an overlapped pair on two streams, and the same of a real trace where one of this kind is known."""
    step = next(iter(runs.select(StepView)), None)
    if step is None:
        raise absent("layer_pair", "this one is no training step")
    ours = pair_of(step)
    if ours is None:
        overlaps = "no forward of it overlaps a backward, layer by layer"
        raise absent("layer_pair", overlaps if step.pipeline else "this one kept no operations")
    measured = measured_for(step)
    theirs = measured_bars(measured) if measured else []
    rows = {"simulated": ours, **({"measured": theirs} if theirs else {})}
    scale, unit = style.time_unit(max(bar.end_s for bars in rows.values() for bar in bars))
    wide = max(bar.end_s for bars in rows.values() for bar in bars) / scale
    figure = Canvas()
    spans: dict[str, list[tuple[float, float, float]]] = {name: [] for name in _LOOKS}
    names: list[str] = []
    for who, bars in rows.items():
        for stream in ("compute", "communication"):
            row = len(names)
            names.append(f"{who},<br>{stream}")
            for bar in (bar for bar in bars if bar.stream == stream):
                start, end = bar.start_s / scale, bar.end_s / scale
                spans[_look(bar)].append((start, end, row))
                if start >= 0 or bar.stream != "compute":
                    _name(figure, bar, start, end, row, narrow=_NARROW * wide)
    for name, colour in _LOOKS.items():
        if spans[name]:
            hollow: dict[str, Any] = (
                {"line": {"width": 1, "color": style.NEUTRAL}} if name == "layer before" else {}
            )
            boxes(figure, spans[name], name=_KERNELS.get(name, name), fillcolor=colour, **hollow)
    marks = [(bar, names.index(f"{who},<br>{bar.stream}"), who) for who, bars in rows.items() for bar in bars]
    figure.add(
        "scatter", x=[(b.start_s + b.end_s) / 2 / scale for b, _, _ in marks], y=[row for _, row, _ in marks], mode="none", hoveron="points",
        text=[f"{b.name}, {who}: {show(b.end_s - b.start_s, 's')}" for b, _, who in marks], hoverinfo="text", showlegend=False,
    )  # fmt: skip
    low = min(bar.start_s for bars in rows.values() for bar in bars) / scale
    of = f"; measured: means of {measured.num_layers} layers, end to end" if measured else ""
    figure.axis(
        "x",
        title=f"time [{unit}]{of}",
        range=[low - 0.01 * wide, wide * 1.01],
        showgrid=False,
        zeroline=False,
    )
    figure.rows(names, fixedrange=True)
    figure.layout |= {"hovermode": "closest", "hoverdistance": 80, "dragmode": "zoom"}
    title = headline(step, _title(ours, theirs))
    alt = "; ".join(
        f"{who}: " + ", ".join(f"{b.name} {show(b.end_s - b.start_s, 's', 3)}" for b in bars) for who, bars in rows.items()
    )  # fmt: skip
    return style.finish(figure, title, height=190 + 58 * len(names), alt=alt, top=86)


def _look(bar: PairBar) -> str:
    if bar.stream == "compute" and bar.start_s < 0:
        return "layer before"
    kernel, half = bar.name.rstrip(")").split("(")
    if kernel in ("dispatch", "combine"):  # the backward of a combine is a dispatch, and the other way round
        return "dispatch kernel" if (kernel == "dispatch") == (half == "F") else "combine kernel"
    return {"F": "forward compute", "B": "backward compute", "W": "weight gradients"}[half]


def _name(figure: Canvas, bar: PairBar, start: float, end: float, row: int, narrow: float) -> None:
    if end - start > narrow:
        text = bar.name.replace("(", "<br>(") if end - start < 2.4 * narrow else bar.name
        word = bar.name.partition("(")[0]
        fits = end - start > 0.63 * len(word) * narrow
        name = "wide" if fits else "inside"  # a narrow screen keeps the wide ones
        figure.note(text, (start + end) / 2, row, font={"size": 12, "color": "#FFFFFF"}, name=name)


def _title(ours: Sequence[PairBar], theirs: Sequence[PairBar]) -> str:
    span_s, computed_s = _end(ours), _compute_s(ours)
    exposed_s, measured_s = span_s - computed_s, _compute_s(theirs)
    against = (
        f" against {show(measured_s, 's', 3)} measured ({computed_s / measured_s - 1:+.1%})" if theirs else ""
    )
    hidden = exposed_s <= 1e-3 * span_s
    waits = "and every exchange is hidden" if hidden else f"and waits {show(exposed_s, 's', 3)} for exchanges"
    return f"a layer forward and backward computes for {show(computed_s, 's', 3)}{against} {waits}"


def _end(bars: Sequence[PairBar]) -> float:
    """End of the compute of the pair; collectives that outlive it run beside the next layer."""
    return max(bar.end_s for bar in bars if bar.stream == "compute")


def _compute_s(bars: Sequence[PairBar]) -> float:
    return sum(bar.end_s - bar.start_s for bar in bars if bar.stream == "compute" and bar.start_s >= 0)


def pair_of(step: StepView) -> list[PairBar] | None:
    """One layer pair in full, from 0 on: of the first overlapped operation, its second such layer where it has two."""
    kinds = {rank.rank: rank.kinds for rank in step.pipeline}
    best: list[PairBar] | None = None
    for rank in step.nodes:
        for task in dict.fromkeys(rank.tasks):
            if kinds[rank.rank][task] != "FB":
                continue
            pairs = _pairs([i for i, its in enumerate(rank.tasks) if its == task], rank)
            if len(pairs) > 1:
                return pairs[1]
            best = best or (pairs[0] if pairs else None)
    return best


def _pairs(nodes: Sequence[int], rank: Nodes) -> list[list[PairBar]]:
    """The layer pairs of one operation: runs of its nodes, each up to an attn(W), with every phase and exchange once."""
    runs: list[list[int]] = [[]]
    for i in nodes:
        if rank.end_s[i] > rank.start_s[i]:
            runs[-1].append(i)
        if rank.names[i] == "attn(W)":
            runs.append([])
    wanted = sorted((*_PHASES, *_AFTER))
    pairs = []
    for before, run in pairwise([[], *runs]):
        if sorted(rank.names[i] for i in run) == wanted:
            zero = rank.end_s[before[-1]] if before else min(rank.start_s[i] for i in run)
            pairs.append(
                [
                    PairBar(rank.names[i], rank.streams[i], rank.start_s[i] - zero, rank.end_s[i] - zero)
                    for i in (*before[-1:], *run)
                ]
            )
    return pairs


def measured_for(step: StepView) -> MeasuredProfile | None:
    """The profile the scenario computes with; else a shipped one of the same GPU, model, tokens and EP size."""
    for profile in _shipped():
        same_gpu = step.hardware.upper() in profile.gpu.upper().split()
        same_size = (profile.tokens_per_rank, profile.world_size) == (step.microbatch_tokens, step.ep)
        if step.profile == profile.name or (same_gpu and same_size and step.model in profile.title.lower()):
            return profile
    return None


@cache
def _shipped() -> tuple[MeasuredProfile, ...]:
    paths = documents.shipped("hardware/compute").values()
    return tuple(
        load_profile(path) for path in paths if documents.load(path).tree.get("schema") == PROFILE_SCHEMA
    )


def measured_bars(profile: MeasuredProfile) -> list[PairBar]:
    """Its phases end to end, and its exchanges from where the schedule starts them."""
    bars, ends, clock = [], {}, 0.0
    for name in _PHASES:
        bars.append(PairBar(name, "compute", clock, clock + profile.phases[name].elapsed_s))
        clock = ends[name] = bars[-1].end_s
    last = profile.phases[_PHASES[-1]].elapsed_s
    bars.append(PairBar(_PHASES[-1], "compute", -last, 0.0))  # of the layer before
    free = -last
    for name, after in _AFTER.items():
        start = max(free, ends[after] if after else free)
        free = start + profile.exchanges[name].data_s
        bars.append(PairBar(name, "communication", start, free))
    return bars
