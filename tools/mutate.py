"""Mutation testing: break the physics in many small ways, and see that a test fails each time.

    python tools/mutate.py --sample 60 --write docs/mutants.md

Mutants are of two kinds. *Chosen* ones are in `tools/mutants.py`: a function, an expression in it and what it becomes, found in the
syntax tree, so that they outlive edits around them; one that no longer applies is an error. *Generated* ones swap an
operator or a comparison, drop a term, change a constant, exchange the least and the most.

Why this way: tests run in a copy of the tree, so nothing that happens here, Ctrl-C included, changes the tree itself. Each mutant
is a fork of one process that has numpy, numba and pytest imported already. A compiled loop is kept on disk by the time of
its own file and would hide a mutant in a function that it calls: mutants of the engine run as plain Python.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from mutants import CHOSEN, COVERS, EQUIVALENT

ROOT = Path(__file__).resolve().parents[1]
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
PYTEST = ("-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:benchmark", "-o", "addopts=",
          "--assert=plain")  # fmt: skip
EXAMPLES = 10
"""Of a property, against each mutant."""
LIMIT_S = 120
"""CPU time of a mutant's tests; one that takes more hangs, and is killed as good as by a test."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one expression: `module` is a path without suffix, `function` a dotted name, empty at the top."""

    module: str
    function: str
    line: int
    start: int
    """Bytes of the file before the expression."""
    end: int
    old: str
    new: str
    why: str = ""

    def applied(self, source: bytes) -> bytes:
        """The source with the change."""
        return source[: self.start] + f"({self.new})".encode() + source[self.end :]

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.function or 'top'}: {self.old} -> {self.new}"


# --- mutants --------------------------------------------------------------------------------------------------------

