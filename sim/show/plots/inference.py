"""Plots of inference: where a pass goes, what memory holds, and what a deployment delivers against what a user sees."""

from __future__ import annotations

from typing import Any

from sim.show import style
from sim.show.canvas import Canvas, absent
from sim.show.plots.times import mark_bounds
from sim.show.views import inference as inference_views
from sim.show.views.lanes import PARTS
from sim.show.views.run import Case, Result, cases
from sim.units import show

_COLOUR = {
    **{part: colour for part, (_, colour) in PARTS.items()},
    "waits": "#D55E00",
    "last_rank": "#E69F00",
    "ends": "#55606A",
}
_TOLD = 4  # variants that a title names
_MEMORY = {
    "cache": "#D55E00",
    "routed experts": PARTS["experts"][1],
    "shared experts": PARTS["shared"][1],
    "attention": PARTS["attention"][1],
    "dense layers": PARTS["dense"][1],
    "embedding and head": "#55606A",
    "communication buffers": PARTS["dispatch"][1],
    "graphs and activations": "#E69F00",
    "reserve": style.NEUTRAL,
}


def passes_of(result: Result, kind: str) -> list[Case]:
    """The passes of a result. Raises `InputError` where there are none."""
    found = [case for case in cases(result) if inference_views.is_inference(case)]
    if not found:
        raise absent(kind, "this one is no prefill or decode")
    return found


def phases(result: Result) -> Any:
    """Where a pass goes, a stacked bar for each variant, with its lower bound."""
    found = passes_of(result, "phases")
    spent = {case.name: inference_views.where(case) for case in found}
    if not any(spent.values()):
        raise absent("phases", "this one kept no parts")
    scale, unit = style.time_unit(max(case.metrics["step_time_s"] for case in found))
    figure = Canvas()
    for part, label in inference_views.PARTS.items():
        times = [spent[case.name].get(part, 0.0) for case in found]
        if not any(times):
            continue
        shares = [time / case.metrics["step_time_s"] for time, case in zip(times, found, strict=True)]
        figure.add(
            "bar", x=[t / scale for t in times], y=list(spent), orientation="h", name=label, marker={"color": _COLOUR[part]},
            customdata=shares, hovertemplate=f"%{{y}}, {label}<br>%{{x:.4g}} {unit}, %{{customdata:.1%}} of the step<extra></extra>",
        )  # fmt: skip
    bounds = [_bound_s(case) / scale for case in found]
    mark_bounds(figure, bounds, list(spent), unit)
    figure.axis("x", title=f"time of a pass [{unit}]", rangemode="tozero")
    figure.axis("y", autorange="reversed", ticksuffix="  ", showgrid=False, type="category")
    figure.layout |= {"barmode": "stack", "bargap": 0.3, "legend": {"traceorder": "normal"}}
    ends = [pick(found, key=lambda case: case.metrics["step_time_s"]) for pick in (min, max)]
    shown = found if len(found) <= _TOLD else list({case.name: case for case in (found[0], *ends)}.values())
    title = "A pass takes " + "; ".join(_takes(case, len(found) == 1) for case in shown)
    alt = "Stacked bars: " + "; ".join(
        f"{name}: " + ", ".join(f"{inference_views.PARTS[part]} {show(t, 's', 3)}" for part, t in one.items())
        for name, one in spent.items()
    )
    return style.finish(figure, title, height=190 + 46 * len(found), alt=alt, top=96)


def _takes(case: Case, alone: bool) -> str:
    """How long a pass takes, and its largest parts."""
    step = case.metrics["step_time_s"]
    parts = sorted(inference_views.where(case).items(), key=lambda one: -one[1])[: 3 if alone else 1]
    shares = ", ".join(f"{inference_views.PARTS[part]} {time / step:.0%}" for part, time in parts)
    return f"{show(step, 's', 3)}: {shares}" if alone else f"{show(step, 's', 3)} in {case.name} ({shares})"


def _bound_s(case: Case) -> float:
    """The lower bound of a pass; that of a TPOT is of one token."""
    return float(case.metrics.get("lower_bound_s", 0.0) * case.metrics.get("accepted_tokens_per_step", 1.0))


