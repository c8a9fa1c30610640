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
from collections.abc import Callable, Iterator
from functools import cached_property, wraps
from typing import Any

from sim.engine.machine_code import MachineCode


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
        plain = self.worked < most and "numba" not in sys.modules
        return self.plain if plain else self.compiled if self.allocates else self.machine_code

    def __call__(self, *args: Any) -> Any:
        """Run it as plain Python."""
        return self.plain(*args)

    @cached_property
    def uses(self) -> dict[str, Compilable]:
        """Those that it calls, by name."""
        plain: Any = self.plain
        known = {name: plain.__globals__.get(name) for name in plain.__code__.co_names}
        maybe = {name: value for name, value in known.items() if isinstance(value, Compilable)}
        if not maybe:  # to take all apart takes longer than all else here
            return {}
        globals_ = {step.argval for step in dis.get_instructions(plain) if step.opname == "LOAD_GLOBAL"}
        return {name: value for name, value in maybe.items() if name in globals_}

    @cached_property
    def compiled(self) -> Any:
        """The same function compiled, with those that it calls; plain where numba cannot be had."""
        try:
            made = self._jitted("compiled", cache=True)
        except ImportError:
            return self.plain
        except RuntimeError:  # no folder to keep compiled code in
            made = self._jitted("compiled")
        cache = getattr(made, "_cache", None)
        for name in ("load_overload", "save_overload"):
            if hasattr(cache, name):
                setattr(cache, name, _forgiving(getattr(cache, name), cache))
        return made

    @cached_property
    def bare(self) -> Any:
        """The same function compiled for other compiled ones alone, which takes half the time."""
        return self._jitted("bare", no_cpython_wrapper=True, no_cfunc_wrapper=True)

    @cached_property
    def machine_code(self) -> Any:
        """The same function as machine code that needs no numba once there is a file of it."""
        name = f"{self.plain.__module__.rpartition('.')[2]}.{self.plain.__qualname__}"
        return MachineCode(name, lambda: [*self._made_from(set())], lambda: self.bare, lambda: self.compiled)

    def kept(self, *args: Any) -> Any:
        """Run it as machine code where there is a file of it, and as plain Python elsewhere."""
        return self.machine_code(*args) if self.machine_code.is_kept(*args) else self.plain(*args)

    def _made_from(self, seen: set[str]) -> Iterator[Any]:
        """Bytecode and constants of the function and of those that it calls, which decide the code."""
        plain: Any = self.plain
        code, place = plain.__code__, f"{plain.__module__}.{plain.__qualname__}"
        if place not in seen:
            seen.add(place)
            known = {name: plain.__globals__.get(name) for name in code.co_names}
            constants = {name: value for name, value in known.items() if isinstance(value, int | float)}
            yield (
                place,
                self.allocates,
                code.co_code,
                code.co_consts,
                code.co_names,
                code.co_varnames,
                constants,
            )
            for called in self.uses.values():
                yield from called._made_from(seen)

    def _jitted(self, form: str, **options: Any) -> Any:
        """The function given to numba, with those that it calls in the same form."""
        import numba

        plain = self.plain
        assert isinstance(plain, types.FunctionType)
        known = plain.__globals__ | {name: getattr(called, form) for name, called in self.uses.items()}
        whole = types.FunctionType(plain.__code__, known, plain.__name__, plain.__defaults__)
        whole.__module__, whole.__qualname__ = plain.__module__, plain.__qualname__
        options = {"error_model": "numpy"} | ({} if self.allocates else {"_nrt": False}) | options
        return numba.njit(**options)(whole)


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
