"""An iteration of reinforcement learning: from a scenario to its metrics.

Instants first. An iteration *begins* when its prompts begin to be decoded and *ends* when its last update has. `rollout_s` is from
the begin to the last token of the last sample of all instances; `reward_s` what its reward takes after that; `logprob_s` the
forward passes over all samples; `update_s` all optimizer steps; `sync_s` the way of the new weights into the deployment; and
`offload_s`, where both are on the same GPUs, optimizer, gradients and training weights to host memory before the rollout
and back after it, over PCIe. Colocated or without staleness, these follow one another, and `step_time_s` is their sum. With
staleness it is the pace at which rollouts and updates of two pools settle (`engine.rollout.iterate`).

`tail_wait_gpu_s` are GPU-seconds in which places of the batch wait for the last sample. `idle_fraction` of a pool is time
without work: waits for the other pool, for rewards; waits for the tail are inside a rollout and not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.cost.power import Activity
from sim.engine.rollout import RolloutRecord, iterate, tail_wait_gpu_s
from sim.runs import passes
from sim.runs.energy import added_energy, energy_metrics
from sim.runs.forward_passes import forward_s
from sim.runs.inference import spent_s
from sim.runs.kinds import COMPUTE, LINKS, Runner
from sim.runs.link_rows import largest, link_rows
from sim.runs.pass_activity import pass_activity
from sim.runs.pass_plan import PassPlan
from sim.runs.rewards import Judgement, judged
from sim.runs.rollouts import RolloutInstance, instance_of, rounds_of, tail_metrics
from sim.runs.training_step import Step
from sim.runs.weight_sync import weight_sync
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference
from sim.scenario.rl_spec import PoolsSpec
from sim.scenario.rl_step import RlStep

_STAGES = ("rollout", "reward", "logprob", "update", "sync", "offload")
_SHOWN = 400  # ends of samples in the timeline


@dataclass(frozen=True, slots=True)
class IterationStages:
    """Times of the stages of an iteration [s], the rollout's and the update's of each that was drawn."""

    rollout_s: list[float]
    reward_s: float
    logprob_s: float
    update_s: float
    sync_s: float
    offload_s: float


def run_rl_step(scenario: Scenario, progress: Callable[[str], None]) -> dict[str, Any]:
    """Simulate an iteration of reinforcement learning; InfeasibleError where a sample or the training step does not fit."""
    work = scenario.workload
    assert isinstance(work, RlStep)
    spec = work.spec
    progress(f"{scenario.name}: what a decode step costs")
    base = work.rollout.workload
    assert isinstance(base, Inference)
    instance = instance_of(work)
    progress(f"{scenario.name}: {work.lengths[0].size} samples on {work.instances} instances")
    rounds = rounds_of(work, instance)
    drawn = [own.records for own in rounds]
    progress(f"{scenario.name}: the update")
    step = Step.from_scenario(work.update)
    step.require_fit("update: ")
    runs = step.ran()
    updated = step.metrics(*runs)
    one_s, moved = forward_s(step, work.microbatches)
    logprob_s = spec.logprobs * one_s
    progress(f"{scenario.name}: new weights")
    sync = weight_sync(spec.sync, work.rollout, work.rolling, work.update)
    judgement = judged(work, rounds)
    stages = IterationStages(
        rollout_s=[own.end_s for own in rounds],
        reward_s=judgement.reward_s,
        logprob_s=logprob_s,
        update_s=spec.updates * updated["step_time_s"],
        sync_s=sync.time_s,
        offload_s=_offload_s(work, step) if work.colocated else 0.0,
    )
    time_s, idle, staleness = _cycle(work, stages, judgement)
    tokens = float(work.lengths.sum()) / spec.iterations
    num_gpus = _pool_gpus(scenario, work)
    metrics: dict[str, Any] = {
        "step_time_s": time_s,
        "rollout_s": float(np.mean(stages.rollout_s)),
        "reward_s": stages.reward_s,
        "logprob_s": stages.logprob_s,
        "update_s": stages.update_s,
        "sync_s": stages.sync_s,
        "offload_s": stages.offload_s,
        "tail_wait_gpu_s": float(np.mean([tail_wait_gpu_s(own, work.rollout.num_ranks) for own in drawn])),
        "idle_fraction": idle,
        "tokens_per_s": tokens / time_s,
        "staleness_mean": staleness,
        "host_s": _host_s(work, instance, drawn) + spec.updates * updated["host_s"],
    }
    stage_s = {name: metrics[f"{name}_s"] for name in _STAGES}
    metrics["stage_fraction"] = {name: spent / sum(stage_s.values()) for name, spent in stage_s.items()}
    if work.spec.tail != "wait":
        metrics |= tail_metrics(rounds)
    prices = {name: hardware_price(scenario, name) for name in num_gpus}
    if None not in prices.values():
        metrics["step_cost_usd"] = sum(
            num * time_s / 3600 * float(prices[name] or 0.0) for name, num in num_gpus.items()
        )
    metrics |= _energy(work, base, drawn, updated, metrics, tokens, num_gpus, judgement)
    # Of what trains; the traffic of decode steps and of new weights is in their times.
    carried, used = (
        spec.updates * sum(getattr(run, name) for run in runs) + spec.logprobs * getattr(moved, name)
        for name in ("bytes", "used")
    )
    return {
        "metrics": metrics,
        "where": _where(work, stages),
        "links": largest(link_rows(step.cluster, carried, used, time_s)),
        "timeline": _timeline(work, stages, drawn, metrics),
    }


# --- the stages ------------------------------------------------------------------------------------------------------


def _host_s(work: RlStep, instance: RolloutInstance, drawn: Sequence[Sequence[RolloutRecord]]) -> float:
    """Time that the last instance waits for its hosts, steps at their mean load [s]."""
    last = max(drawn[0], key=lambda own: float(own.end_s.max()))
    end_s = float(last.end_s.max())
    if not last.busy_requests_s:
        return 0.0
    load = last.busy_requests_s / end_s / work.rollout.num_ranks
    step_s = instance.costs.even_s(load, float(instance.base.context_tokens))
    return end_s / step_s * instance.costs.host_s(load)


def _offload_s(work: RlStep, step: Step) -> float:
    """Training states to host memory and back, on the GPU that has most of them [s]."""
    hardware = work.update.hardware
    assert hardware is not None
    if hardware.gpu.pcie is None:
        return 0.0
    states = max(row.states_bytes for row in step.memory)
    return 2.0 * states / hardware.gpu.pcie.bandwidth_bytes_per_s


def _cycle(
    work: RlStep, stages: IterationStages, judgement: Judgement
) -> tuple[float, dict[str, float], float]:
    """Time of an iteration [s], time without work of each pool over it, and mean staleness."""
    trained_s = stages.logprob_s + stages.update_s
    rolled_s = float(np.mean(stages.rollout_s))
    if work.colocated:
        time_s = rolled_s + stages.reward_s + trained_s + stages.sync_s + stages.offload_s
        return time_s, {"colocated": max(0.0, stages.reward_s - judgement.busy_s) / time_s}, 0.0
    pools = work.spec.pools
    assert isinstance(pools, PoolsSpec)
    updates = [trained_s] * len(stages.rollout_s)
    own_s = 0.0 if work.judge is None or work.judges_apart else judgement.busy_s  # of the rollout's GPUs
    rolls = [spent + own_s for spent in stages.rollout_s]
    cycle = iterate(rolls, updates, stages.sync_s, work.spec.staleness, stages.reward_s - own_s)
    busy = {pools.rollout: rolled_s + own_s + stages.sync_s, pools.update: trained_s}
    if pools.reward not in (None, *busy):
        busy[str(pools.reward)] = judgement.busy_s if work.judge else stages.reward_s
    idle = {name: max(0.0, 1.0 - spent / cycle.step_s) for name, spent in busy.items()}
    return cycle.step_s, idle, cycle.staleness_mean


def _where(work: RlStep, stages: IterationStages) -> dict[str, float]:
    """Parts of the time of an iteration: stages one after another, or those of the pool that sets the pace [s]."""
    rolled = {"rollout": float(np.mean(stages.rollout_s)), "new weights": stages.sync_s}
    trained = {"log-probabilities": stages.logprob_s, "update": stages.update_s}
    others = {"reward": stages.reward_s, "offload": stages.offload_s}
    if work.spec.staleness:
        parts = max((rolled, trained), key=lambda own: sum(own.values()))
    else:
        parts = {**rolled, **others, **trained}
    return {name: spent for name, spent in parts.items() if spent > 0}


def _pool_gpus(scenario: Scenario, work: RlStep) -> dict[str, int]:
    """GPUs of each pool that the iteration holds, busy or not."""
    pools = work.spec.pools
    if not isinstance(pools, PoolsSpec) or scenario.shared is None:
        return {"colocated": scenario.num_ranks}
    names = dict.fromkeys(name for name in (pools.rollout, pools.update, pools.reward) if name is not None)
    own = scenario.shared.pools
    return {name: own[name].num_nodes * own[name].hardware.gpu.scale_up.domain for name in names}


def hardware_price(scenario: Scenario, pool: str) -> float | None:
    """Rent of a GPU of a pool for an hour [$]; None where its profile has none."""
    shared = scenario.shared
    hardware = shared.pools[pool].hardware if shared and pool in shared.pools else scenario.hardware
    assert hardware is not None
    return hardware.gpu_hour_usd


# --- energy and timeline ---------------------------------------------------------------------------------------------


def _energy(
    work: RlStep,
    base: Inference,
    drawn: Sequence[Sequence[RolloutRecord]],
    updated: Mapping[str, Any],
    metrics: Mapping[str, Any],
    tokens: float,
    num_gpus: Mapping[str, int],
    judgement: Judgement,
) -> dict[str, Any]:
    """Decode steps as one at the mean load, forward passes at the power of the update, and all else idle."""
    rolling, training = work.instances * work.rollout.num_ranks, work.update.num_ranks
    busy_s = float(np.mean([sum(own.busy_requests_s for own in records) for records in drawn]))
    rolled_s, trained_s = metrics["rollout_s"], metrics["logprob_s"] + metrics["update_s"]
    load = busy_s / rolled_s / rolling
    step = PassPlan(
        work.rollout, base if load > 1 else base.one_batch(), max(1, round(load)), share=min(1.0, load)
    )
    forward = passes.forward_pass(step)
    record, ends = passes.run(forward), passes.ends(forward)
    single = pass_activity(forward, record, spent_s(forward, record, ends), ends)
    rollout = energy_metrics(work.rollout, single.times(rolled_s / single.elapsed_s), num_gpus=rolling)
    if not rollout or "energy" not in updated:
        return {}
    parts = [rollout["energy"]]
    often = trained_s / updated["step_time_s"]
    parts.append({key: often * value for key, value in updated["energy"].items()})
    if judgement.energy:
        parts.append(judgement.energy)
    time_s, own_s = metrics["step_time_s"], 0.0 if work.judges_apart else judgement.busy_s
    idle = [(work.rollout, rolling, time_s - rolled_s - own_s - (trained_s if work.colocated else 0.0))]
    if not work.colocated:
        idle.append((work.update, training, time_s - trained_s))
    if work.judge is not None and work.judges_apart:
        idle.append((work.judge, work.judges * work.judge.num_ranks, time_s - judgement.busy_s))
    for own, num, spent in idle:
        parts.append(energy_metrics(own, Activity(elapsed_s=max(0.0, spent)), num_gpus=num)["energy"])
    return {"energy": added_energy(parts, time_s * sum(num_gpus.values()), tokens)}


def _timeline(
    work: RlStep,
    stages: IterationStages,
    drawn: Sequence[Sequence[RolloutRecord]],
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """One iteration: spans of each pool one after another, and samples that are left over time."""
    spans: list[dict[str, Any]] = []
    pools = work.spec.pools
    split = isinstance(pools, PoolsSpec)
    rows = {"rollout": pools.rollout, "update": pools.update} if isinstance(pools, PoolsSpec) else {}
    if isinstance(pools, PoolsSpec):
        rows["reward"] = pools.reward or pools.rollout
    now = 0.0
    order = [
        ("offload", stages.offload_s / 2, "update"),
        ("rollout", stages.rollout_s[0], "rollout"),
        ("reward", stages.reward_s, "reward"),
        ("offload", stages.offload_s / 2, "update"),
        ("logprob", stages.logprob_s, "update"),
        ("update", stages.update_s, "update"),
        ("sync", stages.sync_s, "rollout"),
    ]
    for name, took, row in order:
        if took > 0:
            spans.append(
                {
                    "stage": name,
                    "pool": rows[row] if split else "colocated",
                    "start_s": now,
                    "end_s": now + took,
                }
            )
            now += took
    ends = np.sort(np.concatenate([own.end_s for own in drawn[0]]))
    shown = np.unique(np.linspace(0, len(ends) - 1, min(_SHOWN, len(ends))).round().astype(int))
    return {
        "end_s": now,
        "stages": spans,
        "samples": {"end_s": ends[shown].tolist(), "left": (len(ends) - 1 - shown).tolist()},
    }


RUNNER = Runner(run_rl_step, reads=(*LINKS, *COMPUTE))
