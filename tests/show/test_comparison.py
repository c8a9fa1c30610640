"""Which cases are told beside which: choices before hardware, the largest effects, both ways where there are two."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.show.views.comparison import MOST_COMPARED, as_reference, choices, most_different, pairs_of
from sim.show.views.run import RunsView, RunView, views_of


def run(name: str, time_s: float, hardware: str = "h800", **workload: Any) -> dict[str, Any]:
    scenario = {"cluster": {"hardware": hardware, "nodes": 2}, "workload": workload}
    return {name: {"metrics": {"time_s": time_s}, "scenario": scenario}}


def result(*runs: dict[str, Any]) -> RunsView:
    return views_of({"variants": {name: one for run in runs for name, one in run.items()}})


def time_s(run: RunView) -> float:
    return run.metrics["time_s"]


FOUND = result(
    run("base", 1.0),
    run("h100", 0.5, "h100"),
    run("apart", 3.0, overlap=False),
    run("h100-apart", 2.0, "h100", overlap=False),
    run("wide", 0.9, ep=8),
)


def test_choices_are_told_against_the_first_and_hardware_against_its_twin() -> None:
    pairs, rest = pairs_of(FOUND.runs, FOUND.twins, time_s)
    names = [(a.name, b.name) for a, b in pairs]
    assert names == [("base", "apart"), ("base", "wide"), ("base", "h100"), ("apart", "h100-apart")]
    assert rest == ""
    assert [one.name for one in choices(FOUND.runs, FOUND.twins)] == ["apart", "wide"]


def test_a_reference_that_is_not_the_first_is_named() -> None:
    assert as_reference(FOUND.runs[0], FOUND.runs) == ""
    assert as_reference(FOUND.runs[2], FOUND.runs) == " as apart"


def test_what_is_left_out_is_counted() -> None:
    many = result(run("base", 1.0), *(run(f"v{i}", 1.0 + i, ep=i) for i in range(1, 6)))
    chosen, rest = pairs_of(many.runs, many.twins, time_s)
    assert [b.name for _, b in chosen] == ["v5", "v4", "v3"]
    assert rest == "The other 2 differ less."


def test_one_that_is_better_speaks_among_many_that_are_worse() -> None:
    many = result(
        run("base", 1.0), *(run(f"v{i}", 1.0 + i, ep=i) for i in range(1, 6)), run("quick", 0.8, ep=9)
    )
    chosen, _ = pairs_of(many.runs, many.twins, time_s)
    assert [b.name for _, b in chosen] == ["v5", "v4", "quick"]


def test_little_room_keeps_the_largest_choice_and_the_largest_twin() -> None:
    pairs, rest = pairs_of(FOUND.runs, FOUND.twins, time_s, room=2)
    assert [(a.name, b.name) for a, b in pairs] == [("base", "apart"), ("base", "h100")]
    assert rest == "2 more are in the table."


@given(st.lists(st.floats(0.1, 10.0), max_size=9))
def test_the_largest_effect_is_always_told_first(ratios: list[float]) -> None:
    found = most_different(ratios, math.log)
    assert len(found) == min(MOST_COMPARED, len(ratios))
    if ratios:
        assert abs(math.log(found[0])) == pytest.approx(max(abs(math.log(one)) for one in ratios))
        assert {one < 1 for one in found} == {one < 1 for one in ratios} or len(ratios) == 1