_SWAPS: Mapping[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult,
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
_NAMES = {
    "min": "max",
    "max": "min",
    "minimum": "maximum",
    "maximum": "minimum",
    "ceil": "floor",
    "floor": "ceil",
}


def expressions(source: bytes) -> Iterator[tuple[str, ast.expr]]:
    """Every expression that computes, with the dotted name of its function; no messages, annotations or assertions."""

    def walk(node: ast.AST, function: str) -> Iterator[tuple[str, ast.expr]]:
        if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
            return
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            function = f"{function}.{node.name}".lstrip(".")
            children: Iterable[ast.AST] = node.body
        elif isinstance(node, ast.AnnAssign):
            children = [node.value] if node.value else []
        else:
            children = ast.iter_child_nodes(node)
        if isinstance(node, ast.expr):
            yield function, node
        for child in children:
            yield from walk(child, function)

    yield from walk(ast.parse(source), "")


def variants(node: ast.expr) -> Iterator[ast.expr]:
    """What an expression may become."""
    if isinstance(node, ast.BinOp):
        if type(node.op) in _SWAPS:
            yield ast.BinOp(node.left, _SWAPS[type(node.op)](), node.right)
        if isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div):
            yield node.left
        if isinstance(node.op, ast.Add | ast.Mult):
            yield node.right
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _SWAPS:
        yield ast.Compare(node.left, [_SWAPS[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(_SWAPS[type(node.op)](), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield ast.Constant(
            node.value + 1 if isinstance(node.value, int) else 2 * node.value + (not node.value)
        )
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in _NAMES:
            yield ast.Call(ast.Name(_NAMES[node.func.id]), node.args, node.keywords)
        elif isinstance(node.func, ast.Attribute) and node.func.attr in _NAMES:
            yield ast.Call(ast.Attribute(node.func.value, _NAMES[node.func.attr]), node.args, node.keywords)


def _mutant(module: str, source: bytes, function: str, node: ast.expr, new: str, why: str = "") -> Mutant:
    lines = source.splitlines(keepends=True)
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset
    return Mutant(module, function, node.lineno, start, end, ast.unparse(node), new, why)


def generated(root: Path, modules: Iterable[str]) -> list[Mutant]:
    """All mutants that the rules make of modules, in the order of their sources."""
    made = []
    for module in modules:
        source = (root / f"{module}.py").read_bytes()
        for function, node in expressions(source):
            if (module, function) not in EQUIVALENT:
                new = [ast.unparse(ast.fix_missing_locations(variant)) for variant in variants(node)]
                made += [_mutant(module, source, function, node, text) for text in new]
    return made


def chosen(root: Path, asked: Sequence[tuple[str, str, str, str, str]] = CHOSEN) -> list[Mutant]:
    """The mutants chosen by hand.

    Raises
    ------
    SystemExit
        Where one no longer applies: its function does not have its expression, or has it twice.
    """
    made, wrong = [], []
    for module, function, old, new, why in asked:
        source = (root / f"{module}.py").read_bytes()
        wanted = ast.unparse(ast.parse(old, mode="eval"))
        at = [
            node for where, node in expressions(source) if where == function and ast.unparse(node) == wanted
        ]
        if len(at) == 1:
            made.append(_mutant(module, source, function, at[0], new, why))
        else:
            wrong.append(f"{module}: {function or 'top'} has {len(at)} times '{old}'; wanted once ({why})")
    if wrong:
        raise SystemExit("mutants that no longer apply:\n" + "\n".join(wrong))
    return made


# --- tests ----------------------------------------------------------------------------------------------------------


def covering(module: str, covers: Mapping[str, Sequence[str]] = COVERS) -> Sequence[str]:
    """Test files that cover a module: those of the longest part of its path that has some."""
    parts = module.split("/")
    for length in range(len(parts), 0, -1):
        if "/".join(parts[:length]) in covers:
            return covers["/".join(parts[:length])]
    raise SystemExit(f"no tests cover {module}: name them in COVERS of tools/mutants.py")


def killer(copy: Path, tests: Sequence[str], mutant: Mutant | None, limit_s: int = LIMIT_S) -> str | None:
    """Run tests against a mutant, or against the copy as it is, and name the first that fails; None where all pass."""
    plain = mutant is not None and mutant.module.startswith("sim/engine/")
    if mutant is None:
        return _run(copy, tests, plain=plain, limit_s=limit_s)
    path = copy / f"{mutant.module}.py"
    before, when = path.read_bytes(), path.stat()
    path.write_bytes(mutant.applied(before))
    try:
        return _run(copy, tests, plain=plain, limit_s=limit_s)
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(when.st_atime_ns, when.st_mtime_ns))


def _run(copy: Path, tests: Sequence[str], *, plain: bool, limit_s: int) -> str | None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.close(read)
        resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))
        code = 1
        try:
            code = _tested(copy, tests, write, plain=plain)
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
    return f"{limit_s} s of CPU time" if code == -signal.SIGXCPU else first or "its import or collection"


def _tested(copy: Path, tests: Sequence[str], write: int, *, plain: bool) -> int:
    """The exit code of pytest, in a process of its own; the first test that fails is written down."""
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

    class Watch:
        @pytest.hookimpl(trylast=True)
        def pytest_configure(self) -> None:
            import hypothesis

            few = hypothesis.settings(max_examples=EXAMPLES)
            hypothesis.settings.register_profile("mutants", few)
            hypothesis.settings.load_profile("mutants")

        @pytest.hookimpl
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                os.write(write, f"{report.nodeid}\n".encode())

    return int(pytest.main([*PYTEST, *tests], plugins=[Watch()]))


def copied(root: Path, into: Path) -> Path:
    """A copy of what tests need, times of files kept."""
    for name in COPIED:
        if (root / name).is_dir():
            shutil.copytree(root / name, into / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
        elif (root / name).exists():
            shutil.copy2(root / name, into / name)
    return into


# --- report ---------------------------------------------------------------------------------------------------------


def table(tried: int, survivors: Sequence[Mutant]) -> str:
    """The page of survivors."""
    rows = "".join(
        f"| `{m.module.removeprefix('sim/')}` | `{m.function or 'top'}` | `{m.old}` | `{m.new}` |\n".replace(
            "||", ""
        )
        for m in survivors
    )
    return (
        "# Mutants that no test kills\n\n"
        f"`python tools/mutate.py` broke the physics in {tried} ways; {len(survivors)} went unseen "
        f"({len(survivors) / max(tried, 1):.1%}; at most 3 % may). The list may only shrink.\n\n"
        + (
            "| module | function | expression | became |\n|---|---|---|---|\n" + rows
            if rows
            else "None survived.\n"
        )
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 1 where more than 3 % survive."""
    parser = argparse.ArgumentParser(
        description="Break the physics in many small ways, and see that a test fails."
    )
    parser.add_argument("modules", nargs="*", help="of sim/, without suffix: sim/cost/memory; all by default")
    parser.add_argument("--sample", type=int, default=200, help="mutants in all, the chosen ones first")
    parser.add_argument(
        "--skip", type=int, default=0, help="leave out so many of the sample, which earlier runs tried"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--trust", action="store_true", help="do not run the tests without a mutant first")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument("--write", type=Path, help="write the table of survivors")
    asked = parser.parse_args(argv)
    every = sorted(
        str(path.relative_to(ROOT).with_suffix(""))
        for room in ("cluster", "cost", "schedule", "engine", "runs")
        for path in (ROOT / "sim" / room).glob("*.py")
        if path.stem != "__init__"
    )
    modules = asked.modules or [module for module in every if covering(module)]
    by_hand = [mutant for mutant in chosen(ROOT) if not asked.modules or mutant.module in modules]
    made = generated(ROOT, modules)
    random.Random(asked.seed).shuffle(made)
    mutants = [*by_hand, *made][: asked.sample][asked.skip :]
    if asked.list:
        print(*mutants, sep="\n")
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
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(ROOT, Path(folder))
        files = list(dict.fromkeys(name for mutant in mutants for name in covering(mutant.module)))
        if not asked.trust and (failed := killer(copy, files, None, limit_s=10 * LIMIT_S)):
            raise SystemExit(f"without any mutant fails {failed}")
        for number, mutant in enumerate(mutants, 1):
            by = killer(copy, covering(mutant.module), mutant)
            survivors += [] if by else [mutant]
            print(
                f"{number}/{len(mutants)} {mutant}\n    {'killed by ' + by if by else 'SURVIVES'}", flush=True
            )
    print(f"{len(survivors)} of {len(mutants)} survive")
    if asked.write:
        asked.write.write_text(table(len(mutants), survivors))
    return int(len(survivors) > 0.03 * len(mutants))


if __name__ == "__main__":
    sys.exit(main())
