"""Constraints as text: `layout.ep * layout.tp <= 256 and memory.total_bytes < 72 GB`, read here and never by `eval`.

    either      ->  both or both ...              sum      ->  product + - product ...
    both        ->  negated and negated ...       product  ->  signed * / // % signed ...
    negated     ->  [not] comparison              signed   ->  [-] value
    comparison  ->  sum [< <= > >= == != sum]     value    ->  number [unit] | 'word' | name | function(...) | (either)

Quantities are held in SI units, as in scenarios. Names stand for keys of a resolved scenario, parts of its memory and its
metrics; which there are is known only when a point has been resolved or has run, so an expression tells its `names` and is
asked with their values.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from sim import units
from sim.errors import InputError, Mark, Problem, nearest

MAX_CHARACTERS = 500
_MAX_DEPTH = 30

_TOKEN = re.compile(
    r"""(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
      | (?P<name>[A-Za-z_]\w*(?:\.\w+)*)
      | (?P<word>'[^']*'|"[^"]*")
      | (?P<sign><=|>=|==|!=|//|[-+*/%<>(),])""",
    re.VERBOSE,
)
_UNIT = re.compile(
    rf"\s*({'|'.join(re.escape(unit) for unit in sorted(units.FACTORS, key=len, reverse=True))})(?!\w)"
)
_VALUE = re.compile(r"\s*(?!(?:and|or|not)\b)[\w.('\"]")
_KEYWORDS = ("and", "or", "not")
_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "//": operator.floordiv, "%": operator.mod,
}  # fmt: skip
_COMPARISONS, _SUMS, _PRODUCTS = ("<", "<=", ">", ">=", "==", "!="), ("+", "-"), ("*", "/", "//", "%")
FUNCTIONS: Mapping[str, Callable[..., Any]] = {"min": min, "max": max, "abs": abs, "log2": math.log2}


Values = Mapping[str, Any]
_Node = Callable[[Values], Any]


@dataclass(frozen=True, slots=True)
class Expression:
    """A constraint, ready to be asked."""

    text: str
    names: tuple[str, ...]
    mark: Mark | None
    node: _Node

    def __reduce__(self) -> tuple[Callable[..., Expression], tuple[str, Mark | None]]:
        """Pickle it as its text, which is what travels to workers."""
        return parse, (self.text, self.mark)

    def holds(self, values: Values) -> bool:
        """Return whether it is true of some values by name; all of `names` must be among them.

        Raises `InputError` where the values cannot be compared or computed with.
        """
        try:
            return bool(self.node(values))
        except (ZeroDivisionError, ValueError):
            return False  # nothing is at most a number divided by nothing, or the logarithm of nothing
        except (TypeError, OverflowError) as error:
            wanted = "values that can be compared and computed with"
            raise InputError(Problem(self.mark, "constraints", f"'{self.text}': {error}", wanted)) from None


def parse(text: str, mark: Mark | None = None) -> Expression:
    """Read an expression. Raises `InputError` that shows where it stops making sense."""
    return _Reader(text, mark).whole()


