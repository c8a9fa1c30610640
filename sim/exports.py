"""Public names of a room, imported when they are first used.

A room's `__init__.py` imports its public names under `TYPE_CHECKING`, where type checkers see them, and lists them in
`__all__`; `exported` reads that block for the module of each name.

Why this way: `from sim.cluster import load_hardware` works, and importing one module of a room imports no other.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def exported(room: str, file: str, names: list[str]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a room from its `__name__`, `__file__` and `__all__`: public name -> object."""
    homes: dict[str, tuple[str, str]] = {}

    def attribute(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module '{room}' has no attribute '{name}'")
        if not homes:
            homes.update(_homes(Path(file)))
        module, original = homes[name]
        return getattr(import_module(module), original)

    return attribute


def _homes(file: Path) -> dict[str, tuple[str, str]]:
    """Every name that a file imports from elsewhere, with its module and its name there."""
    return {
        alias.asname or alias.name: (str(node.module), alias.name)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
