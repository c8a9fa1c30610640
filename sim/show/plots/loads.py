"""Plots of load: over time, on every link, and between every pair of ranks.

A link is loaded by what kernels reach of it: the time that its bytes take at that rate, over the time that passes. The rate
lies below the data sheet's, by which lower bounds go; titles name it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import fsum

from sim.show import style
from sim.show.canvas import Canvas, Picture, absent
from sim.show.views.names import LABEL, label
from sim.show.views.run import Link, RunsView, RunView
from sim.show.views.transfers import KernelRun, TransfersView
from sim.show.words.headline import headline
from sim.units import show

_DOTS_PER_ROW = 400  # SVG dots that a browser draws at once without a wait
_EVEN = 0.05
"""Loads that no rank exceeds the mean by are drawn around the mean."""
_CABLES = ("nic", "scale_up", "leaf_uplink")
REACHED = "of what kernels reach"
"""Whole of a link's load, in words."""
_WAYS = {
    "tx": " send",
    "rx": " receive",
    "egress": " egress",
    "ingress": " ingress",
    "up": " up",
    "down": " down",
}


def utilisation(runs: RunsView) -> Picture:
    """Mean and busiest link of each class over time."""
    run = runs.runs[0]
    if not isinstance(run, TransfersView) or run.utilisation is None:
        raise absent("utilisation", "a closed form has no course in time")
    time_s, courses = run.utilisation.time_s, run.utilisation.courses
    scale, unit = style.time_unit(max(time_s))
    time = [t / scale for t in time_s]
    figure = Canvas()
    present = [name for name in LABEL if name in courses]
    for name in present:
        solid, dotted = {"width": 2.6}, {"width": 1.2, "dash": "dot"}
        for which, loads, line in (
            ("mean", courses[name].mean, solid),
            ("busiest", courses[name].busiest, dotted),
        ):
            figure.add(
                "scatter", x=time, y=_percent(loads), name=label(name) if line is solid else f"{label(name)}, {which}",
                legendgroup=name, showlegend=line is solid, mode="lines", line={"color": style.COLOUR[name], **line},
                hovertemplate=f"{label(name)}, {which}: %{{y:.0f}} % at %{{x:.3g}} {unit}<extra></extra>",
            )  # fmt: skip
    for name, start_s, end_s in _spans(run.kernels):
        figure.upright(start_s / scale, style.RULE)
        figure.note(
            name, (start_s + end_s) / 2 / scale, 1.0, yref="paper", yanchor="bottom", font={"size": 13}
        )
    figure.axis(
        "x",
        title=f"time [{unit}]; solid: mean link, dotted: the busiest",
        range=[0, max(time) * 1.01],
        showgrid=False,
    )
    figure.axis("y", title=f"load [% {REACHED}]", range=[0, 105])
    figure.layout["legend"] = {"y": 1.08}
    means = {name: sum(courses[name].mean) / len(time) for name in present}
    top = max(means, key=lambda name: means[name])
    others = " and ".join(
        f"{label(name)} at {means[name]:.0%}{_rate(run, name, short=True)}" for name in present if name != top and name in _CABLES
    )  # fmt: skip
    verb = "run" if top == "copy_sms" else "runs"
    title = f"on average {label(top)} {verb} at {means[top]:.0%}{_rate(run, top)}{f', {others}' if others else ''}"
    words = ", ".join(f"{label(name)} {mean:.0%}" for name, mean in means.items())
    alt = f"Curves of load over time, {REACHED}; means: {words}"
    return style.finish(figure, headline(run, title), height=400, alt=alt, top=70)


def _rate(run: RunView, kind: str, *, short: bool = False) -> str:
    """` of the 135 GB/s that kernels reach`, from what links of a class carried in their busy time; empty of SMs."""
    rates = [link.bytes / link.busy_s for link in run.links if link.kind == kind and link.busy_s]
    if not rates or kind == "copy_sms":
        return ""
    rate = f"{'up to ' if min(rates) < 0.99 * max(rates) else ''}{show(max(rates), 'bytes/s', 3)}"
    return f" of {rate}" if short else f" of the {rate} that kernels reach"


def _percent(shares: Iterable[float]) -> list[float]:
    return [round(100 * share, 3) for share in shares]


def _spans(kernels: Iterable[KernelRun]) -> list[tuple[str, float, float]]:
    """Name, start and end of each kind of kernel, all groups together."""
    spans: dict[str, tuple[float, float]] = {}
    for kernel in kernels:
        start_s, end_s = kernel.start_s, max(kernel.rank_ends_s)
        first_s, last_s = spans.get(kernel.name, (start_s, end_s))
        spans[kernel.name] = (min(first_s, start_s), max(last_s, end_s))
    return [(name, *span) for name, span in spans.items()]


