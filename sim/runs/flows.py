"""Flows from a file: from a scenario to the completion of each, and the load of every link."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sim.cluster.topology import LeafSpine
from sim.cost.power import Activity
from sim.engine import executor
from sim.runs import metrics as measure
from sim.runs.energy import energy_metrics, network_bytes
from sim.runs.kinds import LINKS, Progress, Result, Runner
from sim.scenario.descriptions import Scenario
from sim.scenario.flows import FlowList
from sim.schedule import flow_list


def run_flows(scenario: Scenario, progress: Progress) -> Result:
    """Simulate the flows that a scenario lists.

    Parameters
    ----------
    scenario : Scenario
        Its workload is a `FlowList`.
    progress : function of a sentence

    Returns
    -------
    dict
        Metrics, links, timeline and `flow_completion` ([num_flows, 3]: id, release [us], finish [us]), as `result.json` has
        them.
    """
    work, cluster = scenario.workload, scenario.cluster()
    assert isinstance(work, FlowList)
    fabric = scenario.fabric if isinstance(scenario.fabric, LeafSpine) else None
    table = work.table
    progress(f"{scenario.name}: {len(table.src)} flows")
    gpus = scenario.gpus
    flows = flow_list.plan(replace(table, src=gpus[table.src], dst=gpus[table.dst]), cluster, fabric)
    trace = executor.run_flows(cluster, flows, scenario.gather_fraction)
    finish = trace.transfers[0].finish_s
    freed = np.where(table.after < 0, table.start_s, (finish + flows.latency_s)[table.after])
    released = np.maximum(table.start_s, freed)
    rows = np.stack([table.flow_id.astype(float), released * 1e6, finish * 1e6], axis=1)
    metrics = measure.flow_metrics(trace, cluster)
    done = Activity(
        elapsed_s=metrics["completion_time_s"],
        **network_bytes(cluster, flows.bytes_by_resource(len(cluster.names))),
    )
    return {
        "metrics": metrics | energy_metrics(scenario, done),
        "links": measure.links(trace, cluster),
        "timeline": {"utilisation": measure.utilisation(trace, cluster)},
        "flow_completion": rows.tolist(),
    }


RUNNER = Runner(run_flows, reads=LINKS)
