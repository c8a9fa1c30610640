"""Which cases are told beside which: choices before hardware, the largest effects, both ways where there are two."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.show.views.comparison import MOST_TOLD, as_reference, choices, most_different, told
from sim.show.views.run import Case


def case(name: str, time_s: float, hardware: str = "h800", **workload: Any) -> Case:
    scenario = {"cluster": {"hardware": hardware, "nodes": 2}, "workload": workload}
    return Case(name, {"metrics": {"time_s": time_s}, "scenario": scenario})


def time_s(one: Case) -> float:
    return float(one.metrics["time_s"])


FOUND = [
    case("base", 1.0),
    case("h100", 0.5, "h100"),
    case("apart", 3.0, overlap=False),
    case("h100-apart", 2.0, "h100", overlap=False),
    case("wide", 0.9, ep=8),
]


def test_choices_are_told_against_the_first_and_hardware_against_its_twin() -> None:
    chosen, pairs, rest = told(FOUND, time_s)
    assert [(a.name, b.name) for a, b in chosen] == [("base", "apart"), ("base", "wide")]
    assert [(a.name, b.name) for a, b in pairs] == [("base", "h100"), ("apart", "h100-apart")]
    assert rest == ""
    assert [one.name for one in choices(FOUND)] == ["apart", "wide"]


def test_a_reference_that_is_not_the_first_is_named() -> None:
    assert as_reference(FOUND[0], FOUND) == ""
    assert as_reference(FOUND[2], FOUND) == " as apart"


def test_what_is_left_out_is_counted() -> None:
    many = [case("base", 1.0), *(case(f"v{i}", 1.0 + i, ep=i) for i in range(1, 6))]
    chosen, _, rest = told(many, time_s)
    assert [b.name for _, b in chosen] == ["v5", "v4", "v3"]
    assert rest == "The other 2 differ less."


def test_one_that_is_better_speaks_among_many_that_are_worse() -> None:
    many = [case("base", 1.0), *(case(f"v{i}", 1.0 + i, ep=i) for i in range(1, 6)), case("quick", 0.8, ep=9)]
    chosen, _, _ = told(many, time_s)
    assert [b.name for _, b in chosen] == ["v5", "v4", "quick"]


@given(st.lists(st.floats(0.1, 10.0), max_size=9))
def test_the_largest_effect_is_always_told_first(ratios: list[float]) -> None:
    found = most_different(ratios, math.log)
    assert len(found) == min(MOST_TOLD, len(ratios))
    if ratios:
        assert abs(math.log(found[0])) == pytest.approx(max(abs(math.log(one)) for one in ratios))
        assert {one < 1 for one in found} == {one < 1 for one in ratios} or len(ratios) == 1
