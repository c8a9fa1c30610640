"""The key `precision`: what each form means, what a GPU lacks, and what contradicts itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sim
from sim.errors import InputError
from sim.show.views.facts import formats
from sim.workload.model import load_model, parameters

DECODE = {"workload.requests_per_gpu": 2, "expect": {}, "workload.overlap": False, "workload.drawn_layers": 1}
STEP = {
    "expect": {}, "variants": {}, "workload.skew.routed_load": 0, "workload.skew.kernel_jitter": 0,
    "workload.skew.gpu_spread": 0, "workload.microbatches": 16,
}  # fmt: skip


def decode(**settings: Any) -> dict[str, Any]:
    given = {f"workload.{key}": value for key, value in settings.items()}
    return sim.run("v3-decode-ep128", DECODE | given)


def problem(base: str, settings: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        sim.run(base, settings)
    (one,) = caught.value.problems
    return str(one)


def test_fp8_is_short_for_blocks_of_128_in_every_gemm() -> None:
    short, long = decode(precision="fp8"), decode(precision={"gemm": "fp8_blockwise"})
    assert short["metrics"] == long["metrics"]
    assert long["scenario"]["workload"]["precision"]["gemm"] == "fp8_blockwise"
    assert decode(precision={"gemm": "bf16"})["metrics"] == decode(precision="bf16")["metrics"]


def test_weights_alone_in_eight_bits_are_held_in_a_byte_and_multiplied_in_bf16() -> None:
    """What GPUs without FP8 can do: half of the weights' bytes, none of its rate."""
    asked = DECODE | {"cluster.hardware": "a800", "cluster.override": {"gpu.hbm.capacity": "640 GB"}}
    whole, held = (
        sim.run("v3-decode-ep128", asked | {"workload.precision": {"gemm": "bf16", "weights": weights}})
        for weights in ("bf16", "fp8")
    )
    assert {row["dtype"] for row in held["kernels"]} == {"bf16", ""}
    experts = [found["memory"][0]["routed experts"] for found in (whole, held)]
    assert experts[0] / experts[1] == pytest.approx(2 / (1 + 4 / 128**2))
    assert held["metrics"]["tpot_s"] < whole["metrics"]["tpot_s"]


def test_a_cache_in_eight_bits_is_said_by_either_key_and_by_both_if_they_agree() -> None:
    by_short, by_long = decode(kv_dtype="fp8"), decode(precision={"gemm": "fp8_blockwise", "kv": "fp8"})
    assert by_short["metrics"] == by_long["metrics"]
    assert (
        by_short["scenario"]["workload"]["kv_dtype"] == by_long["scenario"]["workload"]["kv_dtype"] == "fp8"
    )
    differ = DECODE | {"workload.kv_dtype": "bf16", "workload.precision": {"gemm": "bf16", "kv": "fp8"}}
    assert "'bf16' next to precision.kv 'fp8'; wanted one of them" in problem("v3-decode-ep128", differ)


def test_attention_in_fp8_doubles_the_rate_of_its_products_and_reads_a_cache_in_fp8() -> None:
    # 128 heads on one latent: the core is bound by its products.
    plain, fast = decode(kv_dtype="fp8"), decode(precision={"gemm": "fp8_blockwise", "attention": "fp8"})
    (slow_core,), (fast_core,) = (
        [row for row in found["kernels"] if row["name"] == "attention core"] for found in (plain, fast)
    )
    assert (slow_core["dtype"], fast_core["dtype"]) == ("bf16", "fp8")
    assert slow_core["bytes"] == fast_core["bytes"]
    assert 1.0 < slow_core["time_s"] / fast_core["time_s"] < 2.0  # the clocks next to the products stay


