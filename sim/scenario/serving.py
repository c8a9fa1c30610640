"""The serving workload of a scenario: its requests and its two pools, each a scenario of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from sim import limits
from sim.cluster.kernels import Kernel
from sim.errors import InputError, Problem
from sim.scenario import sizes
from sim.scenario.descriptions import Scenario, Workload
from sim.scenario.draft import Draft, catch, named_file
from sim.scenario.kinds import Resolver
from sim.scenario.values import Branch, Count, Machines, Number, WorkloadSpec
from sim.schemas import Fraction, Seconds, written
from sim.workload import requests as users

_AT = ("workload",)
_SEED = 3  # stream of arrivals within the scenario's seed


class LengthsSpec(Branch):
    """Tokens of a prompt or an answer."""

    kind: Literal["fixed", "exponential", "lognormal"]
    mean: Count
    """Tokens."""
    spread: Annotated[Number, Field(ge=0, le=4)] = 1.0
    """Standard deviation of the logarithm (lognormal)."""
    most: Count = 131_072
    """A longer draw is cut to this."""


class PoissonSpec(Branch):
    """Independent users."""

    kind: Literal["poisson"]
    requests: Annotated[int, Field(ge=1, le=10**7, strict=True)]
    requests_per_s: Annotated[Number, Field(gt=0, le=1e7)]
    prompt: LengthsSpec
    output: LengthsSpec


class RequestTraceSpec(Branch):
    """Requests as recorded."""

    kind: Literal["trace"]
    file: str
    """arrival_s,prompt_tokens,output_tokens; relative to the scenario, or absolute."""


class PrefillPoolSpec(Branch):
    """Instances that prefill."""

    instances: Machines = 1
    ep: Count
    """GPUs of one instance."""
    batch_tokens: Count = 16_384
    """Most prompt tokens of a GPU in one pass; longer prompts go in chunks."""
    plan: dict[str, Any]
    """A `prefill` workload without kind and prompts: gate, kernel, placement, overlap ..."""


class DecodePoolSpec(Branch):
    """Instances that decode."""

    instances: Annotated[int, Field(ge=0, le=2**17, strict=True)] = 1
    """0: the prefill instances decode too, and a prefill holds up their steps."""
    ep: Count
    """GPUs of one instance."""
    requests_per_gpu: Annotated[int, Field(ge=1, le=10**5, strict=True)] | None = None
    """Most requests of a GPU in one step; what memory holds at the mean context when left out."""
    plan: dict[str, Any]
    """A `decode` workload without kind, requests and context: gate, kernel, tokens_per_step, acceptance ..."""


class ObjectiveSpec(Branch):
    """Times that a request must meet to count as good."""

    ttft: Seconds | None = None
    tpot: Seconds | None = None


class ServingSpec(WorkloadSpec):
    """Requests that arrive, wait, are prefilled and decoded."""

    kind: Literal["serving"]
    arrivals: Annotated[PoissonSpec | RequestTraceSpec, Field(discriminator="kind")]
    prefill: PrefillPoolSpec
    decode: DecodePoolSpec
    policy: Literal["fcfs", "first_fit", "shortest_first"] = "fcfs"
    """Who is taken from a queue."""
    cached: Fraction = written("0 %")
    """Part of every prompt that is found in a cache and not computed."""
    slo: ObjectiveSpec = ObjectiveSpec()
    until: Seconds | None = None
    """When to stop; until the last request has ended when left out."""


@dataclass(frozen=True, slots=True)
class Serving(Workload):
    """Requests and two pools of instances; each pool's instance is a scenario of its own."""

    spec: ServingSpec
    requests: users.Requests
    prefill: Scenario
    decode: Scenario

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Those of both pools."""
        return (*self.prefill.workload.kernels, *self.decode.workload.kernels)

    @property
    def num_gpus(self) -> int:
        """GPUs of all instances of both pools."""
        return sum(pool.instances * pool.ep for pool in (self.spec.prefill, self.spec.decode))


def serving_of(draft: Draft, spec: ServingSpec) -> Serving:
    """Resolve a serving workload, and a scenario for an instance of each pool.

    Parameters
    ----------
    draft : Draft
        Cluster, model and seed of the scenario; problems are added to it.
    spec : ServingSpec

    Returns
    -------
    Serving

    Raises
    ------
    InputError
        With the draft's problems.
    InfeasibleError
        Where no machine could run a pool.
    """
    per_node, problems = draft.gpus_per_node, len(draft.problems)
    for name, ep in (("prefill", spec.prefill.ep), ("decode", spec.decode.ep)):
        if ep % per_node:
            wanted = f"whole nodes: a multiple of the {per_node} GPUs of a node"
            draft.problem((*_AT, name, "ep"), str(ep), wanted)
    needed = spec.prefill.instances * spec.prefill.ep + spec.decode.instances * spec.decode.ep
    if needed > draft.num_ranks:
        wanted = f"{-(-needed // per_node)} or more: the instances have {needed} GPUs"
        draft.problem(("cluster", "nodes"), str(draft.num_nodes), wanted)
    if not spec.decode.instances and spec.decode.ep != spec.prefill.ep:
        wanted = f"{spec.prefill.ep}, the prefill instances that decode too"
        draft.problem((*_AT, "decode", "ep"), str(spec.decode.ep), wanted)
    if not 0 <= spec.cached < 1:
        draft.problem((*_AT, "cached"), f"{spec.cached:.0%}", "0 % or more, and less than 100 %")
    for key in ("ttft", "tpot"):
        bound = getattr(spec.slo, key)
        if bound is not None and bound <= 0:
            draft.problem((*_AT, "slo", key), str(draft.document.get((*_AT, "slo", key))), "more than 0 s")
    if spec.until is not None and spec.until <= 0:
        draft.problem((*_AT, "until"), str(draft.document.get((*_AT, "until"))), "more than 0 s")
    if len(draft.problems) > problems:
        raise InputError(draft.problems)
    asked = _requests(draft, spec)
    prompt = max(2, round(float(asked.prompt_tokens.mean())))
    context = max(2, round(prompt + float(asked.output_tokens.mean()) / 2))
    prefill = catch(
        draft.problems,
        lambda: _part(draft, "prefill", spec.prefill.ep, spec.prefill.plan, {"prompt_tokens": prompt}),
    )
    decode = catch(
        draft.problems,
        lambda: _part(draft, "decode", spec.decode.ep, spec.decode.plan, {"context_tokens": context}),
    )
    if prefill is None or decode is None:
        raise InputError(draft.problems)
    draft.layout = {"ep": spec.prefill.ep}
    return Serving(spec, asked, prefill, decode)


def _requests(draft: Draft, spec: ServingSpec) -> users.Requests:
    if not isinstance(spec.arrivals, PoissonSpec):
        return users.read(*named_file(draft.document, ("workload", "arrivals", "file")))
    rng = np.random.default_rng([draft.seed, _SEED])
    prompt, output = (_lengths(lengths) for lengths in (spec.arrivals.prompt, spec.arrivals.output))
    return users.poisson(spec.arrivals.requests, spec.arrivals.requests_per_s, prompt, output, rng)


def _lengths(spec: LengthsSpec) -> users.Lengths:
    return users.Lengths(spec.kind, float(spec.mean), spec.spread, spec.most)


def _part(draft: Draft, kind: str, ep: int, plan: dict[str, Any], sizes: dict[str, int]) -> Scenario:
    """One pool's instance as a scenario of its own; its problems keep their place in the serving scenario."""
    document = draft.document.copy()
    mark, ep_mark = document.mark((*_AT, kind)), document.mark((*_AT, kind, "ep"))
    given = document.branch((*_AT, kind, "plan"))
    for key in ("kind", *sizes, "requests_per_gpu", "prompts_per_gpu", "cached_tokens", "chunk_tokens"):
        if key in plan:
            raise InputError(
                draft.document.problem(
                    (*_AT, kind, "plan", key), f"'{key}'", "no such key in a plan: the loop sets it", key=True
                )
            )
    document.put(_AT, {"kind": kind, **sizes}, mark)
    document.overlay(given, at=_AT)
    for key in ("expect", "variants", "layout"):
        document.tree.pop(key, None)
    document.put(("layout",), {"ep": ep}, ep_mark)
    document.put(("cluster", "nodes"), ep // draft.gpus_per_node, mark)
    faults = document.get(("cluster", "faults"))
    if isinstance(faults, list):  # those of nodes are of single instances
        everywhere = [fault for fault in faults if not (isinstance(fault, dict) and "node" in fault)]
        document.put(("cluster", "faults"), everywhere, document.mark(("cluster", "faults")))
    try:
        return draft.resolve(document)
    except InputError as error:
        places = {"workload": f"workload.{kind}.plan", "layout": f"workload.{kind}"}
        moved = []
        for problem in error.problems:
            first, dot, rest = problem.key.partition(".")
            key = places.get(first, first) + dot + rest
            moved.append(Problem(problem.where, key, problem.got, problem.wanted, problem.nearest))
        raise InputError(moved) from None


def _count(scenario: Scenario, work: Serving) -> None:
    sizes.require_nodes(scenario, scenario.num_nodes, "the nodes of the cluster")
    pairs = work.spec.prefill.ep * work.spec.decode.ep
    keys = f"workload.prefill.ep {work.spec.prefill.ep:,} x workload.decode.ep {work.spec.decode.ep:,}"
    limits.require(pairs, limits.PAIRS, keys)


RESOLVER = Resolver({"serving": ServingSpec}, serving_of, computes=True, count=_count)
