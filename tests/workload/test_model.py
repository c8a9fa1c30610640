"""Model shapes against published parameter counts, KV bytes and training FLOPs."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sim import documents
from sim.errors import InputError
from sim.workload.attention import GatedDelta, KimiDelta, Lightning, Mamba2
from sim.workload.model import (
    GQA,
    attention_core_flops_per_token,
    kv_bytes_per_token,
    load_model,
    mean_context_tokens,
    parameters,
    shipped_models,
    training_flops_per_token,
)
from sim.workload.recurrent import Recurrent

# name: total [1e9], active [1e9], KV cache [bytes a token, bf16]
COUNTS = {
    "deepseek-v3": (671.0, 37.6, 70_272),
    "deepseek-v2": (235.7, 21.4, 69_120),
    "kimi-k2": (1026.0, 32.9, 70_272),
    "mixtral-8x7b": (46.7, 12.9, 131_072),
    "mixtral-8x22b": (140.6, 39.2, 229_376),
    "qwen3-235b-a22b": (235.1, 22.2, 192_512),
    "gpt-oss-120b": (116.8, 5.7, 73_728),
    "llama4-maverick": (400.7, 17.2, 196_608),
    "glm-4.5": (352.8, 33.6, 376_832),
}


STATES: list[tuple[Recurrent, int, list[int], int, int]] = [
    # query, key, value and gate; two steps a head; convolution; decays and time steps; norm; output (Qwen3-Next)
    (GatedDelta(num_key_heads=16, num_heads=32, key_head_dim=128, value_head_dim=128), 2048,
     [2048 * (2048 + 2048 + 4096 + 4096), 2048 * 64, 8192 * 4, 32 + 32, 128, 4096 * 2048], 32 * 128 * 128, 8192),
    # query, key, value; convolutions; decay by way of a latent; step; gate by way of another; decays, steps, norm; output (Kimi Linear)
    (KimiDelta(num_heads=32, head_dim=128), 2304,
     [3 * 2304 * 4096, 3 * 4096 * 4, 2304 * 128 + 128 * 4096, 2304 * 32, 2304 * 128 + 128 * 4096, 32 + 4096 + 128, 4096 * 2304],
     32 * 128 * 128, 3 * 4096),
    (KimiDelta(num_heads=32, head_dim=128, full_rank_gate=True), 2304,
     [3 * 2304 * 4096, 3 * 4096 * 4, 2304 * 128 + 128 * 4096, 2304 * 32, 2304 * 4096, 32 + 4096 + 128, 4096 * 2304],
     32 * 128 * 128, 3 * 4096),
    # query, key and value; gate; norm; output (MiniMax-01); no convolution
    (Lightning(num_heads=64, head_dim=128), 6144, [6144 * 3 * 8192, 6144 * 8192, 8192, 8192 * 6144], 64 * 128 * 128, 0),
    # input, gate, state's input and output, steps; convolution and its bias; step, decay, skip; norm; output (Bamba)
    (Mamba2(num_heads=128, head_dim=64, state_dim=128), 4096,
     [4096 * (8192 + 8192 + 2 * 128 + 128), (8192 + 256) * (4 + 1), 3 * 128, 8192, 8192 * 4096], 128 * 64 * 128, 8448),
]  # fmt: skip
"""Linear attention, hidden size, its weights matrix by matrix as checkpoints of these models list them, elements of its
state, and channels whose last three inputs a convolution keeps."""


@pytest.mark.parametrize(("kind", "hidden", "weights", "elements", "kept"), STATES)
def test_linear_attention_has_the_matrices_and_states_of_its_checkpoints(
    kind: Recurrent, hidden: int, weights: list[int], elements: int, kept: int
) -> None:
    assert kind.parameters(hidden) == sum(weights)
    assert kind.state_bytes == 4 * elements + 2 * 3 * kept
    flops = {"mamba2": 4, "lightning": 4}.get(kind.kind, 6)  # add and read; the delta rule recalls before
    assert kind.core_flops(7, True) == kind.core_flops(70_000, True) == flops * elements
    assert (kind.cache_bytes(2.0), kind.kept_tokens(4096)) == (0, 0)


def test_every_shipped_model_but_the_twins_of_v3_is_held_to_a_published_count() -> None:
    twins = {"v3-dense-active", "v3-dense-twin", "v3-coarse", "v3-gqa"}
    facts = documents.load("scenarios/published/models.yaml").tree["facts"]
    counted = {
        name for fact in facts if fact["quantity"].startswith("parameters.total") for name in fact["values"]
    }
    assert set(shipped_models()) == {*counted, *twins} >= {*COUNTS}
    assert len(counted) >= 25


def test_the_dense_twins_hold_what_they_say() -> None:
    sparse = parameters(load_model("deepseek-v3"))
    assert parameters(load_model("v3-dense-twin")).total == pytest.approx(sparse.total, rel=1e-3)
    assert parameters(load_model("v3-dense-active")).total == pytest.approx(sparse.active, rel=5e-3)


def test_the_coarse_twin_has_as_many_active_parameters_and_the_gqa_twin_differs_in_attention_alone() -> None:
    v3, coarse, gqa = (load_model(name) for name in ("deepseek-v3", "v3-coarse", "v3-gqa"))
    assert parameters(coarse).active == pytest.approx(parameters(v3).active, rel=5e-3)
    assert coarse.top_k * coarse.expert_hidden == (v3.top_k + v3.num_shared_experts) * v3.expert_hidden
    assert dataclasses.replace(gqa, name=v3.name, source=v3.source, attention=v3.attention) == v3
    assert (
        kv_bytes_per_token(gqa) == 61 * 2 * 8 * 128 * 2
    )  # layers, keys and values, KV heads, elements, bytes


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_kv_cache_match_the_published_counts(name: str) -> None:
    total, active, kv_bytes = COUNTS[name]
    model = load_model(name)
    assert model.name == name
    assert parameters(model).total == pytest.approx(total * 1e9, rel=0.005)
    assert parameters(model).active == pytest.approx(active * 1e9, rel=0.005)
    assert kv_bytes_per_token(model) == kv_bytes


def test_v3_layer_parts() -> None:
    """187.1 M attention and 44.04 M per expert, from the shapes in arXiv 2412.19437."""
    count = parameters(load_model("deepseek-v3"))
    assert count.attention == pytest.approx(187.1e6, rel=0.001)
    assert count.expert == 44_040_192
    assert count.matmul == pytest.approx(36.62e9, rel=0.001)


def test_training_flops_per_token() -> None:
    """V3: 250.4 GFLOP causal, 281.2 not, 260.6 with MTP; arXiv 2505.09343 Table 2 prints V3 250, V2 155."""
    v3 = load_model("deepseek-v3")
    assert training_flops_per_token(v3, 4096, causal=True) == pytest.approx(250.4e9, rel=0.0005)
    assert training_flops_per_token(v3, 4096, causal=False) == pytest.approx(281.2e9, rel=0.0005)
    assert training_flops_per_token(v3, 4096, causal=True, include_mtp=True) == pytest.approx(
        260.6e9, rel=0.0005
    )
    assert training_flops_per_token(load_model("deepseek-v2"), 4096, causal=True) == pytest.approx(
        155e9, rel=0.005
    )


def test_modules_that_speculate_have_parameters_as_often_as_there_are_modules() -> None:
    one = load_model("deepseek-v3")
    whole, twice, none = (parameters(dataclasses.replace(one, num_mtp_layers=n)) for n in (1, 2, 0))
    assert whole.mtp > whole.mtp_active > 2 * one.hidden**2
    assert (twice.mtp, twice.mtp_active) == (2 * whole.mtp, 2 * whole.mtp_active)
    assert none.mtp == none.mtp_active == 0
    assert none.total == whole.total


def test_causal_attention_costs_half_of_full_attention() -> None:
    for name in ("deepseek-v3", "mixtral-8x7b", "qwen3-235b-a22b"):
        model = load_model(name)
        full = attention_core_flops_per_token(model, 4096, causal=False)
        assert attention_core_flops_per_token(model, 4096, causal=True) == full / 2


def test_a_window_bounds_the_context_that_is_counted() -> None:
    assert mean_context_tokens(4096, True, None, None) == 2048
    assert mean_context_tokens(4096, True, 128, None) == 128 - 128**2 / 8192
    assert mean_context_tokens(100, True, 128, None) == 50
    assert mean_context_tokens(16384, True, None, 8192) == 4096
    oss = load_model("gpt-oss-120b")
    unlimited = dataclasses.replace(oss, attention=dataclasses.replace(oss.attention, window=None))
    ratio = attention_core_flops_per_token(oss, 10**6, False) / attention_core_flops_per_token(
        unlimited, 10**6, False
    )
    assert ratio == pytest.approx(0.5, rel=0.001)


def test_dense_and_expert_layers_stand_where_the_model_says() -> None:
    v3, maverick = load_model("deepseek-v3"), load_model("llama4-maverick")
    assert [v3.is_dense(i) for i in range(5)] == [True, True, True, False, False]
    assert sum(maverick.is_dense(i) for i in range(48)) == maverick.num_dense_layers == 24
    assert isinstance(maverick.attention, GQA)


def inline(**changes: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "name": "tiny",
        "source": "a test",
        "num_layers": 4,
        "hidden": 256,
        "attention": {"kind": "gqa", "num_heads": 4, "num_kv_heads": 2, "head_dim": 64},
        "num_experts": 16,
        "top_k": 2,
        "expert_hidden": 128,
        "vocab": 1000,
    }
    return {**tree, **changes}


def test_a_model_may_be_a_mapping_or_a_document() -> None:
    from_mapping = load_model(inline())
    document = documents.Document(inline(), "inline")
    assert load_model(document) == from_mapping
    assert parameters(from_mapping).total == (
        4 * (2 * 256 * 6 * 64 + 512 + 256 * 16 + 16 * 3 * 256 * 128) + 2 * 256_000 + 256
    )


def test_tied_embeddings_are_stored_once_and_used_once() -> None:
    apart, tied = (parameters(load_model(inline(tied_embeddings=flag))) for flag in (False, True))
    assert apart.total - tied.total == apart.active - tied.active == 256_000
    assert apart.matmul == tied.matmul


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_kk": 3}, "did you mean top_k"),
        ({"hidden": "wide"}, "hidden"),
        ({"num_groups": 3}, "a divisor of num_experts, 16"),
        ({"num_groups": 16, "top_groups": 1}, "at most 1, the experts of top_groups groups"),
        ({"num_dense_layers": 1}, "the inner width of the dense layers"),
        ({"attention": {"kind": "gqa", "num_heads": 5, "num_kv_heads": 2, "head_dim": 64}}, "a multiple of"),
        ({"dense_layers": "alternate"}, "every other of num_layers"),
    ],
)
def test_a_wrong_model_says_what_would_be_right(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model(inline(**changes))


def test_an_unknown_name_is_met_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean mixtral-8x7b"):
        load_model("mixtral-8x7")
