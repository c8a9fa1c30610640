"""Serving in tables and sentences: what users saw, how long they waited for what, how busy the pools were."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sim.show.grid import Cell, Grid, time_cell
from sim.show.views.run import Case
from sim.show.views.serving import _POINTS, is_serving
from sim.show.views.serving import SPREADS as _SPREADS


def grids(found: Sequence[Case]) -> list[Grid]:
    """All grids of the serving runs among the cases."""
    runs = [case for case in found if is_serving(case)]
    return [of_service(runs), of_arrivals(runs), of_spreads(runs)] if runs else []


def of_service(runs: Sequence[Case]) -> Grid:
    """What was delivered, beside its bound, and how busy the pools were: a column for each case."""
    rows: list[tuple[Cell, ...]] = []

    def row(label: str, *cells: Cell) -> None:
        rows.append((label, *cells))

    metrics = [case.metrics for case in runs]

    row("requests ended", *(f"{m['num_ended']:,}" for m in metrics))
    for key, label in (("num_refused", "refused"), ("num_unfinished", "unfinished")):
        if any(m[key] for m in metrics):
            row(label, *(f"{m[key]:,}" for m in metrics))
    row("within objectives", *(f"{m['good_fraction']:.1%}" for m in metrics))
    row("goodput [requests/s]", *(f"{m['goodput_requests_per_s']:.3g}" for m in metrics))
    row("requests/s", *(f"{m['requests_per_s']:.3g}" for m in metrics))
    row("output tokens/s", *(f"{m['output_tokens_per_s']:,.0f}" for m in metrics))
    row("output tokens/s/GPU", *(f"{m['output_tokens_per_s_per_gpu']:.1f}" for m in metrics))
    row("first arrival to last end", *(time_cell(m["makespan_s"]) for m in metrics))
    row("bound", *(time_cell(m["lower_bound_s"]) for m in metrics))
    row(
        "/ bound",
        *(f"{m['makespan_s'] / m['lower_bound_s']:.3f}" if m["lower_bound_s"] else "-" for m in metrics),
    )
    for pool in ("prefill", "decode"):
        row(f"{pool} busy", *(f"{m[f'{pool}_utilisation_fraction']:.1%}" for m in metrics))
        row(
            f"{pool} queue, mean / most",
            *(f"{m['queues'][pool]['mean']:.1f} / {m['queues'][pool]['max']}" for m in metrics),
        )
        row(f"waited for {pool}, in all", *(time_cell(m["waited_s"][pool] or None) for m in metrics))
    row("KV cache, fullest", *(f"{m['kv_peak_fraction']:.1%}" for m in metrics))
    if any("requests_per_step" in m for m in metrics):
        row("requests in a step", *(f"{m.get('requests_per_step', 0):.1f}" for m in metrics))
    heads = ("", *(case.name if len(runs) > 1 else "run" for case in runs))
    return Grid(
        "Service",
        heads,
        tuple(rows),
        note="rates and shares of time are over the whole run, from the first arrival to the last end",
    )


def of_arrivals(runs: Sequence[Case]) -> Grid:
    """Rates and business while requests arrive, the draining left out."""
    spans = [case.metrics.get("while_arriving") or {} for case in runs]
    rows: list[tuple[Cell, ...]] = []

    def row(label: str, key: str, write: Callable[[float], Cell]) -> None:
        if any(key in one for one in spans):
            rows.append((label, *(write(one[key]) if key in one else "-" for one in spans)))

    row("first arrival to last", "span_s", time_cell)
    for what, key in (
        ("arrive", "arrivals_per_s"),
        ("are prefilled", "prefilled_per_s"),
        ("end", "requests_per_s"),
    ):
        row(f"requests/s that {what}", key, lambda rate: f"{rate:.3g}")
    row("output tokens/s", "output_tokens_per_s", lambda rate: f"{rate:,.0f}")
    for pool in ("prefill", "decode"):
        row(f"{pool} busy", f"{pool}_utilisation_fraction", lambda share: f"{share:.1%}")
    heads = ("", *(case.name if len(runs) > 1 else "run" for case in runs))
    return Grid("While requests arrive", heads, tuple(rows))


def of_spreads(runs: Sequence[Case]) -> Grid:
    """Mean and percentiles of every time that users feel."""
    rows: list[tuple[Cell, ...]] = []
    breaks = []
    for key, label in _SPREADS.items():
        breaks.append(len(rows))
        for case in runs:
            spread = case.metrics.get(key) or {}
            if any(spread.values()):
                cells = (time_cell(spread.get(point)) for point in _POINTS)
                rows.append((*((label, case.name) if len(runs) > 1 else (label,)), *cells))
    heads = ("", *(("variant",) if len(runs) > 1 else ()), "mean", "p50", "p90", "p99", "most")
    words = frozenset({0, 1}) if len(runs) > 1 else frozenset({0})
    many = frozenset(breaks[1:]) if len(runs) > 1 else frozenset()
    return Grid("What users waited for", heads, tuple(rows), words=words, breaks=many)


# --- sentences -------------------------------------------------------------------------------------------------------
