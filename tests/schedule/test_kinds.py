"""Kinds of all-to-all kernels: one table knows them by name, and what follows from a kind is right for each."""

from __future__ import annotations

import pytest

from sim.errors import InputError
from sim.schedule.collectives import record_bytes


@pytest.mark.parametrize(
    ("kernel", "direction", "dtype", "expected"),
    [
        ("two_hop", "dispatch", "fp8", 7472),
        ("two_hop", "dispatch", "bf16", 14416),
        ("two_hop", "combine", "bf16", 14384),
        ("low_latency", "dispatch", "fp8", 7408),
        ("low_latency", "combine", "bf16", 14336),
        ("flat", "dispatch", "fp8", 7392),
        ("nccl", "dispatch", "bf16", 14336),
    ],
)
def test_bytes_of_a_record(kernel: str, direction: str, dtype: str, expected: int) -> None:
    """Hidden 7168, top-8; DeepEP csrc/kernels/legacy/internode.cu and internode_ll.cu."""
    assert record_bytes(kernel, direction, dtype, 7168, 8) == expected


@pytest.mark.parametrize(("hidden", "expected"), [(5120, 5280), (4096, 4224), (6144, 6336), (2880, 2972)])
def test_fp8_payload_has_a_scale_for_every_128_elements_or_part_of_it(hidden: int, expected: int) -> None:
    assert record_bytes("flat", "dispatch", "fp8", hidden, 8) == expected


def test_logfmt10_combine_is_about_ten_sixteenths_of_bf16() -> None:
    compressed = record_bytes("low_latency", "combine", "logfmt10", 7168, 8)
    assert compressed == 7168 * 10 // 8 + 4 * 56
    assert compressed / record_bytes("low_latency", "combine", "bf16", 7168, 8) == pytest.approx(
        10 / 16, abs=0.02
    )


def test_an_unknown_kind_is_met_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean two_hop"):
        record_bytes("twohop", "dispatch", "fp8", 7168, 8)
    with pytest.raises(InputError, match="did you mean combine"):
        record_bytes("two_hop", "combin", "bf16", 7168, 8)
