"""Metrics and timeline of a training step, from the records of its rank groups.

Phases are those of the published step table (ISCA'25 DeepSeek-V3 paper, Table 4, arXiv 2505.09343), read as one pipeline
rank's timeline: 1F, 1B, 1W the forwards, backwards and weight parts that run alone, 1F1B the overlapped pairs, opt the
optimizer, and the bubble what is left of the step. `phases`, `bubble_s`, `optimizer_s`, `exposed_comm_s` and `barrier_wait_s` are
of rank 0, `phases_mean` and `exposed_comm_mean_s` the mean over pipeline ranks; all are means over the GPUs of a rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from sim.cluster.topology import Cluster
from sim.engine.step import StepRun
from sim.engine.step_records import GroupRecord
from sim.runs.link_rows import link_rows
from sim.scenario.descriptions import Scenario
from sim.scenario.training import Training
from sim.schedule.operations import KINDS
from sim.workload.model import training_flops_per_token

_PHASES = {"F": "1F_s", "B": "1B_s", "B_in": "1B_s", "W": "1W_s", "FB": "1F1B_s", "FW": "1F1B_s"}


def ends_s(records: Sequence[GroupRecord]) -> list[float]:
    """Instant at which the last GPU of each pipeline rank ends, [pp] [s]."""
    ends: dict[int, float] = {}
    for record in records:
        last = float(np.max(record.end_s))
        ends[record.pipeline_rank] = max(last, ends.get(record.pipeline_rank, 0.0))
    return [ends[rank] for rank in sorted(ends)]


def links(cluster: Cluster, runs: Sequence[StepRun], step_s: float) -> dict[str, dict[str, Any]]:
    """Load of each resource over the whole step, as of `link_rows`, in the step and its reductions."""
    return link_rows(
        cluster,
        np.sum([run.bytes for run in runs], axis=0),
        np.sum([run.used for run in runs], axis=0),
        step_s,
        [run.network.folded.resource for run in runs],
    )


def measure(
    scenario: Scenario, records: Sequence[GroupRecord], optimizer_s: Sequence[float], lower_bound_s: float
) -> dict[str, Any]:
    """All metrics but those of memory, from what each rank group did; `optimizer_s` follows the last task of all [pp]."""
    work, model, hardware = scenario.workload, scenario.model, scenario.hardware
    assert isinstance(work, Training)
    assert model is not None
    assert hardware is not None
    gpu = hardware.gpu
    end = max(float(np.max(record.end_s)) for record in records)
    step = end + max(optimizer_s)
    rows = [_phases(record, step, optimizer_s[record.pipeline_rank]) for record in records]
    firsts = [record for record in records if record.pipeline_rank == 0]
    first = [row for row, record in zip(rows, records, strict=True) if record.pipeline_rank == 0]
    peak = gpu.dense_flops.peak("bf16")
    rates = rates_of(work, step)
    metrics: dict[str, Any] = {
        "step_time_s": step,
        "lower_bound_s": lower_bound_s,
        "bubble_s": _mean(first, "bubble_s"),
        "exposed_comm_s": float(np.mean([record.tasks.exposed_s.sum() for record in firsts])),
        "exposed_comm_mean_s": float(np.mean([record.tasks.exposed_s.sum() for record in records])),
        "host_s": float(np.mean([record.tasks.host_s.sum() for record in firsts])),
        "barrier_wait_s": float(np.mean([record.tasks.barrier_s.sum() for record in firsts])),
        "optimizer_s": _mean(first, "opt_s"),
        "phases": {name: _mean(first, name) for name in rows[0]},
        "phases_mean": {name: _mean(rows, name) for name in rows[0]},
        "tokens_per_step": work.step_tokens,
        **rates,
    }
    for name, causal in (("mfu_causal_fraction", True), ("mfu_noncausal_fraction", False)):
        flops = partial(training_flops_per_token, model, causal=causal)
        each = flops(work.spec.sequence_tokens)
        if work.packed is not None and work.attends_by_document:
            each = work.packed.per_token(flops)
        metrics[name] = each * rates["tokens_per_s_per_gpu"] / peak
    if work.packed is not None:
        metrics["packing"] = work.packed.facts()
    return metrics


def rates_of(work: Training, step_s: float) -> dict[str, float]:
    """The metrics that follow from the time of a step alone."""
    return {
        "tokens_per_s_per_gpu": work.step_tokens / step_s / work.layout.num_ranks,
        "tokens_per_day": work.step_tokens / step_s * 86_400,
    }


def _phases(record: GroupRecord, step_s: float, optimizer_s: float) -> dict[str, float]:
    phases = dict.fromkeys(("1F_s", "bubble_s", "1B_s", "1W_s", "1F1B_s", "opt_s"), 0.0)
    tasks = record.tasks
    seconds = np.bincount(tasks.kind, tasks.end_s - tasks.start_s, len(KINDS)).tolist()
    for kind, spent_s in zip(KINDS, seconds, strict=True):
        phases[_PHASES[kind]] += spent_s
    phases["opt_s"] = optimizer_s
    phases["bubble_s"] = step_s - sum(phases.values())
    return phases


def _mean(rows: Sequence[dict[str, float]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def timeline(records: Sequence[GroupRecord], step_s: float) -> dict[str, Any]:
    """Timeline of the first EP group of each pipeline rank: all tasks, and the nodes of the first ones of each kind."""
    shown = [record for record in records if record.group == 0]
    # Ranks run the same pairs of microbatches: a pair is made once, however many tasks have it.
    pairs: dict[tuple[int, int], tuple[int, int]] = {}
    return {
        "end_s": step_s,
        "pipeline": [
            {
                "rank": record.pipeline_rank,
                "kinds": record.tasks.kinds(),
                "microbatches": [
                    pairs.setdefault(pair, pair)
                    for pair in zip(*record.tasks.microbatches.T.tolist(), strict=True)
                ],
                "start_s": record.tasks.start_s.tolist(),
                "end_s": record.tasks.end_s.tolist(),
            }
            for record in shown
        ],
        "nodes": [
            {
                "rank": record.pipeline_rank,
                "names": list(record.nodes.name),
                "streams": list(record.nodes.stream),
                "tasks": list(record.nodes.task),
                "start_s": list(record.nodes.start_s),
                "end_s": list(record.nodes.end_s),
            }
            for record in shown
        ],
    }
