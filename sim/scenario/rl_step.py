"""The rl_step workload of a scenario: samples to roll out, and a deployment and a training step as scenarios of their own."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from sim.errors import InputError, Problem
from sim.scenario import sizes
from sim.scenario.descriptions import Scenario, Workload
from sim.scenario.draft import Draft, LayoutSpec, catch
from sim.scenario.inference import DecodeSpec, PrefillSpec
from sim.scenario.kinds import Resolver
from sim.scenario.pools import pool_problem
from sim.scenario.serving import LengthsSpec
from sim.scenario.serving_pools import instance_gpus
from sim.scenario.values import Branch, Count, Index, WordOr, WorkloadSpec
from sim.schemas import Duration, Fraction, Rate, Size, written
from sim.workload.requests import Ints as Array
from sim.workload.requests import Lengths

_AT = ("workload",)
_SEED = 5  # stream of lengths within the scenario's seed
_ROUND = 128  # tokens of a sequence are a multiple of this


class RewardSpec(Branch):
    """Rewards of samples."""

    time: Duration = written("0 s")
    """From the end of a sample to its reward; samples are rewarded while others are rolled out."""


class PoolsSpec(Branch):
    """Pools of the cluster by what they do."""

    rollout: str
    """Pool that rolls out."""
    update: str
    """Pool that trains."""
    reward: str | None = None
    """Pool that rewards; that of the rollout when left out."""


class SyncSpec(Branch):
    """The way of new weights to the deployment."""

    mode: Literal["broadcast", "p2p"] = "broadcast"
    """broadcast: all weights to every GPU, bucket by bucket; p2p: each GPU gets its own weights over its NIC."""
    apply: Rate = written("82.2 GB/s")
    """Rate at which a GPU takes in what it gets (derived: from 10.19 s on 16 H20, checkpoint-engine)."""
    bucket: Size = written("512 MiB")
    """Weights that are sent and taken in at once (assumed: the default of verl and slime)."""


class TailBase(Branch):
    """Keys of a rollout that does not wait for its last samples."""

    done: Fraction = written("80 %")
    """Prompts that an update takes over prompts that a rollout begins (assumed); 100 % waits for all of them."""


class PartialRollouts(TailBase):
    """Go on with the rest in the next rollout (APRIL, Kimi k1.5)."""

    kind: Literal["partial_rollouts"]
    cache: Literal["recompute", "keep"] = "recompute"
    """recompute: prompt and answer so far are read again by the new weights; keep: their keys and values stay in memory, where pools
    are apart."""
    prefill: dict[str, Any] = Field(default_factory=dict)
    """Keys of `rollout` that differ where answers are read again, as of a `prefill` workload."""


class TailBatching(TailBase):
    """Throw away what the rest has; enough of such prompts make a long round of their own, from the beginning (RollPacker)."""

    kind: Literal["tail_batching"]


TailSpec = Annotated[PartialRollouts | TailBatching, Field(discriminator="kind")]


class RlStepSpec(WorkloadSpec):
    """An iteration of reinforcement learning: rollout, reward, log-probabilities, update, new weights."""

    kind: Literal["rl_step"]
    prompts: Count
    """Prompts of an iteration."""
    samples: Count = 1
    """Answers to each prompt."""
    prompt_tokens: Count = 512
    """Tokens of a prompt, which are in the cache when a sample begins; reading them takes no time."""
    lengths: LengthsSpec
    """Tokens of an answer."""
    prompt_correlation: Fraction = written("0 %")
    """Correlation of the logarithms of lengths of one prompt's samples, 0 to 100 % (lognormal alone)."""
    rollout: dict[str, Any]
    """A `decode` workload without kind, requests and context, and `layout` of an instance; as many run as the pool holds."""
    tail: WordOr[Literal["wait"], TailSpec] = "wait"
    """wait: a rollout ends with its last sample; else what becomes of prompts that are late."""
    update: dict[str, Any]
    """A `training` workload without kind, sequences and microbatches, and `layout`."""
    pack_tokens: Count | None = None
    """Tokens of a microbatch of the update; the longest sample when left out."""
    updates: Count = 1
    """Optimizer steps over the samples of one rollout, each over its part."""
    logprobs: Annotated[int, Field(ge=0, le=8, strict=True)] = 2
    """Forward passes over all samples before the update: of the policy and of a reference."""
    reward: RewardSpec = RewardSpec()
    pools: WordOr[Literal["colocated"], PoolsSpec] = "colocated"
    """colocated: rollout and update in turn on the same GPUs; else the pools of each, side by side."""
    staleness: Index = 0
    """Updates that the weights of a rollout may lag behind; 0: pools wait for one another."""
    sync: SyncSpec = SyncSpec()
    iterations: Annotated[int, Field(ge=1, le=64, strict=True)] = 2
    """Rollouts whose lengths are drawn, taken in turn; metrics are means."""


