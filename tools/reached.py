"""Map of the tests that reach each function of `sim`, kept in a file and mended where test files changed.

Why this way: a mutant need only meet the tests that call its function, the quickest first. Calls are seen by a trace function that
looks at no lines, so the map costs one run of the tests, and later only one of the files that changed since. What a fixture
calls is reached by every test that asks for it. Caches are emptied before each file, so that a file reaches all that it
would reach alone; within a file one test may hide a call from the next.
"""

from __future__ import annotations

import dis
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

Codes = dict[int, CodeType]


def digest(path: Path) -> str:
    """What a file holds, in a word."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def function_name(code: CodeType, root: str) -> str | None:
    """A function of `sim` as "sim/cost/memory:memory"; that around it for a lambda; None for what runs at import, and others."""
    path = code.co_filename.removeprefix(root).removesuffix(".py").lstrip("/")
    if not path.startswith("sim/"):
        return None
    parts = [part for part in code.co_qualname.split(".") if part != "<locals>"]
    while parts and parts[-1].startswith("<"):
        parts.pop()
    return f"{path}:{'.'.join(parts)}" if parts else None


class Watch:
    """A plugin of pytest that keeps what each test calls and the processor time that it takes [s]."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.tests: dict[str, tuple[float, list[str]]] = {}
        self.failed: list[str] = []
        self._codes: Codes = {}
        self._fixtures: dict[Any, Codes] = {}
        self._file = ""

    @contextmanager
    def _traced(self, into: Codes) -> Iterator[None]:
        def call(frame: FrameType, event: str, argument: Any) -> None:
            into[id(frame.f_code)] = frame.f_code

        before, codes = sys.gettrace(), self._codes
        self._codes = into
        sys.settrace(call)
        try:
            yield
        finally:
            sys.settrace(before)
            self._codes = codes

    @pytest.hookimpl
    def pytest_collection_finish(self) -> None:
        """See functions that are compiled where they are asked for: their calls cannot be seen."""
        try:
            from sim.engine.compiled import Compilable
        except ImportError:
            return
        make, watch = Compilable.__dict__["compiled"].func, self

        def compiled(kernel: Any) -> Any:
            watch._codes.update({id(code): code for code in _compiled_codes(kernel)})
            if "_kept" not in kernel.__dict__:
                kernel._kept = make(kernel)
            return kernel._kept

        setattr(Compilable, "compiled", property(compiled))  # noqa: B010

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Trace a test, its fixtures with it."""
        file = item.nodeid.partition("::")[0]
        if file != self._file:
            self._file = file
            _empty_caches()
        called: Codes = {}
        start = time.process_time()
        with self._traced(called):
            yield
        taken_s = time.process_time() - start
        for definitions in item._fixtureinfo.name2fixturedefs.values():  # type: ignore[attr-defined]
            for definition in definitions:
                called |= self._fixtures.get(definition, {})
        names = {function_name(code, self.root) for code in called.values()}
        self.tests[item.nodeid] = round(taken_s, 3), sorted(name for name in names if name)

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what fails."""
        self.failed += [report.nodeid] if report.failed else []

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[Any]:
        """Trace a fixture on its own: tests after the first reach it too."""
        called: Codes = {}
        with self._traced(called):
            made = yield
        self._fixtures[fixturedef] = called
        self._codes |= called
        return made


def _compiled_codes(kernel: Any) -> Iterator[CodeType]:
    """The code of a function that is compiled, and that of those that it calls."""
    yield kernel.plain.__code__
    used = {step.argval for step in dis.get_instructions(kernel.plain) if step.opname == "LOAD_GLOBAL"}
    for name in sorted(used):
        called = kernel.plain.__globals__.get(name)
        if type(called) is type(kernel):
            yield from _compiled_codes(called)


def _empty_caches() -> None:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("sim", "shared", "results", "steps"):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


class Map:
    """Test files, what they hold, and what their tests take and call; kept in `path`."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self.root = path, root
        self.files: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}

    def changed(self, files: Iterable[str]) -> list[str]:
        """Those of the files that are not in the map as they are today; others leave it."""
        today = {name: digest(self.root / name) for name in files}
        self.files = {name: kept for name, kept in self.files.items() if name in today}
        return [name for name, word in today.items() if self.files.get(name, {}).get("digest") != word]

    def learn(self, files: Iterable[str], tests: Mapping[str, tuple[float, list[str]]]) -> None:
        """Take what a run of whole files found, and keep it."""
        for name in files:
            mine = {test: found for test, found in tests.items() if test.partition("::")[0] == name}
            self.files[name] = {"digest": digest(self.root / name), "tests": mine}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.files))

    def reaching(self, functions: Iterable[str]) -> dict[str, list[tuple[float, float, str]]]:
        """Tests that call one of the functions, by file: weight, time [s], and name, those that are quick and sharp first.

        A test is the sharper the fewer functions it calls.
        """
        wanted = set(functions)
        found = {
            name: sorted(
                (taken_s * len(calls), taken_s, test)
                for test, (taken_s, calls) in kept["tests"].items()
                if not wanted.isdisjoint(calls)
            )
            for name, kept in self.files.items()
        }
        return {name: tests for name, tests in found.items() if tests}
