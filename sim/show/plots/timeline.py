"""The timeline of a run: what held each of its rows over time.

Why this way: up to a few thousand bars are drawn as they are, all of one colour as one filled outline, with invisible marks
in their middles to point at. More would be a shape a pixel, and a browser would choke on a hundred thousand: beyond
`MAX_BARS` they become a raster, rows by spans of time, where a cell shows the kinds in it in proportion, in the same
colours. Each kind is a heat map of its share; its opacity is share / (1 - shares above), so that the stack of them mixes
exactly. A raster is as small as a page as it is as a PDF; `trace.json.gz` has every bar.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sim.show import style
from sim.show.canvas import Canvas, absent
from sim.show.views import lanes as lives
from sim.show.views.lanes import Lanes
from sim.show.views.run import Case, Result, cases
from sim.units import show

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
from sim.show.views import training as training_views

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


def timeline(result: Result, *, max_bars: int = MAX_BARS) -> Any:
    """Every operation, kernel, request or flow of a run over time; a raster where there are more than `max_bars`."""
    case = cases(result)[0]
    lanes = lives.of_case(case)
    if lanes is None or not lanes.num_spans:
        raise absent("timeline", "this one kept no course in time")
    figure = Canvas()
    scale, unit = style.time_unit(lanes.end_s)
    raster = lanes.num_spans > max_bars
    note, height = (_raster if raster else _bars)(figure, lanes, scale, unit)
    said = f"; {'; '.join(filter(None, (lanes.note, note)))}" if lanes.note or note else ""
    figure.axis(
        "x", title=f"time [{unit}]{said}", range=[0, lanes.end_s / scale], showgrid=False, zeroline=False
    )
    figure.layout |= {"hovermode": "closest", "hoverdistance": 60, "dragmode": "zoom"}
    title = _title(case, lanes)
    alt = f"Timeline over {show(lanes.end_s, 's', 3)}: {lanes.num_spans:,} bars on {len(lanes.rows):,} rows. {title}"
    lead = f"{case.name}: {title}" if case.variant else title[0].upper() + title[1:]
    return style.finish(figure, lead, height=height, alt=alt, top=52)


def num_bars(case: Case) -> int:
    """Bars of a case's timeline; 0 without one."""
    lanes = lives.of_case(case)
    return lanes.num_spans if lanes else 0


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
    figure.add("scatter", x=xs, y=ys, fill="toself", hoverinfo="skip", **mode, **look)


def _bars(figure: Canvas, lanes: Lanes, scale: float, unit: str) -> tuple[str, int]:
    """Draw each span; returns a note and the height [px]."""
    places = max(
        0, 5 - math.ceil(math.log10(lanes.end_s / scale))
    )  # a hundred-thousandth: sharp, and short to write

    def at(time_s: float) -> float:
        return round(time_s / scale, places)

    few = len(lanes.rows) <= 3
    height = _height(len(lanes.rows), 64 if few else 26)
    seams = lanes.num_spans <= _MAX_SEAMS and height >= _SEAMED_PX * len(lanes.rows)
    for kind, (name, colour) in lanes.kinds.items():
        mine = [(at(start_s), at(end_s), float(row)) for start_s, end_s, row, _ in lanes.spans.get(kind, ())]
        if mine:
            boxes(figure, mine, seams=seams, name=name, fillcolor=colour)
    marks = [span for spans in lanes.spans.values() for span in spans]
    figure.add(
        "scatter", x=[at((s + e) / 2) for s, e, _, _ in marks], y=[row for _, _, row, _ in marks], mode="none", hoveron="points",
        text=[f"{lanes.what} {lanes.rows[row]}: {name}, {show(e - s, 's')}" for s, e, row, name in marks], hoverinfo="text",
        showlegend=False,
    )  # fmt: skip
    if few:
        _names(figure, lanes, scale)
    _rows(figure, lanes.what, lanes.rows)
    return "", 110 + height


def _names(figure: Canvas, lanes: Lanes, scale: float) -> None:
    """Names on the bars that are wide enough."""
    for kind, spans in lanes.spans.items():
        for start_s, end_s, row, _ in spans:
            if end_s - start_s > _NAMED_WIDTH * lanes.end_s:
                middle = (start_s + end_s) / 2 / scale
                ink = {"size": 12, "color": "#FFFFFF"}
                figure.note(lanes.kinds[kind][0].replace(" ", "<br>"), middle, row, font=ink, name="inside")


