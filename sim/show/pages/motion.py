"""An all-to-all in motion: two machines on one clock, each link drawn by what it carries at the moment.

Dashes run along a link in the way of its bytes, the faster and stronger the fuller it is; colours are those of the classes of
resources everywhere. The page holds every frame and needs no server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim.show import style
from sim.show.pages import page
from sim.show.views.names import LABEL, capital, hardware_name
from sim.units import show


@dataclass(frozen=True, slots=True)
class MotionPage:
    """Record that `motion.html.j2` shows."""

    title: str
    answer: tuple[str, ...]
    machines: tuple[str, ...]
    frames: int
    data: str
    footer: tuple[str, ...]


def motion_html(document: Mapping[str, Any]) -> str:
    """Write the page of a document `moesim.motion/1`."""
    machines = document["machines"]
    labels = tuple(hardware_name(name) for name in machines)
    data = {
        **document,
        "machines": [
            {"label": capital(label), **machine}
            for label, machine in zip(labels, machines.values(), strict=True)
        ],
        "colours": {name: style.COLOUR[name] for name in ("scale_up", "nic")},
        "labels": {name: LABEL[name] for name in ("scale_up", "nic")},
    }
    shown = MotionPage(
        title=document["title"],
        answer=(_answer(labels, [machine["end_s"] for machine in machines.values()]),),
        machines=tuple(map(capital, labels)),
        frames=document["frames"],
        data=page.in_script(data),
        footer=(f"moesim {document['version']}", document["schema"]),
    )
    return page.render("motion", shown)


def _answer(labels: tuple[str, ...], ends_s: list[float]) -> str:
    first, second = (
        f"{label} ends after {show(end, 's', 3)}" for label, end in zip(labels, ends_s, strict=True)
    )
    first = capital(first)
    slow, fast = (0, 1) if ends_s[0] >= ends_s[1] else (1, 0)
    ratio = ends_s[slow] / ends_s[fast]
    if ratio < 1.005:
        return f"{first}, {second}: as long."
    return f"{first}, {second}: {labels[slow]} takes {ratio:.2f} times as long."
