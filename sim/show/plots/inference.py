"""Plots of inference: where a pass goes, what memory holds, and what a deployment delivers against what a user sees."""

from __future__ import annotations

from sim.show import style
from sim.show.canvas import Canvas, Picture, absent
from sim.show.plots.bars import mark_bounds, spoken, stacked
from sim.show.views import lanes
from sim.show.views.inference import PARTS, PassView
from sim.show.views.run import RunsView
from sim.units import show

ALONE: tuple[str, ...] = ()
"""Kinds that it draws of one run at a time."""
_COLOUR = {
    **{part: colour for part, (_, colour) in lanes.PARTS.items()},
    "waits": "#F2791B",
    "host": "#86515E",
    "last_rank": style.OTHERS["pale"],
    "ends": style.OTHERS["mint"],
    "reductions": "#BC86F2",
    "pool": style.OTHERS["teal"],
    "pipeline": style.OTHERS["wine"],
}
_HELD = {
    "cache": "#F2791B",
    "routed experts": _COLOUR["experts"],
    "shared experts": _COLOUR["shared"],
    "attention": _COLOUR["attention"],
    "dense layers": _COLOUR["dense"],
    "gates": style.OTHERS["teal"],
    "embedding and head": style.OTHERS["mint"],
    "communication buffers": _COLOUR["dispatch"],
    "graphs and activations": "#86515E",
    "reserve": style.NEUTRAL,
}
_MAX_NAMED = 4  # variants that a title names


def phases(runs: RunsView) -> Picture:
    """Time of a pass by part, a stacked bar for each variant, with its lower bound."""
    passes = runs.select(PassView)
    spent = {run.name: run.where for run in passes}
    if not any(spent.values()):
        raise absent("phases", "this one kept no parts")
    scale, unit = style.time_unit(max(run.step_time_s for run in passes))
    figure = Canvas()
    looks = {part: (label, _COLOUR[part]) for part, label in PARTS.items()}
    stacked(figure, looks, spent, scale, f"<br>%{{x:.4g}} {unit}, %{{customdata:.1%}} of the step")
    mark_bounds(figure, [run.step_bound_s / scale for run in passes], list(spent), unit)
    figure.axis("x", title=f"time of a pass [{unit}]", rangemode="tozero")
    ends = [pick(passes, key=lambda run: run.step_time_s) for pick in (min, max)]
    named = passes if len(passes) <= _MAX_NAMED else dict.fromkeys((passes[0], *ends))
    title = f"A pass takes {'; '.join(_takes(run, alone=len(passes) == 1) for run in named)}"
    words = spoken(PARTS, spent, lambda time_s: show(time_s, "s", 3))
    return style.finish(figure, title, height=190 + 46 * len(passes), alt=f"Stacked bars: {words}", top=96)


def _takes(run: PassView, *, alone: bool) -> str:
    """Say how long a pass takes, and name its largest parts."""
    largest = sorted(run.where.items(), key=lambda part: -part[1])[: 3 if alone else 1]
    shares = ", ".join(f"{PARTS[part]} {time_s / run.step_time_s:.0%}" for part, time_s in largest)
    time = show(run.step_time_s, "s", 3)
    return f"{time}: {shares}" if alone else f"{time} in {run.name} ({shares})"


def memory(runs: RunsView) -> Picture:
    """Memory of a GPU by part, next to its capacity: a bar for each variant."""
    passes = runs.select(PassView)
    held = {run.name: run.held for run in passes}
    if not any(held.values()):
        raise absent("memory", "this one counted none")
    capacity = {run.name: run.memory_capacity_bytes or 0.0 for run in passes}
    largest = max([*(sum(parts.values()) for parts in held.values()), *capacity.values()])
    scale, unit = style.bytes_unit(largest)
    figure = Canvas()
    parts = dict.fromkeys(part for sizes in held.values() for part in sizes)
    looks = {part: (part, _HELD.get(part, style.NEUTRAL)) for part in parts}
    stacked(figure, looks, held, scale, f": %{{x:.3g}} {unit}")
    figure.add(
        "scatter", x=[size / scale for size in capacity.values()], y=list(capacity), mode="markers", name="HBM of a GPU",
        marker={"symbol": "line-ns", "size": 26, "line": {"width": 2.5, "color": style.BAD}},
        hovertemplate=f"%{{y}}: %{{x:.3g}} {unit} of HBM<extra></extra>",
    )  # fmt: skip
    figure.axis("x", title=f"memory of a GPU [{unit}]", range=[0, 1.06 * largest / scale])
    room = sorted({run.max_batch_per_gpu for run in passes})
    fits = f"{room[0]:,.0f}" if len(room) == 1 else f"{room[0]:,.0f} to {room[-1]:,.0f}"
    first = passes[0]
    size, of = (show(size, "bytes", 3) for size in (sum(first.held.values()), capacity[first.name]))
    who = "A GPU" if len(passes) == 1 else first.name
    title = f"{who} holds {size} of {of}; {fits} {first.noun} would fit"
    words = spoken({}, held, lambda size: show(size, "bytes", 3))
    height = 190 + 46 * len(passes)
    return style.finish(figure, title, height=height, alt=f"Stacked bars of memory: {words}", top=96)


def interactivity(runs: RunsView) -> Picture:
    """Tokens a second of a GPU against tokens a second of a user, one point a decode variant."""
    places: dict[tuple[float, float], list[str]] = {}
    for run in runs.select(PassView):
        if run.tokens_per_s_per_user is not None:
            places.setdefault((run.tokens_per_s_per_user, run.tokens_per_s_per_gpu), []).append(run.name)
    if not places:
        raise absent("interactivity", "only decode has tokens per user")
    points = sorted((user, gpu, ", ".join(sorted(names))) for (user, gpu), names in places.items())
    users, gpus, names = (list(column) for column in zip(*points, strict=True))
    figure = Canvas()
    best = [i for i in range(len(points)) if gpus[i] >= max(gpus[i:])]  # no other is better for both
    figure.add(
        "scatter", x=[users[i] for i in best], y=[gpus[i] for i in best], mode="lines", showlegend=False, hoverinfo="skip",
        line={"color": style.COLOUR["nic"], "width": 2},
    )  # fmt: skip
    figure.add(
        "scatter", x=users, y=gpus, text=names, mode="markers+text" if len(points) <= 12 else "markers", showlegend=False,
        textposition=["top center" if i in best else "bottom center" for i in range(len(points))],
        marker={"size": 9, "color": style.COLOUR["nic"], "opacity": [1.0 if i in best else 0.45 for i in range(len(points))]},
        hovertemplate="%{text}: %{y:,.0f} tokens/s a GPU at %{x:.1f} tokens/s a user<extra></extra>",
    )  # fmt: skip
    figure.axis("x", title="tokens/s of a user", range=[0, 1.15 * users[-1]])
    figure.axis("y", title="tokens/s of a GPU", range=[0, 1.15 * max(gpus)])
    most = max(range(len(points)), key=lambda i: gpus[i])
    title = (
        f"{names[most]} delivers most, {gpus[most]:,.0f} tokens/s a GPU, at {users[most]:.1f} tokens/s a user"
    )
    if names[-1] != names[most]:
        title += f"; {names[-1]} is quickest, {users[-1]:.1f}, at {gpus[-1]:,.0f}"
    words = "; ".join(f"{name}: {user:.1f} a user, {gpu:.0f} a GPU" for user, gpu, name in points)
    return style.finish(figure, title, height=420, alt=f"Throughput against interactivity. {words}")
