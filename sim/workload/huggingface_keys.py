"""Keys of publishers' `config.json` files: those that are read, by synonyms, those that are refused, and those without effect.

Why this way: every published model ships such a file, and each family names things its own way. One table says which names
mean the same; what cannot be modelled is refused by name, and a number or list under a name that is in no table is refused
too where the name speaks of a shape, so that nothing that changes a model is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from sim.workload.attention import MLA, Attention

SYNONYMS: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "num_layers", "n_layers", "n_layer"),
    "hidden": ("hidden_size", "d_model", "n_embd", "dim"),
    "vocab": ("vocab_size", "padded_vocab_size"),
    "tied": ("tie_word_embeddings", "tied_embeddings", "tie_embedding"),
    # attention
    "heads": ("num_attention_heads", "n_heads", "n_head"),
    "kv_heads": ("num_key_value_heads", "num_attention_groups", "kv_n_heads", "n_kv_heads"),
    "head_dim": ("head_dim", "attention_head_dim", "kv_channels"),
    "v_head_dim": ("v_head_dim",),
    "q_lora_rank": ("q_lora_rank",),
    "kv_lora_rank": ("kv_lora_rank",),
    "rope_dim": ("qk_rope_head_dim",),
    "nope_dim": ("qk_nope_head_dim",),
    "index_heads": ("index_n_heads",),
    "index_dim": ("index_head_dim",),
    "index_top_k": ("index_topk",),
    "index_types": ("indexer_types",),
    "output_gate": ("attn_output_gate",),
    "window": ("sliding_window", "sliding_window_size", "window_size"),
    "use_window": ("use_sliding_window",),
    "max_window_layers": ("max_window_layers",),
    "window_pattern": ("sliding_window_pattern", "layer_switch", "global_attn_every_n_layers"),
    "chunk": ("attention_chunk_size",),
    "full_without_rope": ("no_rope_layers",),
    "full_interval": ("full_attention_interval",),
    "layer_types": ("layer_types", "layers_block_type", "hybrid_override_pattern", "attn_type_list"),
    "window_layers": ("hybrid_layer_pattern",),
    "window_heads": ("swa_num_attention_heads",),
    "window_kv_heads": ("swa_num_key_value_heads",),
    "window_head_dim": ("swa_head_dim",),
    "window_v_head_dim": ("swa_v_head_dim",),
    "full_kv_heads": ("num_global_key_value_heads",),
    "full_head_dim": ("global_head_dim",),
    "values_are_keys": ("attention_k_eq_v",),
    "shared_q_rank": ("share_q_dim",),
    # linear attention, state-space layers
    "linear_key_heads": ("linear_num_key_heads",),
    "linear_value_heads": ("linear_num_value_heads",),
    "linear_key_dim": ("linear_key_head_dim",),
    "linear_value_dim": ("linear_value_head_dim",),
    "linear_conv": ("linear_conv_kernel_dim",),
    "lightning_group": ("layer_group_size",),
    "full_layers": ("attn_layer_indices",),
    "mamba_heads": ("mamba_num_heads", "mamba_n_heads"),
    "mamba_head_dim": ("mamba_head_dim", "mamba_d_head"),
    "mamba_state": ("ssm_state_size", "mamba_d_state"),
    "mamba_groups": ("n_groups", "mamba_n_groups"),
    "mamba_conv": ("conv_kernel", "mamba_d_conv"),
    # feed-forward blocks
    "experts": ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"),
    "zero_experts": ("zero_expert_num",),
    "top_k": (
        "num_experts_per_tok",
        "num_experts_per_token",
        "experts_per_token",
        "moe_topk",
        "moe_top_k",
        "moe_k",
        "top_k_experts",
    ),
    "expert_width": (
        "moe_intermediate_size",
        "expert_ffn_hidden_size",
        "expert_intermediate_size",
        "moe_ffn_hidden_size",
        "expert_hidden_dim",
    ),
    "width": ("intermediate_size", "ffn_hidden_size", "ffn_dim", "hidden_dim"),
    "block_beside": ("enable_moe_block", "parallel_attn_mlp_res"),
    "dense_width": ("intermediate_size_mlp", "dense_intermediate_size", "prefix_dense_intermediate_size"),
    "latent": ("moe_latent_size", "routed_expert_hidden_size"),
    "shared": (
        "n_shared_experts",
        "num_shared_experts",
        "num_shared_expert",
        "moe_num_shared_experts",
    ),
    "shared_width": (
        "shared_expert_intermediate_size",
        "moe_shared_expert_intermediate_size",
        "shared_intermediate_size",
        "share_expert_dim",
    ),
    "first_dense": ("first_k_dense_replace", "moe_layer_start_index", "num_dense_layers"),
    "last_expert": ("moe_layer_end_index",),
    "expert_layers": (
        "moe_layer_freq",
        "moe_layer_frequency",
        "moe_layer_interval",
        "moe_expert_interval",
        "moe_every_n_layer",
        "mlp_layer_types",
    ),
    "listed_experts": ("moe_layers", "moe_layers_enum"),
    "every": ("decoder_sparse_step", "interleave_moe_layer_step", "expert_layer_period", "route_every_n"),
    "offset": ("expert_layer_offset",),
    "listed_dense": ("mlp_only_layers",),
    "groups": ("n_group", "num_expert_group", "num_expert_groups"),
    "top_groups": ("topk_group", "limited_topk_groups", "num_limited_groups", "num_expert_groups_per_tok"),
    "group_method": ("topk_method",),
    "activation": ("hidden_act", "mlp_hidden_act", "hidden_activation", "ffn_act_fn"),
    "mtp": (
        "num_nextn_predict_layers",
        "num_mtp_modules",
        "mtp_num_hidden_layers",
        "num_mtp_layers",
    ),
    "quantization": ("quantization_config",),
}
"""Meaning -> the names under which files give it."""

BY_LAYER = frozenset(
    {
        "layer_types",
        "index_types",
        "window_layers",
        "full_without_rope",
        "expert_layers",
        "listed_experts",
        "listed_dense",
        "full_layers",
    }
)
"""Meanings whose lists have an entry for each layer, or name layers; any other list has one number for all."""

INNER: dict[str, dict[str, str]] = {
    "attention_other_setting": {
        "num_attention_heads": "window_heads",
        "num_attention_groups": "window_kv_heads",
        "head_dim": "window_head_dim",
    },
    "linear_attn_config": {
        "num_heads": "kda_heads",
        "head_dim": "kda_dim",
        "short_conv_kernel_size": "kda_conv",
        "use_full_rank_gate": "kda_full_gate",
        "full_attn_layers": "full_counted",
    },
}
"""Keys inside a mapping that holds the shape of some layers (those with a window, those of Kimi delta attention), and their meaning."""

SHORTCUT = (
    "its two blocks a layer stand as two layers, without the shortcut past the first; top_k are the real experts of a token on "
    "average"
)
"""Note on a model with zero-computation experts (LongCat-Flash)."""

NOTES = {
    "use_parallel_block": "attention and block of a layer, which it has side by side, run one after the other",
    "enable_moe_block": "the dense block beside a layer's experts stands as a shared expert",
    "parallel_attn_mlp_res": "the dense block beside a layer's experts stands as a shared expert",
}
"""Key -> what stands for what it asks for."""

FAMILIES = {"jetmoe": "attention heads that a gate chooses (MoA)"}
"""Value of `model_type` -> what its layers have that no key of it says and no description can hold."""

REFUSED: dict[str, str] = {
    "compress_ratios": "attention over compressed tokens (CSA, HCA), by layer",
    "o_lora_rank": "a low-rank output projection",
    "o_groups": "an output projection in groups",
    "hc_mult": "hyper-connections, several residual streams (mHC)",
    "num_hash_layers": "layers that route tokens by a hash",
    "sparse_attention_config": "block-sparse attention",
    "num_kv_shared_layers": "layers that share one KV cache",
    "hidden_size_per_layer_input": "embeddings of their own for every layer",
    "block_configs": "blocks of different widths (neural architecture search)",
    "attn_layer_offset": "attention in some layers among Mamba layers of the first generation (Jamba)",
    "mamba_dt_rank": "Mamba layers of the first generation, whose time steps come from a latent (Jamba)",
    "mamba_d_ssm": "attention and a Mamba layer side by side in one layer (Falcon-H1)",
    "num_mem_blocks": "blocks whose weights several layers share (Zamba2)",
    "use_lf_gate": "convolutions before attention (localized filtering)",
    "conv_L_cache": "short convolutions in the place of attention (LFM2)",
    "attn_layer_period": "attention in some layers among Mamba layers of the first generation (Jamba)",
    "is_encoder_decoder": "an encoder and a decoder",
    "lru_width": "recurrent layers (RG-LRU)",
    "num_attention_heads_per_layer": "head counts that differ from layer to layer",
    "num_loops": "layers that run several times",
    "use_cla": "layers that share the keys and values of another (CLA)",
}
"""Key -> what it means, for what no description can hold; null, false, 0 and empty lists are nothing to refuse."""

_HARMLESS = re.compile(
    r"""
    .*(token_id|_dropout|dropout_prob|_eps|epsilon|_coef|_token|_tokens|_bias|_theta|_cache|_impl|_dtype|initializer.*)$
    |.*(rope|rotary|position|yarn|router_|rms_norm|layernorm|norm_|_norm|attention_scale|logit|softcap|scaling).*
    |(architectures|auto_map|model_type|_name_or_path|dtype|torch_dtype|transformers_version|torchscript|use_.*)
    |(pretraining_tp|ep_size|num_logits_to_keep|seq_aux|scoring_func|score_function|swiglu_limit|output_.*|return_.*|is_.*)
    |(id2label|label2id|task_specific_params|pruned_heads|.*_penalty|num_beams|num_beam_groups|num_return_sequences)
    |(min_length|max_length|no_repeat_ngram_size|encoder_no_repeat_ngram_size|chunk_size_feed_forward|top_k|top_p)
    |(temperature|typical_p|early_stopping|do_sample|bad_words_ids|finetuning_task|prefix|problem_type|tokenizer_.*)
    |(time_step_.*|expand|chunk_size|mamba_chunk_size|mamba_hidden_act|rescale_prenorm_residual|residual_in_fp32)
    |(ignore_index|media_.*|vision.*|image_.*|video_.*|audio_.*|text_config|quantization_config|expert_dtype|aux_loss.*)
    |(mtp_transformer_layers|mtp_use_dedicated_embeddings|mtp_hybrid_override_pattern|mtp_layers_block_type)
    |(max_seq_len|max_sequence_length|seq_length|seq_len|n_positions|n_ctx|initial_context_length|original_max.*)
    |(qk_head_dim|attention_value_scale|attention_multiplier|embedding_multiplier|residual_multiplier|partial_rotary.*)
    |(moe_router.*|moe_aux.*|moe_token_.*|moe_gate.*|moe_use_.*|moe_group_.*|moe_loss.*|moe_renorm.*|router.*|routed_.*factor)
    |(head_dim_qk|index_skip.*|indexer_rope.*|unk.*|cls.*|name|n_group_.*|norm.*|.*_init|.*_std|.*_jitter.*|multi_modal.*)
    |(clip_qkv|use_cache|unsloth.*|cpt.*|_attn.*|attn_impl.*|add_.*|tf_.*|remove_.*|suppress_tokens|begin_suppress.*)
    |(cla_share_factor|mla_scale.*|zero_expert_type|num_media_.*|org_vocab_size|vit_.*|moe_normalize.*|max_attn_.*|eod.*|sep.*|pad.*|.*_multiplier.*)
    |(mamba_expand|expert_parallel|expert_model_parallel|mlp_expansion_factor|vocab_size_per_layer_input)
    |(exponential_decay.*|forced_.*|decoder_start.*|diversity.*|sep_.*|tie_encoder_decoder|cross_attention_hidden_size)
    """,
    re.VERBOSE,
)
_SHAPE = re.compile(
    r"^(num|n)_|_(num|n)_|(^|_)(layers?|experts?|heads?|head_dim|hidden_size|intermediate_size|ffn|mlp|rank|state|ssm|mamba|linear|"
    r"conv|sparse|compress|compression|latent|hyper|residual_streams)(_|$)"
)


def is_unknown(key: str, value: object) -> bool:
    """Tell a key that may change a model's shape, neither in `SYNONYMS` nor in `REFUSED`, from one without effect.

    A whole number, list or mapping under a name that speaks of a shape may.
    """
    if not value or isinstance(value, str | bool | float) or _HARMLESS.fullmatch(key):
        return False
    return bool(_SHAPE.search(key))


def one_number(value: Any) -> Any:
    """Reduce a list that has the same whole number for every layer, as some families write, to the number, and a mapping to its name."""
    if isinstance(value, dict) and "name" in value:
        return value["name"]
    numbers = isinstance(value, list) and value and all(type(each) is int for each in value)
    return value[0] if numbers and len(set(value)) == 1 else value


def weights_in_words(quantization: Any) -> str:
    """Name the format that weights are published in, from the file's block of that name; "" where there is none."""
    if not isinstance(quantization, dict):
        return ""
    method = str(
        quantization.get("quant_method") or quantization.get("quant_algo") or "an unnamed format"
    ).lower()
    block = quantization.get("weight_block_size")
    if isinstance(block, list):
        return f"{method}, a scale for {' x '.join(map(str, block))} weights"
    groups = quantization.get("config_groups")
    weights = (
        next((g.get("weights") for g in groups.values() if isinstance(g, dict)), None)
        if isinstance(groups, dict)
        else None
    )
    if isinstance(weights, dict):
        size = f", a scale for {weights['group_size']} weights" if weights.get("group_size") else ""
        return f"{weights.get('num_bits')}-bit {weights.get('type')}{size}"
    bits = quantization.get("bits")
    return f"{method}, {bits} bits" if bits else method


