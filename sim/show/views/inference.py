"""The view of a prefill or decode pass: how long it takes, where it goes, and what a GPU holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sim.show.views import lanes
from sim.show.views.facts import count
from sim.show.views.lanes import Lanes, Span
from sim.show.views.record import mapping, record
from sim.show.views.run import RunView
from sim.show.views.training import Nodes

PARTS = {
    "attention": "attention",
    "experts": "routed experts",
    "shared": "shared experts",
    "dense": "dense layers",
    "reductions": "collectives inside layers",
    "phases": "sends and receives on SMs",
    "waits": "waits for exchanges",
    "pool": "waits for experts on their pool",
    "host": "waits for the host",
    "last_rank": "the last rank's lag",
    "ends": "embedding, head and sampling",
    "pipeline": "sends and bubbles of the pipeline",
}
"""Part of a pass -> its label, in the order in which parts are listed and drawn."""
LIMITS = {"compute": "compute", "hbm": "HBM", "links": "the links"}
"""Class of resource that sets the lower bound -> what a reader calls it."""
SIZES = ("pp", "ep", "etp", "tp", "cp")
"""Parallel dimensions that mean something."""
_HELD = (
    "cache", "routed experts", "shared experts", "attention", "dense layers", "gates", "embedding and head", "communication buffers",
    "graphs and activations", "reserve",
)  # fmt: skip
_STREAMS = ("compute", "communication")


@dataclass(frozen=True, kw_only=True, eq=False)
class PassView(RunView):
    """A prefill or decode; fields are named as the metrics."""

    family: ClassVar[str] = "inference"

    step_time_s: float
    tokens_per_s_per_gpu: float
    tokens_per_s_per_node: float | None = None
    tpot_s: float | None = None
    """Time per output token of a decode."""
    ttft_s: float | None = None
    """Time to the first token of a prefill."""
    tokens_per_s_per_user: float | None = None
    requests_per_gpu: float | None = None
    accepted_tokens_per_step: float = 1.0
    exposed_comm_s: float = 0.0
    lower_bound_s: float | None = None
    """Lower bound of `latency_s`."""
    memory_capacity_bytes: float | None = None
    max_batch_per_gpu: float = 0
    memory_limit: str | None = None
    bounds: Mapping[str, float]
    """Lower bound by the keys of `LIMITS` [s]."""
    where: Mapping[str, float]
    """Time of each of `PARTS` [s]; together they make the step."""
    passes: tuple[Nodes, ...]
    """The first nodes of each pass that was kept."""

    @property
    def latency_name(self) -> str:
        """Name of the time that a user feels: TTFT of a prefill, TPOT of a decode."""
        return "TTFT" if self.tpot_s is None else "TPOT"

    @property
    def latency_s(self) -> float:
        """The time that a user feels."""
        return float((self.ttft_s or 0.0) if self.tpot_s is None else self.tpot_s)

    @property
    def step_bound_s(self) -> float:
        """Lower bound of a step; that of a TPOT is of one token."""
        return (self.lower_bound_s or 0.0) * self.accepted_tokens_per_step

    @property
    def limit(self) -> str:
        """Class of resource that sets the lower bound; "" where a result does not say."""
        return LIMITS[max(self.bounds, key=lambda key: self.bounds[key])] if self.bounds else ""

    @property
    def noun(self) -> str:
        """Noun for the members of a batch: prompts or requests."""
        return "prompts" if self.tpot_s is None else "requests"

    @property
    def asked_requests(self) -> bool:
        """The scenario says how many requests a GPU has."""
        work = mapping(self.scenario.get("workload"))
        return any(work.get(key) is not None for key in ("requests", "requests_per_gpu"))

    @property
    def held(self) -> dict[str, float]:
        """Memory that a GPU holds, by part [bytes]."""
        parts = self.memory[0].parts if self.memory else {}
        return {part: parts[part] for part in dict.fromkeys((*_HELD, *parts)) if parts.get(part)}


def _accepted(acceptance: Any) -> str:
    """One share, or one for each token in its place."""
    return " then ".join(map(str, acceptance)) if isinstance(acceptance, list) else str(acceptance or "")


def _apart(afd: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Where attention and experts are, and how many microbatches go between them."""
    if not afd:
        return []
    parts = (
        ("pool of attention", "attention"),
        ("pool of experts", "experts"),
        ("microbatches", "microbatches"),
    )
    return [(label, afd.get(key)) for label, key in parts]


_OVERLAP = {True: "two microbatches", "auto": "the faster of one batch and two"}


def facts(work: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """List the facts of a run that only this kind of workload has."""
    sizes = {
        "prompt_tokens": "prompt tokens",
        "cached_tokens": "of them cached",
        "prompts_per_gpu": "prompts a GPU",
        "prompts": "prompts",
        "context_tokens": "context tokens",
        "requests_per_gpu": "requests a GPU",
        "requests": "requests",
        "tokens_per_step": "tokens a step",
    }
    return [
        *((label, count(work.get(key))) for key, label in sizes.items()),
        ("accepted", _accepted(work.get("acceptance")) if work.get("tokens_per_step", 1) != 1 else ""),
        *_apart(mapping(work.get("afd"))),
        ("overlap", _OVERLAP.get(work.get("overlap"), "none")),
        ("KV cache", work.get("kv_dtype")),
    ]


def is_complete(metrics: Mapping[str, Any]) -> bool:
    """Check that the metrics are those of a pass that ran."""
    return {"step_time_s", "tokens_per_s_per_gpu"} <= metrics.keys() and not metrics.keys().isdisjoint(
        ("tpot_s", "ttft_s")
    )


def view(result: Mapping[str, Any], common: Mapping[str, Any]) -> PassView:
    """Read what a result has of a pass; `common` are the fields of any run."""
    timeline = mapping(result.get("timeline"))
    return record(
        PassView,
        result.get("metrics"),
        **common,
        bounds=mapping(result.get("bounds")),
        where=parts_of(mapping(result.get("where"))),
        passes=tuple(record(Nodes, nodes) for nodes in timeline.get("passes") or ()),
    )


def parts_of(times_s: Mapping[str, float]) -> dict[str, float]:
    """Sum the times of a result's parts to those of `PARTS`; what takes next to nothing is left out."""
    spent = dict.fromkeys(PARTS, 0.0)
    for part, time_s in times_s.items():
        spent[part if part in PARTS else lanes.part_of(part)] += time_s
    least_s = 1e-9 * sum(spent.values())
    return {part: time_s for part, time_s in spent.items() if time_s > least_s}


def lanes_of(result: Mapping[str, Any]) -> Lanes | None:
    """Both streams of the first pass, of which results keep the first nodes; None of a result without passes."""
    timeline = mapping(result.get("timeline"))
    if not timeline.get("passes"):
        return None
    shown = record(Nodes, timeline["passes"][0])
    spans: dict[str, list[Span]] = {part: [] for part in lanes.PARTS}
    columns = (shown.names, shown.streams, shown.tasks, shown.start_s, shown.end_s)
    for name, stream, layer, start_s, end_s in zip(*columns, strict=True):
        if end_s > start_s:
            words = name.replace("_", " ") + (f" of layer {layer}" if layer >= 0 else "")
            spans[lanes.part_of(name)].append((start_s, end_s, _STREAMS.index(stream), words))
    end_s = max(shown.end_s)
    share = end_s / timeline["end_s"] if timeline.get("end_s") else 1.0
    note = f"the first {share:.0%} of a pass" if share < 0.99 else ""
    return Lanes("stream", _STREAMS, end_s, lanes.PARTS, spans, note)
