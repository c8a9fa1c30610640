"""Dispatch and combine, or a plain all-to-all: from a scenario to its metrics, links and timeline."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim import limits
from sim.engine import executor
from sim.engine.records import Trace, TransferRecord
from sim.runs import metrics as measure
from sim.runs.kinds import LINKS, Progress, Result, Runner
from sim.runs.routing import record_of, routings
from sim.scenario.all_to_all import AllToAll
from sim.scenario.descriptions import Scenario
from sim.schedule.collectives import Collective


def run_all_to_all(scenario: Scenario, progress: Progress) -> Result:
    """Metrics, links, timeline and traffic of one dispatch and one combine of every EP group, or of a plain all-to-all."""
    work = scenario.workload
    assert isinstance(work, AllToAll)
    cluster = scenario.cluster()
    progress(f"{scenario.name}: routing tokens")
    routed = routings(scenario)
    plain = work.spec.bytes_per_rank is not None
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
            Collective(
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
        dtype = (
            None
            if plain
            else (work.spec.dispatch_dtype if direction == "dispatch" else work.spec.combine_dtype)
        )
        if scenario.fidelity == "closed_form":
            found[name] = measure.of_closed_form(exchanges, dtype, hidden)
            continue
        progress(f"{scenario.name}: {name}")
        trace = executor.run_together(cluster, name, exchanges, start_s=whole.end_s)
        found[name] = measure.of_exchange(trace, exchanges, dtype, hidden)
        timeline += [_bars(one) for one in trace.transfers]
        if scenario.ep <= limits.MATRIX_RANKS:
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


RUNNER = Runner(run_all_to_all, reads=LINKS)
