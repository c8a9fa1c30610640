"""Number formats of a job: as written, as its checkpoint has them, or as its GPUs allow."""

from __future__ import annotations

from typing import Any, Literal

from sim.cluster.hardware import Gpu
from sim.documents import Path_
from sim.scenario.draft import Draft
from sim.scenario.values import Branch, WordOr
from sim.workload import formats
from sim.workload.formats import PRODUCTS, Precision, Product, ProductName, WeightFormat

_AT = ("workload", "precision")
_TRAINS = ("bf16", "fp8", "fp8_tensorwise", "mxfp8")

DispatchDtype = Literal["fp8", "bf16", "mxfp8", "nvfp4", "int8"]
CombineDtype = Literal["bf16", "fp8", "logfmt10", "mxfp8", "nvfp4", "int8"]
CacheDtype = Literal["bf16", "fp8", "int8", "nvfp4"]


class WeightsSpec(Branch):
    """Formats of the weights of each part of a model."""

    attention: WeightFormat = "bf16"
    shared: WeightFormat = "bf16"
    """Shared experts."""
    dense: WeightFormat = "bf16"
    """Feed-forward blocks of dense layers."""
    experts: WeightFormat = "bf16"
    """Routed experts."""


GemmFormat = Literal["bf16", "fp8", "fp8_blockwise", "fp8_tensorwise", "mxfp8", "nvfp4", "int8", "w4a8"]


class PrecisionSpec(Branch):
    """Formats of GEMMs, attention cores, cache and weights, each by itself."""

    gemm: GemmFormat = "bf16"
    """Of the operands of GEMMs: fp8_blockwise (fp8 for short) has scales of 1 x 128 and 128 x 128, fp8_tensorwise one a tensor."""
    attention: Literal["bf16", "fp8"] = "bf16"
    """Of the products of attention cores; what they read is then kept in FP8."""
    kv: CacheDtype | None = None
    """Of the cache; `kv_dtype` says the same."""
    weights: WordOr[WeightFormat, WeightsSpec] | None = None
    """Of weights that are held in another format than the GEMM's: with gemm: bf16 held in it alone, and widened when read."""


PrecisionKey = WordOr[GemmFormat, PrecisionSpec] | None
"""The key `precision`: a format for all GEMMs, formats by use, or none."""


def precision_of(
    draft: Draft,
    asked: GemmFormat | PrecisionSpec | None,
    *,
    kv: str | None = None,
    trains: bool = False,
) -> Precision:
    """Choose the formats of a job; a format that the GPU lacks is added to the draft's problems.

    Left out: the formats of the model's weights where its file states them and nothing is trained, else FP8
    where the GPU has it. A job that trains has weights in BF16, only their products in another format, and no
    cache.
    """
    assert draft.hardware is not None
    gpu = draft.hardware.gpu
    stated = draft.model.weights if draft.model and not trains else None
    if isinstance(asked, PrecisionSpec):
        precision = _written(draft, asked, kv, trains)
    elif asked is None and stated is not None:
        held = {part: getattr(stated, part) for part in formats.PARTS}
        precision = Precision.mixed(
            {part: _for_weights(gpu, held[part]) for part in formats.PARTS}, kv=kv or "bf16"
        )
        multiplied = [name for name in precision.parts.values() if PRODUCTS[name].inputs.bits < 16]
        draft.derived["precision"] = {"gemm": multiplied[0] if multiplied else "bf16", "weights": held}
    else:
        word = "fp8" if asked == "fp8_blockwise" else asked
        name: ProductName = word or ("fp8" if gpu.dense_flops.fp8 is not None else "bf16")
        if trains and name not in _TRAINS:
            _problem_of_training(draft, _AT, name)
        precision = Precision.alike(name, kv=kv or "bf16")
        draft.derived["precision"] = name
    if not trains:
        draft.derived["kv_dtype"] = precision.kv
    for name in dict.fromkeys(precision.parts.values()):
        if lack := lacking(gpu, PRODUCTS[name]):
            at = (*_AT, "gemm") if isinstance(asked, PrecisionSpec) else _AT
            held_alone = (
                ""
                if trains
                else f"; weights may be held in it: {{gemm: bf16, weights: {PRODUCTS[name].weights.name}}}"
            )
            draft.problem(
                at, f"'{name}'", f"bf16, or leave it out: {draft.hardware.title} {lack}{held_alone}"
            )
    if precision.cores == "fp8" and gpu.dense_flops.fp8 is None:
        draft.problem((*_AT, "attention"), "'fp8'", f"bf16: {draft.hardware.title} has no FP8 tensor rate")
    return precision


