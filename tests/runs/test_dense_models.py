"""Dense models: however a file writes one, it is the same step; it needs no all-to-all kernel, and fits where it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sim.documents import Document
from sim.errors import InputError
from sim.runs.run import run_document

WIDTH, LAYERS, SEQUENCE = 4096, 8, 2048
LONE = {
    "name": "lone", "num_layers": LAYERS, "hidden": WIDTH, "num_experts": 1, "top_k": 1, "expert_hidden": 4 * WIDTH,
    "attention": {"kind": "gqa", "num_heads": 32, "num_kv_heads": 32, "head_dim": 128}, "gated_mlp": False, "vocab": 32000,
}  # fmt: skip
WRITTEN = LONE | {"num_dense_layers": LAYERS, "dense_hidden": 4 * WIDTH}
ALIKE = {"kernel_jitter": 0, "gpu_spread": 0}


def run(tmp_path: Path, model: dict[str, Any], layout: dict[str, Any], **work: Any) -> dict[str, Any]:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(model))
    tree = {
        "name": "mine", "cluster": {"hardware": "a100", "nodes": 1}, "model": str(tmp_path / "mine.yaml"),
        "layout": layout, "workload": {"precision": "bf16", "skew": ALIKE, **work},
    }  # fmt: skip
    return run_document(Document(tree, "test"))


def trained(tmp_path: Path, model: dict[str, Any], **layout: Any) -> dict[str, Any]:
    return run(
        tmp_path,
        model,
        layout,
        kind="training",
        sequence_tokens=SEQUENCE,
        microbatches=2,
        schedule="1f1b",
        recompute="none",
    )


def test_a_single_expert_is_trained_as_the_dense_block_that_it_is(tmp_path: Path) -> None:
    lone, written = (trained(tmp_path, model, tp=8) for model in (LONE, WRITTEN))
    assert lone["metrics"] == written["metrics"]


def test_tensor_parallelism_keeps_an_eighth_of_a_dense_block_and_no_gathered_input(tmp_path: Path) -> None:
    """Korthikanti 2022, section 4.2: with sequence parallelism a rank keeps its part, and gathers again in the backward pass.

    By hand, without dropout: two inputs and two norms of 2 bytes each, q, k, v and the core's output 2 each with sums of FP32 a
    head, four widths before the activation and four after it; and the logits with their input.
    """
    kept = (2 * 2 + 2 * 2 + 4 * 2 + 2 * 4 * 2) * WIDTH + 4 * 32
    activations = SEQUENCE / 8 * (LAYERS * kept + 2 * 32000 + 2 * WIDTH)
    memory = trained(tmp_path, LONE, tp=8)["memory"][0]
    assert memory["activations"] == pytest.approx(activations, rel=1e-6)


def test_decode_of_a_dense_model_reads_its_weights_however_it_is_written(tmp_path: Path) -> None:
    """One request on one GPU: at least all weights but the embedding at the full rate of the memory."""
    asked = {"kind": "decode", "requests": 1, "context_tokens": 128, "overlap": False}
    lone, written = (run(tmp_path, model, {"tp": 8}, **asked)["metrics"] for model in (LONE, WRITTEN))
    weights = 2 * (LAYERS * 12 * WIDTH**2 + 32000 * WIDTH) / 8
    assert weights / 2.039e12 < lone["tpot_s"] < 5 * weights / 2.039e12
    assert written["tpot_s"] == pytest.approx(lone["tpot_s"], rel=0.05)


def test_only_a_model_with_experts_to_choose_among_needs_a_kernel(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        trained(tmp_path, LONE | {"num_experts": 8, "top_k": 2}, ep=8)
    assert "wanted the key 'kernel', of the all-to-alls of its experts" in str(caught.value)


def test_the_first_and_last_stage_may_have_the_embedding_and_the_head_alone(tmp_path: Path) -> None:
    """As Llama 3 405B has it, 126 layers on 128 stages (arXiv 2407.21783, section 3.3.2)."""
    asked = {
        "kind": "training",
        "sequence_tokens": SEQUENCE,
        "microbatches": 4,
        "schedule": "interleaved",
        "overlap": False,
    }
    layout = {"tp": 4, "pp": 2}
    alone = run(tmp_path, LONE, layout, chunks=5, stages=f"E|(t|)*{LAYERS}L", **asked)
    even = run(tmp_path, LONE, layout, chunks=4, **asked)
    assert alone["metrics"]["tokens_per_step"] == even["metrics"]["tokens_per_step"]
    bubble = (1 + 1 / (5 * 4)) / (1 + 1 / (4 * 4))  # (PP - 1) / (chunks x microbatches) of the work
    ratio = alone["metrics"]["step_time_s"] / even["metrics"]["step_time_s"]
    assert ratio == pytest.approx(bubble, rel=0.05)


def test_a_dense_block_beside_one_expert_is_as_wide(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a single expert is a dense block"):
        trained(tmp_path, WRITTEN | {"dense_hidden": WIDTH}, tp=8)
