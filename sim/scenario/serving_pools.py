"""The pools of a serving scenario: the GPUs of their instances, and an instance of each as a scenario of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from sim import units
from sim.cluster.fabrics import NodePool
from sim.cluster.parts import part_of
from sim.documents import Document
from sim.errors import InputError, Mark
from sim.scenario.afd import AfdSpec
from sim.scenario.descriptions import Scenario
from sim.scenario.draft import Draft, LayoutSpec
from sim.scenario.pools import pool_problem
from sim.scenario.values import Branch, Count, Machines

_AT = ("workload",)


class PrefillPoolSpec(Branch):
    """Instances that prefill."""

    pool: str | None = None
    """Pool of the cluster that they stand on, where it has pools."""
    instances: Machines = 1
    ep: Count | None = None
    """Short for `layout: {ep: ...}`: the GPUs of one instance."""
    layout: LayoutSpec | None = None
    """Of one instance, which has as many GPUs as it makes."""
    batch_tokens: Count = 16_384
    """Most prompt tokens of a GPU in one pass; longer prompts go in chunks."""
    plan: dict[str, Any]
    """A `prefill` workload without kind and prompts: gate, kernel, placement, overlap ..."""


class DecodePoolSpec(Branch):
    """Instances that decode."""

    pool: str | None = None
    """Pool of the cluster that they stand on, where it has pools."""
    instances: Annotated[int, Field(ge=0, le=2**17, strict=True)] = 1
    """0: the prefill instances decode too, and a prefill holds up their steps."""
    ep: Count | None = None
    """Short for `layout: {ep: ...}`: the GPUs of one instance."""
    layout: LayoutSpec | None = None
    """Of one instance, which has as many GPUs as it makes."""
    afd: AfdSpec | None = None
    """Attention and experts of the one instance on pools of their own, which it takes whole; KV goes to that of attention."""
    requests_per_gpu: Annotated[int, Field(ge=1, le=10**5, strict=True)] | None = None
    """Most requests of a GPU (of attention) in one step; what memory holds at the mean context when left out."""
    plan: dict[str, Any]
    """A `decode` workload without kind, requests and context: gate, kernel, tokens_per_step, acceptance ..."""


Pools = Mapping[str, PrefillPoolSpec | DecodePoolSpec]
"""`prefill` and `decode`, as they are asked for."""


def instance_gpus(layout: LayoutSpec) -> int:
    """GPUs of an instance: those that its layout multiplies to, which EP groups and TP groups both cut evenly [count]."""
    shared, ep = (layout.tp or 1) * (layout.cp or 1), layout.ep or 1
    stage = math.lcm(shared, ep * (layout.etp or 1)) if layout.dp is None else shared * layout.dp
    return (layout.pp or 1) * stage


def instance_sizes(draft: Draft, asked: Pools) -> dict[str, int]:
    """Check that the instances of both pools stand on the cluster; pool -> GPUs of one of its instances."""
    if not _pools_named(draft, asked):
        return {}
    size = {name: _num_gpus(draft, name, pool) for name, pool in asked.items()}
    asked = {name: pool for name, pool in asked.items() if _afd(pool) is None}
    needed: dict[str | None, int] = {}
    for name, pool in asked.items():
        per_node = _per_node(draft, pool.pool)
        if size[name] % per_node:
            wanted = f"whole nodes: a multiple of the {per_node} GPUs of a node"
            draft.problem((*_AT, name, _sized_by(pool)), str(size[name]), wanted)
        needed[pool.pool] = needed.get(pool.pool, 0) + pool.instances * size[name]
    for name_, num in needed.items():
        own = _node_pool(draft, name_)
        if own is not None and num > own.num_nodes * _per_node(draft, name_):
            wanted = f"{-(-num // _per_node(draft, name_))} or more: the instances have {num} GPUs"
            draft.problem(("cluster", "pools", str(name_), "nodes"), str(own.num_nodes), wanted)
        elif own is None and num > draft.num_ranks:
            _too_few(draft, num)
    if "decode" in asked and not asked["decode"].instances and size["decode"] != size["prefill"]:
        wanted = f"{size['prefill']}, the prefill instances that decode too"
        draft.problem((*_AT, "decode", _sized_by(asked["decode"])), str(size["decode"]), wanted)
    return size


def _too_few(draft: Draft, needed: int) -> None:
    """Note that a cluster of one hardware is too small."""
    assert draft.part is not None
    per_node = draft.gpus_per_node
    whole = draft.part.num_gpus == draft.num_nodes * draft.part.domain
    got = str(draft.num_nodes) if whole else f"{len(draft.part.nodes)} in use, with {per_node} GPUs each"
    wanted = f"{-(-needed // per_node)} or more: the instances have {needed} GPUs"
    draft.problem(("cluster", "nodes"), got, wanted)


def _pools_named(draft: Draft, asked: Pools) -> bool:
    """Check the pools of the cluster that instances stand on."""
    before, names = len(draft.problems), [*draft.shared.pools] if draft.shared else []
    one = draft.document.get(("cluster", "pool"))
    if one is None and draft.shared is not None:
        for key in ("gpus", "use_nodes"):
            if draft.document.get(("cluster", key)) not in (None, "all"):
                wanted = "no such key: instances stand on the first nodes of their pools"
                draft.problems.append(draft.document.problem(("cluster", key), f"'{key}'", wanted, key=True))
    for name, pool in asked.items():
        afd = _afd(pool)
        if afd is not None:
            _check_apart(draft, afd, asked)
        elif pool.pool is None and names and one is None:
            wanted = f"the key 'pool': one of {', '.join(names)}"
            draft.problem((*_AT, name), "no 'pool'", wanted)
        elif pool.pool is not None and one is not None:
            draft.problem((*_AT, name, "pool"), f"'{pool.pool}' next to cluster.pool", "one of them")
        elif pool.pool is not None:
            draft.problems += pool_problem(draft.document, (*_AT, name, "pool"), pool.pool, names)
    prefill, decode = asked["prefill"], asked["decode"]
    if not decode.instances and decode.pool != prefill.pool and _afd(decode) is None:
        wanted = f"'{prefill.pool}', that of the prefill instances, which decode too"
        draft.problem((*_AT, "decode", "pool"), f"'{decode.pool}'", wanted)
    return len(draft.problems) == before


def _afd(pool: PrefillPoolSpec | DecodePoolSpec) -> AfdSpec | None:
    return pool.afd if isinstance(pool, DecodePoolSpec) else None


def _check_apart(draft: Draft, afd: AfdSpec, asked: Pools) -> None:
    """Check an instance that decodes with attention and experts apart."""
    decode, at = asked["decode"], (*_AT, "decode")
    for key, given in (("pool", decode.pool), ("ep", decode.ep)):
        if given is not None:
            wanted = "no such key next to afd, which names its pools and takes them whole"
            draft.problems.append(draft.document.problem((*at, key), f"'{key}'", wanted, key=True))
    if decode.instances != 1:
        draft.problem((*at, "instances"), str(decode.instances), "1 next to afd: it takes both pools whole")
    for key in ("attention", "experts"):
        if getattr(afd, key) == asked["prefill"].pool:
            wanted = "another pool than that of prefill"
            draft.problem((*at, "afd", key), f"'{getattr(afd, key)}'", wanted)


def _node_pool(draft: Draft, name: str | None) -> NodePool | None:
    return draft.shared.pools[name] if draft.shared is not None and name is not None else None


def _per_node(draft: Draft, name: str | None) -> int:
    """GPUs of a node that instances of a pool take."""
    own = _node_pool(draft, name)
    return draft.gpus_per_node if own is None else own.hardware.gpu.scale_up.domain


def _sized_by(pool: PrefillPoolSpec | DecodePoolSpec) -> str:
    return "layout" if pool.layout else "ep"


def _num_gpus(draft: Draft, kind: str, pool: PrefillPoolSpec | DecodePoolSpec) -> int:
    """GPUs of an instance of a pool."""
    afd = _afd(pool)
    if afd is not None:
        return sum(
            own.num_nodes * own.hardware.gpu.scale_up.domain
            for name, own in (draft.shared.pools if draft.shared else {}).items()
            if name in (afd.attention, afd.experts)
        )
    if (pool.ep is None) == (pool.layout is None):
        got = "neither 'ep' nor 'layout'" if pool.layout is None else "'ep' next to 'layout'"
        draft.problem((*_AT, kind), got, "one of them: the layout of an instance")
        return _per_node(draft, pool.pool)
    return instance_gpus(pool.layout or LayoutSpec(ep=pool.ep))


def instance_of(
    draft: Draft,
    kind: str,
    pool: PrefillPoolSpec | DecodePoolSpec,
    num_ranks: int,
    first_rank: int,
    lengths: dict[str, int],
) -> Scenario:
    """Resolve an instance, from its first GPU in its pool, as a scenario; problems keep their place in the serving one.

    `lengths` are the tokens of a mean request, by their keys in the workload.
    """
    document = draft.document.copy()
    mark, asked_in = document.mark((*_AT, kind)), "ep" if pool.layout is None else "layout"
    layout = {"ep": pool.ep} if pool.layout is None else pool.layout.model_dump(exclude_none=True)
    afd = _afd(pool)
    given = document.branch((*_AT, kind, "plan"))
    for key in (
        "kind",
        "afd",
        *lengths,
        "requests",
        "requests_per_gpu",
        "prompts_per_gpu",
        "prompts",
        "cached_tokens",
        "chunk_tokens",
    ):
        if key in pool.plan:
            raise InputError(
                draft.document.problem(
                    (*_AT, kind, "plan", key), f"'{key}'", "no such key in a plan: the loop sets it", key=True
                )
            )
    document.put(_AT, {"kind": kind, **lengths}, mark)
    document.overlay(given, at=_AT)
    fraction = draft.document.get((*_AT, "engine", "memory_fraction"))
    if fraction is not None:
        used = units.parse(str(fraction), "fraction")
        document.put((*_AT, "reserve"), f"{100 * (1 - used):.12g} %", document.mark((*_AT,)))
    for key in ("expect", "variants", "layout", "question"):
        document.tree.pop(key, None)
    if afd is not None:
        document.put((*_AT, "afd"), afd.model_dump(), draft.document.mark((*_AT, kind, "afd")))
        if pool.layout is not None:
            document.put(("layout",), layout, document.mark((*_AT, kind, asked_in)))
        return _resolved(draft, document, kind, pool)
    document.put(("layout",), layout, document.mark((*_AT, kind, asked_in)))
    _place(draft, document, pool.pool, first_rank, num_ranks, mark)
    faults = document.get(("cluster", "faults"))
    if isinstance(faults, list):  # those of nodes are of single instances
        everywhere = [fault for fault in faults if not (isinstance(fault, dict) and "node" in fault)]
        document.put(("cluster", "faults"), everywhere, document.mark(("cluster", "faults")))
    return _resolved(draft, document, kind, pool)


def _resolved(
    draft: Draft, document: Document, kind: str, pool: PrefillPoolSpec | DecodePoolSpec
) -> Scenario:
    """The scenario of an instance, problems where they are written."""
    try:
        return draft.resolve(document)
    except InputError as error:
        inside = f"workload.{kind}" if pool.layout is None else f"workload.{kind}.layout"
        own = f"workload.{kind}"
        places = {"workload": f"{own}.plan", "workload.afd": f"{own}.afd", "layout": inside}
        raise InputError([problem.moved(places) for problem in error.problems]) from None


def _place(
    draft: Draft, document: Document, pool: str | None, first_rank: int, num_ranks: int, mark: Mark
) -> None:
    """Give an instance GPUs: a cluster of its own, or its share of the pool or the part that is in use."""
    part, own = draft.part, _node_pool(draft, pool)
    assert part is not None
    if own is not None:
        part = part_of(own.num_nodes, own.hardware.gpu.scale_up.domain)
        document.put(("cluster", "pool"), pool, mark)
    elif draft.shared is None and part.num_gpus == draft.num_nodes * part.domain:
        document.put(("cluster", "nodes"), num_ranks // part.domain, mark)
        return
    first = first_rank // part.gpus_per_node
    nodes = list(part.nodes[first : first + num_ranks // part.gpus_per_node])
    document.put(("cluster", "use_nodes"), nodes, mark)
    document.put(("cluster", "gpus"), num_ranks, mark)
