"""Exchanges and skew of a step, and the laws that a whole training scenario keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sim.engine.step_costs import StepCosts, _lognormal, _Template

import sim
from sim import documents
from sim.engine import fluid
from sim.errors import InfeasibleError
from sim.runs import training
from sim.runs.run import run_document
from sim.scenario.resolve import resolve
from sim.scenario.settings import read
from sim.schedule.collectives import Exchange
from sim.workload.skew import Skew

BALANCED = "{routed_load: 0, kernel_jitter: 0, gpu_spread: 0}"
SCENARIO = """\
name: mine
cluster: {{hardware: {hardware}, nodes: {nodes}, override: {override}}}
model: {model}
layout: {layout}
seed: {seed}
workload:
  kind: training
  microbatches: {microbatches}
  schedule: {schedule}
  overlap: {overlap}
  precision: {precision}
  dispatch_dtype: {precision}
  recompute: full
  kernel: {{kind: {kernel}}}
  skew: {skew}
"""
DEFAULTS: dict[str, Any] = {
    "hardware": "h100", "nodes": 2, "override": "{}", "model": "mixtral-8x7b", "layout": "{pp: 2, ep: 8}", "seed": 0,
    "microbatches": 8, "schedule": "dualpipev", "overlap": "true", "precision": "fp8", "kernel": "two_hop",
    "skew": BALANCED,
}  # fmt: skip


@lru_cache(maxsize=256)
def _result(text: str) -> dict[str, Any]:
    return run_document(documents.loads(text, "mine.yaml"))


def result(**changes: Any) -> dict[str, Any]:
    return _result(SCENARIO.format(**(DEFAULTS | changes)))


def metrics(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = result(**changes)["metrics"]
    return found


# --- exchanges ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def exchanges() -> dict[str, Exchange]:
    """Of the published V3 step: EP64 on 8 nodes of H800."""
    scenario = resolve(read("v3-training-h800"))
    work, model = scenario.workload, scenario.model
    assert isinstance(work, training.Training)
    assert model is not None
    return training.exchanges_of(scenario, work, model, training.routing_of(scenario, work, model))


def costs(skew: Skew, *, slowdown: float = 1.5, seed: int = 0, num_groups: int = 1) -> StepCosts:
    slowed = {"dispatch": slowdown, "combine": slowdown}
    return StepCosts(
        exchanges(), slowed, skew, num_groups=num_groups, num_layers=4, num_microbatches=3, seed=seed
    )


def test_without_skew_every_exchange_is_the_same_and_there_is_one_lane() -> None:
    even = costs(Skew())
    times = [even.exchange("dispatch", False, 0, layer, batch) for layer in (0, 3) for batch in (0, 2)]
    assert {float(one.longest_s) for one in times} == {even.mean_s("dispatch", overlapped=False)}
    assert even.lanes == len(times[0].alone_s) == 1
    assert even.load(0, 1, 1) == even.jitter(0) == 1.0


def test_beside_compute_an_exchange_takes_longer_and_less_of_its_nic() -> None:
    even = costs(Skew(), slowdown=1.5)
    alone, beside = (even.exchange("combine", overlapped, 0, 0, 0) for overlapped in (False, True))
    assert beside.longest_s == pytest.approx(1.5 * alone.longest_s)
    assert beside.fill == pytest.approx(alone.fill / 1.5)
    assert beside.nic_bytes == alone.nic_bytes


def test_fill_is_what_the_nic_is_busy_of_the_exchange() -> None:
    even = costs(Skew())
    for kernel in ("dispatch", "combine"):
        one = even.exchange(kernel, False, 0, 0, 0)
        # EP64 on H800 is bound by the NIC: it is busy but for latency.
        assert 0.9 < one.fill <= 1.0
        assert one.nic_bytes > 1e8 if kernel == "combine" else 5e7


@pytest.mark.parametrize("deviation", [0.02, 0.075, 0.3])
def test_factors_have_mean_1_and_the_deviation_that_was_asked_for(deviation: float) -> None:
    rng = np.random.default_rng(0)
    drawn = _lognormal(rng, deviation, (200_000,))
    assert drawn.min() > 0
    assert drawn.mean() == pytest.approx(1, abs=5 * deviation / np.sqrt(200_000))
    assert drawn.std() == pytest.approx(deviation, rel=0.02)


def test_f_b_and_w_of_a_microbatch_see_one_load_and_other_microbatches_another() -> None:
    skewed = costs(Skew(routed_load=0.075), num_groups=2)
    one = skewed.load(1, 2, 1)
    assert isinstance(one, np.ndarray)
    assert len(one) == 64
    assert np.array_equal(one, skewed.load(1, 2, 1))
    for other in (skewed.load(1, 2, 0), skewed.load(1, 3, 1), skewed.load(0, 2, 1)):
        assert not np.array_equal(one, other)


def test_a_gradient_goes_the_way_of_its_tokens() -> None:
    skewed = costs(Skew(routed_load=0.075))
    out = skewed.exchange("dispatch", True, 0, 1, 1)
    back = skewed.exchange("dispatch", True, 0, 1, 1)  # combine(B), the same kernel with the same rows
    assert np.array_equal(out.alone_s, back.alone_s)
    assert not np.array_equal(out.alone_s, skewed.exchange("dispatch", True, 0, 1, 2).alone_s)


def test_more_spread_makes_the_last_rank_later_and_the_mean_hardly() -> None:
    longest = []
    for deviation in (0.0, 0.02, 0.075, 0.2):
        one = costs(Skew(routed_load=deviation, kernel_jitter=1e-9)).exchange("dispatch", False, 0, 0, 0)
        longest.append(one.longest_s)
    assert longest == sorted(longest)
    assert longest[-1] < 1.5 * longest[0]  # a node of eight varies less than a rank


@pytest.mark.parametrize("kernel", ["dispatch", "combine"])
def test_a_load_of_1_everywhere_is_the_balanced_exchange(kernel: str) -> None:
    even = costs(Skew(kernel_jitter=0.01))
    assert even._solve(kernel, np.ones(64)).alone_s == pytest.approx(even.base[kernel].alone_s, rel=1e-9)


@pytest.mark.parametrize("kernel", ["two_hop", "flat", "nccl", "low_latency"])
@pytest.mark.parametrize("direction", ["dispatch", "combine"])
def test_a_rank_that_all_want_receives_all_and_bytes_keep(kernel: str, direction: str) -> None:
    text = SCENARIO.format(**(DEFAULTS | {"kernel": kernel, "nodes": 4, "model": "qwen3-235b-a22b"}))
    scenario = resolve(documents.loads(text.replace("ep: 8", "ep: 16"), "mine.yaml"))
    work, model = scenario.workload, scenario.model
    assert isinstance(work, training.Training)
    assert model is not None
    made = training.exchanges_of(scenario, work, model, training.routing_of(scenario, work, model))
    template = _Template(made[direction], often=False)
    base = template.flows
    even = template.loaded(np.full(16, 1.3))
    assert even.payload_bytes == pytest.approx(1.3 * base.payload_bytes)
    assert even.share / base.share == pytest.approx(1.3)
    assert even.line == pytest.approx(base.line)
    # Twice the tokens for rank 3 alone: its own link carries twice the bytes, the link of rank 12 what it did.
    load = np.ones(16)
    load[3] = 2.0
    more, cluster = template.loaded(load), made[direction].cluster
    link = cluster.ingress if direction == "dispatch" else cluster.egress
    num = len(cluster.names)
    ratio = more.line_by_resource(num)[link[:16]] / base.line_by_resource(num)[link[:16]]
    assert ratio[12] == pytest.approx(1, abs=0.2 if kernel == "two_hop" else 0.1)
    assert 1.4 < ratio[3] < 2.01
    ends = fluid.alone(more, fluid.lone(base, cluster.capacity, often=False))
    assert np.isfinite(ends).all()


# --- whole steps --------------------------------------------------------------------------------------------


def test_phases_add_up_to_the_step_on_every_rank() -> None:
    got = metrics(schedule="dualpipev", skew="{}")
    for phases in (got["phases"], got["phases_mean"]):
        assert sum(phases.values()) == pytest.approx(got["step_time_s"])
        assert all(value >= -1e-9 for value in phases.values())


def test_barrier_waits_come_from_skew() -> None:
    assert metrics()["barrier_wait_s"] == 0
    skewed = metrics(skew="{}")
    assert skewed["barrier_wait_s"] > 0
    assert skewed["step_time_s"] > metrics()["step_time_s"]


@pytest.mark.parametrize("branch", ["routed_load", "kernel_jitter", "gpu_spread"])
def test_each_kind_of_skew_costs_time(branch: str) -> None:
    some = BALANCED.replace(f"{branch}: 0", f"{branch}: 5 %")
    assert metrics(skew=some)["step_time_s"] > metrics()["step_time_s"]


def test_other_seeds_draw_other_skew_and_balanced_steps_have_none() -> None:
    assert metrics(skew="{}", seed=1)["step_time_s"] != metrics(skew="{}")["step_time_s"]
    assert metrics(seed=1) == metrics()


def test_groups_of_the_same_experts_all_take_part() -> None:
    # Two EP groups a stage: the slower of two draws counts, so the mean over seeds is later than with one.
    one = [metrics(skew="{}", nodes=2, seed=seed)["step_time_s"] for seed in range(3)]
    two = [metrics(skew="{}", nodes=4, seed=seed)["step_time_s"] for seed in range(3)]
    assert np.mean(two) > np.mean(one)


def test_an_h800_with_the_nvlink_of_an_h100_is_an_h100() -> None:
    changes: dict[str, Any] = {"schedule": "1f1b", "microbatches": 4, "skew": "{}"}
    patched = metrics(hardware="h800", override="{gpu.scale_up.bandwidth: 450 GB/s}", **changes)
    assert patched == metrics(hardware="h100", **changes)
    assert metrics(hardware="h800", **changes)["step_time_s"] > patched["step_time_s"]


def test_fp8_computes_sooner_than_bf16() -> None:
    assert metrics()["step_time_s"] < 0.8 * metrics(precision="bf16")["step_time_s"]


def test_tensor_parallelism_exposes_its_reductions() -> None:
    exposed = [
        metrics(layout=f"{{pp: 2, ep: 8, tp: {tp}}}", schedule="1f1b")["exposed_comm_s"] * tp
        for tp in (1, 2, 4)
    ]
    assert exposed == sorted(exposed)
    assert exposed[1] > 2 * exposed[0]


def test_more_microbatches_make_the_bubble_a_smaller_share() -> None:
    for schedule in ("gpipe", "1f1b", "interleaved", "zb1p", "dualpipev"):
        few, many = (metrics(schedule=schedule, microbatches=count) for count in (8, 16))
        assert few["bubble_s"] / few["step_time_s"] > many["bubble_s"] / many["step_time_s"]
        assert many["step_time_s"] < 2 * few["step_time_s"]


def test_overlap_pays_where_exchanges_cross_the_nic() -> None:
    changes: dict[str, Any] = {
        "model": "qwen3-235b-a22b", "nodes": 16, "layout": "{pp: 4, ep: 32}", "microbatches": 16, "hardware": "h200",
    }  # fmt: skip
    hidden, bare = metrics(**changes), metrics(overlap="false", **changes)
    assert hidden["phases"]["1F1B_s"] < 0.9 * bare["phases"]["1F1B_s"]
    assert hidden["exposed_comm_s"] < 0.7 * bare["exposed_comm_s"]


def test_a_layer_computed_again_takes_a_third_more_compute() -> None:
    text = SCENARIO.format(**(DEFAULTS | {"schedule": "1f1b"}))
    again = _result(text)["metrics"]["step_time_s"]
    once = _result(text.replace("recompute: full", "recompute: selective"))["metrics"]["step_time_s"]
    assert 1.2 < again / once < 1.4


LAYOUTS = st.sampled_from(
    [
        ("mixtral-8x7b", 2, "{pp: 2, ep: 8}"),
        ("mixtral-8x7b", 2, "{pp: 4, ep: 4}"),
        ("mixtral-8x7b", 4, "{pp: 2, ep: 8, tp: 2}"),
        ("mixtral-8x7b", 8, "{pp: 4, ep: 8, tp: 4}"),
        ("mixtral-8x7b", 4, "{pp: 2, ep: 8, cp: 2}"),
        ("qwen3-235b-a22b", 8, "{pp: 4, ep: 16}"),
        ("qwen3-235b-a22b", 8, "{pp: 4, ep: 16, tp: 2}"),
    ]
)


@pytest.mark.slow
@settings(max_examples=24)
@given(
    layout=LAYOUTS,
    schedule=st.sampled_from(["gpipe", "1f1b", "interleaved", "zb1p", "zb2p", "dualpipe", "dualpipev"]),
    overlap=st.sampled_from(["true", "false"]),
    precision=st.sampled_from(["fp8", "bf16"]),
    hardware=st.sampled_from(["h200", "b200", "h20"]),
    kernel=st.sampled_from(["two_hop", "flat", "nccl"]),
    skew=st.sampled_from([BALANCED, "{}"]),
)
def test_no_step_beats_its_bound(layout: tuple[str, int, str], skew: str, **changes: str) -> None:
    model, nodes, split = layout
    try:
        got = metrics(model=model, nodes=nodes, layout=split, skew=skew, **changes)
    except InfeasibleError:
        return
    assert got["step_time_s"] >= got["lower_bound_s"] > 0
    assert sum(got["phases"].values()) == pytest.approx(got["step_time_s"])
    assert min(got["phases"].values()) >= -1e-9
    assert 0 <= got["exposed_comm_s"] < got["step_time_s"]
    assert 0 <= got["exposed_comm_mean_s"] < got["step_time_s"]
    assert got["memory_peak_bytes"] <= got["memory_capacity_bytes"]


@pytest.mark.slow
def test_the_same_scenario_gives_the_same_bytes_under_every_hash_seed(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    changes = {"schedule": "zb2p", "microbatches": 4, "skew": "{}"}
    file.write_text(SCENARIO.format(**(DEFAULTS | changes)), encoding="utf-8")
    code = (
        "import json, sys; from sim.runs.run import run_document; from sim.scenario.settings import read;"
        "print(json.dumps(run_document(read(sys.argv[1]))['metrics'], sort_keys=True))"
    )
    said = set()
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(file)],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(sim.__file__).parents[1],
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        said.add(done.stdout)
    assert len(said) == 1
    assert json.loads(said.pop()) == json.loads(json.dumps(metrics(**changes)))


@pytest.mark.parametrize(
    ("key", "doubled"),
    [
        ("gpu.dense_flops.fp8", "3958 TFLOP/s"),
        ("gpu.hbm.bandwidth", "6.7 TB/s"),
        ("gpu.scale_up.bandwidth", "900 GB/s"),
        ("nic.bandwidth", "800 Gb/s"),
    ],
)
def test_twice_of_anything_helps_a_little_and_never_more_than_twice(key: str, doubled: str) -> None:
    changes: dict[str, Any] = {
        "model": "qwen3-235b-a22b", "nodes": 16, "layout": "{pp: 4, ep: 32}", "microbatches": 8, "schedule": "1f1b",
    }  # fmt: skip
    before, after = metrics(**changes), metrics(override=f"{{{key}: {doubled}}}", **changes)
    assert before["step_time_s"] / 2 <= after["step_time_s"] < before["step_time_s"]
    if key == "nic.bandwidth":  # EP32 is bound by the NIC; twice the NVLink helps the optimizer only
        assert after["exposed_comm_s"] < 0.8 * before["exposed_comm_s"]
