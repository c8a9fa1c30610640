"""Attention of a layer from a publisher's `config.json`: a record of its kind, from keys by their meaning."""

from __future__ import annotations

from typing import Any, Protocol

from sim.workload.attention import GQA, MLA, Attention, GatedDelta, Index, KimiDelta, Lightning, Mamba2


class Keys(Protocol):
    """Keys of a file by their meaning (`huggingface_keys.SYNONYMS`)."""

    @property
    def family(self) -> str:
        """The file's `model_type`."""
        ...

    def value(self, name: str) -> Any:
        """The value that the file gives, or None."""
        ...

    def number(self, name: str, default: int | None = None) -> int:
        """A whole number; a problem of the file where there is none, and no default."""
        ...


def attention(keys: Keys, kind: str) -> Attention:
    """Return attention of a kind (`full`, `reuse`, `window`, `chunk`, `linear`, `kda`, `lightning`, `mamba`) from the keys of a file."""
    if kind == "linear":
        return GatedDelta(
            num_key_heads=keys.number("linear_key_heads"),
            num_heads=keys.number("linear_value_heads"),
            key_head_dim=keys.number("linear_key_dim"),
            value_head_dim=keys.number("linear_value_dim"),
            conv_kernel=keys.number("linear_conv", 4),
        )
    if kind == "kda":
        return KimiDelta(
            num_heads=keys.number("kda_heads"),
            head_dim=keys.number("kda_dim"),
            conv_kernel=keys.number("kda_conv", 4),
            full_rank_gate=bool(keys.value("kda_full_gate")),
        )
    if kind == "mamba":
        return Mamba2(
            num_heads=keys.number("mamba_heads"),
            head_dim=keys.number("mamba_head_dim"),
            state_dim=keys.number("mamba_state"),
            num_groups=keys.number("mamba_groups", 1),
            conv_kernel=keys.number("mamba_conv", 4),
        )
    heads = keys.number("heads")
    if keys.value("kv_lora_rank") and kind in ("full", "reuse"):
        return _latent_attention(keys, heads, kind == "reuse")
    hidden = keys.number("hidden")
    kv, dim = keys.number("kv_heads", heads), keys.number("head_dim", max(1, hidden // max(1, heads)))
    if kind == "lightning":
        return Lightning(num_heads=heads, head_dim=dim)
    v = keys.number("v_head_dim", dim)
    if kind == "window":
        heads, kv = keys.number("window_heads", heads), keys.number("window_kv_heads", kv)
        dim, v = keys.number("window_head_dim", dim), keys.number("window_v_head_dim", v)
    elif kind == "full" and keys.value("full_head_dim"):
        kv = keys.number("full_kv_heads", kv)
        dim = v = keys.number("full_head_dim", dim)
    gate = keys.value("output_gate")
    return GQA(
        num_heads=heads,
        num_kv_heads=kv,
        head_dim=dim,
        v_head_dim=v if v != dim else None,
        window=keys.number("window") if kind == "window" else None,
        chunk=keys.number("chunk") if kind == "chunk" else None,
        output_gate=bool(gate) if gate is not None else keys.family.startswith("qwen3_next"),
        q_lora_rank=keys.number("shared_q_rank") if keys.value("shared_q_rank") else None,
        values_are_keys=kind == "full" and bool(keys.value("values_are_keys")),
    )


def _latent_attention(keys: Keys, heads: int, shared: bool) -> MLA:
    index = None
    if keys.value("index_top_k"):
        index = Index(
            num_heads=keys.number("index_heads"),
            head_dim=keys.number("index_dim"),
            top_k=keys.number("index_top_k"),
            shared=shared,
        )
    return MLA(
        num_heads=heads,
        q_lora_rank=keys.number("q_lora_rank") if keys.value("q_lora_rank") else None,
        kv_lora_rank=keys.number("kv_lora_rank"),
        qk_rope_head_dim=keys.number("rope_dim"),
        qk_nope_head_dim=keys.number("nope_dim"),
        v_head_dim=keys.number("v_head_dim"),
        index=index,
    )
