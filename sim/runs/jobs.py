"""Jobs side by side on one network: their steps, passes, collectives and flows contend where their ways meet.

All jobs begin at once, and each runs once: one that has ended leaves its links to the others. What a job does in turn (a
step and its reductions, passes of a prompt) is several plans, each of which begins when the one before has ended.

Why this way: when a later plan begins is known only when the one before it has run among all others. So everything is run
again with what is known so far; nothing that happens before an instant depends on what begins after it, so every
repetition settles one begin more, and the last one is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sim.cluster.topology import Cluster, Floats
from sim.engine.step import StepRun
from sim.engine.step_jobs import run_jobs
from sim.runs.kinds import COMPUTE, LINKS, Runner, SharedRun, runner
from sim.runs.link_rows import link_rows
from sim.scenario.descriptions import Scenario
from sim.scenario.jobs import Jobs

_SAME = 1e-12  # of an instant


def run_side_by_side(scenario: Scenario, progress: Callable[[str], None]) -> dict[str, Any]:
    """Simulate the jobs of a scenario on one network.

    Metrics of each, links of all, and of each job what a run of its kind has.
    InfeasibleError where a job cannot run.
    """
    work = scenario.workload
    assert isinstance(work, Jobs)
    shared: dict[str, SharedRun] = {}
    for name, job in work.jobs.items():
        progress(f"{scenario.name}: job {name}")
        make = runner(job.kind).shared
        assert make is not None
        shared[name] = make(job)
    progress(f"{scenario.name}: {len(shared)} jobs on one network")
    cluster = next(iter(work.jobs.values())).cluster()
    runs, begins = _settled(cluster, [*shared.values()])
    spans = {
        name: [[begin, begin + took] for begin, took in zip(since, _took_s(own, ran), strict=True)]
        for (name, own), ran, since in zip(shared.items(), runs, begins, strict=True)
    }
    end_s = max(own[-1][1] for own in spans.values())
    results = {
        name: {"links": _links(cluster, ran, spans[name][-1][1]), **own.result(ran)}
        for (name, own), ran in zip(shared.items(), runs, strict=True)
    }
    return {
        "metrics": {
            "completion_time_s": end_s,
            "jobs": {name: result.pop("metrics") for name, result in results.items()},
        },
        "links": _links(cluster, [ran for own in runs for ran in own], end_s),
        "timeline": {"end_s": end_s, "jobs": spans},
        "jobs": results,
    }


def _links(cluster: Cluster, runs: Sequence[StepRun], over_s: float) -> dict[str, Any]:
    """Load of each link by some plans over a time [s]."""
    carried: Floats = np.sum([ran.bytes for ran in runs], axis=0)
    used: Floats = np.sum([ran.used for ran in runs], axis=0)
    return link_rows(cluster, carried, used, over_s, [runs[0].network.folded.resource])


def _settled(cluster: Cluster, jobs: Sequence[SharedRun]) -> tuple[list[list[StepRun]], list[list[float]]]:
    """All plans as they ran, and when each began [s]; `[jobs][plans]` both."""
    begins: list[list[float]] = [[0.0] for _ in jobs]
    while True:
        flat = iter(
            run_jobs(
                cluster,
                [plan for job, since in zip(jobs, begins, strict=True) for plan in job.plans[: len(since)]],
                [begin for since in begins for begin in since],
                keep_tasks=1,
            )
        )
        runs = [[next(flat) for _ in since] for since in begins]
        now = []
        for job, ran, since in zip(jobs, runs, begins, strict=True):
            ends = [begin + took for begin, took in zip(since, _took_s(job, ran), strict=True)]
            now.append([0.0, *ends][: len(job.plans)])
        if all(
            len(new) == len(old) and np.allclose(new, old, rtol=_SAME, atol=0.0)
            for new, old in zip(now, begins, strict=True)
        ):
            return runs, begins
        begins = now


def _took_s(job: SharedRun, runs: Sequence[StepRun]) -> list[float]:
    """From the begin of each plan until its last lane has ended [s]."""
    tails = job.tails_s or [0.0] * len(job.plans)
    return [
        max(float(np.max(record.end_s)) for record in ran.records) + tail
        for ran, tail in zip(runs, tails, strict=False)
    ]


RUNNER = Runner(run_side_by_side, reads=(*LINKS, *COMPUTE))
