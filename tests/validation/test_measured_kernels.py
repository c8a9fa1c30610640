"""Kernel times measured on an H200 and an H100 against the compute model.

Half of one table of the H200 calibrated it; the rest, and everything of the H100, is predicted.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np
import pytest

from figures import by_id, mean_error, rows
from sim.cluster.hardware import load_hardware
from sim.validation import published
from sim.validation.kernels import KernelFigures, KernelTable

GROUPS = ("kernels_h200", "kernels_h100")
GPUS = {group: load_hardware(group.removeprefix("kernels_")).gpu for group in GROUPS}
TABLES = {
    group: {table.name: table for table in published.load(group, KernelFigures)[0].tables} for group in GROUPS
}
H200, OF_H200 = GPUS["kernels_h200"], TABLES["kernels_h200"]
CUBLAS = [
    (group, name)
    for group in GROUPS
    for name, table in TABLES[group].items()
    if table.generation == "cublas_13"
]
FAMILIES = {
    "GEMM": ("gemm_bf16", "head_bf16", "weight_bf16", "weight_bf16_added"),
    "grouped GEMM": ("grouped_bf16",),
    "FP8 GEMM": ("gemm_fp8_blocks", "weight_fp8_blocks"),
    "attention": ("attention_forward", "attention_backward"),
    "memory": ("scale", "add", "read", "copy"),
}
MEANS = {
    "kernels_h200": {"GEMM": 0.06, "grouped GEMM": 0.12, "FP8 GEMM": 0.08, "attention": 0.07, "memory": 0.06},
    "kernels_h100": {"GEMM": 0.07, "grouped GEMM": 0.05, "FP8 GEMM": 0.10, "attention": 0.07, "memory": 0.13},
}
"""Memory on an H100: its profile tells what kernels of a step reach, not the best of them."""


def family(group: str, name: str) -> list[dict[str, object]]:
    return [row for row in rows(group) if row["id"].split("-")[0] in FAMILIES[name]]


def shapes(table: KernelTable) -> list[dict[str, float]]:
    return [dict(zip(table.columns, row, strict=True)) for row in (*table.calibration, *table.validation)]


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_of_kernels_holds_its_bar(group: str, name: str) -> None:
    assert mean_error(family(group, name)) <= MEANS[group][name]


@pytest.mark.parametrize("group", GROUPS)
def test_every_counted_row_belongs_to_a_family(group: str) -> None:
    assert len(rows(group)) == sum(len(family(group, name)) for name in FAMILIES) == 220


def test_both_gpus_ran_the_same_kernels() -> None:
    keys = {group: {(row["id"], row["use"] is not None) for row in rows(group)} for group in GROUPS}
    assert keys["kernels_h200"] == keys["kernels_h100"]


def test_products_and_attention_of_an_h100_are_predicted_from_an_h200() -> None:
    """Nothing of that table calibrated anything; the die is the same, clocks and memory are not."""
    predicted = [row for name in FAMILIES if name != "memory" for row in family("kernels_h100", name)]
    assert {row["use"] for row in predicted} == {"validation"}
    assert mean_error(predicted) <= 0.08


def test_the_hbm_fraction_of_an_h100_lies_between_what_its_kinds_of_kernels_reach() -> None:
    """Elementwise kernels and sums above, row norms below; their mean is what masked GEMMs and a trace of the H800 say."""
    hbm = GPUS["kernels_h100"].hbm
    reached = {
        name: np.mean([s["mib"] * 2.0**20 / (s["us"] * 1e-6) for s in shapes(table) if s["mib"] >= 1024])
        / hbm.bandwidth_bytes_per_s
        for name, table in TABLES["kernels_h100"].items()
        if name in ("scale", "add", "read", "cast", "norm")
    }
    assert reached["norm"] < hbm.efficiency_fraction < min(reached[name] for name in ("scale", "add", "read"))
    kinds = (np.mean([reached[name] for name in ("scale", "add", "read")]), reached["cast"], reached["norm"])
    assert np.mean(kinds) == pytest.approx(hbm.efficiency_fraction, abs=0.02)


def test_tiles_that_are_stored_often_take_as_long_on_an_h100_as_on_an_h200() -> None:
    """Of few products each, in measurement and here, though the memory of one has 1.43 times the rate of the other's."""
    often = [
        f"{kind}-m{m}-n32768-k512" for kind in ("gemm_bf16", "gemm_fp8_blocks") for m in (2048, 4096, 8192)
    ]
    for kind in ("published", "simulated"):
        h100, h200 = (
            {row["id"]: row[kind] for row in rows(group)} for group in ("kernels_h100", "kernels_h200")
        )
        ratios = [h100[name] / h200[name] for name in often]
        assert np.mean(ratios) == pytest.approx(1.02, abs=0.08), kind
        assert max(ratios) < 1.15, kind


def test_what_was_asked_of_bf16_attention_and_memory_is_within_10_percent() -> None:
    asked = [row for name in FAMILIES if name != "FP8 GEMM" for row in family("kernels_h200", name)]
    assert mean_error(asked) <= 0.10
    assert mean_error([row for row in asked if row["use"] == "validation"]) <= 0.10


