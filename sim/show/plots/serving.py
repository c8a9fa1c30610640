"""Plots of serving: where the time of a request goes, requests in each stage over time, and how latencies spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sim.show import style
from sim.show.canvas import Canvas, absent
from sim.show.views import serving as serving_views
from sim.show.views.lanes import LIVES
from sim.show.views.run import Case, Result, cases
from sim.units import show

_STAGES = {
    "prefill_queue": "prefill wait",
    "prefilling": "prefill",
    "kv_moving": "KV",
    "decoding": "decode",
}
"""Series of the timeline -> stage of a request's life."""
_SPREAD = {"ttft": "TTFT", "tpot": "TPOT"}
_POINTS = 200  # of a curve
_DASH = ("solid", "dash", "dot", "dashdot")


def runs_of(result: Result, kind: str) -> list[Case]:
    """The serving runs of a result. Raises `InputError` where there are none."""
    found = [case for case in cases(result) if serving_views.is_serving(case)]
    if not found:
        raise absent(kind, "this one served no requests")
    return found


def phases(result: Result) -> Any:
    """Where the time of the mean request goes, a stacked bar for each variant."""
    runs = runs_of(result, "phases")
    spent = {case.name: serving_views.spent(case) for case in runs}
    scale, unit = style.time_unit(max(sum(one.values()) for one in spent.values()))
    figure = Canvas()
    for stage, (label, colour) in LIVES.items():
        if not any(one[stage] for one in spent.values()):
            continue
        figure.add(
            "bar", x=[one[stage] / scale for one in spent.values()], y=list(spent), orientation="h", name=label, marker={"color": colour},
            customdata=[one[stage] / sum(one.values()) for one in spent.values()],
            hovertemplate=f"%{{y}}, {label}<br>%{{x:.4g}} {unit}, %{{customdata:.1%}}<extra></extra>",
        )  # fmt: skip
    figure.axis("x", title=f"mean time of a request [{unit}]", rangemode="tozero")
    figure.axis("y", autorange="reversed", ticksuffix="  ", showgrid=False, type="category")
    figure.layout |= {"barmode": "stack", "bargap": 0.3, "legend": {"traceorder": "normal"}}
    told = []
    for name, one in spent.items():
        total = sum(one.values())
        waits = sum(one[stage] for stage in ("prefill wait", "decode wait", "step wait"))
        told.append(
            f"{'' if len(spent) == 1 else f'in {name} '}a request takes {show(total, 's', 3)}, {waits / total:.0%} of it waiting"
        )
    title = "; ".join(told)
    alt = "Stacked bars: " + "; ".join(
        f"{name}: " + ", ".join(f"{LIVES[stage][0]} {show(t, 's', 3)}" for stage, t in one.items() if t) for name, one in spent.items()
    )  # fmt: skip
    return style.finish(figure, title[0].upper() + title[1:], height=170 + 46 * len(runs), alt=alt, top=76)


def queues(result: Result) -> Any:
    """Requests in each stage over time."""
    case = runs_of(result, "queues")[0]
    line = case.result.get("timeline") or {}
    if not line.get("sample_s"):
        raise absent("queues", "this one kept no course in time")
    scale, unit = style.time_unit(line["end_s"])
    times = [t / scale for t in line["sample_s"]]
    figure = Canvas()
    for key, stage in _STAGES.items():
        label, colour = LIVES[stage]
        if not any(line.get(key) or ()):
            continue
        figure.add(
            "scatter", x=times, y=line[key], mode="lines", name=label, line={"color": colour if stage != "prefill wait" else "#D55E00", "width": 2.2, "shape": "hv"},
            hovertemplate=f"{label}: %{{y}} requests at %{{x:.3g}} {unit}<extra></extra>",
        )  # fmt: skip
    figure.axis("x", title=f"time [{unit}]", range=[0, max(times)], showgrid=False)
    figure.axis("y", title="requests", rangemode="tozero")
    span_s = (case.metrics.get("while_arriving") or {}).get("span_s", 0.0)
    if span_s and (case.result.get("requests") or {}).get("arrival_s"):
        last = (case.result["requests"]["arrival_s"][0] + span_s) / scale
        figure.upright(last, style.RULE)
        figure.note(
            "last arrival",
            last,
            1.0,
            yref="paper",
            yanchor="top",
            xanchor="left",
            xshift=5,
            font={"size": 12},
        )
    longest, decoding = case.metrics["queues"]["prefill"]["max"], max(line["decoding"])
    lead = f"{case.name}: up" if case.variant else "Up"
    title = f"{lead} to {longest} requests wait for prefill at once, and up to {decoding} decode"
    alt = f"Curves of requests over {show(line['end_s'], 's', 3)}. {title}"
    return style.finish(figure, title, height=380, alt=alt, top=52)


