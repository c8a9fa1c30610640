"""What kernels compute and move: counts by hand, and a roof that no kernel of any layer on any GPU pierces."""

from __future__ import annotations

from typing import Any

import pytest

import sim
from sim.cluster.hardware import list_hardware, load_hardware
from sim.cost import work
from sim.cost.attention_launches import attention
from sim.cost.compute import Dtype, processor
from sim.cost.launches import RankBatch
from sim.cost.layers import layer_phases, layer_times
from sim.cost.prefill import PrefillBatch, prefill_attention, prefill_experts
from sim.cost.serving_kernels import DecodeBatch, decode_attention_0, decode_attention_1, decode_experts, ends
from sim.errors import InputError
from sim.runs.kernel_list import hardware_launches, roofs
from sim.show.plots import kinds as plots
from sim.show.plots.roofline import points
from sim.workload.model import load_model

H800 = load_hardware("h800")
V3 = load_model("deepseek-v3")
MODELS = ("deepseek-v3", "mixtral-8x7b", "qwen3-235b-a22b", "llama-4-maverick")
STEP: dict[str, Any] = {
    "workload.skew.routed_load": 0,
    "workload.skew.kernel_jitter": 0,
    "workload.skew.gpu_spread": 0,
}


def known() -> list[str]:
    from sim import documents

    return [name for name in MODELS if name in documents.shipped("scenarios/models")]


def test_a_backward_core_moves_what_the_forward_does_and_gradients_of_results_and_of_all_inputs() -> None:
    """128 heads of 192 and 128 elements: BF16 but for the sum of the queries' gradients in FP32."""
    p, tokens, heads, qk, v = processor(H800), 4096, 128, 192, 128
    forward, backward = (
        next(work.launch_work(p, op) for op in attention(V3, RankBatch(1, tokens), phase) if op.kind == f"attention_{kind}")
        for phase, kind in (("F", "forward"), ("B", "backward"))
    )  # fmt: skip
    inputs, result = heads * (2 * qk + v), heads * v
    assert forward.moved_bytes == tokens * 2 * (inputs + result)
    assert backward.moved_bytes - forward.moved_bytes == tokens * (
        2 * result + 4 * heads * qk + 2 * heads * (qk + v)
    )


def test_a_product_has_two_flops_for_each_pair_and_reads_each_operand_once() -> None:
    p = processor(H800)
    one = work.gemm(p, "x", 100, 200, 300, "fp8")
    assert one.flops == 2 * 100 * 200 * 300
    scales = 4 * 100 * 300 / 128 + 4 * 200 * 300 / 128**2  # FP32, of 1 x 128 and of 128 x 128
    assert one.moved_bytes == pytest.approx(100 * 300 + 200 * 300 + scales + 2 * 100 * 200)
    two = work.gemm(p, "x", 100, 200, 300, "bf16")
    assert two.moved_bytes == 2 * (100 * 300 + 200 * 300 + 100 * 200)


def test_padding_and_experts_without_rows_are_no_work() -> None:
    p = processor(H800)
    padded = work.grouped_gemm(p, "x", (1, 0, 3), 256, 512, "fp8", "contiguous")
    assert padded.flops == 2 * 4 * 256 * 512
    scales = 4 * 4 * 512 // 128 + 2 * 4 * 256 * 512 // 128**2
    assert padded.moved_bytes == 4 * 512 + 2 * 256 * 512 + scales + 2 * 4 * 256


def test_weights_held_in_eight_bits_are_read_so_and_multiplied_in_bf16() -> None:
    p = processor(load_hardware("a800"))  # it has no FP8
    held = work.gemm(p, "x", 64, 64, 64, "fp8_tensorwise_bf16")
    assert held.dtype == "bf16"
    assert held.moved_bytes == (2 + 1 + 2) * 64 * 64


def test_a_weight_gradient_reads_and_writes_its_sum_in_fp32() -> None:
    p = processor(H800)
    phases = layer_phases(V3, RankBatch(1, 4096, (512,) * 4, 2048.0))
    down = next(op for op in phases["mlp(W)"] if op.name == "expert down weights")
    done = work.launch_work(p, down)
    assert done.flops == 2 * 4 * 512 * V3.hidden * V3.expert_hidden
    operands = 4 * 512 * (V3.hidden + V3.expert_hidden) * (1 + 4 / 128)  # a scale for 128 of a row
    assert done.moved_bytes == operands + 4 * 8 * V3.hidden * V3.expert_hidden


