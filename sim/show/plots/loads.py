"""Plots of load: over time, on every link, and between every pair of ranks.

A link is loaded by what kernels reach of it: the time that its bytes take at that rate, over the time that passes. The rate
lies below the data sheet's, by which lower bounds go; titles name it.
"""

from __future__ import annotations

from typing import Any

from sim.show import style
from sim.show.canvas import Canvas, absent
from sim.show.views.names import label
from sim.show.views.run import LABEL, Case, Result, cases
from sim.units import show

_DOTS_PER_ROW = 400  # SVG dots that a browser draws at once without a wait
_EVEN = 0.05
"""Loads that no rank exceeds the mean by are drawn around the mean."""
REACHED = "of what kernels reach"
"""What a link's load is a share of."""
_GOLDEN = 0.6180339887498949  # spreads dots evenly without a random draw


def utilisation(result: Result) -> Any:
    """Mean and busiest link of each class over time."""
    case = cases(result)[0]
    timeline = case.result.get("timeline") or {}
    series = timeline.get("utilisation") or {}
    if not series:
        raise absent("utilisation", "a closed form has no course in time")
    scale, unit = style.time_unit(max(series["time_s"]))
    time = [t / scale for t in series["time_s"]]
    figure = Canvas()
    present = [name for name in LABEL if name in series]
    for name in present:
        colour, mine = style.COLOUR[name], series[name]
        figure.add(
            "scatter",
            x=time, y=_percent(mine["mean"]), name=label(name), legendgroup=name, mode="lines", line={"color": colour, "width": 2.6},
            hovertemplate=f"{label(name)}, mean: %{{y:.0f}} % at %{{x:.3g}} {unit}<extra></extra>",
        )  # fmt: skip
        figure.add(
            "scatter",
            x=time, y=_percent(mine["busiest"]), name=f"{label(name)}, busiest", legendgroup=name, showlegend=False, mode="lines",
            line={"color": colour, "width": 1.2, "dash": "dot"}, hovertemplate=f"{label(name)}, busiest: %{{y:.0f}} % at %{{x:.3g}} {unit}<extra></extra>",
        )  # fmt: skip
    for name, start, end in _spans(timeline.get("kernels") or []):
        figure.upright(start / scale, style.RULE)
        figure.note(name, (start + end) / 2 / scale, 1.0, yref="paper", yanchor="bottom", font={"size": 13})
    figure.axis("x", title=f"time [{unit}]", range=[0, max(time) * 1.01], showgrid=False)
    figure.axis("y", title=f"load [% {REACHED}]; solid mean, dotted busiest", range=[0, 105])
    figure.layout["legend"] = {"y": 1.08}
    means = {name: sum(series[name]["mean"]) / len(time) for name in present}
    top = max(means, key=lambda name: means[name])
    rest = [
        f"{label(name)} at {means[name]:.0%}{_of_rate(case, name, short=True)}"
        for name in present
        if name != top and name in ("nic", "scale_up", "leaf_uplink")
    ]
    beside = f", {' and '.join(rest)}" if rest else ""
    lead = f"{case.name}: " if case.variant else ""
    verb = "run" if top == "copy_sms" else "runs"
    title = f"{lead}on average {label(top)} {verb} at {means[top]:.0%}{_of_rate(case, top)}{beside}"
    title = title if lead else title[0].upper() + title[1:]
    alt = f"Curves of load over time, {REACHED}; means: {', '.join(f'{label(n)} {m:.0%}' for n, m in means.items())}"
    return style.finish(figure, title, height=400, alt=alt, top=70)


def _of_rate(case: Case, kind: str, *, short: bool = False) -> str:
    """` of the 135 GB/s that kernels reach`, from what links of a class carried in their busy time; empty of SMs."""
    mine = [link for link in case.links.values() if link["class"] == kind and link.get("busy_s")]
    rates = [link["bytes"] / link["busy_s"] for link in mine]
    if not rates or kind == "copy_sms":
        return ""
    upto = "up to " if min(rates) < 0.99 * max(rates) else ""
    rate = f"{upto}{show(max(rates), 'bytes/s', 3)}"
    return f" of {rate}" if short else f" of the {rate} that kernels reach"


def _percent(shares: list[float]) -> list[float]:
    return [round(100 * share, 3) for share in shares]


