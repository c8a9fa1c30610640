"""What takes long and several tests look at: shipped files and groups of published figures, each run once for all of them.

Once, however many processes run the tests: what one of them made it leaves in a folder for the others. Nobody changes it.
"""

from __future__ import annotations

import fcntl
import json
import os
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sim
from sim.sweeps import file as sweep_file
from sim.sweeps import run as sweeping
from sim.sweeps.store import Store
from sim.validation.validate import validate
from sweeping import Here

FOLDER = "MOESIM_TESTS_SHARED"
"""Variable that names the folder, where several processes run the tests."""
VALIDATED = "MOESIM_TESTS_VALIDATED"
"""Variable that names the `validation.json` of `moesim validate --out`, where that has run on this very tree before."""


@cache
def scenario(name: str) -> Any:
    """The result of a shipped scenario."""
    return once(f"scenario-{name}", lambda: sim.run(name))


@cache
def ladder(name: str) -> Any:
    """The document of a shipped ladder."""
    return once(f"ladder-{name}", lambda: sim.ladder(name))


@cache
def sweep(name: str) -> dict[str, Any]:
    """The document of a shipped sweep, run to its end."""

    def ran() -> dict[str, Any]:
        with TemporaryDirectory() as folder, Store(Path(folder) / "sweep.sqlite") as store:
            return sweeping.run(sweep_file.read(name), Here(), store)

    found: dict[str, Any] = once(f"sweep-{name}", ran)
    return found


@cache
def group(name: str) -> dict[str, Any]:
    """A group of published figures, compared."""
    if VALIDATED in os.environ:
        return _validated(os.environ[VALIDATED])[name]
    found: dict[str, Any] = once(f"group-{name}", lambda: validate([name])["groups"][name])
    return found


@cache
def _validated(path: str) -> dict[str, Any]:
    groups: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))["groups"]
    return groups


def once(name: str, make: Callable[[], Any]) -> Any:
    """What `make` returns, from whichever process made it first."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        return make()
    path = Path(folder) / name
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return pickle.loads(path.read_bytes())
        made = make()
        path.write_bytes(pickle.dumps(made))
        return made
