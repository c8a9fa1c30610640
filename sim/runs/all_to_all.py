"""Dispatch and combine, or a plain all-to-all: from a scenario to its metrics, links and timeline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sim import limits
from sim.cost.power import Activity
from sim.engine import executor
from sim.engine.records import Trace, TransferRecord
from sim.runs import metrics as measure
from sim.runs.energy import energy_metrics, network_bytes
from sim.runs.kinds import LINKS, Progress, Result, Runner
from sim.runs.routing import record_of, routings
from sim.scenario.all_to_all import AllToAll
from sim.scenario.descriptions import Scenario
from sim.schedule.collectives import Collective

_DIRECTIONS = ("dispatch", "combine")


def run_all_to_all(scenario: Scenario, progress: Progress) -> Result:
    """Simulate one dispatch and one combine of every EP group, or a plain all-to-all.

    Parameters
    ----------
    scenario : Scenario
        Its workload is an `AllToAll`.
    progress : function of a sentence

    Returns
    -------
    dict
        Metrics, links, timeline and traffic, as `result.json` has them; metrics alone in closed form. Of recorded loads with
        layers, those of the slowest layer, and next to them `layers`: the mean and the worst time of all.

    Raises
    ------
    InfeasibleError
        Where more pairs of ranks send to each other than can be simulated together.
    """
    work = scenario.workload
    assert isinstance(work, AllToAll)
    if work.gate is None or not work.gate.layers:
        return _one_layer(scenario, work, progress)
    results = []
    for layer in range(len(work.gate.layers)):
        alone = replace(work, gate=work.gate.layer_gate(layer))
        of_layer = replace(scenario, name=f"{scenario.name}, layer {layer}", workload=alone)
        results.append(_one_layer(of_layer, alone, progress))
    times_s = np.array([[result["metrics"][name]["time_s"] for name in _DIRECTIONS] for result in results])
    slowest = int(times_s.sum(axis=1).argmax())
    results[slowest]["metrics"]["layers"] = {
        "count": len(results),
        "slowest": slowest,
        **{
            name: {"mean_s": float(column.mean()), "worst_s": float(column.max())}
            for name, column in zip(_DIRECTIONS, times_s.T, strict=True)
        },
    }
    return results[slowest]


def _one_layer(scenario: Scenario, work: AllToAll, progress: Progress) -> Result:
    cluster = scenario.cluster()
    progress(f"{scenario.name}: routing tokens")
    routed = routings(scenario)
    plain = work.spec.bytes_per_rank is not None
    hidden = scenario.model.routed_width if scenario.model else 0
    metrics: dict[str, Any] = {}
    timeline: list[dict[str, Any]] = []
    traffic: dict[str, Any] = {}
    whole = Trace(saturated_s=np.zeros(len(cluster.names)))
    carried = np.zeros(len(cluster.names))
    for name, direction in [("exchange", "dispatch")] if plain else [(name, name) for name in _DIRECTIONS]:
        record_bytes = record_of(scenario, direction)
        collectives = [
            Collective(
                cluster=cluster,
                kernel=work.kernel,
                direction=direction,
                gpus=scenario.gpus[group * scenario.ep : (group + 1) * scenario.ep],
                routing=routing,
                record_bytes=record_bytes,
                comm_sms=work.comm_sms,
                **work.options,
            )
            for group, routing in enumerate(routed)
        ]
        dtype = (
            None
            if plain
            else (work.spec.dispatch_dtype if direction == "dispatch" else work.spec.combine_dtype)
        )
        if scenario.fidelity == "closed_form":
            metrics[name] = measure.closed_form_metrics(collectives, dtype, hidden)
            carried += sum(each.flows().bytes_by_resource(len(carried)) for each in collectives)
            continue
        progress(f"{scenario.name}: {name}")
        trace = executor.run_together(cluster, name, collectives, whole.end_s, scenario.gather_fraction)
        metrics[name] = measure.collective_metrics(trace, collectives, dtype, hidden)
        timeline += [_bars(record) for record in trace.transfers]
        if scenario.ep <= limits.MATRIX_RANKS:
            matrix = collectives[0].records * record_bytes
            traffic[name] = (matrix if direction == "dispatch" else matrix.T).round().astype(int).tolist()
        carried += sum(record.flows.bytes_by_resource(len(carried)) for record in trace.transfers)
        whole.transfers += trace.transfers
        whole.stretches += trace.stretches
        whole.saturated_s += trace.saturated_s
        whole.end_s = trace.end_s
    times = [(row["completion_time_s"], row["time_s"]) for row in metrics.values()]
    done = Activity(
        elapsed_s=sum(row[0] for row in times),
        communication_s=sum(row[1] for row in times),
        **network_bytes(cluster, carried),
    )
    tokens = (work.spec.tokens_per_rank or 0) * scenario.num_ranks
    metrics |= energy_metrics(scenario, done, tokens)
    if not whole.transfers:
        return {"metrics": metrics, "links": {}, "timeline": {}}
    return {
        "metrics": metrics,
        "links": measure.links(whole, cluster),
        "timeline": {"kernels": timeline, "utilisation": measure.utilisation(whole, cluster)},
        "traffic": traffic,
    }


def _bars(record: TransferRecord) -> dict[str, Any]:
    """One kernel's bars on the timeline: its start, and the end of each rank."""
    return {
        "name": record.name,
        "group": record.group,
        "start_s": record.start_s,
        "fixed_s": record.fixed_s,
        "first_rank": record.group * len(record.gpus),
        "gpus": record.gpus.tolist(),
        "rank_ends_s": record.rank_ends_s.tolist(),
    }


RUNNER = Runner(run_all_to_all, reads=LINKS)
