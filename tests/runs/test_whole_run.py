"""A whole run is its phases one after another, each as a run of its own; failures make it longer."""

from __future__ import annotations

from typing import Any

import pytest

from sim import documents
from sim.errors import InfeasibleError
from sim.runs.run import run_document

STEP = """\
name: mine
cluster: {hardware: h800, nodes: 2}
model: mixtral-8x7b
layout: {pp: 2, ep: 8}
workload:
  kind: training
  sequence_tokens: 2048
  global_batch: 64
  schedule: 1f1b
  precision: bf16
  recompute: full
  kernel: {kind: two_hop, comm_sms: 20}
  skew: {routed_load: 0, kernel_jitter: 0, gpu_spread: 0}
"""
PHASES = """\
  run:
    phases:
    - {name: given, gpu_hours: 100}
    - {name: base, tokens: 1 G}
    - {name: long, steps: 1000, sequence_tokens: 8192, global_batch: 16, layout: {cp: 4}, schedule: zb1p}
"""
FAILURES = "    failures: {mtbf: {gpu: 100 h}, checkpoint: {every: 1 h, write: 60 s}, restart: 30 min, spares: 2, repair: 1 min}\n"


def run(text: str) -> dict[str, Any]:
    return run_document(documents.loads(text, "mine.yaml"))


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return run(STEP + PHASES)


@pytest.fixture(scope="module")
def long() -> dict[str, Any]:
    """The third phase as a scenario of its own."""
    changed = (
        ("2048", "8192"),
        ("global_batch: 64", "global_batch: 16"),
        ("ep: 8", "ep: 8, cp: 4"),
        ("1f1b", "zb1p"),
    )
    text = STEP
    for old, new in changed:
        text = text.replace(old, new)
    return run(text)


def test_each_phase_is_the_step_that_it_would_be_alone(whole: dict[str, Any], long: dict[str, Any]) -> None:
    given, base, last = whole["run"]["phases"]
    assert last["step_time_s"] == long["metrics"]["step_time_s"]
    assert last["energy_kwh"] == pytest.approx(1000 * long["metrics"]["energy"]["total_kwh"], rel=1e-12)
    assert base["step_time_s"] == whole["metrics"]["step_time_s"]
    assert base["steps"] == pytest.approx(1e9 / (64 * 2048))
    assert given["gpu_hours"] == pytest.approx(100)
    assert last["gpu_hours"] == pytest.approx(1000 * long["metrics"]["step_time_s"] * 16 / 3600)


def test_the_run_is_the_sum_of_its_phases(whole: dict[str, Any]) -> None:
    m, phases = whole["metrics"], whole["run"]["phases"]
    assert m["run_gpu_hours"] == pytest.approx(sum(phase["gpu_hours"] for phase in phases))
    assert m["run_cost_usd"] == pytest.approx(2 * m["run_gpu_hours"])
    assert m["run_energy_kwh"] == pytest.approx(sum(phase["energy_kwh"] for phase in phases))
    assert m["run_energy_low_kwh"] < m["run_energy_kwh"] < m["run_energy_high_kwh"]
    hourly = phases[1]["energy_kwh"] / phases[1]["gpu_hours"]
    assert phases[0]["energy_kwh"] == pytest.approx(100 * hourly)


def test_one_phase_of_tokens_is_a_run_of_tokens() -> None:
    plain, phased = (
        run(STEP + text)["metrics"]
        for text in ("  run: {tokens: 1 G}\n", "  run: {phases: [{name: a, tokens: 1 G}]}\n")
    )
    assert plain == phased


def test_failures_make_a_run_longer_and_spare_nodes_are_paid(whole: dict[str, Any]) -> None:
    failed = run(STEP + PHASES + FAILURES)
    m, healthy = failed["metrics"], whole["metrics"]
    assert m["mtbf_s"] == pytest.approx(100 * 3600 / 16)
    assert m["run_days"] == pytest.approx(healthy["run_days"] / m["ettr_fraction"])
    assert m["run_gpu_hours"] == pytest.approx(m["run_days"] * 24 * (16 + 16))
    assert m["lost_s"] == pytest.approx((m["run_days"] - healthy["run_days"]) * 86_400, rel=1e-6)
    assert m["failures"] == pytest.approx(m["run_days"] * 86_400 / m["mtbf_s"], rel=0.02)
    parts = failed["run"]["failures"]
    assert sum(parts["lost_s"].values()) == pytest.approx(m["lost_s"])
    assert sum(parts["by_part"].values()) == pytest.approx(m["failures"])
    assert run(STEP + PHASES + FAILURES)["metrics"] == m


def test_slow_gpus_are_in_the_loss_of_a_run() -> None:
    slow = ", stragglers: {mtbf: 200 h, speed: 50 %, detect: 2 h, swap: 10 min}}\n"
    plain, own = (run(STEP + PHASES + text) for text in (FAILURES, FAILURES.replace("}\n", slow)))
    parts = own["run"]["failures"]
    assert sum(parts["lost_s"].values()) == pytest.approx(own["metrics"]["lost_s"])
    assert own["metrics"]["ettr_fraction"] < plain["metrics"]["ettr_fraction"]
    # Of 16 GPUs one is slow every 12.5 h at most, and each costs an hour of the two, less where a restart finds it first.
    assert parts["lost_s"]["slowed"] / parts["stragglers"] == pytest.approx(3600 * 0.85, rel=0.15)
    assert parts["closed_form_ettr_fraction"] == pytest.approx(own["metrics"]["ettr_fraction"], rel=0.03)


def test_what_is_stated_of_power_holds_in_every_phase() -> None:
    stated = "    gpu_load: 50 %\n    host_power: 100 W\n    network_power: 10 W\n    pue: 1.5\n"
    m = run(STEP + PHASES + stated)["metrics"]
    assert m["run_energy_kwh"] == pytest.approx(m["run_gpu_hours"] * (350 + 100 + 10) * 1.5 / 1000)


def test_a_run_that_fails_faster_than_it_restarts_never_ends() -> None:
    text = "    failures: {mtbf: {gpu: 1 min}, checkpoint: {every: 1 h, write: 60 s}, restart: 5 min}\n"
    with pytest.raises(InfeasibleError, match="the run never ends"):
        run(STEP + PHASES + text)


def test_a_phase_that_does_not_fit_says_which() -> None:
    with pytest.raises(InfeasibleError, match=r"phase 'long'.*CP5"):
        run(STEP + PHASES.replace("cp: 4", "cp: 5"))
    with pytest.raises(InfeasibleError, match="phase 'long': "):
        run((STEP + PHASES).replace("recompute: full", "recompute: none").replace(", layout: {cp: 4}", ""))
