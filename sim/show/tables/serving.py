"""Serving in tables and sentences: what users saw, how long they waited for what, how busy the pools were."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sim import units
from sim.show.grid import Cell, Grid, time_cell
from sim.show.views.lanes import LIVES
from sim.show.views.run import Case
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
_SPREADS = {
    "ttft": "TTFT",
    "ttft_alone": "TTFT alone",
    "tpot": "TPOT",
    "token_gap": "token gap",
    "prefill_wait": "wait for prefill",
    "decode_wait": "wait for decode",
    "step_wait": "wait for a step",
    "kv_transfer": "KV transfer",
    "response": "arrival to end",
}
_POINTS = ("mean_s", "p50_s", "p90_s", "p99_s", "max_s")
_SAME = 0.005


def is_serving(case: Case) -> bool:
    """Whether a case is a serving run."""
    return case.workload.get("kind") == "serving" and "goodput_requests_per_s" in case.metrics


def objectives(case: Case) -> dict[str, float]:
    """TTFT and TPOT that were asked for [s]."""
    asked = case.workload.get("slo") or {}
    return {key: units.parse(asked[key], "s") for key in ("ttft", "tpot") if asked.get(key)}


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


def finding(found: Sequence[Case]) -> list[str]:
    """What the runs say, the most important first."""
    runs = [case for case in found if is_serving(case)]
    if len(runs) == 1:
        return of_run(runs[0])
    return [*_compared(runs), _waits(runs[:4]), *_while_arriving(runs[0], named=True)]


def of_run(case: Case) -> list[str]:
    """How many were served well, what they felt, and what they waited for."""
    m = case.metrics
    said = [
        f"{m['good_fraction']:.0%} of {_asked(m):,} requests meet {_objectives(case)}, {m['goodput_requests_per_s']:.3g} a second of the whole run; "
        f"the median TTFT is {_median(m, 'ttft')}, the median TPOT {_median(m, 'tpot')}."
    ]  # fmt: skip
    return [*said, _waits([case]), *_while_arriving(case, named=False)]


def _asked(m: Any) -> int:
    return int(m["num_ended"] + m["num_refused"] + m["num_unfinished"])


def _objectives(case: Case) -> str:
    asked = objectives(case)
    if not asked:
        return "what was asked (no objective was set)"
    return " and ".join(
        f"{'a' if i == 0 else ''} {key.upper()} of {show(value, 's', 3)}".strip()
        for i, (key, value) in enumerate(asked.items())
    )


def _median(m: Any, key: str) -> str:
    spread = m.get(key) or {}
    return show(spread["p50_s"], "s", 3) if "p50_s" in spread else "unknown"


def _waits(runs: Sequence[Case]) -> str:
    """For which pool requests waited most, in all and each."""
    told: dict[str, list[str]] = {}
    for case in runs:
        m, pool = case.metrics, _longest_wait(case)
        total_s = m["waited_s"][pool]
        each = show(total_s / max(1, _asked(m) - m["num_refused"]), "s", 3)
        where = f" in {case.name}" if len(runs) > 1 else ""
        said = f"for {pool}{where} ({show(total_s, 's')} in all, {each} each)"
        told.setdefault("most" if total_s else "nothing", []).append(said if total_s else where.strip())
    sentences = [f"wait most {', '.join(told['most'])}"] if "most" in told else []
    if "nothing" in told:
        sentences.append(f"wait for no pool {', '.join(told['nothing'])}".strip())
    return f"Requests {'; they '.join(sentences)}."


def _longest_wait(case: Case) -> str:
    waited: Mapping[str, float] = case.metrics["waited_s"]
    return max(waited, key=lambda pool: waited[pool])


def _while_arriving(case: Case, *, named: bool) -> list[str]:
    """How fast requests come, how busy the pool is that they wait for, and that other rates count the draining too."""
    m, pool = case.metrics, _longest_wait(case)
    span = m.get("while_arriving") or {}
    if not span:
        return []
    busy = f"{span[f'{pool}_utilisation_fraction']:.0%} of the time" if m["waited_s"][pool] else ""
    who = f"the {pool} pool{f' of {case.name}' if named else ''} is busy {busy}"
    return [
        f"{span['arrivals_per_s']:.3g} a second arrive for {show(span['span_s'], 's', 3)}{f', while {who}' if busy else ''}; "
        f"rates of the whole run are over {show(m['makespan_s'], 's', 3)}, until the last has ended."
    ]  # fmt: skip


def _compared(runs: Sequence[Case]) -> list[str]:
    """Each variant against the first: goodput, and what users feel."""
    first = runs[0]
    m = first.metrics
    said = [
        f"{first.name} serves {m['good_fraction']:.0%} of {_asked(m):,} requests within {_objectives(first)}, "
        f"{m['goodput_requests_per_s']:.3g} a second of the whole run; median TTFT {_median(m, 'ttft')}, TPOT {_median(m, 'tpot')}."
    ]
    others = sorted(runs[1:], key=lambda case: -abs(_ratio(first, case) - 1))
    for case in others[:3]:
        theirs, ratio = case.metrics, _ratio(first, case)
        much = "as many" if abs(ratio - 1) < _SAME else f"{ratio:.2f}x as many"
        said.append(
            f"{case.name} serves {much}, {theirs['goodput_requests_per_s']:.3g} a second: median TTFT {_median(theirs, 'ttft')}, "
            f"TPOT {_median(theirs, 'tpot')}."
        )
    return said


def _ratio(first: Case, case: Case) -> float:
    base = first.metrics["goodput_requests_per_s"]
    return float(case.metrics["goodput_requests_per_s"] / base) if base else float("inf")


def spent(case: Case) -> dict[str, float]:
    """Mean time of a request in each stage of its life [s], by the keys of `LIVES`."""
    from sim.show.views import lanes

    found = lanes.of_case(case)
    num = len(found.rows) if found else 1
    return {
        kind: sum(e - s for s, e, _, _ in (found.spans.get(kind, ()) if found else ())) / num
        for kind in LIVES
    }
