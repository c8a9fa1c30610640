"""Functions compiled where numba can be had, and plain Python where it cannot.

Why this way: what is compiled is the readable Python in the source, so there is one copy of every rule. Nothing that numba
lacks may stop a run: without numba, with its compiler switched off, without a folder that it could keep its code in, or
with code there that an older version left, the same functions run, only later or more slowly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
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
        compiled = numba.njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder to keep compiled code in
        return numba.njit(error_model="numpy")(function)
    cache = getattr(compiled, "_cache", None)
    for name in ("load_overload", "save_overload"):
        if hasattr(cache, name):
            setattr(cache, name, _forgiving(getattr(cache, name), cache))
    return compiled


def _forgiving(method: Callable[..., Any], cache: Any) -> Callable[..., Any]:
    """A cache's method that starts anew from an empty cache where it cannot read it, and gives up where that does not help."""

    @wraps(method)
    def tried(*args: Any) -> Any:
        try:
            return method(*args)
        except (
            Exception
        ):  # whatever unpickling code of another version raises, and whatever a file system does
            pass
        try:
            cache.flush()
            return method(*args)
        except Exception:
            return None

    return tried
