"""The view of a serving run: what was delivered, what users waited for, and the lives of requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from sim import units
from sim.show.views.lanes import LIVES, Lanes, Span
from sim.show.views.record import mapping, record
from sim.show.views.run import RunView

SPREADS = {
    "ttft": "TTFT",
    "ttft_alone": "TTFT alone",
    "ttft_bound": "TTFT, bound",
    "tpot": "TPOT",
    "tpot_bound": "TPOT, bound",
    "token_gap": "token gap",
    "prefill_wait": "wait for prefill",
    "decode_wait": "wait for decode",
    "step_wait": "wait for a step",
    "kv_transfer": "KV transfer",
    "response": "arrival to end",
}
"""Times that users feel -> what a reader calls them."""
POOLS = ("prefill", "decode")
SIZES = ("ep",)
"""Parallel dimensions that mean something."""
_STAGES = {
    "prefill wait": ("arrival_s", "prefill_start_s"),
    "prefill": ("prefill_start_s", "first_token_s"),
    "decode wait": ("first_token_s", "decode_admitted_s"),
    "KV": ("decode_admitted_s", "kv_arrived_s"),
    "step wait": ("kv_arrived_s", "decode_start_s"),
    "decode": ("decode_start_s", "end_s"),
}


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and percentiles over requests, and the largest [s]; None where there is none."""

    mean_s: float | None = None
    p50_s: float | None = None
    p90_s: float | None = None
    p99_s: float | None = None
    max_s: float | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """Requests that waited for a pool."""

    mean: float
    max: int


@dataclass(frozen=True, slots=True)
class Arriving:
    """Rates while requests arrive, the draining left out."""

    span_s: float
    arrivals_per_s: float
    prefilled_per_s: float
    requests_per_s: float
    output_tokens_per_s: float
    prefill_utilisation_fraction: float
    decode_utilisation_fraction: float


@dataclass(frozen=True, slots=True)
class ClassOfRequests:
    """Requests that are measured apart; fields are named as the metrics."""

    num_ended: int
    num_refused: int
    num_unfinished: int
    good_fraction: float
    goodput_requests_per_s: float
    preemptions: int
    cache_hit_fraction: float
    spreads: Mapping[str, Spread]
    """By the keys of `SPREADS`."""

    @property
    def num_requests(self) -> int:
        """All that were asked for."""
        return self.num_ended + self.num_refused + self.num_unfinished


