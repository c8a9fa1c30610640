"""The report: one self-contained page that says what was asked, what came out, why, and how to run it again.

It reads the same from a phone, in the dark and on paper, and needs no network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sim.show.kinds import Kind, kind_of
from sim.show.pages import ladder, run, sweep, validation

_PAGES: dict[Kind, Callable[[Mapping[str, Any]], str]] = {
    "run": run.run_html,
    "validation": validation.validation_html,
    "sweep": sweep.sweep_html,
    "ladder": ladder.ladder_html,
}


def report_html(document: Mapping[str, Any]) -> str:
    """Write the report of a run (with or without variants), sweep, ladder or validation as one HTML document."""
    return _PAGES[kind_of(document)](document)
