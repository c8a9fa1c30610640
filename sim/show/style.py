"""House style of the figures: one colour-blind-safe palette, one layout, the same meaning of a colour everywhere.

Why this way: a colour always names a *resource class* (blue is the NIC, orange NVLink, ...), in bars, curves and dots
alike, so that a reader learns it once. They were searched for: of all colours that stand out from white and from near-black,
a set of which any two of six differ by 20 (CIEDE2000), seen normally and with each kind of colour blindness, and any two
of eight by 12. Text takes its colour from
the template alone, so a page may swap `LIGHT` for `DARK` without touching the traces.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from sim.show.canvas import Canvas, Picture

COLOUR = {
    "nic": "#005EAE",
    "scale_up": "#F2791B",
    "leaf_uplink": "#5EAE94",
    "pcie": "#BC86F2",
    "copy_sms": "#86515E",
    "hbm": "#BC0000",
    "compute": "#86865E",
    "latency": "#8890A8",
}
"""Resource class -> colour."""

SERIES = ("#005EAE", "#F2791B", "#5EAE94", "#BC86F2", "#86515E", "#BC0000")
"""Colours of series that are no resource classes."""

MACHINES = dict(zip(("h100", "h800", "h20", "a100", "a800", "h200"), SERIES, strict=True))
"""Machine -> colour, the same in every picture in which colours are machines."""

OTHERS = {
    "olive": "#86865E",
    "slate": "#8890A8",
    "pale": "#DADDE0",
    "mint": "#A8F0A8",
    "wine": "#901830",
    "teal": "#004860",
    "lilac": "#D8C0F0",
}
"""Colours of what `SERIES` has no room for, by name: 12 from all others, and hatched as a second mark."""
_HATCH = dict(zip(OTHERS.values(), ("/", "\\", ".", "x", "|", "+", "-"), strict=True))

GOOD, BAD, NEUTRAL = "#005EAE", "#BC0000", OTHERS["slate"]
BAND = "rgba(123,133,143,0.22)"
RULE = "rgba(123,133,143,0.55)"

LOAD = [[0.0, "#D3DAE1"], [0.25, "#EBDDA8"], [0.5, "#F2C14E"], [0.75, "#E5822B"], [1.0, "#A8320A"]]
"""Colour scale of a utilisation from 0 to 1; it grows darker throughout, so it needs no colour vision."""
AMOUNT = [[0.0, "#EDF2F6"], [0.5, "#7DB0D5"], [1.0, "#084C80"]]
"""Colour scale of an amount from nothing to the largest."""
STEPS = ("#DDD9C4", "#EBD79A", "#F0BC4C", "#E5822B", "#A8320A")
"""The same in five steps, for cables."""

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif'
WIDTH = 1000
PAPER = "#FFFFFF"
"""Behind a text that lines would strike through; a page puts its own paper there."""
_BETWEEN_PX = 76  # of stacked panels: ticks and title of the upper one's axis
_GOLDEN = 0.6180339887498949
INK = "#1C2126"
_INK = {
    "light": (INK, "#5A646E", "#E3E7EB", PAPER),
    "dark": ("#E8ECF0", "#A3AEB9", "#313A43", "#14181C"),
}


def template(theme: str) -> dict[str, Any]:
    """The plotly template of a theme, `light` or `dark`, as plain data."""
    ink, soft, grid, paper = _INK[theme]
    axis = {
        "gridcolor": grid,
        "linecolor": soft,
        "tickcolor": soft,
        "zerolinecolor": soft,
        "zerolinewidth": 1,
        "tickfont": {"color": soft, "size": 13},
        "title": {"font": {"color": soft, "size": 13}, "standoff": 10},
        "automargin": True,
        "ticks": "",
        "showline": False,
        "separatethousands": True,
    }
    return {
        "layout": {
            "font": {"family": FONT, "size": 13, "color": ink},
            "title": {"font": {"size": 18, "color": ink}, "x": 0, "xref": "container", "xanchor": "left"},
            "paper_bgcolor": paper,
            "plot_bgcolor": paper,
            "colorway": list(SERIES),
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"font": {"family": FONT, "size": 13}},
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1.0,
                "yanchor": "bottom",
                "font": {"color": ink},
            },
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": soft, "activecolor": ink},
            "bargap": 0.34,
        }
    }


def finish(
    canvas: Canvas,
    title: str,
    *,
    height: int,
    alt: str = "",
    top: int = 50,
    bottom: int = 56,
    width: int = WIDTH,
    stacked: Mapping[str, Any] | None = None,
    least: int = 0,
) -> Picture:
    """Finish the figure, with the house's look: its title (a sentence), size and margins.

    `height` [px] is that of the drawing without the title; `top` and `bottom` [px] are kept free for legend,
    panel names and axis. `stacked` is what a page sets of `height` and axes where panels do not fit side by side
    (`stacked_panels`); where the page is narrower than `least` [px], the figure scrolls sideways. The sentence and the spoken description travel in `layout.meta`, where the report finds them.
    """
    width = max(width, least)
    lines = textwrap.wrap(title, round(0.088 * width))
    title_px = 24 * len(lines) + 16
    return canvas.picture(
        template=template("light"),
        title={
            "text": "<br>".join(lines),
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "pad": {"b": top + 22 * (len(lines) - 1) - 6, "l": 20},
        },
        width=width,
        height=height + title_px,
        margin={"l": 20, "r": 30, "t": top + title_px, "b": bottom},
        meta={"title": title, "alt": alt or title, "top_px": top, "bottom_px": bottom, "height_px": height}
        | ({"stacked": dict(stacked)} if stacked else {})
        | ({"least_px": least} if least else {}),
    )


def stacked_panels(
    heights: tuple[int, int], top: int, axes: Mapping[str, Mapping[str, Any]], bottom: int = 56
) -> dict[str, Any]:
    """Two panels (`x`, `y` and `x2`, `y2`) one below the other, as `finish` wants them.

    `heights` [px] are those of the upper and the lower panel; `axes` is what else changes, by axis (`xaxis2`).
    """
    upper, lower = heights
    inside = upper + lower + _BETWEEN_PX
    changes: dict[str, Any] = {
        "xaxis": {"domain": [0.0, 1.0]},
        "xaxis2": {"domain": [0.0, 1.0]},
        "yaxis": {"domain": [1 - upper / inside, 1.0]},
        "yaxis2": {"domain": [0.0, lower / inside]},
    }
    for axis, look in axes.items():
        changes[axis] = changes.get(axis, {}) | dict(look)
    return {"height": inside + top + bottom, **changes}


def fill(colour: str) -> dict[str, Any]:
    """Marker of a bar: its colour, and a hatch of its own where the colour alone is too near to another."""
    if colour not in _HATCH:
        return {"color": colour}
    lines = {"shape": _HATCH[colour], "fillmode": "overlay", "size": 6, "solidity": 0.3}
    return {"color": colour, "pattern": lines}


def machines(names: Sequence[str]) -> dict[str, str]:
    """Colours of machines by name: those of `MACHINES`, and of the others what is free, in turn where nothing is."""
    own = {name: MACHINES[name] for name in names if name in MACHINES}
    free = [colour for colour in SERIES if colour not in own.values()] or list(SERIES)
    others = (name for name in names if name not in own)
    return own | {name: free[i % len(free)] for i, name in enumerate(others)}


def distinct(colours: Mapping[str, str]) -> dict[str, str]:
    """Colours of the series that a picture has: of at most six, those of `OTHERS` give way to those of `SERIES` that are free."""
    own = dict.fromkeys(colours.values())
    if len(own) > len(SERIES):
        return dict(colours)
    free = (colour for colour in SERIES if colour not in own)
    given = {colour: next(free) if colour in _HATCH else colour for colour in own}
    return {key: given[colour] for key, colour in colours.items()}


def mark(symbol: str, size: int, width: float = 1.6) -> dict[str, Any]:
    """A white mark with a dark outline, to be seen on any bar."""
    return {"symbol": symbol, "size": size, "color": "#FFFFFF", "line": {"width": width, "color": INK}}


def spread(row: float, num: int) -> list[float]:
    """Places of dots around a row, evenly without a random draw; one alone stands on it [num]."""
    return [row + 0.62 * ((i * _GOLDEN) % 1 - 0.5) if num > 1 else row for i in range(num)]


def colourbar(unit: str) -> dict[str, Any]:
    """A colour key that lies above the drawing, at its left."""
    return {
        "orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom", "len": 0.5, "thickness": 10,
        "outlinewidth": 0, "title": {"text": unit, "side": "top", "font": {"size": 13}}, "tickfont": {"size": 12}, "nticks": 6, "ypad": 6, "xpad": 0,
    }  # fmt: skip


def time_unit(longest_s: float) -> tuple[float, str]:
    """Divisor and unit in which times up to `longest_s` [s] are read well."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if longest_s >= factor:
            return factor, unit
    return 1e-9, "ns"


def bytes_unit(largest: float) -> tuple[float, str]:
    """Divisor and unit in which sizes up to `largest` [bytes] are read well."""
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if largest >= factor:
            return factor, unit
    return 1.0, "B"
