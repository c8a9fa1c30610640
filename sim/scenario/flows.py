"""The workload of flows listed in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sim.cluster import topology
from sim.scenario import sizes
from sim.scenario.descriptions import Scenario, Workload
from sim.scenario.draft import Draft, named_file
from sim.scenario.kinds import Resolver
from sim.scenario.values import WorkloadSpec
from sim.schedule import flow_list
from sim.schedule.flow_list import FlowTable


class FlowsSpec(WorkloadSpec):
    """Flows of your own, from a CSV."""

    kind: Literal["flows"]
    file: str
    """flow_id,src,dst,bytes,start_us[,after_flow_id][,links]; relative to the scenario, or absolute."""


@dataclass(frozen=True, slots=True)
class FlowList(Workload):
    """Flows from a CSV on a bare fabric or a cluster, read."""

    spec: FlowsSpec
    table: FlowTable


def flows_of(draft: Draft, spec: FlowsSpec) -> FlowList:
    """Read the file of flows that the workload names; InputError with all problems of the file."""
    file, mark, key = named_file(draft.document, ("workload", "file"))
    fabric = draft.fabric if isinstance(draft.fabric, topology.LeafSpine) else None
    num_hosts = fabric.hosts if fabric else draft.num_ranks
    return FlowList(spec, flow_list.read(file, num_hosts, fabric, where=mark, key=key))


def _count(scenario: Scenario, _: FlowList) -> None:
    sizes.require_nodes(scenario, scenario.num_nodes)


RESOLVER = Resolver(
    {"flows": FlowsSpec}, flows_of, takes_model=False, windows=True, gathers=True, count=_count
)
