"""The faults of a scenario's cluster: parts that are worse than healthy, checked against the cluster that is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from sim import units
from sim.cluster import faults, topology
from sim.cluster.faults import Fault
from sim.cluster.hardware import Hardware
from sim.documents import Document, Path_
from sim.errors import Problem, nearest
from sim.scenario.draft import Draft
from sim.scenario.kinds import Resolver
from sim.scenario.values import Branch, Index
from sim.schemas import Duration
from sim.units import UnitError

_AT = ("cluster", "faults")
_PARTS: dict[frozenset[str], tuple[str, ...]] = {
    frozenset({"node"}): ("bandwidth", "clock", "hbm", "scale_up"),
    frozenset({"node", "gpu"}): ("clock", "hbm", "scale_up"),
    frozenset({"node", "nic"}): ("bandwidth",),
    frozenset({"rail"}): ("bandwidth",),
    frozenset({"leaf"}): ("bandwidth",),
    frozenset({"link"}): ("bandwidth",),
}
"""Keys that name a part -> the keys of what is worse than healthy."""
_SAID = (
    "'bandwidth' of a 'node', of 'node' and 'nic', of a 'rail', a 'leaf' or a 'link'; or 'clock', 'hbm' or 'scale_up' of a 'node', "
    "or of 'node' and 'gpu'"
)


class FaultSpec(Branch):
    """A part that is worse than it should be, for the whole run or between two instants."""

    node: Index | None = None
    """A node, counted from 0; on a bare fabric a host."""
    nic: Index | None = None
    """With `node`: one NIC."""
    gpu: Index | None = None
    """With `node`: one GPU; a node without it means all of its GPUs."""
    rail: Index | None = None
    """This NIC of every node."""
    leaf: str | None = None
    """A leaf with all that is cabled to it, named as in `links`: rail3/leaf0."""
    link: str | None = None
    """One resource by its name in `links`: node3/nic2/tx."""
    bandwidth: str | None = None
    """Rate of NICs or links: 200 Gb/s, or a part of the healthy rate, 50 %; 0 is dead."""
    clock: str | None = None
    """Compute clock of the GPU over that of the others; 0 % is dead."""
    hbm: str | None = None
    """Rate of the GPU's memory, or a part of the healthy one."""
    scale_up: str | None = None
    """Rate of the GPU's scale-up link, or a part of the healthy one."""
    from_: Duration | None = Field(None, alias="from")
    """Instant of the run at which it begins; left out: at its start."""
    until: Duration | None = None
    """Instant at which the part is healthy again; left out: never."""

    @field_validator("bandwidth", "clock", "hbm", "scale_up", mode="before")
    @classmethod
    def _not_negative(cls, value: object, info: Any) -> object:
        if value is not None and _rate(value, 1.0, info.field_name == "clock") < 0:
            raise UnitError(f"'{value}'", "a rate of 0 or more")
        return str(value) if value is not None else None


def _rate(text: object, healthy: float, fraction: bool = False) -> float:
    """A rate, or a part of the healthy one [bytes/s]; with `fraction` a part alone."""
    if fraction or (isinstance(text, str) and text.rstrip().endswith("%")):
        return units.parse(text, "fraction") * healthy
    return units.parse(text, "bytes/s")


def faults_of(draft: Draft, asked: Sequence[FaultSpec], kind: Resolver, name: str) -> tuple[Fault, ...]:
    """Check the faults of a scenario, given what the resolver of its workload knows of them; problems are added to the draft.

    Hardware, nodes and fabric are known, and not too large to be built.
    """
    if not asked:
        return ()
    views = _views(draft)
    taken: dict[tuple[str, int], list[tuple[int, Fault]]] = {}
    whole: dict[str, list[Fault]] = {pool: [] for pool in views}
    own_pool = draft.shared.own if draft.shared else ""
    for i, asked_for in enumerate(asked):
        path, spec = (*_AT, i), asked_for
        pool = own_pool
        if draft.shared is not None and spec.node is not None:
            owner = draft.shared.owner(spec.node)
            if owner is None:
                num = draft.shared.num_nodes
                wanted = f"0 to {num - 1}: the pools have {num} nodes, numbered one pool after the other"
                draft.problem((*path, "node"), str(spec.node), wanted)
                continue
            pool = owner
            first = draft.shared.pools[pool].first_node
            spec = spec.model_copy(update={"node": spec.node - first})
        cluster, hardware = views[pool]
        domain = hardware.gpu.scale_up.domain if hardware else 1
        known = kind if pool == own_pool or draft.divides else None
        problems = list(_problems(draft.document, path, spec, cluster, domain, known, name))
        if not problems and draft.fidelity == "closed_form":
            problems = list(_in_time(draft.document, path, spec))
        fault = None if problems else _fault(draft.document, path, spec, cluster, domain, problems)
        draft.problems += problems
        if fault is None:
            continue
        rows = faults.rows_of(cluster, fault, domain)
        parts = rows if fault.quantity != "clock" else np.flatnonzero(fault.gpus(cluster.num_gpus, domain))
        if not len(parts):
            draft.problem(
                path, f"a fault of {fault.part}", "a part that this cluster has: it has no such link"
            )
            continue
        own = [(f"clock of {pool}" if fault.quantity == "clock" else "row", int(part)) for part in parts]
        others = [pair for key in own for pair in taken.get(key, ())]
        again = next((j for j, other in others if _together(fault, other)), None)
        if again is not None:
            draft.problem(
                path, "a second fault of the same part", f"one at a time; the first is number {again}"
            )
        for key in own:
            taken.setdefault(key, []).append((i, fault))
        for name_ in [pool] if spec.node is not None else views:
            whole[name_].append(fault)
    if draft.shared is not None:
        faults_ = {pool: tuple(rows) for pool, rows in whole.items()}
        draft.shared = replace(draft.shared, faults=faults_)
    return tuple(whole[own_pool])


