"""A cost between computed points: straight lines along each axis, the points computed when they are first needed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cache


def surface(axes: Sequence[Sequence[float]], at: Callable[..., float]) -> Callable[..., float]:
    """Make a function through the points of a grid, linear along each axis: the last slope beyond, the first value below.

    Parameters
    ----------
    axes : sequence of sequence of float, [num_axes][num_points]
        In any unit; each ascending, one point or more.
    at : function of as many indices as axes
        Value of a point; called once for each that is needed.

    Returns
    -------
    function of as many values as axes

    Examples
    --------
    >>> surface([[0, 1, 2]], lambda i: [0, 10, 30][i])(1.5)
    20.0
    """
    point = cache(at)

    def value_at(*values: float) -> float:
        corners: list[tuple[float, tuple[int, ...]]] = [(1.0, ())]
        for x, value in zip(axes, values, strict=True):
            i, part = _between(x, value)
            corners = [
                (weight * share, (*index, place))
                for weight, index in corners
                for share, place in ((1.0 - part, i), (part, i + 1))
                if share
            ]
        return sum(weight * point(*index) for weight, index in corners)

    return value_at


def _between(x: Sequence[float], value: float) -> tuple[int, float]:
    """Index of the interval, and how far into it [fraction]; more than 1 beyond the last point, never less than 0."""
    if len(x) == 1:
        return 0, 0.0
    i = min(max(bisect_right(x, value) - 1, 0), len(x) - 2)
    return i, max(0.0, (value - x[i]) / (x[i + 1] - x[i]))
