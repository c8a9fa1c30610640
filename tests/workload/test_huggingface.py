"""Publishers' configurations: read by synonyms, layers of every rule, and refused by name where they cannot be modelled."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sim
from command import Moesim
from sim.errors import InputError
from sim.workload.attention import GQA, MLA, GatedDelta, KimiDelta, Mamba2
from sim.workload.huggingface_keys import REFUSED, SYNONYMS
from sim.workload.model import Model, cache_bytes, kv_bytes_per_token, load_model, parameters

QWEN = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48,
    "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144,
    "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8, "decoder_sparse_step": 1,
    "mlp_only_layers": [], "norm_topk_prob": True, "tie_word_embeddings": False, "vocab_size": 151936,
}  # fmt: skip
MLA_CONFIG = {
    "model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 64,
    "num_key_value_heads": 64, "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_routed_experts": 384,
    "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 1, "moe_layer_freq": 1, "n_group": 1,
    "topk_group": 1, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "v_head_dim": 128, "vocab_size": 163840,
}  # fmt: skip


def read(folder: Path, tree: dict[str, Any] = QWEN, **changes: Any) -> Model:
    file = folder / "config.json"
    both = {key: value for key, value in (tree | changes).items() if value is not ...}
    file.write_text(json.dumps(both, indent="\t"))
    return load_model(file)


def same(a: Model, b: Model) -> bool:
    return dataclasses.replace(a, name=b.name, source=b.source) == b


def dense_layers(model: Model) -> list[int]:
    return [i for i in range(model.num_layers) if model.layer(i).mlp == "dense"]


def test_published_files_count_as_published(tmp_path: Path) -> None:
    """Qwen3-30B-A3B: 30.5 B, 3.3 B, 48 x 2 x 4 x 128 x 2 B; Kimi K2: 1.03 T, 32 B, 61 x 576 x 2 B."""
    qwen = read(tmp_path)
    assert same(qwen, load_model("qwen3-30b-a3b"))
    assert parameters(qwen).total == pytest.approx(30.53e9, rel=1e-3)
    assert parameters(qwen).active == pytest.approx(3.353e9, rel=1e-3)
    assert kv_bytes_per_token(qwen) == 98304
    kimi = read(tmp_path, MLA_CONFIG)
    assert same(kimi, load_model("kimi-k2"))
    assert parameters(kimi).total == pytest.approx(1.026e12, rel=1e-3)
    assert kv_bytes_per_token(kimi) == 70272


@pytest.mark.parametrize(
    ("meaning", "name"), [(m, n) for m in ("experts", "top_k", "expert_width", "layers", "hidden", "kv_heads") for n in SYNONYMS[m]]
)  # fmt: skip
def test_synonyms_mean_the_same(tmp_path: Path, meaning: str, name: str) -> None:
    ours = next(key for key in QWEN if key in SYNONYMS[meaning])
    assert same(read(tmp_path, **{ours: ..., name: QWEN[ours]}), read(tmp_path))


def test_shared_experts_are_given_by_count_or_by_width(tmp_path: Path) -> None:
    counted = read(tmp_path, n_shared_experts=2)
    wide = read(tmp_path, shared_expert_intermediate_size=1536)
    odd = read(tmp_path, shared_expert_intermediate_size=20480)
    assert same(read(tmp_path, n_shared_experts=2, shared_expert_intermediate_size=1536), counted)
    assert counted.shared_width == wide.shared_width == 2 * 768
    assert parameters(counted) == parameters(wide)
    assert parameters(odd).total - parameters(read(tmp_path)).total == 48 * 3 * 2048 * 20480
    assert read(tmp_path, n_shared_experts=1, moe_shared_expert_intermediate_size=512).shared_width == 512


@pytest.mark.parametrize(
    ("changes", "dense"),
    [
        ({"first_k_dense_replace": 3}, [0, 1, 2]),
        ({"moe_layer_start_index": 1, "moe_layer_end_index": 46}, [0, 47]),
        ({"mlp_only_layers": [5, 7]}, [5, 7]),
        ({"decoder_sparse_step": 2}, list(range(0, 48, 2))),
        ({"interleave_moe_layer_step": 2, "decoder_sparse_step": ...}, list(range(0, 48, 2))),
        (
            {"expert_layer_period": 2, "expert_layer_offset": 0, "decoder_sparse_step": ...},
            list(range(1, 48, 2)),
        ),
        ({"moe_layer_freq": [0] * 4 + [1] * 44}, [0, 1, 2, 3]),
        ({"moe_layers_enum": ",".join(map(str, range(2, 48)))}, [0, 1]),
        ({"num_local_experts": 128, "num_experts": ..., "moe_layer_freq": 1}, []),
    ],
)
def test_each_rule_says_which_layers_are_dense(
    tmp_path: Path, changes: dict[str, Any], dense: list[int]
) -> None:
    model = read(tmp_path, **changes)
    assert dense_layers(model) == dense
    assert not dense or model.dense_hidden == 6144


def test_experts_without_a_width_of_their_own_have_the_files_only_one(tmp_path: Path) -> None:
    model = read(
        tmp_path, moe_intermediate_size=..., intermediate_size=14336, head_dim=..., num_key_value_heads=...
    )
    assert model.expert_hidden == 14336
    assert model.attention == GQA(num_heads=32, num_kv_heads=32, head_dim=64)  # 2048 / 32; multi-head


def test_a_model_without_experts_is_one_expert_without_a_gate(tmp_path: Path) -> None:
    model = read(tmp_path, num_experts=..., num_experts_per_tok=..., moe_intermediate_size=...)
    assert (model.num_experts, model.top_k, model.expert_hidden) == (1, 1, 6144)
    assert parameters(model).total == parameters(model).active
    assert parameters(model).gate == 0


def test_windows_are_read_where_they_are_used(tmp_path: Path) -> None:
    types = ["sliding_attention", "full_attention"] * 24
    window = read(tmp_path, sliding_window=128, layer_types=types)
    assert cache_bytes(window, 131072) == 24 * (131072 + 128) * 2 * 4 * 128 * 2
    assert window.pattern == "(wf)*24"
    assert same(read(tmp_path, sliding_window=4096, use_sliding_window=False), read(tmp_path))
    assert all(
        isinstance(a, GQA) and a.window == 4096 for a in read(tmp_path, sliding_window=4096).attentions()
    )
    gemma = read(tmp_path, sliding_window=1024, sliding_window_pattern=6)
    assert gemma.pattern == "(wwwwwf)*8"
    other = read(
        tmp_path,
        sliding_window=128,
        hybrid_layer_pattern=[0] + [1] * 47,
        swa_num_key_value_heads=8,
        swa_v_head_dim=64,
    )
    assert kv_bytes_per_token(other) == (4 * 256 + 47 * 8 * (128 + 64)) * 2
    chunked = read(tmp_path, attention_chunk_size=8192, model_type="llama4_text")
    assert cache_bytes(chunked, 131072) == (12 * 131072 + 36 * 8192) * 2 * 4 * 128 * 2


def test_linear_attention_is_read_from_its_interval_or_its_list(tmp_path: Path) -> None:
    shape = {
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
    }
    every = read(tmp_path, **shape, full_attention_interval=4, attn_output_gate=True)
    types = (["linear_attention"] * 3 + ["full_attention"]) * 12
    listed = read(tmp_path, **shape, layer_types=types, attn_output_gate=True)
    assert same(every, listed)
    state = GatedDelta(num_key_heads=16, num_heads=32, key_head_dim=128, value_head_dim=128)
    assert {layer.attention: n for layer, n in every.layers().items()}[state] == 36
    assert kv_bytes_per_token(every) == 12 * 2 * 4 * 128 * 2


def test_blocks_of_a_hybrid_are_layers_of_their_own(tmp_path: Path) -> None:
    mamba = {
        "mamba_num_heads": 64,
        "mamba_head_dim": 64,
        "ssm_state_size": 128,
        "n_groups": 8,
        "conv_kernel": 4,
    }
    letters = read(tmp_path, **mamba, hybrid_override_pattern="ME*E" * 12, mlp_hidden_act="relu2")
    words = ["mamba", "moe", "attention", "moe"] * 12
    named = read(tmp_path, **mamba, layers_block_type=words, num_hidden_layers=..., mlp_hidden_act="relu2")
    assert same(letters, named)
    assert letters.num_moe_layers == 24
    assert Mamba2(num_heads=64, head_dim=64, state_dim=128, num_groups=8) in letters.attentions()
    assert parameters(letters).expert == 2 * 2048 * 768  # up and down alone


def test_sparse_attention_is_read(tmp_path: Path) -> None:
    model = read(
        tmp_path, MLA_CONFIG, index_topk=2048, index_n_heads=64, index_head_dim=128, q_lora_rank=None
    )
    assert isinstance(model.attention, MLA)
    assert model.attention.q_lora_rank is None
    assert model.attention.index is not None
    assert model.attention.window == 2048


def test_layers_may_take_the_choice_of_an_earlier_indexer(tmp_path: Path) -> None:
    index = {"index_topk": 2048, "index_n_heads": 32, "index_head_dim": 128}
    own = read(tmp_path, MLA_CONFIG, **index)
    some = read(tmp_path, MLA_CONFIG, **index, indexer_types=["full", "shared", "shared"] * 20 + ["full"])
    each = (parameters(own).total - parameters(load_model("kimi-k2")).total) / 61
    assert parameters(own).total - parameters(some).total == 40 * each
    assert kv_bytes_per_token(own) - kv_bytes_per_token(some) == 40 * 132
    assert same(read(tmp_path, MLA_CONFIG, **index, indexer_types=["full"] * 61), own)


def test_zero_computation_experts_are_scored_and_nothing_else(tmp_path: Path) -> None:
    """LongCat-Flash, arXiv 2509.01322: 560 B parameters, 27 B active on average of 512 real and 256 zero experts, top-12."""
    longcat = {
        "model_type": "longcat_flash", "num_layers": 28, "hidden_size": 6144, "ffn_hidden_size": 12288, "vocab_size": 131072,
        "num_attention_heads": 64, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "v_head_dim": 128, "expert_ffn_hidden_size": 2048, "n_routed_experts": 512, "zero_expert_num": 256, "moe_topk": 12,
        "zero_expert_type": "identity",
    }  # fmt: skip
    model = read(tmp_path, longcat)
    assert parameters(model).total == pytest.approx(560e9, rel=0.005)
    assert parameters(model).matmul == pytest.approx(27e9, rel=0.01)
    assert (model.top_k, model.num_moe_layers, model.num_layers) == (8, 28, 56)
    plain = dataclasses.replace(model, num_zero_experts=0)
    assert parameters(model).total - parameters(plain).total == 28 * 256 * 6144
    assert "real experts of a token on average" in model.source


KIMI_LINEAR = {
    "model_type": "kimi_linear", "hidden_size": 2304, "num_hidden_layers": 27, "num_attention_heads": 32, "kv_lora_rank": 512,
    "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "intermediate_size": 9216,
    "moe_intermediate_size": 1024, "num_experts": 256, "num_experts_per_token": 8, "num_shared_experts": 1,
    "first_k_dense_replace": 1, "vocab_size": 163840,
    "linear_attn_config": {
        "full_attn_layers": [4, 8, 12, 16, 20, 24, 27], "kda_layers": [i for i in range(1, 27) if i % 4], "num_heads": 32,
        "head_dim": 128, "short_conv_kernel_size": 4,
    },
}  # fmt: skip
STEP_3 = {
    "text_config": {
        "hidden_size": 7168, "intermediate_size": 18432, "num_attention_heads": 64, "num_attention_groups": 1, "head_dim": 256,
        "share_q_dim": 2048, "num_hidden_layers": 61, "vocab_size": 128815, "moe_intermediate_size": 5120, "moe_num_experts": 48,
        "moe_top_k": 3, "share_expert_dim": 5120, "moe_layers_enum": ",".join(map(str, range(4, 60))),
    }
}  # fmt: skip
MINIMAX_M1 = {
    "attn_type_list": [0, 0, 0, 0, 0, 0, 0, 1] * 10, "head_dim": 128, "hidden_size": 6144, "intermediate_size": 9216,
    "num_attention_heads": 64, "num_key_value_heads": 8, "num_hidden_layers": 80, "num_local_experts": 32,
    "num_experts_per_tok": 2, "vocab_size": 200064,
}  # fmt: skip
RING_LINEAR = {
    "first_k_dense_replace": 1, "head_dim": 128, "hidden_size": 4096, "intermediate_size": 9216, "layer_group_size": 8,
    "moe_intermediate_size": 1024, "num_attention_heads": 32, "num_key_value_heads": 4, "num_experts": 256,
    "num_experts_per_tok": 8, "num_shared_experts": 1, "num_hidden_layers": 32, "vocab_size": 157184, "n_group": 8, "topk_group": 4,
}  # fmt: skip
GRANITE_4 = {
    "hidden_size": 4096, "intermediate_size": 768, "layer_types": ["attention" if i % 10 == 5 else "mamba" for i in range(40)],
    "mamba_d_conv": 4, "mamba_d_head": 64, "mamba_d_state": 128, "mamba_expand": 2, "mamba_n_groups": 1, "mamba_n_heads": 128,
    "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 40, "num_local_experts": 72,
    "num_experts_per_tok": 10, "shared_intermediate_size": 1536, "tie_word_embeddings": True, "vocab_size": 100352,
}  # fmt: skip
BAMBA = {
    "attn_layer_indices": [9, 18, 27], "hidden_size": 4096, "intermediate_size": 14336, "mamba_d_conv": 4, "mamba_d_head": 64,
    "mamba_d_state": 128, "mamba_expand": 2, "mamba_n_groups": 1, "mamba_n_heads": 128, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip
ARCTIC = {
    "hidden_size": 7168, "intermediate_size": 4864, "num_hidden_layers": 35, "num_attention_heads": 56, "num_key_value_heads": 8,
    "num_local_experts": 128, "num_experts_per_tok": 2, "moe_layer_frequency": 1, "parallel_attn_mlp_res": True, "vocab_size": 32000,
}  # fmt: skip
GEMMA_4 = {
    "text_config": {
        "enable_moe_block": True, "attention_k_eq_v": True, "global_head_dim": 512, "head_dim": 256, "hidden_size": 2816,
        "intermediate_size": 2112, "moe_intermediate_size": 704, "num_attention_heads": 16, "num_experts": 128, "top_k_experts": 8,
        "num_global_key_value_heads": 2, "num_hidden_layers": 30, "num_key_value_heads": 8, "sliding_window": 1024,
        "vocab_size": 262144, "tie_word_embeddings": True, "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 5,
        "vocab_size_per_layer_input": 262144, "hidden_size_per_layer_input": 0,
    }
}  # fmt: skip
DBRX = {
    "d_model": 6144, "n_heads": 48, "n_layers": 40, "vocab_size": 100352, "attn_config": {"kv_n_heads": 8, "clip_qkv": 8},
    "ffn_config": {"ffn_act_fn": {"name": "silu"}, "ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
}  # fmt: skip
MISTRAL_3 = {
    "dim": 7168, "n_layers": 61, "hidden_dim": 16384, "n_heads": 128, "n_kv_heads": 128, "vocab_size": 131072, "q_lora_rank": 1536,
    "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "tied_embeddings": False,
    "moe": {
        "expert_parallel": 1, "route_every_n": 1, "first_k_dense_replace": 3, "num_experts": 128, "num_experts_per_tok": 4,
        "num_expert_groups": 1, "num_expert_groups_per_tok": 1, "expert_hidden_dim": 4096, "num_shared_experts": 1,
    },
}  # fmt: skip
NEMOTRON_H = {
    "hidden_size": 8192, "intermediate_size": 32768, "hybrid_override_pattern": "M-M-M-M*-" + "M-M-M-M-M*-" * 9 + "M-M-M-M-M-",
    "mamba_head_dim": 64, "mamba_num_heads": 256, "n_groups": 8, "ssm_state_size": 256, "conv_kernel": 4, "expand": 2,
    "attention_head_dim": 128, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 131072, "mlp_hidden_act": "relu2",
}  # fmt: skip
COMMAND_A = {
    "model_type": "cohere2", "hidden_size": 12288, "intermediate_size": 36864, "num_hidden_layers": 64, "num_attention_heads": 96,
    "num_key_value_heads": 8, "head_dim": 128, "sliding_window": 4096, "layer_switch": 4, "vocab_size": 256000,
    "use_parallel_block": True, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "total", "active"),
    [
        (KIMI_LINEAR, 49.1e9, 3.5e9), (STEP_3, 316.3e9, 38e9), (MINIMAX_M1, 456e9, 45.9e9), (RING_LINEAR, 104e9, None),
        (GRANITE_4, 32.2e9, 9e9), (BAMBA, 9.8e9, 9.8e9), (ARCTIC, 479e9, 17e9), (GEMMA_4, 25.2e9, 3.8e9), (DBRX, 132e9, 36e9),
        (MISTRAL_3, 673e9, None), (NEMOTRON_H, 56e9, 56e9), (COMMAND_A, 111e9, 111e9),
    ],
    ids=lambda value: str(value.get("model_type", "")) if isinstance(value, dict) else None,
)  # fmt: skip
def test_families_of_every_kind_count_as_their_publishers_say(
    tmp_path: Path, tree: dict[str, Any], total: float, active: float | None
) -> None:
    """Model cards and reports, to 1 %; of what is active, with tables of words or without, to 3 %."""
    model = read(tmp_path, tree)
    assert parameters(model).total == pytest.approx(total, rel=0.01)
    tables = (1 if model.tied_embeddings else 2) * model.vocab * model.hidden
    counts = (parameters(model).active, parameters(model).active - tables)
    assert active is None or pytest.approx(active, rel=0.03) in counts


def test_states_and_compressed_queries_are_where_the_files_have_them(tmp_path: Path) -> None:
    kimi = read(tmp_path, KIMI_LINEAR)
    full = [i + 1 for i in range(27) if isinstance(kimi.layer(i).attention, MLA)]
    assert full == [4, 8, 12, 16, 20, 24, 27]
    assert KimiDelta(num_heads=32, head_dim=128) in kimi.attentions()
    m1, ring, bamba = (read(tmp_path, tree) for tree in (MINIMAX_M1, RING_LINEAR, BAMBA))
    assert [i for i in range(80) if isinstance(m1.layer(i).attention, GQA)] == list(range(7, 80, 8))
    assert [i for i in range(32) if isinstance(ring.layer(i).attention, GQA)] == [7, 15, 23, 31]
    assert [i for i in range(32) if isinstance(bamba.layer(i).attention, GQA)] == [9, 18, 27]
    cut = read(
        tmp_path, RING_LINEAR, num_hidden_layers=30
    )  # of a group that is not whole every layer is full
    assert [i for i in range(30) if isinstance(cut.layer(i).attention, GQA)] == [7, 15, 23, *range(24, 30)]
    step, gemma = read(tmp_path, STEP_3), read(tmp_path, GEMMA_4)
    assert step.attention == GQA(num_heads=64, num_kv_heads=1, head_dim=256, q_lora_rank=2048)
    wide = GQA(num_heads=16, num_kv_heads=2, head_dim=512, values_are_keys=True)
    assert gemma.attention == wide
    plain = dataclasses.replace(wide, values_are_keys=False)
    assert (
        plain.parameters(2816) - wide.parameters(2816) == 2816 * 2 * 512
    )  # no projection, and a cache as large
    assert plain.cache_bytes(2) == wide.cache_bytes(2)
    assert (gemma.shared_width, read(tmp_path, ARCTIC).shared_width) == (2112, 7168)
    assert "stands as a shared expert" in gemma.source
    assert "run one after the other" in read(tmp_path, COMMAND_A).source


def test_the_text_model_of_several_media_is_read_and_said(tmp_path: Path) -> None:
    nested = {"model_type": "all", "text_config": QWEN, "vision_config": {"hidden_size": 9, "depth": 3}}
    model = read(tmp_path, nested)
    assert same(model, read(tmp_path))
    assert "without its vision part" in model.source
    assert same(read(tmp_path, {"thinker_config": nested, "talker_config": {"hidden_size": 9}}), model)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8, a scale for 128 x 128 weights"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "awq", "bits": 4}, "awq, 4 bits"),
        (
            {"config_groups": {"g": {"weights": {"num_bits": 4, "type": "int", "group_size": 32}}}},
            "4-bit int, a scale for 32",
        ),
    ],
)
def test_the_format_of_published_weights_is_said(tmp_path: Path, block: dict[str, Any], words: str) -> None:
    assert f"weights published in {words}" in read(tmp_path, quantization_config=block).source


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_be_modelled_is_refused_by_name_and_meaning(tmp_path: Path, key: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, **{key: 4})
    (problem,) = [str(p) for p in caught.value.problems if f"'{key}'" in str(p)]
    assert REFUSED[key] in problem
    assert "config.json:" in problem  # with its line


def test_a_family_whose_file_does_not_say_what_its_layers_have_is_refused_by_its_name(tmp_path: Path) -> None:
    """JetMoE's attention has experts too: by the keys of its file alone it would be 7.0 B parameters, and it has 8.5 B."""
    with pytest.raises(InputError, match=r"model_type: got 'jetmoe'.*attention heads that a gate chooses"):
        read(tmp_path, model_type="jetmoe")


