"""The kinds of document that moesim writes, and the family of modules that shows each kind of workload."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

from sim.kinds import WORKLOADS

Kind = Literal["run", "validation", "sweep", "ladder"]

_TRANSFERS = ("all_to_all", "flows", "collective")
FAMILIES = {kind: "transfers" if kind in _TRANSFERS else name for kind, name in WORKLOADS.items()}
"""Kind of a workload -> the family that shows it: a module of that name in each medium (views, words, tables, plots, files)."""


def module(medium: str, family: str) -> ModuleType:
    """The module of a family of workloads, or of a kind of document, in a medium; imported when it is first asked for."""
    return import_module(f"sim.show.{medium}.{family}")


def kind_of(document: Mapping[str, Any]) -> Kind:
    """Kind of a document that a command wrote; one that is none of them counts as a run, whose view reports what it lacks."""
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
