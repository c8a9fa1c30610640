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
from sim.metrics import dimension_of
from sim.show import style
from sim.show.canvas import Canvas
from sim.show.plots.axis import axis_title, reading_unit
from sim.show.views.names import capital
from sim.show.views.sweep import AxisView, Objective, PointView, SweepView
from sim.units import figures, show, split

_PANELS = 8
_ACROSS = 4  # panels side by side
_BETWEEN = 0.06  # of the width, between neighbours
_LEVELS = {1.05: "solid", 1.25: "dash", 2.0: "dot"}  # times the best, joined by lines
_CHARACTER_PX, _BOLD_PX, _TOP_PX, _LINE_PX = 7, 8, 64, 16
_WIDE_PX, _NARROW_PX = 950, 318  # of a figure between its margins, and on a narrow screen
_NAME_PX, _AXIS_PX = 22, 20  # above a map for its name, next to it for the title of its axis
_TICKS = (1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_INK = "#1C2126"
_LAGS = [[0.0, "#0A5C8F"], [0.05, "#5BA3CE"], [0.15, "#BBD8EA"], [0.3, "#F3E3B3"], [0.6, "#EBA04B"], [1.0, "#A8320A"]]  # fmt: skip
"""From the best (blue) to the worst (red); dark at both ends, and the numbers are in the cells."""


def ranked_points(kind: str, view: SweepView) -> tuple[PointView, ...]:
    """Return the points that ran, the best first. Raises `InputError` where there are none to draw."""
    if not view.ranked:
        wanted = "a sweep of which a point ran; in this one none could"
        raise InputError(Problem(None, "kind", f"'{kind}'", wanted))
    return view.ranked


_Place = tuple[str, str, str]
"""Values of panel ("" where there is one map), y and x, as text."""


@dataclass(frozen=True, slots=True)
class _Maps:
    """The axes across, up and from map to map (None for one map), and the best metric of each place with its times the best."""

    x: AxisView
    y: AxisView
    panel: AxisView | None
    objective: Objective
    best: dict[_Place, float]
    times: dict[_Place, float]

    @property
    def panels(self) -> tuple[str, ...]:
        """Values of the axis from map to map."""
        return self.panel.texts if self.panel else ("",)

    @property
    def conditions(self) -> list[AxisView]:
        """Those of its axes that are given: each of their values has a best of its own."""
        return [axis for axis in (self.panel, self.y, self.x) if axis and axis.is_given]

    def rows(self, panel: str, places: dict[_Place, float]) -> list[list[float | None]]:
        """Return what the places of a map have, [num_y, num_x]."""
        return [[places.get((panel, y, x)) for x in self.x.texts] for y in self.y.texts]

    @property
    def unit(self) -> tuple[float, str]:
        """Divisor and unit of its numbers."""
        return reading_unit(
            dimension_of(self.objective.metric), max(map(abs, self.best.values()), default=0.0)
        )


def _maps(view: SweepView) -> _Maps:
    points, objective = ranked_points("map", view), view.objective
    axes = [*(axis for axis in view.varied if axis.is_given), *view.choices]
    if len(axes) < 2:
        wanted = f"a sweep with two axes of more than one value; this one varies {axes[0].name}"
        raise InputError(Problem(None, "kind", "'map'", wanted))
    *before, y, x = axes
    few = [axis for axis in reversed(before) if len(axis.values) <= _PANELS]
    panel = next((axis for axis in few if axis.is_given), few[0] if few else None)
    better = min if objective.minimise else max
    best: dict[_Place, float] = {}
    tops: dict[_Place, float] = {}
    for point in points:
        value = point.metric(objective.metric)
        if value is not None and math.isfinite(value):
            place = point.texts[panel.name] if panel else "", point.texts[y.name], point.texts[x.name]
            condition = _condition(place, panel, y, x)
            best[place] = better(best.get(place, value), value)
            tops[condition] = better(tops.get(condition, value), value)
    times = {}
    for place, value in best.items():
        top = tops[_condition(place, panel, y, x)]
        ratio = (value / top if objective.minimise else top / value) if value and top else 1.0
        times[place] = max(1.0, ratio)
    return _Maps(x, y, panel, objective, best, times)


def _condition(place: _Place, *axes: AxisView | None) -> _Place:
    """Return the values of a place that are given; "" for the others."""
    panel, y, x = (text if axis and axis.is_given else "" for text, axis in zip(place, axes, strict=True))
    return panel, y, x


def sweep_map(view: SweepView) -> Any:
    """Draw the best that each pair of values allows, a map for each value of a third axis."""
    maps = _maps(view)
    objective, worst = maps.objective, max(maps.times.values())
    figure, across = Canvas(), _across(maps, _WIDE_PX, _ACROSS)
    for i in range(len(maps.panels)):
        _draw(figure, maps, i, max(2.0, worst), numbered=_numbered(maps, across))
        for name, changes in _axes(maps, i, across).items():
            figure.axis(name.replace("axis", ""), **changes)
        if maps.panel:
            _name(figure, maps, i)
    others = [axis.label for axis in view.varied if axis not in (maps.x, maps.y, maps.panel)]
    over = f", best over {', '.join(others)}" if others else ""
    least = f"{worst:.3g} times" if objective.minimise else f"1/{worst:.3g} of"
    if own := [axis.label for axis in maps.conditions]:
        answer = f"worst {least} the best of its {' and '.join(own)}"
    else:
        answer = f"best {view.ranked[0].cell(objective.metric)}, worst {least} that"
    title = f"{objective.label} by {maps.y.label} and {maps.x.label}{over}: {answer}"
    dimension = dimension_of(objective.metric)
    places = (
        f"{', '.join(filter(None, place))}: {show(value, dimension, 3)}"
        for place, value in list(maps.best.items())[:20]
    )
    return style.finish(
        figure, capital(title), height=_height(maps, across), alt=f"Heat map of {objective.label}; {'; '.join(places)}",
        top=_TOP_PX + _LINE_PX, stacked=_stacked(maps, across),
    )  # fmt: skip


def _draw(figure: Canvas, maps: _Maps, i: int, worst: float, *, numbered: bool) -> None:
    """Draw one map: its cells, with numbers where there is room, and its lines."""
    panel, mark = maps.panels[i], _mark(i)
    xs, ys = list(maps.x.texts), list(maps.y.texts)
    scale, unit = maps.unit
    values, times = maps.rows(panel, maps.best), maps.rows(panel, maps.times)
    texts = [["·" if value is None else figures(value / scale, 3) for value in row] for row in values]
    colours = [[None if ratio is None else math.log2(ratio) for ratio in row] for row in times]
    crowded = {1.1, 1.25, 1.5} if worst >= 8 else {1.1, 1.25} if worst >= 3 else set()
    ticks = [t for t in _TICKS if t <= 1.001 * worst and t not in crowded]
    least = "times the best" if maps.objective.minimise else "times below the best"
    lined = _lined(times, xs, ys)
    lines = ";<br>lines at 1.05, 1.25 (dashed) and 2 (dotted)" if lined else ""
    own = " of its row" if maps.y.is_given else " of its map" if maps.panel and maps.panel.is_given else ""
    bar = {
        **style.colourbar(f"{least}{own}{lines}"),
        "tickvals": [math.log2(t) for t in ticks],
        "ticktext": [f"{t:g}x" for t in ticks],
    }
    place = {"x": xs, "y": ys, "xaxis": f"x{mark}", "yaxis": f"y{mark}"}
    figure.add(
        "heatmap",
        z=colours, text=texts if numbered else None, texttemplate="%{text}" if numbered else None, textfont={"size": 11},
        customdata=texts, zmin=0, zmax=math.log2(worst), colorscale=_LAGS, xgap=1, ygap=1,
        showscale=not mark, colorbar=bar, hoverongaps=False,
        hovertemplate=f"{maps.y.label} %{{y}}, {maps.x.label} %{{x}}: %{{customdata}} {unit}<extra></extra>", **place,
    )  # fmt: skip
    for level, dash in _LEVELS.items() if lined else ():
        figure.add(
            "contour",
            z=times, showscale=False, showlegend=False, hoverinfo="skip",
            contours={"start": level, "end": level, "size": 1, "coloring": "none"},
            line={"width": 1.4, "color": _INK, "smoothing": 0, "dash": dash}, **place,
        )  # fmt: skip


def _mark(i: int) -> str:
    """Return the number of a map in the names of its axes; "" for the first."""
    return "" if i == 0 else str(i + 1)


def _lined(times: Sequence[Sequence[float | None]], xs: Sequence[str], ys: Sequence[str]) -> bool:
    """Return whether lines help: the axes are numbers, and no hole lets a line claim what nobody ran."""
    numeric = all(text[:1].isdigit() for text in (*xs, *ys))
    whole = all(ratio is not None for row in times for ratio in row)
    return whole and numeric and len(xs) >= 4 and len(ys) >= 3


# --- layout ---------------------------------------------------------------------------------------------------------


def _ticks(axis: AxisView) -> tuple[str, list[str]]:
    """Return the title of an axis and the texts of its values; a unit that all share is in the title."""
    quantities = [split(text) for text in axis.texts]
    units = {quantity[1] for quantity in quantities if quantity}
    if None in quantities or len(units) != 1 or units == {""}:
        return axis.label, list(axis.texts)
    return axis_title(axis.label, units.pop()), [
        figures(quantity[0], 6) for quantity in quantities if quantity
    ]


def _inner(maps: _Maps, width: int) -> float:
    """Return what a figure `width` [px] wide leaves for its maps."""
    return width - _AXIS_PX - _CHARACTER_PX * max(map(len, _ticks(maps.y)[1]))


def _cell(maps: _Maps, across: int, width: int) -> float:
    """Return the width of a place of a map [px], where it is one of some `across`."""
    return _inner(maps, width) * _wide(across) / len(maps.x.values)


def _wide(across: int) -> float:
    """Return the part of a drawing's width that each of `across` maps has, with what stands beside it left out."""
    return (0.99 - _BETWEEN * (across - 1)) / across


def _across(maps: _Maps, width: int, most: int) -> int:
    """Return how many maps fit side by side, so that the name of none runs into the next."""
    longest = max(1, *(len(_panel_name(maps, panel)) for panel in maps.panels))
    room = _inner(maps, width) / (_BOLD_PX * longest)
    return min(most, len(maps.panels), max(1, int(room)))


def _numbered(maps: _Maps, across: int) -> bool:
    """Return whether the numbers of places fit into them."""
    scale, _ = maps.unit
    longest = max(len(figures(value / scale, 3)) for value in maps.best.values())
    return _CHARACTER_PX * longest < _cell(maps, across, _WIDE_PX)


def _axes(maps: _Maps, i: int, across: int, width: int = _WIDE_PX) -> dict[str, dict[str, Any]]:
    """Return the axes of a map, where it is one of some `across` on a drawing `width` [px] wide."""
    down = -(-len(maps.panels) // across)
    (row, column), mark = divmod(i, across), _mark(i)
    wide, high = _wide(across), 1 / down
    left, top = column * (wide + _BETWEEN), 1 - row * high
    title, texts = _ticks(maps.x)
    room = _cell(maps, across, width) / _CHARACTER_PX
    fits = all((len(text) + len(other)) / 2 + 1 <= room for text, other in pairwise(texts))
    below = 16 + (_BOLD_PX * max(map(len, texts)) if not fits else 16)  # plotly counts from the axis
    name, names = _ticks(maps.y)
    lowest = row == down - 1 or i + across >= len(maps.panels)
    above = _NAME_PX / (_height(maps, across) - 120) if maps.panel else 0.0
    shared = {"type": "category", "showgrid": False}
    x = {
        "domain": [left, left + wide], "anchor": f"y{mark}", "tickvals": list(maps.x.texts), "ticktext": texts,
        "tickangle": 0 if fits else -90, "title": {"text": title if lowest else "", "standoff": below},
    }  # fmt: skip
    y = {
        "domain": [max(0.0, top - high + (0.12 if down > 1 else 0.0)), top - above], "anchor": f"x{mark}",
        "tickvals": list(maps.y.texts), "ticktext": names, "title": {"text": name if column == 0 else ""},
    }  # fmt: skip
    return {f"xaxis{mark}": shared | x, f"yaxis{mark}": shared | y}


def _height(maps: _Maps, across: int) -> int:
    """Return the height of all maps [px]."""
    return 130 + -(-len(maps.panels) // across) * max(180, 34 * len(maps.y.values) + 60)


def _stacked(maps: _Maps, across: int) -> dict[str, Any] | None:
    """Return what a page changes where maps do not fit side by side."""
    if across == 1:
        return None
    fewer = _across(maps, _NARROW_PX, 2 if across > 2 else 1)
    axes = (_axes(maps, i, fewer, _NARROW_PX).items() for i in range(len(maps.panels)))
    changes = {name: change for items in axes for name, change in items}
    return {"height": _height(maps, fewer) + _TOP_PX, **changes}


def _panel_name(maps: _Maps, panel: str) -> str:
    return f"{maps.panel.label} {panel}" if maps.panel and panel[:1].isdigit() else panel


def _name(figure: Canvas, maps: _Maps, i: int) -> None:
    """Write the name of a map above it, wherever it is."""
    mark = _mark(i)
    figure.note(
        f"<b>{_panel_name(maps, maps.panels[i])}</b>", 0, 1, xref=f"x{mark} domain", yref=f"y{mark} domain", xanchor="left", yanchor="bottom", font={"size": 13}
    )  # fmt: skip
