"""Plots of serving: where the time of a request goes, requests in each stage over time, and how latencies spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sim.show import style
from sim.show.canvas import Canvas, Picture, absent
from sim.show.plots.bars import spoken, stacked
from sim.show.views.lanes import LIVES
from sim.show.views.run import RunsView
from sim.show.views.serving import ServiceView
from sim.show.words.headline import headline
from sim.units import show

ALONE: tuple[str, ...] = ()
"""Kinds that it draws of one run at a time."""
_STAGES = {
    "prefill_queue": "prefill wait",
    "prefilling": "prefill",
    "kv_moving": "KV",
    "decoding": "decode",
}
"""Series of the timeline -> stage of a request's life."""
_WAITS = ("prefill wait", "decode wait", "step wait")
_LATENCIES = {"ttft": "TTFT", "tpot": "TPOT"}
_POINTS = 200  # of a curve
_DASH = ("solid", "dash", "dot", "dashdot")


def phases(runs: RunsView) -> Picture:
    """Time of the mean request by stage, a stacked bar for each variant."""
    services = runs.select(ServiceView)
    spent = {run.name: run.spent for run in services}
    totals = {name: sum(times.values()) for name, times in spent.items()}
    if not all(totals.values()):
        raise absent("phases", "this one kept no requests")
    scale, unit = style.time_unit(max(totals.values()))
    figure = Canvas()
    stacked(figure, LIVES, spent, scale, f"<br>%{{x:.4g}} {unit}, %{{customdata:.1%}}")
    figure.axis("x", title=f"mean time of a request [{unit}]", rangemode="tozero")
    shares = {name: sum(times[stage] for stage in _WAITS) / totals[name] for name, times in spent.items()}
    times = [
        f"{show(totals[name], 's', 3)}{f' in {name}' if len(spent) > 1 else ''}, {share:.0%} of it waiting"
        for name, share in shares.items()
    ]
    title = f"A request takes {'; '.join(times)}"
    labels = {stage: label for stage, (label, _) in LIVES.items()}
    words = spoken(labels, spent, lambda time_s: show(time_s, "s", 3))
    height = 170 + 46 * len(services)
    return style.finish(figure, title, height=height, alt=f"Stacked bars: {words}", top=76)


def queues(runs: RunsView) -> Picture:
    """Requests in each stage over time."""
    run = next(iter(runs.select(ServiceView)), None)
    if run is None or run.stages is None:
        raise absent("queues", "this one kept no course in time" if run else "this one served no requests")
    stages = run.stages
    scale, unit = style.time_unit(stages.end_s)
    times = [time_s / scale for time_s in stages.sample_s]
    figure = Canvas()
    for key, stage in _STAGES.items():
        label, colour = LIVES[stage]
        counts = stages.counts.get(key, ())
        if any(counts):
            line = {"color": colour if stage != "prefill wait" else style.BAD, "width": 2.2, "shape": "hv"}
            figure.add(
                "scatter", x=times, y=counts, mode="lines", name=label, line=line,
                hovertemplate=f"{label}: %{{y}} requests at %{{x:.3g}} {unit}<extra></extra>",
            )  # fmt: skip
    figure.axis("x", title=f"time [{unit}]", range=[0, max(times)], showgrid=False)
    figure.axis("y", title="requests", rangemode="tozero")
    if run.while_arriving and run.requests:
        last = (run.requests.arrival_s[0] + run.while_arriving.span_s) / scale
        figure.upright(last, style.RULE)
        side, shift = ("right", -5) if last > 0.75 * max(times) else ("left", 5)
        figure.note(
            "last arrival", last, 1.0, yref="paper", yanchor="top", xanchor=side, xshift=shift, font={"size": 12}
        )  # fmt: skip
    decoding = max(stages.counts["decoding"])
    title = (
        f"up to {run.queues['prefill'].max} requests wait for prefill at once, and up to {decoding} decode"
    )
    alt = f"Curves of requests over {show(stages.end_s, 's', 3)}. {headline(run, title)}"
    return style.finish(figure, headline(run, title), height=380, alt=alt, top=52)