def test_half_of_one_table_and_the_largest_streams_calibrated() -> None:
    fitted = {row["id"] for row in rows("kernels_h200") if row["use"] == "calibration"}
    assert {name.split("-")[0] for name in fitted} == {"gemm_bf16", "scale", "add", "read"}
    assert {name for name in fitted if "mib" in name} == {
        f"{kernel}-mib{mib}" for kernel in ("scale", "add", "read") for mib in (1024, 2048, 4096)
    }


def test_the_calibrated_half_is_every_other_row_by_the_crc_of_its_name() -> None:
    table = OF_H200["gemm_bf16"]
    names = [f"gemm_bf16-m{row['m']:g}-n{row['n']:g}-k{row['k']:g}" for row in shapes(table)]
    fitted = set(names[: len(table.calibration)])
    assert fitted == set(sorted(names, key=lambda name: crc32(name.encode()))[::2])


def test_held_out_gemms_are_not_predicted_worse_than_calibrated_ones() -> None:
    gemms = [row for row in rows("kernels_h200") if row["id"].startswith("gemm_bf16-")]
    fitted, held_out = ([row for row in gemms if row["use"] == use] for use in ("calibration", "validation"))
    assert len(fitted) == len(held_out) == 27
    assert mean_error(held_out) <= mean_error(fitted) + 0.02


def test_the_hbm_fraction_is_the_median_of_what_set_it() -> None:
    rates = [
        shape["mib"] * 2.0**20 / (shape["us"] * 1e-6)
        for name in ("scale", "add", "read")
        for shape in shapes(OF_H200[name])
        if shape["mib"] >= 1024
    ]
    assert np.median(rates) / H200.hbm.bandwidth_bytes_per_s == pytest.approx(
        H200.hbm.efficiency_fraction, abs=0.005
    )


@pytest.mark.parametrize(("group", "name"), CUBLAS)
def test_no_measured_gemm_is_faster_than_its_clock_allows(group: str, name: str) -> None:
    """4096 FLOP a clock of an SM in BF16, twice that in FP8; the best come within a tenth of it."""
    table = TABLES[group][name]
    per_clock = 4096.0 if table.dtype == "bf16" else 8192.0
    reached = []
    for shape in shapes(table):
        rows_ = shape.get("m", shape.get("t", 0.0)) * shape.get("experts", 1)
        flop = 2.0 * rows_ * shape["n"] * shape["k"]
        reached.append(flop / (shape["us"] * 1e-6) / (GPUS[group].sms * per_clock * shape["ghz"] * 1e9))
    assert max(reached) < 1.0
    assert max(reached) > (0.9 if table.dtype == "bf16" else 0.55)


@pytest.mark.parametrize("group", GROUPS)
def test_heavy_kernels_throttle_and_memory_does_not(group: str) -> None:
    """Products of much work run well below the 1.83 GHz of the data sheet, those of little near it."""
    clocks = {
        heavy: np.mean(
            [
                s["ghz"]
                for s in shapes(TABLES[group]["gemm_bf16"])
                if (s["m"] * s["n"] * s["k"] > 2e11) is heavy
            ]
        )
        for heavy in (True, False)
    }
    assert clocks[True] < 0.87 * GPUS[group].tensor_clock_hz / 1e9
    assert clocks[True] < clocks[False] < GPUS[group].tensor_clock_hz / 1e9


@pytest.mark.parametrize("group", GROUPS)
def test_what_the_model_does_not_know_is_printed_and_not_counted(group: str) -> None:
    unknown = {name for name, table in TABLES[group].items() if not table.counted}
    assert {"gemm_fp8_rows", "grouped_fp8_rows", "cast", "norm", "transpose", "copy_engine"} <= unknown
    printed = by_id(group)
    assert all(row["bar"] is None for name, row in printed.items() if name.split("-")[0] in unknown)


@pytest.mark.parametrize("group", GROUPS)
def test_the_backward_attention_of_another_library_supports_the_assumed_ratio(group: str) -> None:
    """FLOP rates at equal clock, the passes around the core taken off: 0.78 to 0.90, the assumed 0.85 between."""
    forward, backward = (
        {(s["sequence"], s["qk"]): s for s in shapes(TABLES[group][f"attention_{way}"])}
        for way in ("forward", "backward")
    )
    ratios, hbm = [], GPUS[group].hbm
    for key, after in backward.items():
        before, scores = forward[key], after["sequence"] * after["heads"]
        passes_us = (
            scores
            * (4 * after["v"] + 10 * after["qk"])
            / (hbm.bandwidth_bytes_per_s * hbm.efficiency_fraction)
            * 1e6
        )
        products = (3 * after["qk"] + 2 * after["v"]) / (after["qk"] + after["v"])
        core_cycles = (after["us"] - passes_us) * after["ghz"]
        ratios.append(products * before["us"] * before["ghz"] / core_cycles)
    assert len(ratios) == 6
    assert 0.75 < min(ratios) < 0.85 < max(ratios) < 0.92
    assert np.mean(ratios) == pytest.approx(0.85, abs=0.03)
