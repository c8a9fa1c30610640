"""Serving: from a scenario to metrics, a timeline, the lives of its requests and the links that carried KV."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from sim.engine.serving import serve
from sim.engine.serving_lives import ServingTrace
from sim.errors import InfeasibleError
from sim.runs.energy import summed_energy
from sim.runs.kinds import COMPUTE, LINKS, Left, OpenJob, OpenRun, Runner
from sim.runs.link_rows import largest, link_rows
from sim.runs.service import CalmCosts, calm_costs, service_of
from sim.runs.service_faults import fault_metrics
from sim.runs.serving_activity import serving_activities
from sim.runs.serving_bound import bound_of
from sim.runs.serving_load import kv_bytes, senders_by_link, serving_load
from sim.runs.serving_metrics import measure
from sim.scenario.descriptions import Scenario
from sim.scenario.serving import Serving
from sim.scenario.serving_requests import objectives_of
from sim.schedule.serving import Service
from sim.workload.requests import Requests, totals

_SAMPLES, _SHOWN_REQUESTS = 400, 5000  # of the timeline
_HOUR_S, _SAID_EVERY_S = 3600.0, 5.0


def run_serving(scenario: Scenario, progress: Callable[[str], None]) -> dict[str, Any]:
    """Simulate the requests of a serving scenario; InfeasibleError where no request fits."""
    result, service, trace = _served(scenario, progress)
    carried, used = kv_bytes(scenario.cluster(), service, trace)
    over_s = max(trace.end_s, 1e-12)
    links = largest(link_rows(scenario.cluster(), carried, used, over_s)) if used.any() else {}
    return result | {"links": links}


def serving_beside(scenario: Scenario) -> OpenJob:
    """A serving scenario next to jobs that leave parts of the links; InfeasibleError as of `run_serving`."""
    work = scenario.workload
    assert isinstance(work, Serving)
    calm, senders = cache(lambda: calm_costs(work)), cache(lambda: senders_by_link(scenario, work))

    def run(left: Left, progress: Callable[[str], None]) -> OpenRun:
        own = replace(scenario, left=left)
        result, service, trace = _served(own, progress, calm())
        span_s = max(trace.end_s, 1e-12)
        return OpenRun(result, span_s, serving_load(own, work, service, trace, span_s))

    return OpenJob(run, lambda row: senders().get(row, float(work.prefill.num_ranks)))


def _served(
    scenario: Scenario, progress: Callable[[str], None], calm: CalmCosts | None = None
) -> tuple[dict[str, Any], Service, ServingTrace]:
    """The parts of the result but its links, with the deployment and what happened in it."""
    work = scenario.workload
    assert isinstance(work, Serving)
    service = service_of(scenario, progress, calm)
    asked = work.requests
    progress(f"{scenario.name}: {asked.num_requests} requests")
    trace = serve(service, asked, until_s=work.spec.until, progress=Remaining(scenario.name, progress))
    if asked.concurrency is not None:
        asked = replace(asked, arrival_s=trace.instants["arrival_s"])
    if trace.refused.all():
        fits = min(service.rank_capacity_tokens(pool) for pool in (service.prefill, service.decode) if pool)
        shortest = int((asked.prompt_tokens + asked.output_tokens).min())
        raise InfeasibleError(
            f"no request fits: a GPU has room for {fits:,.0f} tokens of KV, the shortest request needs {shortest:,}"
        )
    bound = bound_of(work, asked, trace)
    objectives = objectives_of(work.spec.slo, work.spec.classes, asked)
    metrics = measure(service, asked, trace, work.num_gpus, bound=bound, **objectives)
    metrics |= fault_metrics(scenario, trace)
    machines = serving_activities(scenario, work, service, asked, trace, metrics["makespan_s"])
    tokens = metrics["output_tokens_per_s"] * metrics["makespan_s"]
    hourly = [(num, part.hardware.gpu_hour_usd if part.hardware else None) for part, num, _ in machines]
    if tokens and all(price is not None for _, price in hourly):
        rent = sum(num * price for num, price in hourly if price) * metrics["makespan_s"] / _HOUR_S
        metrics["cost_usd_per_million_tokens"] = rent / tokens * 1e6
    metrics |= summed_energy(machines, tokens) | {"arrivals": totals(asked)}
    result = {
        "metrics": metrics,
        "timeline": timeline(trace),
        "requests": _rows(trace, asked),
    }
    return result, service, trace


@dataclass(slots=True)
class Remaining:
    """Says now and then how many requests have ended, and how long the others will take at the rate since it last did.

    The first passes of a run are simulated, later ones are read between these: a mean over all would promise too late an end.
    """

    name: str
    say: Callable[[str], None]
    said_s: float = field(default_factory=time.monotonic)
    said_ended: int = 0

    def __call__(self, ended: int, num: int) -> None:
        """Say it, unless it was said just now."""
        now = time.monotonic()
        if now - self.said_s >= _SAID_EVERY_S:
            left_s = (now - self.said_s) * (num - ended) / (ended - self.said_ended)
            self.said_s, self.said_ended = now, ended
            self.say(f"{self.name}: {ended:,} of {num:,} requests have ended, about {left_s:.0f} s left")


def timeline(trace: ServingTrace) -> dict[str, Any]:
    """Count requests in each state at even instants `sample_s`, for plots."""
    instants = trace.instants
    when = np.linspace(0.0, trace.end_s, _SAMPLES)

    def waiting(came: str, left: str) -> list[int]:
        """Requests between two of their instants at each sample."""
        inside = ~np.isnan(instants[came]) & ~trace.refused
        first = np.sort(instants[came][inside])
        then = np.sort(instants[left][inside & ~np.isnan(instants[left])])
        count = np.searchsorted(first, when, "right") - np.searchsorted(then, when, "right")
        return [int(number) for number in count]

    return {
        "end_s": trace.end_s,
        "sample_s": when.tolist(),
        "prefill_queue": waiting("arrival_s", "prefill_start_s"),
        "prefilling": waiting("prefill_start_s", "first_token_s"),
        "kv_moving": waiting("decode_admitted_s", "kv_arrived_s"),
        "decoding": waiting("decode_start_s", "end_s"),
    }


def _rows(trace: ServingTrace, asked: Requests) -> dict[str, list[Any]]:
    """Instants of the first requests, a column each; None where one never came."""
    shown = slice(0, _SHOWN_REQUESTS)
    columns: dict[str, list[Any]] = {
        name: [None if np.isnan(value) else float(value) for value in values[shown]]
        for name, values in trace.instants.items()
    }
    columns["prompt_tokens"] = asked.prompt_tokens[shown].tolist()
    columns["output_tokens"] = asked.output_tokens[shown].tolist()
    if asked.classes is not None:
        columns["request_class"] = [asked.classes.names[i] for i in asked.classes.class_idx[shown]]
    return columns


RUNNER = Runner(run_serving, reads=(*LINKS, *COMPUTE), beside=serving_beside)
