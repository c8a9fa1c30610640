"""Mutation testing: break the physics in many small ways, and see that a test fails each time.

    python tools/mutate.py --sample 200 --write docs/mutants.md

Mutants are drawn uniformly from all sites of the physics (`tools/sites.py`).
*Chosen* mutants are in `tools/mutants.py` (`--chosen`): found in the syntax tree, an error where one no longer applies.

Why this way: tests run in a copy of the tree, so nothing that happens here, Ctrl-C included, changes the tree itself. Each mutant
is a fork of one process that has numpy, numba and pytest imported already, and meets the tests that call its function
(`tools/reached.py`), the quickest and sharpest first, then some of every file of them. A compiled loop is kept on disk by the time of its own
file and would hide a mutant in a function that it calls: mutants of compiled functions run as plain Python.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import os
import re
import resource
import shutil
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from compileall import compile_dir
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from mutants import EQUIVALENT, LEFT
from sites import ROOMS, Mutant, chosen, drawn, modules_of, places, reason

ROOT = Path(__file__).resolve().parents[1]
TESTED = (*ROOMS, "scenario", "validation")
"""Of `tests/`: where physics is tested. What only a page, a command or a sweep shows goes unseen here."""
COPIED = (
    "sim",
    "tests",
    "hardware",
    "scenarios",
    "tools",
    "docs",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
)
PYTEST = ("-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:benchmark", "-o", "addopts=",
          "--assert=plain")  # fmt: skip
EXAMPLES = 20
"""Of a property, against each mutant."""
QUICK, QUICK_S, OWN_S, MORE_S = 40, 10.0, 120.0, 40.0
"""So many tests of a function and so much of their time first, and what more tests may take, of its own room and of others."""
LIMIT_S = 30
"""CPU time of a mutant's quickest tests, and six times as much of more; one that takes more, where the physics as it is does not,
hangs, and is killed."""
_TOGETHER = 6  # files of one process that is mapped


# --- tests ----------------------------------------------------------------------------------------------------------


@cache
def _mentions(root: Path) -> dict[str, set[str]]:
    """For every name in `sim`, the functions that mention it."""
    users: dict[str, set[str]] = {}
    for path in (root / "sim").rglob("*.py"):
        module = str(path.relative_to(root).with_suffix(""))
        for place in places(path.read_bytes()):
            node = place.node
            name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
            if name and place.function:
                users.setdefault(name, set()).add(f"{module}:{place.function}")
    return users


def reaching_tests(mutant: Mutant, reached: Any, root: Path = ROOT) -> tuple[list[str], list[str]]:
    """The quickest and sharpest tests that reach a mutant, and then more, of every file of its own room and of others that does.

    A function is reached where it is called; a constant where a function that mentions it is; what neither finds, where
    anything of its module is called, or else where its room is tested.
    """
    functions = {f"{mutant.module}:{mutant.function}"}
    if mutant.defines:
        names = re.findall(r"\w+", mutant.defines)
        functions = set().union(*(_mentions(root).get(name, set()) for name in names))
    found = reached.reaching(functions)
    every = {call for kept in reached.files.values() for _, calls in kept["tests"].values() for call in calls}
    found = found or reached.reaching({call for call in every if call.startswith(f"{mutant.module}:")})
    room = mutant.module.split("/")[1]
    found = found or reached.reaching({call for call in every if call.startswith(f"sim/{room}/")})
    quick = _within(sorted(itertools.chain.from_iterable(found.values())), QUICK_S)[:QUICK]
    known = set(quick)
    own, others = dict[str, Any](), dict[str, Any]()
    for name, tests in found.items():
        (own if name.startswith(f"tests/{room}/") else others)[name] = tests
    more = [
        _within([each for each in _in_turn(some) if each[2] not in known], most_s)
        for some, most_s in ((own, OWN_S), (others, MORE_S))
    ]
    return quick, [*itertools.chain.from_iterable(more)]


def _in_turn(tests: Mapping[str, Sequence[tuple[float, float, str]]]) -> Iterable[tuple[float, float, str]]:
    """The first of each file, then the second of each, and so on."""
    turns = itertools.zip_longest(*tests.values())
    return (each for each in itertools.chain.from_iterable(turns) if each)


def _within(tests: Iterable[tuple[float, float, str]], most_s: float) -> list[str]:
    """The first tests that together take no more than so long, and at least one where there are any."""
    kept, total_s = list[str](), 0.0
    for _, taken_s, test in tests:
        total_s += taken_s
        if kept and total_s > most_s:
            break
        kept.append(test)
    return kept


def killer(copy: Path, tests: Sequence[str], mutant: Mutant | None, limit_s: int = LIMIT_S) -> str | None:
    """Run tests against a mutant, or against the copy as it is, and name the first that fails; None where all pass."""
    if mutant is None:
        return _run(copy, tests, plain=False, limit_s=limit_s)
    path = copy / f"{mutant.module}.py"
    before, when = path.read_bytes(), path.stat()
    path.write_bytes(mutant.applied(before))
    try:
        by = _run(copy, tests, plain=mutant.compiled, limit_s=limit_s)
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(when.st_atime_ns, when.st_mtime_ns))
    if by == _hung(limit_s) and _run(copy, tests, plain=mutant.compiled, limit_s=limit_s):
        return None
    return by


def _hung(limit_s: int) -> str:
    return f"{limit_s} s of CPU time"


def _run(copy: Path, tests: Sequence[str], *, plain: bool, limit_s: int) -> str | None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(read)
        resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 5))
        code = 1
        try:
            code = _tested(copy, ["-x", *tests], _Told(write), plain=plain)
        finally:
            os._exit(code)
    os.close(write)
    try:
        with os.fdopen(read) as told:
            first = told.readline().strip()
            _, status = os.waitpid(child, 0)
    except BaseException:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return None
    return _hung(limit_s) if code == -signal.SIGXCPU else first or "its import or collection"


@dataclass(frozen=True, slots=True)
class _Told:
    """A plugin of pytest that writes the tests that fail into a pipe."""

    write: int

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            os.write(self.write, f"{report.nodeid}\n".encode())


class _Few:
    """A plugin of pytest that has properties try few examples."""

    def pytest_collection(self) -> None:
        import hypothesis

        hypothesis.settings.register_profile("mutants", hypothesis.settings(max_examples=EXAMPLES))
        hypothesis.settings.load_profile("mutants")


def _tested(copy: Path, tests: Sequence[str], plugin: Any, *, plain: bool) -> int:
    """The exit code of pytest, in a process of its own."""
    os.chdir(copy)
    os.environ |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"} | (
        {"NUMBA_DISABLE_JIT": "1"} if plain else {}
    )
    sys.dont_write_bytecode = True
    sys.path[:] = [str(copy), *(entry for entry in sys.path if entry and Path(entry).resolve() != ROOT)]
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    import numba
    import pytest

    numba.config.DISABLE_JIT = int(plain)
    return int(pytest.main([*PYTEST, *tests], plugins=[_Few(), plugin]))


def mapped(copy: Path, path: Path, rooms: Sequence[str] = TESTED) -> Any:
    """The map of tests, mended where test files of the copy changed.

    Raises
    ------
    SystemExit
        Where a test fails without any mutant.
    """
    from reached import Map, Watch

    reached = Map(path, copy)
    paths = [file for room in rooms for file in sorted((copy / "tests" / room).glob("test_*.py"))]
    files = [str(path.relative_to(copy)) for path in paths]
    changed = reached.changed(files)
    for start in range(0, len(changed), _TOGETHER):
        some = changed[start : start + _TOGETHER]
        print(f"mapping {', '.join(some)}", flush=True)
        child = os.fork()
        if child == 0:
            code, out = 1, os.dup(1)
            try:
                watch = Watch(copy)
                code = _tested(copy, some, watch, plain=False)
                os.write(
                    out, "".join(f"fails without any mutant: {test}\n" for test in watch.failed).encode()
                )
                if code in (0, 5):
                    reached.learn(some, watch.tests)
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) not in (0, 5):
            raise SystemExit(f"tests fail without any mutant: of {', '.join(some)}")
        reached = Map(path, copy)
    return reached


def copied(root: Path, into: Path) -> Path:
    """A copy of what tests need, times of files kept; one that is there becomes one, and keeps its compiled loops."""
    for name in COPIED:
        for path in (into / name).rglob("*"):
            if path.suffix == ".py" and not (root / path.relative_to(into)).exists():
                path.unlink()
        if (root / name).is_dir():
            left_out = shutil.ignore_patterns("__pycache__", "results")
            shutil.copytree(root / name, into / name, ignore=left_out, dirs_exist_ok=True)
        elif (root / name).exists():
            shutil.copy2(root / name, into / name)
    for name in ("sim", "tests"):  # no mutant writes bytecode, so each would compile all of both
        if (into / name).is_dir():
            compile_dir(into / name, quiet=1)
    return into


# --- report ---------------------------------------------------------------------------------------------------------


def table(title: str, mutants: Sequence[Mutant], known: Mapping[tuple[str, str, str, str], str]) -> str:
    """Mutants with their reasons, as a section of the page."""
    if not mutants:
        return ""
    rows = [
        (f"`{m.module.removeprefix('sim/')}`", f"`{m.function or 'top'}`", f"`{m.old}`", f"`{m.new}`", reason(m, known) or "")
        for m in mutants
    ]  # fmt: skip
    cells = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)
    return (
        f"\n## {title}\n\n| module | function | expression | became | why |\n|---|---|---|---|---|\n{cells}"
    )


def page(
    num_sites: int, seed: int, tried: int, survivors: Sequence[Mutant], equivalent: Sequence[Mutant]
) -> str:
    """The page of survivors."""
    return (
        "# Mutants that no test kills\n\n"
        f"`python tools/mutate.py` broke the physics in {tried} ways; {len(survivors)} went unseen "
        f"({len(survivors) / max(tried, 1):.1%}; at most 3 % may).\n\n"
        f"Drawn with seed {seed} from the {num_sites:,} operators, comparisons, constants, choices and pairs of arguments of all\n"
        f"modules of {', '.join(f'`{room}`' for room in ROOMS)}, each as likely as any other; {len(equivalent)} more were drawn and\n"
        "left out, since they compute the same. Each met tests of these rooms, of scenarios and of validation that call its\n"
        f"function, none of pages, commands and sweeps, for at most {QUICK_S + OWN_S + MORE_S:.0f} s; properties tried {EXAMPLES} examples.\n"
        + table("Unseen", survivors, LEFT)
        + table("The same physics", equivalent, EQUIVALENT)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 1 where more than 3 % survive."""
    parser = argparse.ArgumentParser(
        description="Break the physics in many small ways, and see that a test fails."
    )
    parser.add_argument("modules", nargs="*", help="of sim/, without suffix: sim/cost/memory; all by default")
    parser.add_argument("--sample", type=int, default=200, help="mutants to draw")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--numbers", type=int, nargs="+", help="only these of the draw, from 1")
    parser.add_argument("--chosen", action="store_true", help="those chosen by hand, and none that is drawn")
    parser.add_argument(
        "--map", type=Path, default=ROOT / "results" / "reached.json", help="where the map of tests is kept"
    )
    parser.add_argument(
        "--copy", type=Path, default=ROOT / "results" / "mutated", help="where the copy is kept"
    )
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument("--write", type=Path, help="write the page of survivors")
    asked = parser.parse_args(argv)
    modules = asked.modules or modules_of(ROOT)
    every = chosen(ROOT) if asked.chosen else drawn(ROOT, modules, asked.seed)
    equivalent: list[Mutant] = []
    mutants: list[Mutant] = []
    for mutant in every:
        if len(mutants) < asked.sample:
            (equivalent if reason(mutant, EQUIVALENT) else mutants).append(mutant)
    numbered = [
        (number, mutant) for number, mutant in enumerate(mutants, 1) if number in (asked.numbers or [number])
    ]
    if asked.list:
        for number, mutant in numbered:
            print(number, mutant)
        return 0
    import hypothesis  # imported once, not in every fork
    import networkx
    import numba  # noqa: F401
    import numpy
    import pydantic
    import pytest
    import simpy

    del hypothesis, networkx, numpy, pydantic, pytest, simpy
    survivors = []
    asked.copy.mkdir(parents=True, exist_ok=True)
    copy = copied(ROOT, asked.copy)
    reached = mapped(copy, asked.map)
    for number, mutant in numbered:
        quick, more = reaching_tests(mutant, reached)
        by = killer(copy, quick, mutant) or (killer(copy, more, mutant, 6 * LIMIT_S) if more else None)
        survivors += [] if by else [mutant]
        print(f"{number} {mutant}\n    {'killed by ' + by if by else 'SURVIVES'}", flush=True)
    print(f"{len(survivors)} of {len(numbered)} survive")
    if asked.write:
        asked.write.write_text(page(len(every), asked.seed, len(numbered), survivors, equivalent))
    return int(len(survivors) > 0.03 * len(numbered))


if __name__ == "__main__":
    sys.exit(main())
