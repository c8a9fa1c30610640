"""A result in a notebook: its findings, and the first metrics of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.show.pages import page
from sim.show.views import names
from sim.trees import is_number

_SHOWN = 12  # metrics of a table


@dataclass(frozen=True, slots=True)
class Notebook:
    """Record that `notebook.html.j2` shows."""

    title: str
    findings: Sequence[str]
    heads: Sequence[str] = ()
    """Names of runs."""
    rows: Sequence[tuple[str, Sequence[str]]] = ()
    """Metric, and its value in each run."""
    rest: str = "All rows"
    """Rest that the table in Python has; "" for nothing."""


def study_html(title: str, findings: Sequence[str]) -> str:
    """Show a sweep or ladder by its findings."""
    return page.render("notebook", Notebook(title, findings))


def runs_html(title: str, findings: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Show a run, with or without variants, by its findings and the first metrics of each row of its table."""
    metrics = [name for name in rows[0] if name not in ("name", "variant")]
    num_left = len(metrics) - _SHOWN
    shown = Notebook(
        title,
        findings,
        heads=[str(row["variant"] or row["name"]) for row in rows],
        rows=[(name, [_cell(name, row[name]) for row in rows]) for name in metrics[:_SHOWN]],
        rest=f"{num_left} more metrics" if num_left > 0 else "",
    )
    return page.render("notebook", shown)


def _cell(name: str, value: Any) -> str:
    if is_number(value):
        return names.value(name, float(value))
    return "-" if value is None else str(value)
