"""Functions through the points of a grid: exact for what is linear along each axis, within its intervals and beyond the last."""

from __future__ import annotations

import pytest

from sim.cost.surfaces import surface

X, Y = [1.0, 2.0, 5.0], [0.0, 4.0]


def bilinear(x: float, y: float) -> float:
    return 3.0 + 2.0 * x + y + x * y


@pytest.mark.parametrize(
    ("x", "y"), [(1.0, 0.0), (2.0, 4.0), (1.25, 1.0), (3.5, 3.0), (5.0, 2.0), (8.0, 1.0), (3.0, 7.0)]
)
def test_a_bilinear_function_is_itself_between_the_points_of_an_uneven_grid_and_beyond_the_last(
    x: float, y: float
) -> None:
    made = surface([X, Y], lambda i, j: bilinear(X[i], Y[j]))
    assert made(x, y) == pytest.approx(bilinear(x, y), rel=1e-12)


def test_each_interval_of_a_curve_has_its_own_slope() -> None:
    """Squares at 1, 2, 5 and 7: slopes 3, 7 and 12, and the last one beyond."""
    points = [1.0, 2.0, 5.0, 7.0]
    made = surface([points], lambda i: points[i] ** 2)
    found = [made(x) for x in (1.0, 1.5, 2.0, 4.0, 5.0, 6.0, 9.0)]
    assert found == pytest.approx([1.0, 2.5, 4.0, 18.0, 25.0, 37.0, 73.0])


def test_below_the_first_point_and_along_an_axis_of_one_it_is_constant() -> None:
    made = surface([X, [7.0]], lambda i, j: bilinear(X[i], 7.0))
    assert made(-3.0, 100.0) == bilinear(1.0, 7.0)
    assert made(3.0, 0.0) == pytest.approx(bilinear(3.0, 7.0))
