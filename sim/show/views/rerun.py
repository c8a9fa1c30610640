"""The scenario of a result as a file that can be run again: every default written out, variants as what they change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.documents import dumps
from sim.show.views.run import RunsView

_ORDER = (
    "name",
    "title",
    "question",
    "seed",
    "fidelity",
    "cluster",
    "model",
    "layout",
    "workload",
    "expect",
    "variants",
)


def scenario_yaml(runs: RunsView) -> str:
    """The resolved scenario of a result, with its variants, as YAML."""
    name = (runs.name or runs.runs[0].name) if runs.has_variants else None
    return dumps(scenario_tree({run.variant: run.scenario for run in runs.runs}, name))


def scenario_tree(resolved: Mapping[str, Mapping[str, Any]], name: str | None) -> dict[str, Any]:
    """Resolved scenarios by variant as one plain tree; `name` is that of all variants together, None without any."""
    first = _plain(next(iter(resolved.values())))
    tree: dict[str, Any] = first
    if name is not None:
        variants = {variant: _changes(first, _plain(scenario)) for variant, scenario in resolved.items()}
        tree = {**first, "name": name, "variants": variants}
    return {
        key: tree[key]
        for key in sorted(tree, key=lambda key: _ORDER.index(key) if key in _ORDER else len(_ORDER))
        if tree[key] != {}
    }


def _changes(base: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Collect the changes from one resolved scenario to another, as dotted keys; keys with dots of their own stay in their branch."""
    changes: dict[str, Any] = {}
    for key, value in other.items():
        if (not prefix and key == "name") or base.get(key) == value:
            continue
        path = f"{prefix}.{key}" if prefix else key
        inner = base.get(key)
        deep = (
            isinstance(value, dict)
            and isinstance(inner, dict)
            and set(inner) <= set(value)
            and not any("." in name for name in value)
        )
        changes |= _changes(inner, value, path) if deep and isinstance(inner, dict) else {path: value}
    return changes


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
