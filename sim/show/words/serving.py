"""Sentences on serving: how many requests were served well, what users felt, and what they waited for."""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.views import comparison
from sim.show.views.lanes import Lanes
from sim.show.views.run import RunsView, RunView
from sim.show.views.serving import ServiceView
from sim.units import show

TERMS = (
    ("TTFT", "from a request's arrival to the end of its prefill"),
    ("TPOT", "from its first token to its last, over the tokens between; waits for a decode instance count"),
    ("alone", "the TTFT that the same prompts had on empty machines"),
    ("token gap", "between two steps, for every request in both"),
    ("requests/s, goodput", "requests that ended, and that met every objective, over the time from the first arrival to the last end"),
    ("busy", "time in batches and steps of the mean instance of a pool, over the same"),
    ("while arriving", "from the first arrival to the last, without the time in which the rest drains"),
    ("waited in all", "sum over requests of the time in which they waited for a pool, for a place or for its next step"),
    ("bound", "from the first arrival to the last end, had nobody waited"),
    ("p50, p90, p99", "half, nine tenths, 99 of a hundred requests were at least as quick"),
    ("assumed, derived", "figures without a measurement of their own; each says what it stands on"),
)  # fmt: skip
_CLASSES = 6  # that a sentence has
_SAME = 0.005  # ratios this close to 1 are called "as many"


def finding(runs: RunsView) -> list[str]:
    """Answer for the services, the most important sentence first."""
    services = runs.select(ServiceView)
    first = services[0]
    return [
        _served(first, services),
        *_classes(first, services),
        *_others(services),
        *_outages(services),
        _waits(services[:4]),
        *_while_arriving(first, services),
        *_recorded(first),
    ]


def aside(runs: Sequence[RunView]) -> str:
    """Nothing."""
    return ""


def course(run: ServiceView, lanes: Lanes) -> str:
    """Title of the timeline: where requests spend their time."""
    spent = run.spent
    whole = sum(spent.values())
    waits = spent["prefill wait"] + spent["decode wait"] + spent["step wait"]
    return (
        f"of their time in the system {len(lanes.rows):,} requests decode {spent['decode'] / whole:.0%}, "
        f"prefill {spent['prefill'] / whole:.0%} and wait {waits / whole:.0%}"
    )


def _served(run: ServiceView, services: Sequence[ServiceView]) -> str:
    """Say how many requests met their objectives, and what users felt."""
    requests, rate = (
        f"{run.num_requests:,} requests",
        f"{run.goodput_requests_per_s:.3g} a second of the whole run",
    )
    medians = f"the median TTFT is {_median(run, 'ttft')}, the median TPOT {_median(run, 'tpot')}"
    several = len(services) > 1
    if not run.objectives:
        return (
            f"In {run.name}, {requests} are served, {rate}; {_medians(run)}."
            if several
            else f"{requests}, {rate}; {medians}."
        )
    asked = " and ".join(f"{key.upper()} of {show(time_s, 's', 3)}" for key, time_s in run.objectives.items())
    if several:
        return f"In {run.name}, {run.good_fraction:.0%} of {requests} are served within a {asked}, {rate}; {_medians(run)}."
    return f"{run.good_fraction:.0%} of {requests} meet a {asked}, {rate}; {medians}."


def _medians(run: ServiceView) -> str:
    return f"median TTFT {_median(run, 'ttft')}, TPOT {_median(run, 'tpot')}"


def _median(run: ServiceView, key: str) -> str:
    median_s = run.spreads[key].p50_s
    return "unknown" if median_s is None else show(median_s, "s", 3)


def _classes(run: ServiceView, services: Sequence[ServiceView]) -> list[str]:
    """Say what each class of the first run's requests got, the one that got least first."""
    if not run.classes:
        return []
    rows = sorted(run.classes.items(), key=lambda row: row[1].good_fraction)
    if run.objectives or any(run.class_objectives.values()):
        words = [f"{own.good_fraction:.0%} of {name}" for name, own in rows]
        what = "meet their objectives"
    else:
        late = [(name, own.spreads["ttft"].p99_s) for name, own in rows]
        words = [f"{show(time_s, 's', 3)} of {name}" for name, time_s in late if time_s is not None]
        what = "is the p99 of TTFT"
    *most, last = words[:_CLASSES] or ["nobody"]
    named = f"In {run.name} " if len(services) > 1 else ""
    return [f"{named}{' and '.join(filter(None, [', '.join(most), last]))} {what}."]


