"""Maps of a sweep: the best that each pair of values of two axes allows, whatever the other axes are.

The last two axes span the map; where an axis before them has few values (or is the given one), there is a map for each. Colours
are times the best: of all maps, or where axes are given, of the same values of these: of its map, or of its row. Lines join
places of equal performance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sim.errors import InputError, Problem
from sim.show import style
from sim.show.canvas import Canvas
from sim.show.views import sweep as sweeps
from sim.show.views.sweep import Point, Sweep, axis_label, cell, label, metric, value_label
from sim.units import dimension_of, figures, show, split

_PANELS = 8
_ACROSS = 4  # panels side by side
_LEVELS = {1.05: "solid", 1.25: "dash", 2.0: "dot"}  # times the best, joined by lines
_CHARACTER_PX, _BOLD_PX, _TOP_PX, _LINE_PX = 7, 8, 64, 16
_WIDE_PX, _NARROW_PX = 950, 318  # of a figure between its margins, and on a narrow screen
_NAME_PX, _AXIS_PX = 22, 20  # above a map for its name, beside it for the title of its axis
_TICKS = (1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_INK = "#1C2126"
_BEHIND = [[0.0, "#0A5C8F"], [0.05, "#5BA3CE"], [0.15, "#BBD8EA"], [0.3, "#F3E3B3"], [0.6, "#EBA04B"], [1.0, "#A8320A"]]  # fmt: skip
"""From the best (blue) to the worst (red); dark at both ends, and the numbers stand in the cells."""


def reading_unit(name: str, values: Sequence[float]) -> tuple[float, str]:
    """Divisor and unit in which the values of a metric are read well."""
    largest, dimension = max(map(abs, values), default=0.0), dimension_of(name)
    if dimension == "s":
        return style.time_unit(largest)
    if dimension in ("bytes", "bytes/s"):
        scale, unit = style.bytes_unit(largest)
        return scale, unit + ("/s" if dimension == "bytes/s" else "")
    return (0.01, "%") if dimension == "fraction" else (1.0, "")


def axis_title(name: str, unit: str) -> str:
    """A metric and its unit, as an axis says them."""
    return f"{label(name)} [{unit}]" if unit else label(name)


def ran(kind: str, document: Sweep) -> list[Point]:
    """Points that ran, the best first. Raises `InputError` where there are none to draw."""
    found = sweeps.ranked(document)
    if not found:
        wanted = "a sweep of which a point ran; in this one none could"
        raise InputError(Problem(None, "kind", f"'{kind}'", wanted))
    return found


@dataclass(frozen=True, slots=True)
class _Maps:
    """What is drawn: the axes across and up with their values, the one from map to map (or None), and the best metric by values."""

    x: str
    y: str
    xs: list[str]
    ys: list[str]
    panel: str | None
    panels: tuple[str, ...]
    name: str
    way: str
    best: dict[tuple[str, str, str], float]  # panel ("" where there is one map), y, x
    given: tuple[bool, bool, bool]  # whether panel, y and x are conditions, each with a best of its own
    tops: dict[tuple[str, str, str], float]  # what the places of a condition are compared with

    def condition(self, panel: str, y: str, x: str) -> tuple[str, str, str]:
        """The values of a place that are given; "" for the others."""
        one, two, three = self.given
        return panel if one else "", y if two else "", x if three else ""

    def times(self, panel: str, y: str, x: str) -> float | None:
        """Times the best; None where no point ran."""
        value, top = self.best.get((panel, y, x)), self.tops.get(self.condition(panel, y, x))
        if value is None or not value or not top:
            return None if value is None else 1.0
        return max(1.0, value / top if self.way == "minimise" else top / value)


def _maps(document: Sweep) -> _Maps:
    points, given = ran("map", document), document["given"]
    varied = sweeps.varied(document)
    axes = [*(one for one in varied if one in given), *sweeps.choices(document)]
    if len(axes) < 2:
        wanted = f"a sweep with two axes of more than one value; this one varies {axes[0]}"
        raise InputError(Problem(None, "kind", "'map'", wanted))
    *before, y, x = axes
    few = [axis for axis in reversed(before) if len(document["axes"][axis]) <= _PANELS]
    panel = next((one for one in few if one in given), few[0] if few else None)
    name, way = sweeps.objective(document)
    better = min if way == "minimise" else max
    best: dict[tuple[str, str, str], float] = {}
    for point in points:
        value = metric(point, name)
        if value is not None and math.isfinite(value):
            key = _key(point, panel, y, x)
            best[key] = value if key not in best else better(best[key], value)
    panels = tuple(map(value_label, document["axes"][panel])) if panel else ("",)
    xs, ys = ([value_label(value) for value in document["axes"][axis]] for axis in (x, y))
    conditions = panel in given, y in given, x in given
    maps = _Maps(x, y, xs, ys, panel, panels, name, way, best, conditions, {})
    for key, value in best.items():
        here = maps.condition(*key)
        maps.tops[here] = better(maps.tops.get(here, value), value)
    return maps


def _key(point: Point, panel: str | None, y: str, x: str) -> tuple[str, str, str]:
    values = point["values"]
    return value_label(values[panel]) if panel else "", value_label(values[y]), value_label(values[x])


def sweep_map(document: Sweep) -> Any:
    """The best that each pair of values allows, a map for each value of a third axis."""
    maps = _maps(document)
    worst = max(maps.times(*key) or 1.0 for key in maps.best)
    figure, across = Canvas(), _across(maps, _WIDE_PX, _ACROSS)
    for i in range(len(maps.panels)):
        _draw(figure, maps, i, max(2.0, worst), numbered=_numbered(maps, across))
        for name, said in _axes(maps, i, across).items():
            figure.axis(name.replace("axis", ""), **said)
        if maps.panel:
            _name(figure, maps, i)
    others = [
        axis_label(axis) for axis in sweeps.varied(document) if axis not in (maps.x, maps.y, maps.panel)
    ]
    over = f", best over {', '.join(others)}" if others else ""
    least = f"{worst:.3g} times" if maps.way == "minimise" else f"1/{worst:.3g} of"
    own = [
        axis_label(axis)
        for axis, given in zip((maps.panel, maps.y, maps.x), maps.given, strict=True)
        if axis and given
    ]
    found = (
        f"worst {least} the best of its {' and '.join(own)}"
        if own
        else f"best {cell(maps.name, maps.tops['', '', ''])}, worst {least} that"
    )
    title = f"{label(maps.name)} by {axis_label(maps.y)} and {axis_label(maps.x)}{over}: {found}"
    told = (
        f"{', '.join(filter(None, key))}: {show(value, dimension_of(maps.name), 3)}"
        for key, value in list(maps.best.items())[:20]
    )
    return style.finish(
        figure, title[0].upper() + title[1:], height=_height(maps, across), alt=f"Heat map of {label(maps.name)}; {'; '.join(told)}",
        top=_TOP_PX + _LINE_PX, stacked=_stacked(maps, across),
    )  # fmt: skip


def _draw(figure: Canvas, maps: _Maps, i: int, worst: float, *, numbered: bool) -> None:
    """One map: its cells, with numbers where there is room, and its lines."""
    panel, mark, xs, ys = maps.panels[i], "" if i == 0 else str(i + 1), maps.xs, maps.ys
    scale, unit = reading_unit(maps.name, list(maps.best.values()))
    values = [[maps.best.get((panel, y, x)) for x in xs] for y in ys]
    texts = [["·" if value is None else figures(value / scale, 3) for value in row] for row in values]
    times = [[maps.times(panel, y, x) for x in xs] for y in ys]
    colours = [[None if one is None else math.log2(one) for one in row] for row in times]
    crowded = {1.1, 1.25, 1.5} if worst >= 8 else {1.1, 1.25} if worst >= 3 else set()
    ticks = [t for t in _TICKS if t <= 1.001 * worst and t not in crowded]
    least = "times the best" if maps.way == "minimise" else "times below the best"
    lined = _lined(times, xs, ys)
    lines = ";<br>lines at 1.05, 1.25 (dashed) and 2 (dotted)" if lined else ""
    of_own = " of its row" if maps.given[1] else " of its map" if maps.given[0] else ""
    key = f"{least}{of_own}{lines}"
    bar = {
        **style.colourbar(key),
        "tickvals": [math.log2(t) for t in ticks],
        "ticktext": [f"{t:g}x" for t in ticks],
    }
    figure.add(
        "heatmap",
        x=xs, y=ys, z=colours, text=texts if numbered else None, texttemplate="%{text}" if numbered else None, textfont={"size": 11},
        customdata=texts, xaxis=f"x{mark}", yaxis=f"y{mark}", zmin=0, zmax=math.log2(worst), colorscale=_BEHIND, xgap=1, ygap=1,
        showscale=not mark, colorbar=bar, hoverongaps=False,
        hovertemplate=f"{axis_label(maps.y)} %{{y}}, {axis_label(maps.x)} %{{x}}: %{{customdata}} {unit}<extra></extra>",
    )  # fmt: skip
    for level, dash in _LEVELS.items() if lined else ():
        figure.add(
            "contour",
            x=xs, y=ys, z=times, xaxis=f"x{mark}", yaxis=f"y{mark}", showscale=False, showlegend=False, hoverinfo="skip",
            contours={"start": level, "end": level, "size": 1, "coloring": "none"},
            line={"width": 1.4, "color": _INK, "smoothing": 0, "dash": dash},
        )  # fmt: skip


def _lined(times: Sequence[Sequence[float | None]], xs: Sequence[str], ys: Sequence[str]) -> bool:
    """Whether lines help: the axes are numbers, and no hole lets a line say what nobody ran."""
    numeric = all(text[:1].isdigit() for text in (*xs, *ys))
    whole = all(one is not None for row in times for one in row)
    return whole and numeric and len(xs) >= 4 and len(ys) >= 3


def _ticks(axis: str, values: Sequence[str]) -> tuple[str, list[str]]:
    """Title of an axis and texts of its values; a unit that all share stands in the title."""
    found = [split(value) for value in values]
    units = {one[1] for one in found if one}
    if None in found or len(units) != 1 or units == {""}:
        return axis_label(axis), list(values)
    return f"{axis_label(axis)} [{units.pop()}]", [figures(one[0], 6) for one in found if one]


def _inner(maps: _Maps, width: int) -> float:
    """What a figure `width` [px] wide leaves for its maps."""
    return width - _AXIS_PX - _CHARACTER_PX * max(map(len, _ticks(maps.y, maps.ys)[1]))


def _cell(maps: _Maps, across: int, width: int) -> float:
    """Width of a place of a map [px], where it is one of some `across`."""
    return _inner(maps, width) * (1 / across - (0.06 if across > 1 else 0.01)) / len(maps.xs)


def _across(maps: _Maps, width: int, most: int) -> int:
    """How many maps stand side by side, so that the name of none runs into the next."""
    longest = max(1, *(len(_named(maps, panel)) for panel in maps.panels))
    room = _inner(maps, width) / (_BOLD_PX * longest)
    return min(most, len(maps.panels), max(1, int(room)))


def _numbered(maps: _Maps, across: int) -> bool:
    """Whether the numbers of places fit into them."""
    scale, _ = reading_unit(maps.name, list(maps.best.values()))
    longest = max(len(figures(value / scale, 3)) for value in maps.best.values())
    return _CHARACTER_PX * longest < _cell(maps, across, _WIDE_PX)


def _axes(maps: _Maps, i: int, across: int, width: int = _WIDE_PX) -> dict[str, dict[str, Any]]:
    """The axes of a map, where it is one of some `across` on a drawing `width` [px] wide."""
    down = -(-len(maps.panels) // across)
    column, row = i % across, i // across
    mark, wide, high = "" if i == 0 else str(i + 1), 1 / across, 1 / down
    left, top = column * wide + (0.05 if column else 0.0), 1 - row * high
    title, texts = _ticks(maps.x, maps.xs)
    room = _cell(maps, across, width) / _CHARACTER_PX
    fits = all((len(one) + len(other)) / 2 + 1 <= room for one, other in pairwise(texts))
    below = 16 + (_BOLD_PX * max(map(len, texts)) if not fits else 16)  # plotly counts from the axis
    name, names = _ticks(maps.y, maps.ys)
    lowest = row == down - 1 or i + across >= len(maps.panels)
    above = _NAME_PX / (_height(maps, across) - 120) if maps.panel else 0.0
    shared = {"type": "category", "showgrid": False}
    x = {
        "domain": [left, (column + 1) * wide - 0.01], "anchor": f"y{mark}", "tickvals": maps.xs, "ticktext": texts,
        "tickangle": 0 if fits else -90, "title": {"text": title if lowest else "", "standoff": below},
    }  # fmt: skip
    y = {
        "domain": [max(0.0, top - high + (0.12 if down > 1 else 0.0)), top - above], "anchor": f"x{mark}",
        "tickvals": maps.ys, "ticktext": names, "title": {"text": name if column == 0 else ""},
    }  # fmt: skip
    return {f"xaxis{mark}": shared | x, f"yaxis{mark}": shared | y}


def _height(maps: _Maps, across: int) -> int:
    """Of all maps [px]."""
    return 130 + -(-len(maps.panels) // across) * max(180, 34 * len(maps.ys) + 60)


def _stacked(maps: _Maps, across: int) -> dict[str, Any] | None:
    """What a page changes where maps do not fit side by side."""
    if across == 1:
        return None
    fewer = _across(maps, _NARROW_PX, 2 if across > 2 else 1)
    axes = (_axes(maps, i, fewer, _NARROW_PX).items() for i in range(len(maps.panels)))
    changed = {name: said for items in axes for name, said in items}
    return {"height": _height(maps, fewer) + _TOP_PX, **changed}


def _named(maps: _Maps, panel: str) -> str:
    return f"{axis_label(str(maps.panel))} {panel}" if panel[:1].isdigit() else panel


def _name(figure: Canvas, maps: _Maps, i: int) -> None:
    """Which map this is, above it wherever it stands."""
    mark = "" if i == 0 else str(i + 1)
    figure.note(
        f"<b>{_named(maps, maps.panels[i])}</b>", 0, 1, xref=f"x{mark} domain", yref=f"y{mark} domain", xanchor="left", yanchor="bottom", font={"size": 13}
    )  # fmt: skip
