"""Views of a run: a result document read once into frozen records, which words, tables, plots, pages and files take.

A document holds one run or several variants. Two runs are *twins* when their resolved scenarios differ in nothing but the
hardware; that is the comparison a reader wants, whatever the variants are called. What a kind of workload has of its own
is in the view of the module that `kinds.FAMILIES` names: `TransfersView`, `StepView`, `PassView`, `ServiceView`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar, TypeVar

from sim.errors import InputError, Problem
from sim.show.kinds import FAMILIES, module
from sim.show.views.facts import Facts, facts_of
from sim.show.views.lanes import Lanes
from sim.show.views.provenance import Provenance, provenance_of
from sim.show.views.question import Question, question_of
from sim.show.views.record import mapping, record
from sim.trees import flatten

_View = TypeVar("_View", bound="RunView")

BARE = "bare fabric"
"""Name of the hardware of a run that has none."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link or another shared resource, and the bytes it carried; `kind` is its class."""

    name: str
    kind: str
    bytes: float
    busy_s: float
    load_fraction: float
    """Time that its bytes take at the rate that kernels reach, over the time of the run."""


@dataclass(frozen=True, slots=True)
class Cabling:
    """The cabling of the cluster, as far as the scenario says."""

    kind: str = ""
    nodes_per_leaf: int | None = None
    hosts_per_leaf: int | None = None
    """Hosts on a leaf of a bare fabric."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A published value of `expect` next to the simulated one."""

    metric: str
    published: float
    simulated: float
    error_fraction: float
    tolerance_fraction: float
    ok: bool
    source: str | None = None


@dataclass(frozen=True, slots=True)
class LayerLaunch:
    """A compute launch of one layer: what it multiplies and moves, and how long it takes."""

    name: str
    phase: str
    dtype: str
    flops: float
    bytes: float
    time_s: float


@dataclass(frozen=True, slots=True)
class Roofs:
    """Rates of a GPU that no launch beats."""

    peak_flops: Mapping[str, float]
    """Dense peak by format [FLOP/s]."""
    hbm_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Held:
    """Memory that a GPU holds, by part [bytes]; `rank` is a pipeline rank."""

    rank: int
    parts: Mapping[str, float]

    @property
    def total_bytes(self) -> float:
        """All parts."""
        return float(sum(self.parts.values()))


@dataclass(frozen=True, slots=True)
class HostEffect:
    """What a software profile would add to a run without one, about."""

    software: str
    adds_s: float
    adds_fraction: float
    """Of the step."""