def _rows(figure: Canvas, what: str, names: Sequence[str]) -> None:
    every = -(-len(names) // _MAX_NAMED)
    figure.axis(
        "y", title=what, range=[len(names) - 0.4, -0.6], tickvals=list(range(0, len(names), every)),
        ticktext=list(names[::every]), showgrid=False, zeroline=False, fixedrange=True,
    )  # fmt: skip


# --- raster ----------------------------------------------------------------------------------------------------------


def _raster(figure: Canvas, lanes: Lanes, scale: float, unit: str) -> tuple[str, int]:
    """Draw shares of time by row and bin; returns a note and the height [px]."""
    import numpy as np

    together = -(-len(lanes.rows) // _MAX_ROWS)
    num_rows = -(-len(lanes.rows) // together)
    num_bins = min(_MAX_BINS, max(200, _CELLS // num_rows))
    present = {kind: lanes.kinds[kind] for kind in lanes.kinds if lanes.spans.get(kind)}
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
    _rows(figure, lanes.what, names)
    figure.layout["legend"] = {
        "itemclick": False,
        "itemdoubleclick": False,
    }  # a kind taken away would leave wrong shares
    cell = f"a cell mixes what ran in {show(lanes.end_s / num_bins, 's', 3)}"
    rows = f" of {together} {lanes.what}s" if together > 1 else ""
    return f"{lanes.num_spans:,} bars, {cell}{rows}", 110 + _height(num_rows, 26)


def _height(num_rows: int, row_px: int) -> int:
    """Of all rows; many become thin rather than tall [px]."""
    return min(row_px * num_rows, _MAX_HEIGHT_PX)


def _row_name(lanes: Lanes, first: int, together: int) -> str:
    last = min(first + together, len(lanes.rows)) - 1
    return lanes.rows[first] if first == last else f"{lanes.rows[first]}-{lanes.rows[last]}"


def occupancy(
    spans: Sequence[lives.Span], end_s: float, num_rows: int, num_bins: int, together: int = 1
) -> NDArray[np.float64]:
    """Share of each cell that spans fill [ceil(num_rows / together), num_bins], 0..1; `together` rows share a row of cells.

    Notes: what one span fills of bin b is F(b + 1) - F(b), F the integral of its indicator: a ramp that begins at its start
    and another, taken off, at its end. Each ramp is two entries of an array that is then summed along time.
    """
    import numpy as np

    found = np.zeros((-(-num_rows // together), num_bins + 2))
    times = np.array([span[:2] for span in spans], dtype=float) * (num_bins / end_s)
    row = np.array([span[2] for span in spans], dtype=np.int64) // together
    for column, sign in ((0, 1.0), (1, -1.0)):
        at = np.clip(times[:, column], 0.0, num_bins)
        whole = np.floor(at).astype(np.int64)
        part = at - whole
        np.add.at(found, (row, whole), sign * (1.0 - part))
        np.add.at(found, (row, whole + 1), sign * part)
    members = np.minimum(together, num_rows - together * np.arange(len(found)))
    filled = np.cumsum(found, axis=1)[:, :num_bins] / members[:, None]
    return np.clip(filled, 0.0, 1.0)


def _rgb(colour: str) -> tuple[float, float, float]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


# --- titles ----------------------------------------------------------------------------------------------------------


def _title(case: Case, lanes: Lanes) -> str:
    if training_views.is_training(case):
        return _of_step(case.metrics)
    if lanes.kinds is lives.PARTS:
        return _of_pass(lanes)
    if lanes.kinds is lives.LIVES:
        return _of_requests(lanes)
    if lanes.what == "flow":
        return f"the last of {len(lanes.rows):,} flows arrives after {show(lanes.end_s, 's', 3)}; {_most_at_once(lanes)} are in flight at once"
    ends = [
        f"{kind} ends after {show(max(end_s for _, end_s, _, _ in spans), 's', 3)}"
        for kind, spans in lanes.spans.items()
        if spans
    ]
    return f"{', '.join(ends)}, on the last of {len(lanes.rows):,} ranks"


def _of_step(m: Mapping[str, Any]) -> str:
    mean, first = (m[key]["bubble_s"] / m["step_time_s"] for key in ("phases_mean", "phases"))
    pairs = m["phases_mean"]["1F1B_s"] / m["step_time_s"]
    filled = f"F&B pairs fill {pairs:.0%} of the step" if pairs else "no forward and backward run as a pair"
    return f"{filled}; the bubble takes {mean:.1%} on the mean rank, {first:.1%} on rank 0"


def _of_pass(lanes: Lanes) -> str:
    """Shares of the two streams in the part of a pass that is drawn; low-latency kernels hold the first one's SMs."""

    def share(row: int, kinds: Collection[str]) -> float:
        held_s = sum(e - s for kind in kinds for s, e, on, _ in lanes.spans[kind] if on == row)
        return min(1.0, held_s / lanes.end_s)

    held = share(0, ("phases",))
    computed = share(0, lanes.spans.keys() - {"phases"})
    sends = f", sends and receives records {held:.0%}" if held else ""
    where = f"in {lanes.note} " if lanes.note else ""
    return (
        f"{where}the compute stream computes {computed:.0%} of the time{sends} and waits for exchanges {1 - computed - held:.0%}; "
        f"exchanges are under way {share(1, lanes.spans):.0%} of it"
    )


def _of_requests(lanes: Lanes) -> str:
    spent = {kind: sum(e - s for s, e, _, _ in spans) for kind, spans in lanes.spans.items()}
    whole = sum(spent.values())
    waits = spent["prefill wait"] + spent["decode wait"] + spent["step wait"]
    return (
        f"of their time in the system {len(lanes.rows):,} requests decode {spent['decode'] / whole:.0%}, "
        f"prefill {spent['prefill'] / whole:.0%} and wait {waits / whole:.0%}"
    )


def _most_at_once(lanes: Lanes) -> int:
    changes = sorted(
        change for start_s, end_s, _, _ in lanes.spans["flow"] for change in ((start_s, 1), (end_s, -1))
    )
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
