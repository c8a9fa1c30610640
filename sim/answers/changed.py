"""A scenario with some of its keys changed, run; nothing where it refuses the change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim import documents
from sim.documents import Document
from sim.errors import InfeasibleError, InputError, Mark
from sim.runs.kinds import Result
from sim.runs.run import run_scenario
from sim.scenario import resolve as scenarios
from sim.scenario import settings as scenario_settings

Changes = Mapping[str, Any]
"""Dotted key -> value."""


def lay(document: Document, changes: Changes) -> Document:
    """Return a copy of a scenario's document with changes laid over it."""
    laid = document.copy()
    for key, value in changes.items():
        scenario_settings.put(laid, documents.split(key), value, Mark("change"))
    return laid


def run_changed(document: Document, changes: Changes) -> Result | None:
    """Run a scenario with changes; None where it refuses them or no machine could do it."""
    try:
        return run_scenario(scenarios.resolve(lay(document, changes)))
    except (InputError, InfeasibleError):
        return None
