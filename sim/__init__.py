"""moesim: GPU clusters that run mixture-of-experts models, simulated as discrete events.

`import sim; result = sim.run("h800-vs-h100")` does what `moesim run` does; heavy imports wait until they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__version__ = "0.1.0"
__all__ = ["__version__", "ladder", "run"]


def run(spec: str | Path, *, settings: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run a scenario (a path or a shipped name) and return its result document; README describes it."""
    from sim.study.run import run_file

    return run_file(spec, settings)


def ladder(spec: str | Path) -> dict[str, Any]:
    """Run a ladder of design choices (a path or a shipped name) and return its document; README describes it."""
    from sim.explore.ladder import run_file

    return run_file(spec)
