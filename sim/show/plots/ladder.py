"""Plots of ladders: the way from the naive design to the full one, and each choice alone and removed last.

A colour is a machine here, the same in every plot of every ladder (`style.MACHINES`).
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from sim.show import style
from sim.show.canvas import Canvas, absent
from sim.show.plots.axis import axis_title, reading_unit
from sim.show.views.ladder import LadderView, Machine, Reading, Rung
from sim.show.views.ladder_changes import LadderMetric, change_text
from sim.show.words import ladder as words

_ROW_PX = 26  # of one machine in a row
_LINE_PX = 17  # of a row's name
_NAME = 24  # letters in a line of a row's name
_ROOM = 2.1  # of a stacked axis over its longest bar: room for what is written behind it
_TOP_PX = 44  # for the legend
_STEPS = (6, 5)  # most between ticks of an axis of changes: panels side by side, stacked
_WORDS = 0.3  # part of the panel of gaps for what stands beside the longest bar
_GROUPS = {"barmode": "group", "bargap": 0.22, "bargroupgap": 0.08}
_BARS = {"orientation": "h", "textposition": "outside", "cliponaxis": False, "textfont": {"size": 12}}
"""Bars with a text behind each."""


def colours(view: LadderView) -> dict[str, str]:
    """Return the colour of each machine by its name."""
    return style.machines([machine.name for machine in view.machines])


# --- the ladder -----------------------------------------------------------------------------------------------------


def ladder(view: LadderView) -> Any:
    """Draw every rung in its turn: what a design reaches on each machine, what the choice moved, and the gap."""
    _require_choices("ladder", view)
    metric, rival = view.metric, view.rival
    values = [
        reading.value for rung in view.rungs for reading in rung.in_turn.values() if reading.value is not None
    ]
    longest = max(values, default=1.0)
    scale, unit = reading_unit(metric.dimension, longest)
    longest = max(values, default=1.0) / scale
    figure, hue = Canvas(), colours(view)
    rows = [_row(rung.title) for rung in view.rungs]
    for machine in view.machines:
        readings = [rung.in_turn[machine.name] for rung in view.rungs]
        levels = [None if reading.value is None else reading.value / scale for reading in readings]
        lows, highs = zip(
            *(_span(old, new) for old, new in zip([None, *levels], levels, strict=False)), strict=True
        )
        look = {
            "orientation": "h", "offsetgroup": machine.name, "legendgroup": machine.name, "y": rows, "hoverinfo": "text",
            "hovertext": [_hover(metric, rung, machine, i) for i, rung in enumerate(view.rungs)],
        }  # fmt: skip
        colour = hue[machine.name]
        figure.add("bar", x=lows, name=machine.label, marker={"color": colour}, **look)
        figure.add(
            "bar", x=[high - low for low, high in zip(lows, highs, strict=True)], base=lows, showlegend=False, constraintext="none",
            marker={"color": colour, "opacity": 0.28, "line": {"width": 0}},
            text=[_bar_text(metric, reading, i) for i, reading in enumerate(readings)], **_BARS | look,
        )  # fmt: skip
    title = f"{axis_title(metric.label, unit)}; pale: moved by the choice"
    figure.axis("x", title=title, domain=[0.0, 0.72 if rival else 1.0], range=[0, 1.3 * longest])
    figure.categories(type="category")
    figure.layout |= _GROUPS
    inside = (_ROW_PX * len(view.machines) + 12) * len(rows)
    stacked = None
    if rival:
        _gap_panel(figure, view, rows, rival)
        heights = (inside, _LINE_PX * 2 * len(rows))
        axes: dict[str, dict[str, Any]] = {
            "xaxis": {"range": [0, _ROOM * longest]},
            "yaxis2": {"showticklabels": True},
        }
        stacked = style.stacked_panels(heights, _TOP_PX, axes)
    better = "more" if metric.more_is_better else "less"
    alt = "; ".join(f"{rung.title}: {_alt(view, rung)}" for rung in view.rungs)
    return style.finish(
        figure, " ".join(words.headline(view)), height=inside + 110, alt=f"Bars, {better} is better. {alt}", top=_TOP_PX, stacked=stacked,
    )  # fmt: skip


def _require_choices(kind: str, view: LadderView) -> None:
    if not view.has_rungs:
        raise absent(kind, "this ladder has no rungs")


def _alt(view: LadderView, rung: Rung) -> str:
    values = ((machine.label, rung.in_turn[machine.name].value) for machine in view.machines)
    return ", ".join(f"{label} {view.metric.text(value)}" for label, value in values)


def _span(before: float | None, now: float | None) -> tuple[float, float]:
    """Return the ends of what a choice moved, from the value now to the one before, the lower first; 0 of what does not run."""
    if now is None:
        return 0.0, 0.0
    return (now, now) if before is None else (min(before, now), max(before, now))


def _gap_panel(figure: Canvas, view: LadderView, rows: Sequence[str], rival: Machine) -> None:
    gaps = [None if rung.gap is None else 100 * rung.gap for rung in view.rungs]
    known = [gap for gap in gaps if gap is not None]
    low, high = min([0.0, *known]), max([1.0, *known])
    left, right = _WORDS * (low < -0.05 * high), _WORDS * (high > -0.05 * low)
    width = (high - low) / (1.0 - left - right)
    figure.add(
        "bar", x=gaps, y=list(rows), xaxis="x2", yaxis="y2", showlegend=False, marker={"color": style.NEUTRAL}, width=0.34,
        text=[change_text(rung.gap) for rung in view.rungs], hovertemplate="%{y}: %{x:.2f} %<extra></extra>", **_BARS,
    )  # fmt: skip
    title = f"gap: {view.reference.label} takes<br>{view.metric.longer} than {rival.label} by [%]"
    figure.axis(
        "x2",
        domain=[0.79, 1.0],
        anchor="y2",
        title=title,
        range=[(low - left * width) if left else 0.0, high + right * width],
        nticks=4,
    )
    figure.categories("y2", type="category", anchor="x2", showticklabels=False)


def _row(name: str) -> str:
    """Return a row's name for the side of its bars, in lines of about the same length where it is long."""
    lines = textwrap.wrap(name, _NAME)
    for narrower in range(_NAME - 1, len(name) // len(lines), -1):
        if len(tried := textwrap.wrap(name, narrower)) > len(lines) or max(map(len, tried)) > narrower:
            break
        lines = tried
    return "\u00a0\u00a0<br>".join(lines)  # a tick's suffix comes behind the last line only


def _hover(metric: LadderMetric, rung: Rung, machine: Machine, i: int) -> str:
    reading, title = rung.in_turn[machine.name], f"{rung.title}, {machine.label}"
    if reading.value is None:
        return f"{title}<br>{reading.reason or 'did not run'}"
    lines = [title, metric.text(reading.value, 4)]
    if i:
        lines.append(f"{change_text(reading.change)} against the rung before")
    if rung.works_around:
        lines.append(f"works around: {rung.works_around}")
    return "<br>".join(lines)


def _bar_text(metric: LadderMetric, reading: Reading, i: int) -> str:
    if reading.value is None:
        return " does not fit"
    text, by = f" {metric.text(reading.value)}", reading.change
    return text if not i or by is None else f"{text} · {change_text(by, 0 if abs(by) >= 0.1 else 1)}"


# --- choices --------------------------------------------------------------------------------------------------------


def choices(view: LadderView) -> Any:
    """Draw what each choice moves alone in the naive design, and what its removal moves in the full one."""
    _require_choices("choices", view)
    rungs, on = view.choices, view.reference.name
    figure = Canvas()
    what = f"{view.metric.label}; {view.metric.change_note}"
    hatched = "<br>hatched: others go with it" if any(rung.takes_along for rung in rungs) else ""
    panels = (
        ("", [0.0, 0.4], f"alone, on the naive design [%]<br>{what}", [rung.title for rung in rungs]),
        ("2", [0.62, 1.0], f"removed last, from the full one [%]<br>{what}{hatched}", [rung.removal_text() for rung in rungs]),
    )  # fmt: skip
    stacked, most_lines = {}, 1
    for mark, domain, title, names in panels:
        rows = [_row(name) for name in names]
        shown = _bars(figure, view, mark, rows)
        narrow, wide = _range(shown, 0.32), _range(shown, 0.75)
        figure.axis(
            f"x{mark}", domain=domain, title=title, range=narrow, tickvals=_ticks(*narrow, _STEPS[0]), anchor=f"y{mark}", zeroline=True
        )  # fmt: skip
        figure.categories(f"y{mark}", type="category", anchor=f"x{mark}")
        stacked[f"xaxis{mark}"] = {"range": wide, "tickvals": _ticks(*wide, _STEPS[1])}
        most_lines = max(most_lines, *(row.count("<br>") + 1 for row in rows))
    figure.layout |= _GROUPS
    inside = max(_ROW_PX * len(view.machines) + 10, _LINE_PX * most_lines + 8) * len(rungs)
    alt = "; ".join(
        f"{rung.title}: alone {change_text(rung.alone[on].change)}; removed last, {rung.removal_text()}: {change_text(rung.removed[on].change)}"
        for rung in rungs
    )  # fmt: skip
    return style.finish(
        figure, next(iter(words.removals(view)), "What each choice moves"), height=inside + 130, alt=f"Bars by choice, {view.reference.label}. {alt}",
        top=_TOP_PX, bottom=70, stacked=style.stacked_panels((inside, inside), _TOP_PX, stacked, 70),
    )  # fmt: skip


def _bars(figure: Canvas, view: LadderView, mark: str, rows: Sequence[str]) -> list[float]:
    """Draw a panel's changes, and return them [%] with 0; those of removals that take others along are hatched."""
    hue, shown = colours(view), [0.0]
    hatch = ["/" if mark and rung.takes_along else "" for rung in view.choices]
    for machine in view.machines:
        readings = [(rung.removed if mark else rung.alone)[machine.name] for rung in view.choices]
        changes = [None if reading.change is None else 100 * reading.change for reading in readings]
        shown += filter(None, changes)
        figure.add(
            "bar", x=[change or 0.0 for change in changes], y=list(rows), xaxis=f"x{mark}", yaxis=f"y{mark}",
            name=machine.label, offsetgroup=machine.name, legendgroup=machine.name, showlegend=not mark, constraintext="none",
            marker={"color": hue[machine.name], "pattern": {"shape": hatch, "fillmode": "replace", "solidity": 0.35}},
            text=[" does not fit" if reading.change is None else f" {change_text(reading.change)}" for reading in readings],
            hovertemplate=f"%{{y}}, {machine.label}: %{{x:.2f}} %<extra></extra>", **_BARS,
        )  # fmt: skip
    return shown


def _range(shown: Sequence[float], room: float) -> tuple[float, float]:
    """Return the ends of an axis of bars, with room [fraction of their span] for what is written behind them, around 0."""
    span = max(shown) - min(shown) or 1.0
    low = min(shown) - (room * span if min(shown) < -0.05 else 0.0)
    return low, max(shown) + (room * span if max(shown) > 0.02 * span else 0.2 * span)


def _ticks(low: float, high: float, most_steps: int) -> list[float]:
    """Return round percentages between the ends of an axis, none below the -100 % that leave nothing."""
    rough = (high - low) / most_steps
    decade = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= rough)
    return [i * step for i in range(math.ceil(max(low, -100.0) / step), math.floor(high / step) + 1)]
