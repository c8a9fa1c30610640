"""Activity of the mean GPU in a serving run: its batches and steps, each as a typical pass of its plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sim.cost.power import Activity
from sim.engine.serving_lives import ServingTrace
from sim.runs import passes
from sim.runs.afd import AfdPass
from sim.runs.afd_result import afd_activities
from sim.runs.inference import spent_s
from sim.runs.pass_activity import pass_activity
from sim.runs.pass_plan import PassPlan
from sim.runs.passes import forward_pass
from sim.runs.service_faults import unchanging
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.scenario.serving import Serving
from sim.schedule.serving import Service
from sim.workload.requests import Requests


def serving_activities(
    scenario: Scenario, work: Serving, service: Service, asked: Requests, trace: ServingTrace, span_s: float
) -> list[tuple[Scenario, int, Activity]]:
    """Activity of the mean GPU of a serving run over its makespan, by pool of the cluster that instances stand on.

    Of each a scenario on the machines and how many GPUs [count]. Passes that prefill count as a full one of the
    prefill plan, decode steps as one at the mean load; keys and values that move between pools are sent once.
    """
    pools = (*trace.prefill, *(trace.decode if service.decode else ()))
    batch_s = sum(float((pool.end_s - pool.start_s)[pool.prefills].sum()) for pool in pools)
    step_s = sum(float((pool.end_s - pool.start_s)[~pool.prefills].sum()) for pool in pools)
    moved = 0.0
    if service.decode is not None:
        came = ~np.isnan(trace.instants["kv_arrived_s"])
        moved = float(asked.prompt_tokens[came].sum()) * service.kv_bytes_per_token
    prefill, decode = work.spec.prefill, work.spec.decode
    # Pool, machines, instances, time in passes, and of one pass the activity of its mean GPU.
    rows: list[tuple[str | None, Scenario, int, float, list[Activity]]] = []
    batch = [_activity(typical_batch(work, work.prefill))] if batch_s else []
    rows.append((prefill.pool, work.prefill, prefill.instances, batch_s, batch))
    base = work.decode.workload
    assert isinstance(base, Inference)
    if decode.afd:
        both = _apart(work, base, trace)
        names = decode.afd.attention, decode.afd.experts
        rows += [
            (pool, part, 1, step_s, [one]) for pool, part, one in zip(names, base.parts, both, strict=True)
        ]
    else:
        step = [_activity(typical_step(work, trace, work.decode))] if step_s else []
        rows.append((decode.pool, work.decode, decode.instances, step_s, step))
    machines: dict[str | None, tuple[Scenario, int, Activity]] = {}
    for name, part, instances, busy_s, typical in rows:
        whole = scenario if name is None else part
        _, num, total = machines.get(name, (whole, 0, Activity(elapsed_s=0.0)))
        for one in typical:
            total += replace(_gpu_seconds(one, part.num_ranks), elapsed_s=0.0).times(busy_s / one.elapsed_s)
        if part is work.prefill:
            total += Activity(elapsed_s=0.0, sent_bytes=moved, switched_bytes=moved)
        machines[name] = whole, num + instances * part.num_ranks, total
    return [(whole, num, _mean(total, num, span_s)) for whole, num, total in machines.values()]


def _apart(work: Serving, base: Inference, trace: ServingTrace) -> list[Activity]:
    """Of a step at the mean load, attention's and the experts' GPUs."""
    requests = [float(pool.requests[pool.steps].mean()) for pool in trace.decode if pool.steps.any()]
    one = AfdPass(work.decode, base, max(1.0, sum(requests) / max(1, len(requests))))
    return afd_activities(one, one.run())


def _mean(total: Activity, num_gpus: int, span_s: float) -> Activity:
    """The mean GPU's time in a span, from that of all."""
    each = {name: getattr(total, name) / num_gpus for name in _GPU}
    return replace(total, elapsed_s=span_s, **each)


_GPU = ("tensor_s", "memory_s", "communication_s")


def _gpu_seconds(one: Activity, num_gpus: int) -> Activity:
    """A pass with the seconds of all its GPUs."""
    return replace(one, **{name: getattr(one, name) * num_gpus for name in _GPU})


def _activity(plan: PassPlan) -> Activity:
    forward = forward_pass(plan)
    record, ends = passes.run(forward), passes.ends(forward)
    return pass_activity(forward, record, spent_s(forward, record, ends), ends)


def typical_batch(work: Serving, part: Scenario) -> PassPlan:
    """A pass of as many tokens as a prefill batch may have, of prompts of the mean length; `part` is an instance that prefills."""
    base = part.workload
    assert isinstance(base, Inference)
    prompts = max(2, 2 * round(work.chunk_tokens / base.context_tokens / 2))
    each = max(1, round(work.chunk_tokens / prompts))
    batch = replace(base, requests=prompts, context_tokens=each, step_tokens=each, cached_tokens=0)
    return PassPlan(unchanging(part), batch, prompts)


def typical_step(work: Serving, trace: ServingTrace, part: Scenario) -> PassPlan:
    """A step at the mean load of all steps, of requests of the mean context; `part` is an instance that decodes."""
    base = part.workload
    assert isinstance(base, Inference)
    load = step_requests(trace) / part.ep
    busiest = max(1, round(load))
    many = base if busiest > 1 else base.one_batch()
    return PassPlan(unchanging(part), many, busiest, share=min(1.0, load))


def step_requests(trace: ServingTrace) -> float:
    """Requests in the mean step of an instance [count]; those of one GPU where there is no step."""
    requests = [float(pool.requests[pool.steps].mean()) for pool in trace.decode if pool.steps.any()]
    return sum(requests) / len(requests) if requests else 1.0


def host_wait_s(service: Service, trace: ServingTrace) -> float:
    """Time that the mean instance waits for its host in decode steps [s]."""
    ranks = (service.decode or service.prefill).num_ranks
    loads, steps = np.unique(
        np.concatenate([own.requests[own.steps] for own in trace.decode]), return_counts=True
    )
    waits = [service.step_host_s(load / ranks) for load in loads.tolist()]
    return float(np.dot(waits, steps)) / len(trace.decode)
