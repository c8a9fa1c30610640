"""Kinds of workloads in scenarios: the resolver of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sim import kinds
from sim.scenario.descriptions import Scenario, Workload
from sim.scenario.draft import Draft
from sim.scenario.values import WorkloadSpec


@dataclass(frozen=True, slots=True)
class Resolver:
    """Entry of a module of `sim/scenario/` for its kinds, under the name RESOLVER."""

    specs: Mapping[str, type[WorkloadSpec]]
    """Kind -> its specification in a scenario."""
    resolve: Callable[[Draft, Any], Workload]
    """Turns a specification into a description; problems are added to the draft."""
    takes_model: bool = True
    """It runs a model, on a cluster of GPUs; otherwise a bare fabric will do."""
    needs_model: Callable[[Any], bool] = lambda spec: True
    """True for a specification that cannot do without the model."""
    faults: tuple[str, ...] = ("bandwidth",)
    """Quantities of `cluster.faults` that make it slower."""
    windows: bool = False
    """It knows faults that come and go."""
    leaves: bool = True
    """It knows faults of any leaf and link too, where it knows such as come and go."""
    survives: bool = False
    """It goes on with some of its GPUs dead."""
    divides: Callable[[Any], bool] = lambda spec: False
    """True for a specification that chooses pools of the cluster for its parts itself."""
    gathers: bool = False
    """Completions of its flows may be gathered."""
    count: Callable[[Scenario, Any], None] = lambda scenario, work: None
    """Count what a run of a scenario's workload would build; raises `InfeasibleError` for more than anyone has room for."""
    hints: Callable[[Any], Iterator[str]] = lambda spec: iter(())
    """Advice on a specification before many like it run."""


def resolver(kind: str) -> Resolver:
    """The resolver of a kind."""
    declared: Resolver = kinds.module("scenario", kind).RESOLVER
    return declared
