"""Attention and experts of a decode on pools of their own: what is asked for, and the two pools as scenarios."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from sim import limits
from sim.errors import InputError, Problem
from sim.scenario.descriptions import Scenario
from sim.scenario.draft import Draft, catch
from sim.scenario.pools import pool_problem
from sim.scenario.values import Branch
from sim.schedule.collectives import KINDS

_AT = ("workload",)


class AfdSpec(Branch):
    """Attention-FFN disaggregation."""

    attention: str
    """Pool that holds attention, cache, shared experts and dense layers."""
    experts: str
    """Pool that holds the routed experts, all its GPUs one EP group."""
    microbatches: Annotated[int, Field(ge=1, le=8, strict=True)] = 3
    """Microbatches under way at once: those that are neither on one pool nor on the other are on the network."""


@dataclass(frozen=True, slots=True)
class Disaggregated:
    """The pools of a decode whose attention and experts are apart, each as a decode of its own on all GPUs of its pool."""

    attention: Scenario
    experts: Scenario
    microbatches: int

    @property
    def price_usd(self) -> float | None:
        """Rent of the mean GPU for an hour [$]; None where one is unknown."""
        pools = (self.attention, self.experts)
        rents = [(part.num_ranks, part.hardware.gpu_hour_usd) for part in pools if part.hardware]
        if any(price is None for _, price in rents):
            return None
        return sum(num * price for num, price in rents if price) / sum(num for num, _ in rents)


def disaggregated(draft: Draft, asked: AfdSpec, kernel: str, *, overlap: bool) -> Disaggregated:
    """Resolve both pools; problems are added to the draft, and InputError, empty, is raised where it has some."""
    _check(draft, asked, kernel, overlap=overlap)
    if draft.problems or draft.shared is None:
        raise InputError(())
    tp, etp = draft.asked.tp or 1, draft.asked.etp or 1
    sizes = {
        name: own.num_nodes * own.hardware.gpu.scale_up.domain for name, own in draft.shared.pools.items()
    }
    domain = draft.shared.pools[asked.attention].hardware.gpu.scale_up.domain
    ep = draft.asked.ep or sizes[asked.experts] // etp
    if ep * etp != sizes[asked.experts]:
        wanted = f"{sizes[asked.experts] // etp}: all GPUs of the pool '{asked.experts}' are one EP group"
        draft.problem(("layout", "ep"), str(ep), wanted)
        raise InputError(())
    whole = {"ep": ep, **({"tp": etp, "etp": etp} if etp > 1 else {})}
    # The experts of its EP groups are elsewhere: groups of a node need no more than that they divide the pool.
    own = {"tp": tp, "ep": domain}
    attention = catch(draft.problems, partial(_part, draft, asked.attention, own))
    experts = catch(draft.problems, partial(_part, draft, asked.experts, whole))
    if attention is None or experts is None or draft.problems:
        raise InputError(())
    pairs = f"GPUs of '{asked.attention}' x of '{asked.experts}'"
    limits.require(attention.num_ranks * experts.num_ranks, limits.PAIRS, pairs)
    draft.layout = {"ep": ep, "tp": tp, **({"etp": etp} if etp > 1 else {})}
    draft.derived = {"overlap": False}
    return Disaggregated(attention, experts, asked.microbatches)


def _check(draft: Draft, asked: AfdSpec, kernel: str, *, overlap: bool) -> None:
    pools = [*draft.shared.pools] if draft.shared else []
    for key in ("attention", "experts"):
        draft.problems += pool_problem(draft.document, (*_AT, "afd", key), getattr(asked, key), pools)
    if asked.attention == asked.experts:
        wanted = "another pool than that of attention"
        draft.problem((*_AT, "afd", "experts"), f"'{asked.experts}'", wanted)
    for key in ("pool", "gpus", "use_nodes"):
        if draft.document.get(("cluster", key)) not in (None, "all"):
            wanted = "no such key: both pools are taken whole"
            at = ("cluster", key)
            draft.problems.append(draft.document.problem(at, f"'{key}' next to afd", wanted, key=True))
    for key in ("pp", "cp", "dp"):
        if getattr(draft.asked, key) not in (None, 1):
            wanted = "no such key next to afd: 'tp' of attention, 'ep' and 'etp' of experts"
            draft.problem(("layout", key), str(getattr(draft.asked, key)), wanted)
    if overlap:
        draft.problem(
            (*_AT, "overlap"), "true next to afd", "'afd.microbatches', of which one overlaps others"
        )
    if KINDS[kernel].flow_per_node:
        direct = ", ".join(name for name, kind in KINDS.items() if not kind.flow_per_node)
        wanted = f"one of: {direct}, whose records go straight to the GPU of an expert"
        draft.problem((*_AT, "kernel", "kind"), f"'{kernel}' next to afd", wanted)
    if draft.fidelity == "closed_form":
        draft.problem(
            ("fidelity",), "'closed_form' next to afd", "flow: what goes between the pools is on the network"
        )
    if draft.document.get((*_AT, "placement", "kind")) == "per_microbatch":
        wanted = "contiguous or eplb next to afd: no weights move between its microbatches"
        draft.problem((*_AT, "placement", "kind"), "'per_microbatch'", wanted)
    for own in draft.shared.faults.values() if draft.shared else ():
        for fault in own:
            if not fault.lasts or fault.quantity in ("hbm", "scale_up"):
                got = f"of {fault.quantity}" if fault.lasts else f"of {fault.part} that comes and goes"
                wanted = "faults of bandwidth or clock for the whole run next to afd"
                draft.problem(("cluster", "faults"), f"a fault {got}", wanted)
    if draft.document.get(("software",)) not in (None, "none"):
        draft.problem(
            ("software",), str(draft.document.get(("software",))), "none next to afd: no host is in it"
        )


def _part(draft: Draft, pool: str, layout: dict[str, Any]) -> Scenario:
    """A pool as a decode of its own; its problems keep their place in the scenario."""
    document = draft.document.copy()
    mark = document.mark((*_AT, "afd"))
    del document.tree["workload"]["afd"]
    for key in ("expect", "variants", "question"):
        document.tree.pop(key, None)
    document.put((*_AT, "overlap"), value=False, mark=mark)
    document.put(("cluster", "pool"), pool, mark)
    document.put(("layout",), layout, document.mark(("layout",)) if draft.document.get(("layout",)) else mark)
    try:
        return draft.resolve(document)
    except InputError as error:
        raise InputError(
            Problem(p.where or mark, p.key, p.got, p.wanted, p.nearest) for p in error.problems
        ) from None
