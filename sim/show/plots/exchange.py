"""The curve of a ladder's exchange: every design by the NVLink bytes that it asks for each NIC byte, and how much longer it takes.

Designs that stay within a node have no NIC bytes; they stand behind a rule at the right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from sim.show import style
from sim.show.canvas import Canvas, absent
from sim.show.views.exchange import Design, Exchange
from sim.show.views.ladder import LadderView
from sim.show.views.names import LABEL
from sim.show.words import exchange as words

_HEIGHT, _LEAST_PX = 470, 720
_INNER = (900.0, 360.0)  # of the drawing without margins [px]
_CHARACTER_PX, _LINE_PX, _RISE_PX = 7.2, 17, 26  # of a label; and how far above its mark the first place is
_BOTTOM = 0.78  # of the axis of times
_LABELS = 8  # heights that are tried for a label, and how far beside its mark [px]
_BESIDE_PX = (0.0, -80.0, 80.0)


def curve(exchange: Exchange) -> Any:
    """Draw times as long as on the reference, by NVLink bytes for each NIC byte; published designs by name."""
    figure = Canvas()
    ran = exchange.measured
    right = 1.06 * max([1.0, *(point.x or 0.0 for point in (*ran, *exchange.published))])
    inside = right * 1.07  # where designs within a node stand
    top = 1.0 + 1.22 * max([0.2, *((design.ratio or 1.0) - 1.0 for design in (*ran, *exchange.published))])
    for binding, points in groupby(
        sorted(ran, key=lambda point: point.binding), key=lambda point: point.binding
    ):
        some = list(points)
        figure.add(
            "scatter", x=[point.x for point in some], y=[point.ratio for point in some], mode="markers",
            name=f"{LABEL.get(binding, binding)} binds on {exchange.machine}",
            marker={"size": 7, "opacity": 0.55, "color": style.COLOUR.get(binding, style.NEUTRAL)},
            text=[_hover(exchange, point) for point in some], hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    for name, limit in ((exchange.machine, exchange.limit), (exchange.reference, exchange.their_limit)):
        if limit is not None and limit < right:
            figure.upright(limit, style.RULE)
            figure.note(
                f"{name} achieves {limit:.3g}", limit, 1.0, yref="paper", xanchor="left", yanchor="top", xshift=4,
                font={"size": 12},
            )  # fmt: skip
    published = [design for design in exchange.published if design.ratio is not None]
    if any(design.x is None for design in published):
        figure.upright((right + inside) / 2, style.RULE)
    places = [(right * 1.14 if design.x is None else design.x, design.ratio or 1.0) for design in published]
    figure.add(
        "scatter", x=[x for x, _ in places], y=[y for _, y in places], mode="markers", name="published designs",
        marker=style.mark("diamond", 11, 2), cliponaxis=False,
        text=[_hover(exchange, design) for design in published], hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    span = (right * 1.3, top - _BOTTOM)
    dots = [(point.x or 0.0, point.ratio or 1.0) for point in ran]
    for design, (x, y), (aside, rise) in _labelled(published, places, dots, span):
        figure.layout["annotations"].append(_label(design.title, x, y, aside, rise))
    ticks = [tick for tick in range(1, 40, 1 if right < 14 else 2) if tick < right]
    within = [right * 1.14] if any(design.x is None for design in published) else []
    figure.axis(
        "x", title="NVLink bytes asked for, for each NIC byte", range=[0.6, right * 1.3], zeroline=False,
        tickvals=[*ticks, *within], ticktext=[*map(str, ticks), *(["one node:<br>no NIC bytes"] if within else [])],
    )  # fmt: skip
    figure.axis(
        "y", title=f"{exchange.metric.label}: times<br>as long on {exchange.machine} as on {exchange.reference}",
        range=[_BOTTOM, top],
    )  # fmt: skip
    title = words.sentences(exchange)[0]
    alt = "; ".join(f"{design.title} {design.ratio:.2f}" for design in published)
    return style.finish(
        figure, title, height=_HEIGHT, alt=f"Dots on one curve. {title} {alt}", top=40, least=_LEAST_PX
    )


def _hover(exchange: Exchange, design: Design) -> str:
    metric = exchange.metric
    asks = "no NIC bytes" if design.x is None else f"{design.x:.2f} NVLink bytes a NIC byte"
    times = f"{exchange.machine} {metric.text(design.ours_s)}, {exchange.reference} {metric.text(design.theirs_s)}"
    return f"{design.title}<br>{asks}<br>{times}: {design.ratio:.2f} times as long"


def _label(text: str, x: float, y: float, aside: float, rise: float) -> Mapping[str, Any]:
    """Return a label above (`rise` > 0) or below its mark and beside it, joined to it by a thin line."""
    return {
        "text": text, "x": x, "y": y, "ax": aside, "ay": -rise, "showarrow": True, "arrowhead": 0, "arrowwidth": 1,
        "arrowcolor": style.RULE, "font": {"size": 12}, "bgcolor": "rgba(0,0,0,0)",
    }  # fmt: skip


_Place = tuple[float, float]


def _labelled(
    designs: list[Design], places: list[_Place], dots: list[_Place], span: _Place
) -> Iterator[tuple[Design, _Place, _Place]]:
    """Yield each design with its place and how far from it its label lies [px], clear of other labels and of all dots."""
    wide, high = _INNER

    def pixels(place: _Place) -> _Place:
        return place[0] / span[0] * wide, -place[1] / span[1] * high

    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in map(pixels, (*places, *dots))]
    for i in sorted(range(len(designs)), key=lambda i: pixels(places[i])):
        x, y = pixels(places[i])
        half = _CHARACTER_PX * len(designs[i].title) / 2
        tries = [
            (aside, sign * (_RISE_PX + n * (_LINE_PX + 3)))
            for n in range(_LABELS)
            for aside in _BESIDE_PX
            for sign in (1, -1)
        ]
        aside, rise = next((a for a in tries if _is_free(taken, x + a[0], y - a[1], half)), tries[0])
        x, y = x + aside, y - rise
        taken.append((x - half, y - _LINE_PX / 2, x + half, y + _LINE_PX / 2))
        yield designs[i], places[i], (aside, rise)


def _is_free(taken: list[tuple[float, float, float, float]], x: float, y: float, half: float) -> bool:
    left, low, right, high = x - half, y - _LINE_PX / 2, x + half, y + _LINE_PX / 2
    return all(left > b[2] or right < b[0] or low > b[3] or high < b[1] for b in taken)


def exchange(view: LadderView) -> Any:
    """Draw the curve of a ladder's exchange. Raises `InputError` where it has none."""
    if view.exchange is None:
        raise absent("exchange", "this ladder has no 'exchange'")
    return curve(view.exchange)
