"""The plot of a ladder's search: how much longer a machine takes with each choice held, next to what holding it costs each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.show import style
from sim.show.canvas import Canvas, absent
from sim.show.plots.ladder import colours
from sim.show.views.ladder import LadderView
from sim.show.views.ladder_changes import change_text
from sim.show.views.search import DesignSearch
from sim.show.words import search as words

_ROW_PX, _TOP_PX, _ROOM = 24, 62, 1.35
_FREE = "nothing held"


def held(search: DesignSearch, hue: Mapping[str, str]) -> Any:
    """Draw the gap of each machine to the reference by what is held, and what holding it costs over the own best."""
    figure = Canvas()
    names = [_FREE, *dict.fromkeys(held.name for machine in search.machines for held in machine.held)]
    gaps: dict[str, list[float | None]] = {}
    costs: dict[str, list[float | None]] = {search.reference_name: [0.0] * len(names)}
    for machine in search.machines:
        by_name = {held.name: held for held in machine.held}
        gaps[machine.name] = [machine.gap_fraction, *(by_name[name].gap_fraction for name in names[1:])]
        costs[machine.name] = [0.0, *(by_name[name].costs_machine_fraction for name in names[1:])]
        costs[search.reference_name] = [
            0.0, *(by_name[name].costs_reference_fraction for name in names[1:])
        ]  # fmt: skip
    labels = {search.reference_name: search.reference} | {
        machine.name: machine.label for machine in search.machines
    }
    for axis, table in (("", gaps), ("2", costs)):
        for name, fractions in table.items():
            figure.add(
                "bar", orientation="h", y=names, x=[None if fraction is None else 100 * fraction for fraction in fractions],
                name=labels[name], legendgroup=name, showlegend=axis == "2", marker={"color": hue[name]},
                text=["does not run" if fraction is None else change_text(fraction) for fraction in fractions],
                textposition="outside", cliponaxis=False, textfont={"size": 12},
                hovertemplate=f"%{{y}}: %{{text}}<extra>{labels[name]}</extra>", xaxis=f"x{axis}", yaxis=f"y{axis}",
            )  # fmt: skip
    much = search.metric.longer
    longest = [
        100 * max([0.01, *(fraction or 0.0 for row in table.values() for fraction in row)])
        for table in (gaps, costs)
    ]
    lowest = [
        100 * min([0.0, *(fraction or 0.0 for row in table.values() for fraction in row)])
        for table in (gaps, costs)
    ]
    spans = [[_ROOM * low, _ROOM * high] for low, high in zip(lowest, longest, strict=True)]
    figure.axis("x", title=f"% {much} than {search.reference}", domain=[0.0, 0.44], range=spans[0], nticks=6)
    figure.axis(
        "x2", title=f"% {much} than its own best", domain=[0.56, 1.0], range=spans[1], nticks=6, anchor="y2"
    )
    figure.categories(type="category")
    figure.categories("y2", type="category", showticklabels=False, anchor="x2", domain=[0.0, 1.0])
    figure.layout |= {"barmode": "group", "bargap": 0.25, "bargroupgap": 0.06}
    rows = len(names) * (_ROW_PX * len(costs) + 10)
    stacked = style.stacked_panels(
        (rows, rows), _TOP_PX, {"yaxis2": {"showticklabels": True}}
    )  # fmt: skip
    sentence = words.sentences(search)[0]
    alt = "; ".join(
        f"{labels[name]} {row}: {change_text(fraction)}"
        for name, table in gaps.items()
        for row, fraction in zip(names, table, strict=True)
    )
    return style.finish(
        figure,
        sentence,
        height=rows + _TOP_PX + 60,
        alt=f"Bars, less is better. {alt}",
        top=_TOP_PX,
        stacked=stacked,
    )


def search(view: LadderView) -> Any:
    """Draw the search of a ladder. Raises `InputError` where it has none."""
    if view.search is None:
        raise absent("search", "this ladder has no 'search'")
    return held(view.search, colours(view))
