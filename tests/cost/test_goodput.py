"""Effective training time in closed form, against its limits and published estimates."""

from __future__ import annotations

import math

import pytest

from sim.cost.goodput import best_every_s, ettr_fraction


def test_at_18_minutes_between_failures_first_order_is_far_off() -> None:
    """M = 1,080 s, a checkpoint of 60 s at Young's interval of 360 s, a restart of 300 s: 0.53, where 1 - losses says 0.39."""
    young_s = math.sqrt(2 * 60 * 1080)
    assert young_s == pytest.approx(360)
    assert ettr_fraction(1080, young_s, 60, 300) == pytest.approx(0.531, abs=0.001)
    assert pytest.approx(0.389, abs=0.001) == 1 - 60 / 360 - 360 / 2 / 1080 - 300 / 1080


def test_rare_failures_cost_their_first_order_terms() -> None:
    mtbf, every, write, restart = 1e7, 3600.0, 30.0, 600.0
    lost = write / every + every / 2 / mtbf + restart / mtbf
    assert 1 - ettr_fraction(mtbf, every, write, restart) == pytest.approx(lost, rel=0.02)


@pytest.mark.parametrize("write_s", [1.0, 60.0, 500.0])
def test_no_interval_between_checkpoints_beats_dalys_by_more_than_a_tenth_percent(write_s: float) -> None:
    best = best_every_s(1080, write_s)
    reached = ettr_fraction(1080, best, write_s, 300)
    for other in (best * 1.1**i for i in range(-20, 21)):
        assert ettr_fraction(1080, other, write_s, 300) <= reached * 1.001


def test_what_fails_before_anything_is_saved_does_nothing() -> None:
    assert ettr_fraction(1.0, 1e6, 60, 300) == 0.0
