"""Notebooks of the documentation: text in MyST, whose code cells are run here without Jupyter."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
PAGES = tuple(sorted(FOLDER.glob("*.md")))

_CELL = re.compile(r"^```\{code-cell\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(page: Path, folder: Path) -> dict[str, Any]:
    """The names that a notebook's cells leave, run in order in a folder."""
    cells = _CELL.findall(page.read_text(encoding="utf-8"))
    assert cells, f"{page.name} has no code cell"
    names: dict[str, Any] = {"__name__": page.stem}
    with contextlib.chdir(folder):
        for cell in cells:
            exec(compile(cell, page.name, "exec"), names)
    return names
