"""Colours as people see them: CIE Lab, colour blindness, and the distance of two colours.

Colour blindness: Machado, Oliveira and Fernandes, IEEE TVCG 15(6), 2009, severity 1.0. Distance: CIEDE2000, as in Sharma, Wu
and Dalal, Color Research and Application 30(1), 2005.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip
"""Vision -> what it makes of linear RGB."""


def lab(colour: str, vision: str = "normal") -> Floats:
    """CIE Lab of a colour `#RRGGBB`, as some vision sees it."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return lab_of(_XYZ @ np.clip(VISIONS[vision] @ linear, 0, 1))


def lab_of(xyz: Floats) -> Floats:
    """CIE Lab of XYZ."""
    ratio = xyz / _WHITE
    x, y, z = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(one: Floats, other: Floats) -> float:
    """CIEDE2000 of two colours in CIE Lab."""
    chroma = (np.hypot(*one[1:]) + np.hypot(*other[1:])) / 2
    grow = 1.5 - 0.5 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7))
    (c1, h1), (c2, h2) = (
        (float(np.hypot(grow * a, b)), float(np.degrees(np.arctan2(b, grow * a)) % 360))
        for _, a, b in (one, other)
    )
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    d_hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    light, chroma = (one[0] + other[0]) / 2, (c1 + c2) / 2
    hue = (h1 + turn / 2) % 360 if c1 * c2 else h1 + h2
    t = 1 - 0.17 * _cos(hue - 30) + 0.24 * _cos(2 * hue) + 0.32 * _cos(3 * hue + 6) - 0.2 * _cos(4 * hue - 63)
    s_light = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2)
    s_chroma, s_hue = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    twist = 60 * np.exp(-(((hue - 275) / 25) ** 2))
    rotation = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7)) * np.sin(np.radians(twist))
    parts = (other[0] - one[0]) / s_light, (c2 - c1) / s_chroma, d_hue / s_hue
    return float(np.sqrt(sum(part**2 for part in parts) + rotation * parts[1] * parts[2]))


def _cos(degrees: float) -> float:
    return float(np.cos(np.radians(degrees)))


PAPERS = ("#FFFFFF", "#14181C")
APART, APART_WITH_A_MARK = 20.0, 12.0
"""Distance of two colours of one picture, and of more than `FEW` colours where a second mark (dash, hatch, shape, width) tells them apart too."""
FEW = 6


def series(traces: Sequence[Mapping[str, Any]], paper: str) -> list[tuple[str, str, tuple[Any, ...]]]:
    """Name, colour and second mark of each series of a picture; scales of colours, and marks with an outline, are none.

    Dots that let others shine through count with their full colour.
    """
    found = []
    for trace in traces:
        marker, line = (trace.get(part) or {} for part in ("marker", "line"))
        own = marker.get("color")
        if trace.get("fill") == "toself":  # an area, whose line is its border
            own = trace.get("fillcolor")
        colours = own if isinstance(own, str | list | tuple) else line.get("color")
        mark = (
            trace["type"],
            str(marker.get("symbol")),
            str(line.get("dash")),
            str(line.get("width")),
            str((marker.get("pattern") or {}).get("shape")),
        )
        for colour in [colours] if isinstance(colours, str) else colours or ():
            if (
                isinstance(colour, str)
                and trace.get("name")
                and not marker.get("line")
                and on_paper(colour, paper) not in PAPERS
            ):
                found.append((str(trace["name"]), on_paper(colour, paper), mark))
    return list(dict.fromkeys(found))


def on_paper(colour: str, paper: str) -> str:
    """A colour `#RRGGBB` or `rgba(...)` as it stands on a paper."""
    if colour.startswith("#"):
        return colour.upper()
    *rgb, opacity = map(float, re.findall(r"[\d.]+", colour))
    behind = (int(paper[i : i + 2], 16) for i in (1, 3, 5))
    mixed = (round(opacity * part + (1 - opacity) * under) for part, under in zip(rgb, behind, strict=True))
    return "#" + "".join(f"{part:02X}" for part in mixed)


def confusable(traces: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, float]]:
    """Pairs of series of one picture that some eye takes for one another on some paper, with their distance there."""
    pairs = (pair for paper in PAPERS for pair in _confusable_on(traces, paper))
    yield from dict.fromkeys(pairs)


def _confusable_on(traces: Sequence[Mapping[str, Any]], paper: str) -> Iterator[tuple[str, str, float]]:
    found = series(traces, paper)
    is_few = len({colour for _, colour, _ in found}) <= FEW
    for (name, one, its_mark), (of, other, their_mark) in combinations(found, 2):
        if name == of or (one == other and its_mark != their_mark):  # a dash or shape tells one colour apart
            continue
        apart = min(distance(lab(one, vision), lab(other, vision)) for vision in VISIONS)
        if apart < (APART if is_few or its_mark == their_mark else APART_WITH_A_MARK):
            yield name, of, apart
