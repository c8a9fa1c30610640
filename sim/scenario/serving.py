"""The serving workload of a scenario: its requests and its two pools, each a scenario of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from sim import limits
from sim.cluster.faults import QUANTITIES
from sim.cluster.kernels import Kernel
from sim.errors import InputError
from sim.scenario import sizes
from sim.scenario.descriptions import Scenario, Workload
from sim.scenario.draft import Draft, catch
from sim.scenario.inference import Inference
from sim.scenario.kinds import Resolver
from sim.scenario.serving_pools import DecodePoolSpec, PrefillPoolSpec, instance_of, instance_sizes
from sim.scenario.serving_requests import Arrivals, Classes, ObjectiveSpec, check_requests, requests_of
from sim.scenario.values import Branch, Count, WorkloadSpec
from sim.schemas import Fraction, Seconds, Size, written
from sim.workload import requests as users

_AT = ("workload",)


class PrefixCacheSpec(Branch):
    """Blocks of prompts that are kept for later ones that begin alike, those least recently used dropped first."""

    capacity: Size
    """Of each GPU's memory, set aside from that for KV."""
    block_tokens: Count = 512
    """Of a block; with a trace that has hashes of blocks, as many as these stand for."""


class EngineSpec(Branch):
    """What the serving software decides, by the names that it has there."""

    chunk_tokens: Count | None = None
    """Most tokens of a GPU in a pass that prefills; `prefill.batch_tokens` when left out."""
    mixed: bool = False
    """Running requests take part in passes that prefill (chunked prefill); else these hold them up. Where pools are one."""
    block_tokens: Count = 64
    """KV is held in whole blocks."""
    preemption: Literal["none", "recompute", "swap"] = "none"
    """none: a request's whole KV is reserved; else it grows, and the latest of a full rank is put out: computed again, or
    moved to the host over PCIe."""
    prefix_cache: PrefixCacheSpec | None = None
    """Needs requests whose blocks have hashes."""
    routing: Literal["round_robin", "shortest_queue", "cache_aware"] | None = None
    """How an arrival is bound to a rank: in turn, to the one with fewest requests, or to the one that keeps most of its
    prompt; one queue for all ranks when left out."""
    max_requests_per_gpu: Annotated[int, Field(ge=1, le=10**5, strict=True)] | None = None
    """Most requests of a GPU at once; `decode.requests_per_gpu` when left out."""
    memory_fraction: Fraction | None = None
    """Part of a GPU's memory that weights, KV, buffers and graphs may use; sets `reserve` of both plans."""


class ServingSpec(WorkloadSpec):
    """Requests that arrive, wait, are prefilled and decoded."""

    kind: Literal["serving"]
    arrivals: Arrivals
    classes: Classes = Field(default_factory=dict)
    """Requests that are measured apart, by name."""
    prefill: PrefillPoolSpec
    decode: DecodePoolSpec
    engine: EngineSpec = EngineSpec()
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
    def engine(self) -> EngineSpec:
        """Decisions of the serving software."""
        return self.spec.engine

    @property
    def chunk_tokens(self) -> int:
        """Most tokens of a GPU in a pass that prefills [tokens]."""
        return self.spec.engine.chunk_tokens or self.spec.prefill.batch_tokens

    @property
    def num_gpus(self) -> int:
        """GPUs of all instances of both pools."""
        prefill, decode = self.spec.prefill.instances, self.spec.decode.instances
        machines = self.decode.workload.parts or (self.decode,)
        return prefill * self.prefill.num_ranks + decode * sum(part.num_ranks for part in machines)

    @property
    def seats(self) -> Scenario:
        """An instance that decodes, or where experts are apart its attention: who has the requests and their KV."""
        return next(iter(self.decode.workload.parts), self.decode)


