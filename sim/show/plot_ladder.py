"""Plots of ladders: the way from the naive design to the full one, and each choice alone and removed last.

A colour is a machine here, the same in every figure of a ladder; the reference is vermilion, as the link that was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sim.show import ladders, style
from sim.show.canvas import Canvas
from sim.show.ladders import Document, Rung, machine, percent
from sim.units import dimension_of

_ORDER = (1, 0, 2, 3, 4, 5)  # of `style.SERIES`
_ROW_PX = 26  # of one machine in a row
Measure = Callable[[Document, Rung, str], float | None]


def colours(document: Document) -> dict[str, str]:
    """Machine -> its colour."""
    series = [style.SERIES[i] for i in _ORDER]
    return {name: series[i % len(series)] for i, name in enumerate(document["hardware"])}


# --- the ladder -----------------------------------------------------------------------------------------------------


def ladder(document: Document) -> Any:
    """Every rung in its turn: what a design takes on each machine, what the choice saved, and the gap beside it."""
    rungs, metric = document["rungs"], document["metric"]["name"]
    names = list(document["hardware"])
    values = [v for rung in rungs for v in rung["values"]["cumulative"].values() if v is not None]
    scale, unit = unit_of(metric, max(values, default=1.0))
    figure, hue = Canvas(), colours(document)
    rows = [_row(rung) for rung in rungs]
    more = document["metric"]["more_is_better"]
    for name in names:
        levels = [scaled(rung["values"]["cumulative"][name], scale) for rung in rungs]
        spans = [_span(old, new) for old, new in zip([None, *levels[:-1]], levels, strict=True)]
        lows, moved = [low for low, _ in spans], [high - low for low, high in spans]
        texts = [
            _label(document, rung, old, name) for rung, old in zip(rungs, [None, *rungs[:-1]], strict=True)
        ]
        look = {
            "orientation": "h",
            "offsetgroup": name,
            "legendgroup": name,
            "y": rows,
            "hoverinfo": "text",
            "hovertext": texts,
        }
        figure.add("bar", x=lows, name=machine(name), marker={"color": hue[name]}, **look)
        figure.add(
            "bar", x=moved, base=lows, showlegend=False, marker={"color": hue[name], "opacity": 0.28, "line": {"width": 0}},
            text=[_short(document, rung, name, old) for rung, old in zip(rungs, [None, *rungs[:-1]], strict=True)],
            textposition="outside", cliponaxis=False, constraintext="none", textfont={"size": 12}, **look,
        )  # fmt: skip
    beside = ladders.other(document)
    wide = [0.0, 0.72] if beside else [0.0, 1.0]
    figure.axis("x", title=f"{ladders.called(metric)}{f' [{unit}]' if unit else ''}; pale: moved by the choice", domain=wide,
                range=[0, 1.3 * max(values, default=1.0) / scale])  # fmt: skip
    figure.axis("y", autorange="reversed", ticksuffix="  ", showgrid=False, type="category")
    if beside:
        _gap_panel(figure, document, rows, beside)
    figure.layout |= {"barmode": "group", "bargap": 0.22, "bargroupgap": 0.08}
    said = ladders.finding(document)
    alt = "; ".join(
        f"{rung['title']}: " + ", ".join(f"{machine(n)} {ladders.said(metric, rung['values']['cumulative'][n])}" for n in names)
        for rung in rungs
    )  # fmt: skip
    height = 110 + (_ROW_PX * len(names) + 12) * len(rungs)
    better = "more" if more else "less"
    return style.finish(
        figure, " ".join(said[:2]), height=height, alt=f"Bars, {better} is better. {alt}", top=44
    )


def _span(before: float | None, now: float | None) -> tuple[float, float]:
    """Ends of what a choice moved: from what is now to what was before, the lower first; none of what does not run."""
    if now is None:
        return 0.0, 0.0
    return (now, now) if before is None else (min(before, now), max(before, now))


def _gap_panel(figure: Canvas, document: Document, rows: Sequence[str], beside: str) -> None:
    gaps = [rung["gap_fraction"] for rung in document["rungs"]]
    known = [100 * gap for gap in gaps if gap is not None]
    reach = max([1.0, *(abs(gap) for gap in known)])
    low = -1.45 * reach if min(known, default=0.0) < -0.05 * reach else 0.0
    figure.add(
        "bar", x=[None if gap is None else 100 * gap for gap in gaps], y=list(rows), orientation="h", xaxis="x2", yaxis="y2", showlegend=False,
        marker={"color": style.NEUTRAL}, width=0.34, text=[percent(gap) for gap in gaps], textposition="outside", cliponaxis=False,
        textfont={"size": 12}, hovertemplate="%{y}: %{x:.2f} %<extra></extra>",
    )  # fmt: skip
    title = f"gap of {machine(document['reference'])}<br>to {machine(beside)} [%]"
    figure.axis("x2", domain=[0.79, 1.0], anchor="y2", title=title, range=[low, 1.55 * reach], nticks=4)
    figure.axis(
        "y2", anchor="x2", autorange="reversed", showticklabels=False, showgrid=False, type="category"
    )


def _row(rung: Rung) -> str:
    """A rung's name beside its bars, broken in two where it is long."""
    title = str(rung["title"])
    if len(title) <= 26:
        return title
    words, first = title.split(), ""
    while words and len(first) + len(words[0]) < 26:
        first += f"{words.pop(0)} "
    return f"{first.strip()}\u00a0\u00a0<br>{' '.join(words)}"  # a tick's suffix stands behind the last line only


