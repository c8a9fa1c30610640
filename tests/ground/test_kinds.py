"""Kinds of workloads: what the rooms have for each, and that another one is a file in each room and one line in one table."""

from __future__ import annotations

import ast
import filecmp
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sim.kinds import WORKLOADS
from sim.runs.kinds import runner
from sim.scenario.kinds import resolver

ROOT = Path(__file__).resolve().parents[2]

TOY = {
    "scenario/pause.py": '''
"""A workload that waits, for a while."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sim.scenario.descriptions import Workload
from sim.scenario.draft import Draft
from sim.scenario.kinds import Resolver
from sim.scenario.values import WorkloadSpec
from sim.schemas import Duration


class PauseSpec(WorkloadSpec):
    """Nothing, for a while."""

    kind: Literal["pause"]
    duration: Duration


@dataclass(frozen=True, slots=True)
class Pause(Workload):
    """A pause."""

    spec: PauseSpec


def pause_of(draft: Draft, spec: PauseSpec) -> Pause:
    """The pause."""
    return Pause(spec)


RESOLVER = Resolver({"pause": PauseSpec}, pause_of, takes_model=False)
''',
    "runs/pause.py": '''
"""Wait for a while."""

from __future__ import annotations

from sim.runs.kinds import Progress, Result, Runner
from sim.scenario.descriptions import Scenario
from sim.scenario.pause import Pause


def run_pause(scenario: Scenario, progress: Progress) -> Result:
    """The time that it waits."""
    assert isinstance(scenario.workload, Pause)
    return {"metrics": {"completion_time_s": scenario.workload.spec.duration}, "links": {}, "timeline": {}}


RUNNER = Runner(run_pause, reads=())
''',
    "show/views/pause.py": '''
"""The view of a pause."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sim.show.views.run import RunView

SIZES = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class PauseView(RunView):
    """A pause."""

    family: ClassVar[str] = "pause"

    completion_time_s: float


def facts(work: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """A fact that only pauses have."""
    return [("duration", work.get("duration"))]


def is_complete(metrics: Mapping[str, Any]) -> bool:
    """Check that it lasts."""
    return metrics.keys() == {"completion_time_s"}


def view(result: Mapping[str, Any], common: Mapping[str, Any]) -> PauseView:
    """Read a pause."""
    return PauseView(**common, completion_time_s=result["metrics"]["completion_time_s"])


def lanes_of(result: Mapping[str, Any]) -> None:
    """No timeline."""
''',
    "show/words/pause.py": '''
"""Sentences on pauses."""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.views.lanes import Lanes
from sim.show.views.pause import PauseView
from sim.show.views.run import RunsView, RunView
from sim.units import show

TERMS = ()


def finding(runs: RunsView) -> list[str]:
    """A sentence for each pause."""
    return [f"Nothing happens for {show(run.completion_time_s, 's')}." for run in runs.select(PauseView)]


def aside(runs: Sequence[RunView]) -> str:
    """Nothing."""
    return ""


def course(run: RunView, lanes: Lanes) -> str:
    """Nothing."""
    return ""
''',
    "show/tables/pause.py": '''
"""The grid of pauses."""

from __future__ import annotations

from sim.show.grid import Grid, time_cell
from sim.show.views.pause import PauseView
from sim.show.views.run import RunsView


def grids(runs: RunsView, *, wide: bool) -> list[Grid]:
    """A row for each pause."""
    rows = tuple((run.name, time_cell(run.completion_time_s)) for run in runs.select(PauseView))
    return [Grid(title="Pauses", heads=("run", "time"), rows=rows)]
''',
    "show/plots/pause.py": '''
"""Pauses have no plots of their own."""

ALONE = ()
''',
    "show/files/pause.py": '''
"""The timeline of a pause."""

from __future__ import annotations

from sim.show.files.trace import Timeline
from sim.show.views.pause import PauseView


def timeline(run: PauseView, prefix: str) -> Timeline:
    """Nothing happens."""
    return Timeline()
''',
}
"""File below `sim/` -> a kind of workload that is none of ours."""
LINE = '    "pause": "pause",\n'
SCENARIO = """
name: mine
cluster: {hardware: h800, nodes: 2}
workload: {kind: pause, duration: 3 ms}
expect: {completion_time_s: {value: 3 ms, tolerance: 0 %}}
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with one more kind of workload, and a scenario of it."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "sim", folder / "sim", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("hardware", "scenarios"):
        (folder / name).symlink_to(ROOT / name)
    for name, text in TOY.items():
        (folder / "sim" / name).write_text(text.lstrip(), encoding="utf-8")
    table = folder / "sim" / "kinds.py"
    opening = "WORKLOADS = {\n"
    table.write_text(table.read_text(encoding="utf-8").replace(opening, opening + LINE), encoding="utf-8")
    (folder / "mine.yaml").write_text(SCENARIO, encoding="utf-8")
    return folder


def moesim(house: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(house)}
    command = [sys.executable, "-m", "sim", *arguments]
    return subprocess.run(command, cwd=house, env=environment, capture_output=True, text=True, check=False)


def test_another_kind_is_a_file_in_each_room_and_one_line_in_one_table(house: Path) -> None:
    ours = {path.relative_to(ROOT / "sim") for path in (ROOT / "sim").rglob("*.py")}
    theirs = {path.relative_to(house / "sim") for path in (house / "sim").rglob("*.py")}
    assert {str(path) for path in theirs - ours} == set(TOY)
    changed = [path for path in ours if not filecmp.cmp(ROOT / "sim" / path, house / "sim" / path, False)]
    assert changed == [Path("kinds.py")]
    before, after = ((folder / "sim/kinds.py").read_text(encoding="utf-8") for folder in (ROOT, house))
    assert after.replace(LINE, "") == before


def test_another_kind_runs_and_meets_what_is_expected_of_it(house: Path) -> None:
    done = moesim(house, "run", "mine.yaml", "--json", "--no-report")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["metrics"] == {"completion_time_s": 3e-3}
    assert result["expect"][0]["ok"]
    assert result["provenance"]["leaned_on"] == []


def test_another_kind_has_a_report_and_a_table(house: Path) -> None:
    done = moesim(house, "run", "mine.yaml")
    assert done.returncode == 0, done.stderr
    assert "Nothing happens for 3 ms." in done.stderr
    assert "Pauses" in done.stderr
    assert "Nothing happens for 3 ms." in (house / "results/mine/report.html").read_text(encoding="utf-8")


def test_another_kind_is_checked(house: Path) -> None:
    assert moesim(house, "check", "mine.yaml").returncode == 0
    (house / "wrong.yaml").write_text(SCENARIO.replace("duration", "duraton"), encoding="utf-8")
    done = moesim(house, "check", "wrong.yaml")
    assert done.returncode == 2
    assert "wrong.yaml:4:25: workload.duraton: got the unknown key 'duraton'" in done.stderr
    assert "did you mean duration?" in done.stderr


def test_another_kind_is_in_the_schema_and_among_the_words_of_a_message(house: Path) -> None:
    schema = json.loads(moesim(house, "schema", "scenario").stdout)
    assert schema["$defs"]["PauseSpec"]["properties"]["duration"]["type"] == "string"
    assert "pause" in schema["properties"]["workload"]["discriminator"]["mapping"]
    (house / "wrong.yaml").write_text(SCENARIO.replace("kind: pause", "kind: pase"), encoding="utf-8")
    assert "did you mean pause?" in moesim(house, "check", "wrong.yaml").stderr


# --- our own -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WORKLOADS)
def test_every_kind_is_resolved_and_run_by_the_module_that_the_table_names(kind: str) -> None:
    assert set(resolver(kind).specs) == {other for other in WORKLOADS if WORKLOADS[other] == WORKLOADS[kind]}
    assert runner(kind).run.__module__ == f"sim.runs.{WORKLOADS[kind]}"


@pytest.mark.parametrize(
    "module",
    [
        *(f"scenario/{name}" for name in ("descriptions", "draft", "kinds", "resolve", "settings", "specification")),
        *(f"runs/{name}" for name in ("forecast", "kinds", "result", "run")),
        *(f"{path.parent.name}/{path.stem}" for room in ("sweeps", "ladders") for path in (ROOT / "sim" / room).glob("*.py")),
    ],
)  # fmt: skip
def test_what_serves_every_kind_knows_none_by_name(module: str) -> None:
    tree = ast.parse((ROOT / "sim" / f"{module}.py").read_text(encoding="utf-8"))
    kinds = {f"sim.{room}.{name}" for room in ("scenario", "runs") for name in WORKLOADS.values()}
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & kinds


def test_a_kind_does_not_wait_for_the_modules_of_the_others() -> None:
    code = (
        "import sys\nfrom sim.scenario import resolve, settings\n"
        "resolve.resolve(settings.read('deepep-ep16-h800'))\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert "sim.scenario.all_to_all" in loaded
    assert not loaded & {f"sim.scenario.{name}" for name in ("flows", "training", "inference", "serving")}
