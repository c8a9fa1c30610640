"""Time of a decode step of a deployment at every load, from one request in all to a full house.

Steps are simulated at a few loads and contexts as these are met, with straight lines between. A load is requests of the mean
GPU. Below one the GPUs that have a request still run it through every layer, but collectives and experts see fewer tokens,
and few tokens touch few experts. A single request leaves a second microbatch empty, so it runs in one. The core of the rank
with most tokens in its caches is waited for, and so is the rank with most requests: where these are more than the mean, they
cost what more requests on one GPU alone cost at half of the largest load. Where overlap is a choice, a step takes the faster way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from sim.cost.surfaces import surface as made_surface
from sim.runs import pass_pipeline, passes
from sim.runs.pass_plan import PassPlan
from sim.runs.passes import ForwardPass, forward_pass
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.schedule import inference as plans
from sim.schedule.serving import PassCost, PassWork

CONTEXTS = (1, *(2**i for i in range(7, 21)))
"""Windows and chosen tokens are powers of two: between two of these a core is a straight line."""
FEW = sorted({odd * 2**i for i in range(20) for odd in (1, 3, 5, 7)})
"""Requests of a deployment that has fewer than GPUs."""
MOST_BUSY = 0.95


@dataclass(frozen=True, slots=True)
class Surface:
    """Time of a step by the work of each rank, and the share of the NICs that its all-to-alls take at the largest load."""

    step_s: PassCost
    even_s: Callable[[float, float], float]
    """The same of requests that are spread evenly: by those of the mean GPU, and their mean context [tokens]."""
    host_s: Callable[[float], float]
    """Of it what the device waits for the host at the mean context, by requests of the mean GPU."""
    nic_busy_fraction: float


def surface(scenario: Scenario, work: Inference, most: int) -> Surface:
    """Simulate a decode deployment, maybe not the scenario's own, at a few contexts and loads up to `most` of a GPU.

    Its memory is not checked.
    """
    gpus = work.layout.num_ranks
    group = gpus // work.layout.dp
    few = [num for num in FEW if num < gpus]
    many = whole_loads(most)
    half, evenly = max(1, most // 2), replace(work, sampling="expected")

    @cache
    def forwards(i: int) -> list[ForwardPass]:
        """Steps of a load, in one batch and in two."""
        if i < len(few):
            return [forward_pass(PassPlan.of_total(scenario, way, few[i])) for way in work.ways]
        return [
            forward_pass(PassPlan(scenario, way, many[i - len(few)]))
            for way in _for_load(work, many[i - len(few)])
        ]

    @cache
    def uneven() -> list[tuple[ForwardPass, ForwardPass]]:
        """Steps of an even load, and of one more request on one GPU."""
        return [
            (
                forward_pass(PassPlan(scenario, way, half)),
                forward_pass(PassPlan(scenario, way, half + 1, share=half / (half + 1))),
            )
            for way in evenly.ways
        ]

    def at(i: int, j: int) -> float:
        return min(context_step_s(forward, CONTEXTS[j])[0] for forward in forwards(i))

    @cache
    def extra_s() -> float:
        """One more request on one GPU, its core left out."""
        pairs = [[context_step_s(forward, 1)[0] for forward in pair] for pair in uneven()]
        even, more = min(pairs)
        return max(0.0, more - even)

    def host_at(i: int) -> float:
        if scenario.software is None:  # launches cost nothing
            return 0.0
        return min(context_step_s(way, work.context_tokens) for way in forwards(i))[1]

    loads = [num / gpus for num in few] + [float(num) for num in many]
    last = len(loads) - 1
    share = nic_share(forwards(last)[-1], at(last, CONTEXTS.index(2048)))
    return between_steps(loads, at, extra_s, made_surface([loads], host_at), share, (gpus, group))


def between_steps(
    loads: list[float],
    at: Callable[[int, int], float],
    extra_s: Callable[[], float],
    host_s: Callable[[float], float],
    nic_busy_fraction: float,
    sizes: tuple[int, int],
) -> Surface:
    """Straight lines between steps.

    Parameters
    ----------
    loads : list of float, [num_loads]
        Requests of the mean GPU.
    at : function of the places of a load and of one of `CONTEXTS` -> time of a step [s]
    extra_s : function -> what one more request on one GPU alone adds [s]
    host_s, nic_busy_fraction
        As of `Surface`.
    sizes : (int, int) [count]
        GPUs with requests, and those that share one.
    """
    (gpus, group), step_s = sizes, made_surface([loads, CONTEXTS], at)

    def even_s(load: float, context_tokens: float) -> float:
        missing = math.ceil(load) - load if load > 1 else 0.0
        return step_s(load, context_tokens) + (missing * extra_s() if missing else 0.0)

    def cost(work: PassWork) -> float:
        running = int(work.requests.sum()) / gpus
        busiest = int(work.requests.max()) / group
        per_gpu = max(running, 1 / group)
        context = float(work.context_tokens.max()) / (per_gpu * group)
        missing = busiest - per_gpu
        taken_s = step_s(running, context)
        return taken_s + missing * extra_s() if missing > 1e-9 else taken_s

    return Surface(cost, even_s, host_s, nic_busy_fraction)


def _for_load(work: Inference, requests: int) -> tuple[Inference, ...]:
    """Ways to run so many requests of a GPU: two microbatches need two."""
    return work.ways if requests > 1 or work.spec.overlap is True else work.ways[:1]


def whole_loads(most: int) -> list[int]:
    """Loads of one and more at which steps are simulated: both sides of where matrix products take another row of tiles."""
    loads = {1, 2, most}
    for upto, tile in ((8, 1), (128, 8), (256, 16), (most, 64)):
        loads |= {load for i in range(min(upto, most) // tile + 1) for load in (i * tile, i * tile + 1)}
    return sorted(load for load in loads if 1 <= load <= max(2, most))


def context_step_s(forward: ForwardPass, context_tokens: int) -> tuple[float, float]:
    """Time of a step with another mean context, and of it the wait for the host [s]; all but the context is that of `forward`."""
    other = passes.with_context(forward, context_tokens)
    record = passes.run(other)
    return pass_pipeline.step_s(other, record), record.host_s + passes.between_s(other)


def nic_share(forward: ForwardPass, step_s: float) -> float:
    """Time of the all-to-alls alone over that of the step: their share of the NICs, as if these bound them all along."""
    plan = forward.plan
    alone_s = [float(passes.alone_s(forward, name).mean()) for name in plans.COLLECTIVES]
    return min(MOST_BUSY, sum(alone_s) * plan.model.num_moe_layers * plan.num_microbatches / step_s)
