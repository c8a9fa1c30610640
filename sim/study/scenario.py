"""Scenarios: a YAML file becomes frozen descriptions, checked across branches, with everything that was derived shown.

Precedence, weakest first: profile < model < scenario < variant < `--set`. The resolved document, defaults filled in,
goes into the result, so that a result can be run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sim import documents, limits, units
from sim.cluster import topology
from sim.documents import Document
from sim.errors import Fault, InputError, Mark
from sim.schedule import flow_list
from sim.study import sizes
from sim.study.deployments import inference_of
from sim.study.descriptions import AllToAll, Expectation, FlowList, Inference, Scenario, Serving, Training
from sim.study.exchanges import all_to_all_of
from sim.study.metal import Draft, beside, catch, cluster_of, model_of
from sim.study.service import serving_of
from sim.study.serving_specs import ServingSpec
from sim.study.specification import (
    AllToAllSpec,
    DecodeSpec,
    FlowsSpec,
    PrefillSpec,
    ScenarioSpec,
    TrainingSpec,
)
from sim.study.steps import training_of
from sim.workload import model as models

__all__ = ["AllToAll", "Expectation", "FlowList", "Scenario", "apply", "put", "read", "resolve", "variants"]


def read(spec: str | Path | Mapping[str, Any], settings: Sequence[str] = ()) -> Document:
    """The document of a scenario: a path, a shipped name or a tree, with `--set` settings laid over it."""
    if isinstance(spec, Mapping):
        document = Document(dict(spec), "scenario").copy()
    else:
        document = documents.load(documents.find(str(spec), "scenarios", "scenario"))
        for key, command in (("axes", "sweep"), ("rungs", "ladder")):
            if key in document.tree and "workload" not in document.tree:
                wanted = f"a scenario; it goes with `moesim {command} {spec}`"
                raise InputError(Fault(Mark(document.name), "", f"a {command}", wanted))
    apply(document, settings)
    return document


def with_whole_paths(tree: Any, folder: Path | None) -> Any:
    """A scenario's tree with the files that it names beside itself by their whole paths, so that it runs from anywhere."""
    if isinstance(tree, list):
        return [with_whole_paths(one, folder) for one in tree]
    if not isinstance(tree, dict):
        return tree
    found = {key: with_whole_paths(value, folder) for key, value in tree.items()}
    for key, value in found.items():
        beside_it = folder is not None and key.rpartition(".")[2] == "file" and isinstance(value, str)
        if beside_it and folder is not None and (folder / value).is_file():
            found[key] = str(folder / value)
    return found


_UNTOLD = ("expect", "title", "name", "variants", "seed")  # settings that make no other scenario
_TOLD = 3  # settings that a title has room for


def apply(document: Document, settings: Iterable[str]) -> None:
    """Lay `key.path=value` settings over a document; they win over variants too, and the title tells of them."""
    settings = tuple(settings)
    for setting in settings:
        key, equals, text = setting.partition("=")
        mark = Mark(f"--set {setting}")
        if not equals or not key.strip():
            raise InputError(Fault(mark, "", f"'{setting}'", "key.path=value"))
        value = documents.parse_scalar(text, str(mark))
        path = documents.split(key.strip())
        put(document, path, value, mark)
        declared = document.get(("variants",))
        for name, overrides in declared.items() if isinstance(declared, dict) else ():
            if isinstance(overrides, dict):
                _win_over(document, ("variants", name), overrides, path, value, mark)
    document.settings += settings
    changed = [one for one in settings if one.partition("=")[0].partition(".")[0].strip() not in _UNTOLD]
    if changed:
        told = ", ".join(changed[:_TOLD]) + (
            f" and {len(changed) - _TOLD} more" if len(changed) > _TOLD else ""
        )
        title = document.get(("title",)) or document.get(("name",))
        document.put(("title",), f"{title}, with {told}", Mark("--set"))


def _win_over(
    document: Document,
    at: documents.Path_,
    overrides: dict[str, Any],
    path: documents.Path_,
    value: Any,
    mark: Mark,
) -> None:
    """Make a setting of `path` win over a variant's: drop what lies below it, write into what lies above it."""
    for dotted in list(overrides):
        theirs = documents.split(dotted)
        if theirs[: len(path)] == path:
            del overrides[dotted]
        elif path[: len(theirs)] == theirs and isinstance(overrides[dotted], dict):
            document.put((*at, dotted, *path[len(theirs) :]), value, mark)