def name_of(path: Path) -> str:
    """Make a model's name of a file's: of the folder's, where the file is called as all are.

    Examples
    --------
    >>> name_of(Path("Qwen--Qwen3-30B-A3B_config.json")), name_of(Path("/models/Mixtral 8x7B/config.json"))
    ('qwen3-30b-a3b', 'mixtral-8x7b')
    """
    stem = path.stem if path.stem != "config" else path.resolve().parent.name
    stem = stem.removesuffix("_config").rpartition("--")[2]
    return "".join(char if char.isalnum() or char in "._-" else "-" for char in stem).lower() or "model"


def described(a: Attention) -> dict[str, Any]:
    """A kind of attention as a file writes it, without defaults."""
    kept = {
        field.name: getattr(a, field.name) for field in fields(a) if getattr(a, field.name) != field.default
    }
    if isinstance(a, MLA) and a.index:
        kept["index"] = {key: value for key, value in asdict(a.index).items() if value is not False}
    return {"kind": a.kind, **kept}


def letters(kinds: list[tuple[str, str]]) -> Iterator[str]:
    """A letter for each kind of layer: the first of its attention or block, else the next that is free."""
    taken: set[str] = set()
    for attention, block in kinds:
        word = (block if attention == "none" else attention) + ("d" if block == "dense" else "")
        wanted = word[-1] if block == "dense" and attention != "none" else word[0]
        letter = next(c for c in [wanted, wanted.upper(), *"abcdefghijklmnopqrstuvwxyz"] if c not in taken)
        taken.add(letter)
        yield letter