def test_the_absorbed_core_reads_a_latent_once_for_all_heads() -> None:
    """Of 128 heads: 2 x 128 x (2 x 512 + 64) FLOP over 2 x (512 + 64) bytes a token of context, 242 FLOP a byte."""
    p = processor(H800)
    core = work.mla_decode(p, "core", 64, 1e6, 128, latent_dim=512, rope_dim=64, queries=1)
    assert core.flops / core.moved_bytes == pytest.approx(242, rel=2e-3)
    twice = work.mla_decode(p, "core", 64, 1e6, 128, latent_dim=512, rope_dim=64, queries=2, cache_bytes=1.0)
    assert twice.flops / twice.moved_bytes == pytest.approx(4 * 242, rel=6e-3)


def test_the_backward_core_multiplies_five_times_where_the_forward_does_twice() -> None:
    p = processor(H800)
    model = load_model("mixtral-8x7b")  # queries, keys and values of one width
    phases = layer_phases(model, RankBatch(1, 4096, (1024,) * 8, 4096.0))
    forward, backward = (
        next(work.launch_work(p, op) for op in phases[phase] if op.kind.startswith("attention_"))
        for phase in ("attn(F)", "attn(B)")
    )
    assert backward.flops / forward.flops == pytest.approx(5 / 2)
    heads, width = model.attention.num_heads, 128
    assert forward.flops == pytest.approx(4 * heads * width * 4096 * 4096 / 2)


def test_chunks_of_a_prompt_multiply_as_much_as_the_whole() -> None:
    p = processor(H800)
    whole = prefill_attention(p, V3, PrefillBatch(1, 4096), 3)["attention core"]
    chunks = [
        prefill_attention(p, V3, PrefillBatch(1, 1024, cached_tokens=1024 * i), 3)["attention core"]
        for i in range(4)
    ]
    assert sum(one.flops for one in chunks) == pytest.approx(whole.flops)
    assert sum(one.moved_bytes for one in chunks) > whole.moved_bytes  # keys are read again


@pytest.mark.parametrize("name", list_hardware())
def test_no_kernel_pierces_its_roof(name: str) -> None:
    hardware = load_hardware(name)
    p, limits = processor(hardware), roofs(hardware)
    precision: Dtype = "fp8" if hardware.gpu.dense_flops.fp8 else "bf16"
    parts: list[work.Part] = []
    for model in map(load_model, known()):
        for rows in (1, 64, 4096):
            batch = RankBatch(1, 4096, (rows,) * 8, 4.0 * rows, precision)
            parts += [
                work.part(*(work.launch_work(p, op) for op in operations))
                for operations in layer_phases(model, batch).values()
            ]
            for context in (1, 4096):  # of one token, the queries and results are most of what moves
                decode = DecodeBatch(float(rows), 1, context, precision=precision, kv_bytes_per_element=1.0)
                parts += [decode_attention_0(p, model, decode), decode_attention_1(p, model, decode, 0)]
            parts += [decode_experts(p, model, precision, (rows,) * 8, rows), ends(p, model, rows, rows)]
            parts.append(prefill_attention(p, model, PrefillBatch(1, 1024, rows, precision=precision), 0))
            parts.append(prefill_attention(p, model, PrefillBatch(rows, 5, 4090, precision=precision), 0))
            parts.append(
                prefill_experts(p, model, PrefillBatch(1, 1024, precision=precision), (rows,) * 8, 4.0 * rows)
            )
    for one in (one for mine in parts for one in mine.values()):
        compute_s = one.flops / limits["peak_flops"][one.dtype] if one.flops else 0.0
        assert one.time_s >= max(compute_s, one.moved_bytes / limits["hbm_bytes_per_s"]), one


# --- the list in a result, and its plot ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def step() -> dict[str, Any]:
    settings = [f"{key}={value}" for key, value in STEP.items()]
    return sim.run("mixtral-training", settings=(*settings, "variants={}", "expect={}"))


@pytest.fixture(scope="module")
def decode() -> dict[str, Any]:
    return sim.run("inference-hardware", settings=("variants={}", "expect={}"))


