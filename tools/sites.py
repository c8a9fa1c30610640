"""Sites of the physics where something is computed, what each may become, and which are drawn.

A site is an operator, a comparison, a constant, a choice or a pair of arguments in the modules of `ROOMS`, however young a module
is; none is in a message, an annotation, a decorator or an assertion. All are as likely as any other, and what a site becomes is
drawn from what its rule makes of it. A site's place in the draw is a hash of the seed and of what is written there, so that
edits elsewhere leave the draw as it was.
"""

from __future__ import annotations

import ast
import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mutants import CHOSEN

ROOMS = ("cluster", "workload", "cost", "schedule", "engine", "runs")
"""Of `sim/`: the physics."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one place: `module` is a path without suffix, `function` a dotted name, empty at the top."""

    module: str
    function: str
    line: int
    start: int
    """Bytes of the file before the place."""
    end: int
    old: str
    new: str
    why: str = ""
    defines: str = ""
    """The name that it gives a value, outside functions."""
    compiled: bool = False

    def applied(self, source: bytes) -> bytes:
        """The source with the change."""
        new = self.new if _statement(self.old) else f"({self.new})"
        return source[: self.start] + new.encode() + source[self.end :]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What its entry in `EQUIVALENT` or `LEFT` is called."""
        return self.module, self.function, self.old, self.new

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.function or 'top'}: {self.old} -> {self.new}"


def _statement(text: str) -> bool:
    return isinstance(ast.parse(text).body[0], ast.AugAssign)


_SWAPS: Mapping[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
_EDGES: Mapping[type, type] = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
_NAMES = {
    "min": "max",
    "max": "min",
    "minimum": "maximum",
    "maximum": "minimum",
    "ceil": "floor",
    "floor": "ceil",
}
_IN_ANY_ORDER = {*_NAMES, "gcd", "lcm", "isclose", "array_equal", "hypot", "isinstance", "logaddexp"}


@dataclass(frozen=True, slots=True)
class Place:
    """An expression or an addition in place, and where it is."""

    function: str
    node: ast.expr | ast.AugAssign
    defines: str = ""
    compiled: bool = False


def places(source: bytes) -> Iterator[Place]:
    """Every expression that computes; no messages, annotations, decorators or assertions."""

    def walk(node: ast.AST, function: str, defines: str | None, compiled: bool) -> Iterator[Place]:
        if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
            return
        children: Iterable[ast.AST] = ast.iter_child_nodes(node)
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            function = f"{function}.{node.name}".lstrip(".")
            marks = {mark.id for mark in node.decorator_list if isinstance(mark, ast.Name)}
            compiled = compiled or bool(marks & {"Compilable", "frugal"})
            children = node.body
            if isinstance(node, ast.FunctionDef):
                given = [*node.args.defaults, *(each for each in node.args.kw_defaults if each is not None)]
                children = [*given, *node.body]
                defines = None
        elif isinstance(node, ast.AnnAssign):
            children = [node.value] if node.value else []
            defines = ast.unparse(node.target) if defines == "" else defines
        elif isinstance(node, ast.Assign):
            defines = ast.unparse(node.targets[0]) if defines == "" else defines
        if isinstance(node, ast.expr | ast.AugAssign):
            yield Place(function, node, defines or "", compiled)
        for child in children:
            yield from walk(child, function, defines, compiled)

    tree = ast.parse(source)
    for node in tree.body:
        yield from walk(node, "", "", False)


def _text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def variants(node: ast.expr | ast.AugAssign) -> Iterator[ast.expr | ast.AugAssign]:
    """What an expression may become."""
    if isinstance(node, ast.BinOp):
        if _text(node.left) or _text(node.right):
            return
        if type(node.op) in _SWAPS:
            yield ast.BinOp(node.left, _SWAPS[type(node.op)](), node.right)
        if isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div):
            yield node.left
        if isinstance(node.op, ast.Add | ast.Mult):
            yield node.right
    elif isinstance(node, ast.AugAssign):
        if type(node.op) in _SWAPS and not _text(node.value):
            yield ast.AugAssign(node.target, _SWAPS[type(node.op)](), node.value)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        for rule in (_SWAPS, _EDGES):
            if type(node.ops[0]) in rule:
                yield ast.Compare(node.left, [rule[type(node.ops[0])]()], node.comparators)
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
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in _NAMES and isinstance(node.func, ast.Name):
            yield ast.Call(ast.Name(_NAMES[name]), node.args, node.keywords)
        elif name in _NAMES and isinstance(node.func, ast.Attribute):
            yield ast.Call(ast.Attribute(node.func.value, _NAMES[name]), node.args, node.keywords)
        if name not in _IN_ANY_ORDER and not any(isinstance(each, ast.Starred) for each in node.args):
            for left, right in zip(range(len(node.args)), range(1, len(node.args)), strict=False):
                if ast.unparse(node.args[left]) != ast.unparse(node.args[right]):
                    order = [*node.args[:left], node.args[right], node.args[left], *node.args[right + 1 :]]
                    yield ast.Call(node.func, order, node.keywords)


def _mutant(module: str, source: bytes, place: Place, new: str, why: str = "") -> Mutant:
    node, lines = place.node, source.splitlines(keepends=True)
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset
    return Mutant(
        module, place.function, node.lineno, start, end, ast.unparse(node), new, why, place.defines, place.compiled
    )  # fmt: skip


def modules_of(root: Path, rooms: Sequence[str] = ROOMS) -> list[str]:
    """All modules of the rooms."""
    paths = (path for room in rooms for path in sorted((root / "sim" / room).glob("*.py")))
    return [str(path.relative_to(root).with_suffix("")) for path in paths]


def sites(root: Path, modules: Iterable[str]) -> Iterator[list[Mutant]]:
    """What each site of the modules may become."""
    for module in modules:
        source = (root / f"{module}.py").read_bytes()
        for place in places(source):
            new = [ast.unparse(ast.fix_missing_locations(variant)) for variant in variants(place.node)]
            if new:
                yield [_mutant(module, source, place, text) for text in new]


def drawn(root: Path, modules: Iterable[str], seed: int) -> list[Mutant]:
    """One mutant of every site, in the order of the draw."""
    again: Counter[tuple[str, str, str]] = Counter()
    order = []
    for made in sites(root, modules):
        site = made[0].module, made[0].function, made[0].old
        again[site] += 1
        word = hashlib.sha256(repr((seed, *site, again[site])).encode()).hexdigest()
        order.append((word, random.Random(word).choice(made)))
    return [mutant for _, mutant in sorted(order, key=lambda pair: pair[0])]


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
            place
            for place in places(source)
            if place.function == function and ast.unparse(place.node) == wanted
        ]
        if len(at) == 1:
            made.append(_mutant(module, source, at[0], new, why))
        else:
            wrong.append(f"{module}: {function or 'top'} has {len(at)} times '{old}'; wanted once ({why})")
    if wrong:
        raise SystemExit("mutants that no longer apply:\n" + "\n".join(wrong))
    return made


def reason(mutant: Mutant, known: Mapping[tuple[str, str, str, str], str]) -> str | None:
    """Why a mutant is in a table of reasons: itself, all changes of its expression, or all of its function."""
    module, function, old, new = mutant.key
    for key in ((module, function, old, new), (module, function, old, ""), (module, function, "", "")):
        if key in known:
            return known[key]
    return None
