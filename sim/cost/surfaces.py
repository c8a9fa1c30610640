"""A cost between a few computed points: straight lines between them, the last slope beyond, the first value below."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence


def line(x: Sequence[float], y: Sequence[float]) -> Callable[[float], float]:
    """Make a function through some points: straight lines between them, the last slope beyond, the first value below.

    Parameters
    ----------
    x, y : sequence of float, [num_points]
        In any unit; `x` ascending, two or more.

    Returns
    -------
    function

    Examples
    --------
    >>> line([0, 1, 2], [0, 10, 30])(1.5)
    20.0
    """

    def value_at(value: float) -> float:
        i, fraction = _between(x, value)
        return y[i] + fraction * (y[i + 1] - y[i])

    return value_at


def plane(
    x: Sequence[float], y: Sequence[float], z: Sequence[Sequence[float]]
) -> Callable[[float, float], float]:
    """Make a function through a grid of points, linear along each axis.

    Parameters
    ----------
    x : sequence of float, [num_x]
    y : sequence of float, [num_y]
    z : sequence of sequence of float, [num_x][num_y]
        In any unit; `x` and `y` ascending, two or more of each.

    Returns
    -------
    function
    """

    def value_at(first: float, second: float) -> float:
        i, u = _between(x, first)
        j, v = _between(y, second)
        low, high = z[i], z[i + 1]
        near = low[j] + v * (low[j + 1] - low[j])
        return near + u * (high[j] + v * (high[j + 1] - high[j]) - near)

    return value_at


def _between(x: Sequence[float], value: float) -> tuple[int, float]:
    """Index of the interval, and how far into it [fraction]; more than 1 beyond the last point, never less than 0."""
    i = min(max(bisect_right(x, value) - 1, 0), len(x) - 2)
    return i, max(0.0, (value - x[i]) / (x[i + 1] - x[i]))
