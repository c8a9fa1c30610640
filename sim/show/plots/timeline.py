"""The timeline of a run: what held each of its rows over time.

Why this way: up to a few thousand bars are drawn as they are, all of one colour as one filled outline, with invisible marks
in their middles to point at. More would be a shape a pixel, and a browser would choke on a hundred thousand: beyond
`MAX_BARS` they become a raster, rows by spans of time, where a cell shows the kinds in it in proportion, in the same
colours. Each kind is a heat map of its share; its opacity is share / (1 - shares above), so that the stack of them mixes
exactly. A raster is as small as a page as it is as a PDF; `trace.json.gz` has every bar.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sim.show import style
from sim.show.canvas import Canvas, Picture, absent
from sim.show.kinds import module
from sim.show.views.lanes import Lanes, Span
from sim.show.views.run import RunsView, RunView
from sim.show.words.headline import headline
from sim.units import show

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_BARS = 6_000
"""Bars of one timeline that are drawn as they are."""
_HALF = 0.4  # of a row's height that a bar takes, up and down
_MAX_SEAMS = 3_000  # bars that are outlined, of all colours together
_SEAMED_PX = 6  # height of a row from which bars are outlined
_SEAM = {"width": 0.5, "color": "rgba(255,255,255,0.6)"}
_MAX_NAMED = 24  # rows with a tick each
_MAX_ROWS = 200  # of a raster; more are drawn several to a row
_CELLS = 60_000  # of a raster
_GAPPED_CELLS = (
    20_000  # up to which rows stand apart; with a gap each cell is painted by itself, which takes longer
)
_MAX_BINS = 900  # a pixel each; finer ones would hide one another
_MAX_HEIGHT_PX = 760
_NAMED_WIDTH = 0.05  # of the drawing's width that a bar must have to be named on it
_CHARACTER = 0.008  # of that width, of a character of its name


def timeline(runs: RunsView, *, max_bars: int = MAX_BARS) -> Picture:
    """Every operation, kernel, request or flow of a run over time; a raster where there are more than `max_bars`."""
    run = runs.runs[0]
    lanes = run.lanes
    if lanes is None or not lanes.num_spans:
        raise absent("timeline", "this one kept no course in time")
    figure = Canvas()
    scale, unit = style.time_unit(lanes.end_s)
    raster = lanes.num_spans > max_bars
    note, height = (_raster if raster else _bars)(figure, lanes, scale, unit)
    notes = "".join(f"; {words}" for words in (lanes.note, note) if words)
    time = [0, lanes.end_s / scale]
    figure.axis("x", title=f"time [{unit}]{notes}", range=time, showgrid=False, zeroline=False)
    figure.layout |= {"hovermode": "closest", "hoverdistance": 60, "dragmode": "zoom"}
    title = module("words", run.family).course(run, lanes)
    alt = f"Timeline over {show(lanes.end_s, 's', 3)}: {lanes.num_spans:,} bars on {len(lanes.rows):,} rows. {title}"
    return style.finish(figure, headline(run, title), height=height, alt=alt, top=52)


def num_bars(run: RunView) -> int:
    """Bars of a run's timeline; 0 without one."""
    return run.lanes.num_spans if run.lanes else 0


def _colours(lanes: Lanes) -> dict[str, str]:
    """Colours of the kinds that a timeline has."""
    return style.distinct(
        {kind: colour for kind, (_, colour) in lanes.kinds.items() if lanes.spans.get(kind)}
    )


# --- bars ------------------------------------------------------------------------------------------------------------


def boxes(
    figure: Canvas, spans: Sequence[tuple[float, float, float]], *, seams: bool = True, **look: Any
) -> None:
    """Boxes as one trace: start and end on x, middle on y, each `2 * _HALF` high."""
    mode = {"mode": "lines", "line": _SEAM} if seams else {"mode": "none"}
    xs: list[float | None] = []
    ys: list[float | None] = []
    for start, end, row in spans:
        xs += (start, end, end, start, None)
        low, high = round(row - _HALF, 1), round(row + _HALF, 1)
        ys += (low, low, high, high, None)
    figure.add("scatter", x=xs, y=ys, fill="toself", hoverinfo="skip", **{**mode, **look})