@dataclass(frozen=True, slots=True)
class CollectiveTimes:
    """Dispatch or combine of one layer and microbatch, for workloads that compute too."""

    name: str
    alone_s: float
    nodes_per_token: float
    ranks_per_token: float
    beside_compute_s: float = 0.0
    longest_s: float = 0.0
    max_over_mean_rank_load: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class RunView:
    """A run, as much of it as every kind of workload has; what a result lacks is empty or None."""

    family: ClassVar[str] = "transfers"
    """Name of the modules that show it, as in `kinds.FAMILIES`."""

    variant: str
    """Name among the variants; "" where the document is this run alone."""
    name: str
    """Name of it next to others."""
    title: str
    kind: str
    """Kind of its workload; "" where the document names none."""
    scenario: Mapping[str, Any]
    """The resolved scenario, a whole tree."""
    hardware: str
    """Name of the profile, or `BARE`."""
    fabric: Cabling
    kernel: str
    """Kind of the all-to-all kernel; "" without any."""
    num_nodes: int
    """Nodes, or hosts of a bare fabric."""
    num_gpus: int | None
    """GPUs in use, as the layout says; None where it does not."""
    nodes_in_use: tuple[int, ...]
    """Nodes in use."""
    facts: Facts
    """Labelled words on the scenario."""
    provenance: Provenance
    metrics: Mapping[str, float]
    """Every number of the metrics by its dotted name."""
    expected: tuple[Expected, ...]
    links: tuple[Link, ...]
    launches: tuple[LayerLaunch, ...]
    roofs: Roofs | None
    host: HostEffect | None
    """None of a run with software, or one that a host would hardly slow."""
    memory: tuple[Held, ...]
    collectives: tuple[CollectiveTimes, ...]
    traffic: Mapping[str, Sequence[Sequence[float]]]
    """Bytes from rank to rank of the first EP group, by collective [num_ranks, num_ranks]."""
    course: Callable[[], Lanes | None]
    """Makes the lanes of its timeline, when they are asked for."""
    rank_loads: Sequence[Sequence[float]]
    """Tokens by drawn layer and rank [num_layers, num_ranks]."""

    @property
    def is_bare(self) -> bool:
        """It ran on a fabric of hosts alone."""
        return self.hardware == BARE

    @cached_property
    def lanes(self) -> Lanes | None:
        """Spans on the rows of the timeline; None without one."""
        return self.course()

    def metric(self, name: str) -> float:
        """A number of its metrics; 0 where it has none of that name."""
        return self.metrics.get(name, 0.0)

    @property
    def gpus_per_node(self) -> int:
        """GPUs in use of a node; 1 on a bare fabric."""
        return max(1, (self.num_gpus or 1) // len(self.nodes_in_use))

    @property
    def gpus_per_nic(self) -> int:
        """GPUs that share a NIC."""
        part = self.provenance.part
        return max(1, part.gpus_per_node // max(1, part.nics_per_node)) if part else 1


@dataclass(frozen=True, slots=True)
class Twin:
    """Two runs that differ in hardware alone; `reference` came first."""

    reference: RunView
    other: RunView


@dataclass(frozen=True, slots=True)
class RunsView:
    """A result document: its runs in their order, and which of them are twins."""

    name: str
    title: str
    ask: str
    """The question that it answers, in words; "" where its file has none."""
    schema: str
    runs: tuple[RunView, ...]
    twins: tuple[Twin, ...]
    question: Question | None = None

    @property
    def has_variants(self) -> bool:
        """The document names its runs."""
        return bool(self.runs[0].variant)

    @property
    def families(self) -> tuple[str, ...]:
        """The families of its runs, each once."""
        return tuple(dict.fromkeys(run.family for run in self.runs))

    def select(self, kind: type[_View]) -> tuple[_View, ...]:
        """The runs of one class of view."""
        return tuple(run for run in self.runs if isinstance(run, kind))

    def twins_of(self, kind: type[_View]) -> list[tuple[_View, _View]]:
        """Reference and other of the twins of one class of view."""
        return [
            (twin.reference, twin.other)
            for twin in self.twins
            if isinstance(twin.reference, kind) and isinstance(twin.other, kind)
        ]

    def alone(self, run: RunView) -> RunsView:
        """One of the runs as a document of its own."""
        return replace(self, runs=(run,), twins=(), question=None)


def views_of(document: Mapping[str, Any]) -> RunsView:
    """Read a result document; InputError where it is no result of a run."""
    variants = document.get("variants")
    if isinstance(variants, Mapping) and variants:
        runs = tuple(run_view(entry, str(name)) for name, entry in variants.items())
    elif isinstance(document.get("metrics"), Mapping):
        runs = (run_view(document),)
    else:
        wanted = "a result document with 'metrics' or 'variants' (result.json of `moesim run`)"
        raise InputError(Problem(None, "result", f"keys {', '.join(sorted(document)) or 'none'}", wanted))
    name = str(document.get("name") or "")
    title = str(document.get("title") or name)
    twins = tuple(_twins(runs))
    asked = mapping(document.get("question") or runs[0].scenario.get("question"))
    ask, schema = str(asked.get("ask") or ""), str(document.get("schema") or "")
    return RunsView(name, title, ask, schema, runs, twins, question_of(document))


def _own_pool(cluster: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
    """The pool of a cluster that a workload runs on, or all together where it does not say, and its first node."""
    first, pools = 0, mapping(cluster.get("pools"))
    for name, pool in pools.items():
        if cluster.get("pool") == name:
            return first, mapping(pool)
        first += int(pool.get("nodes") or 0)
    names = dict.fromkeys(str(pool.get("hardware")) for pool in pools.values())
    return 0, {**cluster, "hardware": " and ".join(names), "nodes": first} if pools else cluster


def run_view(result: Mapping[str, Any], variant: str = "") -> RunView:
    """Read one run of a result document, or the scenario and provenance of one; `variant` is its name among others."""
    scenario = mapping(result.get("scenario"))
    cluster, layout = mapping(scenario.get("cluster")), mapping(scenario.get("layout"))
    work = mapping(scenario.get("workload"))
    kind = str(work.get("kind", ""))
    plain = module("views", RunView.family)
    family = module("views", FAMILIES[kind]) if kind in FAMILIES else plain
    facts = facts_of(scenario, family.SIZES, family.facts(work))
    candidates = (
        [family] if kind in FAMILIES else [module("views", name) for name in dict.fromkeys(FAMILIES.values())]
    )
    # A part of a result, or one cut by hand, may lack what its kind of workload needs.
    whole = (
        candidate
        for candidate in candidates
        if candidate is not plain and candidate.is_complete(mapping(result.get("metrics")))
    )
    family = next(whole, plain)
    sizes = [int(layout.get(name, 1)) for name in ("pp", "tp", "cp", "dp")]
    num_ranks = sizes[0] * sizes[1] * sizes[2] * sizes[3] if "dp" in layout else None
    first_node, part = _own_pool(cluster)
    num_nodes = int(part.get("nodes") or mapping(cluster.get("fabric")).get("hosts") or 1)
    common: dict[str, Any] = {
        "variant": variant,
        "name": variant or str(result.get("name", "run")),
        "title": str(result.get("title") or ""),
        "kind": kind,
        "scenario": scenario,
        "hardware": str(part.get("hardware") or BARE),
        "fabric": record(Cabling, cluster.get("fabric")),
        "kernel": str(mapping(work.get("kernel")).get("kind", "")),
        "num_nodes": num_nodes,
        "nodes_in_use": tuple(first_node + node for node in cluster.get("use_nodes") or range(num_nodes)),
        "num_gpus": num_ranks,
        "facts": facts,
        "provenance": provenance_of(mapping(result.get("provenance"))),
        "metrics": flatten(mapping(result.get("metrics"))),
        "expected": tuple(record(Expected, row) for row in result.get("expect") or ()),
        "links": tuple(_link(name, entry) for name, entry in mapping(result.get("links")).items()),
        "launches": tuple(record(LayerLaunch, entry) for entry in result.get("kernels") or ()),
        "roofs": record(Roofs, result["roofs"]) if result.get("roofs") else None,
        "host": record(HostEffect, result["host"]) if result.get("host") else None,
        "memory": tuple(_held(row) for row in result.get("memory") or ()),
        "collectives": tuple(
            record(CollectiveTimes, entry, name=name)
            for name, entry in mapping(result.get("exchanges")).items()
        ),
        "traffic": mapping(result.get("traffic")),
        "rank_loads": result.get("rank_loads") or (),
        "course": partial(_lanes, result),
    }
    view: RunView = family.view(result, common)
    return view


def _lanes(result: Mapping[str, Any]) -> Lanes | None:
    """The lanes of the timeline that a result kept, whatever else it lacks."""
    made = (module("views", name).lanes_of(result) for name in dict.fromkeys(FAMILIES.values()))
    return next((lanes for lanes in made if lanes is not None), None)


def _twins(runs: Sequence[RunView]) -> list[Twin]:
    """Pairs of runs that differ in hardware alone, each with the first of its kind."""
    first: dict[str, RunView] = {}
    pairs = []
    for run in runs:
        cluster = mapping(run.scenario.get("cluster"))
        hardware = {key: cluster.get(key) for key in ("hardware", "override")}
        rest = {key: value for key, value in cluster.items() if key not in hardware}
        same = {
            key: value
            for key, value in run.scenario.items()
            if key not in ("name", "title", "expect", "cluster")
        }
        reference = first.setdefault(json.dumps([same, rest], sort_keys=True, default=str), run)
        known = mapping(reference.scenario.get("cluster"))
        if reference is not run and any(known.get(key) != value for key, value in hardware.items()):
            pairs.append(Twin(reference, run))
    return pairs


def _link(name: str, carried: Mapping[str, Any]) -> Link:
    load = carried["utilisation_fraction"]
    return Link(name, carried["class"], carried.get("bytes", 0.0), carried.get("busy_s", 0.0), load)


def _held(row: Mapping[str, Any]) -> Held:
    return Held(int(row.get("rank", 0)), {part: size for part, size in row.items() if part != "rank"})