def latencies(result: Result) -> Any:
    """The share of requests that were at least as quick: TTFT left, TPOT right, with the objectives."""
    runs = runs_of(result, "latencies")
    found = {case.name: _times(case) for case in runs}
    if not any(found.values()):
        raise absent("latencies", "this one kept no requests")
    figure = Canvas()
    for i, (key, label) in enumerate(_SPREAD.items()):
        axis = "" if i == 0 else "2"
        longest = max((max(one[key]) for one in found.values() if one[key]), default=1.0)
        scale, unit = style.time_unit(longest)
        for number, (name, one) in enumerate(found.items()):
            times = _quantiles(one[key])
            shares = [100 * (j + 1) / len(times) for j in range(len(times))]
            figure.add(
                "scatter", x=[t / scale for t in times], y=shares, mode="lines", name=name, legendgroup=name, showlegend=i == 0 and len(runs) > 1,
                xaxis=f"x{axis}", yaxis=f"y{axis}", line={"color": style.SERIES[number % len(style.SERIES)], "width": 2.4, "dash": _DASH[number % len(_DASH)], "shape": "hv"},
                hovertemplate=f"{name}: %{{y:.0f}} % have a {label} of %{{x:.3g}} {unit} or less<extra></extra>",
            )  # fmt: skip
        for objective in {serving_views.objectives(case).get(key) for case in runs} - {None}:
            assert objective is not None
            figure.add(
                "scatter", x=[objective / scale] * 2, y=[0, 100], mode="lines", xaxis=f"x{axis}", yaxis=f"y{axis}", name="objective",
                legendgroup="objective", showlegend=i == 0, line={"color": style.NEUTRAL, "width": 1.5, "dash": "dot"},
                hovertemplate=f"objective: {show(objective, 's', 3)}<extra></extra>",
            )  # fmt: skip
        domain = [0, 0.46] if i == 0 else [0.54, 1]
        figure.axis(
            f"x{axis}", title=f"{label} [{unit}]", rangemode="tozero", domain=domain, anchor=f"y{axis}"
        )
        figure.axis(
            f"y{axis}",
            title="requests at least as quick [%]" if i == 0 else "",
            range=[0, 101],
            anchor=f"x{axis}",
        )
    title = "; ".join(_within(key, label, runs, found) for key, label in _SPREAD.items())
    alt = "Cumulative curves. " + "; ".join(
        f"{name}: " + ", ".join(f"median {label} {show(_quantiles(one[key])[len(_quantiles(one[key])) // 2], 's', 3)}" for key, label in _SPREAD.items() if one[key])
        for name, one in found.items()
    )  # fmt: skip
    return style.finish(figure, title, height=400, alt=alt, top=52)


def _within(key: str, label: str, runs: Sequence[Case], found: dict[str, dict[str, list[float]]]) -> str:
    """Which share meets an objective, or the median where there is none."""
    limit = serving_views.objectives(runs[0]).get(key)
    told = []
    for name, one in found.items():
        times = one.get(key) or [0.0]
        said = (
            f"{sum(t <= limit for t in times) / len(times):.0%}"
            if limit
            else show(times[len(times) // 2], "s", 3)
        )
        told.append(f"{name} {said}" if len(found) > 1 else said)
    return f"{label}: {', '.join(told)}" + (f" within {show(limit, 's', 3)}" if limit else " in the median")


def _times(case: Case) -> dict[str, list[float]]:
    """TTFT and TPOT of every request that ended, shortest first [s]."""
    rows = case.result.get("requests") or {}
    if not rows:
        return {}
    ttft, tpot = [], []
    for came, first, end, tokens in zip(
        rows["arrival_s"], rows["first_token_s"], rows["end_s"], rows["output_tokens"], strict=True
    ):
        if first is not None:
            ttft.append(first - came)
        if end is not None and tokens > 1:
            tpot.append((end - first) / (tokens - 1))
    return {"ttft": sorted(ttft), "tpot": sorted(tpot)}


def _quantiles(times: Sequence[float]) -> list[float]:
    """At most `_POINTS` of sorted times, evenly chosen, the last among them."""
    num = min(_POINTS, len(times))
    return [times[-(-len(times) * (i + 1) // num) - 1] for i in range(num)]
