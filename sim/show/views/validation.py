"""TODO sim/show/views/validation.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.show.views.run import Result, counts


def use_of(row: Mapping[str, Any]) -> str:
    """What a row of a validation proves: `printed`, `missed`, `calibrated on`, `exact` or `predicted`."""
    if not counts(row):
        return "printed only"
    if not row["ok"]:
        return "missed"
    if row.get("use") == "calibration":
        return "calibrated on"
    return "exact" if row["tolerance_fraction"] == 0 or row.get("use") == "exact" else "predicted"


def is_validation(document: Result) -> bool:
    """Whether a document is what `moesim validate --json` prints."""
    return isinstance(document.get("groups"), Mapping)
