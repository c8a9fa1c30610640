"""Functions compiled where numba can be had, and plain Python where it cannot.

Why this way: what is compiled is the readable Python that stands in the source, so there is one copy of every rule. Nothing
that numba lacks may stop a run: without numba, with its compiler switched off, or without a folder that it could keep its
code in, the same functions run, more slowly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def jit(function: Callable[..., Any]) -> Any:
    """Compile a function of numbers and arrays when it is first called; the function itself where that cannot be.

    Parameters
    ----------
    function : written in what numba understands

    Returns
    -------
    a function of the same arguments and results
    """
    try:
        import numba
    except ImportError:
        return function
    try:
        return numba.njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder to keep compiled code in
        return numba.njit(error_model="numpy")(function)
