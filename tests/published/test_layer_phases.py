"""One DeepSeek-V3 layer in training on the H800: the published trace against modelled compute."""

from __future__ import annotations

import pytest

from sim.study.compute_rows import layer_phase_rows

ROWS = {row["id"]: row for row in layer_phase_rows()}
PHASES = sorted(set(ROWS) - {"layer-compute"})


@pytest.mark.parametrize("name", PHASES)
def test_each_phase_is_within_eight_percent(name: str) -> None:
    assert ROWS[name]["simulated"] == pytest.approx(ROWS[name]["published"], rel=0.08)


def test_the_six_phases_together_are_within_four_percent() -> None:
    assert len(PHASES) == 6
    assert ROWS["layer-compute"]["simulated"] == pytest.approx(ROWS["layer-compute"]["published"], rel=0.04)


def test_no_time_of_the_trace_entered_a_fit() -> None:
    assert {row["use"] for row in ROWS.values()} == {"validation"}
