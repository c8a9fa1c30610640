"""Export-rule verdicts of the shipped parts, against the published thresholds and the parts' known fates."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim.cluster.export_rules import (
    NOTE,
    ChipNumbers,
    april_2025,
    chip_numbers,
    january_2026,
    october_2022,
    october_2023_a,
    october_2023_b,
    verdicts,
)
from sim.cluster.hardware import list_hardware, load_hardware

# TPP, PD [1/mm2], I/O both ways [GB/s]; TPP = dense TOPS x bits, PD = TPP / die area, I/O = 2 NVLink + 2 PCIe
NUMBERS = {
    "a100": (4992, 6.04, 664),
    "a800": (4992, 6.04, 464),
    "h100": (15831, 19.4, 1028),
    "h800": (15831, 19.4, 528),
    "h20": (2368, 2.91, 1028),
    "h200": (15831, 19.4, 1028),
    "b200": (36000, 36000 / 1600, 1928),
    "gb200-nvl72": (40000, 25, None),
    "cloudmatrix384": (12032, None, 784),
    "h20-141g": (2368, 2.91, 1028),
    "b300": (56000, 56000 / 1600, 2056),
    "gb300-nvl72": (60000, 37.5, 1800),
    "cloudmatrix384-dies": (6016, None, 392),
    # 2614.9 TFLOP/s in 8 bits; 8 x 115 + 4 x 370 mm2; 7 links of 64 GB/s and PCIe
    "mi300x": (2614.9 * 8, 2614.9 * 8 / 2400, 1024),
    "mi325x": (2614.9 * 8, 2614.9 * 8 / 2400, 1024),
    "mi355x": (5033.2 * 8, 5033.2 * 8 / 2400, 1203.2),
    "rtx-pro-6000": (7484, 7484 / 750, 128),  # no NVLink
}
TRUTH = {
    "R2022": {"a100": True, "a800": False, "h100": True, "h800": False, "h20": False},
    "R2023.a": {
        "a100": True,
        "a800": True,
        "h100": True,
        "h800": True,
        "h200": True,
        "b200": True,
        "h20": False,
    },
    "R2023.b": {"h20": False},
    # The MI325X, at 20,919 of 21,000 and 6,000 of 6,500 GB/s, is one that the press on the rule names.
    "R2026": {
        "h100": True,
        "h800": True,
        "h200": True,
        "b200": False,
        "b300": False,
        "mi300x": True,
        "mi325x": True,
        "mi355x": False,
    },
}
CHIP = ChipNumbers(
    tpp=4800, pd=3.0, io_bytes_per_s=600e9, dram_bytes_per_s=3e12, scale_up_both_ways_bytes_per_s=400e9
)


def holds(name: str, rule: str) -> bool | None:
    (verdict,) = (verdict for verdict in verdicts(load_hardware(name)) if verdict.rule == rule)
    return verdict.holds


@pytest.mark.parametrize("name", NUMBERS)
def test_tpp_density_and_io_are_those_of_the_real_part(name: str) -> None:
    tpp, pd, io_gb_per_s = NUMBERS[name]
    chip = chip_numbers(load_hardware(name))
    assert chip.tpp == pytest.approx(tpp, rel=0.01)
    assert chip.pd == (None if pd is None else pytest.approx(pd, rel=0.01))
    if io_gb_per_s is not None:
        assert chip.io_bytes_per_s == pytest.approx(io_gb_per_s * 1e9, rel=0.01)


def test_every_shipped_part_has_its_numbers_checked() -> None:
    assert set(NUMBERS) == set(list_hardware())


@pytest.mark.parametrize(
    ("rule", "name", "expected"), [(r, n, e) for r, row in TRUTH.items() for n, e in row.items()]
)
def test_the_truth_table(rule: str, name: str, expected: bool) -> None:
    assert holds(name, rule) is expected


def test_only_the_and_of_2022_let_the_h800_pass() -> None:
    chip = chip_numbers(load_hardware("h800"))
    assert chip.tpp >= 4800
    assert chip.io_bytes_per_s < 600e9
    assert october_2022(replace(chip, io_bytes_per_s=600e9)).holds


def test_an_h800_with_the_nvlink_of_an_h100_falls_under_the_rule_of_2022() -> None:
    faster = load_hardware("h800", {"gpu": {"scale_up": {"bandwidth": "450 GB/s"}}})
    assert verdicts(faster)[0].holds


@pytest.mark.parametrize(
    ("tpp", "io", "expected"), [(4800, 600e9, True), (4799, 600e9, False), (4800, 599e9, False)]
)
def test_2022_needs_both_and_counts_the_thresholds_in(tpp: float, io: float, expected: bool) -> None:
    assert october_2022(replace(CHIP, tpp=tpp, io_bytes_per_s=io)).holds is expected


@pytest.mark.parametrize(
    ("tpp", "pd", "a", "b"),
    [
        (4800, 1.0, True, False),
        (4799, 1.6, False, True),
        (4799, 5.92, True, False),
        (2400, 1.6, False, True),
        (2399, 3.19, False, False),
        (2399, 3.2, False, True),
        (1600, 5.92, True, False),
        (1599, 9.0, False, False),
        (1600, None, None, None),
        (1599, None, False, False),
        (4800, None, True, None),
    ],
)
def test_2023_by_performance_and_density(
    tpp: float, pd: float | None, a: bool | None, b: bool | None
) -> None:
    chip = replace(CHIP, tpp=tpp, pd=pd)
    assert october_2023_a(chip).holds is a
    assert october_2023_b(chip).holds is b


def test_2026_needs_both_below() -> None:
    assert january_2026(replace(CHIP, tpp=20999, dram_bytes_per_s=6499e9)).holds
    assert not january_2026(replace(CHIP, tpp=21000, dram_bytes_per_s=6499e9)).holds
    assert not january_2026(replace(CHIP, tpp=20999, dram_bytes_per_s=6500e9)).holds


def test_the_letter_of_2025_flags_what_equals_the_h20() -> None:
    assert holds("h20", "R2025-H20") is True
    assert holds("h800", "R2025-H20") is False
    assert april_2025(replace(CHIP, scale_up_both_ways_bytes_per_s=900e9)).holds
    assert april_2025(replace(CHIP, dram_bytes_per_s=4000e9)).holds
    assert not april_2025(replace(CHIP, dram_bytes_per_s=3999e9)).holds
    told = [number for verdict in verdicts(load_hardware("h800")) for number in verdict.numbers]
    assert {number for number in told if "memory" in number[0]} == {("memory", 3350.0, "GB/s")}


@pytest.mark.parametrize("name", NUMBERS)
def test_every_verdict_names_its_rule_its_day_and_its_numbers(name: str) -> None:
    for verdict in verdicts(load_hardware(name)):
        assert verdict.citation
        assert verdict.numbers
        assert verdict.sentence.endswith(".")
        assert len(verdict.effective.split("-")) == 3
    assert "not legal advice" in NOTE
