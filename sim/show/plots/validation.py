"""The plot of a validation: every published value next to the simulated one."""

from __future__ import annotations

from typing import Any

from sim.show import style
from sim.show.canvas import Canvas, absent
from sim.show.tables.validation import quantity_cell
from sim.show.views.validation import ComparedRow, ValidationView
from sim.show.words import validation as words

_LOOKS = {
    "predicted": ("circle", style.GOOD),
    "calibrated on": ("circle-open", style.GOOD),
    "exact": ("diamond", style.COLOUR["leaf_uplink"]),
    "implied": ("square-open", style.GOOD),
    "identity": ("diamond-open", style.COLOUR["leaf_uplink"]),
    "own count": ("square-open", style.COLOUR["leaf_uplink"]),
    "missed": ("x", style.BAD),
    "printed only": ("circle-open", style.NEUTRAL),
}
_EDGE = 0.99  # of the reach of the axis, where a mark stays that lies further out


def validation(view: ValidationView) -> Any:
    """Draw the error of every published figure in its group, over the group's tolerance."""
    groups = [group for group in view.groups if group.rows]
    if not groups:
        raise absent("validation", "no row was compared")
    figure = Canvas()
    tolerances = [{row.tolerance_fraction or 0.0 for row in group.rows} for group in groups]
    for i, bands in enumerate(tolerances):
        for tolerance in sorted(bands, reverse=True):
            width = (-100 * tolerance, 100 * tolerance)
            figure.rectangle(width, (i - 0.36, i + 0.36), fillcolor=style.BAND, line={"width": 0})
    counted = [abs(row.error_fraction) for row in view.rows if row.counts]
    reach = 112 * max([0.01, *counted, *set().union(*tolerances)])
    marks: dict[str, list[tuple[float, float, str]]] = {}
    for i, group in enumerate(groups):
        last = len(group.rows) - 1
        for j, row in enumerate(group.rows):
            # A row that is printed only may lie far out; it stays at the edge then, and its text says where.
            error = min(max(100 * row.error_fraction, -_EDGE * reach), _EDGE * reach)
            spread = 0.5 * (j / last - 0.5) if last else 0.0
            use = "missed" if row.counts and not row.ok else row.use
            marks.setdefault(use, []).append((error, i + spread, _hover(row)))
    for use, (symbol, colour) in _LOOKS.items():
        if use in marks:
            xs, ys, texts = zip(*marks[use], strict=True)
            line = {"width": 1.6 if symbol.endswith("open") else 0, "color": colour}
            figure.add(
                "scatter", x=xs, y=ys, mode="markers", name=f"{use} ({len(xs)})", hovertext=texts, hoverinfo="text",
                marker={"symbol": symbol, "color": colour, "size": 8, "line": line},
            )  # fmt: skip
    far = any(abs(x) >= _EDGE * reach for x, *_ in marks.get("printed only", ()))
    beyond = ", marks at the edge lie beyond" if far else ""
    title = f"error of the simulated value [%]; the band is the tolerance{beyond}"
    figure.axis("x", title=title, range=[-reach, reach])
    figure.rows([f"{group.name}  " for group in groups])
    alt = "; ".join(
        f"{group.name}: mean error {group.mean_abs_error_fraction:.1%}, worst {group.worst_error_fraction:.1%}"
        for group in groups
    )
    return style.finish(figure, " ".join(words.finding(view)[::2]), height=130 + 46 * len(groups), alt=alt)


def _hover(row: ComparedRow) -> str:
    published, simulated = (quantity_cell(value, row.unit) for value in (row.published, row.simulated))
    return (
        f"{row.group}: {row.id}<br>{row.quantity}<br>published {published}, simulated {simulated}"
        f"<br>error {row.error_fraction:+.2%}"
    )
