"""What all tests share: hypothesis without deadlines, the same examples every time; a browser; the command in an empty folder.

Of several processes each takes whole files, or groups of tests that say so, since tests of a file share what they look at; those
that take longest begin first, lest one of them begins last.
"""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import browser
import shared
from command import Moesim, runner
from results import results as results
from results import runs as runs
from results import steps as steps

# A shell that starts tests in the background has them ignore Ctrl-C, and what they start; tests of Ctrl-C need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Python looks for garbage every 700 new objects, which takes half of the time in which tests are collected.
gc.set_threshold(100_000, *gc.get_threshold()[1:])

settings.register_profile(
    "moesim", deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("moesim")

FIRST = (
    "tests/engine/test_step.py",
    "tests/ground/test_limits.py",
    "tests/cli/test_cli.py",
    "tests/ground/test_kinds.py",
    "layouts-h800",
    "layouts-h100",
    "tests/sweeps/test_sweeps_shipped.py",
    "ladders",
    "scenarios",
    "published",
    "tests/runs/test_laws.py",
    "tests/test_pages.py",
    "tests/answers/test_explain.py",
    "tests/ladders/test_ladders.py",
    "tests/runs/test_oracles.py",
    "tests/show/test_show_ladder.py",
)
"""Groups and files that begin first, in this order: one that needs the loop of a step compiled, some that do not while it is,
and those that take longest, for the last one to begin is what the other processes wait for."""


def pytest_configure(config: pytest.Config) -> None:
    """Where several processes run the tests: what they, and the commands that they start, find in their environment."""
    if getattr(config.option, "dist", "no") == "no":
        return
    folder = tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    os.environ[shared.FOLDER] = folder.name
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each command compiles all of `sim`


def unit(item: pytest.Item) -> str:
    """The name of what one process takes at a time."""
    group = item.get_closest_marker("xdist_group")
    return str(group.args[0]) if group else item.nodeid.partition("::")[0]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        place = {name: i for i, name in enumerate(FIRST)}
        items.sort(key=lambda item: place.get(unit(item), len(place)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was collected stays: there is no garbage in it to look for."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadGroupScheduling

    class Units(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            """The group at the end of a test's name, or its file."""
            group = super()._split_scope(nodeid)
            return group.partition("::")[0] if group == nodeid else group

    if config.option.dist not in ("load", "loadgroup"):
        return None
    config.option.loadscopereorder = False
    return Units(config, log)


@pytest.fixture(scope="module")
def tab() -> Iterator[browser.Tab]:
    """One browser for the tests of a module."""
    with browser.tab() as opened:
        yield opened


@pytest.fixture
def moesim(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Moesim:
    """Run a command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capsys)
