"""TODO sim/show/views/inference.py."""

from __future__ import annotations

from collections.abc import Mapping

from sim.show.views.run import Case

PARTS = {
    "attention": "attention",
    "experts": "routed experts",
    "shared": "shared experts",
    "dense": "dense layers",
    "phases": "sends and receives on SMs",
    "waits": "waits for exchanges",
    "last_rank": "the last rank's lag",
    "ends": "embedding, head and sampling",
}
"""Where a pass goes -> what a reader calls it, in the order in which it is told and drawn."""


LIMITS = {"compute": "compute", "hbm": "HBM", "links": "the links"}
"""Class of resource that sets the lower bound -> what a reader calls it."""


_MEMORY = (
    "cache", "routed experts", "shared experts", "attention", "dense layers", "embedding and head", "communication buffers",
    "graphs and activations", "reserve",
)  # fmt: skip


_SAME = 0.005


def is_inference(case: Case) -> bool:
    """Whether a case is a prefill or decode that ran."""
    return case.workload.get("kind") in ("prefill", "decode") and "step_time_s" in case.metrics


def latency_of(case: Case) -> tuple[str, float]:
    """The time that users feel: TTFT of a prefill, TPOT of a decode [s]."""
    m = case.metrics
    return ("TPOT", m["tpot_s"]) if "tpot_s" in m else ("TTFT", m["ttft_s"])


def where(case: Case) -> dict[str, float]:
    """Where a pass goes, by `PARTS` [s]; all of it makes the step."""
    found = dict.fromkeys(PARTS, 0.0)
    for part, time_s in (case.result.get("where") or {}).items():
        key = "phases" if part.endswith((" send", " receive")) else part.partition("_")[0]
        found[part if part in PARTS else key] += time_s
    least_s = 1e-9 * sum(found.values())
    return {part: time_s for part, time_s in found.items() if time_s > least_s}


def limit_of(case: Case) -> str:
    """The class that sets the lower bound; empty where a result does not say."""
    bounds = case.result.get("bounds") or {}
    return LIMITS[max(bounds, key=lambda key: bounds[key])] if bounds else ""


def memory_parts(case: Case) -> dict[str, float]:
    """What a GPU holds, by part [bytes]."""
    row: Mapping[str, float] = (case.result.get("memory") or [{}])[0]
    keys = [*_MEMORY, *(key for key in row if key not in _MEMORY and key != "rank")]
    return {key: row[key] for key in keys if row.get(key)}
