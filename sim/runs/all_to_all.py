"""Dispatch and combine, or a plain all-to-all: from a scenario to its metrics, links and timeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sim import limits
from sim.cluster.topology import Cluster
from sim.cost.power import Activity
from sim.engine import executor
from sim.engine.records import Trace, TransferRecord
from sim.errors import InfeasibleError
from sim.runs import metrics as measure
from sim.runs.energy import energy_metrics, network_bytes
from sim.runs.kinds import LINKS, Forecast, Progress, Result, Runner, SharedRun
from sim.runs.routing import expert_bytes, record_of, routings
from sim.scenario.all_to_all import AllToAll
from sim.scenario.descriptions import Scenario
from sim.schedule.collectives import Collective
from sim.schedule.replicas import dispatch_or_combine
from sim.workload.formats import SENT
from sim.workload.traffic import Routing

if TYPE_CHECKING:
    from sim.engine.step import StepRun

_DIRECTIONS = ("dispatch", "combine")


def run_all_to_all(scenario: Scenario, progress: Progress, *, draws: bool = True) -> Result:
    """Simulate one dispatch and one combine of every EP group, or a plain all-to-all, as `result.json` has them.

    Metrics alone in closed form, and without `draws`, which adds what figures are drawn from. Of recorded loads with layers, the run is that of the slowest layer, and next
    to it `layers` has the mean and the worst time of all. InfeasibleError where more pairs of ranks send to
    each other than can be simulated together.
    """
    work = scenario.workload
    assert isinstance(work, AllToAll)
    if work.gate is None or not work.gate.layers:
        return _one_layer(scenario, work, progress, draws)
    results = []
    for layer in range(len(work.gate.layers)):
        alone = replace(work, gate=work.gate.layer_gate(layer))
        of_layer = replace(scenario, name=f"{scenario.name}, layer {layer}", workload=alone)
        results.append(_one_layer(of_layer, alone, progress, draws))
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


def _one_layer(scenario: Scenario, work: AllToAll, progress: Progress, draws: bool) -> Result:
    cluster = scenario.cluster()
    progress(f"{scenario.name}: routing tokens")
    routed = routings(scenario)
    hidden = scenario.model.routed_width if scenario.model else 0
    metrics: dict[str, Any] = {}
    timeline: list[dict[str, Any]] = []
    traffic: dict[str, Any] = {}
    whole = Trace(saturated_s=np.zeros(len(cluster.names)))
    carried = np.zeros(len(cluster.names))
    for name, collectives in _collectives(scenario, work, cluster, routed).items():
        dtype, direction = _dtype(work, name), collectives[0].direction
        if scenario.fidelity == "closed_form":
            metrics[name] = measure.closed_form_metrics(collectives, dtype, hidden)
            carried += sum(each.flows().bytes_by_resource(len(carried)) for each in collectives)
            continue
        progress(f"{scenario.name}: {name}")
        trace = executor.run_together(cluster, name, collectives, whole.end_s, scenario.gather_fraction)
        metrics[name] = measure.collective_metrics(trace, collectives, dtype, hidden)
        timeline += [_bars(record) for record in trace.transfers] if draws else []
        if draws and scenario.ep <= limits.MATRIX_RANKS:
            matrix = collectives[0].records * collectives[0].record_bytes
            traffic[name] = (matrix if direction == "dispatch" else matrix.T).round().astype(int).tolist()
        carried += sum(record.flows.bytes_by_resource(len(carried)) for record in trace.transfers)
        whole.transfers += trace.transfers
        whole.stretches += trace.stretches
        whole.saturated_s += trace.saturated_s
        whole.end_s = trace.end_s
    metrics |= _energy(scenario, work, metrics, network_bytes(cluster, carried))
    if not whole.transfers or not draws:
        return {"metrics": metrics, "links": {}, "timeline": {}}
    return {
        "metrics": metrics,
        "links": measure.links(whole, cluster),
        "timeline": {"kernels": timeline, "utilisation": measure.utilisation(whole, cluster)},
        "traffic": traffic,
    }


def trace_of(scenario: Scenario) -> tuple[Cluster, Trace]:
    """Run the collectives of an all-to-all, whose gate has no layers of its own, and return everything that they leave behind."""
    work, cluster = scenario.workload, scenario.cluster()
    assert isinstance(work, AllToAll)
    whole = Trace(saturated_s=np.zeros(len(cluster.names)))
    for name, collectives in _collectives(scenario, work, cluster, routings(scenario)).items():
        trace = executor.run_together(cluster, name, collectives, whole.end_s, scenario.gather_fraction)
        whole.transfers += trace.transfers
        whole.stretches += trace.stretches
        whole.end_s = trace.end_s
    return cluster, whole


def _collectives(
    scenario: Scenario, work: AllToAll, cluster: Cluster, routed: Sequence[Routing]
) -> dict[str, list[Collective]]:
    """Collectives of every EP group, by name."""
    plain = work.spec.bytes_per_rank is not None
    names = {"exchange": "dispatch"} if plain else {name: name for name in _DIRECTIONS}
    element_bytes = SENT[work.spec.dispatch_dtype].element_bytes  # of weights too
    weights = expert_bytes(scenario.model, element_bytes) if scenario.model else 0.0
    return {
        name: [
            dispatch_or_combine(
                weights,
                cluster=cluster,
                kernel=work.kernel,
                direction=direction,
                gpus=scenario.gpus[group * scenario.ep : (group + 1) * scenario.ep],
                routing=routing,
                record_bytes=record_of(scenario, direction),
                comm_sms=work.comm_sms,
                **work.options,
            )
            for group, routing in enumerate(routed)
        ]
        for name, direction in names.items()
    }


def _dtype(work: AllToAll, name: str) -> str | None:
    """Format of the payload of a collective; None of a plain one."""
    return {"dispatch": work.spec.dispatch_dtype, "combine": work.spec.combine_dtype}.get(name)


def _energy(
    scenario: Scenario, work: AllToAll, metrics: Mapping[str, Any], moved: Mapping[str, float]
) -> dict[str, Any]:
    done = Activity(
        elapsed_s=sum(row["completion_time_s"] for row in metrics.values()),
        communication_s=sum(row["time_s"] for row in metrics.values()),
        **moved,
    )
    return energy_metrics(scenario, done, (work.spec.tokens_per_rank or 0) * scenario.num_ranks)


def shared_all_to_all(scenario: Scenario) -> SharedRun:
    """Dispatch and combine, or the plain all-to-all, next to other jobs."""
    work, cluster = scenario.workload, scenario.cluster()
    assert isinstance(work, AllToAll)
    if work.gate is not None and work.gate.layers:
        raise InfeasibleError(
            f"{scenario.name}: next to other jobs an all_to_all has no layers of recorded loads"
        )
    named = _collectives(scenario, work, cluster, routings(scenario))
    groups = [dict(zip(named, group, strict=True)) for group in zip(*named.values(), strict=True)]
    hidden = scenario.model.routed_width if scenario.model else 0

    from sim.runs import shared_transfers  # imports the step, which a run alone never needs

    def result(runs: Sequence[StepRun]) -> Result:
        metrics = {}
        for place, (name, times) in enumerate(shared_transfers.collective_times(groups, runs[0]).items()):
            row = shared_transfers.timed(named[name], times, cluster, runs[0], place)
            metrics[name] = row | measure.logical(named[name], row["time_s"], _dtype(work, name), hidden)
        energy = _energy(scenario, work, metrics, network_bytes(cluster, runs[0].bytes))
        return {"metrics": metrics | energy}

    return SharedRun([shared_transfers.collectives_plan(cluster, groups)], result)


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


def forecast_all_to_all(scenario: Scenario) -> Forecast:
    """The run for its metrics: nothing is known before it."""
    return Forecast(lambda: dict(run_all_to_all(scenario, lambda _: None, draws=False)["metrics"]))


RUNNER = Runner(run_all_to_all, LINKS, shared_all_to_all, forecast_all_to_all)
