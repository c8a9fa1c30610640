"""The report: one self-contained page that says what was asked, what came out, why, and how to run it again.

It reads the same from a phone, in the dark and on paper, and needs no network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sim.show.kinds import kind_of, module


def report_html(document: Mapping[str, Any]) -> str:
    """Write the report of a run (with or without variants), sweep, ladder or validation as one HTML document."""
    kind = kind_of(document)
    write: Callable[[Mapping[str, Any]], str] = getattr(module("pages", kind), f"{kind}_html")
    return write(document)
