"""Views of a run: a result document read once into frozen records, which words, tables, plots, pages and files take.

A document holds one run or several variants. Two runs are *twins* when their resolved scenarios differ in nothing but the
hardware; that is the comparison a reader wants, whatever the variants are called. What a kind of workload has of its own
is in the view of the module that `kinds.WORKLOADS` names: `TransfersView`, `StepView`, `PassView`, `ServiceView`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from sim.errors import Fault, InputError
from sim.show.kinds import WORKLOADS, module
from sim.show.views.facts import Facts, facts_of
from sim.show.views.lanes import Lanes
from sim.show.views.names import LABEL as LABEL
from sim.show.views.provenance import Provenance, provenance_of
from sim.show.views.record import mapping, record
from sim.trees import flatten

BARE = "bare fabric"
"""What stands for the hardware of a run that has none."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a link or another shared resource carried; `kind` is its class."""

    name: str
    kind: str
    bytes: float
    busy_s: float
    load_fraction: float
    """Time that its bytes take at the rate that kernels reach, over the time of the run."""


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
class Launch:
    """A compute launch of one layer: what it multiplies and moves, and how long it takes."""

    name: str
    phase: str
    dtype: str
    flops: float
    bytes: float
    time_s: float


@dataclass(frozen=True, slots=True)
class Roofs:
    """What no launch beats on a GPU."""

    peak_flops: Mapping[str, float]
    """Dense peak by format [FLOP/s]."""
    hbm_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Held:
    """What a GPU holds, by part [bytes]; `rank` is a pipeline rank."""

    rank: int
    parts: Mapping[str, float]

    @property
    def total_bytes(self) -> float:
        """All parts."""
        return float(sum(self.parts.values()))