def lacking(gpu: Gpu, product: Product) -> str:
    """Say in words which part of a product a GPU lacks; empty where it has all."""
    if getattr(gpu.dense_flops, product.roof) is None:
        return f"has no {product.roof.upper()} tensor rate"
    if product.scales_in_core and not gpu.scales_blocks:
        return f"does not scale blocks of {product.inputs.name.upper()} in its tensor cores"
    return ""


def _problem_of_training(draft: Draft, at: Path_, name: str) -> None:
    draft.problem(at, f"'{name}'", f"one of: {', '.join(_TRAINS)}; others are of inference")


def _for_weights(gpu: Gpu, held: str) -> ProductName:
    """The fastest product of a GPU for weights that are kept as they are; weight-only where it multiplies no such format."""
    own = PRODUCTS.get(held)
    if own is not None and not lacking(gpu, own):
        return own.name
    only = formats.product("bf16", held)
    assert only is not None  # every format of weights can be widened
    return only.name


def _written(draft: Draft, asked: PrecisionSpec, kv: str | None, trains: bool) -> Precision:
    name = "fp8" if asked.gemm == "fp8_blockwise" else asked.gemm
    if trains:
        if name not in _TRAINS:
            _problem_of_training(draft, (*_AT, "gemm"), asked.gemm)
        for key in ("weights", "kv"):
            if getattr(asked, key) is not None:
                wanted = "no such key in training: weights are BF16, and there is no cache"
                draft.problem((*_AT, key), str(draft.document.get((*_AT, key))), wanted)
    if kv is not None and asked.kv is not None and kv != asked.kv:
        draft.problem(("workload", "kv_dtype"), f"'{kv}' next to precision.kv '{asked.kv}'", "one of them")
    cached = asked.kv or kv or ("fp8" if asked.attention == "fp8" else "bf16")
    if asked.attention == "fp8" and cached != "fp8":
        at = ("workload", "kv_dtype") if asked.kv is None else (*_AT, "kv")
        draft.problem(
            at, f"'{cached}' next to attention: fp8", "fp8: the core multiplies what the cache holds"
        )
    weights = asked.weights
    if isinstance(weights, WeightsSpec):
        held = {part: getattr(weights, part) for part in formats.PARTS}
    else:
        held = dict.fromkeys(formats.PARTS, weights)
    chosen: dict[str, ProductName] = {}
    for part, word in held.items():
        own = formats.product(name, word)
        if own is None and isinstance(weights, WeightsSpec):  # multiplied in its own format, or widened
            own = PRODUCTS.get(str(word)) or formats.product("bf16", word)
        if own is None:
            wanted = "the GEMM's own format, or gemm: bf16 to hold weights alone in this one"
            if not draft.problems or draft.problems[-1].wanted != wanted:
                draft.problem((*_AT, "weights"), f"'{word}' next to gemm: {asked.gemm}", wanted)
            own = PRODUCTS["bf16"]
        chosen[part] = own.name
    written: dict[str, Any] = {"gemm": asked.gemm, "attention": asked.attention}
    written |= {} if trains else {"kv": cached}
    if weights is not None:
        written["weights"] = held if isinstance(weights, WeightsSpec) else weights
    draft.derived["precision"] = written
    return Precision.mixed(chosen, asked.attention, cached)
