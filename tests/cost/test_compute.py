"""Compute cost: what follows from tiles, waves, clocks and bytes, and what a layer executes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cluster.hardware import list_hardware, load_hardware
from sim.cost import ends, layers
from sim.cost.attention import (
    attention_backward_s,
    attention_blocks,
    attention_forward_s,
    backward_passes_bytes,
    gqa_decode_s,
    mla_decode_s,
)
from sim.cost.compute import (
    PAD_ROWS,
    Dtype,
    Processor,
    gemm_s,
    grouped_gemm_s,
    processor,
    weight_gemm_s,
)
from sim.cost.curves import load_curves
from sim.cost.launches import Launch, RankBatch, launches_s, phase_time
from sim.cost.layers import PHASES, layer_phases
from sim.cost.streaming import streaming_s
from sim.errors import InfeasibleError, InputError
from sim.workload.model import load_model, shipped_models, training_flops_per_token

H800 = load_hardware("h800")
WHOLE = processor(H800)
LAUNCH = WHOLE.curves.gemm.generations["march_2025"].launch_s

rows = st.integers(1, 20_000)
widths = st.integers(1, 400).map(lambda i: i * 16)
depths = st.integers(1, 200).map(lambda i: i * 64)
dtypes = st.sampled_from(["fp8", "bf16"])


@given(m=rows, n=widths, k=depths, dtype=dtypes, sms=st.integers(1, 132))
def test_a_gemm_is_never_faster_than_peak_flops_or_peak_bandwidth(
    m: int, n: int, k: int, dtype: Dtype, sms: int
) -> None:
    p = processor(H800, sms=sms)
    size = 1.0 if dtype == "fp8" else 2.0
    flops_s = 2.0 * m * n * k / (sms * p.flops_per_sm(dtype))
    bytes_s = (size * (m * k + n * k) + 2.0 * m * n) / H800.gpu.hbm.bandwidth_bytes_per_s
    assert gemm_s(p, m, n, k, dtype) >= max(flops_s, bytes_s)


@given(m=rows, n=widths, k=depths)
def test_a_gemm_takes_no_less_time_for_more_depth(m: int, n: int, k: int) -> None:
    assert gemm_s(WHOLE, m, n, k + 128) >= gemm_s(WHOLE, m, n, k)


def test_a_tile_costs_the_same_whether_it_is_full_or_not() -> None:
    just_over, full = gemm_s(WHOLE, 128 * 31 + 1, 128, 65536), gemm_s(WHOLE, 128 * 32, 128, 65536)
    assert just_over == pytest.approx(full, rel=0.02)


def test_one_tile_more_than_fits_costs_another_wave() -> None:
    fits, more = (grouped_gemm_s(WHOLE, [128 * 12], 128 * 22 + extra, 1 << 16) for extra in (0, 1))
    assert 1.2 < more / fits <= 1.5  # narrower tiles soften the third wave


def test_half_the_sms_take_twice_as_long_on_whole_waves() -> None:
    whole, half = (gemm_s(processor(H800, sms=sms), 128 * 132, 128 * 8, 16384) - LAUNCH for sms in (132, 66))
    assert half / whole == pytest.approx(2.0, rel=0.05)


def test_few_rows_are_bound_by_the_weights_that_stream() -> None:
    one, two = (gemm_s(WHOLE, 16, 24576, k) - LAUNCH for k in (7168, 14336))
    rate = 24576 * 7168 / (two - one)
    assert 0.8 < rate / H800.gpu.hbm.bandwidth_bytes_per_s < 0.9


def test_the_sustained_clock_slows_tensor_work_by_its_fraction_and_memory_work_not_at_all() -> None:
    slow = processor(H800, sustained=True)
    big = [gemm_s(p, 16384, 16384, 16384) for p in (WHOLE, slow)]
    assert big[0] / big[1] == pytest.approx(H800.gpu.sustained_clock_fraction, rel=0.02)
    assert streaming_s(slow, 1e9) == streaming_s(WHOLE, 1e9)


def test_other_gpus_follow_from_their_profile() -> None:
    assert gemm_s(processor(load_hardware("h100")), 4096, 7168, 16384) == gemm_s(WHOLE, 4096, 7168, 16384)
    h20 = processor(load_hardware("h20"))
    large = 2.0 * 8192**3 / gemm_s(h20, 8192, 8192, 8192, "bf16")
    assert 0.9 < large / h20.bf16_flops < 1.0  # a quarter of the tensor rate is easily fed
    skinny = [gemm_s(processor(load_hardware(name)), 16, 36864, 7168) for name in ("h800", "h200")]
    assert skinny[0] / skinny[1] == pytest.approx(4800 / 3350, rel=0.12)


def test_a_format_that_a_gpu_lacks_is_no_product_of_it() -> None:
    a100 = processor(load_hardware("a100"))
    for lacking in ("fp8", "fp8_tensorwise", "mxfp8", "nvfp4", "w4a8"):
        with pytest.raises(InfeasibleError):
            gemm_s(a100, 4096, 4096, 4096, lacking)
    with pytest.raises(InfeasibleError, match="does not scale blocks"):
        gemm_s(WHOLE, 4096, 4096, 4096, "mxfp8")  # it has the rate, but not the scales in its tensor cores


def test_the_contiguous_layout_pads_each_expert_and_the_masked_one_does_not() -> None:
    padded = grouped_gemm_s(WHOLE, [1, 127, 128], 4096, 7168)
    assert padded == grouped_gemm_s(WHOLE, [PAD_ROWS] * 3, 4096, 7168)
    assert grouped_gemm_s(WHOLE, [4] * 32, 4096, 7168, layout="masked") < grouped_gemm_s(
        WHOLE, [4] * 32, 4096, 7168
    )


def test_experts_without_rows_cost_nothing() -> None:
    assert grouped_gemm_s(WHOLE, [0, 0], 4096, 7168) == 0.0
    assert grouped_gemm_s(WHOLE, [256, 0], 4096, 7168) == grouped_gemm_s(WHOLE, [256], 4096, 7168)
    assert weight_gemm_s(WHOLE, [0], 4096, 7168) == 0.0


def test_the_order_of_experts_does_not_matter() -> None:
    assert grouped_gemm_s(WHOLE, [100, 900, 300], 4096, 7168) == grouped_gemm_s(
        WHOLE, [300, 100, 900], 4096, 7168
    )


def test_skewed_experts_take_at_least_as_long_as_even_ones() -> None:
    even = grouped_gemm_s(WHOLE, [512] * 4, 4096, 7168, layout="masked", expected_rows=512)
    skewed = grouped_gemm_s(WHOLE, [129, 385, 641, 893], 4096, 7168, layout="masked", expected_rows=512)
    assert skewed > even


def test_a_weight_gradient_takes_longer_than_the_forward_product_of_the_same_flops() -> None:
    assert weight_gemm_s(WHOLE, (4096,), 7168, 16384) > 1.2 * gemm_s(WHOLE, 4096, 7168, 16384)
    deep = [weight_gemm_s(WHOLE, (t,), 1024, 1024) for t in (1 << 20, 1 << 21)]
    assert deep[1] / deep[0] == pytest.approx(2.0, rel=0.02)  # storing is paid once


def test_a_gradient_that_is_only_written_stores_half_the_bytes() -> None:
    n, k = 128 * 132, 128 * 32  # whole waves
    added, written = (weight_gemm_s(WHOLE, (1 << 17,), n, k, added=added) for added in (True, False))
    port = WHOLE.curves.gemm.generations["march_2025"].store_bytes_per_clock * H800.gpu.tensor_clock_hz
    assert added - written == pytest.approx(4.0 * n * k / (132 * port), rel=0.05)


def test_a_generation_with_one_fp8_tile_takes_as_long_for_one_row_as_for_a_tile_of_them() -> None:
    one_tile = processor(H800, generation="cublas_13")
    few, tile = (gemm_s(one_tile, m, 2048, 1 << 16, "fp8") for m in (1, 128))
    assert few == pytest.approx(tile, rel=0.05)
    assert few > 2.0 * gemm_s(WHOLE, 1, 2048, 1 << 16, "fp8")  # small tiles, on more SMs


def test_a_generation_with_known_clock_is_slower_by_it_and_throttles_further_under_load() -> None:
    known = WHOLE.curves.gemm.generations["cublas_13"].clock_fraction
    assert processor(H800, generation="cublas_13").clock_fraction == known < 1.0
    loaded = processor(H800, generation="cublas_13", sustained=True)
    assert loaded.clock_fraction == pytest.approx(known * H800.gpu.sustained_clock_fraction)
    assert WHOLE.clock_fraction == 1.0


def test_wide_tiles_and_a_full_port_bring_a_large_bf16_product_to_the_peak_at_its_clock() -> None:
    p = processor(H800, generation="cublas_13")
    peak_s = 2.0 * 128 * 132 * 8192 * 65536 / (p.bf16_flops * p.clock_fraction)
    assert 0.95 < peak_s / gemm_s(p, 128 * 132, 8192, 65536, "bf16") < 1.0


def test_the_passes_around_a_backward_core_move_two_outputs_and_the_query_gradient() -> None:
    before, after = backward_passes_bytes(4096, 128, 192, 128)
    output, queries = 4096 * 128 * 128, 4096 * 128 * 192
    assert before == 2 * (2 * output) + 4 * queries
    assert after == 4 * queries + 2 * queries


def test_a_causal_core_visits_half_of_the_blocks_and_the_diagonal() -> None:
    assert attention_blocks(4096, 4096, True, 128) == (32 * 33 / 2, 32)
    assert attention_blocks(4096, 4096, False, 128) == (32 * 32, 32)
    assert attention_blocks(4096, 128, True, 128) == (32, 1)
    assert attention_blocks(4096, 256, True, 128) == (1 + 31 * 2, 2)


@given(
    new=st.integers(1, 1000), before=st.integers(0, 1000), look_back=st.sampled_from([64, 128, 300, 10_000])
)
def test_queries_after_a_cached_part_visit_every_block_of_keys_up_to_their_own(
    new: int, before: int, look_back: int
) -> None:
    ends = [min(first + 128, new) for first in range(0, new, 128)]  # of query blocks, in new tokens
    cap = -(-min(look_back, before + new) // 128)
    visited = sum(min(-(-(before + end) // 128), cap) for end in ends)
    assert attention_blocks(new, look_back, True, 128, before) == (visited, cap)


def test_the_last_query_block_to_start_exposes_half_of_the_longest() -> None:
    """t = launch + (blocks / SMs + longest / 2) block_s: heads add to the first term alone."""
    launch, (blocks, longest) = WHOLE.curves.streaming.launch_s, attention_blocks(4096, 4096, True, 128)
    once, twice = (attention_forward_s(WHOLE, 1, 4096, heads, 192, 128) for heads in (66, 132))
    block_s = (twice - once) / (66 * blocks / WHOLE.sms)
    assert 2 * once - twice - launch == pytest.approx(longest / 2 * block_s)


def test_a_window_shortens_attention() -> None:
    full, window = (attention_forward_s(WHOLE, 1, 16384, 64, 64, 64, context_tokens=c) for c in (None, 128))
    assert window < full / 20


def test_backward_attention_does_three_products_of_one_width_and_two_of_the_other() -> None:
    ratio = attention_backward_s(WHOLE, 1, 16384, 128, 192, 128) / attention_forward_s(
        WHOLE, 1, 16384, 128, 192, 128
    )
    expected = (3 * 192 + 2 * 128) / (192 + 128) / WHOLE.curves.attention.backward_to_forward
    assert ratio == pytest.approx(expected, rel=1e-3)


def test_attention_is_never_faster_than_peak() -> None:
    for name in list_hardware():
        p = processor(load_hardware(name))
        peak_s = 128 * 320 * 4096**2 / p.bf16_flops
        assert attention_forward_s(p, 1, 4096, 128, 192, 128) > peak_s


def test_mla_decode_with_128_heads_is_bound_by_compute_and_with_16_by_memory() -> None:
    launch = WHOLE.curves.attention.decode_launch_s
    many, twice = (mla_decode_s(WHOLE, 128, 4096, 128, queries=q) - launch for q in (1, 2))
    assert twice / many == pytest.approx(2.0)
    few, few_twice = (mla_decode_s(WHOLE, 128, 4096, 16, queries=q) - launch for q in (1, 2))
    assert few == few_twice == pytest.approx(128 * 4096 * 1152 / 3e12, rel=0.01)


def test_grouped_query_decode_reads_keys_and_values_once() -> None:
    launch = WHOLE.curves.attention.decode_launch_s
    assert gqa_decode_s(WHOLE, 64, 8192, 64, 4, 128) - launch == pytest.approx(
        64 * 8192 * 2048 / 3e12, rel=0.01
    )


def test_streaming_takes_bytes_over_the_achieved_rate() -> None:
    launch = WHOLE.curves.streaming.launch_s
    rate = H800.gpu.hbm.bandwidth_bytes_per_s * H800.gpu.hbm.efficiency_fraction
    assert streaming_s(WHOLE, 1e9) == pytest.approx(launch + 1e9 / rate)
    assert streaming_s(WHOLE, 1e6, blocks=4) == pytest.approx(launch + 1e6 / (rate * 4 / 132))
    half = processor(H800, hbm_share_fraction=0.5)
    assert streaming_s(half, 1e9) == pytest.approx(launch + 2e9 / rate)


def test_a_grid_made_for_all_sms_needs_a_second_round_on_fewer() -> None:
    fewer = processor(H800, sms=112)
    launch = WHOLE.curves.streaming.launch_s
    once, again = (streaming_s(p, 1e8, resident_grid=True) - launch for p in (WHOLE, fewer))
    assert again == pytest.approx(2 * once)


def test_sms_beyond_those_of_the_gpu_are_refused() -> None:
    with pytest.raises(ValueError, match="132"):
        processor(H800, sms=133)


def test_curves_can_be_overridden_and_are_checked() -> None:
    faster = load_curves({"gemm.stream_fraction": 1.0})
    assert gemm_s(processor(H800, curves=faster), 16, 24576, 7168) < gemm_s(WHOLE, 16, 24576, 7168)
    with pytest.raises(InputError, match="stream_fraction"):
        load_curves({"gemm.stream_fraction": 1.5})
    with pytest.raises(InputError, match="at least 16"):
        load_curves({"gemm.generations.cublas_13.widest_tile": 8})


def test_every_curve_says_where_it_comes_from() -> None:
    for row in load_curves().parameters:
        assert row.citation, row.path
        assert row.detail or row.grade in ("datasheet", "measured", "paper"), row.path


# --- layers -----------------------------------------------------------------------------------------------


def _flops(operations: list[Launch]) -> float:
    return sum(op.flops * op.count for op in operations)


@pytest.mark.parametrize("name", shipped_models())
@pytest.mark.parametrize("precision", ["fp8", "bf16"])
def test_the_flops_of_all_layers_are_those_of_the_model(name: str, precision: Dtype) -> None:
    model, tokens = load_model(name), 4096
    rows = (tokens * model.top_k // model.num_experts,) * model.num_experts
    batch = RankBatch(1, tokens, rows, tokens, precision)
    total = sum(_flops(ends.head(model, batch, phase)) for phase in PHASES)
    for i in range(model.num_layers):
        phases = layer_phases(model, batch, dense=model.is_dense(i), layer_idx=i)
        total += sum(_flops(operations) for operations in phases.values())
    assert total / tokens == pytest.approx(training_flops_per_token(model, tokens, causal=True), rel=0.01)


def test_input_and_weight_gradients_have_the_flops_of_the_forward_pass_each() -> None:
    model = load_model("deepseek-v3")
    batch = RankBatch(1, 4096, (8192,) * 4, 30588)
    for part in (layers.moe_mlp, layers.dense_mlp, ends.head, ends.mtp_projection):
        forward, backward, weight = (_flops(part(model, batch, phase)) for phase in PHASES)
        assert forward == backward == weight > 0
    assert sum(_flops(ends.embedding(model, batch, phase)) for phase in PHASES) == 0


def test_products_and_gradients_of_weights_have_the_shapes_of_weights_and_gradients_of_inputs_have_them_turned() -> (
    None
):
    """Up and gate of 7,168 x 18,432 in the dense block, of 7,168 x 2,048 in each expert and the shared one."""
    model, batch = load_model("deepseek-v3"), RankBatch(1, 4096, (8192,) * 4, 30588)
    for part, before, width in ((layers.dense_mlp, "", 18_432), (layers.moe_mlp, "", 2048), (layers.moe_mlp, "expert ", 2048)):  # fmt: skip
        made = {(phase, op.name): (op.n, op.k) for phase in PHASES for op in part(model, batch, phase)}
        up, down = (2 * width, 7168), (7168, width)
        for phase, name, shape in (("F", "{}", 1), ("B", "{} input gradient", -1)):
            assert made[phase, f"{before}{name.format('up')}"] == up[::shape]
            assert made[phase, f"{before}{name.format('down')}"] == down[::shape]
        whole = "weights" if before else "weight"
        assert (made["W", f"{before}up {whole}"], made["W", f"{before}down {whole}"]) == (up, down)


def test_what_experts_kept_in_fp8_is_read_and_written_again_in_bf16() -> None:
    """Rows of both up matrices, 2 x 2,048 wide, before the backward; FP8 with an FP32 scale for each 128 elements."""
    model, batch = load_model("deepseek-v3"), RankBatch(1, 4096, (8192,) * 4, 30588)
    restored = [op.moved_bytes for op in layers.moe_mlp(model, batch, "B") if op.name == "restore"]
    assert 4 * 8192 * 2 * 2048 * (1 + 4 / 128 + 2) in restored


def test_bf16_has_nothing_to_cast_or_transpose() -> None:
    model = load_model("qwen3-235b-a22b")
    batch = RankBatch(1, 4096, (16384,) * 2, 30000, "bf16")
    names = {op.name for operations in layer_phases(model, batch).values() for op in operations}
    assert not {name for name in names if "cast" in name or "transpose" in name}


@pytest.mark.parametrize("hardware", ["h800", "a100", "b200"])
@pytest.mark.parametrize("name", ["deepseek-v3", "mixtral-8x22b", "qwen3-235b-a22b"])
def test_a_layer_runs_below_the_peak_of_its_gpu(hardware: str, name: str) -> None:
    model, gpu = load_model(name), load_hardware(hardware)
    precision: Dtype = "fp8" if gpu.gpu.dense_flops.fp8 else "bf16"
    batch = RankBatch(1, 4096, (8192,) * 4, 30588, precision)
    p = processor(gpu, sustained=True)
    phases = layer_phases(model, batch)
    time_s = sum(phase_time(p, operations).total_s for operations in phases.values())
    mfu = (
        sum(_flops(operations) for operations in phases.values())
        / time_s
        / gpu.gpu.dense_flops.peak(precision)
    )
    assert 0.25 < mfu < 0.95


def test_fewer_sms_stretch_the_sm_bound_part_only() -> None:
    model = load_model("deepseek-v3")
    batch = RankBatch(1, 4096, (8192,) * 4, 30588)

    def mlp(p: Processor) -> tuple[float, float]:
        time = phase_time(p, layers.moe_mlp(model, batch, "F"))
        return time.sm_bound_s, time.memory_bound_s

    (whole_sm, whole_memory), (part_sm, part_memory) = mlp(WHOLE), mlp(processor(H800, sms=112))
    assert part_sm / whole_sm == pytest.approx(132 / 112, rel=0.04)
    assert part_memory == whole_memory


def test_more_received_tokens_take_longer() -> None:
    model = load_model("deepseek-v3")
    low, high = (
        phase_time(WHOLE, layers.moe_mlp(model, RankBatch(1, 4096, (n,) * 4, 3.7 * n), "B"))
        for n in (7000, 9000)
    )
    assert high.total_s / low.total_s == pytest.approx(9 / 7, rel=0.08)


def test_a_launch_takes_what_its_product_takes() -> None:
    """Its outputs and its depth in their places: tall ones and flat ones differ."""
    for n, k in ((576, 7168), (7168, 576)):
        launch = Launch("product", "gemm", dtype="fp8", rows=(4096,), n=n, k=k)
        assert launches_s(WHOLE, launch) == gemm_s(WHOLE, 4096, n, k, "fp8")
    assert gemm_s(WHOLE, 4096, 576, 7168) != gemm_s(WHOLE, 4096, 7168, 576)


def test_launching_twice_takes_twice_as_long() -> None:
    once = Launch("copy", "memory", moved_bytes=1e8)
    assert launches_s(WHOLE, replace(once, count=2)) == 2 * launches_s(WHOLE, once)
    assert math.isclose(
        (phase_time(WHOLE, [once]) + phase_time(WHOLE, [once])).total_s, 2 * launches_s(WHOLE, once)
    )


def test_resident_blocks_without_an_sm_wait_for_a_second_round_while_it_is_lent() -> None:
    # 8192 x 8192 are 2,048 tiles of 256 x 128, a multiple of no number of SMs here: every SM has a block of 15 or 16 of them.
    h100, shape = load_hardware("h100"), (8192, 8192, 8192, "bf16")
    launch_s = load_curves().gemm.generations["cublas_13"].launch_s

    def tiles_s(sms: int, lent: float = 1.0) -> float:
        p = replace(processor(h100, sms=sms, generation="cublas_13"), lent_fraction=lent)
        return gemm_s(p, *shape) - launch_s  # type: ignore[arg-type]

    assert tiles_s(112) == pytest.approx(2 * tiles_s(132), rel=0.01)  # not 132 / 112
    assert tiles_s(112, lent=0.5) == pytest.approx(
        tiles_s(132) / (1 - 0.5 / 2), rel=0.01
    )  # half the time at half the rate
    assert tiles_s(112, lent=0.0) == pytest.approx(tiles_s(132), rel=0.01)
    told = [gemm_s(processor(h100, sms=sms), *shape) for sms in (112, 132)]  # type: ignore[arg-type]
    assert 1.1 < told[0] / told[1] < 1.25  # DeepGEMM has a block for every SM that is left


def test_few_resident_blocks_find_an_sm_each() -> None:
    # Weight gradients have tiles of 128 rows and at least 16 columns: 100 at most.
    h100 = load_hardware("h100")
    times = [
        weight_gemm_s(processor(h100, sms=sms, generation="cublas_13"), (4096,), 128, 1600, "bf16")
        for sms in (112, 132)
    ]
    assert times[0] == pytest.approx(times[1], rel=0.02)  # but for what HBM hides
