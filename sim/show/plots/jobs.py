"""Plot of jobs side by side: how long each takes in each variant, or what its users feel against the first."""

from __future__ import annotations

from collections.abc import Sequence

from sim.show import style
from sim.show.canvas import Canvas, Picture, absent
from sim.show.views.jobs import JobsView
from sim.show.views.run import RunsView
from sim.units import show

ALONE: tuple[str, ...] = ()
"""Kinds that it draws of one run at a time."""
_BESIDE = 1.25  # of the longest bar, with its label


def bars(runs: RunsView) -> Picture:
    """Time of each job, a group of bars for each variant; a single run has its timeline."""
    shown = runs.select(JobsView)
    if len(shown) < 2:
        raise absent("bars", "jobs have some where several variants are compared")
    if any(run.serves for run in shown):
        return _ratios(shown)
    times = {run.name: {job.name: job.time_s for job in run.jobs} for run in shown}
    names = list(dict.fromkeys(job for own in times.values() for job in own))
    scale, unit = style.time_unit(max(time_s for own in times.values() for time_s in own.values()))
    longest = (
        max(time_s for own in times.values() for time_s in own.values()) / scale
    )  # and room for what it is
    figure = Canvas()
    for i, job in enumerate(names):
        known = {run: own[job] for run, own in times.items() if job in own}
        figure.add(
            "bar", x=[time_s / scale for time_s in known.values()], y=list(known), orientation="h", name=job,
            marker={"color": style.SERIES[i % len(style.SERIES)]}, text=[_time(time_s) for time_s in known.values()],
            textposition="outside", cliponaxis=False, hovertemplate=f"{job} in %{{y}}: %{{text}}<extra></extra>",
        )  # fmt: skip
    figure.axis(
        "x", title=f"time from the common start to the end of a job [{unit}]", range=[0, 1.3 * longest]
    )
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


def _ratios(shown: Sequence[JobsView]) -> Picture:
    """Times of each job over those of the first run, of jobs that serve the times that users feel."""
    first, *others = shown
    alone = {(job.name, name): time_s for job in first.jobs for name, time_s in job.measures_s.items()}
    figure, words, most = Canvas(), list[str](), 1.0
    for i, run in enumerate(others):
        now = {(job.name, name): time_s for job in run.jobs for name, time_s in job.measures_s.items()}
        ratios = {
            f"{job}: {name}": (time_s / alone[job, name], time_s)
            for (job, name), time_s in now.items()
            if alone.get((job, name))
        }
        figure.add(
            "bar", x=[ratio for ratio, _ in ratios.values()], y=[*ratios], orientation="h", name=run.name,
            marker={"color": style.SERIES[i % len(style.SERIES)]},
            text=[f"{ratio:.2f}x" for ratio, _ in ratios.values()], customdata=[_time(time_s) for _, time_s in ratios.values()],
            textposition="outside", cliponaxis=False, hovertemplate=f"%{{y}} in {run.name}: %{{customdata}}, %{{text}}<extra></extra>",
        )  # fmt: skip
        most = max([most, *(ratio for ratio, _ in ratios.values())])
        words.append(
            f"{run.name}: {', '.join(f'{name} {ratio:.2f}x' for name, (ratio, _) in ratios.items())}"
        )
    figure.axis("x", title=f"time over that in {first.name}", range=[0.0, _BESIDE * most])
    figure.categories(type="category")
    figure.layout |= {"barmode": "group", "bargap": 0.3, "legend": {"traceorder": "normal"}}
    title = f"Times of each job, and of its users, over those in {first.name}"
    height = 150 + 30 * len(others) * len(alone)
    return style.finish(figure, title, height=height, alt=f"Bars of times: {'; '.join(words)}", top=60)


def _time(time_s: float) -> str:
    return show(time_s, "s", 3)
