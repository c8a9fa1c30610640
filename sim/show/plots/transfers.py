"""Plots of transfers: their times next to bounds and published values, and when each rank ends."""

from __future__ import annotations

from sim.show import style
from sim.show.canvas import MAX_DOTS, Canvas, Picture, absent
from sim.show.plots.bars import mark_published, panels
from sim.show.views.names import label, value
from sim.show.views.run import Expected, RunsView, RunView
from sim.show.views.transfers import Transfer, TransfersView
from sim.show.words.headline import headline
from sim.show.words.run import finding
from sim.units import show

ALONE = ("memory", "phases")
"""Kinds that it draws of one run at a time: none is there for it."""
_MEAN_APART = 0.02  # of the last rank's time, from which on the mean is marked


def bars(runs: RunsView) -> Picture:
    """Completion time of each transfer, its lower bound as the solid part of the bar, coloured by what binds."""
    views = runs.select(TransfersView)
    rows: dict[str, list[tuple[TransfersView, Transfer]]] = {}
    for run in views:
        for transfer in run.transfers.values():
            rows.setdefault(transfer.name, []).append((run, transfer))
    if not rows:
        raise absent("bars", "this one has no timed transfer")
    figure = Canvas()
    axes = panels(figure, {name: len(row) for name, row in rows.items()})
    longest_s = max(transfer.completion_time_s for row in rows.values() for _, transfer in row)
    scale, unit = style.time_unit(longest_s)
    shown: set[str] = set()  # in the legend
    for name, row in rows.items():
        for run, transfer in row:
            _bar(figure, run, transfer, scale, axes[name], shown)
        _labels(figure, row, scale, axes[name])
        _mean_marks(figure, row, scale, axes[name], shown)
        _published_marks(figure, row, scale, axes[name], shown)
    figure.axis(
        "x", range=[0, longest_s / scale * 1.32], anchor=list(axes.values())[-1],
        title=f"completion time [{unit}]; solid up to the lower bound, pale above it",
    )  # fmt: skip
    figure.layout["barmode"] = "overlay"
    height = 96 + sum(map(len, rows.values())) * 34 + len(rows) * 30
    spoken = (
        f"{run.name} {transfer.name} {_time(transfer)}"
        for run in views
        for transfer in run.transfers.values()
    )
    title = next(iter(finding(runs)), "Times beside their lower bounds")
    return style.finish(figure, title, height=height, alt=f"Bars: {'; '.join(spoken)}", top=52)


def _bar(figure: Canvas, run: RunView, transfer: Transfer, scale: float, axis: str, shown: set[str]) -> None:
    """A pale bar up to the end of the last rank, a solid one up to the bound."""
    colour, binding = style.COLOUR.get(transfer.binding, style.NEUTRAL), label(transfer.binding)
    name = f"{binding} {'bind' if transfer.binding == 'copy_sms' else 'binds'}"
    bound_s = transfer.lower_bound_s or 0.0
    bar = {"y": [run.name], "orientation": "h", "yaxis": axis}
    figure.add(
        "bar", x=[transfer.completion_time_s / scale], marker=style.fill(colour) | {"opacity": 0.38}, showlegend=False,
        hovertemplate=f"{run.name}, {transfer.name}<br>{_time(transfer)}{_over(transfer)}<br>{name}<extra></extra>", **bar,
    )  # fmt: skip
    figure.add(
        "bar", x=[bound_s / scale], marker=style.fill(colour), name=name, legendgroup=binding, showlegend=binding not in shown,
        hovertemplate=f"{run.name}, {transfer.name}<br>lower bound {show(bound_s, 's', 4)}<extra></extra>", **bar,
    )  # fmt: skip
    shown.add(binding)


def _time(transfer: Transfer) -> str:
    return show(transfer.completion_time_s, "s", 3)


def _over(transfer: Transfer) -> str:
    return f" · {transfer.over_bound:.2f}× bound" if transfer.over_bound else ""


def _labels(figure: Canvas, row: list[tuple[TransfersView, Transfer]], scale: float, axis: str) -> None:
    """Time and ratio, to the right of the bar and of any published mark."""
    ends = [
        max(
            [
                transfer.completion_time_s,
                *(published_time(transfer, expected) or 0.0 for expected in run.expected),
            ]
        )
        for run, transfer in row
    ]
    figure.add(
        "scatter", x=[end_s / scale for end_s in ends], y=[run.name for run, _ in row], yaxis=axis, mode="text",
        text=[f"   {_time(transfer)}{_over(transfer)}" for _, transfer in row], textposition="middle right", cliponaxis=False, showlegend=False,
        hoverinfo="skip",
    )  # fmt: skip