def serving_of(draft: Draft, spec: ServingSpec) -> Serving:
    """Resolve a serving workload, and a scenario for an instance of each pool.

    InputError with the draft's problems; InfeasibleError where no machine could run a pool.
    """
    problems = len(draft.problems)
    size = instance_sizes(draft, {"prefill": spec.prefill, "decode": spec.decode})
    if not 0 <= spec.cached < 1:
        draft.problem((*_AT, "cached"), f"{spec.cached:.0%}", "0 % or more, and less than 100 %")
    check_requests(draft, spec.arrivals, spec.classes, spec.slo)
    if spec.until is not None and spec.until <= 0:
        draft.problem((*_AT, "until"), str(draft.document.get((*_AT, "until"))), "more than 0 s")
    _check_engine(draft, spec)
    if len(draft.problems) > problems:
        raise InputError(draft.problems)
    asked = requests_of(draft, spec.arrivals, spec.classes)
    _check_blocks(draft, spec.engine, asked)
    prompt = max(2, round(float(asked.prompt_tokens.mean())))
    context = max(2, round(prompt + float(asked.output_tokens.mean()) / 2))
    follows = spec.decode.instances and spec.decode.pool == spec.prefill.pool
    first = spec.prefill.instances * size["prefill"] if follows else 0
    prefill = catch(
        draft.problems,
        lambda: instance_of(draft, "prefill", spec.prefill, size["prefill"], 0, {"prompt_tokens": prompt}),
    )
    decode = catch(
        draft.problems,
        lambda: instance_of(draft, "decode", spec.decode, size["decode"], first, {"context_tokens": context}),
    )
    if prefill is not None and decode is not None:
        _check_cache(draft, spec, prefill.workload, decode.workload)
    if prefill is None or decode is None or len(draft.problems) > problems:
        raise InputError(draft.problems)
    draft.layout = {"ep": prefill.ep}
    return Serving(spec, asked, prefill, decode)


def _check_engine(draft: Draft, spec: ServingSpec) -> None:
    engine, at = spec.engine, (*_AT, "engine")
    if engine.chunk_tokens and engine.chunk_tokens < engine.block_tokens and engine.mixed:
        draft.problem(
            (*at, "chunk_tokens"),
            str(engine.chunk_tokens),
            f"a block of {engine.block_tokens} tokens or more",
        )
    if engine.mixed and spec.decode.instances:
        draft.problem(
            (*at, "mixed"),
            "true next to decode.instances",
            "false, or 'decode.instances: 0': pools are apart",
        )
    if engine.max_requests_per_gpu and spec.decode.requests_per_gpu:
        wanted = "one of them: the most requests of a GPU"
        draft.problem((*at, "max_requests_per_gpu"), "given next to decode.requests_per_gpu", wanted)
    if engine.routing == "cache_aware" and engine.prefix_cache is None:
        draft.problem((*at, "routing"), "cache_aware", "a 'prefix_cache' to look at")
    if engine.memory_fraction is None:
        return
    if not 0 < engine.memory_fraction <= 1:
        got = f"{engine.memory_fraction:.0%}"
        draft.problem((*at, "memory_fraction"), got, "more than 0 %, and 100 % at the most")
    for name, pool in (("prefill", spec.prefill), ("decode", spec.decode)):
        if "reserve" in pool.plan:
            got = f"given next to {name}.plan.reserve"
            draft.problem((*at, "memory_fraction"), got, "one of them: what may be used, or what may not")


def _check_cache(draft: Draft, spec: ServingSpec, prefill: Workload, decode: Workload) -> None:
    """KV that one pool writes is read by the other as it is."""
    assert isinstance(prefill, Inference)
    assert isinstance(decode, Inference)
    written, read = prefill.formats.kv, decode.formats.kv
    if written != read:
        key = next((key for key in ("kv_dtype", "precision") if key in spec.decode.plan), "kv_dtype")
        wanted = f"'{written}', that of the prefill plan: KV is read as it was written"
        draft.problem((*_AT, "decode", "plan", key), f"KV in '{read}'", wanted)


def _check_blocks(draft: Draft, engine: EngineSpec, asked: users.Requests) -> None:
    if engine.prefix_cache is None:
        return
    at, own = (*_AT, "engine", "prefix_cache"), engine.prefix_cache.block_tokens
    if asked.blocks is None:
        wanted = "requests with hashes of blocks, as Mooncake's traces have them; or 'cached', a share of every prompt"
        raise InputError(draft.document.problem(at, "requests without hashes", wanted))
    if own != asked.blocks.block_tokens:
        wanted = f"{asked.blocks.block_tokens}, the tokens that a hash of the trace stands for"
        raise InputError(draft.document.problem((*at, "block_tokens"), str(own), wanted))


def _count(scenario: Scenario, work: Serving) -> None:
    sizes.require_nodes(scenario, scenario.num_nodes, "the nodes of the cluster")
    prefill, decode = work.prefill.num_ranks, work.seats.num_ranks
    keys = f"GPUs of a prefill instance {prefill:,} x of a decode instance {decode:,}"
    limits.require(prefill * decode, limits.PAIRS, keys)


RESOLVER = Resolver(
    {"serving": ServingSpec},
    serving_of,
    faults=QUANTITIES,
    windows=True,
    leaves=False,
    survives=True,
    divides=lambda spec: True,
    count=_count,
)
