"""A figure as plain data: a `Canvas` while it is drawn, a `Picture` once it is finished.

Why this way: plotly checks and copies a whole figure at every update, which made a report of 40 figures take eight seconds.
A page needs no more than the data, so a report never imports plotly; `Picture.figure` has plotly check all of it, for
notebooks, for image files, and in every test of a plot.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.errors import InputError, Problem

MAX_DOTS = 2500
"""Dots of one kind that a browser draws at once without a wait."""
_MAX_NODES = 32
"""Nodes up to which borders between them are drawn."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished figure: traces and layout as plotly.js takes them; `layout["meta"]` holds what only a page needs."""

    data: tuple[Mapping[str, Any], ...]
    layout: Mapping[str, Any]

    def figure(self) -> Any:
        """The same as a `plotly.graph_objects.Figure`, which plotly has checked."""
        import plotly.graph_objects as go

        return go.Figure({"data": list(self.data), "layout": dict(self.layout)})

    def plain(self) -> dict[str, Any]:
        """The same as a tree for JSON: no properties that are None, and floats at six digits.

        A screen shows no more digits, and a page stays small. What is not finite is None.
        """
        return {"data": [_plain(trace) for trace in self.data], "layout": _plain(self.layout)}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value.dtype == "uint8":  # an array as plotly.js takes it; a list is four times as long
        shape = ", ".join(map(str, value.shape))
        return {"dtype": "u1", "bdata": base64.b64encode(value.tobytes()).decode(), "shape": shape}
    return _plain(value.tolist())


class Canvas:
    """Collects traces, shapes, notes and axes; `picture` is the figure they make."""

    def __init__(self) -> None:
        self.data: list[dict[str, Any]] = []
        self.layout: dict[str, Any] = {"shapes": [], "annotations": [], "xaxis": {}, "yaxis": {}}

    def add(self, kind: str, **trace: Any) -> None:
        """Add a trace of a plotly type: `scatter`, `bar`, `heatmap`, ..."""
        self.data.append({"type": kind, **trace})

    def rectangle(self, x: tuple[float, float], y: tuple[float, float], **look: Any) -> None:
        """A box below the traces."""
        self.layout["shapes"].append(
            {"type": "rect", "x0": x[0], "x1": x[1], "y0": y[0], "y1": y[1], "layer": "below", **look}
        )

    def upright(self, x: float, colour: str, layer: str = "below") -> None:
        """A thin vertical line over the whole height."""
        self._line({"x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1}, colour, layer)

    def level(self, y: float, colour: str, layer: str = "below") -> None:
        """A thin horizontal line over the whole width."""
        self._line({"y0": y, "y1": y, "xref": "paper", "x0": 0, "x1": 1}, colour, layer)

    def _line(self, ends: dict[str, Any], colour: str, layer: str) -> None:
        line = {"width": 1, "color": colour}
        self.layout["shapes"].append({"type": "line", **ends, "line": line, "layer": layer})

    def node_borders(
        self, num_ranks: int, per_node: int, colour: str, layer: str = "below", *, both: bool = False
    ) -> None:
        """A line between the ranks of nodes (`both`: across too), where nodes are few enough to tell apart."""
        if 1 < per_node < num_ranks and num_ranks // per_node <= _MAX_NODES:
            for edge in range(per_node, num_ranks, per_node):
                for draw in (self.upright, self.level)[: 1 + both]:
                    draw(edge - 0.5, colour, layer)

    def note(self, text: str, x: float, y: float, **look: Any) -> None:
        """Text on the drawing."""
        self.layout["annotations"].append({"text": text, "x": x, "y": y, "showarrow": False, **look})

    def axis(self, name: str, **look: Any) -> None:
        """Set some of an axis, `x`, `y`, `y2`, ...; `title` is its text."""
        if isinstance(look.get("title"), str):
            look["title"] = {"text": look["title"]}
        self.layout.setdefault(f"{name[0]}axis{name[1:]}", {}).update(look)

    def categories(self, name: str = "y", **look: Any) -> None:
        """An axis of names from the top, a bar each."""
        self.axis(name, **{"autorange": "reversed", "ticksuffix": "  ", "showgrid": False, **look})

    def rows(self, names: Sequence[str], every: int = 1, **look: Any) -> None:
        """A y axis of rows from the top, numbered from 0, with every so many names."""
        self.axis(
            "y", range=[len(names) - 0.4, -0.6], tickvals=list(range(0, len(names), every)), ticktext=list(names[::every]),
            showgrid=False, zeroline=False, **look,
        )  # fmt: skip

    def picture(self, **layout: Any) -> Picture:
        """The finished figure, with the rest of its layout."""
        return Picture(tuple(self.data), {**self.layout, **layout})


def absent(kind: str, why: str) -> InputError:
    """The error of a plot that a result has no data for."""
    return InputError(Problem(None, "kind", f"'{kind}'", f"a result that has the data for it; {why}"))