@pytest.mark.parametrize(
    ("base", "settings", "said"),
    [
        ("v3-decode-ep128", {"cluster.hardware": "a800", "workload.precision": {"gemm": "w4a8"}}, "has no FP8 tensor rate"),
        ("v3-decode-ep128", {"workload.precision": {"gemm": "nvfp4"}}, "has no FP4 tensor rate"),
        ("v3-decode-ep128", {"workload.precision": {"gemm": "mxfp8"}}, "does not scale blocks of MXFP8"),
        ("v3-decode-ep128", {"workload.precision": {"gemm": "nvfp4"}}, "{gemm: bf16, weights: nvfp4}"),
        ("v3-decode-ep128", {"workload.precision": {"gemm": "int8", "weights": "nvfp4"}}, "gemm: bf16 to hold weights alone"),
        ("v3-decode-ep128", {"workload.precision": {"gemm": "fp6"}}, "wanted one of: bf16, fp8, fp8_blockwise"),
        (
            "v3-decode-ep128",
            {"workload.precision": {"gemm": "bf16", "attention": "fp8", "kv": "bf16"}},
            "fp8: the core multiplies what the cache holds",
        ),
        ("v3-training-h800", {"workload.precision": {"gemm": "int8"}}, "one of: bf16, fp8, fp8_tensorwise, mxfp8"),
        ("v3-training-h800", {"workload.precision": {"gemm": "bf16", "weights": "int8"}}, "no such key in training"),
        ("v3-training-h800", {"workload.precision": {"gemm": "bf16", "kv": "fp8"}}, "there is no cache"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_clear_problem(base: str, settings: dict[str, Any], said: str) -> None:
    assert said in problem(base, {"expect": {}} | settings)


def test_a_resolved_scenario_with_formats_gives_the_same_again() -> None:
    precision = {"gemm": "fp8_tensorwise", "attention": "fp8", "kv": "fp8"}
    first = decode(precision=precision)
    again = first["scenario"]["workload"]
    assert again["precision"] == precision
    assert decode(precision=again["precision"], kv_dtype=again["kv_dtype"])["metrics"] == first["metrics"]


def test_a_checkpoint_in_four_bits_is_served_as_it_is(tmp_path: Path) -> None:
    """gpt-oss: experts in MXFP4, 4.25 bits, widened on a GPU without FP4; attention in BF16."""
    config = {
        "hidden_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 64,
        "intermediate_size": 1024, "vocab_size": 1000, "num_local_experts": 32, "num_experts_per_tok": 4,
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    settings = DECODE | {"model": str(tmp_path / "config.json"), "layout": {"ep": 8}, "cluster.nodes": 1}
    settings |= {"workload.placement": {"redundant_experts": 0}, "workload.tokens_per_step": 1}
    found = sim.run("v3-decode-ep128", settings)
    count = parameters(load_model(tmp_path / "config.json"))
    assert found["memory"][0]["routed experts"] == pytest.approx(4 * 32 / 8 * count.expert * 4.25 / 8)
    assert found["memory"][0]["attention"] == pytest.approx(4 * count.attention * 2)
    said = found["scenario"]["workload"]["precision"]
    assert said["gemm"] == "bf16"
    assert formats(said) == "bf16; weights held in: shared mxfp4, dense mxfp4, experts mxfp4 (weight-only)"
    assert (said["weights"]["experts"], said["weights"]["attention"]) == ("mxfp4", "bf16")
    assert sim.run("v3-decode-ep128", settings | {"workload.precision": said})["metrics"] == found["metrics"]
    asked = sim.run("v3-decode-ep128", settings | {"workload.precision": "bf16"})  # what is asked for counts
    assert asked["memory"][0]["routed experts"] == pytest.approx(4 * 32 / 8 * count.expert * 2)


def test_tensorwise_training_is_quicker_than_blocks_and_keeps_two_copies_of_its_weights() -> None:
    """On a machine that does not wait for its links: DeepSeek's casts and promotions are gone, a pass a tensor is there."""
    asked = STEP | {"cluster.hardware": "h100", "cluster.nodes": 8, "layout": {"pp": 1, "ep": 8}}
    asked |= {"cluster.override": {"gpu.hbm.capacity": "2 TB"}}
    times, copies = {}, {}
    for gemm in ("bf16", "fp8_blockwise", "fp8_tensorwise"):
        found = sim.run("mixtral-training", asked | {"workload.precision": {"gemm": gemm}})
        times[gemm] = found["metrics"]["step_time_s"]
        copies[gemm] = found["memory"][0]["fp8 copies"]
    assert times["bf16"] > times["fp8_blockwise"] > times["fp8_tensorwise"]
    assert copies["bf16"] == 0.0
    assert copies["fp8_tensorwise"] / copies["fp8_blockwise"] == pytest.approx(2 / (1 + 4 / 128**2))


@pytest.mark.parametrize("name", ["mxfp8", "nvfp4", "int8"])
def test_dispatch_and_combine_take_other_formats(name: str) -> None:
    settings = {"expect": {}, "variants": {}, "workload.dispatch_dtype": name, "workload.combine_dtype": name}
    found = sim.run("deepep-ep16-h800", settings)["metrics"]
    payload = {"mxfp8": 7168 + 224, "nvfp4": 3584 + 448, "int8": 7168 + 4}[name]
    sent = found["dispatch"]["wire_nic_bytes"] / (4096 * found["dispatch"]["nodes_per_token"] / 2)
    assert sent == pytest.approx(
        payload + 8 + 8 * 8, rel=0.01
    )  # with its source, and the experts' numbers and weights
    assert found["combine"]["wire_nic_bytes"] < found["dispatch"]["wire_nic_bytes"]


def test_a_word_stands_for_any_format_of_gemms_and_training_says_which_it_knows() -> None:
    by_word, by_key = decode(precision="int8"), decode(precision={"gemm": "int8"})
    assert by_word["metrics"] == by_key["metrics"]
    told = problem("v3-training-h800", STEP | {"workload.precision": "int8", "workload.microbatches": 32})
    assert "workload.precision: got 'int8'; wanted one of: bf16, fp8, fp8_tensorwise, mxfp8" in told
