"""The house stands as CONTRIBUTING describes it: imports point down, libraries have one home, modules stay small."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).resolve().parents[1]
SIM = ROOT / "sim"
MODULES = sorted(SIM.rglob("*.py"))

ROOMS = (
    "ground", "cluster", "workload", "cost", "schedule", "engine", "calibration", "scenario", "runs", "validation", "sweeps",
    "ladders", "answers", "show", "door",
)  # fmt: skip
"""From the ground up; `ground` is errors, units, files and documents, `door` the command line and the package itself."""
FLOORS = {room: floor for floor, room in enumerate(ROOMS)}
GROUND = (
    "errors", "units", "limits", "locks", "json_events", "files", "kept", "cells", "documents", "schemas", "descriptions", "trees",
    "kinds", "metrics", "version", "exports", "sentences",
)  # fmt: skip
DOOR = ("", "cli", "__main__", "result")
MEDIA = ("views", "words", "tables", "plots", "pages", "files")
"""Rooms of `show`, from the ground up; what lies directly in `show` is below them."""
MAX_LINES = 400

HOMES = {
    "yaml": ("documents",),
    "networkx": ("cluster.topology", "cluster.cables"),
    "simpy": ("engine",),
    "numba": ("engine",),
    "plotly": ("show.canvas",),
    "jinja2": ("show.pages.page",),
    "markupsafe": ("show.pages.page",),
    "kaleido": ("show",),
    "pandas": ("show", "result"),
    "polars": ("show", "result"),
    "rich": ("show", "cli"),
    "click": ("cli",),
    "distributed": ("sweeps",),
    "sqlite3": ("sweeps.store",),
}
"""Library -> the only rooms or modules that import it."""

HEAVY = (
    "numpy",
    "networkx",
    "plotly",
    "pydantic",
    "simpy",
    "yaml",
    "numba",
    "rich",
    "kaleido",
    "pandas",
    "polars",
    "jinja2",
)


def name_of(path: Path) -> str:
    """Dotted name below `sim`: `cluster.topology`; "" is the package itself."""
    parts = path.relative_to(SIM).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path): path for path in MODULES}


def floor(module: str) -> tuple[int, int]:
    """The storey of a module below `sim`; within `show`, of its medium."""
    room, _, rest = module.partition(".")
    medium = rest.partition(".")[0]
    within = MEDIA.index(medium) + 1 if room == "show" and medium in MEDIA else 0
    return FLOORS["ground" if room in GROUND else "door" if room in DOOR else room], within


@cache
def imported(path: Path) -> tuple[tuple[str, int], ...]:
    """Every module that a file imports, wherever the import stands, with its line."""
    return tuple(_imported(path))


def _imported(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if whole.removeprefix("sim.") in NAMES else str(node.module)), node.lineno


def test_every_room_has_a_floor() -> None:
    assert {name.partition(".")[0] for name in NAMES} <= {*ROOMS, *GROUND, *DOOR}


@pytest.mark.parametrize("module", NAMES)
def test_imports_point_down(module: str) -> None:
    upward = [
        f"{module}:{line} imports {target}"
        for target, line in imported(NAMES[module])
        if target == "sim" or target.startswith("sim.")
        if floor(target.removeprefix("sim").removeprefix(".")) > floor(module)
    ]
    assert not upward


def test_no_import_runs_in_a_circle() -> None:
    imports = networkx.DiGraph(
        (module, target.removeprefix("sim").removeprefix("."))
        for module, path in NAMES.items()
        for target, _ in imported(path)
        if target == "sim" or target.startswith("sim.")
    )
    imports.remove_edges_from(list(networkx.selfloop_edges(imports)))
    assert not [circle for circle in networkx.strongly_connected_components(imports) if len(circle) > 1]


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_imported_only_at_home(library: str) -> None:
    strangers = [
        f"{module}:{line}"
        for module, path in NAMES.items()
        for target, line in imported(path)
        if target.partition(".")[0] == library
        and not any(module == home or module.startswith(f"{home}.") for home in HOMES[library])
    ]
    assert not strangers


@pytest.mark.parametrize("module", NAMES)
def test_a_module_stays_one_noun(module: str) -> None:
    lines = len(NAMES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{module} has {lines} lines: look for the second noun"


def test_every_module_says_what_it_is() -> None:
    silent = [
        name
        for name, path in NAMES.items()
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "common", "helpers", "base", "manager", "misc"}
    assert not [name for name in NAMES if name.rpartition(".")[2] in drawers]


def test_no_class_name_occurs_twice() -> None:
    places: dict[str, list[str]] = {}
    for module, path in NAMES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(module)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['moesim', '--help']\nfrom sim.cli import main\nmain()\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert "click" in loaded
    assert not loaded & set(HEAVY)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys\nimport sim\nsim.run, sim.load_scenario\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "sim" in loaded
    assert not loaded & {*HEAVY, "click"}


def test_a_run_without_report_imports_nothing_that_draws_or_writes_pages(tmp_path: Path) -> None:
    code = (
        "import sys\nsys.argv = 'moesim run flows-example --no-report --out'.split()\n"
        f"sys.argv.append({str(tmp_path)!r})\nfrom sim.cli import main\nmain()\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert "numpy" in loaded
    assert not loaded & {"plotly", "jinja2", "kaleido", "pandas", "polars"}


def test_the_house_in_contributing_is_the_house_on_disk() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn = set(re.findall(r"^sim/(\w+)/", text, re.MULTILINE))
    assert drawn == {name.partition(".")[0] for name in NAMES if "." in name}
