"""Sentences on an iteration of reinforcement learning: how long it takes, where the time goes, who waits, what it costs."""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.views.lanes import Lanes
from sim.show.views.rl_step import STAGES, RlView
from sim.show.views.run import RunsView, RunView
from sim.units import show

TERMS = (
    ("rollout", "from the first token to the last of the last sample, on all instances"),
    ("tail", "GPU-seconds in which places of the batch wait for the last sample"),
    (
        "samples carried over",
        "begun and not ended in a rollout: the next goes on with them, or they are put off",
    ),
    ("stale tokens", "tokens that an update takes and older weights made"),
    ("update", "all optimizer steps over the samples; log-probabilities are forward passes over them before"),
    ("new weights", "from the training layout into the engines of the deployment"),
    ("idle", "time in which a pool has nothing to do; waits for the tail are not in it"),
    ("staleness", "updates that the weights of a rollout lag behind"),
)


def finding(runs: RunsView) -> list[str]:
    """Answer for the iterations, the most important sentence first."""
    shown = runs.select(RlView)
    first = shown[0]
    return [_time(first, len(shown) > 1), *_others(shown), _tail(first), *_idle(shown)]


def _time(run: RlView, several: bool) -> str:
    most = max(run.stages_s, key=lambda name: run.stages_s[name])
    share = run.stages_s[most] / sum(run.stages_s.values())
    cost = "" if run.step_cost_usd is None else f" and costs {show(run.step_cost_usd, '$')}"
    begin = f"{run.name}: an iteration" if several else "An iteration"
    return (
        f"{begin} takes {show(run.step_time_s, 's', 4)}{cost}; {share:.0%} of its stages' time is "
        f"{STAGES[most][0]}{_late(run)}."
    )


def _others(shown: Sequence[RlView]) -> list[str]:
    base, sentences = shown[0], []
    for run in shown[1:3]:
        cost = ""
        if run.step_cost_usd and base.step_cost_usd:
            cost = (
                f" at {run.step_cost_usd / base.step_cost_usd:.2f}x the cost, {show(run.step_cost_usd, '$')}"
            )
        took = f"{run.name} takes {run.step_time_s / base.step_time_s:.2f}x as long{cost}"
        sentences.append(f"{took}{_late(run)}.")
    return sentences


def _late(run: RlView) -> str:
    """What becomes of late samples."""
    if run.stale_tokens_fraction:
        return f"; older weights made {run.stale_tokens_fraction:.0%} of the tokens that it trains on"
    if run.discarded_tokens_fraction:
        return f"; {run.discarded_tokens_fraction:.0%} of the tokens that it generates are thrown away"
    return ""


def _tail(run: RlView) -> str:
    return (
        f"It samples {run.tokens_per_s:,.0f} tokens a second; until the last sample has ended, GPUs have empty places in their "
        f"batches for {run.tail_wait_gpu_s / 3600:,.1f} GPU-hours in all."
    )


def _idle(shown: Sequence[RlView]) -> list[str]:
    worst = max(shown, key=lambda run: max(run.idle_fraction.values(), default=0.0))
    idle = {pool: share for pool, share in worst.idle_fraction.items() if share >= 0.005}
    if not idle:
        return []
    pools = ", ".join(f"{pool} {share:.0%}" for pool, share in idle.items())
    return [f"Idle part of the time{f' in {worst.name}' if len(shown) > 1 else ''}: {pools}."]


def aside(runs: Sequence[RunView]) -> str:
    """Nothing."""
    return ""


def course(run: RlView, lanes: Lanes) -> str:
    """Title of the timeline."""
    return f"stages of an iteration, of which the rollout takes {show(run.rollout_s, 's', 3)}"
