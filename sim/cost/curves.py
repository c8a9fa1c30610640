"""Curves: the few numbers that say what compute launches lose against the datasheet, read from `hardware/compute/`.

`gemm.yaml`, `attention.yaml` and `streaming.yaml` hold them with grade and source; `load_curves` reads all three into one
frozen `Curves` in SI units. The equations they enter are those of `sim.cost.compute` and `sim.cost.attention`.

Why this way: no number belongs to a GPU. A part differs from another by its profile alone (SMs, clock, dense FLOP rate,
HBM rate); a generation of GEMMs differs from another by what it costs to launch and how quickly it stores.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from sim import documents
from sim.cluster import parameters as p
from sim.descriptions import Description
from sim.documents import Document
from sim.workload.formats import Promotion

FOLDER = "hardware/compute"

Tile = Annotated[int, p.Sourced("count", "Rows or columns of a tile.", least=16.0, whole=True)]
Exponent = Annotated[
    float, p.Sourced("number", "A blend, from 1 (times add) upwards (the longer one counts).", least=1.0)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation(Description):
    """Cost of one generation of GEMMs besides its tiles, and what else it does differently."""

    launch_s: p.Duration
    store_bytes_per_clock: p.Number
    """Bytes of a finished tile that leave an SM in a clock, at the full tensor clock; more, where part is hidden behind the next tile."""
    clock_fraction: p.Fraction = 1.0
    """Clock in a short benchmark over the tensor clock; 1 where it was not measured and lies in the fill."""
    fill_bytes_per_clock: p.Number | None = None
    """Operand bytes that reach one SM in a clock; those of all generations where left out."""
    widest_tile: Tile = 128
    """Columns of the widest tile."""
    fp8_tile: Tile | None = None
    """Rows and columns of the only tile for FP8; a choice of tiles where left out."""
    resident_blocks: p.Count | None = None
    """Blocks that a launch has for every SM of the whole GPU, each of many tiles, whatever else runs there; one a tile on the SMs that
    it was told of where left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill(Description):
    """Operand bytes that reach one SM in a clock."""

    dense: p.Number
    grouped: p.Number


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotions(Description):
    """CUDA-core operations per accumulator element every 128 elements of K, in FP8."""

    tile_scales: p.Number
    """For operands with one scale a tile."""
    row_scales: p.Number
    """For operands that both have one scale a row."""

    def operations(self, promotion: Promotion) -> float:
        """Operations an element of a product whose sums are promoted in this way."""
        return {"none": 0.0, "tile": self.tile_scales, "row": self.row_scales}[promotion]


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmCurve(p.SourcedFile):
    """Loss of matrix multiplications against the roofline."""

    name: str
    title: str
    measured_on: str
    fill_bytes_per_clock: Fill
    stream_fraction: p.Fraction
    """Part of the HBM rate at which operands stream."""
    overlap_exponent: Exponent
    """q of t = (tiles^q + memory^q)^(1/q)."""
    promotions_per_element: Promotions
    widening_per_weight: p.Number
    """CUDA-core operations that widen one weight held in fewer bits than its inputs, each time a tile reads it."""
    fp32_lanes_per_sm: p.Count
    generations: dict[str, Generation] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCurve(p.SourcedFile):
    """Cost of attention cores besides their products; clocks of an SM for a block of queries x keys of one head."""

    name: str
    title: str
    measured_on: str
    block_tokens: p.Count
    """Queries, and keys, of a block."""
    forward_other_clocks: p.Number
    backward_to_forward: p.Fraction
    """FLOP rate of the backward core over that of the forward core."""
    decode_other_clocks: p.Number
    decode_stream_fraction: p.Fraction
    decode_launch_s: p.Duration


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamingCurve(p.SourcedFile):
    """Cost of launches that only move bytes, besides the bytes."""

    name: str
    title: str
    measured_on: str
    launch_s: p.Duration
    gap_s: p.Duration
    """Part of the time of any launch in which a profiler shows no kernel on its stream."""


@dataclass(frozen=True, slots=True)
class Curves:
    """All curves of compute launches."""

    gemm: GemmCurve
    attention: AttentionCurve
    streaming: StreamingCurve

    @property
    def parameters(self) -> tuple[p.Parameter, ...]:
        """Every number of the three files, with grade and source."""
        return (*self.gemm.parameters, *self.attention.parameters, *self.streaming.parameters)


def load_curves(override: Document | Mapping[str, Any] | None = None) -> Curves:
    """Read the shipped curves.

    Parameters
    ----------
    override : Document or mapping, optional
        What to replace, keyed by file first: `{"gemm.stream_fraction": 0.9}`; see `sim.cluster.parameters.read`.

    Returns
    -------
    Curves
        In SI units; without an override every call returns the same object.

    Raises
    ------
    InputError
        With every problem of the override.

    Examples
    --------
    >>> load_curves({"gemm.stream_fraction": 0.9}).gemm.stream_fraction
    0.9
    """
    return _shipped() if override is None else _read(override)


@functools.cache
def _shipped() -> Curves:
    return _read({})


def _read(override: Document | Mapping[str, Any]) -> Curves:
    tree = override.tree if isinstance(override, Document) else override

    def curve(name: str, model: type[p.D]) -> p.D:
        document = documents.load(documents.find(name, FOLDER, "curve"))
        return p.read(model, document, _part(tree, name))[0]

    return Curves(
        curve("gemm", GemmCurve), curve("attention", AttentionCurve), curve("streaming", StreamingCurve)
    )


def _part(tree: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Pick the part of an override that is about one file: `{name: {...}}` and dotted `{name.key: ...}` alike."""
    part = {key.removeprefix(f"{name}."): value for key, value in tree.items() if key.startswith(f"{name}.")}
    part.update(tree.get(name) or {})
    return part or None
