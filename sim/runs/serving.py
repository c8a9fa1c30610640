"""Metrics of a serving run as its users see it, each a difference of instants.

Instants of a request, in order:

- *arrival*: it joins the prefill queue.
- *prefill start*: its batch starts.
- *first token*: its batch ends.
- *decode admitted*: memory is reserved for it on a decode instance, and its KV starts on its way.
- *KV arrived*: it may join the next step.
- *decode start*: its first step starts.
- *each token*: a step ends; `token_instants_s`.
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
- `prefill_utilisation_fraction`, `decode_utilisation_fraction` = time in batches and steps, of the mean instance of a pool,
  over the makespan.
- `queues` of a pool: `mean` length = sum of its waits over the time from the first that joins it to the last end (Little).
- `waited_s` for a pool = sum of the prefill waits; of the decode waits and step waits.
- `lower_bound_s` = the makespan, had every request had an empty deployment to itself.
Of the span in which requests arrive, `while_arriving`: `span_s` = last arrival - first arrival; `arrivals_per_s` = arrivals
after the first over it; the other rates = first tokens, ends and output tokens in it over it; utilisations likewise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.engine.serving import InstanceRecord, ServingTrace, serve
from sim.errors import InfeasibleError
from sim.runs.energy import energy_metrics
from sim.runs.kinds import COMPUTE, LINKS, Runner
from sim.runs.link_rows import largest, link_rows
from sim.runs.service import service_of
from sim.runs.serving_activity import host_wait_s, serving_activity
from sim.scenario.descriptions import Scenario
from sim.scenario.serving import Serving
from sim.schedule.serving import Service
from sim.workload.requests import Requests, totals

Floats = NDArray[np.float64]

_PERCENTILES = (50, 90, 99)
_SAMPLES, _SHOWN_REQUESTS = 400, 5000  # of the timeline


def run_serving(scenario: Scenario, progress: Callable[[str], None]) -> dict[str, Any]:
    """Simulate the requests of a serving scenario.

    Parameters
    ----------
    scenario : Scenario
        Its workload is a `Serving`.
    progress : function of a sentence

    Returns
    -------
    dict
        Metrics, timeline and instants of requests, as `result.json` has them.

    Raises
    ------
    InfeasibleError
        Where no request fits.
    """
    work = scenario.workload
    assert isinstance(work, Serving)
    service = service_of(scenario, progress)
    asked = work.requests
    progress(f"{scenario.name}: {asked.num_requests} requests")
    trace = serve(service, asked, until_s=work.spec.until)
    if trace.refused.all():
        fits = min(service.rank_capacity_tokens(pool) for pool in (service.prefill, service.decode) if pool)
        shortest = int((asked.prompt_tokens + asked.output_tokens).min())
        raise InfeasibleError(
            f"no request fits: a GPU has room for {fits:,.0f} tokens of KV, the shortest request needs {shortest:,}"
        )
    slo = work.spec.slo
    metrics = measure(service, asked, trace, work.num_gpus, ttft_s=slo.ttft, tpot_s=slo.tpot)
    done = serving_activity(work, service, asked, trace, metrics["makespan_s"])
    tokens = metrics["output_tokens_per_s"] * metrics["makespan_s"]
    metrics |= energy_metrics(scenario, done, tokens, num_gpus=work.num_gpus) | {"arrivals": totals(asked)}
    return {
        "metrics": metrics,
        "timeline": timeline(trace),
        "requests": _rows(trace, asked),
        "links": kv_load(scenario, service, trace),
    }


def kv_load(scenario: Scenario, service: Service, trace: ServingTrace) -> dict[str, dict[str, Any]]:
    """Load that KV on its way put on each link; the collectives of the instances are not in it.

    Parameters
    ----------
    scenario : Scenario
    service : Service
    trace : ServingTrace

    Returns
    -------
    dict
        As of `link_rows`; of very many links, the busiest.
    """
    if service.kv_links is None:
        return {}
    cluster = scenario.cluster()
    carried, used = np.zeros((2, len(cluster.names)))
    for ends, payload in trace.kv_bytes.items():
        flows = replace(service.kv_links.flows(*ends), payload_bytes=payload)
        carried += flows.bytes_by_resource(len(carried))
        used += flows.line_by_resource(len(used))
    return largest(link_rows(cluster, carried, used, max(trace.end_s, 1e-12)))


def measure(
    service: Service,
    asked: Requests,
    trace: ServingTrace,
    num_gpus: int,
    *,
    ttft_s: float | None = None,
    tpot_s: float | None = None,
) -> dict[str, Any]:
    """Measure a run; metrics are defined at the head of this module.

    Parameters
    ----------
    service : Service
        Pools and their costs.
    asked : Requests
        All that came.
    trace : ServingTrace
        Instants of each.
    num_gpus : int [count]
        Of all instances.
    ttft_s, tpot_s : float or None [s]
        Objectives that a good request meets.

    Returns
    -------
    dict
        Metrics by name; a spread of no requests is empty.
    """
    instants = trace.instants
    ended = ~np.isnan(instants["end_s"])
    decoded = ended & (asked.output_tokens > 1)
    ttft = instants["first_token_s"] - instants["arrival_s"]
    tpot = (instants["end_s"] - instants["first_token_s"]) / np.maximum(asked.output_tokens - 1, 1)
    lengths, which = np.unique(asked.prompt_tokens[ended], return_inverse=True)
    alone = np.array([service.alone_s(int(tokens)) for tokens in lengths])[which]
    good = ended.copy()
    if ttft_s is not None:
        good &= ~(ttft > ttft_s)
    if tpot_s is not None:
        good &= ~((tpot > tpot_s) & decoded)
    last = float(np.nanmax(instants["end_s"])) if ended.any() else trace.end_s
    makespan = max(last - float(asked.arrival_s[0]), 1e-12)
    tokens = float(asked.output_tokens[ended].sum())
    metrics: dict[str, Any] = {
        "ttft": _spread(ttft[~np.isnan(ttft)]),
        "ttft_alone": _spread(alone),
        "tpot": _spread(tpot[decoded]),
        "token_gap": _gaps(trace),
        "response": _spread((instants["end_s"] - instants["arrival_s"])[ended]),
        "prefill_wait": _spread(_difference(instants, "prefill_start_s", "arrival_s")),
        "decode_wait": _spread(_difference(instants, "decode_admitted_s", "first_token_s")),
        "step_wait": _spread(_difference(instants, "decode_start_s", "kv_arrived_s")),
        "kv_transfer": _spread(_difference(instants, "kv_arrived_s", "decode_admitted_s")),
        "goodput_requests_per_s": float(good.sum()) / makespan,
        "good_fraction": float(good.sum()) / asked.num_requests,
        "requests_per_s": float(ended.sum()) / makespan,
        "output_tokens_per_s": tokens / makespan,
        "output_tokens_per_s_per_gpu": tokens / makespan / num_gpus,
        "makespan_s": makespan,
        "host_s": host_wait_s(service, trace),
        "lower_bound_s": _lower_bound_s(service, asked, ended, alone),
        "queues": {
            "prefill": _queue(instants["arrival_s"], instants["prefill_start_s"], ~trace.refused, last),
            "decode": _queue(
                instants["first_token_s"], instants["decode_admitted_s"], asked.output_tokens > 1, last
            ),
        },
        "prefill_utilisation_fraction": _busy(trace.prefill, asked.arrival_s[0], last),
        "decode_utilisation_fraction": _busy(trace.decode, asked.arrival_s[0], last),
        "waited_s": {
            "prefill": _waited_s(instants, "arrival_s", "prefill_start_s", ~trace.refused, last),
            "decode": _waited_s(instants, "first_token_s", "decode_admitted_s", asked.output_tokens > 1, last)
            + _waited_s(instants, "kv_arrived_s", "decode_start_s", asked.output_tokens > 1, last),
        },
        "while_arriving": _while_arriving(service, asked, trace),
        "kv_peak_fraction": _peak(trace.decode),
        "num_ended": int(ended.sum()),
        "num_refused": int(trace.refused.sum()),
        "num_unfinished": int((~ended & ~trace.refused).sum()),
    }
    steps = sum(len(instance.step_end_s) for instance in trace.decode)
    if steps:
        requests = sum(float(instance.step_requests.sum()) for instance in trace.decode)
        metrics["requests_per_step"] = requests / steps
    return metrics


def token_instants_s(trace: ServingTrace, service: Service, asked: Requests, request: int) -> Floats:
    """Instants at which the output tokens of a request came.

    Parameters
    ----------
    trace : ServingTrace
    service : Service
    asked : Requests
    request : int
        Index of a request that ended.

    Returns
    -------
    floats, [output_tokens] [s]
    """
    first = trace.instants["first_token_s"][request]
    later = np.arange(1, int(asked.output_tokens[request]))
    if not len(later):
        return np.array([first])
    ends = trace.decode[int(trace.decode_instance[request])].step_end_s[int(trace.first_step[request]) :]
    step = np.ceil(later / service.tokens_per_step).astype(int) - 1
    return np.concatenate([[first], ends[step]])


def timeline(trace: ServingTrace) -> dict[str, Any]:
    """Count requests in each state at even instants, for plots.

    Parameters
    ----------
    trace : ServingTrace

    Returns
    -------
    dict
        `sample_s`, the instants [s], and a list of counts for each state.
    """
    instants = trace.instants
    when = np.linspace(0.0, trace.end_s, _SAMPLES)

    def waiting(came: str, left: str) -> list[int]:
        """Requests between two of their instants at each sample."""
        inside = ~np.isnan(instants[came]) & ~trace.refused
        first = np.sort(instants[came][inside])
        then = np.sort(instants[left][inside & ~np.isnan(instants[left])])
        count = np.searchsorted(first, when, "right") - np.searchsorted(then, when, "right")
        return [int(number) for number in count]

    return {
        "end_s": trace.end_s,
        "sample_s": when.tolist(),
        "prefill_queue": waiting("arrival_s", "prefill_start_s"),
        "prefilling": waiting("prefill_start_s", "first_token_s"),
        "kv_moving": waiting("decode_admitted_s", "kv_arrived_s"),
        "decoding": waiting("decode_start_s", "end_s"),
    }


def _rows(trace: ServingTrace, asked: Requests) -> dict[str, list[float | None]]:
    """Instants of the first requests, a column each; None where one never came."""
    shown = slice(0, _SHOWN_REQUESTS)
    columns = {
        name: [None if np.isnan(value) else float(value) for value in values[shown]]
        for name, values in trace.instants.items()
    }
    columns["prompt_tokens"] = asked.prompt_tokens[shown].tolist()
    columns["output_tokens"] = asked.output_tokens[shown].tolist()
    return columns


def _lower_bound_s(service: Service, asked: Requests, ended: NDArray[np.bool_], alone_s: Floats) -> float:
    """From the first arrival to the last end, had nobody waited: prefill alone, and steps of one short request [s]."""
    if not len(alone_s):
        return 0.0
    steps = np.ceil((asked.output_tokens[ended] - 1) / service.tokens_per_step)
    pool = service.decode or service.prefill
    last = asked.arrival_s[ended] + alone_s + steps * service.decode_step_s(1 / pool.num_ranks, 1)
    return float(last.max() - asked.arrival_s[0])


def _difference(instants: dict[str, Floats], later: str, earlier: str) -> Floats:
    passed_s = instants[later] - instants[earlier]
    return passed_s[~np.isnan(passed_s)]


def _spread(values: Floats) -> dict[str, float]:
    """Mean and percentiles [s]."""
    if not len(values):
        return {}
    return {"mean_s": float(values.mean())} | {
        f"p{p}_s": float(np.percentile(values, p)) for p in _PERCENTILES
    }


def _gaps(trace: ServingTrace) -> dict[str, float]:
    """Percentiles of the time from one step's end to the next, by the requests that were in both."""
    gaps, weights = [], []
    for index, instance in enumerate(trace.decode):
        ends = trace.instants["end_s"][trace.decode_instance == index]
        last_step = np.searchsorted(instance.step_end_s, ends[~np.isnan(ends)])
        left = np.bincount(last_step, minlength=len(instance.step_end_s))
        gaps.append(np.diff(instance.step_end_s))
        weights.append((instance.step_requests - left)[:-1])
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


