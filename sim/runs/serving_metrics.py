"""Metrics of a serving run as its users see it, each a difference of instants.

Instants of a request, in order:

- *arrival*: it joins the prefill queue.
- *prefill start*: the first pass starts in which tokens of it are computed.
- *first token*: the pass ends in which its last ones are.
- *decode admitted*: memory is held for it on a rank that decodes, and its KV starts on its way.
- *KV arrived*: it may join the next step.
- *decode start*: its first step starts.
- *end*: the step ends that gives it its last token (the first token, if it has one only).

Of a request:

- `ttft` = first token - arrival; `ttft_alone` is the same of its prompt on empty machines.
- `tpot` = (end - first token) / (output tokens - 1), of two tokens or more: waits for a decode instance and for KV count.
- `token_gap` = one step's end less the one's before, for every request in both.
- `prefill_wait` = prefill start - arrival; `decode_wait` = decode admitted - first token; `step_wait` = decode start - KV
  arrived; `kv_transfer` = KV arrived - decode admitted; `response` = end - arrival.

Of a run, which lasts `makespan_s` = last end - first arrival, the time in which what is left drains included:
- `requests_per_s`, `output_tokens_per_s` = requests that ended, and their tokens, over the makespan.
- `goodput_requests_per_s` = those that ended within every objective, over the makespan; `good_fraction`, over all that came.
- `prefill_utilisation_fraction`, `decode_utilisation_fraction` = time in passes, of the mean instance of a pool, over the
  makespan.
- `queues` of a pool: `mean` length = sum of its waits over the time from the first that joins it to the last end (Little).
- `waited_s` for a pool = sum of the prefill waits; of the decode waits and step waits.
- `lower_bound_s`, `ttft_bound`, `tpot_bound`: see `serving_bound`.
- `preemptions` = requests put out of a full rank; `cache_hit_fraction` = prompt tokens found in a cache over all;
  `kv_occupancy_fraction` = KV held over the room for it, mean over time and decode ranks.
- `cost_usd_per_million_tokens` = rent of all GPUs over the makespan for a million output tokens.
Of a class of requests, `classes.NAME`: the same times, rates, shares and counts of its requests alone, good by its own objectives.
Of the span in which requests arrive, `while_arriving`: `span_s` = last arrival - first arrival; `arrivals_per_s` = arrivals
after the first over it; the other rates = first tokens, ends and output tokens in it over it; utilisations likewise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.engine.serving_instance import InstanceRecord
from sim.engine.serving_lives import ServingTrace
from sim.runs.serving_activity import host_wait_s
from sim.runs.serving_bound import Bound
from sim.schedule.serving import Service
from sim.workload.requests import Requests

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_PERCENTILES = (50, 90, 99)


def measure(
    service: Service,
    asked: Requests,
    trace: ServingTrace,
    num_gpus: int,
    *,
    ttft_s: float | Floats | None = None,
    tpot_s: float | Floats | None = None,
    bound: Bound | None = None,
) -> dict[str, Any]:
    """Measure a run; metrics are defined at the head of this module, and a spread of no requests is empty.

    `ttft_s` and `tpot_s` are the objectives that a good request meets, one for all or of each; no request, and no run, takes less
    than its `bound`.
    """
    instants = trace.instants
    ended = ~np.isnan(instants["end_s"])
    decodes = asked.output_tokens > 1
    last = float(np.nanmax(instants["end_s"])) if ended.any() else trace.end_s
    times = _Times(service, asked, trace, ttft_s, tpot_s, bound, max(last - float(asked.arrival_s[0]), 1e-12))
    metrics = times.metrics(np.ones(asked.num_requests, dtype=bool))
    metrics |= {
        "output_tokens_per_s_per_gpu": metrics["output_tokens_per_s"] / num_gpus,
        "makespan_s": times.makespan_s,
        "host_s": host_wait_s(service, trace),
        "queues": {
            "prefill": _queue(instants["arrival_s"], instants["prefill_start_s"], ~trace.refused, last),
            "decode": _queue(instants["first_token_s"], instants["decode_admitted_s"], decodes, last),
        },
        "prefill_utilisation_fraction": _busy(trace.prefill, asked.arrival_s[0], last),
        "decode_utilisation_fraction": _busy(trace.decode, asked.arrival_s[0], last),
        "waited_s": {
            "prefill": _waited_s(instants, "arrival_s", "prefill_start_s", ~trace.refused, last),
            "decode": _waited_s(instants, "first_token_s", "decode_admitted_s", decodes, last)
            + _waited_s(instants, "kv_arrived_s", "decode_start_s", decodes, last),
        },
        "while_arriving": _while_arriving(asked, trace),
        "kv_peak_fraction": _peak(trace.decode),
        "kv_occupancy_fraction": _occupancy(trace.decode),
    }
    steps = sum(int(instance.steps.sum()) for instance in trace.decode)
    if steps:
        metrics["requests_per_step"] = (
            float(sum(instance.requests.sum() for instance in trace.decode)) / steps
        )
    if bound is not None:
        metrics["lower_bound_s"] = bound.makespan_s(asked, trace, ended)
    if asked.classes is not None:
        own = asked.classes.class_idx
        metrics["classes"] = {
            name: times.metrics(own == i)
            | {
                "arrivals": {
                    "prompt_tokens": int(asked.prompt_tokens[own == i].sum()),
                    "output_tokens": int(asked.output_tokens[own == i].sum()),
                }
            }
            for i, name in enumerate(asked.classes.names)
        }
    return metrics


class _Times:
    """Times of each request and whether it met its objectives, [num_requests], and the metrics of any part of the requests."""

    def __init__(
        self,
        service: Service,
        asked: Requests,
        trace: ServingTrace,
        ttft_s: float | Floats | None,
        tpot_s: float | Floats | None,
        bound: Bound | None,
        makespan_s: float,
    ) -> None:
        self.asked, self.trace, self.bound, self.makespan_s = asked, trace, bound, makespan_s
        instants = trace.instants
        self.ended = ~np.isnan(instants["end_s"])
        self.decoded = self.ended & (asked.output_tokens > 1)
        self.ttft_s = instants["first_token_s"] - instants["arrival_s"]
        self.tpot_s = (instants["end_s"] - instants["first_token_s"]) / np.maximum(asked.output_tokens - 1, 1)
        lengths, which = np.unique(asked.prompt_tokens, return_inverse=True)
        needed = np.zeros(len(lengths), dtype=bool)
        needed[which[self.ended]] = True
        alone = [
            service.alone_s(int(tokens)) if own else math.nan
            for tokens, own in zip(lengths, needed, strict=True)
        ]
        self.alone_s = np.array(alone)[which]
        self.good = self.ended.copy()
        if ttft_s is not None:
            self.good &= ~(self.ttft_s > ttft_s)
        if tpot_s is not None:
            self.good &= ~((self.tpot_s > tpot_s) & self.decoded)

    def metrics(self, part: Bools) -> dict[str, Any]:
        """Metrics of a part of the requests [num_requests]; rates are over the makespan of all."""
        trace, instants, asked = self.trace, self.trace.instants, self.asked
        ended, decoded = self.ended & part, self.decoded & part
        num, good, tokens = (
            int(part.sum()),
            float(self.good[part].sum()),
            float(asked.output_tokens[ended].sum()),
        )

        def between(earlier: str, later: str) -> dict[str, float]:
            passed_s = (instants[later] - instants[earlier])[part]
            return _spread(passed_s[~np.isnan(passed_s)])

        metrics: dict[str, Any] = {
            "ttft": _spread(self.ttft_s[part & ~np.isnan(self.ttft_s)]),
            "ttft_alone": _spread(self.alone_s[ended]),
            "tpot": _spread(self.tpot_s[decoded]),
            "token_gap": _gaps(trace, part),
            "response": between("arrival_s", "end_s"),
            "prefill_wait": between("arrival_s", "prefill_start_s"),
            "decode_wait": between("first_token_s", "decode_admitted_s"),
            "step_wait": between("kv_arrived_s", "decode_start_s"),
            "kv_transfer": between("decode_admitted_s", "kv_arrived_s"),
            "goodput_requests_per_s": good / self.makespan_s,
            "good_fraction": good / max(1, num),
            "requests_per_s": float(ended.sum()) / self.makespan_s,
            "output_tokens_per_s": tokens / self.makespan_s,
            "preemptions": int(trace.times_put_out[part].sum()),
            "cache_hit_fraction": _hits(asked, trace, part),
            "num_ended": int(ended.sum()),
            "num_refused": int(trace.refused[part].sum()),
            "num_unfinished": int((part & ~self.ended & ~trace.refused).sum()),
        }
        if self.bound is not None:
            metrics |= {
                "ttft_bound": _spread(self.bound.ttft_s[ended]),
                "tpot_bound": _spread(self.bound.tpot_s[decoded]),
            }
        return metrics


def _spread(values: Floats) -> dict[str, float]:
    """Mean and percentiles [s]."""
    if not len(values):
        return {}
    return {"mean_s": float(values.mean())} | {
        f"p{p}_s": float(np.percentile(values, p)) for p in _PERCENTILES
    }


def _gaps(trace: ServingTrace, part: Bools) -> dict[str, float]:
    """Percentiles of the time from one step's end to the next, by the requests of a part that were in both."""
    gaps, weights = [], []
    for instance in trace.decode:
        request, first, after = instance.stays[instance.stays[:, 2] > instance.stays[:, 1] + 1].T
        own, steps = part[request], int(instance.steps.sum())
        change = np.bincount(first[own], minlength=steps) - np.bincount(after[own] - 1, minlength=steps)
        gaps.append(np.diff(instance.end_s[instance.steps]))
        weights.append(np.cumsum(change)[:-1])
    gap, weight = np.concatenate(gaps), np.concatenate(weights)
    if not weight.sum():
        return {}
    order = np.argsort(gap, kind="stable")
    reached = np.cumsum(weight[order])
    percentiles = {
        f"p{p}_s": float(gap[order][int(np.searchsorted(reached, p / 100 * reached[-1]))])
        for p in _PERCENTILES
    }
    return percentiles | {"max_s": float(gap[weight > 0].max())}


