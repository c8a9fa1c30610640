"""Plots of ladders: the way from the naive design to the full one, and each choice alone and removed last.

A colour is a machine here, the same in every figure of a ladder; the reference is vermilion, as the link that was cut.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from sim.show import style
from sim.show.canvas import Canvas
from sim.show.views import ladder as ladder_views
from sim.show.views.ladder import machine
from sim.show.views.ladder_changes import (
    Document,
    Rung,
    change_alone,
    change_in_turn,
    change_removed,
    goes_alone,
    is_timely,
    moved,
    removal,
    sense,
)
from sim.show.words import ladder as ladders
from sim.units import dimension_of

_ORDER = (1, 0, 2, 3, 4, 5)  # of `style.SERIES`
_ROW_PX = 26  # of one machine in a row
_LINE_PX = 17  # of a row's name
_NAME = 24  # letters in a line of a row's name
_ROOM = 2.1  # of a stacked axis over its longest bar: room for what is written behind it
_TOP_PX = 44  # for the legend
_STEPS = (6, 5)  # most between ticks of an axis of changes: panels side by side, stacked
Measure = Callable[[Document, Rung, str], float | None]


def colours(document: Document) -> dict[str, str]:
    """Machine -> its colour."""
    series = [style.SERIES[i] for i in _ORDER]
    return {name: series[i % len(series)] for i, name in enumerate(document["hardware"])}


# --- the ladder -----------------------------------------------------------------------------------------------------


def ladder(document: Document) -> Any:
    """Every rung in its turn: what a design reaches on each machine, what the choice moved, and the gap beside it."""
    rungs, metric = document["rungs"], document["metric"]["name"]
    names = list(document["hardware"])
    values = [v for rung in rungs for v in rung["values"]["cumulative"].values() if v is not None]
    scale, unit = unit_of(metric, max(values, default=1.0))
    figure, hue = Canvas(), colours(document)
    rows = [_row(rung["title"]) for rung in rungs]
    more = document["metric"]["more_is_better"]
    for name in names:
        levels = [scaled(rung["values"]["cumulative"][name], scale) for rung in rungs]
        spans = [_span(old, new) for old, new in zip([None, *levels[:-1]], levels, strict=True)]
        lows, pale = [low for low, _ in spans], [high - low for low, high in spans]
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
            "bar", x=pale, base=lows, showlegend=False, marker={"color": hue[name], "opacity": 0.28, "line": {"width": 0}},
            text=[_short(document, rung, name, old) for rung, old in zip(rungs, [None, *rungs[:-1]], strict=True)],
            textposition="outside", cliponaxis=False, constraintext="none", textfont={"size": 12}, **look,
        )  # fmt: skip
    beside = ladder_views.other(document)
    wide = [0.0, 0.72] if beside else [0.0, 1.0]
    longest = max(values, default=1.0) / scale
    figure.axis("x", title=f"{ladder_views.called(metric)}{f' [{unit}]' if unit else ''}; pale: moved by the choice", domain=wide,
                range=[0, 1.3 * longest])  # fmt: skip
    figure.axis("y", autorange="reversed", ticksuffix="  ", showgrid=False, type="category")
    if beside:
        _gap_panel(figure, document, rows, beside)
    figure.layout |= {"barmode": "group", "bargap": 0.22, "bargroupgap": 0.08}
    alt = "; ".join(
        f"{rung['title']}: " + ", ".join(f"{machine(n)} {ladder_views.said(metric, rung['values']['cumulative'][n])}" for n in names)
        for rung in rungs
    )  # fmt: skip
    inside = (_ROW_PX * len(names) + 12) * len(rungs)
    better = "more" if more else "less"
    return style.finish(
        figure, " ".join(ladders.headline(document)), height=inside + 110, alt=f"Bars, {better} is better. {alt}", top=_TOP_PX,
        stacked=style.stacked_panels(
            (inside, _LINE_PX * 2 * len(rungs)), _TOP_PX, {"xaxis": {"range": [0, _ROOM * longest]}, "yaxis2": {"showticklabels": True}}
        ) if beside else None,
    )  # fmt: skip


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
        marker={"color": style.NEUTRAL}, width=0.34, text=[moved(gap) for gap in gaps], textposition="outside", cliponaxis=False,
        textfont={"size": 12}, hovertemplate="%{y}: %{x:.2f} %<extra></extra>",
    )  # fmt: skip
    longer = "longer" if is_timely(document["metric"]) else "more"
    title = f"gap: {machine(document['reference'])} takes<br>{longer} than {machine(beside)} by [%]"
    figure.axis("x2", domain=[0.79, 1.0], anchor="y2", title=title, range=[low, 1.55 * reach], nticks=4)
    figure.axis("y2", anchor="x2", autorange="reversed", ticksuffix="  ", showticklabels=False, showgrid=False, type="category")  # fmt: skip


def _row(name: str) -> str:
    """A row's name beside its bars, in lines of about the same length where it is long."""
    lines = textwrap.wrap(name, _NAME)
    for narrower in range(_NAME - 1, len(name) // len(lines), -1):
        if len(found := textwrap.wrap(name, narrower)) > len(lines) or max(map(len, found)) > narrower:
            break
        lines = found
    return "\u00a0\u00a0<br>".join(lines)  # a tick's suffix stands behind the last line only


def _label(document: Document, rung: Rung, before: Rung | None, name: str) -> str:
    metric = document["metric"]["name"]
    value = rung["values"]["cumulative"][name]
    if value is None:
        return f"{rung['title']}, {machine(name)}<br>{rung['reasons'].get('cumulative', {}).get(name, 'did not run')}"
    lines = [f"{rung['title']}, {machine(name)}", ladder_views.said(metric, value, 4)]
    if before is not None:
        lines.append(f"{moved(change_in_turn(rung, before, name))} against the rung before")
    if rung["works_around"]:
        lines.append(f"works around: {rung['works_around']}")
    return "<br>".join(lines)


def _short(document: Document, rung: Rung, name: str, before: Rung | None) -> str:
    value = rung["values"]["cumulative"][name]
    if value is None:
        return " does not fit"
    by = change_in_turn(rung, before, name) if before else None
    text = f" {ladder_views.said(document['metric']['name'], value)}"
    return text if by is None else f"{text} · {moved(by, 0 if abs(by) >= 0.1 else 1)}"


# --- choices --------------------------------------------------------------------------------------------------------


def choices(document: Document) -> Any:
    """What each choice moves alone in the naive design, and what its removal moves in the full one."""
    rungs, on = document["rungs"][1:], document["reference"]
    figure, hue = Canvas(), colours(document)
    lone = [goes_alone(rung) for rung in rungs]
    names = ([rung["title"] for rung in rungs], [removal(document, rung) for rung in rungs])
    what = f"{ladder_views.called(document['metric']['name'])}; {sense(document)}"
    hatched = "" if all(lone) else "<br>hatched: others go with it"
    panels: tuple[tuple[str, str, list[float], str, Measure], ...] = (
        ("x", "y", [0.0, 0.4], f"alone, on the naive design [%]<br>{what}", change_alone),
        ("x2", "y2", [0.62, 1.0], f"removed last, from the full one [%]<br>{what}{hatched}", change_removed),
    )
    ranges = {}
    for (xaxis, yaxis, domain, title, of), titles in zip(panels, names, strict=True):
        rows, shown = [_row(name) for name in titles], [0.0]
        for name in document["hardware"]:
            found = [of(document, rung, name) for rung in rungs]
            shown += [100 * one for one in found if one is not None]
            hatch = [("" if alone else "/") if xaxis == "x2" else "" for alone in lone]
            figure.add(
                "bar", x=[100 * (one or 0.0) for one in found], y=rows, orientation="h", xaxis=xaxis, yaxis=yaxis,
                name=machine(name), offsetgroup=name, legendgroup=name, showlegend=xaxis == "x",
                marker={"color": hue[name], "pattern": {"shape": hatch, "fillmode": "replace", "solidity": 0.35}},
                text=[" does not fit" if one is None else f" {moved(one)}" for one in found], textposition="outside", cliponaxis=False,
                constraintext="none", textfont={"size": 12}, hovertemplate=f"%{{y}}, {machine(name)}: %{{x:.2f}} %<extra></extra>",
            )  # fmt: skip
        ranges[xaxis] = _range(shown, 0.32), _range(shown, 0.75)
        ticks = _ticks(*ranges[xaxis][0], _STEPS[0])
        figure.axis(
            xaxis,
            domain=domain,
            title=title,
            range=ranges[xaxis][0],
            tickvals=ticks,
            anchor=yaxis,
            zeroline=True,
        )
        figure.axis(
            yaxis, anchor=xaxis, autorange="reversed", showgrid=False, type="category", ticksuffix="  "
        )
    figure.layout |= {"barmode": "group", "bargap": 0.22, "bargroupgap": 0.08}
    told = ladders.removed(document)
    alt = "; ".join(
        f"{rung['title']}: alone {moved(change_alone(document, rung, on))}; removed last, {removal(document, rung)}: {moved(change_removed(document, rung, on))}"
        for rung in rungs
    )  # fmt: skip
    lines = max(_row(name).count("<br>") + 1 for titles in names for name in titles)
    inside = max(_ROW_PX * len(document["hardware"]) + 10, _LINE_PX * lines + 8) * len(rungs)
    axes = {
        f"xaxis{name[1:]}": {"range": wider, "tickvals": _ticks(*wider, _STEPS[1])}
        for name, (_, wider) in ranges.items()
    }
    return style.finish(
        figure, told[0] if told else "What each choice moves", height=inside + 130, alt=f"Bars by choice, {machine(on)}. {alt}",
        top=_TOP_PX, bottom=70, stacked=style.stacked_panels((inside, inside), _TOP_PX, axes, 70),
    )  # fmt: skip


def _range(shown: Sequence[float], room: float) -> tuple[float, float]:
    """Ends of an axis of bars, with room [fraction of their span] for what is written behind them, on either side of 0."""
    span = max(shown) - min(shown) or 1.0
    low = min(shown) - (room * span if min(shown) < -0.05 else 0.0)
    return low, max(shown) + (room * span if max(shown) > 0.02 * span else 0.2 * span)


def _ticks(low: float, high: float, most_steps: int) -> list[float]:
    """Round percentages between the ends of an axis, none below the -100 % that leave nothing."""
    rough = (high - low) / most_steps
    decade = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= rough)
    return [i * step for i in range(math.ceil(max(low, -100.0) / step), math.floor(high / step) + 1)]


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
    "choices": (
        "What each design choice moves alone, and what its removal from the full design moves.",
        choices,
    ),
}
"""Kind of plot -> a sentence, and what draws it of a ladder."""
