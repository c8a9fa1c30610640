"""Scenario files as pydantic models: the shape of the YAML, its defaults and its JSON Schema.

Only shape is checked here; what must agree across branches (EP and ranks, groups and experts) is checked by `resolve`.
A document is held to the model of its own kind of workload, so that no run waits for the models of the others.
"""

from __future__ import annotations

from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, create_model

from sim import schemas
from sim.documents import Document
from sim.kinds import WORKLOADS
from sim.scenario.cluster import ClusterSpec
from sim.scenario.draft import LayoutSpec
from sim.scenario.job_list import JobSpec
from sim.scenario.kinds import resolver
from sim.scenario.values import METRIC_NAMES, AskSpec, Branch, Index, Number, WordOr, WorkloadSpec
from sim.schemas import Share


class ExpectSpec(Branch):
    """A published value that a metric must meet."""

    value: str | Number
    tolerance: Share
    """Largest relative difference that still meets it."""
    source: str | None = None


class QuestionSpec(AskSpec):
    """The question that a scenario answers; its report opens with it, and with what is compared of variants."""

    compare: str | None = None
    """The key whose values are compared: cluster.hardware."""
    over: str | None = None
    """The key along which they are: layout.ep."""
    metric: str | None = Field(None, json_schema_extra=METRIC_NAMES)
    """The metric that answers it: dispatch.time_s."""


class GatherSpec(Branch):
    """Completions of flows that count as one."""

    gather: Share
    """Part of the least time that the flows or a collective could take, within which they do."""


class FlowSpec(Branch):
    """Flows on the network, with completions that lie close together gathered."""

    flow: GatherSpec
    """The window; the result states the error."""


def _workload_or_jobs(schema: dict[str, Any]) -> None:
    """Say in a JSON Schema that a scenario has a workload or a list of jobs."""
    if "workload" in schema.get("required", ()):
        schema["required"].remove("workload")
        schema["anyOf"] = [{"required": ["workload"]}, {"required": ["jobs"]}]


class ScenarioSpec(Branch):
    """A scenario file."""

    model_config = ConfigDict(json_schema_extra=_workload_or_jobs)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    title: str | None = None
    seed: Index = 0
    fidelity: WordOr[Literal["flow", "closed_form"], FlowSpec] = "flow"
    """flow: bytes on the network, solved exactly; {flow: {gather: 0.1 %}}: nearly, and faster; closed_form: arithmetic alone."""
    cluster: ClusterSpec
    model: str | dict[str, Any] | None = None
    """A model of `scenarios/models/`, the path of a model file or of a publisher's config.json, or the model itself; a
    configuration also as {huggingface: path}."""
    layout: LayoutSpec = LayoutSpec()
    software: str | dict[str, Any] | None = None
    """What the host of a GPU takes for each launch: a profile of `hardware/software/`, a path, or {launch: 5 us, sync: 20 us,
    graphs: decode}; none when left out."""
    workload: WorkloadSpec
    jobs: list[JobSpec] = Field(default_factory=list)
    """Instead of model, layout and workload: several, side by side on one network."""
    expect: dict[str, ExpectSpec] = Field(default_factory=dict, json_schema_extra=METRIC_NAMES)
    question: QuestionSpec | None = None
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """The scenario several ways: {h800: {}, h100: {cluster.hardware: h100}}; the first is the reference."""

    @property
    def gather_fraction(self) -> float:
        """Part of the least time in which completions count as one; 0 is exact."""
        return self.fidelity.flow.gather if isinstance(self.fidelity, FlowSpec) else 0.0


def check(document: Document) -> ScenarioSpec:
    """Check the shape of a scenario's document, by its kind of workload; InputError with all problems, at their marks."""
    kind = "jobs" if "jobs" in document.tree else document.get(("workload", "kind"))
    known = isinstance(kind, str) and kind in WORKLOADS
    return schemas.check(document, model_of(kind) if known else model_of(*WORKLOADS))


@cache
def model_of(*kinds: str) -> type[ScenarioSpec]:
    """The pydantic model of scenarios whose workload is of one of these kinds."""
    specs = [resolver(kind).specs[kind] for kind in kinds]
    workload: Any = (reduce(or_, specs), Field(discriminator="kind")) if len(specs) > 1 else specs[0]
    if kinds == ("jobs",):  # which are listed instead
        workload = (specs[0], specs[0](kind="jobs"))
    return create_model(
        "ScenarioSpec", __base__=ScenarioSpec, __doc__=ScenarioSpec.__doc__, workload=workload
    )
