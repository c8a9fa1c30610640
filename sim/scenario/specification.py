"""What a scenario file may say, as pydantic models: the shape of the YAML, its defaults and its JSON Schema.

Only shape is checked here; what must agree across branches (EP and ranks, groups and experts) is checked by `scenario`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sim.scenario.all_to_all import AllToAllSpec
from sim.scenario.cluster import ClusterSpec
from sim.scenario.draft import LayoutSpec
from sim.scenario.flows import FlowsSpec
from sim.scenario.inference import DecodeSpec, PrefillSpec
from sim.scenario.serving import ServingSpec
from sim.scenario.training import TrainingSpec
from sim.scenario.values import Branch, Index, Number
from sim.schemas import Share

__all__ = ["AnyWorkloadSpec", "ScenarioSpec"]


AnyWorkloadSpec = Annotated[
    AllToAllSpec | FlowsSpec | TrainingSpec | PrefillSpec | DecodeSpec | ServingSpec,
    Field(discriminator="kind"),
]


class ExpectSpec(Branch):
    """A published value that a metric must meet."""

    value: str | Number
    tolerance: Share
    source: str | None = None


class ScenarioSpec(Branch):
    """A scenario file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    title: str | None = None
    seed: Index = 0
    fidelity: Literal["flow", "closed_form"] = "flow"
    cluster: ClusterSpec
    model: str | dict[str, Any] | None = None
    """A model of `scenarios/models/`, a path, or the model itself."""
    layout: LayoutSpec = LayoutSpec()
    workload: AnyWorkloadSpec
    expect: dict[str, ExpectSpec] = Field(default_factory=dict)
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """The scenario several ways: {h800: {}, h100: {cluster.hardware: h100}}; the first is the reference."""
