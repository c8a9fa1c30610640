"""Bars that several figures share: stacked parts, marks at bounds and at published values, panels one below the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.show import style
from sim.show.canvas import Canvas

Look = tuple[str, str]
"""Label of a part, and its colour."""


def stacked(
    figure: Canvas,
    parts: Mapping[str, Look],
    bars: Mapping[str, Mapping[str, float]],
    scale: float,
    hover: str,
    *,
    upright: bool = False,
    noun: str = "",
) -> None:
    """Draw a bar for each name, made of its parts, in the order of `parts`; those that no bar has are left out.

    `scale` divides sizes. `hover` is the template of what pointing at a part shows after its bar, called
    `noun`, and its name; `%{customdata}` is its share of the bar.
    """
    totals = [sum(sizes.values()) for sizes in bars.values()]
    along, across = ("y", "x") if upright else ("x", "y")
    present = {
        part: look for part, look in parts.items() if any(bar.get(part, 0.0) > 0 for bar in bars.values())
    }
    colours = style.distinct({part: colour for part, (_, colour) in present.items()})
    for part, (label, _) in present.items():
        sizes = [bar.get(part, 0.0) for bar in bars.values()]
        shares = [size / total if total else 0.0 for size, total in zip(sizes, totals, strict=True)]
        figure.add(
            "bar", **{along: [size / scale for size in sizes], across: list(bars)}, orientation="v" if upright else "h", name=label,
            marker=style.fill(colours[part]), customdata=shares if "customdata" in hover else None,
            hovertemplate=f"{noun}%{{{across}}}, {label}{hover}<extra></extra>",
        )  # fmt: skip
    figure.layout |= {"barmode": "stack", "bargap": 0.3, "legend": {"traceorder": "normal"}}
    if not upright:
        figure.categories(type="category")


def spoken(parts: Mapping[str, str], bars: Mapping[str, Mapping[str, float]], write: Any) -> str:
    """The parts of stacked bars as words, for who cannot see them."""
    return "; ".join(
        f"{name}: {', '.join(f'{parts.get(part, part)} {write(size)}' for part, size in sizes.items() if size)}"
        for name, sizes in bars.items()
    )


def mark_bounds(figure: Canvas, bounds: Sequence[float], names: Sequence[str], unit: str) -> None:
    """Mark each bar at its lower bound."""
    figure.add(
        "scatter", x=list(bounds), y=list(names), mode="markers", name="lower bound", marker=style.mark("triangle-down", 12),
        hovertemplate=f"%{{y}}: lower bound %{{x:.4g}} {unit}<extra></extra>",
    )  # fmt: skip


def mark_published(
    figure: Canvas,
    places: Sequence[tuple[float, str]],
    words: Sequence[str],
    name: str = "published",
    **more: Any,
) -> None:
    """Mark published values at their places on the bars; `words` are what pointing at one shows."""
    if places:
        figure.add(
            "scatter", x=[x for x, _ in places], y=[y for _, y in places], mode="markers", name=name,
            marker=style.mark("diamond", 11, 1.8), hovertext=list(words), hoverinfo="text", **more,
        )  # fmt: skip


def panels(figure: Canvas, counts: Mapping[str, int]) -> dict[str, str]:
    """Lay out a band with a head for each panel, from the top, as high as its number of bars; returns their y axes."""
    head = 0.9  # of a bar's height
    unit = 1 / (sum(counts.values()) + head * len(counts))
    axes, high = {}, 1.0
    for i, (panel, count) in enumerate(counts.items(), start=1):
        name = "y" if i == 1 else f"y{i}"
        low, top = high - unit * (count + head), high - unit * head
        figure.categories(name, domain=[max(0.0, low), top], anchor="x")
        figure.note(
            f"<b>{panel}</b>", 0, top, xref="paper", yref="paper", xanchor="left", yanchor="bottom", font={"size": 14}
        )  # fmt: skip
        axes[panel], high = name, low
    return axes
