"""The key `software` of a scenario: a shipped profile, a path, or quantities laid over the one of which nothing costs."""

from __future__ import annotations

from typing import Any

from sim.cluster.software import NONE, Software, load_software
from sim.documents import Document
from sim.errors import InputError
from sim.scenario.draft import placed_at

_AT = ("software",)


def software_of(document: Document, asked: str | dict[str, Any] | None) -> Software | None:
    """Load the software of a scenario, None where launches cost nothing; InputError at the marks of the document."""
    if asked is None or asked == NONE:
        return None
    if isinstance(asked, str):
        return load_software(asked, near=document.folder, mark=document.mark(_AT))
    try:
        return load_software(NONE, document.branch(_AT))
    except InputError as error:
        raise InputError(placed_at(document, _AT, error)) from None