def _mean_marks(
    figure: Canvas, row: list[tuple[TransfersView, Transfer]], scale: float, axis: str, shown: set[str]
) -> None:
    """The mean rank, where it lies well before the last."""
    apart = [
        (run, transfer)
        for run, transfer in row
        if abs(transfer.time_s / transfer.completion_time_s - 1) > _MEAN_APART
    ]
    if apart:
        figure.add(
            "scatter", x=[transfer.time_s / scale for _, transfer in apart], y=[run.name for run, _ in apart], mode="markers",
            marker=style.mark("circle", 9), name="mean rank", legendgroup="mean rank", showlegend="mean rank" not in shown,
            yaxis=axis, hovertemplate="%{y}: mean rank %{x:.4g}<extra></extra>",
        )  # fmt: skip
        shown.add("mean rank")


def _published_marks(
    figure: Canvas, row: list[tuple[TransfersView, Transfer]], scale: float, axis: str, shown: set[str]
) -> None:
    places, words = [], []
    for run, transfer in row:
        for expected in run.expected:
            time_s = published_time(transfer, expected)
            if time_s is not None:
                published, simulated = (
                    value(expected.metric, x) for x in (expected.published, expected.simulated)
                )
                places.append((time_s / scale, run.name))
                words.append(
                    f"{expected.metric}<br>published {published}<br>simulated {simulated} ({expected.error_fraction:+.1%})"
                    f"<br>{expected.source or ''}"
                )
    mark_published(
        figure, places, words, yaxis=axis, legendgroup="published", showlegend="published" not in shown
    )
    if places:
        shown.add("published")


def published_time(transfer: Transfer, expected: Expected) -> float | None:
    """The time that a published metric states or implies [s]; a bandwidth over the same bytes is a time too."""
    owner, _, key = expected.metric.rpartition(".")
    if (owner and owner != transfer.name) or not expected.published:
        return None
    if key in ("time_s", "completion_time_s"):
        return expected.published
    if key.startswith(("logical_", "algbw", "busbw")):
        return transfer.time_s * expected.simulated / expected.published
    return None


def rank_times(runs: RunsView) -> Picture:
    """End of each rank, after the start of its kernel."""
    run = runs.runs[0]
    kernels = run.kernels if isinstance(run, TransfersView) else ()
    if not kernels:
        raise absent("rank_times", "flows and closed forms have no ranks")
    scale, unit = style.time_unit(
        max(end_s - kernel.start_s for kernel in kernels for end_s in kernel.rank_ends_s)
    )
    num_ranks = max(kernel.first_rank + len(kernel.rank_ends_s) for kernel in kernels)
    figure, tails = Canvas(), []
    for i, name in enumerate(dict.fromkeys(kernel.name for kernel in kernels)):
        dots = [
            (rank, (end_s - kernel.start_s) / scale, kernel.group)
            for kernel in kernels
            if kernel.name == name
            for rank, end_s in enumerate(kernel.rank_ends_s, start=kernel.first_rank)
        ]
        mean, last = sum(time for _, time, _ in dots) / len(dots), max(dots, key=lambda dot: dot[1])
        tails.append((last[1] / mean - 1, name, last[0]))
        kept = sorted({*dots[:: -(-len(dots) // MAX_DOTS)], last}, key=dots.index)
        figure.add(
            "scatter", x=[rank for rank, _, _ in kept], y=[time for _, time, _ in kept], mode="markers",
            name=f"{name}, mean {show(mean * scale, 's', 3)}", customdata=[group for _, _, group in kept],
            marker={"size": 4 if len(dots) > 300 else 7, "color": style.SERIES[i], "opacity": 0.85},
            hovertemplate=f"{name}: rank %{{x}}, group %{{customdata}}<br>ends after %{{y:.4g}} {unit}<extra></extra>",
        )  # fmt: skip
        figure.add(
            "scatter", x=[-0.5, max(rank for rank, _, _ in dots) + 0.5], y=[mean, mean], mode="lines", showlegend=False,
            line={"color": style.SERIES[i], "width": 1.5, "dash": "dot"}, hoverinfo="skip",
        )  # fmt: skip
    figure.node_borders(num_ranks, run.gpus_per_node, style.BAND)
    figure.axis("x", title="rank", range=[-0.5, num_ranks - 0.5], showgrid=False)
    figure.axis("y", title=f"end after the kernel's start [{unit}]", rangemode="tozero")
    tail, name, rank = max(tails)
    title = f"the last rank of {name}, rank {rank}, ends {tail:.1%} after the mean of {num_ranks} ranks"
    if tail < 0.001:
        title = f"all {num_ranks} ranks end together, within 0.1%"
    return style.finish(figure, headline(run, title), height=400, top=44)
