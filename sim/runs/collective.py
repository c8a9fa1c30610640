"""One collective of every group of a layout: from a scenario to its metrics, links and timeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.cluster.topology import Cluster, Ints
from sim.engine import executor
from sim.engine.executor import Timed
from sim.runs import metrics as measure
from sim.runs.kinds import LINKS, Forecast, Progress, Result, Runner, SharedRun
from sim.runs.routing import plain
from sim.scenario.collective import GroupCollectives
from sim.scenario.descriptions import Scenario
from sim.schedule import bounds
from sim.schedule.collectives import Collective
from sim.schedule.group_operations import OPERATIONS, GroupOperation, algorithms, protocols, tuned

if TYPE_CHECKING:
    from sim.engine.step import StepRun


def run_collective(scenario: Scenario, progress: Progress) -> Result:
    """Simulate one collective of all groups at once, as `result.json` has it; metrics alone in closed form."""
    work, cluster = _work(scenario), scenario.cluster()
    progress(f"{scenario.name}: {len(work.ranks)} groups of {work.ranks.shape[1]} ranks")
    operations = operations_of(scenario, cluster)
    if scenario.fidelity == "closed_form":
        time_s, binding = max(
            bounds.closed_form_s(each) if isinstance(each, Collective) else each.closed_form_s()
            for each in operations
        )
        flows = [each.flows() for each in operations]
        metrics = measure.estimated(time_s, binding, flows, cluster, work.ranks.size)
        return {"metrics": metrics | _bandwidths(work, operations, time_s), "links": {}, "timeline": {}}
    trace = executor.run_together(cluster, work.spec.op, operations, gather_fraction=scenario.gather_fraction)
    metrics = measure.timed(trace, cluster)
    ends = np.empty(cluster.num_gpus)
    for record in trace.transfers:
        ends[record.gpus] = record.rank_ends_s
    bars = {
        "name": work.spec.op,
        "group": 0,
        "start_s": 0.0,
        "fixed_s": max(record.fixed_s for record in trace.transfers),
        "first_rank": 0,
        "gpus": scenario.gpus.tolist(),
        "rank_ends_s": ends[scenario.gpus].tolist(),
    }
    return {
        "metrics": metrics | _bandwidths(work, operations, metrics["time_s"]),
        "links": measure.links(trace, cluster),
        "timeline": {"kernels": [bars], "utilisation": measure.utilisation(trace, cluster)},
    }


def shared_collective(scenario: Scenario) -> SharedRun:
    """One collective of all groups next to other jobs."""
    work, cluster = _work(scenario), scenario.cluster()
    operations, op = operations_of(scenario, cluster), str(work.spec.op)
    groups = [{op: each} for each in operations]

    from sim.runs import shared_transfers  # imports the step, which a run alone never needs

    def result(runs: Sequence[StepRun]) -> Result:
        times = shared_transfers.collective_times(groups, runs[0])[op]
        metrics = shared_transfers.timed(operations, times, cluster, runs[0], 0)
        return {"metrics": metrics | _bandwidths(work, operations, metrics["time_s"])}

    return SharedRun([shared_transfers.collectives_plan(cluster, groups)], result)


def operations_of(scenario: Scenario, cluster: Cluster) -> list[Timed]:
    """The collective of each group, by the algorithm that the scenario or NCCL's tuner chooses."""
    work = _work(scenario)
    if work.spec.op == "all_to_all":
        return [_direct(work, cluster, gpus) for gpus in scenario.gpus[work.ranks]]
    chosen: dict[tuple[int, ...], GroupOperation] = {}
    operations: list[Timed] = []
    for gpus in scenario.gpus[work.ranks]:
        on_node = np.unique(gpus // cluster.gpus_per_node, return_counts=True)[1]
        shape = tuple(on_node.tolist())
        if shape not in chosen:
            chosen[shape] = _chosen(scenario, work, cluster, gpus)
        operations.append(replace(chosen[shape], gpus=gpus))
    return operations


def _chosen(scenario: Scenario, work: GroupCollectives, cluster: Cluster, gpus: Ints) -> GroupOperation:
    assert scenario.hardware is not None
    spec, hardware = work.spec, scenario.hardware
    names: list[str] = [spec.algorithm]
    if spec.algorithm == "auto":
        able = algorithms(spec.op, gpus, hardware, cluster.gpus_per_node)
        names = [name for name in able if name != "hierarchical"]  # NCCL has none
    return tuned(
        [
            GroupOperation(
                cluster, hardware, work.library, work.kernel, spec.op, work.total_bytes, gpus, name, protocol
            )
            for name in names
            for protocol in protocols(name)
        ]
    )


def _direct(work: GroupCollectives, cluster: Cluster, gpus: Ints) -> Collective:
    return Collective(
        cluster=cluster,
        kernel=work.kernel,
        direction="dispatch",
        gpus=gpus,
        routing=plain(gpus, cluster.gpus_per_node),
        record_bytes=work.spec.bytes_per_rank / len(gpus),
        comm_sms=work.kernel.comm_sms,
    )


def _bandwidths(work: GroupCollectives, operations: Sequence[Timed], time_s: float) -> dict[str, Any]:
    """Algorithm and bus bandwidth as nccl-tests define them [bytes/s], and what was chosen."""
    algbw = work.total_bytes / time_s
    chosen = {
        (each.algorithm, each.protocol) if isinstance(each, GroupOperation) else ("direct", "simple")
        for each in operations
    }
    names, forms = zip(*sorted(chosen), strict=True)
    return {
        "algbw_bytes_per_s": algbw,
        "busbw_bytes_per_s": algbw * OPERATIONS[work.spec.op](work.ranks.shape[1]),
        "algorithm": "/".join(dict.fromkeys(names)),
        "protocol": "/".join(dict.fromkeys(forms)),
    }


def forecast_collective(scenario: Scenario) -> Forecast:
    """Metrics of a collective that takes no longer than its bound; of an all-to-all, whose cabling takes longest, none."""
    work = _work(scenario)

    def run() -> dict[str, Any]:
        metrics: dict[str, Any] = run_collective(scenario, lambda _: None)["metrics"]
        return metrics

    if work.spec.op == "all_to_all":
        return Forecast(run)
    cluster = scenario.cluster()
    operations = operations_of(scenario, cluster)
    bound_s = bounds.lower_bound_s([each.flows() for each in operations], cluster)
    rates = _bandwidths(work, operations, bound_s)
    best = {"time_s": bound_s, "completion_time_s": bound_s}
    best |= {name: rates[name] for name in ("algbw_bytes_per_s", "busbw_bytes_per_s")}
    return Forecast(run, best=best)


def _work(scenario: Scenario) -> GroupCollectives:
    work = scenario.workload
    assert isinstance(work, GroupCollectives)
    return work


RUNNER = Runner(run_collective, LINKS, shared_collective, forecast_collective)
