"""TODO sim/runs/all_to_all.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.engine import executor
from sim.engine.records import Trace, TransferRecord
from sim.runs import metrics as measure
from sim.runs.result import Progress, Result
from sim.runs.routing import record_of, routings
from sim.scenario.descriptions import AllToAll, Scenario
from sim.schedule.collectives import Exchange

_MATRIX_LIMIT = 256  # ranks; a larger traffic matrix is left out of the result


def _run_all_to_all(scenario: Scenario, progress: Progress) -> Result:
    work = scenario.workload
    assert isinstance(work, AllToAll)
    cluster = scenario.cluster()
    progress(f"{scenario.name}: routing tokens")
    routed = routings(scenario)
    plain = work.bytes_per_rank is not None
    hidden = scenario.model.hidden if scenario.model else 0
    found: dict[str, Any] = {}
    timeline: list[dict[str, Any]] = []
    traffic: dict[str, Any] = {}
    whole = Trace(saturated_s=np.zeros(len(cluster.names)))
    for name, direction in (
        [("exchange", "dispatch")] if plain else [("dispatch", "dispatch"), ("combine", "combine")]
    ):
        record = record_of(scenario, direction)
        exchanges = [
            Exchange(
                cluster=cluster,
                kernel=work.kernel,
                direction=direction,
                gpus=group * scenario.ep + np.arange(scenario.ep),
                routing=routing,
                record_bytes=record,
                comm_sms=work.comm_sms,
                **work.options,
            )
            for group, routing in enumerate(routed)
        ]
        dtype = None if plain else (work.dispatch_dtype if direction == "dispatch" else work.combine_dtype)
        if scenario.fidelity == "closed_form":
            found[name] = measure.of_closed_form(exchanges, dtype, hidden)
            continue
        progress(f"{scenario.name}: {name}")
        trace = executor.run_together(cluster, name, exchanges, start_s=whole.end_s)
        found[name] = measure.of_exchange(trace, exchanges, dtype, hidden)
        timeline += [_bars(one) for one in trace.transfers]
        if scenario.ep <= _MATRIX_LIMIT:
            matrix = exchanges[0].records * record
            traffic[name] = (matrix if direction == "dispatch" else matrix.T).round().astype(int).tolist()
        whole.transfers += trace.transfers
        whole.stretches += trace.stretches
        whole.saturated_s += trace.saturated_s
        whole.end_s = trace.end_s
    if not whole.transfers:
        return {"metrics": found, "links": {}, "timeline": {}}
    return {
        "metrics": found,
        "links": measure.links(whole, cluster),
        "timeline": {"kernels": timeline, "utilisation": measure.utilisation(whole, cluster)},
        "traffic": traffic,
    }


def _bars(record: TransferRecord) -> dict[str, Any]:
    """A kernel on the timeline: when it started, and when each rank ended."""
    return {
        "name": record.name,
        "group": record.group,
        "start_s": record.start_s,
        "fixed_s": record.fixed_s,
        "first_gpu": int(record.gpus[0]),
        "rank_ends_s": record.rank_ends_s.tolist(),
    }
