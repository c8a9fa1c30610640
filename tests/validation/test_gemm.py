"""Published kernel times on the H800 against the compute model: half of the rows calibrated it, half are predicted."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import pytest

from sim.validation import published
from sim.validation.kernels import KernelFigures, kernel_rows

BAR = 0.08
ROWS = kernel_rows("gemm")
FIGURES = published.load("gemm", KernelFigures)[0]


def _errors(**wanted: str) -> list[float]:
    chosen = [row for row in ROWS if all(getattr(row, key) == value for key, value in wanted.items())]
    return [row.simulated / row.published - 1.0 for row in chosen]


@pytest.mark.parametrize("use", ["calibration", "validation"])
def test_mean_error_of_calibrated_and_of_held_out_rows_is_within_eight_percent(use: str) -> None:
    assert np.abs(_errors(use=use)).mean() <= BAR


def test_held_out_rows_are_not_predicted_worse_than_calibrated_ones() -> None:
    held_out, fitted = np.abs(_errors(use="validation")).mean(), np.abs(_errors(use="calibration")).mean()
    assert held_out <= fitted + 0.02


@pytest.mark.parametrize("source", sorted(FIGURES.sources))
def test_no_source_is_far_off(source: str) -> None:
    assert np.abs(_errors(source=source)).mean() <= 0.1


def test_half_of_every_table_is_held_out() -> None:
    for table in FIGURES.tables:
        assert 0 <= len(table.calibration) - len(table.validation) <= 1


def test_no_row_stands_twice() -> None:
    ids = [row.id for row in ROWS]
    assert len({crc32(i.encode()) for i in ids}) == len(ids)


def test_no_published_time_is_below_what_the_datasheet_allows() -> None:
    for row in ROWS:
        assert 0.0 < row.published < 0.1
        assert 0.0 < row.simulated < 0.1
