"""Parts that commands share: options, folders of files, consoles, reports on long work, and a missed tolerance."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def folder_of(out: Path | None, name: str, *, several: bool = False) -> Path:
    """Return the folder of a document, checked: `--out`, or one of its name in it where there are several.

    Else results/NAME.
    """
    from sim.show.files import folder

    if out is None:
        return folder.check(Path("results") / name)
    return folder.check(out / name if several else out)


def tell(text: str) -> None:
    """Print a line on standard error."""
    click.echo(text, err=True)


@contextmanager
def figure_notes() -> Iterator[None]:
    """Print each figure that could not be drawn while reports are made in a line, instead of as Python's warning."""
    from sim.show.failures import FigureWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FigureWarning, append=True)
        yield
    for warning in caught:
        if issubclass(warning.category, FigureWarning):
            tell(f"note: the figure {warning.message}")
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def console_of(*, stderr: bool = True) -> Console:
    """A console for people, of a fixed width where there is no terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else _WIDTH)


def progress(quiet: bool) -> Callable[[str], None]:
    """Make a reporter of work that has taken two seconds, on standard error; silent where `quiet`."""
    begun = time.monotonic()

    def say(what: str) -> None:
        if not quiet and time.monotonic() - begun > _SLOW_S:
            click.echo(f"  {time.monotonic() - begun:5.1f} s  {what}", err=True)

    return say
