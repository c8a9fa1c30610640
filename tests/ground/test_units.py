"""Units: what reads as what, and the traps between bits and bytes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import units
from sim.units import UnitError, parse


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("400 Gb/s", "bytes/s", 50e9),
        ("400 Gbps", "bytes/s", 50e9),
        ("400 Gbit/s", "bytes/s", 50e9),
        ("400Gb/s", "bytes/s", 50e9),
        ("400 GB/s", "bytes/s", 400e9),
        ("400 GBps", "bytes/s", 400e9),
        ("4e2 GB/s", "bytes/s", 400e9),
        ("16 GiB", "bytes", 16 * 2**30),
        ("16 GB", "bytes", 16e9),
        ("16 Gb", "bytes", 2e9),
        ("1,024 B", "bytes", 1024),
        ("1_024 B", "bytes", 1024),
        ("3.2 us", "s", 3.2e-6),
        ("3.2 µs", "s", 3.2e-6),
        ("500 ns", "s", 5e-7),
        ("2 h", "s", 7200),
        ("989.4 TFLOP/s", "flop/s", 989.4e12),
        ("1.83 GHz", "Hz", 1.83e9),
        ("90 %", "fraction", 0.9),
        ("90%", "fraction", 0.9),
        (0.9, "fraction", 0.9),
        ("14.8 T", "count", 14.8e12),
        (4096, "count", 4096),
        ("-1", "number", -1),
    ],
)
def test_a_quantity_reads_as(text: object, dimension: str, value: float) -> None:
    assert parse(text, dimension) == pytest.approx(value, rel=1e-15)


def test_a_bit_is_an_eighth_of_a_byte() -> None:
    assert parse("400 GB/s", "bytes/s") == 8 * parse("400 Gb/s", "bytes/s")


def test_gib_is_not_gb() -> None:
    assert parse("1 GiB", "bytes") / parse("1 GB", "bytes") == pytest.approx(1.073741824)


@pytest.mark.parametrize(
    ("text", "dimension", "suggestion"),
    [
        ("400", "bytes/s", None),
        (400, "bytes/s", None),
        (400.0, "s", None),
        ("400 gb/s", "bytes/s", "'400 Gb/s'"),
        ("400 GBs", "bytes/s", "'400 GBps'"),
        ("400 GBPS", "bytes/s", "'400 GBps'"),
        ("3 usec", "s", "'3 us'"),
        ("80 gigabytes", "bytes", None),
        ("400 GB", "bytes/s", "'400 GBps'"),
        ("80 GB/s", "bytes", "'80 GB'"),
        ("fast", "bytes/s", None),
        ("", "bytes/s", None),
        ("1e400 B", "bytes", None),
        ("nan B", "bytes", None),
        ("inf B", "bytes", None),
        ("0x10 B", "bytes", None),
        ("1 2 B", "bytes", None),
        ("1,2 B", "bytes", None),
        (True, "count", None),
        (None, "bytes", None),
        ([1], "bytes", None),
        (math.nan, "number", None),
        (math.inf, "fraction", None),
    ],
)
def test_a_wrong_quantity_says_what_was_wanted(text: object, dimension: str, suggestion: str | None) -> None:
    with pytest.raises(UnitError) as caught:
        parse(text, dimension)
    assert units.describe(dimension) in caught.value.wanted
    if suggestion:
        assert caught.value.suggestion == suggestion


def test_a_gigabit_is_not_silently_taken_for_a_gigabyte() -> None:
    """`gb/s` could be meant as either: it is refused."""
    for text in ("400 gb/s", "400 gB/s", "400 GBITS"):
        with pytest.raises(UnitError):
            parse(text, "bytes/s")


@pytest.mark.parametrize(
    ("value", "dimension", "shown"),
    [
        (12634.2, "s", "12,630 s"),
        (3200.0, "s", "3200 s"),
        (5.328e6, "number", "5,328,000"),
        (0.05, "number", "0.05"),
        (3e12, "number", "3e+12"),
        (12345.0, "fraction", "1,234,000 %"),
    ],
)
def test_a_large_number_is_written_out(value: float, dimension: str, shown: str) -> None:
    assert units.show(value, dimension) == shown


@given(st.sampled_from(units.DIMENSIONS), st.floats(1e-9, 1e17))
def test_what_is_shown_reads_as_the_same(dimension: str, value: float) -> None:
    assert parse(units.show(value, dimension, digits=12), dimension) == pytest.approx(value, rel=1e-9)


@given(
    st.sampled_from(units.DIMENSIONS),
    st.text(max_size=12) | st.integers() | st.floats() | st.none() | st.booleans(),
)
def test_anything_reads_or_says_why(dimension: str, anything: object) -> None:
    try:
        assert math.isfinite(parse(anything, dimension))
    except UnitError as error:
        assert error.wanted  # noqa: PT017


@pytest.mark.parametrize(
    ("key", "dimension"),
    [
        ("dispatch.time_s", "s"), ("wire_nic_bytes", "bytes"), ("algbw_bytes_per_s", "bytes/s"), ("peak_flops", "flop/s"),
        ("gap_fraction", "fraction"), ("ranks_per_token", "number"), ("tokens_per_s", "number"),
    ],
)  # fmt: skip
def test_the_suffix_of_a_metric_names_its_dimension(key: str, dimension: str) -> None:
    assert units.dimension_of(key) == dimension
