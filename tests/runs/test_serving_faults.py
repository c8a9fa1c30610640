"""Faults of a serving deployment: instances that are slower, stand still or are down, and what it costs users."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from sim import documents
from sim.engine.serving import serve
from sim.errors import InfeasibleError, InputError
from sim.runs.run import run_document
from sim.runs.service import service_of
from sim.runs.service_faults import fault_metrics
from sim.scenario import settings
from sim.scenario.resolve import resolve
from sim.scenario.serving import Serving
from sim.show.views.run import views_of
from sim.show.words.run import finding
from sim.units import show

SERVING = """\
name: mine
cluster: {{hardware: h800, nodes: {nodes}, faults: {faults}}}
model: deepseek-v2-lite
workload:
  kind: serving
  arrivals:
    kind: poisson
    requests: 60
    requests_per_s: 20
    prompt: {{kind: fixed, mean: 2000}}
    output: {{kind: fixed, mean: 100}}
  prefill: {{instances: {prefill}, ep: 16, plan: {{gate: {{kind: uniform, sampling: expected}}, kernel: {{kind: two_hop}}}}}}
  decode: {{instances: {decode}, ep: 16, requests_per_gpu: 16, plan: {{gate: {{kind: uniform, sampling: expected}}, kernel: {{kind: low_latency}}}}}}
"""


@lru_cache(maxsize=64)
def run(fault: str = "", prefill: int = 1, decode: int = 1) -> dict[str, Any]:
    faults = f"[{{{fault}}}]" if fault else "[]"
    text = SERVING.format(nodes=2 * (prefill + decode), prefill=prefill, decode=decode, faults=faults)
    metrics: dict[str, Any] = run_document(documents.loads(text, "mine.yaml"))["metrics"]
    return metrics


TIMES = ("ttft", "tpot", "response", "kv_transfer")


def means_s(fault: str = "") -> list[float]:
    return [run(fault)[name]["mean_s"] for name in TIMES]


@pytest.mark.parametrize(
    ("what", "slower"),
    [
        ("node: 0, nic: 3, bandwidth: 50 %", {"ttft"}),
        pytest.param("node: 1, gpu: 3, clock: 50 %", {"ttft"}, marks=pytest.mark.slow),
        pytest.param("node: 2, gpu: 3, hbm: 25 %", {"tpot"}, marks=pytest.mark.slow),
        pytest.param("node: 3, gpu: 3, clock: 50 %", {"tpot"}, marks=pytest.mark.slow),
        pytest.param("rail: 3, bandwidth: 50 %", {"ttft", "kv_transfer"}, marks=pytest.mark.slow),
        pytest.param("node: 1, gpu: 3, scale_up: 10 %", {"ttft"}, marks=pytest.mark.slow),
    ],
)
def test_a_fault_slows_down_what_runs_there_for_as_long_as_it_lasts(what: str, slower: set[str]) -> None:
    """A window over the whole run is a fault that lasts, one outside of it nothing at all, and one within lies between."""
    healthy, lasts = means_s(), means_s(what)
    for name, before, after in zip(TIMES, healthy, lasts, strict=True):
        if name in slower:
            assert after > before * 1.0005
        elif name in ("ttft", "tpot"):
            assert after == pytest.approx(before, rel=1e-2)
    window = means_s(f"{what}, until: 1 h")
    if "bandwidth" in what:  # who chooses paths knows what lasts
        assert all(slow > 0.999 * known for slow, known in zip(window, lasts[:2], strict=False))
    else:
        assert window == pytest.approx(lasts, rel=1e-6)
    assert run(f"{what}, from: 1 h, until: 2 h") == run()
    within = run(f"{what}, from: 1 s, until: 2 s")
    for name in slower & {"ttft", "tpot"}:
        low, high = healthy[TIMES.index(name)], lasts[TIMES.index(name)]
        assert low < within[name]["mean_s"] < max(high, window[TIMES.index(name)])
    assert within["restarts"] == within["down_s"] == 0


@pytest.mark.slow
def test_a_dead_gpu_takes_its_instance_down_and_its_requests_elsewhere_or_until_it_is_back() -> None:
    """Nobody's tokens are lost: all end with theirs. One instance alone makes them wait for all of it."""
    what = "gpu: 2, clock: 0 %, from: 1 s, until: 3 s"
    for instances, node in (((1, 1), 0), ((1, 1), 2), ((2, 1), 0), ((1, 2), 2)):
        found, healthy = run(f"node: {node}, {what}", *instances), run("", *instances)
        assert found["num_ended"] == healthy["num_ended"] == 60
        assert found["restarts"] > 0
        assert found["down_s"] == pytest.approx(2.0)
        later = found["response"]["mean_s"] - healthy["response"]["mean_s"]
        assert later > (0.5 if sum(instances) == 2 else 0.0)
        assert "queue_drain_s" in found


