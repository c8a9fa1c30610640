"""TODO sim/show/words/serving.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.show.views.run import Case
from sim.show.views.serving import _SAME, is_serving, objectives
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
