"""The rl_step workload of a scenario: samples to roll out, and a deployment and a training step as scenarios of their own."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sim.errors import InputError
from sim.scenario import sizes
from sim.scenario.descriptions import Scenario, Workload
from sim.scenario.draft import Draft, LayoutSpec, catch
from sim.scenario.inference import DecodeSpec, PrefillSpec
from sim.scenario.kinds import Resolver
from sim.scenario.pools import pool_problem
from sim.scenario.rl_spec import PartialRollouts, PoolsSpec, RlStepSpec
from sim.scenario.serving_pools import instance_gpus
from sim.workload.packing import sequences_needed
from sim.workload.requests import Ints as Array

_AT = ("workload",)
_JUDGE = ("reward", "prefill")
_SEED = 5  # stream of lengths within the scenario's seed
_ROUND = 128  # tokens of a sequence are a multiple of this


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
    judge: Scenario | None = None  # an instance of the model that judges
    judges: int = 0  # such instances

    @property
    def parts(self) -> tuple[Scenario, ...]:
        """What rolls out, what is trained, and what judges."""
        return (self.rollout, self.update, *([self.judge] if self.judge else []))

    @property
    def judges_apart(self) -> bool:
        """True where a pool of its own judges samples as they end; else the rollout's GPUs do after it."""
        pools = self.spec.pools
        return isinstance(pools, PoolsSpec) and pools.reward not in (None, pools.rollout)

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
    ats: dict[str, tuple[str, ...]] = {"rollout": ("rollout",), "update": ("update",)}
    if spec.reward.model is not None:
        ats["reward"] = _JUDGE
    layouts = {name: _layout(draft, at) for name, at in ats.items()}
    if draft.problems:
        raise InputError(draft.problems)
    gpus = {name: _pool_gpus(draft, spec, name) for name in layouts}
    sizes_ = {name: instance_gpus(layout) for name, layout in layouts.items() if name != "update"}
    for name, size in sizes_.items():
        if gpus[name] % size:
            wanted = f"a divisor of the {gpus[name]} GPUs of its pool"
            draft.problem((*_AT, *ats[name], "layout"), f"an instance of {size} GPUs", wanted)
    if draft.problems:
        raise InputError(draft.problems)
    instance = sizes_["rollout"]
    lengths = _lengths(draft, spec)
    whole = (lengths + spec.prompt_tokens).astype(float)
    sequence = max(_ROUND, round(float((whole**2).sum() / whole.sum()) / _ROUND) * _ROUND)
    pack = spec.pack_tokens or spec.lengths.most + spec.prompt_tokens
    together = max(1, round(pack / sequence))
    layout = layouts["update"]
    dp = max(1, gpus["update"] // ((layout.pp or 1) * (layout.tp or 1) * (layout.cp or 1)))
    tokens = float(whole.sum()) / spec.iterations
    each = dp * together * sequence
    microbatches = math.ceil(tokens / each)
    packing = _packing(draft, spec, lengths)
    if packing:
        pack = -(-pack // _ROUND) * _ROUND
        samples = np.array(packing["lengths"]["tokens"])
        num = math.ceil(sequences_needed(samples, pack, packing["fit"]) / dp)
        step = {"sequence_tokens": pack, "microbatch_sequences": 1, "microbatches": num}
        microbatches = spec.updates * num
    else:
        step = {
            "sequence_tokens": sequence,
            "microbatch_sequences": together,
            "microbatches": math.ceil(tokens / spec.updates / each),
        }
    context = {"context_tokens": max(2, round(spec.prompt_tokens + float(lengths.mean()) / 2))}
    reads = {"prompt_tokens": sequence, "prompts_per_gpu": 2}
    rollout = catch(draft.problems, partial(_part, draft, spec, ("rollout",), "decode", instance, context))
    trained = partial(_part, draft, spec, ("update",), "training", gpus["update"], step, packing=packing)
    update = catch(draft.problems, trained)
    again = judge = None
    if isinstance(spec.tail, PartialRollouts) and spec.tail.cache == "recompute" and spec.tail.done < 1:
        less = DecodeSpec.model_fields.keys() - PrefillSpec.model_fields.keys()
        read = partial(_part, less=less, over=(*_AT, "tail", "prefill"))
        again = catch(draft.problems, partial(read, draft, spec, ("rollout",), "prefill", instance, reads))
    if "reward" in sizes_:
        judge = catch(draft.problems, partial(_part, draft, spec, _JUDGE, "prefill", sizes_["reward"], reads))
    if rollout is None or update is None or draft.problems:
        raise InputError(draft.problems)
    draft.layout = {"ep": rollout.ep}
    rolling = (
        np.arange(gpus["rollout"]) if spec.pools != "colocated" or draft.part is None else draft.part.gpus
    )
    judges = gpus["reward"] // sizes_["reward"] if judge else 0
    return RlStep(spec, lengths, rollout, update, rolling, microbatches, again, judge, judges)


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
        if spec.reward.model is not None and spec.pools.reward == spec.pools.update:
            wanted = "a pool of its own, or none: the rollout's GPUs judge after it"
            draft.problem((*_AT, "pools", "reward"), f"'{spec.pools.reward}', which updates", wanted)
    if spec.reward.prefill and spec.reward.model is None:
        draft.problem((*_AT, "reward", "prefill"), "a prefill without a model", "the key 'model' next to it")
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


def _layout(draft: Draft, key: tuple[str, ...]) -> LayoutSpec:
    asked = draft.document.get((*_AT, *key, "layout"))
    if not isinstance(asked, dict):
        got = "nothing" if asked is None else str(asked)
        draft.problem((*_AT, *key), got, "the key 'layout': {ep: ...}")
        return LayoutSpec()
    sizes_ = {key: value for key, value in asked.items() if key in LayoutSpec.model_fields}
    if any(not isinstance(value, int) or value < 1 for name, value in sizes_.items() if name != "order"):
        draft.problem((*_AT, *key, "layout"), str(asked), "sizes of 1 or more")
        return LayoutSpec()
    return LayoutSpec(**sizes_)


def _pool_gpus(draft: Draft, spec: RlStepSpec, name: str) -> int:
    if isinstance(spec.pools, PoolsSpec) and draft.shared is not None:
        pool = draft.shared.pools[_pool(spec.pools, name)]
        return pool.num_nodes * pool.hardware.gpu.scale_up.domain
    return draft.num_ranks


def _pool(pools: PoolsSpec, name: str) -> str:
    """Pool of a part; what judges without one does so on the rollout's."""
    return str(getattr(pools, name) or pools.rollout)


def _lengths(draft: Draft, spec: RlStepSpec) -> Array:
    asked = spec.lengths.distribution
    num = spec.iterations * spec.prompts * spec.samples
    sizes.require_samples(num)
    rng = np.random.default_rng([draft.seed, _SEED])
    shape = spec.iterations, spec.prompts, spec.samples
    if not spec.prompt_correlation:
        return asked.draw(num, rng).reshape(shape)
    return asked.correlated(shape, spec.prompt_correlation, rng)


def _packing(draft: Draft, spec: RlStepSpec, lengths: Array) -> dict[str, Any] | None:
    """Packing of one update as a training workload writes it, its documents the samples that the first update takes."""
    at = (*_AT, "update", "packing")
    asked = draft.document.get(at)
    if not isinstance(asked, dict):
        return None
    if "lengths" in asked:
        wanted = "no such key: they are those of the samples"
        raise InputError(draft.document.problem((*at, "lengths"), "'lengths'", wanted, key=True))
    whole = (lengths[0] + spec.prompt_tokens).ravel()
    own = whole[: -(-whole.size // spec.updates)]
    return {"fit": "first_fit", **asked, "lengths": {"kind": "listed", "tokens": own.tolist()}}


def _part(
    draft: Draft,
    spec: RlStepSpec,
    key: tuple[str, ...],
    kind: str,
    num_gpus: int,
    counts: dict[str, int],
    *,
    less: Collection[str] = (),
    over: tuple[str, ...] | None = None,
    packing: dict[str, Any] | None = None,
) -> Scenario:
    """Rollout, update or reward as a scenario of its own; its problems keep their place in this one."""
    document, at = draft.document.copy(), (*_AT, *key)
    given, mark = document.branch(at), document.mark(at)
    for name in less:
        given.tree.pop(name, None)
    if over is not None:
        given.overlay(document.branch(over))
    made = ("kind", *counts, "requests", "requests_per_gpu", "global_batch", "run")
    for name in made:
        if name in given.tree and name != "prompts_per_gpu":
            wanted = "no such key: samples and lengths make it"
            raise InputError(draft.document.problem((*at, name), f"'{name}'", wanted, key=True))
    layout = given.tree.pop("layout")
    document.put(_AT, {"kind": kind, **counts}, mark)
    document.overlay(given, at=_AT)
    for name in (packing or {}).keys() - document.branch((*_AT, "packing")).tree.keys():
        document.put((*_AT, "packing", name), (packing or {})[name], draft.document.mark((*at, "packing")))
    for name in ("expect", "variants", "layout", "question"):
        document.tree.pop(name, None)
    document.put(("layout",), layout, mark)
    if key == _JUDGE:
        document.put(("model",), spec.reward.model, draft.document.mark((*_AT, "reward", "model")))
    domain = draft.part.domain if draft.part else 1
    nodes: tuple[int, ...] = draft.part.nodes if draft.part else ()
    if isinstance(spec.pools, PoolsSpec) and draft.shared is not None:
        own = _pool(spec.pools, key[0])
        document.put(("cluster", "pool"), own, mark)
        pool = draft.shared.pools[own]
        domain, nodes = pool.hardware.gpu.scale_up.domain, tuple(range(pool.num_nodes))
    document.put(("cluster", "use_nodes"), list(nodes[: -(-num_gpus // domain)]), mark)
    document.put(("cluster", "gpus"), num_gpus, mark)
    try:
        return draft.resolve(document)
    except InputError as error:
        inside = ".".join(at)
        places = {"workload": inside, "layout": f"{inside}.layout"}
        if key == _JUDGE:
            places["model"] = "workload.reward.model"
        if over is not None:
            laid_over = draft.document.branch(over).tree
            places |= {f"workload.{name}": ".".join((*over, name)) for name in laid_over}
        raise InputError([problem.moved(places) for problem in error.problems]) from None


def _count(scenario: Scenario, _: RlStep) -> None:
    sizes.require_nodes(scenario, scenario.num_nodes)


RESOLVER = Resolver(
    {"rl_step": RlStepSpec},
    rl_step_of,
    faults=("bandwidth", "clock"),
    divides=lambda spec: True,
    count=_count,
)
