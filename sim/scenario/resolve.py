"""Scenarios: a YAML file becomes frozen descriptions, checked across branches, with everything that was derived shown.

Precedence, weakest first: profile < model < scenario < variant < `--set`. The resolved document, defaults filled in,
goes into the result, so that a result can be run again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from sim import metrics, units
from sim.cluster import topology
from sim.documents import Document
from sim.errors import InfeasibleError, InputError, Problem, nearest
from sim.scenario import sizes, specification
from sim.scenario.cluster import cluster_of, part_in_use
from sim.scenario.descriptions import Expectation, Scenario
from sim.scenario.draft import Draft, catch, model_of
from sim.scenario.faults import faults_of
from sim.scenario.kinds import resolver
from sim.scenario.software import software_of
from sim.scenario.specification import ScenarioSpec


def resolve(document: Document) -> Scenario:
    """Check a document without variants, and build its scenario.

    InputError with all problems, at their marks; InfeasibleError where no machine could run it.
    """
    spec = specification.check(document)
    kind = resolver(spec.workload.kind)
    fidelity = spec.fidelity if isinstance(spec.fidelity, str) else "flow"
    draft = Draft(document, spec.seed, fidelity, spec.layout, resolve, divides=kind.divides(spec.workload))
    draft.hardware, draft.num_nodes, draft.fabric, draft.shared = cluster_of(
        document, spec.cluster, draft.problems, divides=draft.divides
    )
    if draft.num_nodes > 0:
        domain = draft.hardware.gpu.scale_up.domain if draft.hardware else 1
        draft.part = part_in_use(document, spec.cluster, draft.num_nodes, domain, draft.problems)
    if kind.takes_model:
        if isinstance(draft.fabric, topology.LeafSpine):
            draft.problem(
                ("cluster", "fabric", "kind"), "'leaf_spine'", f"a fabric of GPUs for {spec.workload.kind}"
            )
        needed = kind.needs_model(spec.workload)
        draft.model = catch(draft.problems, lambda: model_of(document, spec.model, needed=needed))
    if spec.gather_fraction and not kind.gathers:
        at, wanted = ("fidelity", "flow", "gather"), f"0: flows of {spec.workload.kind} are solved exactly"
        draft.problem(at, str(document.get(at)), wanted)
    software = catch(draft.problems, lambda: software_of(document, spec.software))
    if software is not None and "host_s" not in (metrics.reported([spec.workload.kind]) or ()):
        wanted = f"none: {spec.workload.kind} has no launches of a host"
        draft.problem(("software",), str(document.get(("software",))), wanted)
    if spec.question is not None and spec.question.compare and "variants" not in document.tree:
        draft.problem(("question", "compare"), "a comparison of one run", "'variants', or 'ask' alone")
    if draft.problems:
        raise InputError(draft.problems)
    assert draft.fabric is not None
    assert draft.part is not None
    sizes.require_cluster(draft)
    draft.faults = faults_of(draft, spec.cluster.faults, kind, spec.workload.kind)
    workload = catch(draft.problems, lambda: kind.resolve(draft, spec.workload))
    expectations = _expectations(document, spec, draft.problems)
    if draft.problems or workload is None:
        raise InputError(draft.problems)
    resolved = _with_defaults(document.tree, spec)
    if draft.layout:
        resolved["layout"] = draft.layout
    if draft.part.num_gpus < draft.num_nodes * draft.part.domain:
        part = {"gpus": draft.part.num_gpus, "use_nodes": list(draft.part.nodes)}
        resolved["cluster"] = {**resolved["cluster"], **part}
    resolved["workload"] = {**resolved["workload"], **draft.derived}
    scenario = Scenario(
        name=spec.name,
        title=spec.title or spec.name,
        seed=spec.seed,
        fidelity=fidelity,
        gather_fraction=spec.gather_fraction,
        software=software,
        hardware=draft.hardware,
        num_nodes=draft.num_nodes,
        part=draft.part,
        fabric=draft.fabric,
        shared=draft.shared,
        faults=draft.faults,
        model=draft.model,
        ep=int(draft.layout.get("ep", 1)),
        workload=workload,
        expectations=expectations,
        document=resolved,
        settings=document.settings,
    )
    kind.count(scenario, workload)
    if not kind.survives:
        _require_alive(scenario)
    return scenario


def _require_alive(scenario: Scenario) -> None:
    """Raise `InfeasibleError` where the job runs on a GPU that computes nothing, and never will."""
    for fault in scenario.faults:
        if fault.quantity in ("clock", "hbm") and fault.fraction == 0.0 and fault.lasts:
            raise InfeasibleError(f"{fault.part} is dead ({fault.quantity} 0 %), and the job runs on it")


def _expectations(document: Document, spec: ScenarioSpec, problems: list[Problem]) -> tuple[Expectation, ...]:
    expectations = []
    for metric, expect in spec.expect.items():
        try:
            value = units.parse(expect.value, metrics.dimension_of(metric))
        except units.UnitError as error:
            problems.append(
                document.problem(("expect", metric, "value"), error.got, error.wanted, error.suggestion)
            )
            continue
        mark = document.mark(("expect", metric), key=True)
        expectations.append(Expectation(metric, value, expect.tolerance, expect.source, mark))
    return tuple(expectations)


def unreported(scenario: Scenario) -> Iterator[Problem]:
    """Yield a problem for each expected metric that no run of this kind reports; what a single run lacks shows when it has run."""
    reported = metrics.reported([scenario.kind])
    for expected in scenario.expectations:
        name = expected.metric
        if reported is not None and metrics.lacks([scenario.kind], name):
            wanted, near = f"a metric of {scenario.kind}", nearest(name, reported)
            yield Problem(expected.mark, f"expect.{name}", f"'{name}'", wanted, near)


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
