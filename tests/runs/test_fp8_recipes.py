"""FP8 over BF16 in training: predictions beside what was measured with one scale a tensor."""

from __future__ import annotations

from typing import Any

import pytest

import sim

STEP: dict[str, Any] = {
    "kind": "training", "schedule": "interleaved", "overlap": False, "gemm_generation": "cublas_13",
    "gate": {"kind": "uniform"}, "dispatch_dtype": "bf16", "skew": {"routed_load": 0, "kernel_jitter": 0, "gpu_spread": 0},
}  # fmt: skip
GROK: dict[str, Any] = {
    "name": "grok", "cluster": {"hardware": "h100", "nodes": 64}, "model": "grok-1",
    "layout": {"tp": 4, "pp": 8, "cp": 2, "ep": 8, "etp": 1},
    "workload": STEP | {"sequence_tokens": 8192, "global_batch": 1024, "chunks": 8, "kernel": {"kind": "nccl"}},
}  # fmt: skip
QWEN: dict[str, Any] = {
    "name": "qwen", "cluster": {"hardware": "h100", "nodes": 32}, "model": "qwen3-235b-a22b",
    "layout": {"tp": 2, "pp": 8, "ep": 32},
    "workload": STEP | {"global_batch": 2048, "chunks": 4, "kernel": {"kind": "two_hop", "comm_sms": 20}},
}  # fmt: skip


def gain(scenario: dict[str, Any], gemm: str) -> float:
    """Time of a step in BF16 over that with another format."""
    times = [
        sim.run(scenario | {"workload": scenario["workload"] | {"precision": {"gemm": name}}})["metrics"][
            "step_time_s"
        ]
        for name in ("bf16", gemm)
    ]
    return times[0] / times[1]


@pytest.mark.slow
def test_grok_gains_what_was_measured_with_a_scale_a_tensor() -> None:
    assert gain(GROK, "fp8_tensorwise") == pytest.approx(1.24, rel=0.08)
    assert gain(GROK, "fp8_blockwise") == pytest.approx(
        1.14, rel=0.02
    )  # DeepSeek's recipe: casts and promotions


@pytest.mark.slow
def test_qwen_gains_less_than_was_measured() -> None:
    """Measured 1.23: missed by a tenth. Two fifths of this step wait for all-to-alls, and casts of small experts eat a third of the
    rest's gain; what the stack fuses or recomputes otherwise in FP8 is not published. Tokens sent in FP8 too, not said either way,
    would take two thirds of what is missing."""
    assert gain(QWEN, "fp8_tensorwise") == pytest.approx(1.10, rel=0.03)
    sent = {"workload": QWEN["workload"] | {"dispatch_dtype": "fp8", "precision": {"gemm": "fp8_tensorwise"}}}
    base = {"workload": QWEN["workload"] | {"precision": {"gemm": "bf16"}}}
    times = [sim.run(QWEN | work)["metrics"]["step_time_s"] for work in (base, sent)]
    assert times[0] / times[1] == pytest.approx(1.19, rel=0.02)
