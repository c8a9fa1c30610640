"""The report of a validation: published figures beside simulated ones, every row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim.show.grid import Grid
from sim.show.pages import page, parts
from sim.show.pages.parts import Head
from sim.show.plots import validation as plots
from sim.show.tables import validation as tables
from sim.show.views.validation import validation_view
from sim.show.words import validation as words

_MARKS = (
    "Each mark is a figure that we compare with; grey is its tolerance, and hollow marks were calibrated on"
)


@dataclass(frozen=True, slots=True)
class GroupRows:
    """Every row of a group."""

    name: str
    aside: str
    is_met: bool
    grid: Grid


@dataclass(frozen=True, slots=True)
class ValidationPage:
    """Record that `validation.html.j2` shows."""

    head: Head
    groups: Grid
    machines: Grid | None
    rows: tuple[GroupRows, ...]


def validation_html(document: Mapping[str, Any]) -> str:
    """Write the report of a document of `moesim validate`."""
    view = validation_view(document)
    shown = ValidationPage(
        head=Head(
            kicker="Validation",
            title="Published figures beside simulated ones",
            facts=(),
            answer=words.finding(view),
            lead=parts.figure("validation", lambda: plots.validation(view), _MARKS),
            footer=tuple(filter(None, (f"moesim {view.version}".strip(), view.schema))),
        ),
        groups=tables.summary_grid(view),
        machines=tables.machine_grid(view) if view.machines else None,
        rows=tuple(
            GroupRows(
                name=group.name,
                aside=f"{len(group.rows)} rows, {'met' if group.ok else 'missed'}",
                is_met=group.ok,
                grid=tables.group_grid(group),
            )
            for group in view.groups
        ),
    )
    return page.render("validation", shown)
