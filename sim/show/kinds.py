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


SCHEMAS = ("moesim.result/1", "moesim.results/1", "moesim.sweep/1", "moesim.ladder/1")
"""Schemas of the documents that commands write; a validation is known by its groups."""


def is_document(tree: Any) -> bool:
    """Tell whether a tree is a document that a command wrote."""
    return isinstance(tree, Mapping) and (str(tree.get("schema")) in SCHEMAS or "groups" in tree)


def runs_in(document: Mapping[str, Any]) -> dict[str, Any]:
    """Each run in a result document by the name of its variant; "" names a document that is one run alone."""
    return dict(document.get("variants") or {"": document})


def results_in(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The documents in one: those of its scenarios, where `moesim run --json` printed several."""
    several = document.get("schema") == "moesim.results/1"
    return [dict(result) for result in document["results"].values()] if several else [dict(document)]


def workload_of(run: Mapping[str, Any]) -> str:
    """Kind of the workload of a run; "" where it does not say."""
    work = (run.get("scenario") or {}).get("workload") or {}
    return str(work.get("kind") or "")