def _queue(came: Floats, left: Floats, joined: Bools, end_s: float) -> dict[str, float]:
    """Mean and greatest length; who never left waited until the end."""
    joined = joined & ~np.isnan(came)
    if not joined.any():
        return {"mean": 0.0, "max": 0}
    until = np.where(np.isnan(left[joined]), max(end_s, float(came[joined].max())), left[joined])
    span = max(float(until.max() - came[joined].min()), end_s - float(came[joined].min()), 1e-12)
    waited = until - came[joined]
    events = np.concatenate([came[joined][waited > 0], until[waited > 0]])
    change = np.concatenate([np.ones(int((waited > 0).sum())), -np.ones(int((waited > 0).sum()))])
    length = np.cumsum(change[np.lexsort((change, events))])  # who leaves goes before who comes
    return {"mean": float(waited.sum()) / span, "max": int(length.max(initial=0))}


def _waited_s(instants: dict[str, Floats], came: str, left: str, joined: Bools, end_s: float) -> float:
    """Sum of waits [s]; who never left waited until the end."""
    joined = joined & ~np.isnan(instants[came])
    until = np.where(
        np.isnan(instants[left][joined]), np.maximum(end_s, instants[came][joined]), instants[left][joined]
    )
    return float((until - instants[came][joined]).sum())


