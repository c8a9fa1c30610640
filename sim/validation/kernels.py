"""Times of compute kernels beside our own: GEMM, grouped GEMM, weight gradients, attention, memory; row by row.

A row says whether the curves were fitted on it (`calibration`) or predict it (`validation`): about half of every table that
set anything is held out. Where the clock of the SMs was measured beside the time (`ghz`), ours is the time at that clock:
how far a tensor kernel throttles within its benchmark is no property of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from sim.cluster.hardware import load_hardware
from sim.cost.attention import (
    attention_backward_s,
    attention_forward_s,
    backward_passes_bytes,
    mla_decode_s,
)
from sim.cost.compute import Dtype, Processor, grouped_gemm_s, processor, weight_gemm_s
from sim.cost.curves import Curves
from sim.cost.streaming import streaming_s
from sim.runs.kinds import Progress
from sim.schemas import Fraction, Seconds, written
from sim.validation import published
from sim.validation.published import Published, Row, Use, Weighed, row

MLA_HEADS, MLA_QK_DIM, MLA_V_DIM = 128, 192, 128
MIB = 2.0**20
USES: tuple[Use, ...] = ("calibration", "validation")
_MEASURED = ("us", "tflops", "gbps", "ghz")
"""Columns that are no part of a shape."""

Shape = Mapping[str, float]


class KernelTable(Weighed):
    """Rows of one kernel: its shape, and a time or a rate that says the time; with its clock, where that was measured."""

    name: str
    source: str
    kernel: Literal[
        "dense",
        "contiguous",
        "masked",
        "weight",
        "mla_decode",
        "mla_prefill",
        "attention_forward",
        "attention_backward",
        "stream",
    ]
    dtype: Dtype = "fp8"
    generation: str = "march_2025"
    """Generation of the GEMM kernels."""
    added: bool = True
    """A weight gradient is added to what is there; false: it is only written."""
    spread: Fraction | None = None
    """Distance from the expected number within which the rows of an expert were drawn."""
    timer: Seconds = written("0 s")
    """Time that the published timer adds to the kernel."""
    columns: list[str]
    calibration: list[list[float]] = Field(default_factory=list)
    validation: list[list[float]] = Field(default_factory=list)


class KernelFigures(Published):
    """A file of kernel tables."""

    hardware: str
    tables: list[KernelTable]


def rows(figures: KernelFigures, progress: Progress, curves: Curves | None = None) -> Iterator[Row]:
    """Yield every published time next to ours."""
    progress(figures.group)
    hardware = load_hardware(figures.hardware)
    for table in figures.tables:
        whole = processor(hardware, generation=table.generation, curves=curves)
        for use in USES:
            for values in getattr(table, use):
                shape = dict(zip(table.columns, values, strict=True))
                yield row(
                    _name(table, shape),
                    "time_s",
                    "s",
                    _published_s(table, shape),
                    _SIMULATED[table.kernel](_clocked(whole, shape), table, shape),
                    use=use,
                    source=table.source,
                    machine=hardware.name,
                    tolerance=figures.bar.worst,
                    weighed=table,
                )


def kernel_rows(group: str, curves: Curves | None = None) -> list[Row]:
    """Return the rows of a group of kernels, with other curves to be tried."""
    return list(rows(published.load(group, KernelFigures)[0], lambda _: None, curves))


def _name(table: KernelTable, shape: Shape) -> str:
    return "-".join((table.name, *(f"{key}{shape[key]:g}" for key in table.columns if key not in _MEASURED)))


def _published_s(table: KernelTable, shape: Shape) -> float:
    if "us" in shape:
        return shape["us"] * 1e-6
    experts, m, n, k = shape.get("experts", 1), shape["m"], shape["n"], shape["k"]
    if "tflops" in shape:
        return 2.0 * experts * m * n * k / (shape["tflops"] * 1e12)
    return experts * (m * k + n * k + 2.0 * m * n) / (shape["gbps"] * 1e9)


def _clocked(whole: Processor, shape: Shape) -> Processor:
    """The GPU at the clock at which a row was measured, where that is known."""
    if "ghz" not in shape:
        return whole
    fraction = shape["ghz"] * 1e9 / whole.clock_hz
    return replace(whole, clock_fraction=fraction, sustained_fraction=fraction)


# --- ours ---------------------------------------------------------------------------------------------------------


def _gemm(p: Processor, table: KernelTable, shape: Shape) -> float:
    if table.spread is not None:
        drawn = drawn_rows(int(shape["experts"]), shape["expected_rows"], shape["rows"], table.spread)
    else:
        drawn = [int(shape["m"])] * int(shape.get("experts", 1))
    assert table.kernel in ("dense", "contiguous", "masked")
    planned = shape.get("expected_rows", shape.get("m")) if table.kernel == "masked" else None
    n, k = int(shape["n"]), int(shape["k"])
    return grouped_gemm_s(p, drawn, n, k, table.dtype, layout=table.kernel, expected_rows=planned)


def _weight(p: Processor, table: KernelTable, shape: Shape) -> float:
    tokens, n, k = (int(shape[key]) for key in ("t", "n", "k"))
    return weight_gemm_s(p, (tokens,), n, k, table.dtype, added=table.added)


def _mla_decode(p: Processor, table: KernelTable, shape: Shape) -> float:
    queries = int(shape["queries"])
    return mla_decode_s(p, shape["requests"], shape["context"], MLA_HEADS, queries=queries)


def _mla_prefill(p: Processor, table: KernelTable, shape: Shape) -> float:
    core_s = attention_forward_s(p, 1, int(shape["sequence"]), MLA_HEADS, MLA_QK_DIM, MLA_V_DIM)
    return core_s + float(table.timer)


def _attention(p: Processor, table: KernelTable, shape: Shape) -> float:
    tokens, heads, qk, v = (int(shape[key]) for key in ("sequence", "heads", "qk", "v"))
    if table.kernel == "attention_forward":
        return attention_forward_s(p, 1, tokens, heads, qk, v)
    passes_s = sum(streaming_s(p, moved) for moved in backward_passes_bytes(tokens, heads, qk, v))
    return attention_backward_s(p, 1, tokens, heads, qk, v) + passes_s


def _stream(p: Processor, table: KernelTable, shape: Shape) -> float:
    return streaming_s(p, shape["mib"] * MIB)


_SIMULATED: dict[str, Callable[[Processor, KernelTable, Shape], float]] = {
    "dense": _gemm,
    "contiguous": _gemm,
    "masked": _gemm,
    "weight": _weight,
    "mla_decode": _mla_decode,
    "mla_prefill": _mla_prefill,
    "attention_forward": _attention,
    "attention_backward": _attention,
    "stream": _stream,
}


def drawn_rows(experts: int, expected: float, total: float, spread: float) -> Sequence[int]:
    """Rows of each expert as evenly drawn within `spread` of the expected number, scaled to the sum that was drawn."""
    drawn = [int(expected * (1.0 - spread + 2.0 * spread * (i + 0.5) / experts)) for i in range(experts)]
    scale = total / sum(drawn) if sum(drawn) else 0.0
    return [round(rows * scale) for rows in drawn]