def links(runs: RunsView) -> Picture:
    """Every link's load as a dot, in a row for its class and direction."""
    run = runs.runs[0]
    rows = links_by_row(run)
    if not rows:
        raise absent("links", "this run recorded no link (a closed form has none)")
    figure = Canvas()
    every = -(-max(map(len, rows.values())) // _DOTS_PER_ROW)
    means = {name: fsum(link.load_fraction for link in row) / len(row) for name, row in rows.items()}
    for i, (name, row) in enumerate(rows.items()):
        ordered = sorted(row, key=lambda link: link.load_fraction)
        dots = [*ordered[:-1:every], ordered[-1]]
        kind = row[0].kind
        figure.add(
            "scatter", x=_percent(link.load_fraction for link in dots), y=style.spread(i, len(dots)), mode="markers", name=label(kind),
            legendgroup=kind, showlegend=False, marker={"color": style.COLOUR[kind], "size": 5 if len(dots) > 150 else 7, "opacity": 0.6},
            text=[link.name for link in dots], hovertemplate="%{text}: %{x:.1f} %<extra></extra>",
        )  # fmt: skip
        figure.add(
            "scatter", x=[100 * means[name]] * 2, y=[i - 0.4, i + 0.4], mode="lines", line={"color": style.COLOUR[kind], "width": 3.5},
            hovertemplate=f"{name}: mean of {len(row)} {100 * means[name]:.1f} %<extra></extra>", name="mean of the row", showlegend=False,
        )  # fmt: skip
    dot = "each dot a link" if every == 1 else f"dots are links, one of {every} drawn"
    figure.axis("x", title=f"load in the run [% {REACHED}]; {dot}, the bar their mean", range=[0, 104])
    figure.rows([f"{name}  " for name in rows])
    top = max(means, key=lambda name: means[name])
    kind = rows[top][0].kind
    fullest = max((link for row in rows.values() for link in row), key=lambda link: link.load_fraction)
    title = (
        f"{top} {'are' if kind == 'copy_sms' else 'is'} fullest on average, {means[top]:.0%}{_rate(run, kind)}; "
        f"the fullest single link is {fullest.name}, {fullest.load_fraction:.0%}"
    )
    words = ", ".join(f"{name} {mean:.0%}" for name, mean in means.items())
    alt = f"Dots by link; mean load, {REACHED}: {words}"
    return style.finish(
        figure, f"{run.name}: {title}" if run.variant else title, height=120 + 44 * len(rows), alt=alt, top=24
    )


def links_by_row(run: RunView) -> dict[str, list[Link]]:
    """The links under `NVLink egress`, `NIC receive`, ... in the order of classes."""
    rows: dict[str, list[Link]] = {}
    for kind in LABEL:
        for link in run.links:
            if link.kind == kind:
                rows.setdefault(f"{label(kind)}{_way(link.name)}", []).append(link)
    return rows


def _way(name: str) -> str:
    """Direction of a link, from its name."""
    leaf, arrow, _ = name.partition("->")
    if arrow:
        return " up" if "leaf" in leaf else " down"
    return _WAYS.get(name.rpartition("/")[2], "")


def traffic_matrix(runs: RunsView) -> Picture:
    """Bytes between every pair of ranks of the first EP group."""
    run = runs.runs[0]
    if not run.traffic:
        raise absent(
            "traffic_matrix", "flows, closed forms and more than 256 ranks come without a traffic matrix"
        )
    name, matrix = next(iter(run.traffic.items()))
    num, per_node = len(matrix), run.gpus_per_node
    largest = max(max(row) for row in matrix)
    if not largest:
        raise absent("traffic_matrix", "no rank sends another a whole byte")
    scale, unit = style.bytes_unit(largest)
    figure = Canvas()
    figure.add(
        "heatmap", z=[[size / scale for size in row] for row in matrix], colorscale=style.AMOUNT, zmin=0, zmax=largest / scale,
        colorbar=style.colourbar(f"from rank to rank [{unit}]"),
        hovertemplate=f"rank %{{y}} to rank %{{x}}: %{{z:.3g}} {unit}<extra></extra>",
    )  # fmt: skip
    figure.node_borders(num, per_node, "rgba(255,255,255,0.8)", "above", both=True)
    square = {"showgrid": False, "zeroline": False, "constrain": "domain"}
    figure.axis(
        "x",
        title={"text": "to rank", "standoff": 22},
        constraintoward="left",
        range=[-0.5, num - 0.5],
        **square,
    )
    figure.axis(
        "y", title="from rank", scaleanchor="x", constraintoward="top", range=[num - 0.5, -0.5], **square
    )
    received = [sum(column) for column in zip(*matrix, strict=True)]
    total, own = sum(received), sum(matrix[rank][rank] for rank in range(num))
    away = sum(
        size for s, row in enumerate(matrix) for d, size in enumerate(row) if s // per_node != d // per_node
    )
    hottest = max(range(num), key=lambda rank: received[rank])
    title = (
        f"{name} moves {show(total / num, 'bytes', 3)} a rank: {away / total:.0%} to other nodes, "
        f"{(total - away - own) / total:.0%} inside the node, {own / total:.0%} stays; "
        f"rank {hottest} receives {received[hottest] / (total / num):.2f}x the mean"
    )
    alt = f"Heat map. {headline(run, title)}"
    return style.finish(figure, headline(run, title), height=600, top=84, width=680, alt=alt)


def rank_loads(runs: RunsView) -> Picture:
    """Tokens that each rank's experts get, over the mean: one row a variant (and drawn layer), before and after EPLB."""
    rows = {name: loads for run in runs.runs for name, loads in _loads(run).items()}
    if not rows:
        raise absent("rank_loads", "only runs that route tokens to ranks have loads")
    relative = {name: [load * len(loads) / sum(loads) for load in loads] for name, loads in rows.items()}
    peaks = {name: max(row) for name, row in relative.items()}
    most = max(peaks.values())
    if most < 1 + _EVEN:
        return _even_loads(relative, peaks)
    num = max(map(len, rows.values()))
    figure = Canvas()
    figure.add(
        "heatmap", z=[[*row, *[None] * (num - len(row))] for row in relative.values()], y=list(rows), colorscale=style.AMOUNT, zmin=0,
        zmax=most, colorbar=style.colourbar("load [x mean]"), hovertemplate="%{y}, rank %{x}: %{z:.2f} x mean<extra></extra>",
    )  # fmt: skip
    figure.axis("x", title="rank", showgrid=False, zeroline=False, range=[-0.5, num - 0.5])
    figure.axis("y", autorange="reversed", showgrid=False, zeroline=False)
    worst, best = max(peaks, key=lambda name: peaks[name]), min(peaks, key=lambda name: peaks[name])
    title = f"The busiest rank gets {most:.2f}x the mean load in {worst}"
    title += f", {peaks[best]:.2f}x in {best}" if best != worst else ""
    words = ", ".join(f"{name} {peak:.2f}" for name, peak in peaks.items())
    alt = f"Heat map of load by rank; busiest over mean: {words}"
    return style.finish(figure, title, height=160 + 34 * len(rows), alt=alt)


def _even_loads(relative: Mapping[str, Sequence[float]], peaks: Mapping[str, float]) -> Picture:
    """A dot a rank on an axis around the mean: a map of equal loads would be one colour."""
    figure = Canvas()
    for i, (name, loads) in enumerate(relative.items()):
        kept = range(0, len(loads), -(-len(loads) // _DOTS_PER_ROW))
        figure.add(
            "scatter", x=[round(loads[rank], 5) for rank in kept], y=style.spread(i, len(kept)), mode="markers", showlegend=False,
            marker={"color": style.SERIES[0], "size": 5, "opacity": 0.6}, text=[f"{name}, rank {rank}" for rank in kept],
            hovertemplate="%{text}: %{x:.3f} x mean<extra></extra>",
        )  # fmt: skip
    reach = 1.1 * max(_EVEN, *(abs(load - 1) for loads in relative.values() for load in loads))
    figure.axis("x", title="load of a rank [x mean]", range=[1 - reach, 1 + reach])
    figure.rows([f"{name}  " for name in relative])
    worst = max(peaks, key=lambda name: peaks[name])
    where = "" if len(peaks) == 1 else f", in {worst}"
    title = f"Ranks are loaded evenly: the busiest gets {peaks[worst]:.3f}x the mean{where}"
    words = ", ".join(f"{name} {peak:.3f}" for name, peak in peaks.items())
    alt = f"Dots by rank; busiest over mean: {words}"
    return style.finish(figure, title, height=120 + 34 * len(peaks), alt=alt, top=24)


def _loads(run: RunView) -> dict[str, Sequence[float]]:
    """Loads by rank: of each drawn layer where the run has them, else what the traffic matrix of the dispatch sums to."""
    if run.rank_loads:
        many = len(run.rank_loads) > 1
        return {f"{run.name}, layer {i}" if many else run.name: row for i, row in enumerate(run.rank_loads)}
    matrix = run.traffic.get("dispatch")
    return {run.name: [float(sum(column)) for column in zip(*matrix, strict=True)]} if matrix else {}
