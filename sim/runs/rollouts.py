"""Rollouts of an iteration of reinforcement learning: what an instance decodes at once, and its rounds one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.cluster.topology import Ints
from sim.engine.rollout import RolloutRecord, roll_out
from sim.engine.rounds import Round, all_rounds, partial_rounds, tail_rounds
from sim.errors import InfeasibleError
from sim.runs.inference import run_inference
from sim.runs.pass_memory import memory_of
from sim.runs.step_surface import Surface, surface
from sim.scenario.descriptions import Scenario
from sim.scenario.inference import Inference, PrefillSpec
from sim.scenario.rl_step import RlStep


@dataclass(frozen=True, slots=True)
class RolloutInstance:
    """One instance that rolls out.

    Parameters
    ----------
    costs : Surface
        Of its steps.
    most : int [count]
        Requests of a GPU at once.
    capacity_tokens : float
        That its cache holds.
    again_token_s : float [s]
        That each token takes which is read again.
    """

    base: Inference
    num_ranks: int
    prompt_tokens: int
    costs: Surface
    most: int
    capacity_tokens: float
    again_token_s: float

    def roll(self, lengths: Ints, has: Ints, until_s: float) -> RolloutRecord:
        """Roll out samples, reading those again first that have something already."""
        again = int((has[has > 0] + self.prompt_tokens).sum())
        return roll_out(
            lengths,
            self.prompt_tokens,
            self.costs.even_s,
            most=self.most * self.num_ranks,
            capacity_tokens=self.capacity_tokens,
            tokens_per_step=self.base.accepted_tokens,
            num_ranks=self.num_ranks,
            given=has,
            start_s=again * self.again_token_s,
            until_s=until_s,
        )


def instance_of(work: RlStep) -> RolloutInstance:
    """Size an instance and price its steps; InfeasibleError where no sample fits on a GPU."""
    base = work.rollout.workload
    assert isinstance(base, Inference)
    memory = memory_of(work.rollout, base)
    asked = -(-work.begun * work.spec.samples // (work.instances * work.rollout.num_ranks))
    if memory.free_bytes <= memory.buffer_bytes_per_request:
        raise InfeasibleError(
            f"rollout: no sample fits on {memory.gpu}; most of its memory goes to: {memory.limit}"
        )
    # Samples begin short: as many may run as fit with their prompts, and the cache says when they are too many.
    start = max(1, work.spec.prompt_tokens) / base.context_tokens * memory.cache_bytes_per_request
    most = max(1, min(asked, int(memory.free_bytes // (start + memory.buffer_bytes_per_request))))
    most += most % 2 if base.spec.overlap is True and most > 1 else 0
    room = memory.free_bytes - most * memory.buffer_bytes_per_request
    capacity = room * work.rollout.num_ranks / (memory.cache_bytes_per_request / base.context_tokens)
    return RolloutInstance(
        base=base,
        num_ranks=work.rollout.num_ranks,
        prompt_tokens=work.spec.prompt_tokens,
        costs=surface(work.rollout, base, most),
        most=most,
        capacity_tokens=capacity,
        again_token_s=_again_token_s(work),
    )


def _again_token_s(work: RlStep) -> float:
    if work.again is None:
        return 0.0
    assert isinstance(work.again.workload, Inference)
    return reading(work.again, "tail")[0] / work.again.workload.layout.dp


def reading(scenario: Scenario, what: str) -> tuple[float, dict[str, Any]]:
    """Time of a data-parallel rank for each token that a deployment reads [s], and metrics of a pass.

    InfeasibleError, with `what` it is, where it does not fit.
    """
    work = scenario.workload
    assert isinstance(work, Inference)
    assert isinstance(work.spec, PrefillSpec)
    try:
        metrics = run_inference(scenario, lambda _: None)["metrics"]
    except InfeasibleError as error:
        raise InfeasibleError(f"{what}: {error}") from None
    return metrics["step_time_s"] / (work.spec.prompt_tokens * (work.requests or 1)), metrics


def rounds_of(work: RlStep, instance: RolloutInstance) -> list[Round]:
    """Roll out the iterations; prompts are dealt to instances in turn, their samples stay together."""

    def roll(lengths: Sequence[Ints], has: Sequence[Ints], until_s: float) -> list[RolloutRecord]:
        return [instance.roll(*own, until_s) for own in zip(lengths, has, strict=True)]

    if isinstance(work.spec.tail, str):
        return all_rounds(work.lengths, work.instances, roll)
    rounds = {"partial_rollouts": partial_rounds, "tail_batching": tail_rounds}[work.spec.tail.kind]
    return rounds(work.lengths, work.begun, work.instances, roll)


def tail_metrics(rounds: Sequence[Round]) -> dict[str, float]:
    """What rollouts leave to the next, as metrics: means of a rollout."""
    made = sum(own.made_tokens for own in rounds)
    taken = sum(own.taken_tokens for own in rounds)
    return {
        "carried_samples": float(np.mean([own.carried for own in rounds])),
        "stale_tokens_fraction": sum(own.stale_tokens for own in rounds) / taken,
        "discarded_tokens_fraction": sum(own.discarded_tokens for own in rounds) / made,
        "recompute_s": float(np.mean([max(record.start_s for record in own.records) for own in rounds])),
    }
