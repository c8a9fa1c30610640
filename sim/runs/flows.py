"""Flows from a file: from a scenario to the completion of each, and the load of every link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sim import limits
from sim.cluster.topology import Floats, LeafSpine
from sim.cost.power import Activity
from sim.engine import executor
from sim.errors import InfeasibleError
from sim.runs import metrics as measure
from sim.runs.energy import energy_metrics, network_bytes
from sim.runs.kinds import LINKS, Progress, Result, Runner, SharedRun
from sim.scenario.descriptions import Scenario
from sim.scenario.flows import FlowList
from sim.schedule import bounds, flow_list
from sim.schedule.flow_list import FlowTable
from sim.schedule.flows import Flows

if TYPE_CHECKING:
    from sim.engine.step import StepRun


def run_flows(scenario: Scenario, progress: Progress) -> Result:
    """Simulate the flows that a scenario lists, with `flow_completion` [num_flows, 3]: id, release [us], finish [us]."""
    work, cluster = scenario.workload, scenario.cluster()
    assert isinstance(work, FlowList)
    fabric = scenario.fabric if isinstance(scenario.fabric, LeafSpine) else None
    table = work.table
    progress(f"{scenario.name}: {len(table.src)} flows")
    gpus = scenario.gpus
    flows = flow_list.plan(replace(table, src=gpus[table.src], dst=gpus[table.dst]), cluster, fabric)
    trace = executor.run_flows(cluster, flows, scenario.gather_fraction)
    finish = trace.transfers[0].finish_s
    metrics = measure.flow_metrics(trace, cluster)
    done = Activity(
        elapsed_s=metrics["completion_time_s"],
        **network_bytes(cluster, flows.bytes_by_resource(len(cluster.names))),
    )
    return {
        "metrics": metrics | energy_metrics(scenario, done),
        "links": measure.links(trace, cluster),
        "timeline": {"utilisation": measure.utilisation(trace, cluster)},
        "flow_completion": _completion(table, flows, finish),
    }


def _completion(table: FlowTable, flows: Flows, finish_s: Floats) -> list[list[float]]:
    """Number, release and finish of each listed flow [us]."""
    freed = np.where(table.after < 0, table.start_s, (finish_s + flows.latency_s)[table.after])
    released = np.maximum(table.start_s, freed)
    rows: list[list[float]] = np.stack(
        [table.flow_id.astype(float), released * 1e6, finish_s * 1e6], axis=1
    ).tolist()
    return rows


def shared_flows(scenario: Scenario) -> SharedRun:
    """The listed flows next to other jobs, of which none makes two wait.

    InfeasibleError where several flows wait for the same one, or there are more than run next to others.
    """
    work, cluster = scenario.workload, scenario.cluster()
    assert isinstance(work, FlowList)
    table = work.table
    num = len(table.src)
    limits.require(num, limits.SHARED_FLOWS, f"flows of job {scenario.name}")
    following = np.full(num, -1)
    waits = np.flatnonzero(table.after >= 0)
    following[table.after[waits]] = waits
    if np.any(following[table.after[waits]] != waits):
        raise InfeasibleError("next to other jobs at most one flow may wait for a flow; several wait for one")
    chains = []
    for first in np.flatnonzero(table.after < 0).tolist():
        chain = [first]
        while following[chain[-1]] >= 0:
            chain.append(int(following[chain[-1]]))
        chains.append(chain)
    gpus = scenario.gpus
    flows = flow_list.plan(replace(table, src=gpus[table.src], dst=gpus[table.dst]), cluster, None)

    from sim.runs import shared_transfers  # imports the step, which a run alone never needs

    def result(runs: Sequence[StepRun]) -> Result:
        finish = shared_transfers.finishes_s(flows, chains, runs[0])
        elapsed = float(finish.max()) - float(table.start_s[table.after < 0].min())
        metrics = {"completion_time_s": elapsed, "lower_bound_s": bounds.lower_bound_s([flows], cluster)}
        metrics |= shared_transfers.flows_binding(cluster, flows, chains, runs[0], finish)
        done = Activity(elapsed_s=elapsed, **network_bytes(cluster, runs[0].bytes))
        return {
            "metrics": metrics | energy_metrics(scenario, done),
            "flow_completion": _completion(table, flows, finish),
        }

    return SharedRun([shared_transfers.flows_plan(cluster, flows, chains)], result)


RUNNER = Runner(run_flows, LINKS, shared_flows)
