"""Plots of times: beside bounds, by rank, and beside published figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sim.show import style
from sim.show.canvas import Canvas, absent
from sim.show.views import names as names_views
from sim.show.views.run import Case, Result, cases, over_bound, time_of
from sim.show.words import run as findings
from sim.units import show

_OUTLINE = "#1C2126"
_DOTS = 2500  # SVG dots of one kind that a browser draws at once without a wait


def mark_bounds(figure: Canvas, bounds: list[float], names: list[str], unit: str) -> None:
    """A mark on each bar, at its lower bound."""
    figure.add(
        "scatter", x=bounds, y=names, mode="markers", name="lower bound",
        marker={"symbol": "triangle-down", "size": 12, "color": "#FFFFFF", "line": {"width": 1.6, "color": "#1C2126"}},
        hovertemplate=f"%{{y}}: lower bound %{{x:.4g}} {unit}<extra></extra>",
    )  # fmt: skip


def bars(result: Result) -> Any:
    """Completion time of each transfer, its lower bound as the solid part of the bar, coloured by what binds."""
    found = cases(result)
    panels = list(dict.fromkeys(name for case in found for name in case.transfers))
    if not panels:
        raise absent("bars", "this one has no timed transfer")
    rows = {panel: [case for case in found if panel in case.transfers] for panel in panels}
    figure = Canvas()
    axes = _panels(figure, {panel: len(rows[panel]) for panel in panels})
    scale, unit = style.time_unit(max(m["completion_time_s"] for c in found for m in c.transfers.values()))
    shown: set[str] = set()
    for panel, axis in axes.items():
        for case in rows[panel]:
            metrics = case.transfers[panel]
            colour = style.COLOUR.get(metrics["binding"], style.NEUTRAL)
            end, bound = metrics["completion_time_s"] / scale, metrics.get("lower_bound_s", 0.0) / scale
            ratio = over_bound(metrics)
            name = names_views.label(metrics["binding"])
            verb = "bind" if metrics["binding"] == "copy_sms" else "binds"
            text = f"{show(metrics['completion_time_s'], 's', 3)}" + (
                f" · {ratio:.2f}× bound" if ratio else ""
            )
            figure.add(
            "bar",
                x=[end], y=[case.name], orientation="h", marker={"color": colour, "opacity": 0.38}, showlegend=False, hovertemplate=f"{case.name}, {panel}<br>{text}<br>{name} {verb}<extra></extra>",
                yaxis=axis,
            )  # fmt: skip
            figure.add(
            "bar",
                x=[bound], y=[case.name], orientation="h", marker={"color": colour}, name=f"{name} {verb}",
                legendgroup=name, showlegend=name not in shown, yaxis=axis,
                hovertemplate=f"{case.name}, {panel}<br>lower bound {show(metrics.get('lower_bound_s', 0.0), 's', 4)}<extra></extra>",
            )  # fmt: skip
            shown.add(name)
        _labels(figure, rows[panel], panel, scale, axis)
        _mean_marks(figure, rows[panel], panel, scale, axis, shown)
        _published_marks(figure, rows[panel], panel, scale, axis, shown)
    longest = max(m["completion_time_s"] for c in found for m in c.transfers.values()) / scale
    figure.axis(
        "x",
        range=[0, longest * 1.32],
        anchor=axis,
        title=f"completion time [{unit}]; solid up to the lower bound, pale above it",
    )
    figure.layout["barmode"] = "overlay"
    said = findings.finding(result)
    height = 96 + sum(len(row) for row in rows.values()) * 34 + len(panels) * 30
    alt = "Bars: " + "; ".join(
        f"{c.name} {p} {show(m['completion_time_s'], 's', 3)}" for c in found for p, m in c.transfers.items()
    )
    return style.finish(
        figure, said[0] if said else "Times beside their lower bounds", height=height, alt=alt, top=52
    )


def _panels(figure: Canvas, counts: Mapping[str, int]) -> dict[str, str]:
    """A band of the drawing and a y axis for each panel, from the top; heights as the number of rows."""
    head = 0.9  # of a row's height
    unit = 1 / (sum(counts.values()) + head * len(counts))
    axes, high = {}, 1.0
    for i, (panel, count) in enumerate(counts.items(), start=1):
        name = "y" if i == 1 else f"y{i}"
        low = high - unit * (count + head)
        figure.axis(
            name,
            domain=[max(0.0, low), high - unit * head],
            autorange="reversed",
            ticksuffix="  ",
            showgrid=False,
            anchor="x",
        )
        figure.note(
            f"<b>{panel}</b>",
            0,
            high - unit * head,
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            font={"size": 14},
        )
        axes[panel], high = name, low
    return axes


def _labels(figure: Canvas, found: Iterable[Case], panel: str, scale: float, axis: str) -> None:
    """Time and ratio, to the right of the bar and of any published mark."""
    ends, names, texts = [], [], []
    for case in found:
        metrics, ratio = case.transfers[panel], over_bound(case.transfers[panel])
        marks = [published_time(case, panel, row) or 0.0 for row in case.result.get("expect") or []]
        ends.append(max([metrics["completion_time_s"], *marks]) / scale)
        names.append(case.name)
        texts.append(
            f"   {show(metrics['completion_time_s'], 's', 3)}" + (f" · {ratio:.2f}× bound" if ratio else "")
        )
    figure.add(
        "scatter",
        x=ends,
        y=names,
        yaxis=axis,
        mode="text",
        text=texts,
        textposition="middle right",
        cliponaxis=False,
        showlegend=False,
        hoverinfo="skip",
    )


def _mean_marks(
    figure: Canvas, found: Iterable[Case], panel: str, scale: float, axis: str, shown: set[str]
) -> None:
    """The mean rank, where it lies well before the last."""
    apart = [
        c
        for c in found
        if abs(time_of(c.transfers[panel]) / c.transfers[panel]["completion_time_s"] - 1) > 0.02
    ]
    if not apart:
        return
    figure.add(
            "scatter",
        x=[time_of(c.transfers[panel]) / scale for c in apart], y=[c.name for c in apart], mode="markers",
        marker={"symbol": "circle", "size": 9, "color": "#FFFFFF", "line": {"width": 1.6, "color": _OUTLINE}},
        name="mean rank", legendgroup="mean rank", showlegend="mean rank" not in shown, yaxis=axis,
        hovertemplate="%{y}: mean rank %{x:.4g}<extra></extra>",
    )  # fmt: skip
    shown.add("mean rank")


def _published_marks(
    figure: Canvas, found: Iterable[Case], panel: str, scale: float, axis: str, shown: set[str]
) -> None:
    points = []
    for case in found:
        for row in case.result.get("expect") or []:
            time_s = published_time(case, panel, row)
            if time_s is not None:
                points.append((time_s / scale, case.name, row))
    if not points:
        return
    figure.add(
            "scatter",
        x=[x for x, _, _ in points], y=[y for _, y, _ in points], mode="markers",
        marker={"symbol": "diamond", "size": 11, "color": "#FFFFFF", "line": {"width": 1.8, "color": _OUTLINE}},
        name="published", legendgroup="published", showlegend="published" not in shown, yaxis=axis,
        hovertext=[
            f"{r['metric']}<br>published {names_views.value(r['metric'], r['published'])}<br>"
            f"simulated {names_views.value(r['metric'], r['simulated'])} ({r['error_fraction']:+.1%})<br>{r.get('source') or ''}"
            for _, _, r in points
        ],
        hoverinfo="text",
    )  # fmt: skip
    shown.add("published")


def published_time(case: Case, panel: str, row: Mapping[str, Any]) -> float | None:
    """The time that a published metric states or implies [s]; a bandwidth over the same bytes is a time too."""
    metric = str(row["metric"])
    owner, _, key = metric.rpartition(".")
    if (owner or "flows") != panel or not row["published"]:
        return None
    if key in ("time_s", "completion_time_s"):
        return float(row["published"])
    if key.startswith(("logical_", "algbw", "busbw")):
        return time_of(case.transfers[panel]) * float(row["simulated"]) / float(row["published"])
    return None


def rank_times(result: Result) -> Any:
    """When each rank ended, after the start of its kernel."""
    case = cases(result)[0]
    kernels = (case.result.get("timeline") or {}).get("kernels") or []
    if not kernels:
        raise absent("rank_times", "flows and closed forms have no ranks")
    names = list(dict.fromkeys(kernel["name"] for kernel in kernels))
    longest = max(end - kernel["start_s"] for kernel in kernels for end in kernel["rank_ends_s"])
    scale, unit = style.time_unit(longest)
    figure, tails = Canvas(), []
    for i, name in enumerate(names):
        mine = [kernel for kernel in kernels if kernel["name"] == name]
        ranks = [kernel["first_gpu"] + r for kernel in mine for r in range(len(kernel["rank_ends_s"]))]
        times = [(end - kernel["start_s"]) / scale for kernel in mine for end in kernel["rank_ends_s"]]
        groups = [kernel["group"] for kernel in mine for _ in kernel["rank_ends_s"]]
        mean, last = sum(times) / len(times), max(times)
        every = -(-len(times) // _DOTS)
        late = times.index(last)
        tails.append((last / mean - 1, name, ranks[late]))
        kept = sorted({*range(0, len(times), every), late})
        figure.add(
            "scatter", x=[ranks[i] for i in kept], y=[times[i] for i in kept], mode="markers", name=f"{name}, mean {show(mean * scale, 's', 3)}", customdata=[groups[i] for i in kept],
                marker={"size": 4 if len(times) > 300 else 7, "color": style.SERIES[i], "opacity": 0.85},
                hovertemplate=f"{name}: rank %{{x}}, group %{{customdata}}<br>ends after %{{y:.4g}} {unit}<extra></extra>",
        )  # fmt: skip
        figure.add(
            "scatter", x=[-0.5, max(ranks) + 0.5], y=[mean, mean], mode="lines", showlegend=False,
                       line={"color": style.SERIES[i], "width": 1.5, "dash": "dot"}, hoverinfo="skip",
        )  # fmt: skip
    num_ranks = max(kernel["first_gpu"] + len(kernel["rank_ends_s"]) for kernel in kernels)
    _borders(figure, num_ranks, case.gpus_per_node)
    figure.axis("x", title="rank", range=[-0.5, num_ranks - 0.5], showgrid=False)
    figure.axis("y", title=f"end after the kernel's start [{unit}]", rangemode="tozero")
    tail, name, rank = max(tails)
    lead = f"{case.name}: " if case.variant else ""
    title = f"{lead}the last rank of {name}, rank {rank}, ends {tail:.1%} after the mean of {num_ranks} ranks"
    if tail < 0.001:
        title = f"{lead}all {num_ranks} ranks end together, within 0.1%"
    return style.finish(figure, title[0].upper() + title[1:] if not lead else title, height=400, top=44)


def _borders(figure: Canvas, num_ranks: int, per_node: int) -> None:
    """A faint line between nodes, where there are few enough to tell apart."""
    if per_node > 1 and num_ranks // per_node <= 32:
        for edge in range(per_node, num_ranks, per_node):
            figure.upright(edge - 0.5, style.BAND)
