"""What pip installs is whole: wheel and sdist are built, installed apart from the checkout, and run from another folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = "Scripts" if os.name == "nt" else "bin"

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]


def call(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed, away from this checkout and its settings."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV", "PYTEST"))}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of executables of a fresh virtual environment."""
    folder = tmp_path_factory.mktemp("fresh")
    call(sys.executable, "-m", "venv", "venv", cwd=folder)
    return folder / "venv" / BIN


@pytest.fixture(scope="module")
def built(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    call(environment / "pip", "install", "-q", "hatchling", cwd=folder)
    call(environment / "python", "-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def installed(environment: Path, built: Path) -> Iterator[Path]:
    """The environment with the wheel in it."""
    [wheel] = built.glob("*.whl")
    call(environment / "pip", "install", "-q", wheel, cwd=built)
    return environment


def data_files() -> set[str]:
    """Every file of hardware/ and scenarios/ that belongs to the project."""
    return {
        str(p.relative_to(ROOT))
        for top in ("hardware", "scenarios")
        for p in (ROOT / top).rglob("*")
        if p.is_file()
    }


def test_the_wheel_holds_every_data_file_and_no_test(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"sim/{name}" for name in data_files()} <= names
    assert "sim/py.typed" in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"sim", "moesim", "moesim.py"}
    assert not [name for name in names if "__pycache__" in name or "test" in Path(name).parts]


def test_the_sdist_holds_what_builds_and_what_tests(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "sim/cli/__init__.py",
        "moesim.py",
        "tests/test_wheel.py",
    ):
        assert name in names
    assert data_files() <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("results", ".venv"))]


def test_the_installed_command_finds_its_data_and_writes_from_any_folder(
    installed: Path, tmp_path: Path
) -> None:
    moesim = installed / "moesim"
    where = call(installed / "python", "-c", "import sim; print(sim.__file__)", cwd=tmp_path)
    assert str(ROOT) not in where
    for what in ("hardware", "scenarios"):
        shipped = {p.stem for p in (ROOT / what).glob("*.yaml")}
        assert set(call(moesim, "show", what.removesuffix("s"), cwd=tmp_path).split()) == shipped
    out = json.loads(call(moesim, "run", "h800-vs-h100", "--json", cwd=tmp_path))
    folder = tmp_path / "results" / "h800-vs-h100"
    assert json.loads((folder / "result.json").read_text(encoding="utf-8")) == out
    assert (folder / "report.html").stat().st_size > 10_000
    assert {p.name for p in tmp_path.iterdir()} == {"results"}


def test_the_installed_package_validates_and_starts_a_scenario(installed: Path, tmp_path: Path) -> None:
    found = json.loads(call(installed / "moesim", "validate", "--group", "two_hop", "--json", cwd=tmp_path))
    assert found["groups"]["two_hop"]["ok"]
    call(installed / "moesim", "new", "mine", cwd=tmp_path)
    call(installed / "moesim", "check", "mine.yaml", cwd=tmp_path)


def test_the_installed_package_is_typed_and_importable_by_its_name(installed: Path, tmp_path: Path) -> None:
    code = "import sim; r = sim.run('deepep-ep16-h800'); print(r['metrics']['dispatch']['binding'])"
    assert call(installed / "python", "-W", "error", "-c", code, cwd=tmp_path).strip() == "scale_up"
    same = "import moesim, sim; print(moesim.run is sim.run, moesim.AllToAll.__name__, moesim.__file__)"
    told = call(installed / "python", "-W", "error", "-c", same, cwd=tmp_path).split()
    assert told[:2] == ["True", "AllToAllSpec"]
    assert str(ROOT) not in told[2]