def put(document: Document, path: documents.Path_, value: Any, mark: Mark) -> None:
    """Like `Document.put`, with the scenario's branches in view.

    A key below `cluster.override` stays dotted, so that a mapping there is not replaced by chance; a key below a model that
    is named takes the model's file as the mapping that it changes: `model.top_k`.
    """
    if path[:1] == ("model",) and len(path) > 1:
        unfold_model(document)
    if path[:2] == ("cluster", "override") and len(path) > 3:
        path = (*path[:2], documents.dotted(path[2:]))
    document.put(path, value, mark)


def unfold_model(document: Document) -> None:
    """Put what its file says in the place of a model's name; leaves a document without one as it is."""
    named = document.get(("model",))
    if isinstance(named, str):
        at = document.mark(("model",))
        file = documents.find(named, models.FOLDER, "model", near=document.folder, mark=at)
        document.put(("model",), documents.load(file).tree, at)


def variants(document: Document) -> dict[str, Document]:
    """The documents of a scenario's variants, or `{name: document}` without any."""
    declared = document.get(("variants",))
    if not declared:
        return {str(document.get(("name",)) or "scenario"): document}
    document.check(ScenarioSpec)
    limits.require(len(declared), limits.VARIANTS, "variants")
    found = {}
    alike = document.copy()
    alike.put(("variants",), None, document.mark(("variants",)))  # with the marks below it
    del alike.tree["variants"]
    for name, overrides in declared.items():
        one = alike.copy()
        one.tree["name"] = f"{document.get(('name',))}-{name}"
        for dotted, value in overrides.items():
            mark = document.mark(("variants", name, dotted), key=True)
            put(one, documents.split(dotted), value, mark)
        found[name] = one
    return found


def resolve(document: Document) -> Scenario:
    """Check a document (without variants) and build the scenario. Raises `InputError` with all faults found."""
    spec = document.check(ScenarioSpec)
    draft = Draft(document, spec)
    draft.hardware, draft.num_nodes, draft.fabric, link_faults = cluster_of(document, spec, draft.faults)
    if not isinstance(spec.workload, FlowsSpec):
        if isinstance(draft.fabric, topology.LeafSpine):
            draft.fault(
                ("cluster", "fabric", "kind"), "'leaf_spine'", f"a fabric of GPUs for {spec.workload.kind}"
            )
        plain = isinstance(spec.workload, AllToAllSpec) and spec.workload.bytes_per_rank is not None
        draft.model = catch(draft.faults, lambda: model_of(document, spec, needed=not plain))
    if draft.faults:
        raise InputError(draft.faults)
    assert draft.fabric is not None
    sizes.require_cluster(draft)
    workload = catch(draft.faults, lambda: _BUILDERS[type(spec.workload)](draft))
    expectations = _expectations(document, spec, draft.faults)
    if draft.faults or workload is None:
        raise InputError(draft.faults)
    resolved = _with_defaults(document.tree, spec)
    if draft.layout:
        resolved["layout"] = draft.layout
    resolved["workload"] = {**resolved["workload"], **draft.derived}
    scenario = Scenario(
        name=spec.name,
        title=spec.title or spec.name,
        seed=spec.seed,
        fidelity=spec.fidelity,
        hardware=draft.hardware,
        num_nodes=draft.num_nodes,
        fabric=draft.fabric,
        faults=link_faults,
        model=draft.model,
        ep=draft.layout.get("ep", 1),
        workload=workload,
        expectations=expectations,
        document=resolved,
        settings=document.settings,
    )
    sizes.require(scenario)
    return scenario


def _flows_of(draft: Draft) -> FlowList:
    assert isinstance(draft.spec.workload, FlowsSpec)
    file, mark, key = beside(draft.document, ("workload", "file"))
    fabric = draft.fabric if isinstance(draft.fabric, topology.LeafSpine) else None
    num_hosts = fabric.hosts if fabric else draft.num_ranks
    return FlowList(flow_list.read(file, num_hosts, fabric, where=mark, key=key))


_BUILDERS: dict[type, Callable[[Draft], AllToAll | FlowList | Training | Inference | Serving]] = {
    FlowsSpec: _flows_of,
    AllToAllSpec: all_to_all_of,
    TrainingSpec: training_of,
    PrefillSpec: inference_of,
    DecodeSpec: inference_of,
    ServingSpec: serving_of,
}


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
