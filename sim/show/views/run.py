"""One case: a single run inside a result document, read the way that tables, plots and the report need it.

A result document holds one run or several `variants`. Two cases are *twins* when their resolved scenarios differ in
nothing but the hardware; that is the comparison a reader wants, whatever the variants are called.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.errors import InputError, Problem

Result = Mapping[str, Any]

LABEL = {
    "nic": "NIC",
    "scale_up": "NVLink",
    "leaf_uplink": "leaf uplink",
    "pcie": "PCIe",
    "copy_sms": "copy SMs",
    "hbm": "HBM",
    "compute": "compute",
    "latency": "latency",
}
"""Resource classes as a reader calls them, in the order in which they are drawn."""

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
            ("kernel generation", str(_mapping(work.get("kernel")).get("generation") or "")),
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
class Twin:
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
        raise InputError(Problem(None, "result", f"keys {', '.join(sorted(result)) or 'none'}", wanted))
    return [Case("", result)]


def twins(found: Iterable[Case]) -> list[Twin]:
    """Pairs of cases that differ in hardware alone, each with the first of its kind."""
    first: dict[str, Case] = {}
    pairs = []
    for case in found:
        reference = first.setdefault(_besides_hardware(case), case)
        if reference is not case and _hardware(reference) != _hardware(case):
            pairs.append(Twin(reference, case))
    return pairs


def time_of(metrics: Mapping[str, Any]) -> float:
    """The time that a transfer is known by: the mean rank's, or the last arrival of bare flows [s]."""
    return float(metrics["time_s"] if "time_s" in metrics else metrics["completion_time_s"])


def over_bound(metrics: Mapping[str, Any]) -> float | None:
    """Completion time over its lower bound; both are of the last rank. None without a bound."""
    bound = metrics.get("lower_bound_s")
    return metrics["completion_time_s"] / bound if bound else None


def counts(row: Mapping[str, Any]) -> bool:
    """Whether a row of a validation counts towards a bar; the others are printed only."""
    return row.get("bar", "main") is not None


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