def _views(draft: Draft) -> dict[str, tuple[topology.Cluster, Hardware | None]]:
    """The healthy cluster as each pool sees it, and the pool's hardware; without pools under the name ""."""
    if isinstance(draft.fabric, topology.LeafSpine):
        return {"": (topology.build_leaf_spine(draft.fabric), None)}
    assert draft.hardware is not None
    assert draft.fabric is not None
    if draft.shared is None:
        return {"": (topology.build(draft.hardware, draft.num_nodes, draft.fabric), draft.hardware)}
    pools = draft.shared.pools
    return {name: (view, pools[name].hardware) for name, view in draft.shared.build(draft.fabric).items()}


def _together(one: Fault, other: Fault) -> bool:
    return one.from_s < other.until_s and other.from_s < one.until_s


def _problems(
    document: Document,
    path: Path_,
    spec: FaultSpec,
    cluster: topology.Cluster,
    gpus: int,
    kind: Resolver | None,
    name: str,
) -> Any:
    """Yield what is wrong with the keys of a fault."""
    named = frozenset(
        key for key in ("node", "nic", "gpu", "rail", "leaf", "link") if getattr(spec, key) is not None
    )
    does = [key for key in faults.QUANTITIES if getattr(spec, key) is not None]
    if named not in _PARTS or len(does) != 1 or does[0] not in _PARTS[named]:
        yield document.problem(path, "a fault", _SAID)
        return
    comes = spec.from_ is not None or spec.until is not None
    if kind is None:  # of another pool, whose rates alone concern this one
        pass
    elif does[0] not in kind.faults:
        wanted = f"a fault of {' or '.join(kind.faults)}: {name} has nothing that '{does[0]}' makes slower"
        yield document.problem(
            (*path, does[0]), f"a fault of {does[0]}", wanted if kind.faults else f"none in {name}"
        )
    elif (comes and not kind.windows) or (named & {"leaf", "link"} and not (kind.windows and kind.leaves)):
        wanted = f"faults of NICs, rails and GPUs{'' if kind.windows else ' for the whole run'}: {name} knows no others"
        yield document.problem(
            path, "a fault that comes and goes" if comes else "a fault of a leaf or link", wanted
        )
    limits = {
        "nic": (gpus // cluster.gpus_per_nic, "NICs"),
        "rail": (gpus // cluster.gpus_per_nic, "NICs"),
        "gpu": (gpus, "GPUs"),
        "node": (cluster.num_gpus // gpus, "nodes"),
    }
    for key, (limit, what) in limits.items():
        number = getattr(spec, key)
        if number is not None and number >= limit:
            whole = "the cluster" if key == "node" else "a node"
            wanted = f"0 to {limit - 1}: {whole} has {limit} {what}"
            yield document.problem((*path, key), str(number), wanted)
    for key, known in (("leaf", faults.leaves(cluster)), ("link", list(cluster.names))):
        text = getattr(spec, key)
        if text is not None and text not in known:
            wanted = (
                f"the name of a {key} as in `links`, such as {known[0]}"
                if known
                else f"no {key}: there is none"
            )
            yield document.problem((*path, key), f"'{text}'", wanted, nearest(text, known))
    if spec.until is not None and spec.until <= (spec.from_ or 0.0):
        begin = units.show(spec.from_ or 0.0, "s")
        yield document.problem(
            (*path, "until"), str(document.get((*path, "until"))), f"later than from, {begin}"
        )


def _in_time(document: Document, path: Path_, spec: FaultSpec) -> Any:
    """Yield the problem of a link that comes and goes where exchanges are arithmetic."""
    if (spec.from_ or spec.until) and (spec.bandwidth or spec.scale_up):
        wanted = "one for the whole run, or 'fidelity: flow': an equation knows no instants"
        yield document.problem(path, "a fault of links that comes and goes", wanted)


def _fault(
    document: Document,
    path: Path_,
    spec: FaultSpec,
    cluster: topology.Cluster,
    domain: int,
    problems: list[Problem],
) -> Fault | None:
    """The fault as a part of healthy; a problem is added where it is better than that."""
    (quantity,) = (key for key in faults.QUANTITIES if getattr(spec, key) is not None)
    until_s = math.inf if spec.until is None else spec.until
    places = {key: getattr(spec, key) for key in ("node", "gpu", "nic", "rail", "leaf", "link")}
    fault = Fault(quantity, 1.0, **places, from_s=spec.from_ or 0.0, until_s=until_s)
    rows = faults.rows_of(cluster, fault, domain)
    healthy = 1.0 if quantity == "clock" else float(cluster.capacity[rows].min()) if len(rows) else 0.0
    text = getattr(spec, quantity)
    fraction = _rate(text, healthy, quantity == "clock") / healthy if healthy else 0.0
    if fraction > 1.0 or (healthy == 0.0 and len(rows) == 0):
        what = {"bandwidth": "a healthy NIC's" if spec.link is None else "the healthy link's"}.get(
            quantity, "a healthy GPU's"
        )
        shown = "100 %" if quantity == "clock" else units.show(healthy, "bytes/s")
        wanted = f"at most {shown}, {what}" if healthy else "no fault: there is no NIC"
        problems.append(document.problem((*path, quantity), str(document.get((*path, quantity))), wanted))
        return None
    return Fault(quantity, fraction, **places, from_s=fault.from_s, until_s=fault.until_s)
