"""Functions that numba compiles, and their machine code: nothing that is lacking stops a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from sim import kept
from sim.engine import machine_code
from sim.engine.compiled import Compilable, frugal
from sim.engine.machine_code import MachineCode


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


class Sizes(NamedTuple):
    first: int
    values: Any


STEP = 3


@frugal
def raised(value: Any) -> Any:
    return value + STEP


@frugal
def summed(sizes: Any, out: Any) -> Any:
    """Sum up from the first on; note each value raised."""
    total = 0
    for i in range(sizes.first, len(sizes.values)):
        out[i, 0] = raised(sizes.values[i])
        total += i
    return total


def code_of(function: Compilable) -> Any:
    """Its machine code in a new process."""
    return Compilable(function.plain, allocates=False).machine_code


def summands() -> tuple[Sizes, Any]:
    return Sizes(1, np.array([0.5, 1.5, 2.5, 3.5])), np.zeros((4, 2))[:, :1]


def summed_up(code: Any) -> tuple[int, list[float]]:
    sizes, out = summands()
    return code(sizes, out), out[:, 0].tolist()


EXPECTED = 1 + 2 + 3, [0.0, 4.5, 5.5, 6.5]


@pytest.fixture
def codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that machine code is kept in."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "codes"))
    return tmp_path / "codes"


def test_machine_code_is_made_once_and_then_runs_without_numba(
    codes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert summed_up(code_of(summed)) == EXPECTED
    assert len([*codes.iterdir()]) == 1
    monkeypatch.setattr(MachineCode, "_make", None)  # and neither may it fall back on numba
    monkeypatch.setattr(Compilable, "compiled", None)
    assert summed_up(code_of(summed)) == EXPECTED


def test_machine_code_is_made_for_every_sort_of_arguments(
    codes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Compilable, "compiled", None)
    code = code_of(summed)
    for num, kind in enumerate((np.float64, np.int64, np.float32), 1):
        out = np.zeros((4, 2))[:, :1]
        assert code(Sizes(1, np.arange(1, 5).astype(kind)), out) == 1 + 2 + 3
        assert out[:, 0].tolist() == [0.0, 5.0, 6.0, 7.0]
        assert len([*codes.iterdir()]) == num


def test_machine_code_that_is_kept_is_run_and_none_is_made(codes: Path) -> None:
    function = Compilable(summed.plain, allocates=False)
    assert summed_up(function.kept) == EXPECTED
    assert not codes.exists()
    summed_up(code_of(summed))
    function = Compilable(summed.plain, allocates=False)
    assert function.machine_code.is_kept(*summands())
    assert summed_up(function.kept) == EXPECTED


def test_numbers_are_given_to_machine_code_as_they_are(codes: Path) -> None:
    """Whole ones, and those with a fraction, in a register of their own."""

    def scaled(first: Any, factor: Any, values: Any) -> Any:
        values[first] *= factor
        return first

    values = np.ones(3)
    assert Compilable(scaled, allocates=False).machine_code(1, 2.5, values) == 1
    assert values.tolist() == [1.0, 2.5, 1.0]
    assert len([*codes.glob("*.code")]) == 1


def test_machine_code_is_made_anew_where_a_file_is_damaged(codes: Path) -> None:
    summed_up(code_of(summed))
    (file,) = codes.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert summed_up(code_of(summed)) == EXPECTED
    assert len(file.read_bytes()) == len(whole)
    assert kept.read(file.name) is not None


def test_machine_code_is_of_the_functions_as_they_are_now(
    codes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A constant of a function that is only called by the one at hand counts too."""
    summed_up(code_of(summed))
    monkeypatch.setitem(globals(), "STEP", 4)
    monkeypatch.delitem(vars(raised), "bare")
    assert summed_up(code_of(summed)) == (6, [0.0, 5.5, 6.5, 7.5])
    assert len([*codes.iterdir()]) == 2


@pytest.mark.parametrize("lacking", ["llvmlite", "numba"])
def test_without_machine_code_a_function_still_runs(
    codes: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    monkeypatch.setitem(sys.modules, lacking, None)
    assert summed_up(code_of(summed)) == EXPECTED
    assert not [*codes.glob("**/*.code")]


def test_where_no_file_can_be_written_machine_code_is_made_for_this_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "codes"))
    monkeypatch.setattr(Compilable, "compiled", None)
    assert summed_up(code_of(summed)) == EXPECTED


def test_machine_code_that_takes_its_arguments_otherwise_is_not_run(
    codes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another numba may take an array apart in another way: its functions run through numba itself."""
    as_today = machine_code._take

    def without_strides(arg: Any, types: list[Any], values: list[int]) -> None:
        as_today(arg, types, values)
        del values[-1]

    monkeypatch.setattr(machine_code, "_take", without_strides)
    assert summed_up(code_of(summed)) == EXPECTED
    assert not [*codes.glob("**/*.code")]