def latencies(runs: RunsView) -> Picture:
    """The share of requests that were at least as quick: TTFT left, TPOT right, with the objectives."""
    services = runs.select(ServiceView)
    if not any(run.times_s for run in services):
        raise absent("latencies", "this one kept no requests" if services else "this one served no requests")
    figure = Canvas()
    curves = {run.name: run.times_s for run in services}
    if len(services) == 1 and services[0].classes:
        curves = {name: services[0].times_of(name) for name in services[0].classes}
    _curves(figure, services, curves, "ttft", "", [0, 0.46])
    _curves(figure, services, curves, "tpot", "2", [0.54, 1])
    title = "; ".join(_within(key, label, services) for key, label in _LATENCIES.items())
    words = "; ".join(
        f"{run.name}: " + ", ".join(f"median {label} {show(_median(run.times_s[key]), 's', 3)}" for key, label in _LATENCIES.items() if run.times_s.get(key))
        for run in services
    )  # fmt: skip
    return style.finish(figure, title, height=400, alt=f"Cumulative curves. {words}", top=52)


def _curves(
    figure: Canvas,
    services: Sequence[ServiceView],
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    key: str,
    axis: str,
    domain: list[float],
) -> None:
    """A panel: a curve for each run, or of one run for each class of its requests, and a line at each objective."""
    label, first = _LATENCIES[key], not axis
    scale, unit = style.time_unit(
        max((times[key][-1] for times in curves.values() if times.get(key)), default=1.0)
    )
    on = {"mode": "lines", "xaxis": f"x{axis}", "yaxis": f"y{axis}"}
    for i, (name, times_s) in enumerate(curves.items()):
        times = quantiles(times_s.get(key, ()))
        shares = [100 * (j + 1) / len(times) for j in range(len(times))]
        line = {
            "color": style.SERIES[i % len(style.SERIES)],
            "width": 2.4,
            "dash": _DASH[i % len(_DASH)],
            "shape": "hv",
        }
        figure.add(
            "scatter", x=[time_s / scale for time_s in times], y=shares, name=name, legendgroup=name,
            showlegend=first and len(curves) > 1, line=line, **on,
            hovertemplate=f"{name}: %{{y:.0f}} % have a {label} of %{{x:.3g}} {unit} or less<extra></extra>",
        )  # fmt: skip
    asked = [own for run in services for own in (run.objectives, *run.class_objectives.values())]
    for objective_s in dict.fromkeys(own[key] for own in asked if key in own):
        figure.add(
            "scatter", x=[objective_s / scale] * 2, y=[0, 100], name="objective", legendgroup="objective", showlegend=first,
            line={"color": style.SERIES[4], "width": 1.5, "dash": "dot"},
            hovertemplate=f"objective: {show(objective_s, 's', 3)}<extra></extra>", **on,
        )  # fmt: skip
    figure.axis(f"x{axis}", title=f"{label} [{unit}]", rangemode="tozero", domain=domain, anchor=f"y{axis}")
    title = "requests at least as quick [%]" if first else ""
    figure.axis(f"y{axis}", title=title, range=[0, 101], anchor=f"x{axis}")


def _within(key: str, label: str, services: Sequence[ServiceView]) -> str:
    """Which share meets the first run's objective, or the median where there is none."""
    limit_s = services[0].objectives.get(key)
    words = []
    for run in services:
        times = run.times_s.get(key) or [0.0]
        share = f"{sum(time_s <= limit_s for time_s in times) / len(times):.0%}" if limit_s else ""
        words.append(f"{f'{run.name} ' if len(services) > 1 else ''}{share or show(_median(times), 's', 3)}")
    against = f"within {show(limit_s, 's', 3)}" if limit_s else "in the median"
    return f"{label}: {', '.join(words)} {against}"


def _median(times: Sequence[float]) -> float:
    """Median of sorted times, the mean of the middle two where they are even, as in the metrics."""
    return (times[(len(times) - 1) // 2] + times[len(times) // 2]) / 2


def quantiles(times: Sequence[float]) -> list[float]:
    """At most `_POINTS` of sorted times, evenly chosen, the last among them."""
    num = min(_POINTS, len(times))
    return [times[-(-len(times) * (i + 1) // num) - 1] for i in range(num)]
