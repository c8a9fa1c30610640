"""The report of a validation: published figures beside simulated ones, every row."""

from __future__ import annotations

from dataclasses import dataclass

from sim.show.grid import Grid
from sim.show.pages import page, parts
from sim.show.pages.page import Drawing
from sim.show.pages.parts import Head
from sim.show.plots import kinds as plots
from sim.show.tables import validation as tables
from sim.show.views.run import Result
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
    """What `validation.html.j2` shows."""

    head: Head
    errors: tuple[Drawing, ...]
    groups: Grid
    rows: tuple[GroupRows, ...]


def validation_html(document: Result) -> str:
    """Write the report of a document of `moesim validate`."""
    groups = document["groups"]
    footer = (f"moesim {document.get('version', '')}".strip(), document.get("schema"))
    shown = ValidationPage(
        head=Head(
            kicker="Validation",
            title="Published figures beside simulated ones",
            facts=(),
            answer=words.finding(document),
            footer=tuple(str(text) for text in footer if text),
        ),
        errors=tuple(
            parts.figure(name, picture, _MARKS)
            for name, picture in plots.drawable(document, ("validation",)).items()
        ),
        groups=tables.of_groups(groups),
        rows=tuple(
            GroupRows(
                name=name,
                aside=f"{len(group['rows'])} rows, {'met' if group['ok'] else 'missed'}",
                is_met=bool(group["ok"]),
                grid=tables.of_group(name, group),
            )
            for name, group in groups.items()
        ),
    )
    return page.render("validation", shown)