def _others(services: Sequence[ServiceView]) -> list[str]:
    """Each variant against the first: goodput, and what users feel; of many the one that differs most."""
    base = services[0].goodput_requests_per_s
    ratios = {run: run.goodput_requests_per_s / base if base else float("inf") for run in services[1:]}
    sentences = []
    for run, ratio in sorted(ratios.items(), key=lambda item: -abs(item[1] - 1))[:1]:
        much = "as many" if abs(ratio - 1) < _SAME else f"{ratio:.2f}x as many"
        sentences.append(
            f"In {run.name}, {much}, {run.goodput_requests_per_s:.3g} a second: {_medians(run)}."
        )
    left = len(ratios) - len(sentences)
    return (
        comparison.append_rest(sentences, f"{left} more differ{'s' * (left == 1)} less." if left > 0 else "")
        if sentences
        else []
    )


def _outages(services: Sequence[ServiceView]) -> list[str]:
    """Say what the outage cost after which the queue took longest to drain."""
    down = [run for run in services if run.down_s]
    if not down:
        return []
    run = max(down, key=lambda run: run.queue_drain_s or 0.0)
    named = f" in {run.name}" if len(services) > 1 else ""
    drained = (
        f", and the queue drains in {show(run.queue_drain_s, 's', 3)} after the last fault"
        if run.queue_drain_s
        else ""
    )
    again = f"{run.restarts:,} request{'s' * (run.restarts != 1)} begin{'s' * (run.restarts == 1)} again"
    return [f"Instances{named} are down for {show(run.down_s, 's', 3)} in all: {again}{drained}."]


def _waits(services: Sequence[ServiceView]) -> str:
    """Say for which pool requests waited most, each and in all."""
    most: dict[str, list[str]] = {}
    nothing = []
    for run in services:
        pool = run.longest_wait
        total_s = run.waited_s[pool]
        where = f" in {run.name}" if len(services) > 1 else ""
        if total_s:
            each = show(total_s / max(1, run.num_requests - run.num_refused), "s", 3)
            most.setdefault(pool, []).append(f"{each} each{where} ({show(total_s, 's', 3)} in all)")
        else:
            nothing.append(where.strip())
    sentences = [f"wait most for {pool}, {' and '.join(waits)}" for pool, waits in most.items()]
    if nothing:
        sentences.append(f"wait for no pool {', '.join(nothing)}".strip())
    return f"Requests {'; they '.join(sentences)}."


def _while_arriving(run: ServiceView, services: Sequence[ServiceView]) -> list[str]:
    """Say how fast requests come, how busy the pool is that they wait for, and that other rates count the draining too."""
    span, pool = run.while_arriving, run.longest_wait
    if span is None:
        return []
    busy = getattr(span, f"{pool}_utilisation_fraction")
    named = f" of {run.name}" if len(services) > 1 else ""
    meanwhile = f", while the {pool} pool{named} is busy {busy:.0%} of the time" if run.waited_s[pool] else ""
    return [
        f"{span.arrivals_per_s:.3g} a second arrive for {show(span.span_s, 's', 3)}{meanwhile}; "
        f"rates of the whole run are over {show(run.makespan_s, 's', 3)}, until the last has ended."
    ]


def _recorded(run: ServiceView) -> list[str]:
    """Say what part of a trace's prompts a cache would hold, and what of it was dropped."""
    reusable, dropped = run.arrivals.get("reusable_fraction"), int(run.arrivals.get("num_dropped", 0))
    sentences = []
    if reusable is not None:
        prompts = f"{run.arrivals['prompt_tokens']:,.0f} prompt tokens"
        sentences.append(f"A prefix cache without bounds would hold {reusable:.1%} of the {prompts}.")
    if dropped:
        sentences.append(f"{dropped:,} recorded requests had no prompt or no answer, and were dropped.")
    return sentences