def test_an_unknown_key_of_a_shape_is_refused_and_others_are_not_asked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the unknown key 'num_phantom_layers'"):
        read(tmp_path, num_phantom_layers=3)
    harmless = {
        "rope_theta": 1e6,
        "rope_scaling": {"factor": 4},
        "eos_token_id": 3,
        "num_phantom_layers": 0,
        "zero_expert_num": None,
    }
    assert same(read(tmp_path, **harmless, attn_type_list=[1] * 48, torch_dtype="bfloat16"), read(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "no key of a model's shape"),
        ("[1, 2]", "a mapping of keys"),
        ("{'hidden_size': ", "config.json"),
        (json.dumps({"producer": 1, "quantization": {}}), "no key of a model's shape"),
        (
            json.dumps(QWEN | {"num_hidden_layers": "many"}),
            "num_hidden_layers: got 'many'; wanted a whole number",
        ),
        (json.dumps(QWEN | {"num_hidden_layers": 10**9}), "at most 100000 layers"),
        (json.dumps(QWEN | {"layer_types": ["full_attention"] * 3}), "3 kinds; wanted 48 layers"),
        (json.dumps(QWEN | {"layer_types": ["psychic"] * 48}), "'psychic'"),
        (json.dumps({"hidden_size": 2048}), "wanted the key num_hidden_layers or"),
        (json.dumps(QWEN | {"num_attention_heads": 0}), "attention.num_heads: got 0; wanted more than 0"),
        ('{"hidden_size": 1, "hidden_size": 2}', "a duplicate key"),
        ('{"a": ' * 100 + "1" + "}" * 100, "levels"),
    ],
)
def test_files_that_are_no_configuration_are_told_in_a_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError) as caught:
        load_model(tmp_path / "config.json")
    assert message in str(caught.value)


values = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**12), 10**12), st.floats(allow_nan=False), st.text(max_size=3),
    st.lists(st.integers(-1, 3), max_size=50), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(sorted({n for names in SYNONYMS.values() for n in names} | {*REFUSED})),
        values,
        max_size=5,
    )
)
def test_no_value_of_a_known_key_ends_in_a_traceback(tmp_path: Path, changes: dict[str, Any]) -> None:
    for tree in (QWEN, MLA_CONFIG):
        try:
            model = read(tmp_path, tree, **changes)
        except InputError:
            continue
        assert parameters(model).total > 0


# --- where a model is named -----------------------------------------------------------------------------------


def test_a_scenario_names_a_configuration_in_two_ways(tmp_path: Path) -> None:
    read(tmp_path)
    text = "name: s\ncluster: {hardware: h800, nodes: 2}\nmodel: MODEL\nworkload: {kind: all_to_all, tokens_per_rank: 64, "
    text += "gate: {kind: uniform}, kernel: {kind: two_hop}}\n"
    found = []
    for model in ("config.json", "{huggingface: config.json}"):
        (tmp_path / "s.yaml").write_text(text.replace("MODEL", model))
        found.append(sim.run(tmp_path / "s.yaml")["metrics"])
        changed = sim.run(tmp_path / "s.yaml", {"model.top_k": 1})["metrics"]
        assert changed["dispatch"]["ranks_per_token"] == 1
    assert found[0] == found[1]
    (tmp_path / "s.yaml").write_text(text.replace("MODEL", "{huggingface: config.json, hidden: 3}"))
    with pytest.raises(InputError, match="huggingface alone"):
        sim.run(tmp_path / "s.yaml")


def test_commands_show_import_and_check_a_configuration(
    tmp_path: Path, moesim: Moesim, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = read(tmp_path, MLA_CONFIG)
    monkeypatch.chdir(tmp_path)
    shown = moesim("show", "model", "config.json", "--json")
    assert shown.json["parameters"]["total"] == parameters(model).total
    printed = moesim("import", "config.json")
    assert printed.out.startswith("# 1.026 T parameters, 32.86 G active, 70.27 kB of KV cache")
    assert moesim("import", "config.json", "--out", "mine.yaml").code == 0
    assert same(load_model("mine.yaml"), model)
    assert load_model("mine.yaml").name == "mine"
    assert moesim("import", "config.json", "--out", "mine.yaml").code == 2
    assert moesim("check", "config.json").code == 0
    read_again = moesim("import", "gone.json")
    assert (read_again.code, "gone.json" in read_again.err) == (2, True)


def test_two_numbers_that_are_wrong_alike_are_two_problems(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, hidden_size="many", vocab_size="many")
    assert sorted(problem.key for problem in caught.value.problems) == ["hidden_size", "vocab_size"]
