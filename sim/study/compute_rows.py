"""Published times of compute kernels beside our own: GEMM, grouped GEMM and attention, row by row.

A row says whether the curves were fitted on it (`calibration`) or predict it (`validation`): half of every table is held
out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import Field

from sim.cluster.hardware import load_hardware
from sim.cost.attention import attention_forward_s, mla_decode_s
from sim.cost.compute import Processor, grouped_gemm_s, processor
from sim.cost.curves import Curves
from sim.schemas import quantity
from sim.study import published
from sim.study.published import Published, Row, Use, row
from sim.study.run import Progress
from sim.study.specification import Branch

MLA_HEADS, MLA_QK_DIM, MLA_V_DIM = 128, 192, 128
USES: tuple[Use, ...] = ("calibration", "validation")


class KernelTable(Branch):
    """Rows of one kernel: its shape, and a time or a rate that says the time."""

    name: str
    source: str
    kernel: Literal["dense", "contiguous", "masked", "mla_decode", "mla_prefill"]
    generation: str = "march_2025"
    """Of the GEMM kernels."""
    spread: quantity("fraction") | None = None  # type: ignore[valid-type]
    """How far rows of an expert were drawn from the expected number."""
    timer: quantity("s") = "0 s"  # type: ignore[valid-type]
    """What the published timer adds to the kernel."""
    columns: list[str]
    calibration: list[list[float]]
    validation: list[list[float]] = Field(default_factory=list)


class KernelFigures(Published):
    """A file of kernel tables."""

    hardware: str
    tables: list[KernelTable]


def rows(figures: KernelFigures, progress: Progress, curves: Curves | None = None) -> Iterator[Row]:
    """Every published time beside ours."""
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
                    _simulated_s(whole, table, shape),
                    use=use,
                    source=table.source,
                    tolerance=figures.bar.worst,
                )


def gemm_rows(curves: Curves | None = None) -> list[Row]:
    """The rows of the group `gemm`, with other curves to be tried."""
    return list(rows(published.load("gemm", KernelFigures)[0], lambda _: None, curves))


def _name(table: KernelTable, shape: Mapping[str, float]) -> str:
    known = (f"{key}{shape[key]:g}" for key in table.columns if key not in ("us", "tflops", "gbps"))
    return "-".join((table.name, *known))


def _published_s(table: KernelTable, shape: Mapping[str, float]) -> float:
    if "us" in shape:
        return shape["us"] * 1e-6
    experts, m, n, k = shape.get("experts", 1), shape["m"], shape["n"], shape["k"]
    if "tflops" in shape:
        return 2.0 * experts * m * n * k / (shape["tflops"] * 1e12)
    return experts * (m * k + n * k + 2.0 * m * n) / (shape["gbps"] * 1e9)


def _simulated_s(whole: Processor, table: KernelTable, shape: Mapping[str, float]) -> float:
    if table.kernel == "mla_decode":
        queries = int(shape["queries"])
        return mla_decode_s(whole, shape["requests"], shape["context"], MLA_HEADS, queries=queries)
    if table.kernel == "mla_prefill":
        tokens = int(shape["sequence"])
        core_s = attention_forward_s(whole, 1, tokens, MLA_HEADS, MLA_QK_DIM, MLA_V_DIM)
        return core_s + float(table.timer)
    if table.spread is not None:
        drawn = drawn_rows(int(shape["experts"]), shape["expected_rows"], shape["rows"], table.spread)
    else:
        drawn = [int(shape["m"])] * int(shape.get("experts", 1))
    planned = shape.get("expected_rows", shape.get("m")) if table.kernel == "masked" else None
    n, k = int(shape["n"]), int(shape["k"])
    return grouped_gemm_s(whole, drawn, n, k, "fp8", layout=table.kernel, expected_rows=planned)


def drawn_rows(experts: int, expected: float, total: float, spread: float) -> Sequence[int]:
    """Rows of each expert as evenly drawn within `spread` of the expected number, scaled to the sum that was drawn."""
    drawn = [int(expected * (1.0 - spread + 2.0 * spread * (i + 0.5) / experts)) for i in range(experts)]
    scale = total / sum(drawn) if sum(drawn) else 0.0
    return [round(rows * scale) for rows in drawn]
