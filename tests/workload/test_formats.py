"""Formats: bytes by hand, and one record for what is held, read and sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cluster.hardware import load_hardware
from sim.cost import work
from sim.cost.compute import gemm_s, processor
from sim.cost.deployment import footprint
from sim.cost.launches import RankBatch, quantise
from sim.errors import InputError
from sim.workload.formats import CACHED, FORMATS, PRODUCTS, SENT, Precision, product
from sim.workload.layout import Layout
from sim.workload.model import Model, cache_bytes, load_model, parameters
from sim.workload.quantization import part_formats
from sim.workload.stages import stages
from sim.workload.traffic import payload_bytes

B200 = processor(load_hardware("b200"))
H100 = processor(load_hardware("h100"))


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("bf16", 16), ("fp8", 8 + 32 / 128**2), ("fp8_rows", 8.25), ("fp8_tensorwise", 8), ("mxfp8", 8.25), ("mxfp4", 4.25),
        ("nvfp4", 4.5), ("int4", 4.125), ("int4_g32", 4.5), ("fp32", 32), ("logfmt10", 10.25),
    ],
)  # fmt: skip
def test_an_element_has_its_bits_and_its_part_of_a_scale(name: str, bits: float) -> None:
    assert FORMATS[name].element_bytes == bits / 8


@given(name=st.sampled_from(sorted(SENT)), blocks=st.integers(1, 100))
def test_a_row_that_is_sent_is_as_many_elements_with_the_scale_of_a_row(name: str, blocks: int) -> None:
    kept, width = SENT[name], 128 * blocks
    of_row = 4 if name == "int8" else 0  # one FP32 scale
    assert payload_bytes(name, width) == width * kept.element_bytes + of_row


def test_a_token_of_v3_is_sent_in_as_many_bytes_as_counted_by_hand() -> None:
    """7,168 elements: 56 FP32 scales, 224 of E8M0, 448 of E4M3, one of FP32."""
    hand = {"bf16": 14336, "fp8": 7168 + 224, "mxfp8": 7168 + 224, "nvfp4": 3584 + 448, "int8": 7168 + 4}
    assert {name: payload_bytes(name, 7168) for name in hand} == hand


def held(model: Model, precision: Precision) -> Any:
    return footprint(
        model, experts_per_rank=model.num_experts, num_physical_experts=model.num_experts,
        layout=Layout(pp=1, ep=1, tp=1, dp=1), shared_tp=1, stage=stages(model, 1)[0], precision=precision, context_tokens=4096,
        buffered_tokens_per_request=0, buffers_bytes=0.0, record_bytes=0.0, with_mtp=False, capacity_bytes=1e15,
        reserve_fraction=0.0, graphs_bytes=0.0, gpu="a GPU",
    )  # fmt: skip


@given(
    name=st.sampled_from(sorted(PRODUCTS)),
    n=st.integers(1, 64).map(lambda i: 128 * i),
    k=st.integers(1, 64).map(lambda i: 256 * i),
)
def test_a_gemm_of_one_row_reads_the_weights_that_are_held(name: Any, n: int, k: int) -> None:
    own = PRODUCTS[name]
    gpu = H100 if own.roof == "int8" else B200  # neither has all rates
    read = work.gemm(gpu, "x", 1, n, k, name).moved_bytes - k * own.inputs.element_bytes - 2.0 * n
    assert read == pytest.approx(n * k * own.weights.element_bytes, rel=1e-12)
    model = load_model("mixtral-8x7b")
    experts = held(model, Precision.alike(name)).routed_experts_bytes
    assert experts == pytest.approx(32 * 8 * parameters(model).expert * read / (n * k), rel=1e-12)


@pytest.mark.parametrize("kv", sorted(CACHED))
def test_a_core_reads_the_cache_that_is_held(kv: str) -> None:
    model, element = load_model("mixtral-8x7b"), CACHED[kv].element_bytes
    kept = held(model, Precision.alike("bf16", kv=kv)).cache_bytes_per_request
    assert kept == cache_bytes(model, 4096, element)
    with_cache, without = (
        work.gqa_decode(H100, "core", 1, 4096, 32, 8, 128, queries=1, cache_bytes=each).moved_bytes
        for each in (element, 0.0)
    )
    assert 32 * (with_cache - without) == pytest.approx(kept)


def test_a_product_of_other_weights_is_found_or_is_none() -> None:
    found = product("bf16", "nvfp4")
    assert found is not None
    assert (found.name, found.roof, found.inputs.name) == ("nvfp4_bf16", "bf16", "bf16")
    assert product("fp8_blockwise") is PRODUCTS["fp8"]
    assert product("nvfp4", "int4") is None


# --- products --------------------------------------------------------------------------------------------------------


def test_scales_a_tensor_need_no_promotion_and_those_a_block_one_operation_an_element() -> None:
    """Of 512 clocks of a 128 x 128 x 128 tile, promotion adds 128; the port of cuBLAS loads 32 KiB in as many, 512."""
    cublas = processor(load_hardware("h100"), generation="cublas_13")
    shape = (33 * 128, 16 * 128, 1 << 16)  # four whole waves of 132 SMs, so deep that storing is nothing
    blocks, tensor = (gemm_s(cublas, *shape, name) for name in ("fp8", "fp8_tensorwise"))
    assert blocks / tensor == pytest.approx(640 / 512, rel=0.02)
    backward = gemm_s(cublas, *shape, "fp8_tensorwise", gradient="input_gradient")
    assert backward == pytest.approx(blocks, rel=0.001)


def test_weights_of_four_bits_stream_in_a_quarter_of_the_time_and_do_not_multiply_faster() -> None:
    """Of 16 rows by 16 / 4.125 at best; MARLIN reports 3.87 of it."""
    few = {name: gemm_s(H100, 16, 16384, 16384, name) for name in ("bf16", "int4_bf16")}
    assert few["bf16"] / few["int4_bf16"] == pytest.approx(3.87, rel=0.1)
    wide = processor(load_hardware("h100"), generation="cublas_13")  # tiles that loading does not bind
    many = {name: gemm_s(wide, 16384, 16384, 16384, name) for name in ("bf16", "int4_bf16")}
    assert many["int4_bf16"] >= many["bf16"]


def test_four_bit_products_run_at_twice_the_rate_of_eight_bit_ones() -> None:
    eight, four = (gemm_s(B200, 1 << 14, 1 << 14, 1 << 15, name) for name in ("mxfp8", "nvfp4"))
    assert eight / four == pytest.approx(2.0, rel=0.1)


def test_a_scale_of_the_whole_tensor_costs_a_pass_before_the_cast() -> None:
    """BF16 read twice and two copies of a byte written; microscaled blocks know their scale in one pass."""
    tensor, micro = (RankBatch(1, 1000, precision=name) for name in ("fp8_tensorwise", "mxfp8"))
    assert [op.moved_bytes for op in quantise(tensor, 4096)] == [1000 * 4096 * 2, 1000 * 4096 * 4]
    assert [op.moved_bytes for op in quantise(micro, 4096)] == [1000 * 4096 * (2 + 2 * 1.03125)]
    assert quantise(RankBatch(1, 1000, precision="fp8"), 4096) == []  # its casts are launches of their own


# --- checkpoints -----------------------------------------------------------------------------------------------------


def alike(name: str) -> dict[str, str]:
    return dict.fromkeys(("attention", "shared", "dense", "experts"), name)


@pytest.mark.parametrize(
    ("block", "formats"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, alike("fp8")),
        ({"quant_method": "fp8", "modules_to_not_convert": ["lm_head", "model.layers.3.mlp.gate"]}, alike("fp8_tensorwise")),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, alike("int4")),
        (
            {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]},
            alike("mxfp4") | {"attention": "bf16"},
        ),
        (
            {"quant_algo": "NVFP4", "exclude_modules": ["lm_head", "model.layers.46.self_attn*", "*shared_experts*"]},
            alike("nvfp4") | {"attention": "bf16", "shared": "bf16"},
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": 32}}},
                "ignore": ["re:.*self_attn.*", "re:.*shared_experts.*", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*"],
            },
            alike("bf16") | {"experts": "int4_g32"},
        ),
    ],
)  # fmt: skip
def test_a_checkpoints_block_says_the_format_of_each_part(
    block: dict[str, Any], formats: dict[str, str]
) -> None:
    assert part_formats(block, 47, has_experts=True) == formats


def test_an_unknown_quantisation_is_refused_at_its_place(tmp_path: Path) -> None:
    config = {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 100,
        "quantization_config": {"quant_method": "quip"},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"quantization_config: got ''quip''|got 'quip'"):
        load_model(tmp_path / "config.json")


def test_formats_stand_in_a_file_of_their_own_beside_the_configuration(tmp_path: Path) -> None:
    config = {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 100,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "FP8"}}))
    weights = load_model(tmp_path / "config.json").weights
    assert weights is not None
    assert weights.experts == "fp8_tensorwise"
