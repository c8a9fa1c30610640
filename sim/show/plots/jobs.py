"""Plot of jobs side by side: how long each takes, in each variant."""

from __future__ import annotations

from sim.show import style
from sim.show.canvas import Canvas, Picture, absent
from sim.show.views.jobs import JobsView
from sim.show.views.run import RunsView
from sim.units import show

ALONE: tuple[str, ...] = ()
"""Kinds that it draws of one run at a time."""


def bars(runs: RunsView) -> Picture:
    """Time of each job, a group of bars for each variant; a single run has its timeline."""
    shown = runs.select(JobsView)
    if len(shown) < 2:
        raise absent("bars", "jobs have some where several variants are compared")
    times = {run.name: {job.name: job.time_s for job in run.jobs} for run in shown}
    names = list(dict.fromkeys(job for own in times.values() for job in own))
    scale, unit = style.time_unit(max(time_s for own in times.values() for time_s in own.values()))
    figure = Canvas()
    for i, job in enumerate(names):
        known = {run: own[job] for run, own in times.items() if job in own}
        figure.add(
            "bar", x=[time_s / scale for time_s in known.values()], y=list(known), orientation="h", name=job,
            marker={"color": style.SERIES[i % len(style.SERIES)]}, text=[_time(time_s) for time_s in known.values()],
            textposition="outside", cliponaxis=False, hovertemplate=f"{job} in %{{y}}: %{{text}}<extra></extra>",
        )  # fmt: skip
    figure.axis("x", title=f"time from the common start to the end of a job [{unit}]", rangemode="tozero")
    figure.categories(type="category")
    figure.layout |= {"barmode": "group", "bargap": 0.3, "legend": {"traceorder": "normal"}}
    ends = {run.name: run.completion_time_s for run in shown}
    title = (
        f"The last job ends after {', '.join(f'{_time(end_s)} in {name}' for name, end_s in ends.items())}"
    )
    words = "; ".join(
        f"{name}: {', '.join(f'{job} {_time(time_s)}' for job, time_s in own.items())}"
        for name, own in times.items()
    )
    height = 150 + 30 * sum(map(len, times.values()))
    return style.finish(figure, title, height=height, alt=f"Bars of times: {words}", top=60)


def _time(time_s: float) -> str:
    return show(time_s, "s", 3)
