"""Quantisation blocks of checkpoints: the format of each part's weights, as publishers' files state it.

A block names one format and the modules that keep BF16 (`modules_to_not_convert`, `ignore`, `exclude_modules`: names, patterns with
`*`, or `re:` expressions). It is read for one module of each part, of the last layer.

References
----------
Keys: Hugging Face transformers (`quantization_config`: fp8, mxfp4, gptq, awq, compressed-tensors) and NVIDIA ModelOpt
(`hf_quant_config.json`).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from typing import Any

_KEPT = ("modules_to_not_convert", "ignore", "exclude_modules", "ignored_layers")


def part_formats(block: Mapping[str, Any], num_layers: int, has_experts: bool) -> dict[str, str]:
    """Find the format of the weights of each part.

    Parameters
    ----------
    block : mapping
        A file's `quantization_config`, or the `quantization` of a `hf_quant_config.json`.
    num_layers : int [count]
    has_experts : bool
        False for a dense model, whose feed-forward block is its one expert.

    Returns
    -------
    dict
        Part of `formats.PARTS` -> name of a format.

    Raises
    ------
    ValueError
        For a format that is not known, in words.

    Examples
    --------
    >>> part_formats({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}, 24, True)["attention"]
    'bf16'
    """
    held, last = _format(block), f"model.layers.{num_layers - 1}"
    modules = {
        "attention": f"{last}.self_attn.o_proj",
        "shared": f"{last}.mlp.shared_experts.down_proj",
        "dense": "model.layers.0.mlp.down_proj",
        "experts": f"{last}.mlp.experts.0.down_proj" if has_experts else f"{last}.mlp.down_proj",
    }
    return {part: held if _converted(block, module) else "bf16" for part, module in modules.items()}


def _format(block: Mapping[str, Any]) -> str:
    groups = block.get("config_groups")
    if isinstance(groups, dict):
        weights = next((g.get("weights") for g in groups.values() if isinstance(g, dict)), None)
        if isinstance(weights, dict):
            kind, bits = str(weights.get("type")), weights.get("num_bits")
            return _grouped(kind, bits, weights.get("group_size"), weights.get("block_structure"))
    method = str(block.get("quant_algo") or block.get("quant_method") or "nothing").lower()
    if method == "fp8":
        return _grouped("float", 8, None, block.get("weight_block_size"))
    if method in ("mxfp4", "nvfp4", "mxfp8"):
        return method
    if method in ("gptq", "awq", "auto-round"):
        return _grouped("int", block.get("bits", block.get("w_bit", 4)), block.get("group_size", 128), None)
    raise ValueError(f"'{method}'")


def _grouped(kind: str, bits: Any, group: Any, blocks: Any) -> str:
    """The format of so many bits with a scale for so many weights in a row, or for a block of them."""
    if (kind, bits) == ("float", 8):
        if blocks in (None, [128, 128]):
            return "fp8" if blocks else "fp8_tensorwise"
        raise ValueError(f"FP8 with scales for blocks of {blocks}")
    known = {
        ("float", 4, 16): "nvfp4",
        ("float", 4, 32): "mxfp4",
        ("int", 4, 32): "int4_g32",
        ("int", 4, 128): "int4",
        ("int", 4, -1): "int4",
    }
    if (kind, bits) == ("int", 8):
        return "int8"
    if (kind, bits, group) in known:
        return known[kind, bits, group]
    raise ValueError(f"{bits}-bit {kind} with a scale for {group} weights")


def _converted(block: Mapping[str, Any], module: str) -> bool:
    groups = block.get("config_groups")
    targets = [
        target
        for group in (groups.values() if isinstance(groups, dict) else ())
        if isinstance(group, dict) and isinstance(group.get("targets"), list)
        for target in group["targets"]
    ]
    if targets and "Linear" not in targets and not any(_matches(str(each), module) for each in targets):
        return False
    return not any(_matches(pattern, module) for pattern in _kept(block))


def _kept(block: Mapping[str, Any]) -> Iterator[str]:
    for key in _KEPT:
        named = block.get(key)
        yield from (str(each) for each in named) if isinstance(named, list) else ()


def _matches(pattern: str, module: str) -> bool:
    """A module, one that holds it, or a part of its dotted name."""
    if pattern.startswith("re:"):
        try:
            return re.match(pattern[3:], module) is not None
        except re.error as error:
            raise ValueError(f"the expression '{pattern}' ({error})") from None
    plain = pattern.removeprefix("language_model.")
    if "*" in plain:
        return fnmatch.fnmatchcase(module, plain) or fnmatch.fnmatchcase(module, f"{plain}.*")
    return f".{plain}." in f".{module}."
