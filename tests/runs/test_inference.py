"""Prefill and decode: programs on two streams against the closed form of their stages, memory, limits, and bad input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from sim.cluster.hardware import load_hardware
from sim.cost import prefill
from sim.cost import serving_kernels as kernels
from sim.cost.compute import processor
from sim.cost.prefill import PrefillBatch
from sim.cost.serving_kernels import DecodeBatch
from sim.cost.tpot import tpot_bound
from sim.cost.work import total_s
from sim.documents import Document
from sim.errors import InfeasibleError, InputError
from sim.runs.run import run_document
from sim.schedule import inference as plans
from sim.schedule.programs import Node, Program
from sim.schedule.training import HALVES
from sim.workload.model import kv_bytes_per_token, load_model
from sim.workload.skew import Skew, draw
from steps import run_program

Floats = NDArray[np.float64]
V3 = load_model("deepseek-v3")
H800 = load_hardware("h800")

DECODE: dict[str, Any] = {
    "name": "small",
    "cluster": {"hardware": "h800", "nodes": 2},
    "model": "deepseek-v2",
    "layout": {"ep": 16},
    "workload": {
        "kind": "decode",
        "requests_per_gpu": 32,
        "context_tokens": 2048,
        "gate": {"kind": "uniform", "sampling": "expected"},
        "kernel": {"kind": "low_latency"},
        "skew": {"kernel_jitter": 0, "gpu_spread": 0},
    },
}
PREFILL: dict[str, Any] = DECODE | {
    "workload": {
        "kind": "prefill",
        "prompt_tokens": 2048,
        "prompts_per_gpu": 4,
        "gate": {"kind": "uniform", "sampling": "expected"},
        "kernel": {"kind": "two_hop", "comm_sms": 24},
        "skew": {"kernel_jitter": 0, "gpu_spread": 0},
    }
}


def document(tree: dict[str, Any], **settings: Any) -> Document:
    made = Document(yaml.safe_load(yaml.safe_dump(tree)), "test")
    for dotted, value in settings.items():
        *path, last = dotted.split("__")
        branch = made.tree
        for key in path:
            branch = branch.setdefault(key, {})
        branch[last] = value
    return made


def metrics(tree: dict[str, Any], **settings: Any) -> dict[str, Any]:
    found: dict[str, Any] = run_document(document(tree, **settings))["metrics"]
    return found


# --- programs and time ----------------------------------------------------------------------------------------------

PARTS = {
    "attention_0": 6.0,
    "attention_1": 33.0,
    "attention": 39.0,
    "shared": 3.0,
    "experts": 9.0,
    "dispatch": 16.0,
    "combine": 30.0,
    "dispatch send": 1.0,
    "dispatch receive": 1.0,
    "combine send": 2.0,
    "combine receive": 2.0,
}


def alike(node: Node) -> Floats:
    return np.full(4, PARTS[node.name])


def pass_s(program: Program, time_s: Callable[[Node], Floats] = alike) -> float:
    return float(run_program(program, time_s, 4, barrier=False).end_s.max())


def test_a_decode_layer_takes_its_five_stages_for_each_microbatch() -> None:
    times = []
    for layers in (10, 20):
        program = plans.forward(layers, decode=True, overlap=True, phases=False)
        times.append(pass_s(program))
    stages = max(PARTS["shared"] + PARTS["attention_0"], PARTS["dispatch"]) + PARTS["experts"]
    stages += max(PARTS["attention_1"], PARTS["combine"])
    assert (times[1] - times[0]) / 10 == pytest.approx(2 * stages)


def test_phases_of_low_latency_kernels_stretch_a_stage_only_where_compute_binds() -> None:
    def layer_s(flight: float) -> float:
        def duration(node: Node) -> Floats:
            return np.full(4, flight if node.collective else PARTS[node.name])

        ends = [pass_s(plans.decode_pair(n, phases=True, trailing=False), duration) for n in (10, 20)]
        return (ends[1] - ends[0]) / 10

    compute = PARTS["shared"] + PARTS["attention_0"] + PARTS["experts"] + PARTS["attention_1"]
    phases = sum(value for name, value in PARTS.items() if " " in name)
    assert layer_s(0.0) == pytest.approx(2 * (compute + phases))
    assert layer_s(100.0) == pytest.approx(2 * (200.0 + phases + PARTS["experts"]))


def test_in_turn_everything_is_added() -> None:
    program = plans.forward(7, decode=True, overlap=False, phases=True)
    record = run_program(program, alike, 4, barrier=False)
    whole = sum(PARTS[name] for name in PARTS if name != "attention")
    assert record.end_s == pytest.approx(7 * whole)
    assert record.tasks.exposed_s.sum() == pytest.approx(7 * (PARTS["dispatch"] + PARTS["combine"]))


def test_a_prefill_pair_hides_exchanges_that_are_shorter_than_their_partners() -> None:
    compute = 2 * (PARTS["attention"] + PARTS["shared"] + PARTS["experts"])

    def layer_s(exchange: float) -> float:
        def duration(node: Node) -> Floats:
            return np.full(4, exchange if node.collective else PARTS[node.name])

        ends = [pass_s(plans.prefill_pair(n, trailing=False), duration) for n in (10, 20)]
        return (ends[1] - ends[0]) / 10

    assert layer_s(5.0) == pytest.approx(compute)
    assert layer_s(200.0) >= 4 * 200.0  # four exchanges a layer share one stream


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("overlap", [True, False])
def test_every_part_runs_once_a_layer_and_microbatch(decode: bool, overlap: bool) -> None:
    program = plans.forward(5, decode=decode, overlap=overlap, phases=False, trailing=(9,))
    halves = ("attention_0", "attention_1") if decode else ("attention",)
    seen = [(node.name, HALVES.index(node.half), node.layer) for node in program]
    wanted = {
        (part, microbatch, layer)
        for part in (*halves, "dispatch", "experts", "combine", "shared")
        for microbatch in range(2 if overlap else 1)
        for layer in range(5)
    }
    assert len(seen) == len(set(seen))
    assert set(seen) - wanted == {("dense", m, -1) for m in range(2 if overlap else 1)}
    assert all(wait < index for index, node in enumerate(program) for wait in node.waits)


def test_a_late_rank_delays_all_at_a_barrier_and_by_its_bytes_without() -> None:
    program = plans.forward(1, decode=True, overlap=False, phases=False)

    def duration(node: Node) -> Floats:
        if node.name == "attention_0":
            return np.array([0.0, 0.0, 0.0, 10.0])
        if node.name == "dispatch":
            return np.array([1.0, 2.0, 1.0, 1.0])
        return np.zeros(4)

    ends, late = (run_program(program, duration, 4, barrier=barrier).end_s for barrier in (True, False))
    assert ends == pytest.approx([12.0] * 4)
    assert late == pytest.approx([11.0] * 4)


def test_dense_layers_run_before_the_next_with_experts() -> None:
    found = plans.blocks(V3)
    assert found.layers == tuple(range(3, 61))
    assert found.dense_before[0] == (0, 1, 2)
    assert not any(found.dense_before[1:])
    assert found.dense_after == ()
    assert plans.blocks(V3, 1).layers[-1] == 61


# --- kernels --------------------------------------------------------------------------------------------------------


def test_two_queries_take_twice_the_core_of_one() -> None:
    p = processor(H800)
    one, two = (
        kernels.decode_attention_1(p, V3, DecodeBatch(64, queries, 4096), 3)["attention core"].time_s
        - p.curves.attention.decode_launch_s
        for queries in (1, 2)
    )
    assert two == pytest.approx(2 * one, rel=0.02)


def test_experts_of_few_rows_take_the_time_of_their_weights() -> None:
    p = processor(H800)
    parts = kernels.decode_experts(p, V3, "fp8", (4,) * 8, 4.0)
    weights = 8 * 3 * V3.hidden * V3.expert_hidden
    time_s = parts["expert up"].time_s + parts["expert down"].time_s
    assert weights / 3.35e12 < time_s < 1.5 * weights / 3.35e12


def test_chunks_of_a_prompt_attend_as_much_as_the_whole() -> None:
    p = processor(H800)
    whole = prefill.prefill_attention(p, V3, PrefillBatch(1, 4096), 3)["attention core"].time_s
    parts = sum(
        prefill.prefill_attention(p, V3, PrefillBatch(1, 1024, cached_tokens=1024 * i), 3)[
            "attention core"
        ].time_s
        for i in range(4)
    )
    assert parts == pytest.approx(whole + 3 * p.curves.streaming.launch_s, rel=1e-9)


def test_cached_tokens_of_mla_are_projected_again() -> None:
    p = processor(H800)
    cached = prefill.prefill_attention(p, V3, PrefillBatch(2, 1024, cached_tokens=1024), 3)
    assert cached["kv up, cached"].time_s > 0
    assert "kv up, cached" not in prefill.prefill_attention(p, V3, PrefillBatch(2, 1024), 3)


def test_cores_in_fp8_leave_the_scores_of_an_indexer_in_bf16() -> None:
    p, model = processor(H800), load_model("deepseek-v3.2")
    fast, plain = (
        prefill.prefill_attention(p, model, PrefillBatch(1, 8192, attention=roof), 3)
        for roof in ("fp8", "bf16")
    )
    assert {name for name in plain if fast[name] != plain[name]} == {"attention core"}


def test_a_gate_that_is_not_fused_pays_its_launches() -> None:
    p = processor(H800)
    fused, small = (
        total_s(kernels.decode_attention_1(p, V3, DecodeBatch(64, 1, 4096, fused_gate=one), 3))
        for one in (True, False)
    )
    assert small - fused > 30 * p.curves.streaming.launch_s


# --- runs -----------------------------------------------------------------------------------------------------------


def test_metrics_of_decode_are_differences_of_the_same_instants() -> None:
    found = metrics(DECODE)
    assert found["tpot_s"] == pytest.approx(found["step_time_s"] / found["accepted_tokens_per_step"])
    assert found["tokens_per_s_per_user"] == pytest.approx(1 / found["tpot_s"])
    assert found["tokens_per_s_per_gpu"] == pytest.approx(32 * found["tokens_per_s_per_user"])
    assert found["tokens_per_s_per_node"] == pytest.approx(8 * found["tokens_per_s_per_gpu"])
    assert found["kv_cache_bytes"] == 32 * 2048 * kv_bytes_per_token(load_model("deepseek-v2"))
    assert 0 < found["lower_bound_s"] < found["tpot_s"]


def test_metrics_of_prefill_are_differences_of_the_same_instants() -> None:
    found = metrics(PREFILL)
    assert found["tokens_per_s_per_gpu"] == pytest.approx(4 * 2048 / found["ttft_s"])
    assert 0 < found["lower_bound_s"] < found["ttft_s"]
    chunked = metrics(PREFILL, workload__chunk_tokens=512)
    assert chunked["passes"] == 4
    assert chunked["ttft_s"] > found["ttft_s"]


def test_speculation_gives_a_user_more_and_a_step_costs_more() -> None:
    tree = DECODE | {
        "model": "deepseek-v3",
        "cluster": {"hardware": "h800", "nodes": 4},
        "layout": {"ep": 32},
    }
    one = metrics(tree)
    two = metrics(tree, workload__tokens_per_step=2, workload__acceptance="80 %")
    assert two["accepted_tokens_per_step"] == pytest.approx(1.8)
    assert one["step_time_s"] < two["step_time_s"] < 2 * one["step_time_s"]
    assert two["kv_cache_bytes"] == pytest.approx(one["kv_cache_bytes"] * 62 / 61)
    three = metrics(tree, workload__tokens_per_step=3, workload__acceptance=["80 %", "50 %"])
    assert three["accepted_tokens_per_step"] == pytest.approx(1 + 0.8 + 0.8 * 0.5)
    alike = metrics(tree, workload__tokens_per_step=3, workload__acceptance="80 %")
    assert alike["accepted_tokens_per_step"] == pytest.approx(1 + 0.8 + 0.8 * 0.8)
    assert alike["step_time_s"] == three["step_time_s"]


def test_the_largest_batch_fits_and_one_more_does_not() -> None:
    most = metrics(DECODE, workload__overlap=False)["max_batch_per_gpu"]
    tree = document(DECODE, workload__overlap=False)
    del tree.tree["workload"]["requests_per_gpu"]
    assert run_document(tree)["metrics"]["requests_per_gpu"] == most
    with pytest.raises(InfeasibleError, match=f"at most {most} a GPU fit"):
        metrics(DECODE, workload__overlap=False, workload__requests_per_gpu=most + 1)


def test_a_longer_context_leaves_a_smaller_batch() -> None:
    short, long = (metrics(DECODE, workload__context_tokens=n)["max_batch_per_gpu"] for n in (2048, 4096))
    assert long == pytest.approx(short / 2, rel=0.1)


def test_an_h800_with_the_nvlink_of_an_h100_is_an_h100() -> None:
    tree = DECODE | {
        "cluster": {"hardware": "h800", "nodes": 2, "override": {"gpu.scale_up.bandwidth": "450 GB/s"}}
    }
    assert metrics(tree) == metrics(DECODE, cluster__hardware="h100")


def test_the_same_seed_gives_the_same_metrics_and_another_does_not() -> None:
    gate = {"kind": "zipf", "exponent": 0.5}
    first, again = (metrics(DECODE, workload__gate=gate, seed=5) for _ in range(2))
    assert first == again
    assert metrics(DECODE, workload__gate=gate, seed=6)["tpot_s"] != first["tpot_s"]


def test_popular_experts_make_ranks_late_and_replicas_win_it_back() -> None:
    gate = {"kind": "zipf", "exponent": 0.6}
    even, skewed = metrics(PREFILL), metrics(PREFILL, workload__gate=gate)
    placement = {"kind": "eplb", "redundant_experts": 16}
    balanced = metrics(PREFILL, workload__gate=gate, workload__placement=placement)
    assert skewed["ttft_s"] > 1.15 * even["ttft_s"]
    assert balanced["ttft_s"] < 1.08 * even["ttft_s"]
    assert skewed["skew_wait_s"] > balanced["skew_wait_s"]


def test_overlap_hides_exchanges_in_prefill() -> None:
    beside, in_turn = (metrics(PREFILL, workload__overlap=on) for on in (True, False))
    assert beside["exposed_comm_s"] < 0.1 * in_turn["exposed_comm_s"]
    assert beside["ttft_s"] < in_turn["ttft_s"]


@pytest.mark.parametrize(("requests", "faster"), [(4, False), (512, True)])
def test_the_way_of_a_decode_left_to_default_is_the_faster_of_the_two(requests: int, faster: bool) -> None:
    default, two, one = (
        metrics(DECODE, workload__requests_per_gpu=requests, workload__context_tokens=1024, **way)["tpot_s"]
        for way in ({}, {"workload__overlap": True}, {"workload__overlap": False})
    )
    assert default == min(one, two) == (two if faster else one)


def test_four_requests_on_each_gpu_of_one_node_run_in_one_batch_by_default() -> None:
    """In two every weight is read twice: 41 ms a token instead of 28.5."""
    node = DECODE | {"model": "deepseek-v3", "cluster": {"hardware": "h200", "nodes": 1}, "layout": {"ep": 8}}
    four = {
        "workload__requests_per_gpu": 4,
        "workload__context_tokens": 1900,
        "workload__gate": {"kind": "uniform"},
    }
    default = metrics(node, **four)["tpot_s"]
    assert (
        default
        == metrics(node, **four, workload__overlap=False)["tpot_s"]
        == pytest.approx(28.5e-3, rel=0.02)
    )
    assert metrics(node, **four, workload__overlap=True)["tpot_s"] == pytest.approx(41.1e-3, rel=0.02)


def test_tensor_parallel_attention_keeps_more_cache_and_streams_less_weight() -> None:
    tp1, tp4 = metrics(DECODE), metrics(DECODE, layout={"ep": 16, "tp": 4})
    assert tp4["kv_cache_bytes"] == 4 * tp1["kv_cache_bytes"]


@pytest.mark.parametrize(
    ("ep", "nodes", "redundant"),
    [(72, 9, 32), (144, 18, 32), pytest.param(320, 40, 64, marks=pytest.mark.slow)],
)
def test_every_ep_that_replicas_fill_runs(ep: int, nodes: int, redundant: int) -> None:
    tree = DECODE | {
        "model": "deepseek-v3",
        "cluster": {"hardware": "h800", "nodes": nodes},
        "layout": {"ep": ep},
    }
    found = metrics(tree, workload__placement={"kind": "eplb", "redundant_experts": redundant})
    assert 0 < found["lower_bound_s"] < found["tpot_s"]


# --- the published bound --------------------------------------------------------------------------------------------


def test_the_bound_of_a_token_by_its_exchanges_is_the_published_arithmetic() -> None:
    bound = tpot_bound(50e9)
    assert bound.dispatch_s == pytest.approx(40.32e-6, rel=1e-12)
    assert bound.exchange_s == pytest.approx(120.96e-6, rel=1e-12)
    assert bound.layer_s == pytest.approx(241.92e-6, rel=1e-12)
    assert round(bound.tpot_s * 1e3, 2) == 14.76
    assert round(bound.tokens_per_s, 2) == 67.76
    rack = tpot_bound(900e9)
    assert rack.exchange_s == pytest.approx(6.72e-6, rel=1e-12)
    assert round(rack.tpot_s * 1e3, 2) == 0.82


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "settings", "said"),
    [
        (DECODE, {"layout": {"ep": 12}}, "a divisor of the 16 ranks"),
        (
            DECODE,
            {"cluster": {"hardware": "h800", "nodes": 18}, "layout": {"ep": 144}},
            "or 128 redundant_experts",
        ),
        (DECODE, {"layout": {"ep": 16, "tp": 3}}, "a divisor of the 16 ranks, and of the 128 heads"),
        (DECODE, {"layout": {"ep": 16, "pp": 2}}, "a divisor of the 8 ranks of a pipeline stage"),
        (
            DECODE,
            {"layout": {"ep": 8, "pp": 2}, "workload__overlap": True},
            "workload.overlap: got true next to layout.pp; wanted false",
        ),
        (
            DECODE,
            {"layout": {"ep": 16, "cp": 3}},
            "layout.cp: got 3; wanted a divisor of the 16 ranks over TP1",
        ),
        (
            DECODE,
            {"layout": {"ep": 16, "cp": 2, "dp": 16}},
            "layout.dp: got 16; wanted 8, the 16 ranks over TP and CP",
        ),
        (PREFILL, {"workload__prompts": 4}, "4 next to prompts_per_gpu; wanted one of them"),
        (
            DECODE,
            {"layout": {"ep": 8, "tp": 2, "etp": 4}},
            "layout.etp: got 4; wanted a divisor of the 2 ranks that share experts next to EP8",
        ),
        (DECODE, {"layout": {"ep": 1, "etp": 3}}, "layout.etp: got 3; wanted a divisor of the"),
        (DECODE, {"workload__requests": 8}, "8 next to requests_per_gpu; wanted one of them"),
        (DECODE, {"workload__tokens_per_step": 2}, "has no module that speculates"),
        (DECODE, {"workload__acceptance": "120 %"}, "0 % to 100 %"),
        (DECODE, {"workload__acceptance": ["80 %", "120 %"]}, "0 % to 100 %"),
        (DECODE, {"workload__acceptance": ["80 %", "60 %"]}, "0: one for each token that is speculated"),
        (PREFILL, {"workload__chunk_tokens": 1000}, "a divisor of the 2048 tokens"),
        (PREFILL, {"workload__cached_tokens": 2048}, "less than the prompt's 2048 tokens"),
        (PREFILL, {"workload__prompts_per_gpu": 3, "workload__overlap": True}, "an even number"),
        (PREFILL, {"workload__kernel": {"kind": "two_hop", "comm_sms": 132}}, "fewer than the 132 SMs"),
        (DECODE, {"workload__gemm_generation": "march"}, "february_2025, march_2025"),
        (PREFILL, {"workload__promt_tokens": 4}, "prompt_tokens"),
    ],
)
def test_what_contradicts_is_refused_with_what_would_do(
    tree: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        run_document(document(tree, **settings))


def test_all_problems_are_told_at_once_and_each_of_them_once() -> None:
    settings = {
        "layout": {"ep": 12, "tp": 5},
        "workload__acceptance": "120 %",
        "workload__gemm_generation": "x",
    }
    with pytest.raises(InputError) as caught:
        run_document(document(DECODE, **settings))
    keys = [problem.key for problem in caught.value.problems]
    assert sorted(keys) == ["layout.ep", "layout.tp", "workload.acceptance", "workload.gemm_generation"]


@pytest.mark.parametrize("tree", [DECODE, PREFILL])
def test_closed_form_and_flows_agree_under_uniform_traffic(tree: dict[str, Any]) -> None:
    in_turn = {"workload__overlap": False, "workload__gate": {"kind": "uniform", "sampling": "expected"}}
    flows, closed = (metrics(tree, **in_turn, fidelity=one)["step_time_s"] for one in ("flow", "closed_form"))
    assert closed == pytest.approx(flows, rel=0.02)


def test_a_slow_nic_slows_the_exchanges_of_everyone() -> None:
    fault = {"cluster__faults": [{"node": 1, "nic": 0, "bandwidth": "100 Gb/s"}]}
    healthy, slow = (metrics(DECODE, workload__overlap=False, **one) for one in ({}, fault))
    assert slow["exposed_comm_s"] > 1.3 * healthy["exposed_comm_s"]


def test_a_context_that_fits_no_gpu_is_infeasible_and_names_the_biggest_parts() -> None:
    with pytest.raises(InfeasibleError, match=r"cache .* not one fits|not one fits"):
        metrics(DECODE, workload__context_tokens=2_000_000, workload__requests_per_gpu=1)


def test_weights_that_fit_no_gpu_are_infeasible(tmp_path: Path) -> None:
    tree = DECODE | {"model": "kimi-k2", "layout": {"ep": 8}}
    with pytest.raises(InfeasibleError, match="routed experts"):
        metrics(tree)


# --- ranks that are unlike ------------------------------------------------------------------------------------------


def test_without_overlap_a_pass_computes_at_the_pace_of_its_slowest_gpu() -> None:
    """Every layer has two barriers, before which the slowest of 16 lognormal speeds is waited for; links are as fast as ever."""
    alone = {"workload__overlap": False}
    even = metrics(PREFILL, **alone)
    skewed = metrics(PREFILL, **alone, workload__skew={"kernel_jitter": 0, "gpu_spread": 0.1})
    slowest = draw(
        Skew(gpu_spread=0.1), num_ranks=1, num_groups=1, lanes=16, num_layers=0, num_microbatches=0, seed=0
    ).speed.max()
    computes_s = even["step_time_s"] - even["exposed_comm_s"]
    assert skewed["step_time_s"] - even["step_time_s"] == pytest.approx(computes_s * (slowest - 1), rel=0.05)
    assert even["skew_wait_s"] == pytest.approx(0.0, abs=1e-9)
    assert skewed["skew_wait_s"] > 0.5 * computes_s * (slowest - 1)


def test_jitter_of_launches_is_waited_for_at_every_barrier_and_is_drawn_from_the_seed() -> None:
    asked = {"workload__overlap": False, "workload__skew": {"kernel_jitter": 0.05, "gpu_spread": 0}}
    even, once, again, other = (
        metrics(PREFILL, **settings)
        for settings in ({"workload__overlap": False}, asked, asked, asked | {"seed": 1})
    )
    assert once == again != other
    # Launches of a kind are nodes here: between barriers one or two, of which the slowest of 16 is 1.77 deviations late.
    computes_s = even["step_time_s"] - even["exposed_comm_s"]
    assert 1.0 * 0.05 < (once["step_time_s"] - even["step_time_s"]) / computes_s < 1.9 * 0.05


def test_ranks_that_wait_for_one_another_are_unlike_by_default_as_in_training_and_a_lone_gpu_is_the_mean_one() -> (
    None
):
    """A step of unlike ranks is what the published rows of decode, prefill and training are compared with."""
    work = {key: value for key, value in DECODE["workload"].items() if key != "skew"}
    spread = {"kernel_jitter": "2 %", "gpu_spread": "1.5 %"}
    unlike = metrics(DECODE | {"workload": work})
    assert unlike == metrics(DECODE, workload__skew=spread)
    assert unlike["step_time_s"] > metrics(DECODE)["step_time_s"]
    lone = {
        "cluster": {"hardware": "h800", "nodes": 1, "gpus": 1},
        "model": "qwen3-30b-a3b",
        "layout": {"ep": 1},
    }
    assert metrics(DECODE | lone | {"workload": work}) == metrics(DECODE | lone)


def test_a_deviation_below_zero_is_told_where_it_is() -> None:
    with pytest.raises(InputError, match=r"workload.skew.gpu_spread.*-5%.*0 to 100 %"):
        metrics(PREFILL, workload__skew={"gpu_spread": "-5 %"})
