"""Passes over memory of one layer, each counted by hand: the rows of numbers that a token has it read and write.

Shapes of DeepSeek-V3 (arXiv 2412.19437, section 4.2) and Qwen3-235B-A22B (arXiv 2505.09388, table 2). With scales of blocks, a
number of FP8 takes 1 + 4/128 bytes; of MXFP8, 1 + 1/32 (OCP Microscaling Formats 1.0); with a scale a tensor, one.
"""

from __future__ import annotations

from typing import Any

import pytest

from sim.cost.launches import RankBatch, quantise
from sim.cost.layers import layer_phases
from sim.workload.model import load_model

TOKENS = 4096
D, Q, KV, ROPE, HEADS, NOPE, V = 7168, 1536, 512, 64, 128, 128, 128
F, DENSE, K = 2048, 18432, 8
BF16, FP8, MX = 2.0, 1 + 4 / 128, 1 + 1 / 32
QD, QHEADS, QKV, QHEAD, QF = 4096, 64, 4, 128, 1536


def rows(*widths: float) -> float:
    """Bytes of BF16 numbers that are read or written."""
    return BF16 * sum(widths)


def both(*widths: float) -> float:
    """Bytes of BF16 numbers that are read and written again, each."""
    return 2 * rows(*widths)


LATENTS = {
    "copy latents": 2 * both(Q),
    "rotary key": both(ROPE),
    "assemble keys": both(HEADS * NOPE) + rows(HEADS * ROPE),
    "copy values": both(HEADS * V),
    "rotary queries": both(HEADS * ROPE),
}
V3_FORWARD = LATENTS | {"norm": both(D, Q, KV, D), "scale": both(D)}
V3_BACKWARD = {name: moved for name, moved in LATENTS.items() if not name.startswith("rotary")} | {
    "rotary key": 2 * both(ROPE),  # of the key that is made again, and of its gradient
    "rotary queries": 2 * both(HEADS * ROPE),
    "norm": both(Q, KV, D),
    "norm backward": rows(*3 * (D, Q, KV, D)),  # input, gradient of the result, gradient of the input
    "join latents": 5 * both(KV + ROPE),
    "add": rows(*3 * (D,)),
    "sum rotary keys": rows(HEADS * ROPE),
    "scale": both(D),
}
EXPERTS = {"expand": rows(D, K * D), "reduce": rows(K * D, D)}
CASES: list[tuple[str, str, int, str, dict[str, float]]] = [
    ("deepseek-v3", "bf16", 0, "attn(F)", V3_FORWARD),
    ("deepseek-v3", "bf16", 0, "attn(B)", V3_BACKWARD),
    ("deepseek-v3", "bf16", 0, "mlp(F)", {"swiglu": rows(2 * DENSE, DENSE)}),
    ("deepseek-v3", "bf16", 0, "mlp(B)",
     {"swiglu again and backward": rows(2 * DENSE, DENSE, 2 * DENSE, DENSE), "norm": both(D)}),
    # A shared expert has every token, the routed ones a token's K rows.
    ("deepseek-v3", "bf16", 5, "mlp(F)", EXPERTS | {"swiglu": (1 + K) * rows(2 * F, F)}),
    ("deepseek-v3", "bf16", 5, "mlp(B)",
     EXPERTS | {"swiglu again and backward": (1 + K) * rows(2 * F, F, 2 * F, F), "norm": both(D)}),
    ("deepseek-v3", "fp8", 5, "mlp(F)",
     {"expand": FP8 * (D + K * D), "reduce": rows(K * D, D), "swiglu": (1 + K) * (rows(2 * F) + FP8 * F)}),
    ("deepseek-v3", "fp8", 5, "mlp(B)",  # the shared expert's result is kept, and made by columns from kept FP8
     {"swiglu backward": rows(2 * F, F, 2 * F), "swiglu again and backward": K * rows(2 * F, F, 2 * F, F)}),
    ("deepseek-v3", "mxfp8", 0, "mlp(F)",
     {"swiglu": rows(2 * DENSE, DENSE), "cast and transpose": (BF16 + 2 * MX) * (D + DENSE)}),
    ("deepseek-v3", "mxfp8", 0, "mlp(B)",
     {"swiglu again and backward": rows(2 * DENSE, DENSE, 2 * DENSE, DENSE),
      "cast and transpose": (BF16 + 2 * MX) * (D + 2 * DENSE)}),
    ("qwen3-235b-a22b", "fp8_tensorwise", 5, "attn(F)",
     {"rotary": both((QHEADS + QKV) * QHEAD), "greatest magnitude": rows(QD, QHEADS * QHEAD),
      "cast and transpose": (BF16 + 2 * 1) * (QD + QHEADS * QHEAD)}),
    ("qwen3-235b-a22b", "fp8_tensorwise", 5, "mlp(F)",
     {"swiglu": K * rows(2 * QF, QF), "greatest magnitude": K * rows(QD, QF),
      "cast and transpose": K * (BF16 + 2 * 1) * (QD + QF)}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "precision", "layer", "phase", "by_hand"), CASES)
def test_passes_over_memory_move_the_rows_that_they_read_and_write(
    name: str, precision: Any, layer: int, phase: str, by_hand: dict[str, float]
) -> None:
    model = load_model(name)
    batch = RankBatch(1, TOKENS, (TOKENS,) * model.top_k, float(TOKENS), precision)
    launches = layer_phases(model, batch, dense=model.layer(layer).mlp != "experts", layer_idx=layer)[phase]  # type: ignore[index]
    moved: dict[str, float] = {}
    for op in launches:
        if op.kind == "memory":
            moved[op.name] = moved.get(op.name, 0.0) + op.count * op.moved_bytes / TOKENS
    assert {each: moved[each] for each in by_hand} == pytest.approx(by_hand)


def test_what_a_fused_launch_writes_is_cast_where_the_product_after_it_can_read_it() -> None:
    """In training only blocks are; without a backward every format is."""
    for precision, training, inference in (("bf16", 2, 2), ("fp8", FP8, FP8), ("mxfp8", 2, MX)):
        widths = [RankBatch(1, 8, precision=precision, forward_only=one).record for one in (False, True)]  # type: ignore[arg-type]
        assert widths == pytest.approx([training, inference])


@pytest.mark.parametrize(("precision", "element"), [("mxfp8", MX), ("fp8_tensorwise", 1.0)])
def test_without_a_backward_one_pass_casts_rows_that_no_launch_before_it_wrote(
    precision: Any, element: float
) -> None:
    batch = RankBatch(2, TOKENS, precision=precision, forward_only=True)
    assert [op.moved_bytes for op in quantise(batch, D)] == [2 * TOKENS * D * (BF16 + element)]
    assert [op.moved_bytes for op in quantise(batch, D, 100.0)] == [100 * D * (BF16 + element)]
    assert quantise(batch, D, fused=True) == []
    assert quantise(RankBatch(2, TOKENS, precision="bf16", forward_only=True), D) == []
