"""The kinds of document that moesim writes, and the modules that show each kind of workload: asked here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

Kind = Literal["run", "validation", "sweep", "ladder"]

WORKLOADS = {
    "all_to_all": "transfers",
    "flows": "transfers",
    "training": "training",
    "prefill": "inference",
    "decode": "inference",
    "serving": "serving",
}
"""Kind of a workload -> the module of that name in each medium (views, words, tables, plots) that shows it."""


def module(medium: str, name: str) -> ModuleType:
    """The module of a medium that shows a kind of workload, by a value of `WORKLOADS`."""
    return import_module(f"sim.show.{medium}.{name}")


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
