"""What the commands share: options, where files go, consoles, what is said of long work, and a missed tolerance."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim.errors import EXIT_MISSED, MoesimError

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH = 110  # columns, where the output is no terminal
_SLOW_S = 2.0  # what takes longer says what it is doing

out_option = click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for what is written [results/NAME]."
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)


class Missed(MoesimError):
    """A tolerance was missed: exit 1."""

    exit_code = EXIT_MISSED


def folder_of(out: Path | None, name: str, *, several: bool) -> Path:
    if out is None:
        return Path("results") / name
    return out / name if several else out


def console_of(*, stderr: bool = True) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else _WIDTH)


class Progress:
    """Says on standard error what takes longer than two seconds; silent with --json."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.begun = quiet, time.monotonic()

    def __enter__(self) -> Callable[[str], None]:
        return self.say

    def say(self, what: str) -> None:
        if not self.quiet and time.monotonic() - self.begun > _SLOW_S:
            click.echo(f"  {time.monotonic() - self.begun:5.1f} s  {what}", err=True)

    def __exit__(self, *_: object) -> None:
        return None