def _busy(pool: tuple[InstanceRecord, ...], begin_s: float, end_s: float) -> float:
    """Share of a span that the mean instance is in batches and steps."""
    busy = sum(
        float((np.clip(instance.end_s, begin_s, end_s) - np.clip(instance.start_s, begin_s, end_s)).sum())
        for instance in pool
    )
    return min(1.0, busy / (len(pool) * max(end_s - begin_s, 1e-12)))


def _while_arriving(asked: Requests, trace: ServingTrace) -> dict[str, float]:
    """Rates and business from the first arrival to the last, or to where the run was cut; {} where all came at once."""
    begin, end = float(asked.arrival_s[0]), min(float(np.nanmax(asked.arrival_s)), trace.end_s)
    span = end - begin
    if span <= 0:
        return {}
    instants = trace.instants
    prefilled = instants["first_token_s"] <= end
    return {
        "span_s": span,
        "arrivals_per_s": float((asked.arrival_s <= end).sum() - 1) / span,
        "prefilled_per_s": float(prefilled.sum()) / span,
        "requests_per_s": float((instants["end_s"] <= end).sum()) / span,
        "output_tokens_per_s": float(prefilled.sum() + _decoded_until(asked, trace, end).sum()) / span,
        "prefill_utilisation_fraction": _busy(trace.prefill, begin, end),
        "decode_utilisation_fraction": _busy(trace.decode, begin, end),
    }


def _decoded_until(asked: Requests, trace: ServingTrace, until_s: float) -> Floats:
    """Tokens that decode steps have given each request by an instant [num_requests]."""
    ends = (instance.end_s[instance.steps] for instance in trace.decode)
    done = np.array([np.searchsorted(end_s, until_s, "right") for end_s in ends])
    decoding = trace.decode_instance >= 0
    steps = np.where(decoding, done[trace.decode_instance] - trace.first_step, 0)
    rate = (asked.output_tokens - 1) / np.maximum(trace.steps, 1)
    tokens = np.floor(np.maximum(steps, 0) * rate + 1e-9)
    return np.where(decoding & (trace.first_step >= 0), np.minimum(tokens, asked.output_tokens - 1), 0.0)


def _peak(pool: tuple[InstanceRecord, ...]) -> float:
    return max(instance.peak_kv_tokens / instance.kv_capacity_tokens for instance in pool)


def _occupancy(pool: tuple[InstanceRecord, ...]) -> float:
    held = sum(instance.mean_kv_tokens for instance in pool)
    return held / sum(instance.kv_capacity_tokens for instance in pool)


def _hits(asked: Requests, trace: ServingTrace, part: Bools) -> float:
    """Prompt tokens found in a cache over those of all prompts that were begun."""
    begun = part & ~np.isnan(trace.instants["prefill_start_s"])
    return float(trace.cached_tokens[begun].sum()) / max(1, int(asked.prompt_tokens[begun].sum()))