def _label(document: Document, rung: Rung, before: Rung | None, name: str) -> str:
    metric = document["metric"]["name"]
    value = rung["values"]["cumulative"][name]
    if value is None:
        return f"{rung['title']}, {machine(name)}<br>{rung['reasons'].get('cumulative', {}).get(name, 'did not run')}"
    lines = [f"{rung['title']}, {machine(name)}", ladders.said(metric, value, 4)]
    if before is not None:
        moved = ladders.change(document, value, before["values"]["cumulative"][name])
        lines.append(f"takes {percent(moved)} against the rung before")
    if rung["works_around"]:
        lines.append(f"works around: {rung['works_around']}")
    return "<br>".join(lines)


def _short(document: Document, rung: Rung, name: str, before: Rung | None) -> str:
    value = rung["values"]["cumulative"][name]
    if value is None:
        return " does not fit"
    old = before["values"]["cumulative"][name] if before else None
    moved = None if old is None else value / old - 1
    return f" {ladders.said(document['metric']['name'], value)}" + (
        "" if moved is None else f" · {percent(moved, 0 if abs(moved) >= 0.1 else 1)}"
    )


# --- choices --------------------------------------------------------------------------------------------------------


def choices(document: Document) -> Any:
    """What each choice saves alone in the naive design, and what its removal costs the full one."""
    rungs = document["rungs"][1:]
    figure, hue = Canvas(), colours(document)
    rows = [_row(rung) for rung in rungs]
    panels: tuple[tuple[str, str, list[float], str, Measure], ...] = (
        ("x", "y", [0.0, 0.46], "alone: saves of the naive design [%]", _saves),
        ("x2", "y2", [0.54, 1.0], "removed last: costs the full design [%]", ladders.cost_without),
    )  # fmt: skip
    for xaxis, yaxis, domain, title, of in panels:
        shown: list[float] = [0.0]
        for name in document["hardware"]:
            found = [of(document, rung, name) for rung in rungs]
            shown += [100 * one for one in found if one is not None]
            figure.add(
                "bar", x=[100 * (one or 0.0) for one in found], y=rows, orientation="h", xaxis=xaxis, yaxis=yaxis,
                name=machine(name), offsetgroup=name, legendgroup=name, showlegend=xaxis == "x", marker={"color": hue[name]},
                text=[" does not fit" if one is None else f" {percent(one)}" for one in found], textposition="outside", cliponaxis=False,
                constraintext="none", textfont={"size": 12}, hovertemplate=f"%{{y}}, {machine(name)}: %{{x:.2f}} %<extra></extra>",
            )  # fmt: skip
        span = max(shown) - min(shown) or 1.0
        low = min(shown) - (0.32 * span if min(shown) < -0.02 * span else 0)
        figure.axis(
            xaxis,
            domain=domain,
            title=title,
            range=[low, max(shown) + 0.3 * span],
            anchor=yaxis,
            zeroline=True,
        )
        figure.axis(
            yaxis, anchor=xaxis, autorange="reversed", showgrid=False, type="category", ticksuffix="  ", showticklabels=yaxis == "y"
        )  # fmt: skip
    figure.layout |= {"barmode": "group", "bargap": 0.22, "bargroupgap": 0.08}
    on = document["reference"]
    told = [s for s in ladders.finding(document) if s.startswith("Taken out")]
    alt = "; ".join(
        f"{rung['title']}: alone {percent(ladders.change_alone(document, rung, on))}, removed last {percent(ladders.cost_without(document, rung, on))}"
        for rung in rungs
    )  # fmt: skip
    height = 110 + (_ROW_PX * len(document["hardware"]) + 10) * len(rungs)
    title = told[0] if told else "What each choice saves"
    return style.finish(figure, title, height=height, alt=f"Bars by choice, {machine(on)}. {alt}", top=44)


def _saves(document: Document, rung: Rung, on: str) -> float | None:
    """What a choice alone saves of the naive design [fraction]."""
    change = ladders.change_alone(document, rung, on)
    return None if change is None else -change


# --- units ----------------------------------------------------------------------------------------------------------


def unit_of(metric: str, largest: float) -> tuple[float, str]:
    """Divisor and unit in which values of a metric are read well."""
    dimension = dimension_of(metric.partition("+")[0].strip())
    if dimension == "s":
        return style.time_unit(largest)
    return style.bytes_unit(largest) if dimension == "bytes" else (1.0, "")


def scaled(value: float | None, scale: float) -> float | None:
    """A value over the divisor of its unit; None for none."""
    return None if value is None else value / scale


KINDS = {
    "ladder": ("What each design choice moves on every machine, rung by rung, and the gap.", ladder),
    "choices": ("What each design choice saves alone, and costs when it is removed last.", choices),
}
"""Kind of plot -> a sentence, and what draws it of a ladder."""