class _Reader:
    """Reads tokens one by one; each method returns a function of the values."""

    def __init__(self, text: str, mark: Mark | None) -> None:
        self.text, self.mark, self.at, self.depth, self.compares = text, mark, 0, 0, False
        self.names: dict[str, None] = {}
        if len(text) > MAX_CHARACTERS:
            self.fail(f"{len(text)} characters", f"at most {MAX_CHARACTERS}")

    def whole(self) -> Expression:
        node = self.either()
        if self.at < len(self.text):
            self.fail(f"'{self.text[self.at :]}' after what is whole", "an operator, or nothing more")
        if not self.compares:
            self.fail("nothing compared", "a comparison, like 'layout.ep <= 64'")
        return Expression(self.text, tuple(self.names), self.mark, node)

    def fail(self, got: str, wanted: str, near: str | None = None) -> NoReturn:
        shown = f"{got} in '{self.text[:80]}'" + (f", column {self.at + 1}" if self.at else "")
        raise InputError(Problem(self.mark, "constraints", shown, wanted, near))

    # --- tokens

    def next(self) -> tuple[str, str]:
        """Return kind and text of the next token; ("", "") at the end."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            if self.at < len(self.text):
                self.fail(f"'{self.text[self.at]}'", "a number, a name, an operator or a parenthesis")
            return "", ""
        return str(match.lastgroup), match[0]

    def take(self, *wanted: str) -> str | None:
        """Step over the next token if it is among these, and return it."""
        kind, text = self.next()
        if text in wanted and kind != "word":
            self.at += len(text)
            return text
        return None

    # --- grammar, loosest first

    def either(self) -> _Node:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.fail(f"more than {_MAX_DEPTH} parentheses inside one another", "a flatter expression")
        parts = [self.both()]
        while self.take("or"):
            parts.append(self.both())
        self.depth -= 1
        return parts[0] if len(parts) == 1 else lambda values: any(part(values) for part in parts)

    def both(self) -> _Node:
        parts = [self.negated()]
        while self.take("and"):
            parts.append(self.negated())
        return parts[0] if len(parts) == 1 else lambda values: all(part(values) for part in parts)

    def negated(self) -> _Node:
        turns = 0
        while self.take("not"):
            turns += 1
        node = self.comparison()
        return (lambda values: not node(values)) if turns % 2 else node

    def comparison(self) -> _Node:
        node, sign = self.chain(_SUMS), self.take(*_COMPARISONS)
        if sign is None:
            return node
        self.compares = True
        node = _operation(sign, node, self.chain(_SUMS))
        if self.take(*_COMPARISONS):
            self.fail("a comparison of a comparison", "two comparisons joined by 'and'")
        return node

    def chain(self, signs: tuple[str, ...]) -> _Node:
        inner = self.signed if signs is _PRODUCTS else lambda: self.chain(_PRODUCTS)
        node = inner()
        while sign := self.take(*signs):
            node = _operation(sign, node, inner())
        return node

    def signed(self) -> _Node:
        turns = 0
        while sign := self.take("-", "+"):
            turns += sign == "-"
        node = self.value()
        return (lambda values: -node(values)) if turns % 2 else node

    def value(self) -> _Node:
        if self.take("("):
            node = self.either()
            self.close()
            return node
        kind, text = self.next()
        if kind == "number":
            return self.number(text)
        if kind == "word":
            self.at += len(text)
            return lambda _: text[1:-1]
        if kind != "name" or text in _KEYWORDS:
            self.fail(f"'{text}'" if text else "the end", "a number, a name or a parenthesis")
        self.at += len(text)
        if text in ("true", "false"):
            return lambda _: text == "true"
        if self.take("("):
            return self.call(text)
        self.names[text] = None
        return lambda values: values[text]

    def number(self, text: str) -> _Node:
        if not math.isfinite(float(text)):
            self.fail(f"'{text}'", "a finite number")
        self.at += len(text)
        number = (float(text) if re.search(r"[.eE]", text) else int(text)) * self.unit()
        return lambda _: number

    def call(self, name: str) -> _Node:
        if name not in FUNCTIONS:
            wanted = f"one of the functions {', '.join(FUNCTIONS)}"
            self.fail(f"'{name}('", wanted, nearest(name, FUNCTIONS))
        arguments = [self.either()]
        while self.take(","):
            arguments.append(self.either())
        self.close()
        single = name in ("abs", "log2")
        if single == (len(arguments) > 1):
            self.fail(f"{name} of {len(arguments)}", "one value" if single else "two values or more")
        return lambda values: FUNCTIONS[name](*(argument(values) for argument in arguments))

    def close(self) -> None:
        if not self.take(")"):
            self.fail("a parenthesis that stays open", "')'")

    def unit(self) -> float:
        """Return the factor of the unit behind a number, 1 where there is none; `%` is a unit where no value follows it."""
        match = _UNIT.match(self.text, self.at)
        if match is None:
            kind, word = self.next()
            if kind == "name" and word not in _KEYWORDS:
                self.fail(f"the unit '{word}'", "a unit, like 'GB' or 'us'", nearest(word, units.FACTORS))
            return 1
        if match[1] == "%" and _VALUE.match(self.text, match.end()):
            return 1  # a remainder
        self.at = match.end()
        return units.FACTORS[match[1]]


def _operation(sign: str, left: _Node, right: _Node) -> _Node:
    apply = _OPERATORS[sign]
    if sign in _COMPARISONS:
        return lambda values: apply(left(values), right(values))
    return lambda values: apply(_computable(left(values)), _computable(right(values)))


def _computable(value: Any) -> Any:
    """Return a value that can be computed with: no word, which `*` would repeat and `%` would fill in, at any length."""
    if isinstance(value, str):
        raise TypeError(f"the word '{value}' cannot be computed with")
    return value
