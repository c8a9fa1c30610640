"""The explorer: one page whose sliders choose among points that were computed beforehand, or that a server computes as they move.

It holds no library: bars and a curve are drawn by `explorer.js` from the points, and nothing is fetched but, where the page is live,
points from the server that it came from. A colour is what binds, as everywhere; machines are told apart by dashes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim.metrics import dimension_of, more_is_better
from sim.show import style
from sim.show.pages import page
from sim.show.views.labels import axis_label, value_label
from sim.show.views.ladder_changes import LadderMetric
from sim.show.views.names import LABEL, binds, capital, hardware_name


@dataclass(frozen=True, slots=True)
class Slider:
    """A slider: its place among the axes, its name, and the words of its values."""

    index: int
    label: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExplorerPage:
    """Record that `explorer.html.j2` shows."""

    title: str
    kicker: str
    sliders: tuple[Slider, ...]
    compared: tuple[str, ...]
    metric: str
    data: str
    is_live: bool
    footer: tuple[str, ...]


def explorer_html(cube: Mapping[str, Any], *, is_live: bool = False) -> str:
    """Write the page of a cube (`moesim.cube/1`); of a live one, the cube has no `points` and its server computes them."""
    names = cube["metrics"]
    dimension = dimension_of(names[0])
    metric = LadderMetric(" + ".join(names), bool(more_is_better(names[0])))
    bound = [name for name in LABEL if name in style.COLOUR]
    sliders = tuple(
        Slider(i, capital(axis_label(axis["name"])), tuple(axis["values"]))
        for i, axis in enumerate(cube["axes"])
    )
    data = {
        **cube,
        "axes": [{**axis, "words": list(map(value_label, axis["values"]))} for axis in cube["axes"]],
        "live": is_live,
        "labels": [slider.label for slider in sliders],
        "compared": {
            **cube["compared"],
            "labels": [_name(value) for value in cube["compared"]["values"]],
        },
        "parts": [LadderMetric(name).label for name in names],
        "metric": metric.label,
        "more_is_better": metric.more_is_better,
        "dimension": dimension,
        "colours": {name: style.COLOUR[name] for name in bound} | {"": style.NEUTRAL},
        "binds": {name: binds(name) for name in bound},
        "resources": {name: LABEL[name] for name in bound},
    }
    shown = ExplorerPage(
        title=cube["title"],
        kicker="Explorer, live" if is_live else "Explorer",
        sliders=sliders,
        compared=tuple(data["compared"]["labels"]),
        metric=metric.title,
        data=page.in_script(data),
        is_live=is_live,
        footer=(f"moesim {cube['version']}", cube["schema"]),
    )
    return page.render("explorer", shown)


def _name(value: str) -> str:
    return "your machine" if value == "yours" else hardware_name(value)


def point_json(points: Any) -> str:
    """Write points as the page of a live explorer takes them."""
    return json.dumps(points, separators=(",", ":"))
