"""Activity of the mean GPU in a serving run: its batches and steps, each as a typical pass of its plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sim.cost.power import Activity
from sim.engine.serving_lives import ServingTrace
from sim.runs import passes
from sim.runs.inference import spent_s
from sim.runs.pass_activity import pass_activity
from sim.runs.pass_plan import PassPlan
from sim.runs.passes import forward_pass
from sim.scenario.inference import Inference
from sim.scenario.serving import Serving
from sim.schedule.serving import Service
from sim.workload.requests import Requests


def serving_activity(
    work: Serving, service: Service, asked: Requests, trace: ServingTrace, span_s: float
) -> Activity:
    """Activity of the mean GPU of a serving run.

    Parameters
    ----------
    work : Serving
    service : Service
    asked : Requests
    trace : ServingTrace
    span_s : float [s]
        The makespan.

    Returns
    -------
    Activity
        Passes that prefill as a full one of the prefill plan, decode steps as one at the mean load; keys and values that move
        between pools are sent once.
    """
    pools = (*trace.prefill, *(trace.decode if service.decode else ()))
    batch_s = sum(float((pool.end_s - pool.start_s)[pool.prefills].sum()) for pool in pools)
    step_s = sum(float((pool.end_s - pool.start_s)[~pool.prefills].sum()) for pool in pools)
    total = Activity(elapsed_s=0.0)
    for busy_s, num_gpus, plan in (
        (batch_s, work.prefill.num_ranks, _typical_batch(work)),
        (step_s, work.decode.num_ranks, _typical_step(work, trace)),
    ):
        if busy_s:
            one = _activity(plan)
            total += replace(_gpu_seconds(one, num_gpus), elapsed_s=0.0).times(busy_s / one.elapsed_s)
    moved = 0.0
    if service.decode is not None:
        came = ~np.isnan(trace.instants["kv_arrived_s"])
        moved = float(asked.prompt_tokens[came].sum()) * service.kv_bytes_per_token
    each = {name: getattr(total, name) / work.num_gpus for name in _GPU}
    sent, switched = total.sent_bytes + moved, total.switched_bytes + moved
    return Activity(elapsed_s=span_s, **each, sent_bytes=sent, switched_bytes=switched)


_GPU = ("tensor_s", "memory_s", "communication_s")


def _gpu_seconds(one: Activity, num_gpus: int) -> Activity:
    """A pass with the seconds of all its GPUs."""
    return replace(one, **{name: getattr(one, name) * num_gpus for name in _GPU})


def _activity(plan: PassPlan) -> Activity:
    forward = forward_pass(plan)
    record, ends = passes.run(forward), passes.ends(forward)
    return pass_activity(forward, record, spent_s(forward, record, ends), ends)


def _typical_batch(work: Serving) -> PassPlan:
    """A pass of as many tokens as a prefill batch may have, of prompts of the mean length."""
    base = work.prefill.workload
    assert isinstance(base, Inference)
    prompts = max(2, 2 * round(work.chunk_tokens / base.context_tokens / 2))
    each = max(1, round(work.chunk_tokens / prompts))
    batch = replace(base, requests=prompts, context_tokens=each, step_tokens=each, cached_tokens=0)
    return PassPlan(work.prefill, batch, prompts)


def _typical_step(work: Serving, trace: ServingTrace) -> PassPlan:
    """A step at the mean load of all steps, of requests of the mean context."""
    base = work.decode.workload
    assert isinstance(base, Inference)
    requests = [float(pool.requests[pool.steps].mean()) for pool in trace.decode if pool.steps.any()]
    load = sum(requests) / len(requests) / work.decode.ep if requests else 1.0
    busiest = max(1, round(load))
    many = base if busiest > 1 else base.one_batch()
    return PassPlan(work.decode, many, busiest, share=min(1.0, load))


def host_wait_s(service: Service, trace: ServingTrace) -> float:
    """Time that the mean instance waits for its host in decode steps [s]."""
    ranks = (service.decode or service.prefill).num_ranks
    loads, steps = np.unique(
        np.concatenate([own.requests[own.steps] for own in trace.decode]), return_counts=True
    )
    waits = [service.step_host_s(load / ranks) for load in loads.tolist()]
    return float(np.dot(waits, steps)) / len(trace.decode)
