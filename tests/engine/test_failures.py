"""Runs that fail: against runs played by hand, and against the closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim.cost.goodput import ettr_fraction, straggler_fraction
from sim.engine.failures import FailureRecord, Stragglers, run_failures


class Scripted:
    """A generator of times between failures that are written down."""

    def __init__(self, *times_s: float) -> None:
        self.times_s = [*times_s, *[1e9] * 4]

    def exponential(self, mean_s: float) -> float:
        return self.times_s.pop(0)

    def multinomial(self, count: int, parts: Any) -> Any:
        return np.array([count])


def played(*times_s: float, **more: Any) -> FailureRecord:
    """100 s of training, saved every 30 s for 5 s; a restart takes 10 s."""
    rng: Any = Scripted(*times_s)
    return run_failures(100, {"gpu": 1e6}, every_s=30, write_s=5, restart_s=10, rng=rng, **more)


def test_without_failures_only_checkpoints_are_lost_and_the_end_is_not_saved() -> None:
    run = played()
    assert (run.trained_s, run.saving_s, run.lost_s, run.wall_s) == (100, 15, 15, 115)


def test_a_failure_takes_the_run_back_to_its_last_checkpoint() -> None:
    run = played(50)  # saved at 35; 15 s undone; 70 s left, saved twice
    assert (run.saving_s, run.undone_s, run.restarting_s) == (15, 15, 10)
    assert run.wall_s == 50 + 10 + 70 + 10


def test_a_failure_within_a_checkpoint_or_a_restart_undoes_it() -> None:
    run = played(33, 4)  # in the first checkpoint; then after 4 s of the restart
    assert (run.undone_s, run.restarting_s, run.saving_s) == (33, 14, 15)
    assert sum(run.failures.values()) == 2


def test_without_a_spare_a_run_waits_for_the_repair_and_with_one_only_for_the_second() -> None:
    assert played(50, spares=0, repair_s=500).waiting_s == 500
    assert played(50, spares=1, repair_s=500).waiting_s == 0
    assert (
        played(50, 20, 20, spares=1, repair_s=500).waiting_s == 500 - 30
    )  # 20 s of training after a restart


SLOW = Stragglers(1e6, speed_fraction=0.5, detect_s=20, swap_s=7)


def test_a_slow_gpu_slows_the_run_until_it_is_found_and_its_swap_undoes_nothing() -> None:
    """Slow from 45 to 65, 5 s of training more; 7 s of swap; saved there at 40, so 60 are left with one save."""
    run = played(1e9, 45, stragglers=SLOW)  # 30 saved at 35, 10 more by 45, 10 in 20 s
    assert (run.slowed_s, run.swapping_s, run.undone_s, run.stragglers) == (10, 7, 0, 1)
    assert run.saving_s == 5 + 5
    assert run.wall_s == 100 + 10 + 7 + 10


def test_a_failure_next_to_a_slow_gpu_undoes_the_slow_hours_too_and_restarts_without_it() -> None:
    run = played(55, 45, stragglers=SLOW)  # saved at 35; 10 s at full pace and 10 at half undone
    assert (run.undone_s, run.slowed_s, run.swapping_s) == (20, 0, 0)
    assert run.wall_s == 55 + 10 + 70 + 10


def test_a_failure_within_a_swap_undoes_nothing() -> None:
    run = played(68, 45, stragglers=SLOW)  # found at 65 with 50 s trained and saved; 3 s into the swap
    assert (run.undone_s, run.slowed_s, run.swapping_s, run.restarting_s) == (0, 10, 3, 10)
    assert run.wall_s == 68 + 10 + 50 + 5


@pytest.mark.parametrize(
    ("speed", "detect_s", "swap_s"), [(0.8, 3600, 300), (0.3, 10_000, 2000), (1.0, 600, 0)]
)
def test_stragglers_leave_the_fraction_of_the_closed_form(
    speed: float, detect_s: float, swap_s: float
) -> None:
    """A swap saves the state, so checkpoints are too rare to matter here; what never fails does nothing else."""
    slow = Stragglers(5000, speed, detect_s, swap_s)
    rng = np.random.default_rng(0)
    run = run_failures(5e7, {"gpu": 1e15}, every_s=1e6, write_s=0, restart_s=1, rng=rng, stragglers=slow)
    assert run.trained_s == 5e7
    assert run.trained_s / run.wall_s == pytest.approx(
        straggler_fraction(5000, speed, detect_s, swap_s), rel=0.02
    )


def test_failures_and_rare_stragglers_multiply() -> None:
    slow = Stragglers(300_000, 0.5, 30_000, 600)
    rng = np.random.default_rng(0)
    run = run_failures(
        1e12, {"gpu": 90_000}, every_s=3600, write_s=60, restart_s=600, rng=rng, stragglers=slow, most=30_000
    )
    # Slow times are cut by restarts: of 30,000 s to the next failure, exponential with 90,000 s, 25,513 s on average.
    slow_s = 90_000 * (1 - np.exp(-30_000 / 90_000))
    expected = ettr_fraction(90_000, 3600, 60, 600) * straggler_fraction(300_000, 0.5, slow_s, 600 * 0.717)
    assert run.trained_s / run.wall_s == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("mtbf_s", "every_s", "write_s", "restart_s"),
    [(1080, 360, 60, 300), (1080, 1080, 10, 60), (11_000, 3600, 60, 600), (300, 300, 30, 300), (90_000, 7200, 120, 1800)],
)  # fmt: skip
def test_a_long_run_has_the_ettr_of_the_closed_form(
    mtbf_s: float, every_s: float, write_s: float, restart_s: float
) -> None:
    run = run_failures(
        1e12,
        {"gpu": 2 * mtbf_s, "node": 2 * mtbf_s},
        every_s=every_s,
        write_s=write_s,
        restart_s=restart_s,
        rng=np.random.default_rng(0),
        most=40_000,
    )
    expected = ettr_fraction(mtbf_s, every_s, write_s, restart_s)
    assert run.trained_s / run.wall_s == pytest.approx(expected, rel=0.02)
    assert run.failures["gpu"] == pytest.approx(20_000, rel=0.03)
    assert sum(run.failures.values()) == pytest.approx(run.wall_s / mtbf_s, rel=0.02)


def test_the_same_seed_gives_the_same_run() -> None:
    def run(seed: int) -> FailureRecord:
        rng = np.random.default_rng(seed)
        return run_failures(1e6, {"gpu": 5e3}, every_s=600, write_s=30, restart_s=100, rng=rng)

    assert run(1) == run(1) != run(2)
