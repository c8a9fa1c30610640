"""Curves: the few numbers that say what compute kernels lose against the datasheet, read from `hardware/compute/`.

`gemm.yaml`, `attention.yaml` and `streaming.yaml` hold them with grade and source; `load_curves` reads all three into one
frozen `Curves` of SI floats. The equations they enter stand in `sim.cost.compute`.

Why this way: no number belongs to a GPU. A part differs from another by its profile alone (SMs, clock, dense FLOP rate,
HBM rate); a kernel generation differs from another by what it costs to launch and how much of its stores it hides.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim import documents
from sim.cluster import figures as fig
from sim.cluster.figures import Figure
from sim.documents import Document

FOLDER = "hardware/compute"


@dataclass(frozen=True, slots=True)
class Generation:
    """What one generation of GEMM kernels costs beside its tiles, and what it does otherwise."""

    launch_s: float
    store_exposure: float
    """What storing a tile adds, over its bytes at the streaming rate: below 1 part is hidden, above 1 stores are slow."""
    clock_fraction: float = 1.0
    """Clock in a short benchmark over the tensor clock; 1 where it was not measured and lies in the fill."""
    fill_bytes_per_clock: float | None = None
    """Operand bytes that reach one SM in a clock; those of `GemmCurve` where None."""
    widest_tile: int = 128
    """Columns of the widest tile."""
    fp8_tile: int | None = None
    """Rows and columns of the only tile for FP8; a choice of tiles where None."""


@dataclass(frozen=True, slots=True)
class GemmCurve:
    """Loss of matrix multiplications against the roofline."""

    dense_fill_bytes_per_clock: float
    """Operand bytes that reach one SM in a clock."""
    grouped_fill_bytes_per_clock: float
    stream_fraction: float
    """Part of the HBM rate at which operands stream."""
    overlap_exponent: float
    """q of t = (tiles^q + memory^q)^(1/q)."""
    tile_scale_promotions: float
    """CUDA-core operations per accumulator element every 128 elements of K, FP8 with one scale a tile."""
    row_scale_promotions: float
    fp32_lanes_per_sm: float
    generations: Mapping[str, Generation]


@dataclass(frozen=True, slots=True)
class AttentionCurve:
    """What attention cores cost beside their products; clocks of an SM for a block of queries x keys of one head."""

    block_tokens: int
    """Queries, and keys, of a block."""
    forward_other_clocks: float
    backward_to_forward: float
    """FLOP rate of the backward core over that of the forward core."""
    decode_other_clocks: float
    decode_stream_fraction: float
    decode_launch_s: float


@dataclass(frozen=True, slots=True)
class Curves:
    """All curves of compute kernels."""

    gemm: GemmCurve
    attention: AttentionCurve
    streaming_launch_s: float
    figures: tuple[Figure, ...]


class FillFile(fig.Branch):
    """`fill_bytes_per_clock`."""

    dense: fig.Number
    grouped: fig.Number


class PromotionsFile(fig.Branch):
    """`promotions_per_element`."""

    tile_scales: fig.Number
    row_scales: fig.Number


class TileFile(fig.Count):
    """Rows or columns of a tile."""

    minimum = 16.0


class GenerationFile(fig.Branch):
    """One of `generations`."""

    launch: fig.Duration
    store_exposure: fig.Number
    clock_fraction: fig.Fraction | None = None
    fill_bytes_per_clock: fig.Number | None = None
    widest_tile: TileFile | None = None
    fp8_tile: TileFile | None = None


class GenerationsFile(fig.Branch):
    """`generations`."""

    february_2025: GenerationFile
    march_2025: GenerationFile
    september_2025: GenerationFile
    cublas_13: GenerationFile


class ExponentFile(fig.Leaf):
    """A blend, from 1 (times add) upwards (the longer one counts)."""

    minimum = 1.0


class GemmFile(fig.Branch):
    """`hardware/compute/gemm.yaml`."""

    name: str
    title: str
    measured_on: str
    fill_bytes_per_clock: FillFile
    stream_fraction: fig.Fraction
    overlap_exponent: ExponentFile
    promotions_per_element: PromotionsFile
    fp32_lanes_per_sm: fig.Count
    generations: GenerationsFile
    sources: dict[str, str]


class AttentionFile(fig.Branch):
    """`hardware/compute/attention.yaml`."""

    name: str
    title: str
    measured_on: str
    block_tokens: fig.Count
    forward_other_clocks: fig.Number
    backward_to_forward: fig.Fraction
    decode_other_clocks: fig.Number
    decode_stream_fraction: fig.Fraction
    decode_launch: fig.Duration
    sources: dict[str, str]


class StreamingFile(fig.Branch):
    """`hardware/compute/streaming.yaml`."""

    name: str
    title: str
    measured_on: str
    launch: fig.Duration
    sources: dict[str, str]


def load_curves(override: Document | Mapping[str, Any] | None = None) -> Curves:
    """Read the shipped curves.

    `override` is laid over them, keyed by file first: `{"gemm.stream_fraction": 0.9}`; see `sim.cluster.figures.read`.
    """
    return _shipped() if override is None else _read(override)


@functools.cache
def _shipped() -> Curves:
    return _read({})


def _read(override: Document | Mapping[str, Any]) -> Curves:
    tree = override.tree if isinstance(override, Document) else override
    gemm, gemm_document = fig.read(GemmFile, _load("gemm"), _part(tree, "gemm"))
    attention, attention_document = fig.read(AttentionFile, _load("attention"), _part(tree, "attention"))
    streaming, streaming_document = fig.read(StreamingFile, _load("streaming"), _part(tree, "streaming"))
    generations = {
        name: _generation(file)
        for name in GenerationsFile.model_fields
        if isinstance(file := getattr(gemm.generations, name), GenerationFile)
    }
    return Curves(
        gemm=GemmCurve(
            dense_fill_bytes_per_clock=gemm.fill_bytes_per_clock.dense.value,
            grouped_fill_bytes_per_clock=gemm.fill_bytes_per_clock.grouped.value,
            stream_fraction=gemm.stream_fraction.value,
            overlap_exponent=gemm.overlap_exponent.value,
            tile_scale_promotions=gemm.promotions_per_element.tile_scales.value,
            row_scale_promotions=gemm.promotions_per_element.row_scales.value,
            fp32_lanes_per_sm=gemm.fp32_lanes_per_sm.value,
            generations=generations,
        ),
        attention=AttentionCurve(
            block_tokens=int(attention.block_tokens.value),
            forward_other_clocks=attention.forward_other_clocks.value,
            backward_to_forward=attention.backward_to_forward.value,
            decode_other_clocks=attention.decode_other_clocks.value,
            decode_stream_fraction=attention.decode_stream_fraction.value,
            decode_launch_s=attention.decode_launch.value,
        ),
        streaming_launch_s=streaming.launch.value,
        figures=(
            *fig.figures(gemm, gemm_document),
            *fig.figures(attention, attention_document),
            *fig.figures(streaming, streaming_document),
        ),
    )


def _generation(file: GenerationFile) -> Generation:
    return Generation(
        launch_s=file.launch.value,
        store_exposure=file.store_exposure.value,
        clock_fraction=file.clock_fraction.value if file.clock_fraction else 1.0,
        fill_bytes_per_clock=file.fill_bytes_per_clock.value if file.fill_bytes_per_clock else None,
        widest_tile=int(file.widest_tile.value) if file.widest_tile else 128,
        fp8_tile=int(file.fp8_tile.value) if file.fp8_tile else None,
    )


def _load(name: str) -> Document:
    return documents.load(documents.find(name, FOLDER, "curve"))


def _part(tree: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """What an override says about one file: `{name: {...}}` and dotted `{name.key: ...}` alike."""
    part = {key.removeprefix(f"{name}."): value for key, value in tree.items() if key.startswith(f"{name}.")}
    part.update(tree.get(name) or {})
    return part or None
