"""Constraints: what an expression means, and what is said of one that means nothing."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import InputError, Mark
from sim.sweeps.expressions import parse

HERE = Mark("sweep.yaml", 7, 3)
VALUES: dict[str, Any] = {
    "layout.ep": 64, "layout.tp": 8, "memory.total_bytes": 70e9, "workload.schedule": "dualpipe", "tpot_s": 0.04,
    "phases.1F1B_s": 3.0, "workload.overlap": True,
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "layout.ep * layout.tp == 512 and memory.total_bytes < 72 GB",
        "layout.ep*layout.tp==512 and memory.total_bytes<72GB",
        "tpot_s <= 50 ms",
        "0.5 < 90 %",
        "0.5 < 90 % and true == true",
        "layout.ep % 8 == 0",
        "layout.ep %8 == 0",
        "10 % 3 == 1",
        "400 Gb/s == 50 GB/s",
        "16 GiB == 16 * 1024 * 1024 * 1024 B",
        "workload.schedule == 'dualpipe'",
        'workload.schedule != "1f1b" or layout.ep < 0',
        "not layout.ep < 64",
        "not not layout.ep == 64",
        "-layout.ep == 0 - 64",
        "2 + 3 * 4 == 14",
        "(2 + 3) * 4 == 20",
        "7 // 2 == 3",
        "min(layout.ep, 8) == 8 and max(1, 2, 3) == 3 and abs(-2) == 2 and log2(layout.ep) == 6",
        "phases.1F1B_s > 2",
        "workload.overlap == true",
        "layout.ep == 1 or layout.ep == 2 or layout.ep == 64",
    ],
)
def test_an_expression_holds(text: str) -> None:
    assert parse(text).holds(VALUES)
    assert not parse(f"not ({text})").holds(VALUES)


def test_and_binds_tighter_than_or() -> None:
    assert parse("layout.ep == 64 or layout.ep == 1 and layout.tp == 1").holds(VALUES)


def test_names_are_told_in_their_order_and_once() -> None:
    assert parse("b.c < a and b.c > min(1, d)").names == ("b.c", "a", "d")


def test_nothing_is_less_than_a_number_over_zero() -> None:
    assert not parse("1 / layout.pp < 3").holds({"layout.pp": 0})


def test_nothing_is_less_than_the_logarithm_of_zero() -> None:
    assert not parse("log2(bubble_s) < 3").holds({"bubble_s": 0.0})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "got the end"),
        ("a <", "column 4; wanted a number, a name"),
        ("a < 3 GX", "got the unit 'GX'"),
        ("a < 72 Gbs", "did you mean Gbps?"),
        ("maxx(3, 4) < 5", "did you mean max?"),
        ("(a < 1", "got a parenthesis that stays open"),
        ("a < b c", "got 'c' after what is whole"),
        ("a < b < c", "two comparisons joined by 'and'"),
        ("a && b", "got '&'"),
        ("a == 'x", "got '''"),
        ("a < 1e309", "wanted a finite number"),
        ("a < " + "9" * 400 + " GB", "wanted a finite number"),
        ("min(3) < 4", "wanted two values or more"),
        ("layout.ep", "wanted a comparison"),
        ("__import__('os').system('true') == 0", "wanted one of the functions"),
        ("(" * 100 + "a < 1" + ")" * 100, "a flatter expression"),
        ("a < 1 or " * 200 + "a < 1", "at most 500"),
    ],
)
def test_what_is_no_expression_is_told(text: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert told in str(caught.value)


def test_a_word_cannot_be_compared_by_size() -> None:
    with pytest.raises(InputError, match="values that can be compared"):
        parse("workload.schedule < 3").holds(VALUES)


@pytest.mark.parametrize(
    "text",
    [
        "'a' * 99999999999 == 'x'",
        "'%99999999999d' % layout.ep == 'x'",
        "workload.schedule + 'x' == 'dualpipex'",
        "-workload.schedule == 3",
    ],
)
def test_a_word_cannot_be_computed_with(text: str) -> None:
    """Python would repeat it, or fill it in, until memory is full."""
    with pytest.raises(InputError, match="values that can be compared and computed with"):
        parse(text).holds(VALUES)


def test_an_expression_travels_to_workers() -> None:
    there = pickle.loads(pickle.dumps(parse("layout.ep <= 64")))
    assert there.holds(VALUES)
    assert there.names == ("layout.ep",)


def test_what_is_wrong_comes_back_from_a_worker_word_for_word() -> None:
    with pytest.raises(InputError) as caught:
        parse("workload.schedule < 3", HERE).holds(VALUES)
    there = pickle.loads(pickle.dumps(caught.value))
    assert str(there) == str(caught.value)
    assert there.problems == caught.value.problems


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 50))
def test_arithmetic_is_that_of_numbers(a: int, b: int, c: int) -> None:
    text = f"a + b * c - b // c == {a + b * c - b // c} and a % c == {a % c}"
    assert parse(text).holds({"a": a, "b": b, "c": c})


@given(st.floats(0.001, 1e6, allow_nan=False), st.sampled_from(["GB", "MB", "kB", "GiB"]))
def test_a_quantity_means_what_it_means_in_a_scenario(number: float, unit: str) -> None:
    from sim import units

    wanted = units.parse(f"{number!r} {unit}", "bytes")
    assert parse(f"a == {number!r} {unit}").holds({"a": wanted})
    assert not parse(f"a < {number!r} {unit}").holds({"a": math.nextafter(wanted, math.inf)})
