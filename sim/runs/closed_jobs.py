"""Closed jobs on one network: steps, passes, collectives and flows that contend where their ways meet.

All begin at once, and each runs once: one that has ended leaves its links to the others. What a job does in turn (a step and its
reductions, passes of a prompt) is several plans, each of which begins when the one before has ended.

Why this way: when a later plan begins is known only when the one before it has run among all others. So everything is run
again with what is known so far; nothing that happens before an instant depends on what begins after it, so every
repetition settles one begin more, and the last one is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sim.cluster.topology import CLASSES, Cluster, Floats
from sim.engine.link_states import States, joined, senders_of, spans_of
from sim.engine.step import StepRun
from sim.engine.step_jobs import run_jobs
from sim.runs.kinds import SharedRun

_SAME = 1e-12  # of an instant
_ALL_TASKS = 2**31 - 1
_UPLINK = CLASSES.index("leaf_uplink")


@dataclass(frozen=True, slots=True)
class ClosedRuns:
    """Closed jobs as they ran: plans of each in order.

    Parameters
    ----------
    cluster : Cluster
        At the capacities that they had.
    jobs : name -> SharedRun
    runs : name -> list of StepRun
    begins_s : name -> list of float [s]
    """

    cluster: Cluster
    jobs: Mapping[str, SharedRun]
    runs: Mapping[str, list[StepRun]]
    begins_s: Mapping[str, list[float]]

    def spans(self, name: str) -> list[list[float]]:
        """Begin and end of each plan of a job [s]."""
        took_s = _took_s(self.jobs[name], self.runs[name])
        return [[begin, begin + took] for begin, took in zip(self.begins_s[name], took_s, strict=True)]

    def span_s(self, name: str) -> float:
        """From the common begin to the end of a job [s]."""
        return self.spans(name)[-1][1]

    def load(self, name: str) -> tuple[Floats, Floats]:
        """Load of each link by a job: bytes, and capacity used up, [num_resources] [bytes]."""
        runs = self.runs[name]
        return np.sum([ran.bytes for ran in runs], axis=0), np.sum([ran.used for ran in runs], axis=0)

    def states(self, healthy: Cluster) -> dict[str, dict[int, States]]:
        """States of the links between leaves by each job while it repeats; rates are of the healthy cluster."""
        plans = [plan for job in self.jobs.values() for plan in job.plans]
        begins = [begin for since in self.begins_s.values() for begin in since]
        every = run_jobs(self.cluster, plans, begins, keep_tasks=_ALL_TASKS)
        flat, alike = iter(every), every[0].network.folded.resource
        states: dict[str, dict[int, States]] = {}
        for name, job in self.jobs.items():
            _, used = self.load(name)
            loaded = np.flatnonzero((healthy.class_idx == _UPLINK) & (used > 0) & (healthy.capacity > 0))
            _, first, of_row = np.unique(alike[loaded], return_index=True, return_inverse=True)
            rows = loaded[first]  # one of each class of links that are alike in all they ever carry
            spans = joined(
                [
                    spans_of(plan, next(flat), healthy, rows, begin)
                    for plan, begin in zip(job.plans, self.begins_s[name], strict=True)
                ]
            )
            sends = (
                flows for plan in job.plans for by_group in plan.traffic.sends.values() for flows in by_group
            )
            sending = np.maximum(senders_of(sends, healthy, rows), 1.0)
            by_class: list[States] = []
            for link, row in enumerate(rows.tolist()):
                took_s, rate, senders = spans.rates(link)
                capacity, full = float(healthy.capacity[row]), float(used[row])
                by_class.append(
                    States.from_spans(
                        took_s,
                        rate / capacity,
                        senders,
                        self.span_s(name),
                        full / capacity,
                        float(sending[link]),
                    )
                )
            states[name] = {
                row: by_class[i] for row, i in zip(loaded.tolist(), of_row.ravel().tolist(), strict=True)
            }
        return states


def run_closed(cluster: Cluster, jobs: Mapping[str, SharedRun]) -> ClosedRuns:
    """Run closed jobs together. InfeasibleError where bytes wait for a link without capacity."""
    begins: dict[str, list[float]] = {name: [0.0] for name in jobs}
    while True:
        flat = iter(
            run_jobs(
                cluster,
                [plan for name, job in jobs.items() for plan in job.plans[: len(begins[name])]],
                [begin for since in begins.values() for begin in since],
                keep_tasks=1,
            )
        )
        runs = {name: [next(flat) for _ in since] for name, since in begins.items()}
        now: dict[str, list[float]] = {}
        for name, job in jobs.items():
            took_s = _took_s(job, runs[name])
            ends = [begin + took for begin, took in zip(begins[name], took_s, strict=True)]
            now[name] = [0.0, *ends][: len(job.plans)]
        if all(
            len(now[name]) == len(since) and np.allclose(now[name], since, rtol=_SAME, atol=0.0)
            for name, since in begins.items()
        ):
            return ClosedRuns(cluster, jobs, runs, begins)
        begins = now


def _took_s(job: SharedRun, runs: Sequence[StepRun]) -> list[float]:
    """From the begin of each plan until its last lane has ended [s]."""
    tails = job.tails_s or [0.0] * len(job.plans)
    return [
        max(float(np.max(record.end_s)) for record in ran.records) + tail
        for ran, tail in zip(runs, tails, strict=False)
    ]
