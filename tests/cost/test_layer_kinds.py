"""Every kind of layer of every shipped model: FLOPs, weights and cache follow from one record, whoever asks."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import sim
from sim.cluster.hardware import load_hardware
from sim.cost import ends, prefill, serving_kernels, work
from sim.cost.attention_launches import _recurrence
from sim.cost.compute import processor
from sim.cost.deployment import footprint
from sim.cost.launches import RankBatch
from sim.cost.layers import layer_phases
from sim.errors import InputError
from sim.workload.attention import GQA, MLA, KimiDelta, Lightning, Mamba2, Recurrent
from sim.workload.formats import Precision, ProductName
from sim.workload.layout import Layout
from sim.workload.model import (
    Model,
    attention_core_flops_per_token,
    load_model,
    parameters,
    shipped_models,
    training_flops_per_token,
)
from sim.workload.stages import stages

TOKENS = 4096
H200 = processor(load_hardware("h200"))


def held(model: Model, precision: ProductName = "bf16", **changes: Any) -> Any:
    tp = changes.pop("tp", 1)
    settings = {
        "experts_per_rank": model.num_experts, "num_physical_experts": model.num_experts, "precision": Precision.alike(precision),
        "layout": Layout(pp=1, ep=1, tp=tp, dp=1), "shared_tp": tp, "stage": stages(model, 1)[0],
        "context_tokens": 8192, "buffered_tokens_per_request": 0, "buffers_bytes": 0.0, "record_bytes": 0.0,
        "with_mtp": False, "capacity_bytes": 1e15, "reserve_fraction": 0.0, "graphs_bytes": 0.0, "gpu": "a GPU",
    }  # fmt: skip
    return footprint(model, **(settings | changes))


@pytest.mark.parametrize("name", shipped_models())
def test_flops_of_launches_are_those_of_the_model(name: str) -> None:
    """Forward 2 FLOP for each active matrix weight and the core, backward twice that; the head apart."""
    model = load_model(name)
    rows = (TOKENS,) * model.top_k  # as many experts as a token takes, with all tokens each
    batch = RankBatch(1, TOKENS, rows, float(TOKENS), "bf16")
    credited = 0.0
    for layer, n in model.layers().items():
        index = next(i for i in range(model.num_layers) if model.layer(i) == layer)
        phases = layer_phases(model, batch, dense=layer.mlp != "experts", layer_idx=index)
        credited += n * sum(op.count * op.flops for launches in phases.values() for op in launches)
    head = 6.0 * model.vocab * model.hidden
    expected = training_flops_per_token(model, TOKENS, causal=True)
    assert credited / TOKENS + head == pytest.approx(expected, rel=2e-3)


def launched(model: Model, sequences: int, recipe: str, phase: str) -> dict[str, np.ndarray[Any, Any]]:
    """FLOPs and bytes of each launch of a layer of each kind and of both ends, by name."""
    tokens = sequences * TOKENS
    batch = RankBatch(sequences, TOKENS, (tokens,) * model.top_k, float(tokens), recipe)  # type: ignore[arg-type]
    found: dict[str, np.ndarray[Any, Any]] = {}
    for layer in model.layers():
        index = next(i for i in range(model.num_layers) if model.layer(i) == layer)
        phases = layer_phases(model, batch, dense=layer.mlp != "experts", layer_idx=index)
        parts = [ops for name, ops in phases.items() if name.endswith(f"({phase})")]
        for op in [op for ops in parts for op in ops]:
            found[op.name] = found.get(op.name, 0.0) + op.count * np.array([op.flops, op.moved_bytes])
    for end in (ends.embedding, ends.head, ends.mtp_projection):
        for op in end(model, batch, phase):  # type: ignore[arg-type]
            found[f"end {op.name}"] = found.get(f"end {op.name}", 0.0) + op.count * np.array(
                [op.flops, op.moved_bytes]
            )
    return found


@pytest.mark.parametrize("recipe", ["bf16", "fp8"])
@pytest.mark.parametrize("name", shipped_models())
def test_a_sequence_more_adds_to_every_launch_what_the_one_before_it_did(name: str, recipe: str) -> None:
    """Sequences are alike; what is there without any is weights."""
    model = load_model(name)
    for phase in ("F", "B", "W"):
        one, two, four = (launched(model, sequences, recipe, phase) for sequences in (1, 2, 4))
        assert one.keys() == two.keys() == four.keys()
        for op in one:
            np.testing.assert_allclose(four[op] - two[op], 2 * (two[op] - one[op]), rtol=1e-9, err_msg=op)
            assert (two[op] >= one[op]).all(), op
            flops, moved = two[op] - one[op]
            assert flops > 0 or moved > 0 or not one[op][0], op


def test_what_lies_at_the_ends_moves_its_rows_once_and_its_gradients_are_summed_in_fp32() -> None:
    model, batch = load_model("deepseek-v3"), RankBatch(2, 128)
    t, d, v = 256, 7168, 129280
    for phase, element in (("F", 2 + 2), ("B", 2 + 4 + 4)):  # read and written; a sum is read too
        assert [op.moved_bytes for op in ends.embedding(model, batch, phase)] == [t * d * element]  # type: ignore[arg-type]
    assert ends.embedding(model, batch, "W") == []
    entropy = {
        phase: [op.moved_bytes for op in ends.head(model, batch, phase) if "entropy" in op.name]
        for phase in "FB"
    }  # type: ignore[arg-type]
    assert entropy == {"F": [t * v * (2 + 4 + 4)], "B": [t * v * (4 + 2)]}
    (join,) = [
        op.moved_bytes
        for op in ends.mtp_projection(model, batch, "F")
        if op.name == "join" and op.kind == "memory"
    ]
    assert join == t * (2 + 2) * d * 2  # two halves read, and written as one row


@pytest.mark.parametrize(
    ("kind", "length"),
    [(Lightning(num_heads=64, head_dim=128), 2 * 128 + 64 * 2),
     (Mamba2(num_heads=128, head_dim=64, state_dim=128), 2 * 128 + 64 * 3),
     (KimiDelta(num_heads=32, head_dim=128), 3 * 128 + 2 * 64 * 2)],
)  # fmt: skip
def test_a_chunk_of_linear_attention_meets_its_own_keys_and_values_and_the_state(
    kind: Recurrent, length: int
) -> None:
    """For each value of a head: a product with each key dimension of the state, and inside the chunk of 64 scores and sums; the
    delta rule takes both once more."""
    core = _recurrence(kind, RankBatch(1, 4096), backward=False)
    assert (core.n, core.k, core.count) == (kind.state.value_dim, length, 1)
    assert core.rows == (4096,) * kind.state.num_heads


def weights_read(part: work.Part, batch_tokens: int) -> float:
    """Bytes of matrices that a part reads, less what the products of so few tokens read and write themselves."""
    matrices = [k for k in part.values() if k.flops and k.name not in ("attention core", "index scores")]
    return sum(k.moved_bytes for k in matrices)


@pytest.mark.parametrize("precision", ["bf16", "fp8", "int4_bf16"])
@pytest.mark.parametrize("name", shipped_models())
def test_the_weights_that_decode_reads_are_those_that_memory_holds(name: str, precision: Any) -> None:
    model = load_model(name)
    batch = serving_kernels.DecodeBatch(1, 1, 4096, precision=precision)
    read = 0.0
    for layer, n in model.layers().items():
        i = next(i for i in range(model.num_layers) if model.layer(i) == layer)
        experts = layer.mlp == "experts"
        parts = [
            serving_kernels.decode_attention_0(H200, model, batch, i),
            serving_kernels.decode_attention_1(H200, model, batch, i, gated=experts),
        ]
        if experts:
            rows = [1.0] * model.num_experts
            parts.append(serving_kernels.decode_shared(H200, model, batch))
            parts.append(serving_kernels.decode_experts(H200, model, precision, rows, 1.0))
        elif layer.mlp == "dense":
            parts.append(serving_kernels.decode_dense(H200, model, batch))
        read += n * sum(weights_read(part, 1) for part in parts)
    memory = held(model, precision)
    stored = memory.weights_bytes - 2.0 * (parameters(model).embedding + parameters(model).head)
    assert read == pytest.approx(stored, rel=0.02)


def test_the_module_that_speculates_weighs_a_layer_and_the_matrix_that_joins_two_rows() -> None:
    """The technical report has 11.5 billion of its own: experts, attention (187.1 M), gate, and 14,336 by 7,168."""
    by_hand = 257 * 3 * 7168 * 2048 + 187.1e6 + 256 * 7168 + 2 * 7168 * 7168
    model = load_model("deepseek-v3")
    whole, without = (held(model, with_mtp=speculates).weights_bytes for speculates in (True, False))
    assert (whole - without) / 2 == pytest.approx(by_hand, rel=1e-3)
    assert by_hand == pytest.approx(11.5e9, rel=0.01)


def test_a_gpu_without_fp8_holds_and_reads_two_bytes_a_weight(tmp_path: Any) -> None:
    settings = {
        "cluster.hardware": "a800",
        "workload.requests_per_gpu": 2,
        "workload.precision": None,
        "expect": {},
    }
    found = sim.run("v3-decode-ep128", settings | {"cluster.override": {"gpu.hbm.capacity": "640 GB"}})
    assert found["scenario"]["workload"]["precision"] == "bf16"
    assert {k["dtype"] for k in found["kernels"]} <= {"bf16", ""}
    v3 = load_model("deepseek-v3")
    assert found["memory"][0]["routed experts"] == pytest.approx(
        59 * 2 * 2 * parameters(v3).expert
    )  # MTP's too


def test_fp8_asked_of_a_gpu_without_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"precision: got 'fp8'; wanted bf16.* has no FP8 tensor rate"):
        sim.run("v3-decode-ep128", {"cluster.hardware": "a100", "workload.precision": "fp8", "expect": {}})
    with pytest.raises(InputError, match="has no FP8 tensor rate"):
        sim.run("v3-training-h800", {"cluster.hardware": "a800", "workload.precision": "fp8", "expect": {}})


# --- windows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "by_hand"),
    [(131072, 18 * (131072 + 128) * 2048), (8192, 18 * (8192 + 128) * 2048), (100, 36 * 100 * 2048)],
)
def test_a_layer_with_a_window_keeps_no_more_than_the_window(context: int, by_hand: int) -> None:
    oss = load_model("gpt-oss-120b")
    assert held(oss, context_tokens=context).cache_bytes_per_request == by_hand


def test_a_layer_with_chunks_keeps_the_tokens_of_one_chunk() -> None:
    scout = load_model("llama4-scout")
    kept = held(scout, context_tokens=131072).cache_bytes_per_request
    assert kept == (12 * 131072 + 36 * 8192) * 2 * 8 * 128 * 2


def test_tensor_parallelism_repeats_kv_heads_that_it_cannot_cut() -> None:
    qwen = load_model("qwen3-30b-a3b")  # 4 KV heads
    one, four, eight = (held(qwen, tp=tp).cache_bytes_per_request for tp in (1, 4, 8))
    assert (four, eight) == (one, 2 * one)
    v3 = load_model("deepseek-v3")
    assert held(v3, tp=8).cache_bytes_per_request == 8 * held(v3).cache_bytes_per_request


def test_a_chunk_costs_what_prompts_of_a_chunk_cost() -> None:
    chunked = load_model("llama4-scout")
    assert isinstance(chunked.attention, GQA)
    short = prefill.prefill_attention(H200, chunked, prefill.PrefillBatch(4, 8192, precision="bf16"), 0)
    long = prefill.prefill_attention(H200, chunked, prefill.PrefillBatch(1, 32768, precision="bf16"), 0)
    assert long["attention core"] == short["attention core"]


# --- sparse attention, linear attention ---------------------------------------------------------------------


def decode_part(name: str, context: float, layer: int = 10) -> dict[str, work.Work]:
    model = load_model(name)
    batch = serving_kernels.DecodeBatch(8, 1, context, precision="fp8")
    first = serving_kernels.decode_attention_0(H200, model, batch, layer)
    return {**first, **serving_kernels.decode_attention_1(H200, model, batch, layer)}


def test_beyond_its_top_k_sparse_attention_reads_index_keys_alone() -> None:
    near, far = (decode_part("deepseek-v3.2", context) for context in (8192.0, 131072.0))
    assert near["attention core"] == far["attention core"]
    assert near["attention core"].moved_bytes == pytest.approx(
        8 * (2048 * 576 * 2 + 128 * (2 * 512 + 64) * 2)
    )
    assert far["index scores"].moved_bytes == 8 * 131072 * 132  # FP8 with one scale of four bytes
    assert decode_part("deepseek-v3", 2048.0)["attention core"] == near["attention core"]


def test_the_indexer_of_v3_2_has_the_published_size() -> None:
    """Queries 1536 x 64 x 128, a key 7168 x 128 with its norm, weights 7168 x 64: 13.96 M a layer."""
    with_index, without = load_model("deepseek-v3.2"), load_model("deepseek-v3")
    more = parameters(with_index).attention - parameters(without).attention
    assert more == 1536 * 64 * 128 + 7168 * 128 + 2 * 128 + 7168 * 64


def test_sparse_attention_is_dense_up_to_its_top_k() -> None:
    sparse = load_model("deepseek-v3.2")
    assert isinstance(sparse.attention, MLA)
    index = 61 * 2 * 64 * 128 * 2048 / 2
    core = 61 * 2 * 128 * (576 + 512) * 2048 / 2  # on latents
    assert attention_core_flops_per_token(sparse, 2048, True) == index + core
    assert attention_core_flops_per_token(sparse, 2**20, True) < 61 * (64 * 128 * 2**20 + 2**8 * 1088 * 2049)


def test_a_linear_layer_costs_the_same_at_any_context() -> None:
    near, far = (decode_part("qwen3.5-35b-a3b", context, 0) for context in (1024.0, 1e6))
    assert near == far
    state = 32 * 128 * 128 * 4 + (2 * 16 * 128 + 32 * 128) * 3 * 2
    assert near["state update"].moved_bytes == 2 * 8 * state
    model = load_model("qwen3.5-35b-a3b")
    grown = held(model, context_tokens=2000).cache_bytes_per_request
    grown -= held(model, context_tokens=1000).cache_bytes_per_request
    assert grown == 10 * 1000 * 2 * 2 * 256 * 2  # ten of forty layers have a cache
    assert held(model, context_tokens=0).cache_bytes_per_request == 30 * state


@pytest.mark.parametrize("name", ["qwen3.5-35b-a3b", "nemotron-3-nano-30b-a3b"])
def test_states_are_counted_for_each_linear_layer(name: str) -> None:
    model = load_model(name)
    each = [(a.attention, n) for a, n in model.layers().items() if isinstance(a.attention, Recurrent)]
    assert sum(n for _, n in each) == {"qwen3.5-35b-a3b": 30, "nemotron-3-nano-30b-a3b": 23}[name]


def test_latent_experts_are_sent_and_computed_at_their_width() -> None:
    model = load_model("nemotron-3-super-120b-a12b")
    plain = dataclasses.replace(model, expert_latent=None)
    assert parameters(plain).expert == 4 * parameters(model).expert  # 4096 / 1024
    around = serving_kernels.decode_shared(H200, model, serving_kernels.DecodeBatch(8, 1, 4096))
    assert around["to latent"].flops == around["from latent"].flops == 2 * 8 * 4096 * 1024
    found = sim.run("deepep-ep32-h800", {"model": model.name, "expect": {}})["metrics"]["dispatch"]
    records = found["wire_nic_bytes"] / (4096 * found["nodes_per_token"] * 3 / 4)
    assert records == pytest.approx(
        1024 * (1 + 4 / 128) + 8 + 8 * 22, rel=0.01
    )  # FP8, scales, and the kernel's own


def test_weights_of_each_precision_are_as_large_as_said() -> None:
    v3 = load_model("deepseek-v3")
    ratio = held(v3, "bf16").routed_experts_bytes / held(v3, "fp8").routed_experts_bytes
    assert ratio == pytest.approx(2.0 / (1.0 + 4.0 / 128**2))
