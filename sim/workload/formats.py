"""Formats of numbers: bits, scales, and the tensor rate at which their products run.

Every byte of a tensor is counted from its `NumberFormat`: held in memory, read by a kernel, or sent. A `Product` names the formats
of both operands of a matrix multiplication and the peak of the datasheet that it runs at.

Why this way: a deployment that holds one byte a weight and reads two is wrong twice, so nobody else multiplies elements by a
size. A format that no tensor core multiplies can still be held: *weight-only* products read such weights and widen them on
their way to BF16 multiplications.

References
----------
Blocks of 128 and 128 x 128: DeepSeek-V3, arXiv 2412.19437, section 3.3. MXFP8, MXFP4 (an E8M0 scale for 32): OCP Microscaling
Formats 1.0. NVFP4 (an E4M3 scale for 16): NVIDIA Blackwell architecture brief. INT4 in groups of 128: GPTQ, arXiv 2210.17323, and
AWQ, arXiv 2306.00978. LogFMT: "Insights into DeepSeek-V3", arXiv 2505.09343, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

Roof = Literal["bf16", "fp8", "int8", "fp4"]
ROOFS: tuple[Roof, ...] = get_args(Roof)

Promotion = Literal["none", "tile", "row"]
"""Partial sums scaled on CUDA cores: never, by one scale a tile, or by a scale a row of either operand."""


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """Format of the numbers of a tensor: bits of an element, and of a scale that `block` elements share (0: a whole row)."""

    name: str
    bits: int
    scale_bits: int = 0
    block: int = 0

    @property
    def element_bytes(self) -> float:
        """Bytes of an element with its part of a block's scale; the scale of a whole row is counted by `row_bytes` alone."""
        return (self.bits + (self.scale_bits / self.block if self.block else 0.0)) / 8.0

    def row_bytes(self, width: int) -> int:
        """Bytes of one row of so many elements with all of its scales, each rounded up to whole bytes."""
        scales = math.ceil(width / (self.block or width))
        return -(-width * self.bits // 8) + -(-self.scale_bits * scales // 8)


FORMATS = {
    kept.name: kept
    for kept in (
        NumberFormat("fp32", 32),
        NumberFormat("bf16", 16),
        NumberFormat("fp8", 8, 32, 128 * 128),
        NumberFormat("fp8_rows", 8, 32, 128),
        NumberFormat("fp8_tensorwise", 8),
        NumberFormat("mxfp8", 8, 8, 32),
        NumberFormat("int8", 8, 32),
        NumberFormat("int4", 4, 16, 128),
        NumberFormat("int4_g32", 4, 16, 32),
        NumberFormat("mxfp4", 4, 8, 32),
        NumberFormat("nvfp4", 4, 8, 16),
        NumberFormat("logfmt10", 10, 32, 128),
    )
}
"""Name -> format. `fp8` is that of weights, a scale for each block of 128 x 128; `fp8_rows` that of their inputs, 1 x 128."""

SENT = {
    "fp8": FORMATS["fp8_rows"],
    **{name: FORMATS[name] for name in ("bf16", "mxfp8", "nvfp4", "int8", "logfmt10")},
}
"""Formats of tokens on their way between ranks, by the names that scenarios use."""

CACHED = {"fp8": FORMATS["fp8_tensorwise"], **{name: FORMATS[name] for name in ("bf16", "int8", "nvfp4")}}
"""Formats of a KV cache; FP8 with one scale a head or tensor."""


ProductName = Literal[
    "bf16", "fp8", "fp8_tensorwise", "mxfp8", "nvfp4", "int8", "w4a8",
    "fp8_bf16", "fp8_tensorwise_bf16", "mxfp8_bf16", "int8_bf16", "int4_bf16", "int4_g32_bf16", "mxfp4_bf16", "nvfp4_bf16",
]  # fmt: skip

WeightFormat = Literal["bf16", "fp8", "fp8_tensorwise", "mxfp8", "int8", "int4", "int4_g32", "mxfp4", "nvfp4"]
"""Formats in which weights are held."""


@dataclass(frozen=True, slots=True)
class Product:
    """Formats of the operands of a matrix multiplication, its tensor rate, and how its sums are scaled.

    `scales_in_core` needs a tensor core that scales blocks itself; one that does never promotes.
    """

    name: ProductName
    weights: NumberFormat
    inputs: NumberFormat
    roof: Roof
    forward: Promotion = "none"
    input_gradient: Promotion = "none"
    weight_gradient: Promotion = "none"
    scales_in_core: bool = False

    @property
    def is_weight_only(self) -> bool:
        """True where weights are widened before they are multiplied."""
        return self.weights.bits < self.inputs.bits

    @property
    def copies_bytes(self) -> float:
        """Copies of a trained BF16 weight for its products [bytes]: by rows and by columns, alike for square blocks."""
        if self.weights.bits >= FORMATS["bf16"].bits:
            return 0.0
        return self.weights.element_bytes * (1.0 if self.name == "fp8" else 2.0)


def _products() -> dict[str, Product]:
    f = FORMATS
    made = [
        Product("bf16", f["bf16"], f["bf16"], "bf16"),
        Product("fp8", f["fp8"], f["fp8_rows"], "fp8", "tile", "tile", "row"),
        # Fast accumulation forward, sums in FP32 backward: the defaults of Transformer Engine's recipes.
        Product("fp8_tensorwise", f["fp8_tensorwise"], f["fp8_tensorwise"], "fp8", "none", "tile", "tile"),
        Product("mxfp8", f["mxfp8"], f["mxfp8"], "fp8", scales_in_core=True),
        Product("nvfp4", f["nvfp4"], f["nvfp4"], "fp4", scales_in_core=True),
        Product("int8", f["int8"], f["int8"], "int8"),
        Product("w4a8", f["int4"], f["fp8_tensorwise"], "fp8"),
    ]
    widened = [word for word in get_args(WeightFormat) if word != "bf16"]
    made += [Product(cast(ProductName, f"{word}_bf16"), f[word], f["bf16"], "bf16") for word in widened]
    return {product.name: product for product in made}


PRODUCTS = _products()
"""Name -> product. `fp8` has scales a block, `fp8_tensorwise` one scale a tensor; `X_bf16` holds weights in X alone."""


PARTS = ("attention", "shared", "dense", "experts")
"""Parts of a model whose weights may have formats of their own: shared and routed experts, blocks of dense layers."""


@dataclass(frozen=True, slots=True)
class Precision:
    """Formats of a job: the product of each part's GEMMs, the tensor rate of attention cores, and the cache."""

    attention: ProductName
    shared: ProductName
    dense: ProductName
    experts: ProductName
    cores: Roof = "bf16"
    kv: str = "bf16"

    @classmethod
    def alike(cls, name: ProductName, cores: Roof = "bf16", kv: str = "bf16") -> Precision:
        """Make the record of one product for all parts."""
        return cls.mixed(dict.fromkeys(PARTS, name), cores, kv)

    @classmethod
    def mixed(cls, parts: Mapping[str, ProductName], cores: Roof = "bf16", kv: str = "bf16") -> Precision:
        """Make the record of a product for each part of `PARTS`."""
        return cls(**parts, cores=cores, kv=kv)

    @property
    def parts(self) -> dict[str, ProductName]:
        """Part of `PARTS` -> product."""
        return {part: getattr(self, part) for part in PARTS}

    @property
    def received_bytes(self) -> float:
        """Bytes of an element of the rows that experts take."""
        return PRODUCTS[self.experts].inputs.element_bytes

    @property
    def cache(self) -> NumberFormat:
        """Format of the cache."""
        return CACHED[self.kv]


def product(inputs: str, weights: str | None = None) -> Product | None:
    """Find the product of weights that are held in another format than a named product's own; None where no kernel is known.

    `fp8_blockwise` is `fp8`.

    Examples
    --------
    >>> product("bf16", "int4").name, product("fp8_tensorwise", "int4").name, product("fp8", "mxfp4")
    ('int4_bf16', 'w4a8', None)
    """
    own = PRODUCTS.get("fp8" if inputs == "fp8_blockwise" else inputs)
    if own is None or weights is None:
        return own
    wanted = (FORMATS.get(weights), own.inputs, own.roof)
    products = PRODUCTS.values()
    return next((each for each in products if (each.weights, each.inputs, each.roof) == wanted), None)
