"""The kinds of document that moesim writes: asked here and nowhere else in the show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Kind = Literal["run", "validation", "sweep", "ladder"]


def kind_of(document: Mapping[str, Any]) -> Kind:
    """Kind of a document: a run with or without variants, a validation, a sweep or a ladder.

    Parameters
    ----------
    document : as `moesim run`, `validate`, `sweep` or `ladder` writes it with `--json`

    Returns
    -------
    its kind; a document that is none of them counts as a run, whose view reports what it lacks
    """
    schema = str(document.get("schema", ""))
    if schema.startswith("moesim.sweep/"):
        return "sweep"
    if schema.startswith("moesim.ladder/"):
        return "ladder"
    return "validation" if isinstance(document.get("groups"), Mapping) else "run"
