"""Scenarios: a YAML file becomes frozen descriptions, checked across branches, with everything that was derived shown.

Precedence, weakest first: profile < model < scenario < variant < `--set`. The resolved document, defaults filled in,
goes into the result, so that a result can be run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sim import documents, units
from sim.cluster import topology
from sim.documents import Document
from sim.errors import Fault, InputError, Mark
from sim.study.descriptions import AllToAll, Expectation, FlowList, Scenario
from sim.study.exchanges import all_to_all_of
from sim.study.metal import beside, catch, cluster_of, model_of
from sim.study.specification import FlowsSpec, ScenarioSpec

__all__ = ["AllToAll", "Expectation", "FlowList", "Scenario", "apply", "read", "resolve", "variants"]


def read(spec: str | Path, settings: Sequence[str] = ()) -> Document:
    """The document of a scenario: a path or a shipped name, with `--set` settings laid over it."""
    document = documents.load(documents.find(str(spec), "scenarios", "scenario"))
    apply(document, settings)
    return document


def apply(document: Document, settings: Iterable[str]) -> None:
    """Lay `key.path=value` settings over a document; they win over variants too."""
    for setting in settings:
        key, equals, text = setting.partition("=")
        mark = Mark(f"--set {setting}")
        if not equals or not key.strip():
            raise InputError(Fault(mark, "", f"'{setting}'", "key.path=value"))
        value = documents.parse_scalar(text, str(mark))
        path = documents.split(key.strip())
        _put(document, path, value, mark)
        for variant in document.get(("variants",)) or {}:
            overrides = document.get(("variants", variant))
            if isinstance(overrides, dict):
                for dotted in [d for d in overrides if documents.split(d)[: len(path)] == path]:
                    del overrides[dotted]


def _put(document: Document, path: documents.Path_, value: Any, mark: Mark) -> None:
    """Like `Document.put`, but a key below `override` stays dotted, and a mapping there is not replaced by chance."""
    if path[:2] == ("cluster", "override") and len(path) > 3:
        path = (*path[:2], documents.dotted(path[2:]))
    document.put(path, value, mark)


def variants(document: Document) -> dict[str, Document]:
    """The documents of a scenario's variants, or `{name: document}` without any."""
    declared = document.get(("variants",))
    if not declared:
        return {str(document.get(("name",)) or "scenario"): document}
    document.check(ScenarioSpec)
    found = {}
    for name, overrides in declared.items():
        one = document.copy()
        del one.tree["variants"]
        one.tree["name"] = f"{document.get(('name',))}-{name}"
        for dotted, value in overrides.items():
            mark = document.mark(("variants", name, dotted), key=True)
            _put(one, documents.split(dotted), value, mark)
        found[name] = one
    return found


def resolve(document: Document) -> Scenario:
    """Check a document (without variants) and build the scenario. Raises `InputError` with all faults found."""
    spec = document.check(ScenarioSpec)
    faults: list[Fault] = []
    resolved = _with_defaults(document.tree, spec)
    workload = spec.workload
    hardware, num_nodes, fabric, link_faults = cluster_of(document, spec, faults)
    if isinstance(workload, FlowsSpec):
        if faults:
            raise InputError(faults)
        assert fabric is not None
        return Scenario(
            name=spec.name, title=spec.title or spec.name, seed=spec.seed, fidelity=spec.fidelity, hardware=hardware,
            num_nodes=num_nodes, fabric=fabric, faults=link_faults, model=None, ep=1,
            workload=FlowList(beside(document, workload.file)), expectations=_expectations(document, spec, faults),
            document=resolved,
        )  # fmt: skip
    if isinstance(fabric, topology.LeafSpine):
        faults.append(
            document.fault(
                ("cluster", "fabric", "kind"), "'leaf_spine'", "a fabric of GPUs: all_to_all needs hardware"
            )
        )
    model = catch(faults, lambda: model_of(document, spec, needed=workload.bytes_per_rank is None))
    if faults:
        raise InputError(faults)
    assert hardware is not None
    assert isinstance(fabric, topology.Fabric)
    num_ranks = num_nodes * hardware.gpu.scale_up.domain
    per_node = num_ranks if fabric.kind == "scale_up" else hardware.gpu.scale_up.domain
    ep = _layout(document, spec, num_ranks, per_node, faults)
    spanned = max(1, ep // per_node)
    a2a = catch(faults, lambda: all_to_all_of(document, workload, model, ep, spanned, hardware, faults))
    expectations = _expectations(document, spec, faults)
    if faults or a2a is None:
        raise InputError(faults)
    resolved["layout"] = {"ep": ep, "dp": num_ranks, "pp": 1, "tp": 1, "cp": 1}
    return Scenario(
        name=spec.name, title=spec.title or spec.name, seed=spec.seed, fidelity=spec.fidelity, hardware=hardware,
        num_nodes=num_nodes, fabric=fabric, faults=link_faults, model=model, ep=ep, workload=a2a,
        expectations=expectations, document=resolved,
    )  # fmt: skip


def _layout(
    document: Document, spec: ScenarioSpec, num_ranks: int, per_node: int, faults: list[Fault]
) -> int:
    """EP of the scenario; all ranks by default."""
    layout, at = spec.layout, ("layout",)
    for key in ("pp", "tp", "cp"):
        if getattr(layout, key) not in (None, 1):
            faults.append(
                document.fault((*at, key), str(getattr(layout, key)), "1: an all_to_all has EP and DP only")
            )
    if layout.dp not in (None, num_ranks):
        faults.append(
            document.fault((*at, "dp"), str(layout.dp), f"{num_ranks}, the number of ranks, or leave it out")
        )
    ep = layout.ep or num_ranks
    if num_ranks % ep:
        divisors = ", ".join(str(d) for d in range(1, num_ranks + 1) if num_ranks % d == 0)
        faults.append(document.fault((*at, "ep"), str(ep), f"a divisor of the {num_ranks} ranks: {divisors}"))
    elif ep % per_node and per_node % ep:
        faults.append(
            document.fault((*at, "ep"), str(ep), f"a multiple or a divisor of the {per_node} GPUs of a node")
        )
    return ep


def _expectations(document: Document, spec: ScenarioSpec, faults: list[Fault]) -> tuple[Expectation, ...]:
    found = []
    for metric, expect in spec.expect.items():
        try:
            value = units.parse(expect.value, units.dimension_of(metric))
        except units.UnitError as error:
            faults.append(
                document.fault(("expect", metric, "value"), error.got, error.wanted, error.suggestion)
            )
            continue
        found.append(Expectation(metric, value, expect.tolerance, expect.source))
    return tuple(found)


def _with_defaults(tree: Any, spec: BaseModel) -> dict[str, Any]:
    """The tree as written, with what was left out filled in from the defaults."""
    filled = dict(tree)
    for name, info in type(spec).model_fields.items():
        value = getattr(spec, name)
        if name not in filled:
            if value is not None and value not in ({}, []):
                filled[name] = _with_defaults({}, value) if isinstance(value, BaseModel) else info.default
        elif isinstance(value, BaseModel) and isinstance(filled[name], dict):
            filled[name] = _with_defaults(filled[name], value)
    return filled