@dataclass(frozen=True, slots=True)
class Collective:
    """Dispatch or combine of one layer and microbatch, for workloads that compute too."""

    name: str
    alone_s: float
    nodes_per_token: float
    ranks_per_token: float
    beside_compute_s: float = 0.0
    longest_s: float = 0.0
    max_over_mean_rank_load: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run, as much of it as every kind of workload has; what a result lacks is empty or None."""

    family: ClassVar[str] = "transfers"
    """Name of the modules that show it, as in `kinds.WORKLOADS`."""

    variant: str
    """Name among the variants; "" where the document is this run alone."""
    name: str
    """What to call it next to others."""
    title: str
    kind: str
    """Kind of its workload; "" where the document names none."""
    scenario: Mapping[str, Any]
    """The resolved scenario, a whole tree."""
    hardware: str
    """Name of the profile, or `BARE`."""
    kernel: str
    """Kind of the all-to-all kernel; "" without any."""
    num_nodes: int
    """Nodes, or hosts of a bare fabric."""
    num_gpus: int | None
    """All GPUs, as the layout says; None where it does not."""
    facts: Facts
    """What was asked, in a few labelled words."""
    provenance: Provenance
    metrics: Mapping[str, float]
    """Every number of the metrics by its dotted name."""
    expected: tuple[Expected, ...]
    links: tuple[Link, ...]
    launches: tuple[Launch, ...]
    roofs: Roofs | None
    memory: tuple[Held, ...]
    collectives: tuple[Collective, ...]
    traffic: Mapping[str, Sequence[Sequence[float]]]
    """Bytes from rank to rank of the first EP group, by collective [num_ranks, num_ranks]."""
    rank_loads: Sequence[Sequence[float]]
    """Tokens by drawn layer and rank [num_layers, num_ranks]."""

    @property
    def lanes(self) -> Lanes | None:
        """What held which row of the timeline; None without one."""
        return None

    @property
    def gpus_per_node(self) -> int:
        """GPUs of a node; 1 on a bare fabric."""
        return max(1, (self.num_gpus or 1) // self.num_nodes)


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
    schema: str
    runs: tuple[RunView, ...]
    twins: tuple[Twin, ...]

    @property
    def has_variants(self) -> bool:
        """Whether the document names its runs."""
        return bool(self.runs[0].variant)

    @property
    def families(self) -> tuple[str, ...]:
        """The families of its runs, each once."""
        return tuple(dict.fromkeys(run.family for run in self.runs))

    def alone(self, run: RunView) -> RunsView:
        """One of the runs as a document of its own."""
        return replace(self, runs=(run,), twins=())


def views_of(document: Mapping[str, Any]) -> RunsView:
    """Read a result document.

    Raises
    ------
    InputError : where the document is no result of a run
    """
    variants = document.get("variants")
    if isinstance(variants, Mapping) and variants:
        runs = tuple(run_view(one, str(name)) for name, one in variants.items())
    elif isinstance(document.get("metrics"), Mapping):
        runs = (run_view(document),)
    else:
        wanted = "a result document with 'metrics' or 'variants' (result.json of `moesim run`)"
        raise InputError(Fault(None, "result", f"keys {', '.join(sorted(document)) or 'none'}", wanted))
    name = str(document.get("name") or "")
    title = str(document.get("title") or name)
    return RunsView(name, title, str(document.get("schema") or ""), runs, tuple(_twins(runs)))


def run_view(result: Mapping[str, Any], variant: str = "") -> RunView:
    """Read one run of a result document, or the scenario and provenance of one; `variant` is its name among others."""
    scenario = mapping(result.get("scenario"))
    cluster, layout = mapping(scenario.get("cluster")), mapping(scenario.get("layout"))
    work = mapping(scenario.get("workload"))
    kind = str(work.get("kind", ""))
    family = module("views", WORKLOADS.get(kind, RunView.family))
    facts = facts_of(scenario, family.SIZES, family.facts(work))
    if not family.is_complete(mapping(result.get("metrics"))):  # a part of a result, or one cut by hand
        family = module("views", RunView.family)
    sizes = [int(layout.get(name, 1)) for name in ("pp", "tp", "cp", "dp")]
    num_ranks = sizes[0] * sizes[1] * sizes[2] * sizes[3] if "dp" in layout else None
    common: dict[str, Any] = {
        "variant": variant,
        "name": variant or str(result.get("name", "run")),
        "title": str(result.get("title") or ""),
        "kind": kind,
        "scenario": scenario,
        "hardware": str(cluster.get("hardware") or BARE),
        "kernel": str(mapping(work.get("kernel")).get("kind", "")),
        "num_nodes": int(cluster.get("nodes") or mapping(cluster.get("fabric")).get("hosts") or 1),
        "num_gpus": num_ranks,
        "facts": facts,
        "provenance": provenance_of(mapping(result.get("provenance"))),
        "metrics": flatten(mapping(result.get("metrics"))),
        "expected": tuple(record(Expected, row) for row in result.get("expect") or ()),
        "links": tuple(_link(name, one) for name, one in mapping(result.get("links")).items()),
        "launches": tuple(record(Launch, one) for one in result.get("kernels") or ()),
        "roofs": record(Roofs, result["roofs"]) if result.get("roofs") else None,
        "memory": tuple(_held(row) for row in result.get("memory") or ()),
        "collectives": tuple(
            record(Collective, one, name=name) for name, one in mapping(result.get("exchanges")).items()
        ),
        "traffic": mapping(result.get("traffic")),
        "rank_loads": result.get("rank_loads") or (),
    }
    view: RunView = family.view(result, common)
    return view


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


# --- replaced next

Result = Mapping[str, Any]

_DIRECTIONS = ("dispatch", "combine", "exchange")
_GPU = re.compile(r"node\d+/(?:gpu|nic)(\d+)/")


@dataclass(frozen=True, slots=True)
class Case:
    """One run: its variant's name ("" where there is only one) and its part of the result document."""

    variant: str
    result: Result

    @property
    def name(self) -> str:
        """What to call the case beside others."""
        return self.variant or str(self.result.get("name", "run"))

    @property
    def scenario(self) -> Mapping[str, Any]:
        """The resolved scenario."""
        return _mapping(self.result.get("scenario"))

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Metrics by name, as in the result."""
        return _mapping(self.result.get("metrics"))

    @property
    def links(self) -> Mapping[str, Mapping[str, Any]]:
        """What each resource carried, by its name."""
        return _mapping(self.result.get("links"))

    @property
    def transfers(self) -> dict[str, Mapping[str, Any]]:
        """Everything timed beside a bound: dispatch and combine, an exchange, or all `flows` as one."""
        found = {name: self.metrics[name] for name in _DIRECTIONS if name in self.metrics}
        if not found and "completion_time_s" in self.metrics:
            found = {"flows": self.metrics}
        return found

    @property
    def hardware(self) -> str:
        """Name of the profile; `bare fabric` where there is none."""
        return str(_mapping(self.scenario.get("cluster")).get("hardware") or "bare fabric")

    @property
    def workload(self) -> Mapping[str, Any]:
        """The workload of the resolved scenario."""
        return _mapping(self.scenario.get("workload"))

    @property
    def kernel(self) -> str:
        """Kind of the kernel; empty where there is none."""
        return str(_mapping(self.workload.get("kernel")).get("kind", ""))

    @property
    def num_nodes(self) -> int:
        """Nodes, or hosts of a bare fabric."""
        cluster = _mapping(self.scenario.get("cluster"))
        hosts = _mapping(cluster.get("fabric")).get("hosts")
        return int(cluster.get("nodes") or hosts or 1)

    @property
    def gpus_per_node(self) -> int:
        """GPUs of a node, as the scenario's ranks or the used links tell; 1 on a bare fabric."""
        ranks = _mapping(self.scenario.get("layout")).get("dp")
        if ranks:
            return max(1, int(ranks) // max(1, self.num_nodes))
        used = (_GPU.match(name) for name in self.links)
        return 1 + max((int(found[1]) for found in used if found), default=0)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What was asked, in a few labelled words."""
        work, cluster = self.workload, _mapping(self.scenario.get("cluster"))
        fabric = str(_mapping(cluster.get("fabric")).get("kind", "")).replace("_", " ")
        model = self.scenario.get("model")
        layout = _mapping(self.scenario.get("layout"))
        gate = _mapping(work.get("gate"))
        placement = _mapping(work.get("placement"))
        faults = cluster.get("faults") or []
        redundant = placement.get("redundant_experts")
        found = [
            ("hardware", self.hardware),
            ("nodes" if "nodes" in cluster else "hosts", str(self.num_nodes)),
            ("fabric", fabric),
            ("faults", str(len(faults)) if faults else ""),
            (
                "model",
                str(_mapping(model).get("name", "inline")) if isinstance(model, dict) else str(model or ""),
            ),
            *_parallel(layout, training=work.get("kind") == "training"),
            ("kernel", self.kernel.replace("_", " ")),
            (
                "gate",
                " ".join(
                    str(value).replace("_", " ") for key, value in gate.items() if key in ("kind", "exponent")
                ),
            ),
            ("groups a token", str(gate.get("top_groups") or "")),
            ("tokens a rank", f"{work['tokens_per_rank']:,}" if work.get("tokens_per_rank") else ""),
            (
                "schedule",
                f"{work['schedule']}{'' if work.get('overlap', True) else ' without overlap'}"
                if work.get("schedule")
                else "",
            ),
            ("microbatches", str(work.get("microbatches") or "")),
            ("tokens a sequence", f"{work['sequence_tokens']:,}" if work.get("sequence_tokens") else ""),
            ("GEMMs", str(work.get("precision") or "")),
            ("bytes a rank", str(work.get("bytes_per_rank") or "")),
            ("placement", f"{placement.get('kind')}, {redundant} redundant experts" if redundant else ""),
            ("dispatch", str(work.get("dispatch_dtype", "")) if gate else ""),
            ("combine", str(work.get("combine_dtype", "")) if gate else ""),
            ("flows", str(work.get("file", "")) if work.get("kind") == "flows" else ""),
            *_inference(work),
            *_serving(work),
        ]
        return [(key, value) for key, value in found if value]


@dataclass(frozen=True, slots=True)
class CaseTwin:
    """Two cases that differ in hardware alone; `reference` came first."""

    reference: Case
    other: Case

    def ratio(self, direction: str, key: str = "time_s") -> float | None:
        """Time of the other over time of the reference."""
        ours, theirs = self.reference.transfers.get(direction, {}), self.other.transfers.get(direction, {})
        key = key if key in ours else "completion_time_s"
        return theirs[key] / ours[key] if ours.get(key) and key in theirs else None


def cases(result: Result) -> list[Case]:
    """The runs of a result document. Raises `InputError` where the document is none."""
    if "variants" in result:
        return [Case(str(name), one) for name, one in result["variants"].items()]
    if not isinstance(result.get("metrics"), Mapping):
        wanted = "a result document with 'metrics' or 'variants' (result.json of `moesim run`)"
        raise InputError(Fault(None, "result", f"keys {', '.join(sorted(result)) or 'none'}", wanted))
    return [Case("", result)]


def twins(found: Iterable[Case]) -> list[CaseTwin]:
    """Pairs of cases that differ in hardware alone, each with the first of its kind."""
    first: dict[str, Case] = {}
    pairs = []
    for case in found:
        reference = first.setdefault(_besides_hardware(case), case)
        if reference is not case and _hardware(reference) != _hardware(case):
            pairs.append(CaseTwin(reference, case))
    return pairs


def time_of(metrics: Mapping[str, Any]) -> float:
    """The time that a transfer is known by: the mean rank's, or the last arrival of bare flows [s]."""
    return float(metrics["time_s"] if "time_s" in metrics else metrics["completion_time_s"])


def over_bound(metrics: Mapping[str, Any]) -> float | None:
    """Completion time over its lower bound; both are of the last rank. None without a bound."""
    bound = metrics.get("lower_bound_s")
    return metrics["completion_time_s"] / bound if bound else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _parallel(layout: Mapping[str, Any], *, training: bool) -> list[tuple[str, str]]:
    """Sizes of the layout; of an all-to-all only EP means anything."""
    names = ("pp", "ep", "dp", "tp", "cp") if training else ("ep",)
    return [
        (name.upper(), str(layout[name]))
        for name in names
        if layout.get(name, 1) != 1 or (name == "ep" and name in layout)
    ]


def _inference(work: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Sizes of a prefill or decode."""
    if work.get("kind") not in ("prefill", "decode"):
        return []
    counts = [
        (label, f"{work[key]:,}" if isinstance(work.get(key), int) and work[key] else "")
        for key, label in (
            ("prompt_tokens", "prompt tokens"),
            ("cached_tokens", "of them cached"),
            ("prompts_per_gpu", "prompts a GPU"),
            ("context_tokens", "context tokens"),
            ("requests_per_gpu", "requests a GPU"),
            ("tokens_per_step", "tokens a step"),
        )
    ]
    accepted = str(work.get("acceptance") or "") if work.get("tokens_per_step", 1) != 1 else ""
    halves = "two microbatches" if work.get("overlap") else "none"
    return [
        *counts,
        ("accepted", accepted),
        ("overlap", halves),
        ("KV cache", str(work.get("kv_dtype") or "")),
    ]


def _serving(work: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Requests, pools and objectives of a serving run."""
    if work.get("kind") != "serving":
        return []
    arrivals, asked = _mapping(work.get("arrivals")), _mapping(work.get("slo"))
    rate = f"{arrivals['requests_per_s']:g} requests/s" if "requests_per_s" in arrivals else ""
    found = [("arrivals", str(arrivals.get("file") or rate))]
    for pool in ("prefill", "decode"):
        one = _mapping(work.get(pool))
        found.append(
            (
                f"{pool} pool",
                f"{one.get('instances', 1)} x EP {one.get('ep')}" if one.get("instances", 1) else "shared",
            )
        )
    slo = " and ".join(f"{key.upper()} {value}" for key, value in asked.items() if value)
    return [*found, ("policy", str(work.get("policy") or "")), ("objectives", slo)]


def _hardware(case: Case) -> str:
    cluster = _mapping(case.scenario.get("cluster"))
    return json.dumps([cluster.get("hardware"), cluster.get("override")], sort_keys=True)


def _besides_hardware(case: Case) -> str:
    scenario = {
        key: value
        for key, value in case.scenario.items()
        if key not in ("name", "title", "expect", "cluster")
    }
    cluster = _mapping(case.scenario.get("cluster"))
    rest = {key: value for key, value in cluster.items() if key not in ("hardware", "override")}
    return json.dumps([scenario, rest], sort_keys=True, default=str)


def joined(names: Sequence[str], by: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return f" {by} ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