@dataclass(frozen=True, slots=True)
class RlStep(Workload):
    """Drawn lengths [iterations, prompts, samples], one instance of the deployment, and one optimizer step."""

    spec: RlStepSpec
    lengths: Array
    rollout: Scenario
    update: Scenario
    rolling: Array  # GPUs of all instances in the pool, [num_gpus]
    microbatches: int  # of all samples of an iteration, on each data-parallel rank
    again: Scenario | None = None  # an instance that reads answers that go on, where they are

    @property
    def parts(self) -> tuple[Scenario, ...]:
        """What rolls out, and what is trained."""
        return self.rollout, self.update

    @property
    def begun(self) -> int:
        """Prompts of a rollout at once [count]."""
        done = 1.0 if isinstance(self.spec.tail, str) else self.spec.tail.done
        return max(self.spec.prompts, round(self.spec.prompts / done))

    @property
    def instances(self) -> int:
        """Instances of the deployment [count]."""
        return len(self.rolling) // self.rollout.num_ranks

    @property
    def colocated(self) -> bool:
        """True where both are on the same GPUs."""
        return self.spec.pools == "colocated"


def rl_step_of(draft: Draft, spec: RlStepSpec) -> RlStep:
    """Resolve an rl_step workload, and the scenarios of its rollout and of its update.

    InputError with the draft's problems; InfeasibleError where no machine could run one of them.
    """
    _check(draft, spec)
    layouts = {name: _layout(draft, name) for name in ("rollout", "update")}
    if draft.problems:
        raise InputError(draft.problems)
    gpus = {name: _pool_gpus(draft, spec, name) for name in layouts}
    instance = instance_gpus(layouts["rollout"])
    if gpus["rollout"] % instance:
        wanted = f"a divisor of the {gpus['rollout']} GPUs that roll out"
        draft.problem((*_AT, "rollout", "layout"), f"an instance of {instance} GPUs", wanted)
        raise InputError(draft.problems)
    lengths = _lengths(draft, spec)
    whole = (lengths + spec.prompt_tokens).astype(float)
    sequence = max(_ROUND, round(float((whole**2).sum() / whole.sum()) / _ROUND) * _ROUND)
    pack = spec.pack_tokens or spec.lengths.most + spec.prompt_tokens
    together = max(1, round(pack / sequence))
    layout = layouts["update"]
    dp = max(1, gpus["update"] // ((layout.pp or 1) * (layout.tp or 1) * (layout.cp or 1)))
    tokens = float(whole.sum()) / spec.iterations
    each = dp * together * sequence
    step = {
        "sequence_tokens": sequence,
        "microbatch_sequences": together,
        "microbatches": math.ceil(tokens / spec.updates / each),
    }
    context = {"context_tokens": max(2, round(spec.prompt_tokens + float(lengths.mean()) / 2))}
    rollout = catch(draft.problems, partial(_part, draft, spec, "rollout", "decode", instance, context))
    update = catch(draft.problems, partial(_part, draft, spec, "update", "training", gpus["update"], step))
    again = None
    if isinstance(spec.tail, PartialRollouts) and spec.tail.cache == "recompute" and spec.tail.done < 1:
        again = catch(draft.problems, partial(_again, draft, spec, instance, sequence))
    if rollout is None or update is None or draft.problems:
        raise InputError(draft.problems)
    draft.layout = {"ep": rollout.ep}
    rolling = (
        np.arange(gpus["rollout"]) if spec.pools != "colocated" or draft.part is None else draft.part.gpus
    )
    return RlStep(spec, lengths, rollout, update, rolling, math.ceil(tokens / each), again)


def _check(draft: Draft, spec: RlStepSpec) -> None:
    pools = [*draft.shared.pools] if draft.shared else []
    if spec.pools == "colocated":
        if draft.shared is not None and draft.document.get(("cluster", "pool")) is None:
            wanted = "'cluster.pool', the one that both are on; or {rollout: POOL, update: POOL}"
            draft.problem((*_AT, "pools"), "'colocated' in a cluster of pools", wanted)
        if spec.staleness:
            wanted = "0: pools of their own let rollouts go on while weights are updated"
            draft.problem((*_AT, "staleness"), str(spec.staleness), wanted)
    else:
        assert isinstance(spec.pools, PoolsSpec)
        if draft.document.get(("cluster", "pool")) is not None:
            draft.problem(("cluster", "pool"), "'pool' next to workload.pools", "one of them")
        for key, name in spec.pools.model_dump(exclude_none=True).items():
            draft.problems += pool_problem(draft.document, (*_AT, "pools", key), name, pools)
        if spec.pools.rollout == spec.pools.update:
            wanted = "another pool than the rollout's; or 'pools: colocated'"
            draft.problem((*_AT, "pools", "update"), f"'{spec.pools.update}'", wanted)
    if not 0 <= spec.prompt_correlation <= 1:
        got = str(draft.document.get((*_AT, "prompt_correlation")))
        draft.problem((*_AT, "prompt_correlation"), got, "0 % to 100 %")
    elif spec.prompt_correlation and spec.lengths.kind != "lognormal":
        wanted = "lengths of kind lognormal, or no prompt_correlation"
        draft.problem((*_AT, "prompt_correlation"), f"{spec.lengths.kind} lengths next to it", wanted)
    if not isinstance(spec.tail, str):
        if not 0 < spec.tail.done <= 1:
            draft.problem((*_AT, "tail", "done"), f"{spec.tail.done:.0%}", "more than 0 %, to 100 %")
        elif (
            isinstance(spec.tail, PartialRollouts) and spec.tail.cache == "keep" and spec.pools == "colocated"
        ):
            wanted = (
                "recompute: the update needs the memory of keys and values where both are on the same GPUs"
            )
            draft.problem((*_AT, "tail", "cache"), "keep", wanted)
    if spec.sync.apply <= 0:
        draft.problem(
            (*_AT, "sync", "apply"), str(draft.document.get((*_AT, "sync", "apply"))), "more than 0"
        )


def _layout(draft: Draft, name: str) -> LayoutSpec:
    asked = draft.document.get((*_AT, name, "layout"))
    if not isinstance(asked, dict):
        got = "nothing" if asked is None else str(asked)
        draft.problem((*_AT, name), got, "the key 'layout': {ep: ...}")
        return LayoutSpec()
    sizes_ = {key: value for key, value in asked.items() if key in LayoutSpec.model_fields}
    if any(not isinstance(value, int) or value < 1 for key, value in sizes_.items() if key != "order"):
        draft.problem((*_AT, name, "layout"), str(asked), "sizes of 1 or more")
        return LayoutSpec()
    return LayoutSpec(**sizes_)


def _pool_gpus(draft: Draft, spec: RlStepSpec, name: str) -> int:
    if isinstance(spec.pools, PoolsSpec) and draft.shared is not None:
        pool = draft.shared.pools[getattr(spec.pools, name)]
        return pool.num_nodes * pool.hardware.gpu.scale_up.domain
    return draft.num_ranks


def _lengths(draft: Draft, spec: RlStepSpec) -> Array:
    asked = Lengths(spec.lengths.kind, float(spec.lengths.mean), spec.lengths.spread, spec.lengths.most)
    num = spec.iterations * spec.prompts * spec.samples
    sizes.require_samples(num)
    rng = np.random.default_rng([draft.seed, _SEED])
    shape = spec.iterations, spec.prompts, spec.samples
    if not spec.prompt_correlation:
        return asked.draw(num, rng).reshape(shape)
    return asked.correlated(shape, spec.prompt_correlation, rng)


def _again(draft: Draft, spec: RlStepSpec, num_gpus: int, tokens: int) -> Scenario:
    """The rollout's instance as a prefill that reads answers so far; keys that only a decode has are left out."""
    assert isinstance(spec.tail, PartialRollouts)
    own = DecodeSpec.model_fields.keys() - PrefillSpec.model_fields.keys()
    counts = {"prompt_tokens": tokens, "prompts_per_gpu": 2}
    return _part(
        draft, spec, "rollout", "prefill", num_gpus, counts, less=own, over=(*_AT, "tail", "prefill")
    )


def _part(
    draft: Draft,
    spec: RlStepSpec,
    name: str,
    kind: str,
    num_gpus: int,
    counts: dict[str, int],
    *,
    less: Collection[str] = (),
    over: tuple[str, ...] | None = None,
) -> Scenario:
    """Rollout, update or reward as a scenario of its own; its problems keep their place in this one."""
    document, at = draft.document.copy(), (*_AT, name)
    given, mark = document.branch(at), document.mark(at)
    for key in less:
        given.tree.pop(key, None)
    if over is not None:
        given.overlay(document.branch(over))
    for key in ("kind", *counts, "requests", "requests_per_gpu", "global_batch", "run"):
        if key in given.tree:
            wanted = "no such key: samples and lengths make it"
            raise InputError(draft.document.problem((*at, key), f"'{key}'", wanted, key=True))
    layout = given.tree.pop("layout")
    document.put(_AT, {"kind": kind, **counts}, mark)
    document.overlay(given, at=_AT)
    for key in ("expect", "variants", "layout", "question"):
        document.tree.pop(key, None)
    document.put(("layout",), layout, mark)
    domain = draft.part.domain if draft.part else 1
    nodes: tuple[int, ...] = draft.part.nodes if draft.part else ()
    if isinstance(spec.pools, PoolsSpec) and draft.shared is not None:
        own = getattr(spec.pools, name)
        document.put(("cluster", "pool"), own, mark)
        pool = draft.shared.pools[own]
        domain, nodes = pool.hardware.gpu.scale_up.domain, tuple(range(pool.num_nodes))
    document.put(("cluster", "use_nodes"), list(nodes[: -(-num_gpus // domain)]), mark)
    document.put(("cluster", "gpus"), num_gpus, mark)
    try:
        return draft.resolve(document)
    except InputError as error:
        raise InputError([_moved(problem, name) for problem in error.problems]) from None


def _moved(problem: Problem, name: str) -> Problem:
    first, dot, rest = problem.key.partition(".")
    key = {"workload": f"workload.{name}", "layout": f"workload.{name}.layout"}.get(first, first)
    return Problem(problem.where, key + dot + rest, problem.got, problem.wanted, problem.nearest)


def _count(scenario: Scenario, _: RlStep) -> None:
    sizes.require_nodes(scenario, scenario.num_nodes)


RESOLVER = Resolver(
    {"rl_step": RlStepSpec},
    rl_step_of,
    faults=("bandwidth", "clock"),
    divides=lambda spec: True,
    count=_count,
)
