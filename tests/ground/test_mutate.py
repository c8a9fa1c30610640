"""The tool that breaks the physics: it finds, changes and judges what it should, and leaves the tree as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.append(str(TOOLS))

import mutate  # noqa: E402
from mutants import CHOSEN  # noqa: E402

SOURCE = '''\
"""A room of one."""

SIDE = 2.0


def area(width: float, height: float = SIDE) -> float:
    """Width x height."""
    if width < 0:
        raise ValueError(f"got {-width}")
    return width * height


def unreachable(width: float) -> float:
    return width + 1.0
'''
TEST = "from sim.room import area\n\n\ndef test_area():\n    assert area(3.0) == 6.0\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "sim").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "sim" / "__init__.py").write_text("")
    (tmp_path / "sim" / "room.py").write_text(SOURCE)
    (tmp_path / "tests" / "test_room.py").write_text(TEST)
    return tmp_path


def test_mutants_swap_and_drop_what_computes_and_nothing_that_is_told(tree: Path) -> None:
    made = {(m.function, m.old, m.new) for m in mutate.generated(tree, ["sim/room"])}
    assert {
        ("area", "width * height", "width / height"),
        ("area", "width * height", "width"),
        ("area", "width < 0", "width >= 0"),
        ("", "2.0", "4.0"),
        ("unreachable", "width + 1.0", "width - 1.0"),
    } <= made
    assert not [mutant for mutant in made if mutant[1] == "-width"]  # in a message


def test_every_chosen_mutant_still_applies_and_one_that_does_not_is_an_error(tree: Path) -> None:
    assert len(mutate.chosen(TOOLS.parent)) == len(CHOSEN)
    lost = ("sim/room", "area", "width * depth", "width", "a depth")
    with pytest.raises(SystemExit, match="area has 0 times 'width \\* depth'"):
        mutate.chosen(tree, [lost])


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import mutate
tree = Path(sys.argv[2])
reached, unreached = mutate.chosen(tree, [
    ("sim/room", "area", "width * height", "width / height", ""), ("sim/room", "unreachable", "width + 1.0", "width", "")
])
print(*(mutate.killer(tree, ["tests/test_room.py"], mutant) for mutant in (reached, unreached, None)))
"""


def test_what_a_test_reaches_is_killed_and_what_none_reaches_survives(tree: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(TOOLS), str(tree)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["tests/test_room.py::test_area", "None", "None"]
    assert (tree / "sim" / "room.py").read_text() == SOURCE


def test_ctrl_c_leaves_the_tree_as_it_was(tree: Path) -> None:
    (tree / "tests" / "test_room.py").write_text(
        "import time, pathlib\npathlib.Path('begun').touch()\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-c", PROGRAM, str(TOOLS), str(tree)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (tree / "begun").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    assert (tree / "sim" / "room.py").read_text() != SOURCE
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) != 0
    assert (tree / "sim" / "room.py").read_text() == SOURCE
