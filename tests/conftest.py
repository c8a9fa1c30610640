"""What all tests share: hypothesis without deadlines, the same examples every time; a browser; the command in an empty folder."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import browser
from command import Moesim, runner
from results import results as results
from results import runs as runs
from results import steps as steps

# A shell that starts tests in the background has them ignore Ctrl-C, and what they start; tests of Ctrl-C need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "moesim", deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("moesim")


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