def test_the_kernels_of_a_step_take_what_its_layer_takes(step: dict[str, Any]) -> None:
    work_, model = step["scenario"]["workload"], load_model(step["scenario"]["model"])
    p = processor(
        load_hardware(step["scenario"]["cluster"]["hardware"]),
        sustained=True,
        generation=work_["gemm_generation"],
    )
    layout = step["scenario"]["layout"]
    tokens = work_["microbatch_sequences"] * work_["sequence_tokens"]
    rows = round(tokens * model.top_k * layout["ep"] / model.num_experts)
    received = tokens * step["exchanges"]["dispatch"]["ranks_per_token"]
    batch = RankBatch(
        work_["microbatch_sequences"], work_["sequence_tokens"], (rows,) * (model.num_experts // layout["ep"]), received,
        work_["precision"],
    )  # fmt: skip
    for phase, time in layer_times(p, model, batch).items():
        mine = [one["time_s"] for one in step["kernels"] if one["phase"] == phase]
        assert sum(mine) == pytest.approx(time.total_s), phase


def test_the_kernels_of_a_pass_take_what_its_parts_take(decode: dict[str, Any]) -> None:
    for phase in ("attention_0", "attention_1", "experts"):
        mine = {one["name"]: one["time_s"] for one in decode["kernels"] if one["phase"] == phase}
        assert mine == pytest.approx(decode["parts"][phase])


@pytest.mark.parametrize("run", ["step", "decode"])
def test_a_roofline_has_every_product_below_its_roof(run: str, request: pytest.FixtureRequest) -> None:
    from sim.show.views.run import views_of

    result = request.getfixturevalue(run)
    found, limits = points(views_of(result).runs[0]), result["roofs"]
    figure = plots.figure("roofline", result)
    drawn = {
        (trace.x[0], trace.y[0] * 1e12)
        for trace in figure.data
        if trace.type == "scatter" and trace.mode == "markers" and trace.x[0]
    }
    products = [one for one in found if one.side != "moves"]
    assert len(products) > 5
    for one in products:
        assert one.rate <= min(limits["peak_flops"][one.dtype], one.intensity * limits["hbm_bytes_per_s"])
        assert any((one.intensity, one.rate) == pytest.approx(at) for at in drawn)
        ridge = limits["peak_flops"][one.dtype] / limits["hbm_bytes_per_s"]
        assert (one.side == "compute") == (one.intensity >= ridge)
    shares = [trace.x[0] for trace in figure.data if trace.type == "bar"]
    assert sum(shares) == pytest.approx(100)


def test_roofs_stand_at_the_datasheet_and_meet_at_the_ridge(decode: dict[str, Any]) -> None:
    figure = plots.figure("roofline", decode)
    slope, *ceilings = (trace for trace in figure.data if trace.type == "scatter" and trace.mode == "lines")
    flat = [trace for trace in ceilings if trace.line.dash is None]
    assert {trace.y[0] for trace in flat} == {989.4, 1978.9}
    assert slope.y[0] / slope.x[0] == pytest.approx(3.35)  # TB/s: TFLOP/s over FLOP/byte
    assert sorted(trace.x[0] for trace in flat) == pytest.approx([295.3, 590.7], rel=1e-3)


def test_a_profile_has_a_roofline_without_a_run() -> None:
    figure = plots.figure("roofline", hardware_launches(load_hardware("h20")))
    assert "H20" in figure.layout.title.text
    assert "[" not in figure.layout.title.text
    gemms = [
        trace
        for trace in figure.data
        if trace.type == "scatter" and trace.mode == "markers" and trace.name.endswith("FP8") and trace.x[0]
    ]
    rates = [trace.y[0] for trace in gemms]
    assert rates == sorted(rates)  # more rows, more FLOP/s
    assert 200 < rates[-1] < 296  # of 296 dense TFLOP/s


def test_what_lists_no_kernels_has_no_roofline() -> None:
    with pytest.raises(InputError, match="list their kernels"):
        plots.figure("roofline", {"metrics": {"time_s": 1.0}})


def test_a_gate_of_few_tokens_streams_its_weights_and_one_of_more_is_a_gemm() -> None:
    """256 experts of 7168 in BF16 are 3.67 MB; sixteen tokens cost what one does, but for their own bytes."""
    p, v3 = processor(load_hardware("h200"), sustained=False), load_model("deepseek-v3")
    times = {
        tokens: decode_attention_1(p, v3, DecodeBatch(tokens, 1, 1024), 10)["gate"].time_s
        for tokens in (1, 16, 17)
    }
    weights = 256 * 7168 * 2.0
    assert times[1] == pytest.approx(work.streaming(p, "weights", weights).time_s, rel=0.01)
    assert times[1] > weights / load_hardware("h200").gpu.hbm.bandwidth_bytes_per_s
    assert times[16] < 1.1 * times[1]
    assert times[17] == work.gemm(p, "gate", 17, 256, 7168, "bf16").time_s > 2 * times[16]
