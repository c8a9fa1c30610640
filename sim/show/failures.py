"""Failures: a figure that could not be drawn becomes a note and a warning, and numbers never depend on it.

Why this way: a figure is made of numbers that are on disk already. An error in drawing them is ours, and a person who has
waited for a run is told of it where the figure would stand, once on standard error, and loses nothing. In the tests of this
project such a warning is an error.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sim.errors import MoesimError, shown

Made = TypeVar("Made")


class FigureWarning(UserWarning):
    """A figure, or a whole report, could not be made."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Stands where a figure would."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} could not be drawn ({self.reason}); its numbers are in the result"


def attempt(name: str, make: Callable[[], Made]) -> Made | Failure:
    """Make a figure of a name, or the `Failure` that an error of ours left; a `MoesimError` is none of ours and is raised."""
    try:
        return make()
    except MoesimError:
        raise
    except Exception as error:
        failure = Failure(name, shown(f"{type(error).__name__}: {error}"))
        warnings.warn(FigureWarning(str(failure)), stacklevel=2)
        return failure
