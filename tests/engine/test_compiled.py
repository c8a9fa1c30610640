"""Functions that numba compiles: nothing that it lacks stops a run."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from sim.engine.compiled import Compilable


def doubled(values: Any) -> Any:
    total = 0.0
    for value in values:
        total += 2.0 * value
    return total


def test_without_a_folder_for_compiled_code_a_function_is_compiled_for_this_run_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a read-only root without a home: numba then raises 'cannot cache function'."""
    import numba
    from numba.core import caching

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="cannot cache function"):
        numba.njit(cache=True)(doubled)
    made = Compilable(doubled).compiled
    assert made((1.0, 2.0)) == 6.0
    assert made.signatures


def test_a_cache_that_cannot_be_read_or_written_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    def broken(*_: Any) -> Any:
        raise OSError("read-only file system")

    for name in ("load_overload", "save_overload", "flush"):
        monkeypatch.setattr(caching.FunctionCache, name, broken)
    assert Compilable(doubled).compiled((1.0, 2.0)) == 6.0


def test_without_numba_a_function_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    assert Compilable(doubled).compiled is doubled
