"""Public functions are documented: numpydoc sections with every parameter, examples that run, plain words."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import FunctionType

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("cluster", "workload", "cost", "schedule", "engine")
GROUND = (
    "cells", "descriptions", "documents", "errors", "exports", "files", "json_events", "limits", "locks", "schemas", "trees",
    "units",
)  # fmt: skip
"""Rooms and modules that are documented so far; the others follow."""
MODULES = [
    *(f"sim.{name}" for name in GROUND),
    *(f"sim.{path.parent.name}.{path.stem}" for room in ROOMS for path in sorted((ROOT / "sim" / room).glob("[a-z]*.py"))),
]  # fmt: skip
SOURCES = {name: ROOT / f"{name.replace('.', '/')}.py" for name in MODULES}

OPENINGS = ("What", "How", "Where", "Whether", "Of")
VAGUE = {"one", "found", "said", "told", "mine", "here"}
PREPOSITIONS = {"of", "at", "in", "on", "by", "for", "to", "with", "beside", "into", "over", "under"}
PARTICIPLES = {"told", "said", "called", "found", "given"}


def public_functions() -> Iterator[tuple[str, FunctionType]]:
    for room in ROOMS:
        module = import_module(f"sim.{room}")
        for name in module.__all__:
            function = inspect.unwrap(getattr(module, name))
            if isinstance(function, FunctionType):
                yield f"{room}.{name}", function


FUNCTIONS = dict(public_functions())


def sections(function: FunctionType) -> dict[str, str]:
    """Title -> text of the sections of a numpydoc docstring; the summary under ""."""
    parts = re.split(r"^(\w+)\n-+$", inspect.getdoc(function) or "", flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_documents_its_parameters_its_result_and_its_errors(name: str) -> None:
    function = FUNCTIONS[name]
    parts = sections(function)
    assert parts[""].strip()
    parameters = list(inspect.signature(function).parameters)
    described = re.findall(r"^([\w, ]+?)(?: :|$)", parts.get("Parameters", ""), flags=re.MULTILINE)
    assert [word for names in described for word in names.replace(",", " ").split()] == parameters
    assert ("Returns" in parts or "Yields" in parts) == (function.__annotations__["return"] != "None")
    tree = ast.parse(inspect.getsource(function))
    if any(isinstance(node, ast.Raise) for node in ast.walk(tree)):
        assert "Raises" in parts


@pytest.mark.parametrize("module", MODULES)
def test_examples_run_as_they_are_written(module: str) -> None:
    assert doctest.testmod(import_module(module)).failed == 0


@pytest.mark.parametrize("module", MODULES)
def test_the_language_is_plain(module: str) -> None:
    assert not list(vague(ast.parse(SOURCES[module].read_text(encoding="utf-8"))))


def vague(tree: ast.Module) -> Iterator[str]:
    """Docstrings that open with a question word, and names that say nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            texts = [ast.get_docstring(node) or ""]
            texts += [str(below.value.value) for field, below in pairwise(node.body)
                      if isinstance(field, ast.Assign | ast.AnnAssign)
                      and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)]  # fmt: skip
            yield from (
                text.partition("\n")[0] for text in texts if text.split() and text.split()[0] in OPENINGS
            )
        if isinstance(node, ast.FunctionDef):
            words = node.name.strip("_").split("_")
            if words[0] in PREPOSITIONS or (words[-1:] == words and words[0] in PARTICIPLES):
                yield node.name
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in VAGUE:
            yield node.id
        if isinstance(node, ast.arg) and node.arg in VAGUE:
            yield node.arg


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_nothing_until_a_name_is_used(room: str) -> None:
    with pytest.raises(AttributeError, match="no attribute 'nobody'"):
        _ = import_module(f"sim.{room}").nobody
