"""The lower bound of a training step: closed forms by hand, and nothing that is simulated below it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pipelines import pipelines

from sim import documents
from sim.errors import InfeasibleError, InputError
from sim.runs import training, training_step
from sim.runs.step_facts import StepFacts
from sim.scenario.resolve import resolve
from sim.scenario.settings import read
from sim.schedule.operations import Pipeline
from sim.schedule.pipelines import plan
from sim.schedule.replay import replay
from sim.schedule.step_bound import Least, rank_bounds_s
from sim.workload.model import load_model, training_flops_per_token
from sim.workload.stages import stage_parameters

BALANCED = "{routed_load: 0, kernel_jitter: 0, gpu_spread: 0}"
SCENARIO = """\
name: mine
cluster: {{hardware: {hardware}, nodes: {nodes}, override: {override}}}
model: {model}
layout: {layout}
workload:
  kind: training
  sequence_tokens: {tokens}
  microbatch_sequences: {sequences}
  microbatches: {microbatches}
  schedule: {schedule}
  overlap: {overlap}
  precision: {precision}
  dispatch_dtype: {precision}
  recompute: {recompute}
  kernel: {{kind: {kernel}, override: {kernel_override}}}
  skew: {skew}
"""
DEFAULTS: dict[str, Any] = {
    "hardware": "h100", "nodes": 1, "override": "{gpu.hbm.capacity: 10 PB}", "model": "mixtral-8x7b", "tokens": 4096,
    "layout": "{pp: 1, ep: 1}", "sequences": 1, "microbatches": 8, "schedule": "1f1b", "overlap": "true",
    "precision": "bf16", "recompute": "none", "kernel": "two_hop", "kernel_override": "{}", "skew": BALANCED,
}  # fmt: skip


def step(**changes: Any) -> training.Step:
    return training.Step.from_scenario(
        resolve(documents.loads(SCENARIO.format(**(DEFAULTS | changes)), "mine.yaml"))
    )


def alike(num_stages: int, **times: float) -> Least:
    """Stages that take the same: f, b, w, exchanges and nic, one send."""
    send = times.pop("send", 0.0)
    parts = {
        name: np.full(num_stages, times.get(name, 0.0)) for name in ("f", "b", "w", "collectives", "nic")
    }
    return Least(**parts, send=send)


# --- ranks --------------------------------------------------------------------------------------------------


def test_a_rank_of_1f1b_waits_for_the_first_forward_and_its_last_gradient_goes_on() -> None:
    # Rank r computes 3 a microbatch, after r forwards and before r gradients of 1 each.
    bounds = rank_bounds_s(plan("1f1b", 4, 10), alike(4, f=1, b=1, w=1))
    assert bounds == pytest.approx([30 + 2 * rank for rank in range(4)])


def test_weight_parts_that_are_left_run_while_the_last_gradient_goes_on() -> None:
    # zb1p: rank r has r weight parts or more left when its last gradient leaves; they hide what follows elsewhere.
    bounds = rank_bounds_s(plan("zb1p", 4, 10), alike(4, f=1, b=1, w=1))
    assert bounds == pytest.approx([30 + rank for rank in range(4)])


def test_the_busiest_of_three_queues_counts_and_chains_take_all_of_them() -> None:
    # 2 of compute, 3 of exchanges (forward and backward alike), half of it on the NIC, beside two sends of 0.5.
    least = alike(3, f=1, b=1, collectives=1.5, nic=0.75, send=0.5)
    bounds = rank_bounds_s(plan("1f1b", 3, 10), least)
    # A hop of a chain: 1 + 1.5 + 0.5.
    assert bounds == pytest.approx([30 + rank * 2 * 3 for rank in range(3)])
    busy = rank_bounds_s(plan("1f1b", 3, 10), alike(3, f=1, b=1, collectives=1, nic=1, send=4.0))
    # The middle rank sends two a microbatch, but the last gradient's send belongs to the chain that follows.
    assert busy[1] == pytest.approx((1 + 1 + 4) + (20 + 4 * 19) + (1 + 1 + 4))


def test_both_directions_of_dualpipe_start_from_their_own_end() -> None:
    bounds = rank_bounds_s(plan("dualpipe", 4, 8), alike(4, f=1, b=1, w=1))
    assert bounds == pytest.approx(bounds[::-1])
    assert bounds.min() >= 24


@given(
    pipeline=pipelines(),
    parts=st.lists(st.tuples(*[st.floats(0.0, 3.0)] * 3), min_size=24, max_size=24),
)
def test_no_replay_is_shorter_than_the_bound_of_a_rank(
    pipeline: Pipeline, parts: list[tuple[float, float, float]]
) -> None:
    mine = parts[: pipeline.num_stages]
    f, b, w = np.array(mine).T
    none = np.zeros(len(mine))
    names = ("F", "B_in", "W")
    durations = {(name, i): x for i, one in enumerate(mine) for name, x in zip(names, one, strict=True)}
    bounds = rank_bounds_s(pipeline, Least(f, b, w, none, none, 0.0))
    assert bounds.max() <= replay(pipeline, durations).total_s * (1 + 1e-12) + 1e-12


# --- whole steps --------------------------------------------------------------------------------------------


def test_without_a_pipeline_it_is_the_flops_of_the_tokens_and_the_bytes_of_the_optimizer() -> None:
    one, model = step(), load_model("mixtral-8x7b")
    norms = model.hidden * (2 * model.num_layers + 1)  # parameters that multiply no matrix
    flops = training_flops_per_token(model, 4096, causal=True) - 6 * norms
    compute_s = 8 * 4096 * flops / 989.4e12
    # Eight ranks hold everything: gradients scattered (4 bytes) and weights gathered (2) over NVLink, then Adam's 22.
    count = stage_parameters(model, one.stages[0])
    held = sum((count.experts, count.layers, count.embedding, count.head))
    optimizer_s = (4 + 2) * held * 7 / 8 / 450e9 + held / 8 * 22 / 3.35e12
    assert one.lower_bound_s == pytest.approx(compute_s + optimizer_s, rel=1e-4)


def test_the_bound_knows_the_layout() -> None:
    bounds = {
        split: step(nodes=4, layout=split).lower_bound_s
        for split in ("{pp: 1, ep: 8}", "{pp: 4, ep: 8}", "{pp: 4, ep: 8, tp: 2}", "{pp: 2, ep: 8, cp: 2}")
    }
    assert len({round(bound, 6) for bound in bounds.values()}) == len(bounds)


def test_heads_count_in_bf16_and_layers_in_fp8() -> None:
    slow, fast = (step(layout="{pp: 1, ep: 8}", precision=one).lower_bound_s for one in ("bf16", "fp8"))
    # Heads and attention cores do not become faster, all else does, by two.
    assert 0.5 * slow < fast < 0.75 * slow


def test_attention_cores_heads_and_gates_alone_depend_on_the_bf16_peak() -> None:
    """A step in FP8 with the BF16 peak halved loses the time that these take at it, forward and twice that backward."""
    slow, fast = (
        step(
            precision="fp8",
            layout="{pp: 1, ep: 8}",
            override=f"{{gpu.hbm.capacity: 10 PB, gpu.dense_flops.bf16: {peak} TFLOP/s}}",
        ).lower_bound_s
        for peak in (100, 200)
    )
    model = load_model("mixtral-8x7b")
    a = model.attention
    core = (
        model.num_layers * a.num_heads * (128 + 128) * (4096 + 1) / 2
    )  # of a token; it attends to half on average
    gates, head = model.num_layers * model.hidden * model.num_experts, model.hidden * model.vocab
    flops = 3 * 2 * 8 * 4096 * (core + gates + head)
    assert slow - fast == pytest.approx(flops / 100e12 - flops / 200e12, rel=2e-3)


def test_a_bound_is_found_without_running_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    settings_ = [f"workload.skew.{key}=0" for key in ("routed_load", "kernel_jitter", "gpu_spread")]
    scenario = resolve(read("v3-training-h800", settings_))
    metrics = training.Step.from_scenario(scenario).run()
    monkeypatch.delattr(training_step, "run_step")
    monkeypatch.delattr(StepFacts, "alone_s")
    assert (
        training.Step.from_scenario(scenario).lower_bound_s
        == metrics["lower_bound_s"]
        < metrics["step_time_s"]
    )
    assert [row.rank for row in training.Step.from_scenario(scenario).memory] == list(range(16))


LAYOUTS = st.sampled_from(
    [
        ("mixtral-8x7b", 4, "{pp: 4, ep: 8}"),
        ("mixtral-8x7b", 2, "{pp: 1, ep: 1, tp: 2}"),
        ("mixtral-8x7b", 8, "{pp: 4, ep: 8, tp: 4, cp: 2}"),
        ("qwen3-235b-a22b", 4, "{pp: 2, ep: 16, tp: 8}"),
        ("qwen3-235b-a22b", 8, "{pp: 4, ep: 2, cp: 2}"),
        ("gpt-oss-120b", 4, "{pp: 2, ep: 4, tp: 4}"),
        ("deepseek-v3", 16, "{pp: 4, ep: 32, tp: 2}"),
        ("deepseek-v3", 8, "{pp: 8, ep: 8, tp: 8}"),
        ("glm-4.5", 8, "{pp: 2, ep: 32}"),
        ("llama4-maverick", 16, "{pp: 8, ep: 16}"),
    ]
)
changed = st.fixed_dictionaries(
    {
        "layout": LAYOUTS,
        "schedule": st.sampled_from(
            ["gpipe", "1f1b", "interleaved", "zb1p", "zb2p", "dualpipe", "dualpipev"]
        ),
        "microbatches": st.integers(1, 3),
        "tokens": st.sampled_from([1024, 1030, 4000, 4096]),
        "sequences": st.integers(1, 2),
        "overlap": st.sampled_from(["true", "false"]),
        "precision": st.sampled_from(["fp8", "bf16"]),
        "recompute": st.sampled_from(["none", "selective", "full"]),
        "hardware": st.sampled_from(["a100", "h20", "h800", "b200"]),
        "kernel": st.sampled_from(["two_hop", "flat", "nccl"]),
        "beside": st.sampled_from([None, 0.5]),
        "override": st.fixed_dictionaries(
            {"gpu.hbm.capacity": st.just("10 PB")},
            optional={
                "gpu.dense_flops.bf16": st.sampled_from(["50 TFLOP/s", "5000 TFLOP/s"]),
                "gpu.scale_up.bandwidth": st.sampled_from(["20 GB/s", "2000 GB/s"]),
                "nic.bandwidth": st.sampled_from(["25 Gb/s", "3200 Gb/s"]),
            },
        ),
    }
)


def no_step_is_below_its_bound(layout: tuple[str, int, str], **changes: Any) -> None:
    model, nodes, split = layout
    beside = changes.pop("beside")
    if beside is not None:
        by = f"{{value: {beside}, grade: assumed, why: a test}}"
        changes["kernel_override"] = f"{{beside_compute_slowdown: {{dispatch: {by}, combine: {by}}}}}"
    few = changes["schedule"] not in ("interleaved", "dualpipe", "dualpipev")
    ranks = 1 if few else 2 * int(split.split(",")[0].rpartition(" ")[2])
    changes["microbatches"] *= ranks
    changes["override"] = "{" + ", ".join(f"{k}: {v}" for k, v in changes["override"].items()) + "}"
    try:
        one = step(model=model, nodes=nodes, layout=split, **changes)
    except (InfeasibleError, InputError):  # the schedule or the model has no such layout
        return
    found = training.Step.from_scenario(one.scenario).run()
    assert 0 < found["lower_bound_s"] <= found["step_time_s"] * (1 + 1e-12)


@settings(max_examples=15)
@given(changes=changed)
def test_no_balanced_step_is_below_its_bound(changes: dict[str, Any]) -> None:
    no_step_is_below_its_bound(**changes)


@pytest.mark.slow
@settings(max_examples=400)
@given(changes=changed)
def test_no_balanced_step_of_many_is_below_its_bound(changes: dict[str, Any]) -> None:
    no_step_is_below_its_bound(**changes)
