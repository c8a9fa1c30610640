"""Kinds of workloads in scenarios: how each is written, and how it is resolved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sim import kinds
from sim.scenario.descriptions import Workload
from sim.scenario.draft import Draft
from sim.scenario.values import WorkloadSpec


@dataclass(frozen=True, slots=True)
class Resolver:
    """What a module of `sim/scenario/` knows of its kinds, under the name RESOLVER."""

    specs: Mapping[str, type[WorkloadSpec]]
    """Kind -> how a scenario may write it."""
    resolve: Callable[[Draft, Any], Workload]
    """The description of a specification; what is wrong with it joins the draft's faults."""
    takes_model: bool = True
    """Whether it runs a model, on a cluster of GPUs; else it has none, and a bare fabric will do."""
    needs_model: Callable[[Any], bool] = lambda spec: True
    """Whether a specification cannot do without the model."""
    hints: Callable[[Any], Iterator[str]] = lambda spec: iter(())
    """What a person may want to know of a specification before many like it run."""


def resolver(kind: str) -> Resolver:
    """What `sim/scenario/` knows of a kind."""
    found: Resolver = kinds.module("scenario", kind).RESOLVER
    return found
