"""Time of a decode step with attention and experts apart at every load, as `step_surface` has that of others."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from sim.runs.afd import AfdPass
from sim.runs.step_surface import CONTEXTS, FEW, MOST_BUSY, Surface, between_steps, whole_loads
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.schedule import inference as plans


def afd_surface(scenario: Scenario, work: Inference, most: int) -> Surface:
    """Simulate a decode scenario at a few loads and contexts.

    Parameters
    ----------
    scenario : Scenario
        Cluster with both pools, model and seed.
    work : Inference
        With `apart`.
    most : int [count]
        Largest number of requests of a GPU of attention. Memory is not checked.

    Returns
    -------
    Surface
    """
    apart = work.apart
    assert apart is not None
    attention = apart.attention
    base = attention.workload
    assert isinstance(base, Inference)
    gpus = attention.num_ranks
    few, many = [num for num in FEW if num < gpus], whole_loads(most)
    totals = [*map(float, few), *(float(num * gpus) for num in many)]

    @cache
    def step(requests: float, context_tokens: int, more: float = 0.0) -> AfdPass:
        own = replace(attention, workload=replace(base, context_tokens=context_tokens))
        with_context = replace(work, requests=None, apart=replace(apart, attention=own))
        total = int(requests) if requests < gpus else None
        return AfdPass(scenario, replace(with_context, total=total), requests, more)

    @cache
    def step_s(requests: float, context_tokens: int, more: float = 0.0) -> float:
        one = step(requests, context_tokens, more)
        return one.step_s(one.run())

    def at(i: int, j: int) -> float:
        return step_s(totals[i], CONTEXTS[j])

    def extra_s() -> float:
        half = max(1, most // 2) * gpus
        return max(0.0, step_s(float(half), 1, 1.0) - step_s(float(half), 1))

    largest = step(totals[-1], 2048)
    turns = len(largest.attention.blocks.layers) * largest.microbatches
    busy = (
        max(largest.alone_s(name) for name in plans.COLLECTIVES)
        * turns
        / at(len(totals) - 1, CONTEXTS.index(2048))
    )
    loads = [total / gpus for total in totals]
    return between_steps(
        loads, at, extra_s, lambda load: 0.0, min(MOST_BUSY, busy), (gpus, gpus // base.layout.dp)
    )
