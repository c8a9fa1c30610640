"""YAML files as plain trees that remember the place of every key.

Why this way: PyYAML's own loading forgets line numbers, keeps the last of duplicate keys, reads `on` as True and
`1e9` as a string, and expands alias bombs. So the file is *composed* to nodes and walked here: safe scalars only
(YAML 1.2 style), duplicate keys refused, bounded size, depth and node count. The tree is then checked by a pydantic
model, and every problem is reported at its line and column, all together.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from sim import files, limits
from sim.errors import InputError, Mark, Problem
from sim.files import data_folder as data_folder
from sim.files import find as find
from sim.files import shipped as shipped
from sim.trees import Path_ as Path_
from sim.trees import leaves

_INT = re.compile(r"[-+]?\d+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_CONSTANTS: Mapping[str, object] = {
    "": None, "~": None, "null": None, "true": True, "false": False, "True": True, "False": False,
}  # fmt: skip
_CONTROL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NO_TEXT = ("Cc", "Cs")  # Unicode's control characters and halves of characters
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{kind}"
    for kind in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge")
}


@dataclass(slots=True)
class Document:
    """A tree of plain mappings, lists and scalars, and the mark of each key and value by path."""

    tree: dict[str, Any]
    name: str
    keys: dict[Path_, Mark] = field(default_factory=dict)
    values: dict[Path_, Mark] = field(default_factory=dict)
    folder: Path | None = None
    settings: tuple[str, ...] = ()
    """Settings laid over the file from outside it, as `key.path=value`."""

    def mark(self, path: Path_, *, key: bool = False) -> Mark:
        """The place of a key or its value; that of the nearest parent where the path itself is not in the file."""
        first, second = (self.keys, self.values) if key else (self.values, self.keys)
        for end in range(len(path), -1, -1):
            mark = first.get(path[:end]) or second.get(path[:end])
            if mark:
                return mark
        return Mark(self.name)

    def problem(
        self, path: Path_, got: object, wanted: str, near: str | None = None, *, key: bool = False
    ) -> Problem:
        """A problem at `path` of this document."""
        text = got if isinstance(got, str) else repr(got)
        return Problem(self.mark(path, key=key), dotted(path), text, wanted, near)

    def copy(self) -> Document:
        """An independent document with the same content and marks."""
        return Document(
            _copy(self.tree), self.name, dict(self.keys), dict(self.values), self.folder, self.settings
        )

    def branch(self, path: Path_) -> Document:
        """The mapping at `path` as a document of its own, marks kept (empty where there is none)."""
        tree = self.get(path)
        cut = len(path)
        keys, values = (
            {p[cut:]: mark for p, mark in marks.items() if p[:cut] == path}
            for marks in (self.keys, self.values)
        )
        return Document(_copy(tree) if isinstance(tree, dict) else {}, self.name, keys, values, self.folder)

    def get(self, path: Path_) -> Any:
        """The value at `path`, or None."""
        node: Any = self.tree
        for part in path:
            inside = isinstance(node, dict) and part in node
            if not inside and not (
                isinstance(node, list) and isinstance(part, int) and 0 <= part < len(node)
            ):
                return None
            node = node[part]
        return node

    def put(self, path: Path_, value: Any, mark: Mark) -> None:
        """Set `path` to `value`, making mappings on the way; what stood below is forgotten with its marks."""
        node: Any = self.tree
        for depth, part in enumerate(path[:-1]):
            child: Any = node.get(part) if isinstance(node, dict) else None
            if isinstance(node, list) and isinstance(part, int) and 0 <= part < len(node):
                child = node[part]
            elif not isinstance(node, dict):
                raise InputError(
                    Problem(
                        mark,
                        dotted(path),
                        f"'{part}'",
                        f"a key inside a mapping; {dotted(path[:depth])} is none",
                    )
                )
            if not isinstance(child, dict | list):
                child = {}
                node[part] = child
                self.keys[path[: depth + 1]] = self.values[path[: depth + 1]] = mark
            node = child
        last = path[-1]
        if isinstance(node, list) and not (isinstance(last, int) and 0 <= last < len(node)):
            raise InputError(Problem(mark, dotted(path), f"'{last}'", f"an index below {len(node)}"))
        stood = isinstance(self.get(path), dict | list)  # of anything else there are no marks below
        node[last] = _copy(value)
        for marks in (self.keys, self.values):
            for old in [p for p in marks if p[: len(path)] == path] if stood else [path]:
                marks.pop(old, None)
        self.keys[path] = self.values[path] = mark

    def overlay(self, other: Document, at: Path_ = ()) -> None:
        """Lay `other` over the branch `at`: mappings merge, anything else replaces; marks follow the winner."""
        for path, value in leaves(other.tree):
            target = at + path
            kept = self.get(target)
            if value == {} and isinstance(kept, dict):
                continue
            self.put(target, value, other.mark(path, key=True))
            for marks, theirs in ((self.keys, other.keys), (self.values, other.values)):
                for inside, mark in theirs.items():
                    if inside[: len(path)] == path:
                        marks[at + inside] = mark


def dotted(path: Path_) -> str:
    """Write a path the way people do: `cluster.faults.0.node`."""
    return ".".join(str(part) for part in path)


def split(key: str) -> Path_:
    """Read a dotted key: the reverse of `dotted`; numbers are list indices."""
    return tuple(int(part) if part.isdecimal() and len(part) < 10 else part for part in key.split("."))


def load(path: str | Path) -> Document:
    """Read one YAML file; a copy of its own, though a file that has not changed since is not read again.

    InputError for anything but a mapping of plain values, with all problems at their lines.
    """
    path = Path(path)
    try:
        status = path.stat()
        read = _read if files.is_settled(status) else _read.__wrapped__
        return read(path, path.resolve().parent, status.st_size, (status.st_ino, status.st_mtime_ns)).copy()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(Problem(Mark(str(path)), "", reason.lower(), "a readable YAML file")) from None


@lru_cache(maxsize=128)
def _read(path: Path, folder: Path, size: int, version: tuple[int, int]) -> Document:
    """The document of a file; `version` tells it from earlier contents of the file."""
    if size > limits.YAML_BYTES:
        raise InputError(Problem(Mark(str(path)), "", f"{size} bytes", f"at most {limits.YAML_BYTES}"))
    document = loads(files.text(path, "a readable YAML file"), str(path))
    document.folder = folder
    return document


def loads(text: str, name: str) -> Document:
    """Read YAML text, called `name` in messages; InputError as of `load`."""
    with files.uncollected():
        return _loads(text, name)


def _loads(text: str, name: str) -> Document:
    document = Document({}, name)
    problems: list[Problem] = []
    try:
        _bound(text, name)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.reader.ReaderError as error:
        raise InputError(_unreadable(text, name, error)) from None
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        mark = Mark(name, at.line + 1, at.column + 1) if at else Mark(name)
        why = f" ({error.problem})" if error.problem else ""
        raise InputError(Problem(mark, "", f"text that is not YAML{why}", "well-formed YAML")) from None
    except yaml.YAMLError as error:
        raise InputError(Problem(Mark(name), "", str(error).splitlines()[0], "well-formed YAML")) from None
    if not isinstance(node, yaml.MappingNode):
        raise InputError(
            Problem(Mark(name, 1, 1), "", "no mapping" if node else "an empty document", "a mapping of keys")
        )
    document.values[()] = _mark(node, name)
    document.tree = _Walk(document, problems).visit(node, ())
    if problems:
        raise InputError(problems)
    return document


def parse_scalar(text: str, name: str) -> Any:
    """Read a value typed by a person, as YAML: `64`, `[1, 2]`, `{kind: uniform}`, `400 GB/s`."""
    return loads(f"value: {text}", name).tree["value"]


def dumps(tree: Mapping[str, Any]) -> str:
    """Write a tree of plain values as YAML text, keys in their order."""
    return str(
        yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)
    )


class _Walk:
    """Turns composed nodes into plain values, noting marks, duplicates, foreign tags and size."""

    def __init__(self, document: Document, problems: list[Problem]) -> None:
        self.document, self.problems, self.count = document, problems, 0
        self.open: set[int] = set()

    def visit(self, node: yaml.Node, path: Path_) -> Any:
        self.count += 1
        mark = _mark(node, self.document.name)
        if self.count > limits.YAML_VALUES:
            raise InputError(
                [
                    *self.problems,
                    Problem(mark, dotted(path), f"more than {limits.YAML_VALUES} values", "a smaller file"),
                ]
            )
        if id(node) in self.open:
            raise InputError(
                [*self.problems, Problem(mark, dotted(path), "an alias inside itself", "a tree")]
            )
        if node.tag not in _PLAIN_TAGS:
            self.problems.append(
                Problem(mark, dotted(path), f"the tag {node.tag}", "plain YAML without tags")
            )
            return None
        self.document.values.setdefault(path, mark)
        if isinstance(node, yaml.ScalarNode):
            self.readable(node, path)
            scalar = _scalar(node)
            if isinstance(scalar, float) and not math.isfinite(scalar):  # no JSON has a word for it
                self.problems.append(Problem(mark, dotted(path), f"'{node.value}'", "a finite number"))
            return scalar
        self.open.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            value: Any = [self.visit(child, (*path, i)) for i, child in enumerate(node.value)]
        else:
            assert isinstance(node, yaml.MappingNode)
            value = self.mapping(node, path)
        self.open.discard(id(node))
        return value

    def readable(self, node: yaml.ScalarNode, path: Path_) -> None:
        """Note a scalar that is no text: no file can have its name, no terminal and no report can show it."""
        if node.value.isprintable():
            return
        strange = [
            char for char in node.value if unicodedata.category(char) in _NO_TEXT and char not in "\t\n\r"
        ]
        if strange:
            got = f"the control character U+{ord(strange[0]):04X}"
            self.problems.append(Problem(_mark(node, self.document.name), dotted(path), got, "text"))

    def mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for key_node, value_node in node.value:
            mark = _mark(key_node, self.document.name)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(mark, dotted(path), "a key that is not a word", "a word"))
                continue
            key = key_node.value
            place = (*path, key)
            self.readable(key_node, place)
            if key in tree:
                first = self.document.keys[place]
                self.problems.append(
                    Problem(
                        mark, dotted(place), "a duplicate key", f"one; the first stands in line {first.line}"
                    )
                )
                continue
            self.document.keys[place] = mark
            tree[key] = self.visit(value_node, place)
        return tree


def _scalar(node: yaml.ScalarNode) -> Any:
    text = node.value
    if node.style in ("'", '"', "|", ">") or node.tag == "tag:yaml.org,2002:merge":
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text) and len(text) < 20:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _mark(node: yaml.Node, name: str) -> Mark:
    return _place(node.start_mark, name)


def _place(mark: Any, name: str) -> Mark:
    return Mark(name, mark.line + 1, mark.column + 1)


def _unreadable(text: str, name: str, error: yaml.reader.ReaderError) -> Problem:
    """The first character that YAML does not allow, at its line."""
    strange = _CONTROL.search(text)
    if strange is None:
        return Problem(Mark(name), "", str(error.reason), "well-formed YAML")
    line = text.count("\n", 0, strange.start()) + 1
    column = strange.start() - text.rfind("\n", 0, strange.start())
    got = f"the control character U+{ord(strange[0]):04X}"
    return Problem(Mark(name, line, column), "", got, "text")


def _bound(text: str, name: str) -> None:
    """Refuse what is too much, or too deep, before composing it: composing keeps all and recurses."""
    depth = count = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.NodeEvent):
            count += 1
            if count > limits.YAML_VALUES:
                got = f"more than {limits.YAML_VALUES} values"
                raise InputError(Problem(_place(event.start_mark, name), "", got, "a smaller file"))
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > limits.YAML_LEVELS:
                mark = _place(event.start_mark, name)
                raise InputError(
                    Problem(mark, "", f"more than {limits.YAML_LEVELS} levels", "a flatter file")
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value
