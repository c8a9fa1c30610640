"""Differences of two results: which settings and metrics differ, and which setting moves a metric by how much.

Each setting that differs is laid over the first scenario alone, and run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim import documents, metrics
from sim.answers.changed import run_changed
from sim.documents import Document
from sim.errors import InputError, Mark, Problem
from sim.runs.kinds import Progress, Result
from sim.scenario import settings as scenario_settings
from sim.trees import flatten

SCHEMA = "moesim.diff/1"
_NAMES = ("name", "title", "question", "expect")
"""Keys of a scenario that make no other run."""
_MOST = 12  # settings that are run alone


def diff(
    first: Result, second: Result, names: tuple[str, str], progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Compare two results of one run each.

    `settings` that differ have both values and, where it can be run alone, the metrics that it `gives` the
    first scenario; `metrics` have both values and the change [fraction]. Raises `InputError` where the workloads are of
    different kinds: they answer different questions, and no single setting leads from one to the other.
    """
    _check_kinds(first, second, names)
    settings = _differing(_unfolded(first), _unfolded(second))
    alone = [
        _alone(first, key, new, progress) if len(settings) <= _MOST else None
        for key, (_, new) in settings.items()
    ]
    before, after = flatten(first["metrics"]), flatten(second["metrics"])
    return {
        "schema": SCHEMA,
        "names": list(names),
        "versions": [first["provenance"]["version"], second["provenance"]["version"]],
        "settings": {
            key: {"first": old, "second": new, "gives": given}
            for (key, (old, new)), given in zip(settings.items(), alone, strict=True)
        },
        "metrics": {
            name: {"first": before.get(name), "second": after.get(name), "change_fraction": _change(before.get(name), after.get(name)),
                   "more_is_better": metrics.more_is_better(name)}
            for name in dict.fromkeys((*before, *after))
            if before.get(name) != after.get(name)
        },
    }  # fmt: skip


def _check_kinds(first: Result, second: Result, names: tuple[str, str]) -> None:
    kinds = [_kind(result) for result in (first, second)]
    if kinds[0] != kinds[1]:
        got = f"a result of kind {kinds[1]}"
        raise InputError(Problem(Mark(names[1]), "", got, f"one of kind {kinds[0]}, as {names[0]} is"))


def _kind(result: Result) -> str:
    return "jobs" if "jobs" in result["scenario"] else str(result["scenario"]["workload"]["kind"])


def _unfolded(result: Result) -> dict[str, Any]:
    """Return a result's scenario with the model that it names in full, so that a changed model differs in what was changed."""
    document = Document(dict(result["scenario"]), str(result["name"])).copy()
    scenario_settings.unfold_model(document)
    return document.tree


def _change(old: float | None, new: float | None) -> float | None:
    return None if old is None or new is None or not old else new / old - 1


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, dotted; a mapping whose kind differs is one setting."""
    differing: dict[str, tuple[Any, Any]] = {}

    def walk(old: Any, new: Any, at: tuple[str, ...]) -> None:
        both = isinstance(old, Mapping) and isinstance(new, Mapping)
        if both and old.get("kind") == new.get("kind"):
            for key in dict.fromkeys((*old, *new)):
                walk(old.get(key), new.get(key), (*at, key))
        elif old != new:
            differing[documents.dotted(at)] = (old, new)

    for key in dict.fromkeys((*first, *second)):
        if key not in _NAMES:
            walk(first.get(key), second.get(key), (key,))
    return differing


def _alone(first: Result, key: str, value: Any, progress: Progress) -> dict[str, float] | None:
    """Run the first scenario with one setting of the second; None where there can be no such run."""
    progress(f"{first['name']}: with {key} alone")
    result = run_changed(Document(dict(first["scenario"]), str(first["name"])), {key: value})
    return None if result is None else flatten(result["metrics"])
