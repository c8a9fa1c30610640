"""The list of jobs of a scenario, as written."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from sim.scenario.draft import LayoutSpec
from sim.scenario.values import NAME, Branch, Count, Index


class JobSpec(Branch):
    """A workload that shares the network with the others."""

    name: Annotated[str, Field(pattern=NAME, max_length=40)]
    """Name of the job; its metrics are jobs.NAME."""
    pool: str | None = None
    """The pool that it runs on, where the cluster has pools."""
    gpus: Count | None = None
    """GPUs that it takes, on the next nodes that no job before it has; all of the cluster or pool when left out."""
    use_nodes: list[Index] | None = None
    """Nodes that it takes, of its pool where there are pools."""
    model: str | dict[str, Any] | None = None
    """As of a scenario."""
    layout: LayoutSpec = LayoutSpec()
    software: str | dict[str, Any] | None = None
    """As of a scenario."""
    workload: dict[str, Any]
    """As of a scenario: of kind all_to_all, flows, collective, training, prefill, decode or serving."""
