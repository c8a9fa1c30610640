"""The tool that breaks the physics: it finds, changes and judges what it should, and leaves the tree as it was."""

from __future__ import annotations

import ast
import json
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
import sites  # noqa: E402
from mutants import CHOSEN  # noqa: E402

SOURCE = '''\
"""A room of one."""

SIDE = 2.0


def area(width: float, height: float = SIDE) -> float:
    """Width x height."""
    if width < 0:
        raise ValueError(f"got {-width}")
    return width * height


def volume(width: float, depth: float) -> float:
    """Of a room that is as high as it is wide."""
    whole = area(width, depth)
    whole *= width
    return whole


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
    made = {(m.function, m.old, m.new) for site in sites.sites(tree, ["sim/room"]) for m in site}
    assert {
        ("area", "width * height", "width / height"),
        ("area", "width * height", "width"),
        ("area", "width < 0", "width >= 0"),
        ("area", "width < 0", "width <= 0"),
        ("volume", "area(width, depth)", "area(depth, width)"),
        ("volume", "whole *= width", "whole /= width"),
        ("", "2.0", "4.0"),
        ("unreachable", "width + 1.0", "width - 1.0"),
    } <= made
    assert not [mutant for mutant in made if mutant[1] == "-width"]  # in a message


def test_the_draw_takes_a_mutant_of_every_site_and_outlives_edits_elsewhere(tree: Path) -> None:
    before = sites.drawn(tree, ["sim/room"], 0)
    places = [(m.start, m.end) for m in before]
    assert len(set(places)) == len(places) == sum(1 for _ in sites.sites(tree, ["sim/room"]))
    assert [m.key for m in before] != [m.key for m in sites.drawn(tree, ["sim/room"], 1)]
    room = tree / "sim" / "room.py"
    room.write_text("def first(side):\n    return side - 3\n\n\n" + room.read_text())
    after = sites.drawn(tree, ["sim/room"], 0)
    assert [m.key for m in after if m.function != "first"] == [m.key for m in before]
    assert all(ast.parse(m.applied(room.read_bytes())) for m in after)


def test_no_module_of_a_physics_room_is_left_out() -> None:
    modules = sites.modules_of(TOOLS.parent)
    rooms = {path.name for path in (TOOLS.parent / "sim").iterdir() if path.is_dir()}
    assert set(sites.ROOMS) <= rooms
    assert {"sim/cost/shares", "sim/runs/afd", "sim/engine/rounds", "sim/workload/gating"} <= set(modules)


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


@pytest.mark.slow
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


REACHING = """
import pytest
from sim.room import area, volume

@pytest.fixture(scope="module")
def room():
    return volume(2.0, 3.0)

def test_side():
    assert area(1.0) == 2.0

def test_first(room):
    assert room == 12.0

def test_second(room):
    assert room > 0.0
"""
MAPPING = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import mutate
tree, kept = Path(sys.argv[2]), Path(sys.argv[3])
reached = mutate.mapped(tree, kept, ["room"])
print(json.dumps([mutate.reaching_tests(m, reached, tree) for m in mutate.chosen(tree, [
    ("sim/room", "volume", "area(width, depth)", "0.0", ""), ("sim/room", "", "2.0", "1.0", ""),
])]))
"""


@pytest.mark.slow
def test_the_map_knows_what_tests_and_their_fixtures_call_and_looks_again_only_at_files_that_changed(
    tree: Path, tmp_path: Path
) -> None:
    (tree / "tests" / "test_room.py").unlink()
    (tree / "tests" / "room").mkdir()
    (tree / "tests" / "room" / "test_room.py").write_text(REACHING)
    (tree / "tests" / "room" / "test_nothing.py").write_text("def test_nothing():\n    assert True\n")
    command = [sys.executable, "-c", MAPPING, str(TOOLS), str(tree), str(tmp_path / "kept.json")]

    def mapped() -> tuple[str, list[list[list[str]]]]:
        ran = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return "\n".join(ran[:-1]), json.loads(ran[-1])

    told, (volume, side) = mapped()
    file = "tests/room/test_room.py"
    assert told == "mapping tests/room/test_nothing.py, tests/room/test_room.py"
    assert sorted(volume[0]) == [f"{file}::test_first", f"{file}::test_second"]  # the second by its fixture
    assert volume[1] == []
    assert len(side[0]) == 3  # of a constant: what calls a function that mentions it
    (tree / "tests" / "room" / "test_nothing.py").write_text("def test_nothing():\n    assert 1\n")
    assert mapped() == ("mapping tests/room/test_nothing.py", [volume, side])
