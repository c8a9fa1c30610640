"""The figure of a validation: every published value next to the simulated one."""

from __future__ import annotations

from typing import Any

from sim.show import style
from sim.show.canvas import Canvas, absent
from sim.show.tables.validation import measured
from sim.show.views.run import Result, counts
from sim.show.views.validation import use_of
from sim.show.words import validation as validations

_DOTS = 2500  # SVG dots of one kind that a browser draws at once without a wait


_LOOKS = {
    "predicted": ("circle", style.GOOD),
    "calibrated on": ("circle-open", style.GOOD),
    "exact": ("diamond", style.COLOUR["leaf_uplink"]),
    "missed": ("x", style.BAD),
    "printed only": ("circle-open", style.NEUTRAL),
}


def validation(document: Result) -> Any:
    """The error of every published figure in its group, over the group's tolerance."""
    groups = {name: one for name, one in document["groups"].items() if one["rows"]}
    if not groups:
        raise absent("validation", "no row was compared")
    names = list(groups)
    figure = Canvas()
    bands = {name: {row["tolerance_fraction"] or 0.0 for row in groups[name]["rows"]} for name in names}
    for i, name in enumerate(names):
        for tolerance in sorted(bands[name], reverse=True):
            figure.rectangle(
                (-100 * tolerance, 100 * tolerance),
                (i - 0.36, i + 0.36),
                fillcolor=style.BAND,
                line={"width": 0},
            )
    counted = [abs(row["error_fraction"]) for one in groups.values() for row in one["rows"] if counts(row)]
    reach = 112 * max([0.01, *counted, *(tolerance for one in bands.values() for tolerance in one)])
    points: dict[str, list[tuple[float, float, str]]] = {}
    for i, name in enumerate(names):
        rows = groups[name]["rows"]
        for j, row in enumerate(rows):
            spread = 0.0 if len(rows) == 1 else 0.5 * (j / (len(rows) - 1) - 0.5)
            text = (
                f"{name}: {row['id']}<br>{row['quantity']}<br>published {measured(row['published'], row['unit'])}, "
                f"simulated {measured(row['simulated'], row['unit'])}<br>error {row['error_fraction']:+.2%}"
            )
            # A row that is printed only may lie far out; it stands at the edge then, and its text says where.
            error = min(max(100 * row["error_fraction"], -0.99 * reach), 0.99 * reach)
            points.setdefault(use_of(row), []).append((error, i + spread, text))
    far = any(abs(x) >= 0.99 * reach for x, _, _ in points.get("printed only", ()))
    beyond = ", marks at the edge lie beyond" if far else ""
    for use, (symbol, colour) in _LOOKS.items():
        if use in points:
            xs, ys, texts = zip(*points[use], strict=True)
            marker = {
                "symbol": symbol,
                "color": colour,
                "size": 8,
                "line": {"width": 1.6 if symbol.endswith("open") else 0, "color": colour},
            }
            figure.add(
                "scatter",
                x=xs,
                y=ys,
                mode="markers",
                name=f"{use} ({len(xs)})",
                marker=marker,
                hovertext=texts,
                hoverinfo="text",
            )
    figure.axis(
        "x",
        title=f"error of the simulated value [%]; the band is the tolerance{beyond}",
        range=[-reach, reach],
    )
    figure.axis(
        "y", tickvals=list(range(len(names))), ticktext=[f"{name}  " for name in names], range=[len(names) - 0.4, -0.6],
        showgrid=False, zeroline=False,
    )  # fmt: skip
    alt = "; ".join(
        f"{n}: mean error {g['mean_abs_error_fraction']:.1%}, worst {g['worst_error_fraction']:.1%}"
        for n, g in groups.items()
    )
    return style.finish(
        figure, " ".join(validations.finding(document)[::2]), height=130 + 46 * len(names), alt=alt
    )