def _queue(came: Floats, left: Floats, joined: NDArray[np.bool_], end_s: float) -> dict[str, float]:
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


def _waited_s(
    instants: dict[str, Floats], came: str, left: str, joined: NDArray[np.bool_], end_s: float
) -> float:
    """Sum of waits [s]; who never left waited until the end."""
    joined = joined & ~np.isnan(instants[came])
    until = np.where(
        np.isnan(instants[left][joined]), np.maximum(end_s, instants[came][joined]), instants[left][joined]
    )
    return float((until - instants[came][joined]).sum())


def _busy(pool: tuple[InstanceRecord, ...], begin_s: float, end_s: float) -> float:
    """Share of a span that the mean instance is in batches and steps."""
    spans = [(instance.batch_start_s, instance.batch_end_s) for instance in pool]
    spans += [(instance.step_start_s, instance.step_end_s) for instance in pool]
    busy = sum(
        float((np.clip(end, begin_s, end_s) - np.clip(start, begin_s, end_s)).sum()) for start, end in spans
    )
    return min(1.0, busy / (len(pool) * max(end_s - begin_s, 1e-12)))


def _while_arriving(service: Service, asked: Requests, trace: ServingTrace) -> dict[str, float]:
    """Rates and business from the first arrival to the last, or to where the run was cut; {} where all came at once."""
    begin, end = float(asked.arrival_s[0]), min(float(asked.arrival_s[-1]), trace.end_s)
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
        "output_tokens_per_s": float(prefilled.sum() + _decoded_until(service, asked, trace, end).sum())
        / span,
        "prefill_utilisation_fraction": _busy(trace.prefill, begin, end),
        "decode_utilisation_fraction": _busy(trace.decode, begin, end),
    }


def _decoded_until(service: Service, asked: Requests, trace: ServingTrace, until_s: float) -> Floats:
    """Tokens that decode steps have given each request by an instant [num_requests]."""
    done = np.array([np.searchsorted(instance.step_end_s, until_s, "right") for instance in trace.decode])
    decoding = trace.decode_instance >= 0
    steps = np.where(decoding, done[trace.decode_instance] - trace.first_step, 0)
    tokens = np.floor(np.maximum(steps, 0) * service.tokens_per_step + 1e-9)
    return np.where(decoding & (trace.first_step >= 0), np.minimum(tokens, asked.output_tokens - 1), 0.0)


def _peak(pool: tuple[InstanceRecord, ...]) -> float:
    return max(instance.peak_kv_tokens / instance.kv_capacity_tokens for instance in pool)


RUNNER = Runner(run_serving, reads=(*LINKS, *COMPUTE))
