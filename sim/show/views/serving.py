"""TODO sim/show/views/serving.py."""

from __future__ import annotations

from sim import units
from sim.show.views.lanes import LIVES
from sim.show.views.run import Case

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


def spent(case: Case) -> dict[str, float]:
    """Mean time of a request in each stage of its life [s], by the keys of `LIVES`."""
    from sim.show.views import lanes

    found = lanes.of_case(case)
    num = len(found.rows) if found else 1
    return {
        kind: sum(e - s for s, e, _, _ in (found.spans.get(kind, ()) if found else ())) / num
        for kind in LIVES
    }