def _spans(kernels: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """Name, start and end of each kind of kernel, all groups together."""
    spans: dict[str, tuple[float, float]] = {}
    for kernel in kernels:
        start, end = kernel["start_s"], max(kernel["rank_ends_s"])
        first, last = spans.get(kernel["name"], (start, end))
        spans[kernel["name"]] = (min(first, start), max(last, end))
    return [(name, *span) for name, span in spans.items()]


def links(result: Result) -> Any:
    """Every link's load as a dot, in a row for its class and direction."""
    case = cases(result)[0]
    rows = by_row(case)
    if not rows:
        raise absent("links", "this run recorded no link (a closed form has none)")
    figure = Canvas()
    names = list(rows)
    fullest = max(len(row) for row in rows.values())
    every = -(-fullest // _DOTS_PER_ROW)
    means = {}
    for i, name in enumerate(names):
        mine = sorted(rows[name], key=lambda one: one[1])
        kind = mine[0][2]
        shares = [share for _, share, _ in mine]
        means[name] = sum(shares) / len(shares)
        dots = [*mine[:-1:every], mine[-1]]
        spread = [0.62 * ((j * _GOLDEN) % 1 - 0.5) if len(dots) > 1 else 0.0 for j in range(len(dots))]
        figure.add(
            "scatter", x=_percent([share for _, share, _ in dots]), y=[i + s for s in spread], mode="markers", name=label(kind), legendgroup=kind, showlegend=False,
                marker={"color": style.COLOUR[kind], "size": 5 if len(dots) > 150 else 7, "opacity": 0.6},
                text=[resource for resource, _, _ in dots], hovertemplate="%{text}: %{x:.1f} %<extra></extra>",
        )  # fmt: skip
        figure.add(
            "scatter",
            x=[100 * means[name]] * 2, y=[i - 0.4, i + 0.4], mode="lines", line={"color": style.COLOUR[kind], "width": 3.5},
            hovertemplate=f"{name}: mean of {len(mine)} {100 * means[name]:.1f} %<extra></extra>", name="mean of the row", showlegend=False,
        )  # fmt: skip
    dot = "each dot a link" if every == 1 else f"dots are links, one of {every} drawn"
    top = max(means, key=lambda name: means[name])
    resource, share, _ = max((one for row in rows.values() for one in row), key=lambda one: one[1])
    figure.axis("x", title=f"load in the run [% {REACHED}]; {dot}, the bar their mean", range=[0, 104])
    figure.axis("y",
        tickvals=list(range(len(names))), ticktext=[f"{name}  " for name in names], range=[len(names) - 0.4, -0.6], showgrid=False,
        zeroline=False,
    )  # fmt: skip
    lead = f"{case.name}: " if case.variant else ""
    kind = rows[top][0][2]
    title = f"{lead}{top} {'are' if kind == 'copy_sms' else 'is'} fullest on average, {means[top]:.0%}{_of_rate(case, kind)}; the fullest single link is {resource}, {share:.0%}"
    alt = f"Dots by link; mean load, {REACHED}: {', '.join(f'{n} {m:.0%}' for n, m in means.items())}"
    return style.finish(figure, title, height=120 + 44 * len(names), alt=alt, top=24)


def by_row(case: Case) -> dict[str, list[tuple[str, float, str]]]:
    """Resource, load and class of each link under `NVLink egress`, `NIC receive`, ... in the order of classes."""
    rows: dict[str, list[tuple[str, float, str]]] = {}
    for kind in LABEL:
        for resource, link in case.links.items():
            if link["class"] == kind:
                rows.setdefault(f"{label(kind)}{_way(resource)}", []).append(
                    (resource, link["utilisation_fraction"], kind)
                )
    return rows


def _way(resource: str) -> str:
    """Direction of a link, from its name."""
    end = resource.rpartition("/")[2]
    words = {
        "tx": " send",
        "rx": " receive",
        "egress": " egress",
        "ingress": " ingress",
        "up": " up",
        "down": " down",
    }
    if end in words:
        return words[end]
    if "->" in resource:
        return " up" if "leaf" in resource.partition("->")[0] else " down"
    return ""


def traffic_matrix(result: Result) -> Any:
    """Bytes between every pair of ranks of the first EP group."""
    case = cases(result)[0]
    traffic = case.result.get("traffic") or {}
    if not traffic:
        raise absent(
            "traffic_matrix", "flows, closed forms and more than 256 ranks come without a traffic matrix"
        )
    name, matrix = next(iter(traffic.items()))
    num, per_node = len(matrix), case.gpus_per_node
    largest = max(max(row) for row in matrix)
    if not largest:
        raise absent("traffic_matrix", "no rank sends another a whole byte")
    scale, unit = style.bytes_unit(largest)
    figure = Canvas()
    figure.add(
        "heatmap",
            z=[[cell / scale for cell in row] for row in matrix], colorscale=style.AMOUNT, zmin=0, zmax=largest / scale,
            colorbar=style.colourbar(f"from rank to rank [{unit}]"),
            hovertemplate=f"rank %{{y}} to rank %{{x}}: %{{z:.3g}} {unit}<extra></extra>",
    )  # fmt: skip
    if 1 < per_node < num and num // per_node <= 32:
        for edge in range(per_node, num, per_node):
            for draw in (figure.upright, figure.level):
                draw(edge - 0.5, "rgba(255,255,255,0.8)", "above")
    figure.axis(
        "x",
        title={"text": "to rank", "standoff": 22},
        showgrid=False,
        zeroline=False,
        constrain="domain",
        constraintoward="left",
        range=[-0.5, num - 0.5],
    )
    figure.axis(
        "y",
        title="from rank",
        range=[num - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
        scaleanchor="x",
        constrain="domain",
        constraintoward="top",
    )
    total = sum(sum(row) for row in matrix)
    away = sum(
        cell for s, row in enumerate(matrix) for d, cell in enumerate(row) if s // per_node != d // per_node
    )
    own = sum(matrix[r][r] for r in range(num))
    received = [sum(row[d] for row in matrix) for d in range(num)]
    hottest = max(range(num), key=lambda d: received[d])
    lead = f"{case.name}: " if case.variant else ""
    over = received[hottest] / (total / num)
    title = (
        f"{lead}{name} moves {show(total / num, 'bytes', 3)} a rank: {away / total:.0%} to other nodes, "
        f"{(total - away - own) / total:.0%} inside the node, {own / total:.0%} stays; rank {hottest} receives {over:.2f}x the mean"
    )
    return style.finish(
        figure,
        title if lead else title[0].upper() + title[1:],
        height=600,
        top=84,
        width=680,
        alt=f"Heat map. {title}",
    )


def rank_loads(result: Result) -> Any:
    """Tokens that each rank's experts get, over the mean: one row a variant (and drawn layer), before and after EPLB."""
    rows = [(name, loads) for case in cases(result) for name, loads in _loads(case)]
    if not rows:
        raise absent("rank_loads", "only runs that route tokens to ranks have loads")
    num = max(len(loads) for _, loads in rows)
    relative = [[load * len(loads) / sum(loads) for load in loads] for _, loads in rows]
    if max(max(row) for row in relative) < 1 + _EVEN:
        return _even_loads([name for name, _ in rows], relative)
    figure = Canvas()
    figure.add(
        "heatmap",
            z=[[*row, *[None] * (num - len(row))] for row in relative], y=[name for name, _ in rows], colorscale=style.AMOUNT,
            zmin=0, zmax=max(max(row) for row in relative), colorbar=style.colourbar("load [x mean]"),
            hovertemplate="%{y}, rank %{x}: %{z:.2f} x mean<extra></extra>",
    )  # fmt: skip
    figure.axis("x", title="rank", showgrid=False, zeroline=False, range=[-0.5, num - 0.5])
    figure.axis("y", autorange="reversed", showgrid=False, zeroline=False)
    peaks = {name: max(row) for (name, _), row in zip(rows, relative, strict=True)}
    worst, best = max(peaks, key=lambda name: peaks[name]), min(peaks, key=lambda name: peaks[name])
    title = f"The busiest rank gets {peaks[worst]:.2f}x the mean load in {worst}"
    title += f", {peaks[best]:.2f}x in {best}" if best != worst else ""
    alt = (
        f"Heat map of load by rank; busiest over mean: {', '.join(f'{n} {p:.2f}' for n, p in peaks.items())}"
    )
    return style.finish(figure, title, height=160 + 34 * len(rows), alt=alt)


def _even_loads(names: list[str], relative: list[list[float]]) -> Any:
    """A dot a rank on an axis around the mean: a map of equal loads would be one colour."""
    figure = Canvas()
    for i, mine in enumerate(relative):
        kept = range(0, len(mine), -(-len(mine) // _DOTS_PER_ROW))
        spread = [0.62 * ((j * _GOLDEN) % 1 - 0.5) if len(kept) > 1 else 0.0 for j in range(len(kept))]
        figure.add(
            "scatter", x=[round(mine[rank], 5) for rank in kept], y=[i + s for s in spread], mode="markers", showlegend=False,
            marker={"color": style.SERIES[0], "size": 5, "opacity": 0.6}, text=[f"{names[i]}, rank {rank}" for rank in kept],
            hovertemplate="%{text}: %{x:.3f} x mean<extra></extra>",
        )  # fmt: skip
    reach = 1.1 * max(_EVEN, *(abs(load - 1) for row in relative for load in row))
    figure.axis("x", title="load of a rank [x mean]", range=[1 - reach, 1 + reach])
    figure.axis(
        "y", tickvals=list(range(len(names))), ticktext=[f"{name}  " for name in names], range=[len(names) - 0.4, -0.6],
        showgrid=False, zeroline=False,
    )  # fmt: skip
    peaks = [max(row) for row in relative]
    where = "" if len(names) == 1 else f", in {names[peaks.index(max(peaks))]}"
    title = f"Ranks are loaded evenly: the busiest gets {max(peaks):.3f}x the mean{where}"
    alt = f"Dots by rank; busiest over mean: {', '.join(f'{n} {p:.3f}' for n, p in zip(names, peaks, strict=True))}"
    return style.finish(figure, title, height=120 + 34 * len(names), alt=alt, top=24)


def _loads(case: Case) -> list[tuple[str, list[float]]]:
    """Loads by rank: of each drawn layer where the run has them, else what the traffic matrix of the dispatch sums to."""
    layers = case.result.get("rank_loads") or []
    if layers:
        many = len(layers) > 1
        return [(f"{case.name}, layer {i}" if many else case.name, list(row)) for i, row in enumerate(layers)]
    matrix = (case.result.get("traffic") or {}).get("dispatch") or []
    return [(case.name, [float(sum(row[d] for row in matrix)) for d in range(len(matrix))])] if matrix else []