@dataclass(frozen=True, slots=True)
class RequestLives:
    """Instants of the first requests [s] and their tokens, a column each; None where an instant never came."""

    arrival_s: Sequence[float]
    prefill_start_s: Sequence[float | None]
    first_token_s: Sequence[float | None]
    decode_admitted_s: Sequence[float | None]
    kv_arrived_s: Sequence[float | None]
    decode_start_s: Sequence[float | None]
    end_s: Sequence[float | None]
    output_tokens: Sequence[int] = ()
    request_class: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Stages:
    """Requests in each stage of their lives at even instants."""

    sample_s: Sequence[float]
    end_s: float
    counts: Mapping[str, Sequence[int]]
    """By stage: `prefill_queue`, `prefilling`, `kv_moving`, `decoding`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ServiceView(RunView):
    """A serving run; fields are named as the metrics."""

    family: ClassVar[str] = "serving"

    num_ended: int
    num_refused: int
    num_unfinished: int
    good_fraction: float
    goodput_requests_per_s: float
    requests_per_s: float
    output_tokens_per_s: float
    output_tokens_per_s_per_gpu: float
    makespan_s: float
    lower_bound_s: float
    prefill_utilisation_fraction: float
    decode_utilisation_fraction: float
    kv_peak_fraction: float
    requests_per_step: float | None = None
    restarts: int = 0
    down_s: float = 0.0
    queue_drain_s: float | None = None
    waited_s: Mapping[str, float]
    """Over all requests, by pool."""
    queues: Mapping[str, Queue]
    spreads: Mapping[str, Spread]
    """By the keys of `SPREADS`."""
    while_arriving: Arriving | None
    objectives: Mapping[str, float]
    """`ttft` and `tpot` that were asked for [s]."""
    class_objectives: Mapping[str, Mapping[str, float]]
    """The same of each class with objectives of its own."""
    requests: RequestLives | None
    stages: Stages | None
    arrivals: Mapping[str, float]
    """Tokens of all that came; of a trace with hashes the part that a cache would hold."""
    classes: Mapping[str, ClassOfRequests]
    """By name; none where requests are measured together alone."""

    @property
    def num_requests(self) -> int:
        """All that were asked for."""
        return self.num_ended + self.num_refused + self.num_unfinished

    @property
    def longest_wait(self) -> str:
        """The pool that requests waited for most."""
        return max(self.waited_s, key=lambda pool: self.waited_s[pool])

    @property
    def spent(self) -> dict[str, float]:
        """Mean time of a request in each stage of its life, by the keys of `LIVES` [s]."""
        spans, num = (self.lanes.spans, len(self.lanes.rows)) if self.lanes else ({}, 1)
        return {
            stage: sum(end_s - start_s for start_s, end_s, _, _ in spans.get(stage, ())) / num
            for stage in LIVES
        }

    @cached_property
    def times_s(self) -> dict[str, list[float]]:
        """`ttft` and `tpot` of every request that has them, shortest first."""
        return self.times_of(None)

    def times_of(self, name: str | None) -> dict[str, list[float]]:
        """`times_s` of the requests of a class; None for all."""
        times: dict[str, list[float]] = {"ttft": [], "tpot": []}
        rows = self.requests
        if rows is None:
            return {}
        names = rows.request_class or [""] * len(rows.arrival_s)
        for came_s, first_s, end_s, tokens, own in zip(
            rows.arrival_s, rows.first_token_s, rows.end_s, rows.output_tokens, names, strict=True
        ):
            if first_s is not None and name in (None, own):
                times["ttft"].append(first_s - came_s)
                if end_s is not None and tokens > 1:
                    times["tpot"].append((end_s - first_s) / (tokens - 1))
        return {key: sorted(values) for key, values in times.items()}


def facts(work: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """List the facts of a run that only this kind of workload has."""
    arrivals = mapping(work.get("arrivals"))
    rate = f"{arrivals['requests_per_s']:g} requests/s" if "requests_per_s" in arrivals else ""
    if "concurrency" in arrivals:
        rate = f"{arrivals['concurrency']} requests at once"
    objectives = [f"{key.upper()} {value}" for key, value in mapping(work.get("slo")).items() if value]
    return [
        ("arrivals", arrivals.get("file") or rate),
        *((f"{pool} pool", _pool(mapping(work.get(pool)))) for pool in POOLS),
        ("policy", work.get("policy")),
        ("objectives", " and ".join(objectives)),
    ]


def _pool(pool: Mapping[str, Any]) -> str:
    instances = pool.get("instances", 1)
    return f"{instances} x EP {pool.get('ep')}" if instances else "shared"


def is_complete(metrics: Mapping[str, Any]) -> bool:
    """Check that the metrics are those of a service that ran."""
    return "goodput_requests_per_s" in metrics


def view(result: Mapping[str, Any], common: Mapping[str, Any]) -> ServiceView:
    """Read what a result has of a service; `common` are the fields of any run."""
    metrics, timeline = mapping(result.get("metrics")), mapping(result.get("timeline"))
    work = mapping(common["scenario"].get("workload"))
    classes = mapping(work.get("classes"))
    sampled = {key: values for key, values in timeline.items() if key not in ("sample_s", "end_s")}
    return record(
        ServiceView,
        metrics,
        **common,
        queues={pool: record(Queue, entry) for pool, entry in mapping(metrics.get("queues")).items()},
        spreads={key: record(Spread, metrics.get(key)) for key in SPREADS},
        arrivals=mapping(metrics.get("arrivals")),
        classes={
            name: record(ClassOfRequests, own, spreads={key: record(Spread, own.get(key)) for key in SPREADS})
            for name, own in mapping(metrics.get("classes")).items()
        },
        while_arriving=record(Arriving, metrics["while_arriving"]) if metrics.get("while_arriving") else None,
        objectives=_objectives(work),
        class_objectives={name: _objectives(mapping(own)) for name, own in classes.items()},
        requests=record(RequestLives, result["requests"]) if result.get("requests") else None,
        stages=Stages(timeline["sample_s"], timeline["end_s"], sampled) if timeline.get("sample_s") else None,
    )


def _objectives(branch: Mapping[str, Any]) -> dict[str, float]:
    """Objectives of a branch that may have an `slo` [s]."""
    asked = mapping(branch.get("slo"))
    return {key: units.parse(asked[key], "s") for key in ("ttft", "tpot") if asked.get(key)}


def lanes_of(result: Mapping[str, Any]) -> Lanes | None:
    """Lives of requests, a row each, by arrival; None of a result without them."""
    if not result.get("requests"):
        return None
    rows = record(RequestLives, result["requests"])
    end_s = float(
        mapping(result.get("timeline")).get("end_s") or max(instant or 0.0 for instant in rows.end_s)
    )
    spans: dict[str, list[Span]] = {stage: [] for stage in LIVES}
    for stage, (came, left) in _STAGES.items():
        columns = zip(getattr(rows, came), getattr(rows, left), rows.end_s, strict=True)
        for row, (start_s, stop_s, last_s) in enumerate(columns):
            if start_s is None:
                continue
            until_s = next((instant for instant in (stop_s, last_s) if instant is not None), end_s)
            if until_s > start_s:
                spans[stage].append((start_s, until_s, row, LIVES[stage][0]))
    return Lanes("request", tuple(map(str, range(len(rows.arrival_s)))), end_s, LIVES, spans)
