"""Scenarios: a YAML file becomes frozen descriptions, checked across branches, with everything that was derived shown.

Precedence, weakest first: profile < model < scenario < variant < `--set`. The resolved document, defaults filled in,
goes into the result, so that a result can be run again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from sim import schemas, units
from sim.cluster import topology
from sim.documents import Document
from sim.errors import InputError, Problem
from sim.scenario.all_to_all import AllToAllSpec, all_to_all_of
from sim.scenario.cluster import cluster_of
from sim.scenario.descriptions import AllToAll, Expectation, FlowList, Inference, Scenario, Serving, Training
from sim.scenario.draft import Draft, catch, model_of
from sim.scenario.flows import FlowsSpec, flows_of
from sim.scenario.inference import DecodeSpec, PrefillSpec, inference_of
from sim.scenario.serving import ServingSpec, serving_of
from sim.scenario.specification import ScenarioSpec
from sim.scenario.training import TrainingSpec, training_of


def resolve(document: Document) -> Scenario:
    """Check a document (without variants) and build the scenario. Raises `InputError` with all problems found."""
    spec = schemas.check(document, ScenarioSpec)
    draft = Draft(document, spec.seed, spec.fidelity, spec.layout, resolve)
    draft.hardware, draft.num_nodes, draft.fabric, draft.link_faults = cluster_of(
        document, spec.cluster, draft.problems
    )
    if not isinstance(spec.workload, FlowsSpec):
        if isinstance(draft.fabric, topology.LeafSpine):
            draft.problem(
                ("cluster", "fabric", "kind"), "'leaf_spine'", f"a fabric of GPUs for {spec.workload.kind}"
            )
        plain = isinstance(spec.workload, AllToAllSpec) and spec.workload.bytes_per_rank is not None
        draft.model = catch(draft.problems, lambda: model_of(document, spec.model, needed=not plain))
    if draft.problems:
        raise InputError(draft.problems)
    assert draft.fabric is not None
    workload = catch(draft.problems, lambda: _BUILDERS[type(spec.workload)](draft, spec.workload))
    expectations = _expectations(document, spec, draft.problems)
    if draft.problems or workload is None:
        raise InputError(draft.problems)
    resolved = _with_defaults(document.tree, spec)
    if draft.layout:
        resolved["layout"] = draft.layout
    resolved["workload"] = {**resolved["workload"], **draft.derived}
    return Scenario(
        name=spec.name,
        title=spec.title or spec.name,
        seed=spec.seed,
        fidelity=spec.fidelity,
        hardware=draft.hardware,
        num_nodes=draft.num_nodes,
        fabric=draft.fabric,
        faults=draft.link_faults,
        model=draft.model,
        ep=draft.layout.get("ep", 1),
        workload=workload,
        expectations=expectations,
        document=resolved,
        settings=document.settings,
    )


_BUILDERS: dict[type, Callable[[Draft, Any], AllToAll | FlowList | Training | Inference | Serving]] = {
    FlowsSpec: flows_of,
    AllToAllSpec: all_to_all_of,
    TrainingSpec: training_of,
    PrefillSpec: inference_of,
    DecodeSpec: inference_of,
    ServingSpec: serving_of,
}


def _expectations(document: Document, spec: ScenarioSpec, problems: list[Problem]) -> tuple[Expectation, ...]:
    found = []
    for metric, expect in spec.expect.items():
        try:
            value = units.parse(expect.value, units.dimension_of(metric))
        except units.UnitError as error:
            problems.append(
                document.problem(("expect", metric, "value"), error.got, error.wanted, error.suggestion)
            )
            continue
        mark = document.mark(("expect", metric), key=True)
        found.append(Expectation(metric, value, expect.tolerance, expect.source, mark))
    return tuple(found)


def _with_defaults(tree: Any, spec: BaseModel) -> dict[str, Any]:
    """The tree as written, with what was left out filled in from the defaults."""
    filled = dict(tree)
    for name, info in type(spec).model_fields.items():
        value = getattr(spec, name)
        if name not in filled:
            if value is not None and value not in ({}, []):
                default = value if info.is_required() else info.default  # the kind of a default gate
                filled[name] = _with_defaults({}, value) if isinstance(value, BaseModel) else default
        elif isinstance(value, BaseModel) and isinstance(filled[name], dict):
            filled[name] = _with_defaults(filled[name], value)
    return filled
