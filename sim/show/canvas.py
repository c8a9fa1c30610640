"""A figure while it is drawn: traces and layout as plain data, made into a plotly figure once, at the end.

Why this way: plotly checks and copies a whole figure at every update, which made a report of 40 figures take eight seconds;
plain data takes a tenth of that, and plotly still checks all of it in `figure`.
"""

from __future__ import annotations

from typing import Any

from sim.errors import InputError, Problem


class Canvas:
    """Collects traces, shapes, notes and axes; `figure` hands them to plotly."""

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
        line = {"width": 1, "color": colour}
        self.layout["shapes"].append(
            {
                "type": "line",
                "x0": x,
                "x1": x,
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "line": line,
                "layer": layer,
            }
        )

    def level(self, y: float, colour: str, layer: str = "below") -> None:
        """A thin horizontal line over the whole width."""
        line = {"width": 1, "color": colour}
        self.layout["shapes"].append(
            {
                "type": "line",
                "y0": y,
                "y1": y,
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "line": line,
                "layer": layer,
            }
        )

    def note(self, text: str, x: float, y: float, **look: Any) -> None:
        """Text on the drawing."""
        self.layout["annotations"].append({"text": text, "x": x, "y": y, "showarrow": False, **look})

    def axis(self, name: str, **said: Any) -> None:
        """Say something of an axis, `x`, `y`, `y2`, ...; `title` is its text."""
        if isinstance(said.get("title"), str):
            said["title"] = {"text": said["title"]}
        self.layout.setdefault(f"{name[0]}axis{name[1:]}", {}).update(said)

    def figure(self, **layout: Any) -> Any:
        """The finished `plotly.graph_objects.Figure`."""
        import plotly.graph_objects as go

        return go.Figure({"data": self.data, "layout": {**self.layout, **layout}})


def absent(kind: str, why: str) -> InputError:
    """The problem of a plot that a result has no data for."""
    return InputError(Problem(None, "kind", f"'{kind}'", f"a result that has the data for it; {why}"))