def memory(result: Result) -> Any:
    """What a GPU holds, by part, beside what it has: a bar for each variant."""
    found = passes_of(result, "memory")
    held = {case.name: inference_views.memory_parts(case) for case in found}
    if not any(held.values()):
        raise absent("memory", "this one counted none")
    capacity = {case.name: case.metrics.get("memory_capacity_bytes") for case in found}
    largest = max([*(sum(one.values()) for one in held.values()), *(c or 0.0 for c in capacity.values())])
    scale, unit = style.bytes_unit(largest)
    figure = Canvas()
    for part in dict.fromkeys(part for one in held.values() for part in one):
        figure.add(
            "bar", x=[one.get(part, 0.0) / scale for one in held.values()], y=list(held), orientation="h", name=part,
            marker={"color": _MEMORY.get(part, style.NEUTRAL)}, hovertemplate=f"%{{y}}, {part}: %{{x:.3g}} {unit}<extra></extra>",
        )  # fmt: skip
    figure.add(
        "scatter", x=[(c or 0.0) / scale for c in capacity.values()], y=list(capacity), mode="markers", name="HBM of a GPU",
        marker={"symbol": "line-ns", "size": 26, "line": {"width": 2.5, "color": style.BAD}},
        hovertemplate=f"%{{y}}: %{{x:.3g}} {unit} of HBM<extra></extra>",
    )  # fmt: skip
    figure.axis("x", title=f"memory of a GPU [{unit}]", range=[0, 1.06 * largest / scale])
    figure.axis("y", autorange="reversed", ticksuffix="  ", showgrid=False, type="category")
    figure.layout |= {"barmode": "stack", "bargap": 0.3, "legend": {"traceorder": "normal"}}
    room = sorted({case.metrics.get("max_batch_per_gpu", 0) for case in found})
    case = found[0]
    what = "prompts" if "ttft_s" in case.metrics else "requests"
    used = (
        f"{show(sum(held[case.name].values()), 'bytes', 3)} of {show(capacity[case.name] or 0.0, 'bytes', 3)}"
    )
    fits = f"{room[0]:,.0f}" if len(room) == 1 else f"{room[0]:,.0f} to {room[-1]:,.0f}"
    title = f"{'A GPU' if len(found) == 1 else case.name} holds {used}; {fits} {what} would fit"
    alt = "Stacked bars of memory: " + "; ".join(
        f"{name}: " + ", ".join(f"{part} {show(size, 'bytes', 3)}" for part, size in one.items()) for name, one in held.items()
    )  # fmt: skip
    return style.finish(figure, title, height=190 + 46 * len(found), alt=alt, top=96)


def interactivity(result: Result) -> Any:
    """Tokens a second of a GPU against tokens a second of a user, one point a decode variant."""
    points = sorted(
        (
            case.result["metrics"]["tokens_per_s_per_user"],
            case.result["metrics"]["tokens_per_s_per_gpu"],
            case.name,
        )
        for case in cases(result)
        if "tokens_per_s_per_user" in case.result.get("metrics", {})
    )
    if not points:
        raise absent("interactivity", "only decode has tokens per user")
    places: dict[tuple[float, float], list[str]] = {}
    for user, gpu, name in points:
        places.setdefault((user, gpu), []).append(name)
    points = [(user, gpu, ", ".join(mine)) for (user, gpu), mine in places.items()]
    users, gpus, names = (list(column) for column in zip(*points, strict=True))
    figure = Canvas()
    best = [i for i in range(len(points)) if gpus[i] >= max(gpus[i:])]  # no other is better for both
    figure.add(
        "scatter",
            x=[users[i] for i in best], y=[gpus[i] for i in best], mode="lines", showlegend=False, hoverinfo="skip",
            line={"color": style.COLOUR["nic"], "width": 2},
    )  # fmt: skip
    figure.add(
        "scatter",
            x=users, y=gpus, text=names, mode="markers+text" if len(points) <= 12 else "markers", showlegend=False,
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
    alt = "; ".join(f"{n}: {u:.1f} a user, {g:.0f} a GPU" for u, g, n in points)
    return style.finish(figure, title, height=420, alt=f"Throughput against interactivity. {alt}")
