"""Time of a decode step of a deployment at every load, from one request in all to a full house.

Steps are simulated at a few loads and contexts, and straight lines lie between: the loop asks for a time a hundred thousand
times. A load is requests of the mean GPU. Below one the GPUs that have a request still run it through every layer, but
collectives and experts see fewer tokens, and few tokens touch few experts. A single request leaves the second microbatch
empty, so it runs in one. Where the load is no whole number the busiest GPU has one request more than others, which costs
what one more request on it alone costs at half of the largest load.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from sim.cost.surfaces import line, plane
from sim.runs import pass_pipeline, passes
from sim.runs.pass_plan import PassPlan
from sim.runs.passes import ForwardPass, forward_pass
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.schedule import inference as plans
from sim.schedule.serving import StepCost

_PARTS = (1 / 8, 1 / 4, 1 / 2, 1.0)  # of the largest load
_CONTEXTS = (0.0, 1.0, 2.0)  # of the mean context; none is one token
_MOST_BUSY = 0.95


@dataclass(frozen=True, slots=True)
class Surface:
    """Time of a step by load and mean context, and the share of the NICs that its all-to-alls take at the largest load."""

    step_s: StepCost
    host_s: Callable[[float], float]
    """Of it what the device waits for the host at the mean context, by load."""
    nic_busy_fraction: float


def surface(scenario: Scenario, work: Inference, most: int) -> Surface:
    """Simulate a decode scenario at a few loads and contexts.

    Parameters
    ----------
    scenario : Scenario
        Cluster, model and seed.
    work : Inference
        The deployment; it may differ from the scenario's own workload.
    most : int [count]
        Largest number of requests of a GPU. Its memory is not checked.

    Returns
    -------
    Surface
    """
    ranks = work.layout.num_ranks
    contexts = [max(1, round(work.context_tokens * part)) for part in _CONTEXTS]
    contexts = sorted({*contexts, 2})[-len(contexts) :]  # distinct, however short the mean one is
    few = [2**i for i in range(ranks.bit_length()) if 2**i < ranks]
    many = whole_loads(most)
    light = [forward_pass(PassPlan.of_total(scenario, work, num)) for num in few]
    full = [forward_pass(PassPlan(scenario, work, num)) for num in many]
    ran = [[context_step_s(forward, context) for context in contexts] for forward in (*light, *full)]
    grid = [[step_s for step_s, _ in row] for row in ran]
    loads = [num / ranks for num in few] + [float(num) for num in many]
    step_s, host_s = plane(loads, contexts, grid), line(loads, [row[1][1] for row in ran])
    half = max(1, most // 2)
    # One more request on one GPU, all else the same.
    even = forward_pass(PassPlan(scenario, replace(work, sampling="expected"), half))
    uneven = forward_pass(PassPlan(scenario, work, half + 1, share=half / (half + 1)))
    extra_s = line(
        contexts,
        [max(0.0, context_step_s(uneven, each)[0] - context_step_s(even, each)[0]) for each in contexts],
    )

    def cost(load: float, context_tokens: float) -> float:
        missing = math.ceil(load) - load if load > 1 else 0.0
        return step_s(load, context_tokens) + missing * extra_s(context_tokens)

    return Surface(cost, host_s, nic_share(full[-1], grid[-1][-1]))


def whole_loads(most: int) -> list[int]:
    """Loads of one and more at which steps are simulated: doubling up to an eighth of the largest, then its parts."""
    parts = {max(1, 2 * round(most * part / 2)) for part in _PARTS} | {most}
    doubled = {2**i for i in range(most.bit_length()) if 2**i < max(2, min(parts))}
    return sorted({1, *(load for load in doubled | parts if load <= most), *((2,) if most == 1 else ())})


def context_step_s(forward: ForwardPass, context_tokens: int) -> tuple[float, float]:
    """Time of a step with another mean context, and of it the wait for the host [s]; all but the context is that of `forward`."""
    other = passes.with_context(forward, context_tokens)
    record = passes.run(other)
    return pass_pipeline.step_s(other, record), record.host_s + passes.between_s(other)


def nic_share(forward: ForwardPass, step_s: float) -> float:
    """Time of the all-to-alls alone over that of the step: their share of the NICs, as if these bound them all along."""
    plan = forward.plan
    alone_s = [float(passes.alone_s(forward, name).mean()) for name in plans.COLLECTIVES]
    return min(_MOST_BUSY, sum(alone_s) * plan.model.num_moe_layers * plan.num_microbatches / step_s)
