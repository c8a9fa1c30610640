"""Functions compiled where numba can be had and is worth its start, and plain Python elsewhere.

Why this way: what is compiled is the readable Python in the source, so there is one copy of every rule; small problems run it
as it is, since starting numba costs more than a second of them. Nothing that numba lacks may stop a run: without numba,
with its compiler switched off, without a folder that it could keep its code in, or with code there that an older version
left, the same functions run, only later or more slowly.
"""

from __future__ import annotations

import dis
import sys
import types
from collections.abc import Callable
from functools import cached_property, wraps
from typing import Any


class Compilable:
    """A function of numbers and arrays, written in what numba understands: called as it is, or as `compiled`.

    Parameters
    ----------
    plain : the function
    allocates : bool
        Whether it makes arrays. One that makes none need not count references of those that it is given, which in a loop
        over many small arrays takes three quarters of the time.
    """

    def __init__(self, plain: Callable[..., Any], *, allocates: bool = True) -> None:
        self.plain, self.allocates = plain, allocates
        self.worked = 0

    def worth(self, work: int, most: int) -> Any:
        """The function to call for so much work: plain while all of it so far is less than `most` and numba does not run yet."""
        self.worked += work
        return self.plain if self.worked < most and "numba" not in sys.modules else self.compiled

    def __call__(self, *args: Any) -> Any:
        """Run it as plain Python."""
        return self.plain(*args)

    @cached_property
    def compiled(self) -> Any:
        """The same function compiled, with those that it calls; plain where numba cannot be had."""
        try:
            import numba
        except ImportError:
            return self.plain
        plain = self.plain
        assert isinstance(plain, types.FunctionType)
        used = {step.argval for step in dis.get_instructions(plain) if step.opname == "LOAD_GLOBAL"}
        called = {name: getattr(plain.__globals__.get(name), "compiled", None) for name in used}
        known = plain.__globals__ | {name: made for name, made in called.items() if made is not None}
        whole = types.FunctionType(plain.__code__, known, plain.__name__, plain.__defaults__)
        whole.__module__, whole.__qualname__ = plain.__module__, plain.__qualname__
        options: dict[str, Any] = {"error_model": "numpy"} | ({} if self.allocates else {"_nrt": False})
        try:
            made = numba.njit(cache=True, **options)(whole)
        except RuntimeError:  # no folder to keep compiled code in
            made = numba.njit(**options)(whole)
        cache = getattr(made, "_cache", None)
        for name in ("load_overload", "save_overload"):
            if hasattr(cache, name):
                setattr(cache, name, _forgiving(getattr(cache, name), cache))
        return made


def frugal(plain: Callable[..., Any]) -> Compilable:
    """Mark a function that makes no arrays."""
    return Compilable(plain, allocates=False)


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
