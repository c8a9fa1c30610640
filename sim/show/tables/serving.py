"""Grids of serving: what was delivered, what users waited for, how busy the pools were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, replace

from sim.show.grid import Cell, Grid, ratio_cell, share_cell, time_cell
from sim.show.views.run import RunsView
from sim.show.views.serving import POOLS, SPREADS, ClassOfRequests, ServiceView


def grids(runs: RunsView, *, wide: bool) -> list[Grid]:
    """All grids of the serving runs among the runs."""
    services = runs.select(ServiceView)
    return [delivered(services), arriving(services), spreads(services), classes(services)]


def delivered(services: Sequence[ServiceView]) -> Grid:
    """Delivery next to its bound, and business of the pools: a column for each run."""
    write: dict[str, Callable[[ServiceView], Cell]] = {
        "requests ended": lambda run: f"{run.num_ended:,}",
        "refused": lambda run: f"{run.num_refused:,}",
        "unfinished": lambda run: f"{run.num_unfinished:,}",
        "within objectives": lambda run: share_cell(run.good_fraction),
        "goodput [requests/s]": lambda run: f"{run.goodput_requests_per_s:.3g}",
        "requests/s": lambda run: f"{run.requests_per_s:.3g}",
        "output tokens/s": lambda run: f"{run.output_tokens_per_s:,.0f}",
        "output tokens/s/GPU": lambda run: f"{run.output_tokens_per_s_per_gpu:.1f}",
        "first arrival to last end": lambda run: time_cell(run.makespan_s),
        "bound": lambda run: time_cell(run.lower_bound_s),
        "/ bound": lambda run: ratio_cell(run.makespan_s / run.lower_bound_s if run.lower_bound_s else None),
    }
    write["instances down, in all"] = lambda run: time_cell(run.down_s or None)
    write["begun again after it"] = lambda run: f"{run.restarts:,}"
    write["queue drained after faults"] = lambda run: time_cell(run.queue_drain_s)
    for pool in POOLS:
        write |= _pool(pool)
    write["KV cache, fullest"] = lambda run: share_cell(run.kv_peak_fraction)
    write["requests in a step"] = lambda run: f"{run.requests_per_step or 0:.1f}"
    silent = {
        "refused": not any(run.num_refused for run in services),
        "unfinished": not any(run.num_unfinished for run in services),
        "instances down, in all": not any(run.down_s for run in services),
        "begun again after it": not any(run.restarts for run in services),
        "queue drained after faults": all(run.queue_drain_s is None for run in services),
        "requests in a step": all(run.requests_per_step is None for run in services),
    }
    rows = tuple((label, *map(cell, services)) for label, cell in write.items() if not silent.get(label))
    note = "rates and shares of time are over the whole run, from the first arrival to the last end"
    return Grid("Service", _heads(services), rows, note=note)


def _pool(pool: str) -> dict[str, Callable[[ServiceView], Cell]]:
    """Rows of a pool: how busy it was, and how many waited for it."""
    return {
        f"{pool} busy": lambda run: share_cell(getattr(run, f"{pool}_utilisation_fraction")),
        f"{pool} queue, mean / most": lambda run: f"{run.queues[pool].mean:.1f} / {run.queues[pool].max}",
        f"waited for {pool}, in all": lambda run: time_cell(run.waited_s[pool] or None),
    }


def arriving(services: Sequence[ServiceView]) -> Grid:
    """Rates and business while requests arrive, the draining left out."""
    write: dict[str, tuple[str, Callable[[float], Cell]]] = {
        "first arrival to last": ("span_s", time_cell),
        "requests/s that arrive": ("arrivals_per_s", lambda rate: f"{rate:.3g}"),
        "requests/s that are prefilled": ("prefilled_per_s", lambda rate: f"{rate:.3g}"),
        "requests/s that end": ("requests_per_s", lambda rate: f"{rate:.3g}"),
        "output tokens/s": ("output_tokens_per_s", lambda rate: f"{rate:,.0f}"),
        **{f"{pool} busy": (f"{pool}_utilisation_fraction", share_cell) for pool in POOLS},
    }
    spans = [run.while_arriving for run in services]
    rows = tuple(
        (label, *("-" if span is None else cell(getattr(span, key)) for span in spans))
        for label, (key, cell) in write.items()
    )
    return Grid("While requests arrive", _heads(services), rows if any(spans) else ())


def spreads(services: Sequence[ServiceView]) -> Grid:
    """Mean and percentiles of every time that users feel."""
    kept = [
        (key, run.name, astuple(run.spreads[key]))
        for key in SPREADS
        for run in services
        if any(astuple(run.spreads[key]))
    ]
    rows = tuple((SPREADS[key], *map(time_cell, times_s)) for key, _, times_s in kept)
    grid = Grid("What users waited for", ("", "mean", "p50", "p90", "p99", "most"), rows)
    if len(services) == 1:
        return grid
    breaks = frozenset(i for i in range(1, len(kept)) if kept[i][0] != kept[i - 1][0])
    return replace(grid.named([name for _, name, _ in kept], column=1), breaks=breaks)


def classes(services: Sequence[ServiceView]) -> Grid:
    """What the users of each class got: a row for each class of each run."""
    kept = [(name, run.name, own) for run in services for name, own in run.classes.items()]
    write: dict[str, Callable[[ClassOfRequests], Cell]] = {
        "requests": lambda own: f"{own.num_requests:,}",
        "within objectives": lambda own: share_cell(own.good_fraction),
        "goodput [requests/s]": lambda own: f"{own.goodput_requests_per_s:.3g}",
        "TTFT p50": lambda own: time_cell(own.spreads["ttft"].p50_s),
        "TTFT p99": lambda own: time_cell(own.spreads["ttft"].p99_s),
        "TPOT p50": lambda own: time_cell(own.spreads["tpot"].p50_s),
        "TPOT p99": lambda own: time_cell(own.spreads["tpot"].p99_s),
        "token gap p99": lambda own: time_cell(own.spreads["token_gap"].p99_s),
        "put out": lambda own: f"{own.preemptions:,}",
        "found in a cache": lambda own: share_cell(own.cache_hit_fraction),
    }
    silent = {
        "put out": not any(own.preemptions for _, _, own in kept),
        "found in a cache": not any(own.cache_hit_fraction for _, _, own in kept),
    }
    shown = [cell for label, cell in write.items() if not silent.get(label)]
    rows = tuple((name, *(cell(own) for cell in shown)) for name, _, own in kept)
    grid = Grid("Classes of requests", ("", *(label for label in write if not silent.get(label))), rows)
    if len(services) == 1 or not rows:
        return grid
    breaks = frozenset(i for i in range(1, len(kept)) if kept[i][1] != kept[i - 1][1])
    return replace(grid.named([name for _, name, _ in kept], column=0), breaks=breaks)


def _heads(services: Sequence[ServiceView]) -> tuple[str, ...]:
    return ("", *(run.name if len(services) > 1 else "run" for run in services))