def _bars(figure: Canvas, lanes: Lanes, scale: float, unit: str) -> tuple[str, int]:
    """Draw each span; returns a note and the height [px]."""
    places = max(
        0, 5 - math.ceil(math.log10(lanes.end_s / scale))
    )  # a hundred-thousandth: sharp, and short to write

    def rounded(time_s: float) -> float:
        return round(time_s / scale, places)

    few = len(lanes.rows) <= 3
    height = _height(len(lanes.rows), 64 if few else 26)
    seams = lanes.num_spans <= _MAX_SEAMS and height >= _SEAMED_PX * len(lanes.rows)
    colours = _colours(lanes)
    for kind, (name, _) in lanes.kinds.items():
        boxed = [
            (rounded(start_s), rounded(end_s), float(row))
            for start_s, end_s, row, _ in lanes.spans.get(kind, ())
        ]
        if boxed:
            boxes(figure, boxed, seams=seams, name=name, fillcolor=colours[kind])
    marks = [span for spans in lanes.spans.values() for span in spans]
    figure.add(
        "scatter", x=[rounded((s + e) / 2) for s, e, _, _ in marks], y=[row for _, _, row, _ in marks], mode="none", hoveron="points",
        text=[f"{lanes.what} {lanes.rows[row]}: {name}, {show(e - s, 's')}" for s, e, row, name in marks], hoverinfo="text",
        showlegend=False,
    )  # fmt: skip
    if few:
        _names(figure, lanes, scale)
    figure.rows(lanes.rows, -(-len(lanes.rows) // _MAX_NAMED), title=lanes.what, fixedrange=True)
    return "", 110 + height


def _names(figure: Canvas, lanes: Lanes, scale: float) -> None:
    """Names on the bars that are wide enough."""
    for kind, spans in lanes.spans.items():
        for start_s, end_s, row, _ in spans:
            longest = max(map(len, lanes.kinds[kind][0].split()))
            if end_s - start_s > max(_NAMED_WIDTH, longest * _CHARACTER) * lanes.end_s:
                middle = (start_s + end_s) / 2 / scale
                ink = {"size": 12, "color": "#FFFFFF"}
                figure.note(lanes.kinds[kind][0].replace(" ", "<br>"), middle, row, font=ink, name="inside")


# --- raster ----------------------------------------------------------------------------------------------------------


def _raster(figure: Canvas, lanes: Lanes, scale: float, unit: str) -> tuple[str, int]:
    """Draw shares of time by row and bin; returns a note and the height [px]."""
    import numpy as np

    together = -(-len(lanes.rows) // _MAX_ROWS)
    num_rows = -(-len(lanes.rows) // together)
    num_bins = min(_MAX_BINS, max(200, _CELLS // num_rows))
    present = {kind: (lanes.kinds[kind][0], colour) for kind, colour in _colours(lanes).items()}
    share = {
        kind: occupancy(lanes.spans[kind], lanes.end_s, len(lanes.rows), num_bins, together)
        for kind in present
    }
    width = lanes.end_s / scale / num_bins
    grid: dict[str, Any] = {
        "x0": width / 2, "dx": width, "y0": 0, "dy": 1, "zmin": 0, "zmax": 255, "showscale": False, "ygap": 1 if num_rows * num_bins <= _GAPPED_CELLS else 0,
    }  # fmt: skip
    above = np.zeros((num_rows, num_bins))
    opacity: dict[str, NDArray[np.uint8]] = {}
    for kind in reversed(present):
        free = 1.0 - above
        shown = np.divide(share[kind], free, out=np.zeros_like(free), where=free > 1e-9)
        opacity[kind] = np.rint(255 * np.clip(shown, 0.0, 1.0)).astype(np.uint8)
        above = np.minimum(1.0, above + share[kind])
    for kind, (name, colour) in present.items():
        clear = f"rgba({', '.join(str(int(c)) for c in _rgb(colour))}, 0)"
        full = clear.replace(", 0)", ", 1)")
        figure.add("heatmap", z=opacity[kind], colorscale=[[0, clear], [1, full]], hoverinfo="skip", **grid)
        figure.add("scatter", x=[None], y=[None], mode="none", fill="toself", fillcolor=colour, name=name)
    percent = np.stack([np.rint(100 * share[kind]).astype(np.uint8) for kind in present], axis=-1)
    words = "<br>".join(f"{name} %{{customdata[{i}]}} %" for i, (name, _) in enumerate(present.values()))
    names = [_row_name(lanes, row * together, together) for row in range(num_rows)]
    figure.add(
        "heatmap", z=np.zeros((num_rows, num_bins), np.uint8), colorscale=[[0, "rgba(0,0,0,0)"], [1, "rgba(0,0,0,0)"]],
        customdata=percent, name="", hovertemplate=f"%{{x:.4g}} {unit}, {lanes.what} {'row ' if together > 1 else ''}%{{y}}<br>{words}<extra></extra>",
        **grid,
    )  # fmt: skip
    figure.rows(names, -(-len(names) // _MAX_NAMED), title=lanes.what, fixedrange=True)
    figure.layout["legend"] = {
        "itemclick": False,
        "itemdoubleclick": False,
    }  # a kind taken away would leave wrong shares
    cell = f"a cell mixes what ran in {show(lanes.end_s / num_bins, 's', 3)}"
    rows = f" of {together} {lanes.what}s" if together > 1 else ""
    return f"{lanes.num_spans:,} bars, {cell}{rows}", 110 + _height(num_rows, 26)


def _height(num_rows: int, row_px: int) -> int:
    """Height of all rows; many become thin rather than tall [px]."""
    return min(row_px * num_rows, _MAX_HEIGHT_PX)


def _row_name(lanes: Lanes, first: int, together: int) -> str:
    last = min(first + together, len(lanes.rows)) - 1
    return lanes.rows[first] if first == last else f"{lanes.rows[first]}-{lanes.rows[last]}"


def occupancy(
    spans: Sequence[Span], end_s: float, num_rows: int, num_bins: int, together: int = 1
) -> NDArray[np.float64]:
    """Share of each cell that spans fill [ceil(num_rows / together), num_bins], 0..1; `together` rows share a row of cells.

    Notes: what one span fills of bin b is F(b + 1) - F(b), F the integral of its indicator: a ramp that begins at its start
    and another, taken off, at its end. Each ramp is two entries of an array that is then summed along time.
    """
    import numpy as np

    ramps = np.zeros((-(-num_rows // together), num_bins + 2))
    times = np.array([span[:2] for span in spans], dtype=float) * (num_bins / end_s)
    row = np.array([span[2] for span in spans], dtype=np.int64) // together
    for column, sign in ((0, 1.0), (1, -1.0)):
        bins = np.clip(times[:, column], 0.0, num_bins)
        whole = np.floor(bins).astype(np.int64)
        part = bins - whole
        np.add.at(ramps, (row, whole), sign * (1.0 - part))
        np.add.at(ramps, (row, whole + 1), sign * part)
    members = np.minimum(together, num_rows - together * np.arange(len(ramps)))
    filled = np.cumsum(ramps, axis=1)[:, :num_bins] / members[:, None]
    return np.clip(filled, 0.0, 1.0)


def _rgb(colour: str) -> tuple[float, float, float]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
