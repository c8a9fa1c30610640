"""Plots of a training step: where it goes, and what memory holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.show import style
from sim.show.canvas import Canvas, absent
from sim.show.plots.times import mark_bounds
from sim.show.views import training as training_views
from sim.show.views.lanes import OPERATIONS
from sim.show.views.run import Case, Result, cases
from sim.show.words import training as training_words
from sim.units import show

_PHASE_COLOUR = {
    "1F_s": OPERATIONS["F"][1],
    "1B_s": OPERATIONS["B"][1],
    "1W_s": OPERATIONS["W"][1],
    "1F1B_s": OPERATIONS["FB"][1],
    "opt_s": style.NEUTRAL,
    "bubble_s": "rgba(123,133,143,0.28)",
}
_PART_COLOUR = {
    "weights": "#0A7ABF",
    "fp8 copies": "#3FA3D6",
    "gradients": "#D55E00",
    "optimizer": "#CC8400",
    "activations": "#009E73",
    "buffers": "#B766A0",
}
_MAX_NAMED = 24  # rows with a tick each


def steps_of(result: Result, kind: str) -> list[Case]:
    """The training steps of a result. Raises `InputError` where there are none."""
    found = [case for case in cases(result) if training_views.is_training(case)]
    if not found:
        raise absent(kind, "this one is no training step")
    return found


def phases(result: Result) -> Any:
    """Where the step goes: a stacked bar for each variant (its mean pipeline rank), or for each rank of a single run."""
    steps = steps_of(result, "phases")
    single = len(steps) == 1
    of_ranks = _rank_rows(steps[0]) if single else []
    rows = of_ranks or [(case.name, case.metrics["phases_mean"]) for case in steps]
    scale, unit = style.time_unit(max(case.metrics["step_time_s"] for case in steps))
    figure = Canvas()
    for phase, label in training_views.PHASES.items():
        times = [mine.get(phase, 0.0) for _, mine in rows]
        if max(times) <= 0:
            continue
        figure.add(
            "bar", x=[t / scale for t in times], y=[name for name, _ in rows], orientation="h", name=label,
            marker={"color": _PHASE_COLOUR[phase]}, customdata=[t / sum(mine.values()) for t, (_, mine) in zip(times, rows, strict=True)],
            hovertemplate=f"%{{y}}, {label}<br>%{{x:.4g}} {unit}, %{{customdata:.1%}} of the step<extra></extra>",
        )  # fmt: skip
    bounds = [case.metrics.get("lower_bound_s", 0.0) / scale for case in steps]
    mark_bounds(figure, bounds, [rows[0][0]] if single else [name for name, _ in rows], unit)
    _published(figure, steps, rows, scale)
    whose = "" if of_ranks else " of the mean pipeline rank"
    figure.axis("x", title=f"time{whose} [{unit}]", rangemode="tozero")
    figure.axis("y", autorange="reversed", ticksuffix="  ", showgrid=False, type="category")
    if single and len(rows) > 1:
        figure.axis("y", title="pipeline rank", tickvals=[n for n, _ in rows][:: -(-len(rows) // _MAX_NAMED)])
    figure.layout |= {"barmode": "stack", "bargap": 0.25, "legend": {"traceorder": "normal"}}
    title = _phase_title(steps[0]) if single else " ".join(training_words.compared(steps)[:2])
    alt = "Stacked bars: " + "; ".join(
        f"{name}: " + ", ".join(f"{training_views.PHASES[p]} {show(t, 's', 3)}" for p, t in mine.items() if t) for name, mine in rows[:8]
    )  # fmt: skip
    return style.finish(
        figure, title, height=150 + (24 if len(rows) > 6 else 40) * len(rows), alt=alt, top=76
    )


def _rank_rows(case: Case) -> list[tuple[str, Mapping[str, float]]]:
    """Phases of each pipeline rank, from the timeline."""
    line = case.result.get("timeline") or {}
    owner = {"F": "1F_s", "B": "1B_s", "B_in": "1B_s", "W": "1W_s", "FB": "1F1B_s"}
    rows: list[tuple[str, Mapping[str, float]]] = []
    for rank, optimizer_s in zip(line.get("pipeline") or [], line.get("optimizer_s") or [], strict=False):
        mine = dict.fromkeys(training_views.PHASES, 0.0)
        for kind, start_s, end_s in zip(rank["kinds"], rank["start_s"], rank["end_s"], strict=True):
            mine[owner[kind]] += end_s - start_s
        mine["opt_s"] = optimizer_s
        mine["bubble_s"] = max(0.0, line["end_s"] - sum(mine.values()))
        rows.append((str(rank["rank"]), mine))
    return rows


def _phase_title(case: Case) -> str:
    m = case.metrics
    step, mean = m["step_time_s"], m["phases_mean"]
    busy = {label: mean[key] for key, label in training_views.PHASES.items() if key != "bubble_s"}
    most = max(busy, key=lambda label: busy[label])
    words = most.partition(", ")[2] or most
    return (
        f"A step takes {show(step, 's', 3)}: on the mean rank {words} take {busy[most] / step:.0%} of it, "
        f"the bubble {mean['bubble_s'] / step:.1%}"
    )


def _published(figure: Canvas, steps: Sequence[Case], rows: Sequence[tuple[str, Any]], scale: float) -> None:
    """The published step time, where the scenario expects one."""
    points = []
    for case in steps:
        for row in case.result.get("expect") or []:
            if row["metric"] == "step_time_s":
                names = [case.name] if len(steps) > 1 else [rows[0][0]]
                points += [(row["published"] / scale, name, row) for name in names]
    if points:
        figure.add(
            "scatter", x=[x for x, _, _ in points], y=[y for _, y, _ in points], mode="markers", name="published step",
            marker={"symbol": "diamond", "size": 11, "color": "#FFFFFF", "line": {"width": 1.8, "color": "#1C2126"}},
            hovertext=[f"published {show(r['published'], 's')}<br>simulated {show(r['simulated'], 's')} ({r['error_fraction']:+.1%})" for _, _, r in points],
            hoverinfo="text",
        )  # fmt: skip


def memory(result: Result) -> Any:
    """What a GPU of each pipeline rank holds, by part, beside what it has."""
    case = steps_of(result, "memory")[0]
    rows = case.result.get("memory") or []
    if not rows:
        raise absent("memory", "this one counted none")
    capacity = case.metrics.get("memory_capacity_bytes")
    totals = [training_views.held_bytes(row) for row in rows]
    scale, unit = style.bytes_unit(max(totals))
    names = [str(row["rank"]) for row in rows]
    figure = Canvas()
    for i, part in enumerate(training_views.parts_of_rows(rows)):
        figure.add(
            "bar", x=names, y=[row.get(part, 0.0) / scale for row in rows], name=part,
            marker={"color": _PART_COLOUR.get(part, style.SERIES[i % len(style.SERIES)])},
            hovertemplate=f"rank %{{x}}, {part}: %{{y:.3g}} {unit}<extra></extra>",
        )  # fmt: skip
    if capacity:
        figure.level(capacity / scale, style.BAD, "above")
        figure.note(
            f"{show(capacity, 'bytes', 3)} of HBM", 1, capacity / scale, xref="paper", xanchor="right", yanchor="bottom", font={"size": 13}
        )  # fmt: skip
    top = max([*totals, capacity or 0.0]) / scale
    figure.axis(
        "x",
        title="pipeline rank",
        type="category",
        showgrid=False,
        tickvals=names[:: -(-len(names) // _MAX_NAMED)],
    )
    figure.axis("y", title=f"memory of a GPU [{unit}]", range=[0, top * 1.1])
    figure.layout |= {"barmode": "stack", "bargap": 0.25, "legend": {"traceorder": "normal"}}
    fullest = max(range(len(rows)), key=lambda i: totals[i])
    part = max(training_views.parts_of_rows(rows), key=lambda key: rows[fullest].get(key, 0.0))
    of = f" of {show(capacity, 'bytes', 3)}" if capacity else ""
    title = (
        f"{_lead(case)}rank {names[fullest]} holds most, {show(totals[fullest], 'bytes', 3)}{of}; "
        f"{part} take {show(rows[fullest][part], 'bytes', 3)} of it"
    )
    told = (f"{n} {show(t, 'bytes', 3)}" for n, t in zip(names, totals, strict=True))
    alt = f"Stacked bars by pipeline rank: {', '.join(told)}"
    return style.finish(figure, title if case.variant else _upper(title), height=420, alt=alt, top=52)


def _lead(case: Case) -> str:
    return f"{case.name}: " if case.variant else ""


def _upper(title: str) -> str:
    return title[0].upper() + title[1:]