def test_a_report_says_what_an_outage_cost() -> None:
    faults = "[{node: 0, clock: 0 %, from: 1 s, until: 3 s}]"
    document = documents.loads(SERVING.format(nodes=4, prefill=1, decode=1, faults=faults), "mine.yaml")
    result = run_document(document)
    again, drained = result["metrics"]["restarts"], result["metrics"]["queue_drain_s"] + 1.5
    result["metrics"]["queue_drain_s"] = drained
    (said,) = [
        line for line in finding(views_of(result)) if line.startswith("Instances are down for 2 s in all")
    ]
    assert f": {again} request" in said
    assert show(drained, "s", 3) in said


def test_links_that_are_dead_for_a_while_hold_up_passes_that_keep_what_they_have() -> None:
    found = run("node: 2, bandwidth: 0 %, from: 1 s, until: 3 s")
    assert found["restarts"] == found["down_s"] == 0
    assert 1.5 < found["token_gap"]["max_s"] - run()["token_gap"]["max_s"] < 2.0


@pytest.mark.slow
def test_what_never_comes_back_is_infeasible_unless_another_instance_serves() -> None:
    dead = "node: 2, clock: 0 %"
    for fault in (dead, f"{dead}, from: 1 s"):
        with pytest.raises(InfeasibleError, match="requests never end"):
            run(fault)
        assert run(fault, 1, 2)["num_ended"] == 60
    with pytest.raises(InfeasibleError, match="is dead from 1 s on"):
        run("node: 2, bandwidth: 0 %, from: 1 s")


@pytest.mark.slow
def test_a_deeper_fault_is_never_faster() -> None:
    for what in ("node: 2, nic: 1, bandwidth: {} %, until: 1 h", "node: 2, gpu: 1, clock: {} %"):
        times = [run(what.format(part))["tpot"]["mean_s"] for part in (80, 50, 20)]
        assert sorted(times) == times


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("node: 9, clock: 50 %", ["got 9", "the cluster has 4 nodes"]),
        ("node: 1, nic: 2, bandwidth: 120 %", ["at most 50 GB/s"]),
        ("node: 1, clock: 50 %, from: 2 s, until: 1 s", ["later than from, 2 s"]),
        ("leaf: rail0/leaf0, bandwidth: 50 %", ["a fault of a leaf or link", "serving knows no others"]),
    ],
)
def test_a_fault_that_cannot_be_has_one_message(fault: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        run(fault)
    (problem,) = caught.value.problems
    for word in words:
        assert word in str(problem)


@pytest.mark.slow
def test_the_queue_of_the_shipped_outage_drains_as_tokens_flow() -> None:
    """From 20 s to 80 s one instance prefills full passes, as fast as it does then; two do from there until what came has gone."""
    scenario = resolve(settings.variants(settings.read("serving-fault"))["dead-prefill-node"])
    assert isinstance(scenario.workload, Serving)
    asked = scenario.workload.requests
    trace = serve(service_of(scenario, lambda _: None), asked)
    alive = trace.prefill[1]
    within = (alive.start_s > 25) & (alive.end_s < 80)
    assert set(alive.prompt_tokens[within].tolist()) == {32 * 8192}
    one = 32 * 8192 / float((alive.end_s - alive.start_s)[within].mean())
    came = np.cumsum(np.where(asked.arrival_s >= 20, asked.prompt_tokens, 0))
    went = one * (60 + 2 * np.maximum(asked.arrival_s - 80, 0))
    drained = asked.arrival_s[np.argmax((asked.arrival_s > 80) & (came <= went))]
    metrics = fault_metrics(scenario, trace)
    assert metrics["queue_drain_s"] == pytest.approx(drained - 80, rel=0.1)
    assert metrics["down_s"] == pytest.approx(60)
